//! The command line of the process.

use std::path::PathBuf;

use clap::Parser;
use ringfence_runtime::telemetry::LogFormat;

/// One cluster's gateway to the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-gateway", version)]
pub(crate) struct Arguments {
    /// The configuration file (mesh-gateway.yaml).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print the effective configuration and exit.
    #[arg(long)]
    pub(crate) dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}
