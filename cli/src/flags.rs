//! Flags that several commands take.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use ringfence_policy::{compat::Compat, explain::parse_protocol, record::NamedPort};

use crate::output::Format;

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

pub(crate) fn protocol(text: &str) -> Result<u8, String> {
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
