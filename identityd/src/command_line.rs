//! The command line of the process.

use std::{path::PathBuf, time::SystemTime};

use clap::{Parser, Subcommand};
use ringfence_identityd::{
    Config,
    founding::new_store_id,
    restore::{NewStore, REVISION_BUMP, RestoreError, restore},
};
use ringfence_policy::store::StoreId;
use ringfence_runtime::{tasks, telemetry::LogFormat};

/// A member of Ringfence's store.
#[derive(Parser)]
#[command(name = "identityd", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The configuration file (YAML).
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/ringfence/identityd.yaml")]
    pub(crate) config: PathBuf,
    /// Prints the effective configuration and exits.
    #[arg(long)]
    pub(crate) dump_config: bool,
    /// How log lines look, text or json; overrides the configuration file.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes this member's data directory from a backup, as the beginning of a new store; then exits. Do it on every
    /// member of 'members', with the same file and the same id for the new store.
    Restore {
        /// What 'ringfence store snapshot save' made.
        #[arg(long, value_name = "FILE")]
        snapshot: PathBuf,
        /// The new store's id, the same on every member, which no store has had yet. Without it one is proposed.
        #[arg(long, value_name = "UUID")]
        store_id: Option<StoreId>,
        /// How much the revision is raised at least: more than the old store can have made since the backup.
        #[arg(long, value_name = "NUMBER", default_value_t = REVISION_BUMP)]
        bump_revision: u64,
        /// Takes a backup of a mesh with other certificate authorities, too.
        #[arg(long)]
        other_mesh: bool,
    },
}

/// What was asked for was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Every member of the new store must be given the same id, so none is made up for one of them.
    #[error("a restored store is another one and needs an id, the same on every member: add --store-id {proposed}")]
    NoStoreId {
        /// One that no store has had yet.
        proposed: StoreId,
    },
    #[error("the system gives no random numbers: {0}")]
    NoRandomNumbers(std::io::Error),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl CommandError {
    /// 2 if the command line is to blame.
    pub(crate) const fn exit_code(&self) -> u8 {
        if matches!(self, Self::NoStoreId { .. }) { 2 } else { 1 }
    }
}

impl Command {
    /// Runs it to its end.
    ///
    /// # Errors
    /// `CommandError`; nothing is there then that was not before.
    pub(crate) fn run(self, config: &Config) -> Result<(), CommandError> {
        let Self::Restore { snapshot, store_id, bump_revision, other_mesh } = self;
        let Some(store) = store_id else {
            let proposed = new_store_id(SystemTime::now()).map_err(CommandError::NoRandomNumbers)?;
            return Err(CommandError::NoStoreId { proposed });
        };
        let new = NewStore { id: store, bump_revision, other_mesh };
        let revision = tasks::block_on(restore(config, &snapshot, new))?;
        println!("{} is made; store {store} goes on from revision {revision}", config.data_dir.display());
        Ok(())
    }
}
