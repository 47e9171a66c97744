//! `ringfence agent`: asks the agent of this machine.

pub(crate) mod packet;
mod probe;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use clap::{Subcommand, ValueEnum};
use comfy_table::Table;
use packet::Protocol;
use ringfence_proto::v1;
use serde::Serialize;

use crate::{
    agent_socket::Agent,
    failure::Failure,
    flags::Global,
    output::{self, age, table},
    view::NodeStatusView,
};

pub(crate) const DEFAULT_SOCKET: &str = "/run/ringfence/agent.sock";

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
    /// Puts an endpoint under audit: what policies would refuse to it or from it is reported and passes. It lasts until
    /// it is switched off, or for an endpoint of the endpoints file until the agent restarts.
    Audit {
        /// The agent's socket.
        #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// The endpoint's name.
        endpoint: String,
        /// Whether it is to be under audit.
        #[arg(value_enum)]
        state: Switch,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `agent status`.
#[derive(Debug, Serialize)]
struct AgentView {
    node: NodeStatusView,
    followed_revision: u64,
    records: u64,
    scope: String,
    gateway: String,
    staleness_ms: u64,
    policy_enforcement: String,
    policy_audit_mode: bool,
    packets: BTreeMap<String, u64>,
    datapath_features: String,
    tallies: BTreeMap<String, u64>,
    verification: VerificationView,
    endpoints: Vec<LocalEndpointView>,
}

/// What reading the datapath's maps back has found.
#[derive(Debug, Default, Serialize)]
struct VerificationView {
    interval_ms: u64,
    runs: u64,
    age_ms: u64,
    repaired_served: u64,
    repaired_unserved: u64,
    repair_age_ms: u64,
    problem: String,
}

/// An endpoint that the agent was told of.
#[derive(Debug, Serialize)]
struct LocalEndpointView {
    name: String,
    interface: String,
    addresses: Vec<String>,
    labels: Vec<String>,
    policy_audit_mode: bool,
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
        AgentCommand::Audit { socket, endpoint, state } => {
            let agent = Agent::connect(&socket, global.timeout).await?;
            let request = v1::SetEndpointAuditRequest { name: endpoint.clone(), audit: state == Switch::On };
            agent.call("audit", async |mut client| client.set_endpoint_audit(request).await).await?;
            let word = if state == Switch::On { "under audit" } else { "enforced" };
            Ok(output::line(&format!("endpoint {endpoint} is {word}"))?)
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
        records: status.records,
        scope: status.scope,
        gateway: status.gateway,
        staleness_ms: status.staleness_ms,
        datapath_features: status.datapath_features,
        policy_enforcement: status.policy_enforcement,
        policy_audit_mode: status.policy_audit_mode,
        packets: status.packets.into_iter().collect(),
        tallies: status.tallies.into_iter().collect(),
        verification: status.verification.map(Into::into).unwrap_or_default(),
        endpoints: endpoints.endpoints.into_iter().map(Into::into).collect(),
    })
}

impl From<v1::Verification> for VerificationView {
    fn from(verification: v1::Verification) -> Self {
        Self {
            interval_ms: verification.interval_ms,
            runs: verification.runs,
            age_ms: verification.age_ms,
            repaired_served: verification.repaired_served,
            repaired_unserved: verification.repaired_unserved,
            repair_age_ms: verification.repair_age_ms,
            problem: verification.problem,
        }
    }
}

impl VerificationView {
    fn text(&self) -> String {
        let Self { interval_ms, runs, age_ms, repaired_served, repaired_unserved, repair_age_ms, problem } = self;
        if *interval_ms == 0 {
            return "never: verify_interval_ms is 0".to_owned();
        }
        if *runs == 0 {
            return "not yet".to_owned();
        }
        let last = format!("{} ago", age(*age_ms));
        let repaired = repaired_served + repaired_unserved;
        match (problem.as_str(), repaired) {
            ("", 0) => format!("{last}, nothing changed by others"),
            ("", _) => format!(
                "{last}; {repaired} entries that others had changed were repaired ({repaired_served} of them in force), last {} ago",
                age(*repair_age_ms)
            ),
            (problem, _) => format!("{last}, not finished: {problem}"),
        }
    }
}

impl From<v1::list_local_endpoints_response::Entry> for LocalEndpointView {
    fn from(entry: v1::list_local_endpoints_response::Entry) -> Self {
        let endpoint = entry.endpoint.unwrap_or_default();
        Self {
            name: endpoint.name,
            interface: endpoint.interface,
            addresses: endpoint.addresses,
            labels: endpoint.labels,
            policy_audit_mode: endpoint.policy_audit_mode,
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
    let of = match view.scope.as_str() {
        "view" => " (what this node needs of the mesh)",
        "mesh" => " (the whole mesh: the gateway serves no views, or the node has too many addresses for one)",
        _ => "",
    };
    let records = format!("{}{of}", view.records);
    let mut rows = vec![
        ["node".to_owned(), format!("{}/{}", node.cluster, node.name)],
        ["datapath".to_owned(), datapath],
        ["realised revision".to_owned(), node.realised_revision.to_string()],
        ["followed revision".to_owned(), view.followed_revision.to_string()],
        ["records".to_owned(), records],
        ["gateway".to_owned(), gateway.to_owned()],
        ["staleness".to_owned(), age(view.staleness_ms)],
    ];
    if !view.policy_enforcement.is_empty() {
        let audit = if view.policy_audit_mode { ", under audit: nothing is refused" } else { "" };
        rows.push(["policy enforcement".to_owned(), format!("{}{audit}", view.policy_enforcement)]);
        rows.push(["maps read back".to_owned(), view.verification.text()]);
    }
    rows.extend(node.problems.iter().map(|problem| ["problem".to_owned(), problem.clone()]));
    rows.extend(view.endpoints.iter().map(|endpoint| {
        let LocalEndpointView { name, interface, addresses, identity, state, detail, .. } = endpoint;
        let audit = if endpoint.policy_audit_mode { " (audit)" } else { "" };
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        let value = format!("{state}{audit}{detail}, identity {identity}, {interface}, {}", addresses.join(","));
        [format!("endpoint {name}"), value]
    }));
    // There are a dozen reasons, of which a node sees a few.
    let seen = view.packets.iter().filter(|(_, count)| **count > 0);
    rows.extend(seen.map(|(reason, count)| [format!("packets {reason}"), count.to_string()]));
    table(["WHAT", "VALUE"], rows)
}
