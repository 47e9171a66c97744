//! The store's process: read the configuration, start the member, run until told to stop, drain.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use ringfence_identityd::{
    Config, StartError,
    restore::{REVISION_BUMP, restore},
};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry::{self, LogFormat},
};

/// A member of Ringfence's store.
#[derive(Parser)]
#[command(name = "identityd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/ringfence/identityd.yaml")]
    config: PathBuf,
    /// Prints the effective configuration and exits.
    #[arg(long)]
    dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Subcommand)]
enum Command {
    /// Makes this member's data directory from a backup, as the beginning of a new store; then exits. Do it on every
    /// member of 'members', with the same file, while none of the old store runs.
    Restore {
        /// What 'ringfence store snapshot save' made.
        #[arg(long, value_name = "FILE")]
        snapshot: PathBuf,
        /// How much the revision is raised: more than the old store can have made since the backup.
        #[arg(long, value_name = "NUMBER", default_value_t = REVISION_BUMP)]
        bump_revision: u64,
    },
}

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
    if let Some(Command::Restore { snapshot, bump_revision }) = arguments.command {
        return match tasks::block_on(restore(&config, &snapshot, bump_revision)) {
            Ok(revision) => {
                println!("{} is made; the store goes on from revision {revision}", config.data_dir.display());
                ExitCode::SUCCESS
            }
            Err(error) => fail(1, &error.into()),
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
