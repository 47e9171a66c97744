//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{
        agent::AgentCommand, bpf::BpfCommand, ca::CaCommand, endpoint::EndpointCommand, monitor::MonitorArguments,
        store::StoreCommand,
    },
    flags::{Consistency, Global, ListCommand, Reading, Wait, protocol},
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
