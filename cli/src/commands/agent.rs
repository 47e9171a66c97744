//! `ringfence agent`: asks the agent of this machine.

mod packet;
mod probe;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use clap::Subcommand;
use comfy_table::Table;
use packet::Protocol;
use ringfence_proto::v1;
use serde::Serialize;

use crate::{
    agent_socket::Agent,
    args::Global,
    failure::Failure,
    output::{self, age, table},
    view::NodeStatusView,
};

const DEFAULT_SOCKET: &str = "/run/ringfence/agent.sock";

/// The agent of this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// What the agent follows and enforces, its endpoints, and what became of packets.
    Status {
        /// The agent's socket.
        #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
    },
    /// What would become of the first packet of a connection, by the rules that are enforced now.
    Probe {
        /// The agent's socket.
        #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Who sends.
        #[arg(long, value_name = "IP", required_unless_present = "batch")]
        from: Option<IpAddr>,
        /// Who receives.
        #[arg(long, value_name = "IP", required_unless_present = "batch")]
        to: Option<IpAddr>,
        /// The destination port; not used for ICMP.
        #[arg(long, required_unless_present = "batch", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
        /// tcp, udp, sctp, icmp, icmpv6 or an IP protocol number.
        #[arg(long, default_value = "tcp")]
        protocol: Protocol,
        /// The source port; another one each time without.
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        source_port: Option<u16>,
        /// Reads packets from standard input, one JSON object a line: {"from": IP, "to": IP, "protocol": "tcp",
        /// "port": N}; answers each with one line {"allow", "reason", "revision"}.
        #[arg(long, conflicts_with_all = ["from", "to", "port", "protocol", "source_port"])]
        batch: bool,
    },
}

/// `agent status`.
#[derive(Debug, Serialize)]
struct AgentView {
    node: NodeStatusView,
    followed_revision: u64,
    gateway: String,
    staleness_ms: u64,
    packets: BTreeMap<String, u64>,
    datapath_features: String,
    endpoints: Vec<LocalEndpointView>,
}

/// An endpoint that the agent was told of.
#[derive(Debug, Serialize)]
struct LocalEndpointView {
    name: String,
    interface: String,
    addresses: Vec<String>,
    labels: Vec<String>,
    identity: u32,
    state: String,
    detail: String,
}

/// Asks the agent and prints its answer.
pub(crate) async fn run(command: AgentCommand, global: &Global) -> Result<(), Failure> {
    match command {
        AgentCommand::Status { socket } => {
            let agent = Agent::connect(&socket, global.timeout).await?;
            let view = status(&agent).await?;
            Ok(output::print(global.output, &view, || status_table(&view))?)
        }
        AgentCommand::Probe { socket, batch: true, .. } => {
            probe::batch(&Agent::connect(&socket, global.timeout).await?).await
        }
        AgentCommand::Probe { socket, from, to, port, protocol, source_port, batch: false } => {
            let (Some(from), Some(to), Some(port)) = (from, to, port) else {
                return Err(Failure::Usage { reason: "give --from, --to and --port, or --batch".to_owned() });
            };
            let packet = packet::ProbePacket { from, to, protocol, port, source_port };
            let agent = Agent::connect(&socket, global.timeout).await?;
            let answer = probe::ask(&agent, &packet).await?;
            Ok(output::print(global.output, &answer, || answer.table())?)
        }
    }
}

async fn status(agent: &Agent) -> Result<AgentView, Failure> {
    let status = agent.call("status", async |mut client| client.status(v1::AgentStatusRequest {}).await).await?;
    let endpoints = agent
        .call("endpoints", async |mut client| client.list_endpoints(v1::ListLocalEndpointsRequest {}).await)
        .await?;
    Ok(AgentView {
        node: status.node.unwrap_or_default().into(),
        followed_revision: status.followed_revision,
        gateway: status.gateway,
        staleness_ms: status.staleness_ms,
        datapath_features: status.datapath_features,
        packets: status.packets.into_iter().collect(),
        endpoints: endpoints.endpoints.into_iter().map(Into::into).collect(),
    })
}

impl From<v1::list_local_endpoints_response::Entry> for LocalEndpointView {
    fn from(entry: v1::list_local_endpoints_response::Entry) -> Self {
        let endpoint = entry.endpoint.unwrap_or_default();
        Self {
            name: endpoint.name,
            interface: endpoint.interface,
            addresses: endpoint.addresses,
            labels: endpoint.labels,
            identity: entry.identity,
            state: entry.state,
            detail: entry.detail,
        }
    }
}

fn status_table(view: &AgentView) -> Table {
    let node = &view.node;
    let features = &view.datapath_features;
    let datapath = if features.is_empty() { node.datapath.clone() } else { format!("{} ({features})", node.datapath) };
    let gateway = if view.gateway.is_empty() { "none" } else { &view.gateway };
    let mut rows = vec![
        ["node".to_owned(), format!("{}/{}", node.cluster, node.name)],
        ["datapath".to_owned(), datapath],
        ["realised revision".to_owned(), node.realised_revision.to_string()],
        ["followed revision".to_owned(), view.followed_revision.to_string()],
        ["gateway".to_owned(), gateway.to_owned()],
        ["staleness".to_owned(), age(view.staleness_ms)],
    ];
    rows.extend(node.problems.iter().map(|problem| ["problem".to_owned(), problem.clone()]));
    rows.extend(view.endpoints.iter().map(|endpoint| {
        let LocalEndpointView { name, interface, addresses, identity, state, detail, .. } = endpoint;
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        let value = format!("{state}{detail}, identity {identity}, {interface}, {}", addresses.join(","));
        [format!("endpoint {name}"), value]
    }));
    // There are a dozen reasons, of which a node sees a few.
    let seen = view.packets.iter().filter(|(_, count)| **count > 0);
    rows.extend(seen.map(|(reason, count)| [format!("packets {reason}"), count.to_string()]));
    table(["WHAT", "VALUE"], rows)
}
