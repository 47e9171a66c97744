//! The store's process: read the configuration, start the member, run until told to stop, drain.

mod allocator;
mod command_line;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use ringfence_identityd::{Config, StartError};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry,
};

use command_line::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut config: Config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(2, &error.into()),
    };
    if let Some(format) = arguments.log_format {
        config.log_format = format;
    }
    if let Err(error) = config.validate() {
        return fail(2, &anyhow::anyhow!("{}: {error}", arguments.config.display()));
    }
    if arguments.dump_config {
        print!("{}", config::dump(&config));
        return ExitCode::SUCCESS;
    }
    telemetry::init(config.log_format);
    if let Some(command) = arguments.command {
        return match command.run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.exit_code(), &error.into()),
        };
    }
    match tasks::block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref().is_some_and(StartError::is_configuration) => fail(2, &error),
        Err(error) => fail(1, &error),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let grace = Duration::from_millis(config.drain_timeout_ms);
    let mut tasks = Tasks::new();
    ringfence_identityd::run(config, &mut tasks).await?;
    Ok(tasks.run(grace).await?)
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("identityd: {error}");
    ExitCode::from(code)
}
