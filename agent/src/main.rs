//! The `ringfence-agent` process: parse, start, run until told to stop, drain. Enforcement stays in place.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use ringfence_agent::{Agent, Config, uninstall::uninstall};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry::{self, LogFormat},
};

const USAGE: u8 = 2;

/// The owner of one node's datapath.
#[derive(Debug, Parser)]
#[command(name = "ringfence-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file (agent.yaml).
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/ringfence/agent.yaml")]
    config: PathBuf,
    /// Print the effective configuration and exit.
    #[arg(long)]
    dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// End enforcement on this node: take the programs off all interfaces.
    Uninstall,
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
    if let Some(Command::Uninstall) = arguments.command {
        let report = |done| println!("{done}");
        return uninstall(&config).map(report).map_or_else(|error| fail(1, &error), |()| ExitCode::SUCCESS);
    }
    telemetry::init(config.log_format);
    let mut tasks = Tasks::new();
    if let Err(error) = Agent::start(&config, &mut tasks) {
        return fail(if error.is_configuration() { USAGE } else { 1 }, &error);
    }
    match tasks.run(Duration::from_millis(config.drain_timeout_ms)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => fail(1, &ended),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ringfence-agent: {error}");
    ExitCode::from(code)
}
