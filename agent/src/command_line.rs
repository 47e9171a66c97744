//! The command line of the process.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ringfence_runtime::telemetry::LogFormat;

/// The owner of one node's datapath.
#[derive(Debug, Parser)]
#[command(name = "ringfence-agent", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The configuration file (agent.yaml).
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/ringfence/agent.yaml")]
    pub(crate) config: PathBuf,
    /// Print the effective configuration and exit.
    #[arg(long)]
    pub(crate) dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// End enforcement on this node: take the programs off all interfaces.
    Uninstall,
}
