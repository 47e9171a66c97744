//! The store's process: read the configuration, start the member, run until told to stop, drain.

mod command_line;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Parser as _;
use ringfence_identityd::{
    Config, StartError,
    founding::new_store_id,
    restore::{NewStore, restore},
};
use ringfence_runtime::{
    config,
    tasks::{self, Tasks},
    telemetry,
};

use command_line::{Arguments, Command};

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
    if let Some(Command::Restore { snapshot, store_id, bump_revision, other_mesh }) = arguments.command {
        let Some(store) = store_id else { return propose_store_id() };
        let new = NewStore { id: store, bump_revision, other_mesh };
        return match tasks::block_on(restore(&config, &snapshot, new)) {
            Ok(revision) => {
                let directory = config.data_dir.display();
                println!("{directory} is made; store {store} goes on from revision {revision}");
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

/// Every member of the new store must be given the same id, so none is made up for one of them.
fn propose_store_id() -> ExitCode {
    match new_store_id(SystemTime::now()) {
        Ok(store) => fail(
            2,
            &anyhow::anyhow!(
                "a restored store is another one and needs an id, the same on every member: add --store-id {store}"
            ),
        ),
        Err(error) => fail(1, &error.into()),
    }
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("identityd: {error}");
    ExitCode::from(code)
}
