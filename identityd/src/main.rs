//! The store's process: read the configuration, start the member, run until told to stop, drain.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use ringfence_identityd::{Config, StartError};
use ringfence_runtime::{config, tasks::Tasks, telemetry};

/// A member of Ringfence's store.
#[derive(Parser)]
#[command(name = "identityd", version)]
struct Arguments {
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Prints the effective configuration and exits.
    #[arg(long)]
    dump_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config: Config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(2, &error.into()),
    };
    if let Err(error) = config.validate() {
        return fail(2, &anyhow::anyhow!("{}: {error}", arguments.config.display()));
    }
    if arguments.dump_config {
        print!("{}", config::dump(&config));
        return ExitCode::SUCCESS;
    }
    telemetry::init(config.log_format);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref().is_some_and(StartError::is_configuration) => fail(2, &error),
        Err(error) => fail(1, &error),
    }
}

#[tokio::main]
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
