//! The `mesh-gateway` process: parse, start, run until told to stop, drain.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use ringfence_mesh_gateway::{Config, Gateway};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry::{self, LogFormat},
};

/// Exit code for a wrong command line or configuration.
const USAGE: u8 = 2;

/// One cluster's gateway to the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-gateway", version)]
struct Arguments {
    /// The configuration file (mesh-gateway.yaml).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the effective configuration and exit.
    #[arg(long)]
    dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

fn main() -> ExitCode {
    tasks::block_on(run())
}

async fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let mut config: Config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    if let Some(format) = arguments.log_format {
        config.log_format = format;
    }
    if arguments.dump_config {
        print!("{}", config::dump(&config));
        return ExitCode::SUCCESS;
    }
    telemetry::init(config.log_format);
    let mut tasks = Tasks::new();
    if let Err(error) = Gateway::start(&config, &mut tasks).await {
        return fail(if error.is_configuration() { USAGE } else { 1 }, &error);
    }
    match tasks.run(Duration::from_millis(config.drain_timeout_ms)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => fail(1, &ended),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("mesh-gateway: {error}");
    ExitCode::from(code)
}
