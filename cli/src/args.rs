//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    commands::{agent::AgentCommand, ca::CaCommand},
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
    /// Endpoints: workloads with addresses.
    #[command(subcommand)]
    Endpoint(ListCommand),
    /// Clusters of the mesh.
    #[command(subcommand)]
    Cluster(ListCommand),
    /// Nodes, and what each one enforces.
    #[command(subcommand)]
    Node(ListCommand),
    /// The agent of this machine, through its local socket.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The mesh's certificates.
    #[command(subcommand)]
    Ca(CaCommand),
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
