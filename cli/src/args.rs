//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringfence_policy::{compat::Compat, explain::parse_protocol, record::NamedPort};

use crate::{
    commands::{
        agent::AgentCommand, bpf::BpfCommand, ca::CaCommand, endpoint::EndpointCommand, monitor::MonitorArguments,
        store::StoreCommand,
    },
    output::Format,
};

/// Identity-aware network policy for several clusters: look at a mesh, and change it.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, max_term_width = 120)]
pub(crate) struct Arguments {
    /// Flags that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// A gateway or store member, host:port; several are tried in order.
    #[arg(long = "server", env = "RINGFENCE_SERVER", value_delimiter = ',', global = true, value_name = "HOST:PORT")]
    pub(crate) servers: Vec<String>,
    /// A directory with ca.crt, tls.crt and tls.key.
    #[arg(long, env = "RINGFENCE_TLS_DIR", global = true, value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// The mesh's certificate authority (PEM); overrides --tls-dir.
    #[arg(long, env = "RINGFENCE_CA", global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your certificate (PEM); overrides --tls-dir.
    #[arg(long, env = "RINGFENCE_CERTIFICATE", global = true, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Your certificate's key (PEM); overrides --tls-dir.
    #[arg(long, env = "RINGFENCE_KEY", global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How long one request may take.
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// How to print the result.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the mesh's members, gateways and nodes are doing.
    Status,
    /// Policies: apply, look at, remove.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Identities: the numbers of label sets.
    #[command(subcommand)]
    Identity(ListCommand),
    /// Endpoints: workloads with addresses. Those of this machine are added and deleted through its agent.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Clusters of the mesh.
    #[command(subcommand)]
    Cluster(ListCommand),
    /// Nodes, and what each one enforces.
    #[command(subcommand)]
    Node(ListCommand),
    /// Lists other records: services, CIDR groups, DNS names, blocks of numbers, settings.
    Get {
        /// What to list.
        #[arg(value_enum)]
        kind: GetKind,
        /// Whether the answer must hold everything that was acknowledged before, or may be old.
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
    },
    /// The settings of the mesh; `get settings` shows them.
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// The agent of this machine, through its local socket.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// What packets of this node meet from now on: connections that begin, verdicts that change, drops.
    Monitor(Box<MonitorArguments>),
    /// What the kernel holds on this node: its maps, read back and decoded.
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// The store itself: its members, snapshots of it, its history.
    #[command(subcommand)]
    Store(StoreCommand),
    /// The mesh's certificates.
    #[command(subcommand)]
    Ca(CaCommand),
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// All members, learners too.
    List,
    /// Adds the member that runs at an address (with 'join: true') as a learner: it gets the log and does not vote yet.
    Add {
        /// HOST:PORT under which the other members reach it.
        address: String,
    },
    /// Lets a learner vote, once it has caught up.
    Promote {
        /// The member's id.
        id: u64,
    },
    /// Removes a member. Stop its process afterwards.
    Remove {
        /// The member's id.
        id: u64,
    },
    /// Makes another member the leader.
    MoveLeader {
        /// The new leader's id; the voter with the longest log without.
        id: Option<u64>,
    },
}

/// Lists of records.
#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// All of them.
    List {
        /// Whether the answer must hold everything that was acknowledged before, or may be old.
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
    },
}

/// What to do with the mesh's settings.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// Changes what is given and leaves the rest.
    Set(SettingsArguments),
}

/// Settings to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct SettingsArguments {
    /// Which labels make an identity: [SOURCE:][!]EXPRESSION, on top of the built-in entries; several are given one by
    /// one, and replace all that were set. Endpoints are numbered anew as their agents see the change.
    #[arg(long = "label-filter", value_name = "ENTRY")]
    pub(crate) label_filter: Option<Vec<String>>,
    /// Whether the entries stand alone, without the built-in ones.
    #[arg(long, value_name = "BOOLEAN")]
    pub(crate) label_filter_replaces_defaults: Option<bool>,
    /// How long an identity that nobody refers to keeps its number.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) identity_grace_ms: Option<u64>,
    /// How long a number rests before it is used again.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) quarantine_ms: Option<u64>,
    /// How long a node may be silent.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) node_lease_ms: Option<u64>,
    /// How much later a silent node's endpoints are removed.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) node_grace_ms: Option<u64>,
}

/// What `get` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetKind {
    /// Services, as policies refer to them.
    #[value(alias = "service", alias = "svc")]
    Services,
    /// CIDR groups.
    #[value(name = "cidrgroups", alias = "cidrgroup", alias = "ccg")]
    CidrGroups,
    /// What DNS names stand for.
    #[value(alias = "fqdn")]
    Fqdns,
    /// Numbers that gateways may give out while they are cut off.
    #[value(alias = "block")]
    Blocks,
    /// What holds for the whole mesh.
    Settings,
}

/// How current an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// Everything that was acknowledged before; needs a quorum.
    Linearizable,
    /// What the server has; its age is printed.
    Stale,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Creates or replaces the objects of the files, all of them as one revision or none.
    Apply {
        /// YAML or JSON files, directories of them, or - for standard input.
        #[arg(short, long = "filename", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only checks the files.
        #[arg(long)]
        dry_run: bool,
        /// Waiting for the nodes.
        #[command(flatten)]
        wait: Wait,
    },
    /// Shows policies; -o yaml shows them as they were applied.
    Get {
        /// [KIND/][NAMESPACE/]NAME, or a kind and then [NAMESPACE/]NAME; all without names.
        names: Vec<String>,
        /// Whether the answer must hold everything that was acknowledged before, or may be old.
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
    },
    /// Removes policies, all of them as one revision or none.
    Delete {
        /// [KIND/][NAMESPACE/]NAME, or a kind and then [NAMESPACE/]NAME.
        #[arg(required_unless_present = "files")]
        names: Vec<String>,
        /// The objects of these files.
        #[arg(short, long = "filename", conflicts_with = "names", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Waiting for the nodes.
        #[command(flatten)]
        wait: Wait,
    },
    /// Shows everything that is wrong with files, or probably not meant; needs no server without --against-store.
    Validate {
        /// YAML or JSON files, directories of them, or - for standard input.
        #[arg(short, long = "filename", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A YAML file with identities: shows rules that do nothing for any of them, too.
        #[arg(long, value_name = "FILE")]
        identities: Option<PathBuf>,
        /// Shows rules that do nothing for any identity of the store, too.
        #[arg(long, conflicts_with = "identities")]
        against_store: bool,
        /// How policies are read.
        #[command(flatten)]
        reading: Reading,
    },
    /// Why a flow passes or does not: under the policies of files, or else of the store.
    Explain(Box<ExplainArguments>),
    /// Checks files of expected verdicts; needs no server. Made for continuous integration.
    Test {
        /// YAML files with policies, identities and cases.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Which verdicts change from some policies to others.
    Diff {
        /// The old policies; those of the store without.
        #[arg(short, long = "filename", num_args = 1.., value_name = "OLD")]
        files: Vec<PathBuf>,
        /// The new policies.
        #[arg(long, required = true, num_args = 1.., value_name = "NEW")]
        to: Vec<PathBuf>,
        /// A YAML file with identities; those of the store without.
        #[arg(long, value_name = "FILE")]
        identities: Option<PathBuf>,
        /// How policies are read.
        #[command(flatten)]
        reading: Reading,
    },
    /// Each selector, and how many identities it selects.
    Selectors {
        /// The policies; those of the store without.
        #[arg(short, long = "filename", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A YAML file with identities; those of the store without.
        #[arg(long, value_name = "FILE")]
        identities: Option<PathBuf>,
        /// How policies are read.
        #[command(flatten)]
        reading: Reading,
    },
}

/// A flow to be explained.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("direction").required(true))]
pub(crate) struct ExplainArguments {
    /// The policies; those of the store without.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How policies are read.
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// The endpoint that the policies are applied to: labels (app=web,io.kubernetes.pod.namespace=shop), or the number
    /// of an identity of the store.
    #[arg(long, value_name = "LABELS")]
    pub(crate) subject: String,
    /// The other side: labels, an entity (world, host, …), an address, a DNS name, or the number of an identity.
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: String,
    /// The peer sends to the subject.
    #[arg(long, group = "direction")]
    pub(crate) ingress: bool,
    /// The subject sends to the peer.
    #[arg(long, group = "direction")]
    pub(crate) egress: bool,
    /// The destination port; the message type for ICMP.
    #[arg(long)]
    pub(crate) port: u16,
    /// TCP, UDP, SCTP, ICMP or ICMPv6.
    #[arg(long, default_value = "TCP", value_parser = protocol)]
    pub(crate) protocol: u8,
    /// A request of the flow: "METHOD /path" or "METHOD /path host".
    #[arg(long, value_name = "REQUEST")]
    pub(crate) http: Option<String>,
    /// A name that is asked for in the flow.
    #[arg(long, conflicts_with = "http", value_name = "NAME")]
    pub(crate) dns: Option<String>,
    /// The subject's endpoint or node is under audit: it refuses nothing, and reports what it would refuse.
    #[arg(long)]
    pub(crate) audit: bool,
}

/// How policies are read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reading {
    /// The local cluster: what entity "cluster" means, and where labels without a cluster are.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) cluster: String,
    /// Whose reading of the policies counts.
    #[arg(long, value_enum, default_value = "ringfence")]
    pub(crate) compat: CompatWord,
    /// What the name of a port stands for, at both ends: http=8080 or dns=53/UDP.
    #[arg(long = "named-port", value_parser = named_port, value_name = "NAME=PORT")]
    pub(crate) named_ports: Vec<NamedPort>,
}

/// Whose reading of policies counts where Ringfence and Cilium differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CompatWord {
    /// What stays closed.
    #[default]
    Ringfence,
    /// Cilium's, traps included.
    Cilium,
}

impl From<CompatWord> for Compat {
    fn from(word: CompatWord) -> Self {
        match word {
            CompatWord::Ringfence => Self::Ringfence,
            CompatWord::Cilium => Self::Cilium,
        }
    }
}

pub(crate) fn named_port(text: &str) -> Result<NamedPort, String> {
    let wrong = || "write NAME=PORT or NAME=PORT/PROTOCOL, such as http=8080".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (port, word) = rest.split_once('/').unwrap_or((rest, "TCP"));
    let port = port.parse().map_err(|_| wrong())?;
    Ok(NamedPort { name: name.to_owned(), protocol: protocol(word)?, port })
}

fn protocol(text: &str) -> Result<u8, String> {
    parse_protocol(text).ok_or_else(|| "not a protocol: write TCP, UDP, SCTP, ICMP or ICMPv6".to_owned())
}

/// Waiting for the nodes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Returns when every node serves packets with the new revision; names those that do not.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait for them.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait_timeout: Duration,
}

/// Seconds, also parts of one: between a millisecond and a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds between 0.001 and 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands in the console blocks of a page, variables before them left out.
    fn commands(page: &str) -> Vec<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations").join(page);
        let text = std::fs::read_to_string(path).unwrap();
        let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
        let command = |line: &str| {
            let words = line.split(' ').skip_while(|word| word.contains('=') || *word == "export");
            words.collect::<Vec<_>>().join(" ")
        };
        blocks.flat_map(str::lines).map(command).filter(|line| line.starts_with("ringfence ")).collect()
    }

    #[test]
    fn every_command_of_the_operators_pages_is_one() {
        let all: Vec<String> = ["store.md", "certificates.md"].into_iter().flat_map(commands).collect();
        assert!(all.len() > 25, "{all:#?}");
        for line in all {
            let line = line.replace("$STORE_ID", "01a2d0c5-1c00-7aaa-8bbb-0123456789ab");
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|error| error.to_string()));
        }
    }
}
