//! A new store out of a backup: one fresh data directory for each member, all from the same file.
//!
//! ```text
//! backup file ─► Snapshot, its revision raised, Ledger ─► snapshot (entry 1 of term 1, the members of the configuration)
//!                                                      └► wal/ that begins behind entry 1, with a vote of term 1
//! ```
//!
//! The members start with the same snapshot and no log: they elect a leader and go on from there. It is another store,
//! with an id of its own that all members are given: members of the old one are strangers to them, and who followed the
//! old one gets the restored state as a whole. The revision is raised above everything that anybody can have seen, so
//! that it never goes back: above the backup's by as much as the operator says, and above what stores have that were
//! restored earlier (`StoreId::first_revision`).

pub mod rows;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use openraft::{CommittedLeaderId, Membership};
use ringfence_policy::{mesh::Mesh, record::Snapshot, revision::Revision, store::StoreId};
use ringfence_proto::{
    backup::{self, InvalidBackup},
    convert::InvalidMessage,
};
use ringfence_runtime::tls::{Tls, TlsError};

use crate::{
    config::Config,
    founding::new_store_id,
    machine::ledger::{Row, RowKey},
    maintenance,
    raft::{LogId, MemberNode, SnapshotMeta, StoredMembership, Vote},
    snapshot::{SnapshotError, Snapshots},
    state,
    wal::{Wal, WalError, WalFailed, WalOptions},
};

/// What is added to the backup's revision at least, unless the operator says otherwise.
pub const REVISION_BUMP: u64 = 1_000_000;
const FIRST_TERM: u64 = 1;
const FIRST_INDEX: u64 = 1;

/// A data directory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The backup is no good.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        source: InvalidBackup,
    },
    /// There is something in the directory.
    #[error(
        "data_dir: {} is not empty: a restored store begins with empty directories; move the old one away on every member",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// It would not be another store.
    #[error(
        "{store} is the store that {} comes from: a restored store is another one and needs an id of its own, for example \
         --store-id {example}",
        path.display()
    )]
    SameStore {
        /// The id.
        store: StoreId,
        /// The backup.
        path: PathBuf,
        /// One that nobody has.
        example: StoreId,
    },
    /// It is somebody else's.
    #[error(
        "{} comes from another mesh: its authorities have the serial numbers {theirs}, and those of {} have {own}. Give the \
         right file; if the authority was renewed since, or you mean it, add --other-mesh",
        path.display(),
        ca.display()
    )]
    OtherMesh {
        /// The backup.
        path: PathBuf,
        /// The configured authorities.
        ca: PathBuf,
        /// The serial numbers in the backup.
        theirs: String,
        /// The configured ones.
        own: String,
    },
    /// The certificates cannot be read.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The directory cannot be made.
    #[error("data_dir: {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log.
    #[error("the log cannot be written: {source}")]
    WalFailed {
        /// Why.
        #[from]
        source: WalFailed,
    },
}

/// What the operator says about the new store.
#[derive(Debug, Clone, Copy)]
pub struct NewStore {
    /// Its id, the same on every member.
    pub id: StoreId,
    /// How much the backup's revision is raised at least.
    pub bump_revision: u64,
    /// A backup of a mesh with other authorities will do.
    pub other_mesh: bool,
}

/// Makes the data directory of `config` from a backup, as one of a new store; returns the revision that it goes on
/// from. All members need the same file and the same id.
///
/// # Errors
/// `RestoreError`; a directory that was not finished does not start.
pub async fn restore(config: &Config, file: &Path, new: NewStore) -> Result<Revision, RestoreError> {
    let store = new.id;
    let bytes = std::fs::read(file).map_err(|source| RestoreError::Read { path: file.to_owned(), source })?;
    let backup = backup::read(&bytes).map_err(|source| RestoreError::Invalid { path: file.to_owned(), source })?;
    if backup.header.store_id == store.to_string() {
        let example = new_store_id(SystemTime::now()).unwrap_or(StoreId::new(store.unix_ms() + 1, [0; 10]));
        return Err(RestoreError::SameStore { store, path: file.to_owned(), example });
    }
    if !new.other_mesh {
        same_mesh(config, file, &backup.header.authorities)?;
    }
    let directory = &config.data_dir;
    let failed = |source| RestoreError::Directory { path: directory.clone(), source };
    let wal_path = directory.join("wal");
    std::fs::create_dir_all(directory).map_err(failed)?;
    if std::fs::read_dir(directory).map_err(failed)?.next().is_some() {
        return Err(RestoreError::NotEmpty { path: directory.clone() });
    }

    let revision = Revision(backup.snapshot.revision.0.saturating_add(new.bump_revision)).max(store.first_revision());
    let mesh = Mesh::from_snapshot(Snapshot { revision, ..backup.snapshot });
    let invalid = |source: InvalidMessage| RestoreError::Invalid { path: file.to_owned(), source: source.into() };
    let mut ledger = rows::rebuilt(&mesh, backup.ledger).map_err(invalid)?;
    ledger.set(&RowKey::Store, Some(Row::Store(store)));
    let meta = first_entry(config);
    // The snapshot first: a directory without a log is refused, one with a log and no snapshot would be empty.
    let digest = state::whole_digest(&mesh, &ledger);
    Snapshots::open(directory)?.build(&meta, &mesh, &ledger, digest)?;
    std::fs::create_dir(&wal_path).map_err(failed)?;
    let wal = Wal::open(&wal_path, config.id, WalOptions::default())?;
    wal.save_vote(Vote::new(FIRST_TERM, lowest(config))).await?;
    if let Some(log_id) = meta.last_log_id {
        wal.purge(log_id).await?;
    }
    wal.close();
    Ok(revision)
}

/// A backup of another mesh has other authorities. One that does not name any is believed.
fn same_mesh(config: &Config, file: &Path, authorities: &[String]) -> Result<(), RestoreError> {
    let own = maintenance::authorities(&*Tls::open(config.tls.clone())?);
    if authorities.is_empty() || authorities.iter().any(|serial| own.contains(serial)) {
        return Ok(());
    }
    let (path, ca) = (file.to_owned(), config.tls.ca.clone());
    Err(RestoreError::OtherMesh { path, ca, theirs: authorities.join(", "), own: own.join(", ") })
}

/// The same on every member: they agree on it without having talked.
fn first_entry(config: &Config) -> SnapshotMeta {
    let log_id = LogId::new(CommittedLeaderId::new(FIRST_TERM, lowest(config)), FIRST_INDEX);
    let node = |member: &crate::config::MemberConfig| MemberNode {
        address: member.address.clone(),
        cluster: Some(member.cluster.clone()),
    };
    let nodes: BTreeMap<u64, MemberNode> = config.members.iter().map(|member| (member.id, node(member))).collect();
    let voters = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes);
    SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: StoredMembership::new(Some(log_id), membership),
        snapshot_id: "restored".to_owned(),
    }
}

fn lowest(config: &Config) -> u64 {
    config.members.iter().map(|member| member.id).min().unwrap_or(config.id)
}
