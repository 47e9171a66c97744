//! The `ringfence-agent` process: parse, start, run until told to stop, drain. Enforcement stays in place.

mod command_line;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use ringfence_agent::{Agent, Config, uninstall::uninstall};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry,
};

use command_line::{Arguments, Command};

const USAGE: u8 = 2;

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
    if let Err(error) = config.validate() {
        eprintln!("ringfence-agent: {}: {error}", arguments.config.display());
        return ExitCode::from(USAGE);
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
