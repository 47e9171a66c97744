//! `ringfence store`: the store itself, member by member.
//!
//! ```text
//! --server ─ Mesh.Status ─► the members' addresses ─ Maintenance, each member ─► one row each
//! backup parts ─► FILE.part ─ checked, synced ─► FILE
//! ```

mod members;
mod membership;
mod snapshot;

use std::path::PathBuf;

use clap::Subcommand;
use ringfence_policy::store::StoreId;

use crate::{connect::Servers, failure::Failure, flags::Global};
use membership::MemberCommand;

/// The store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Every member: who leads, how far each one is, what it takes on disk, until when its certificate is good.
    Status,
    /// Who belongs to the store, and who leads it.
    #[command(subcommand)]
    Member(MemberCommand),
    /// The digest of every member's state after the same log entry: they must be equal.
    Hash,
    /// Makes every member forget the steps up to a revision; who resumes from before gets a snapshot.
    Compact {
        /// The revision.
        revision: u64,
    },
    /// A file with everything that the store holds.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Saves a snapshot under a name of its own and removes older ones; made for timers.
    Backup {
        /// Where the files are.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// How many are kept, the new one included.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
        keep: u16,
    },
}

/// Snapshot files.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Saves what a member holds; the file is checked before it gets its name.
    Save {
        /// A new file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Checks a file and shows what is in it; needs no server.
    Verify {
        /// What 'snapshot save' made.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Makes a member's data directory from a file, as the beginning of a new store: runs 'identityd restore' here.
    Restore {
        /// What 'snapshot save' made.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The member's configuration file, which names its data directory and all members of the new store.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The new store's id, the same on every member; without it one is proposed.
        #[arg(long, value_name = "UUID")]
        store_id: Option<StoreId>,
        /// Takes a file of a mesh with other certificate authorities, too.
        #[arg(long)]
        other_mesh: bool,
        /// The program.
        #[arg(long, default_value = "identityd", value_name = "PROGRAM")]
        identityd: PathBuf,
    },
}

/// Runs the command that was asked for.
pub(crate) async fn run(command: StoreCommand, global: &Global) -> Result<(), Failure> {
    match command {
        StoreCommand::Status => members::status(global).await,
        StoreCommand::Member(command) => membership::run(&command, &mut Servers::members(global)?, global.output).await,
        StoreCommand::Hash => members::hash(global).await,
        StoreCommand::Compact { revision } => members::compact(global, revision).await,
        StoreCommand::Snapshot(SnapshotCommand::Save { file }) => snapshot::save(global, &file).await,
        StoreCommand::Snapshot(SnapshotCommand::Verify { file }) => Ok(snapshot::verify(global.output, &file)?),
        StoreCommand::Snapshot(SnapshotCommand::Restore { file, config, store_id, other_mesh, identityd }) => {
            Ok(snapshot::restore(&identityd, &config, store_id, other_mesh, &file)?)
        }
        StoreCommand::Backup { directory, keep } => snapshot::backup(global, &directory, keep.into()).await,
    }
}
