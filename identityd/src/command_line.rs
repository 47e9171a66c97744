//! The command line of the process.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ringfence_identityd::restore::REVISION_BUMP;
use ringfence_policy::store::StoreId;
use ringfence_runtime::telemetry::LogFormat;

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
