//! `ringfence endpoint add|delete|list`: this node's endpoints through its agent; everybody's from the store.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use ringfence_policy::record::NamedPort;
use ringfence_proto::v1;

use super::{agent::DEFAULT_SOCKET, list};
use crate::{
    agent_socket::Agent,
    connect::Servers,
    failure::Failure,
    flags::{Consistency, Global, ListCommand, named_port},
    output::line,
};

/// What to do with endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Declares an endpoint of this machine, or replaces one: its agent puts the device under enforcement and registers
    /// it. Returns when the store has it. It is kept until it is deleted.
    Add(AddArguments),
    /// Deletes an endpoint of this machine that was added: from the mesh first, so that it is refused and never open
    /// while it goes.
    Delete {
        /// The endpoint's name.
        name: String,
        /// The agent's socket.
        #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
    },
    /// All endpoints of the mesh.
    List {
        /// Whether the answer must hold everything that was acknowledged before, or may be old.
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
    },
}

/// An endpoint of this machine.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// Unique on the node.
    name: String,
    /// The device on this machine's side that all of its packets pass, such as veth-web-1.
    #[arg(long, value_name = "DEVICE")]
    interface: String,
    /// An address of it; give several one by one.
    #[arg(long = "address", value_name = "IP", required = true)]
    addresses: Vec<IpAddr>,
    /// A label, SOURCE:KEY=VALUE such as k8s:app=web; give several one by one.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// A name of a port that policies may use: http=8080 or dns=53/UDP; give several one by one.
    #[arg(long = "named-port", value_parser = named_port, value_name = "NAME=PORT")]
    named_ports: Vec<NamedPort>,
    /// Under audit: what policies would refuse to it or from it is reported and passes.
    #[arg(long)]
    audit: bool,
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(crate) async fn run(command: EndpointCommand, global: &Global) -> Result<(), Failure> {
    match command {
        EndpointCommand::Add(arguments) => {
            let agent = Agent::connect(&arguments.socket, global.timeout).await?;
            let endpoint = arguments.endpoint();
            let name = endpoint.name.clone();
            let put = agent.call("endpoint add", async |mut client| client.put_endpoint(endpoint).await).await?;
            let word = if put.changed { "added" } else { "unchanged" };
            Ok(line(&format!("endpoint {name} {word} (identity {}, revision {})", put.identity, put.revision))?)
        }
        EndpointCommand::Delete { name, socket } => {
            let agent = Agent::connect(&socket, global.timeout).await?;
            let request = v1::DeleteLocalEndpoint { name: name.clone() };
            let deleted =
                agent.call("endpoint delete", async |mut client| client.delete_endpoint(request).await).await?;
            // 0 where the store had never heard of it.
            let at = if deleted.revision == 0 { String::new() } else { format!(" (revision {})", deleted.revision) };
            Ok(line(&format!("endpoint {name} deleted{at}"))?)
        }
        EndpointCommand::List { consistency } => {
            let command = ListCommand::List { consistency };
            list::run(list::endpoints, &command, &mut Servers::new(global)?, global.output).await
        }
    }
}

impl AddArguments {
    fn endpoint(self) -> v1::LocalEndpoint {
        let named_port =
            |port: NamedPort| v1::NamedPort { name: port.name, protocol: port.protocol.into(), port: port.port.into() };
        v1::LocalEndpoint {
            name: self.name,
            interface: self.interface,
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            labels: self.labels,
            named_ports: self.named_ports.into_iter().map(named_port).collect(),
            policy_audit_mode: self.audit,
        }
    }
}
