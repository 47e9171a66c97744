//! The `mesh-gateway` process: parse, start, run until told to stop, drain.

mod command_line;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use ringfence_mesh_gateway::{Config, Gateway};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry,
};

use command_line::Arguments;

/// Exit code for a wrong command line or configuration.
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
