//! A member's data directory: opened, checked and, where in doubt, rebuilt.
//!
//! ```text
//! data_dir/  lock   wal/   state/   snapshot   history/
//! open:  lock ─► log ─► state ─┬─ fits the log ───────────────────────────► go on
//!                              └─ missing, damaged, behind the log ─► wipe ─► snapshot ─► the log does the rest
//! ```

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use ringfence_policy::mesh::History;
use ringfence_proto::follow::SharedHistory;

use crate::{
    REPLACE_MEMBER,
    history::{Bounds, DiskHistory},
    raft::{LogId, SnapshotMeta, applier::Applier},
    snapshot::{Content, SnapshotError, SnapshotFile, Snapshots},
    state::{self, Doubt, Marker, State, StateError, Stored},
    wal::{Contents, Wal, WalError, WalOptions, sync_parent},
};

/// A data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system refuses.
    #[error("data_dir: {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works in it.
    #[error("data_dir: {} is in use by another identityd: each member needs a directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The log is gone, and with it the votes.
    #[error(
        "data_dir: {} holds a state or a snapshot, but no write-ahead log: a member that forgot its votes must not go on. {}",
        path.display(),
        REPLACE_MEMBER
    )]
    LogMissing {
        /// The directory.
        path: PathBuf,
    },
    /// Neither the state nor the snapshot reaches the log's first entry.
    #[error(
        "data_dir: {}: the log begins after entry {purged}, and no snapshot reaches that far. {}",
        path.display(),
        REPLACE_MEMBER
    )]
    Gap {
        /// The directory.
        path: PathBuf,
        /// The last entry that was purged.
        purged: u64,
    },
    /// The log's last entries are gone, though they were applied.
    #[error(
        "data_dir: {}: the state holds entry {applied}, but the log ends with entry {last}: the end of the log is lost, \
         and what this member promised with it. {}",
        path.display(),
        REPLACE_MEMBER
    )]
    CutShort {
        /// The directory.
        path: PathBuf,
        /// The last entry applied.
        applied: u64,
        /// The last entry of the log; 0 if there is none.
        last: u64,
    },
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// An open data directory.
pub struct Storage {
    /// The log.
    pub wal: Arc<Wal>,
    /// The state on disk.
    pub state: Arc<State>,
    /// What followers are served from.
    pub history: Arc<SharedHistory>,
    /// The state machine over both.
    pub applier: Applier,
    /// When the log was last written before this start; none for a new one.
    pub last_written: Option<SystemTime>,
    /// Held as long as the directory is in use.
    lock: File,
}

impl Storage {
    /// Opens the directory of a member, or makes it. `history` is how many revisions back followers can resume.
    ///
    /// # Errors
    /// `StorageError`; nothing of the directory's content has changed then, except that a torn tail may be cut and a
    /// doubtful state removed.
    pub fn open(directory: &Path, member: u64, history: usize, options: WalOptions) -> Result<Self, StorageError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::Io { path, source }
        };
        let (wal_path, state_path) = (directory.join("wal"), directory.join("state"));
        std::fs::create_dir_all(&wal_path).map_err(io(&wal_path))?;
        sync_parent(&wal_path).and_then(|()| sync_parent(directory)).map_err(io(directory))?;
        let lock = lock(directory)?;
        let snapshots = Snapshots::open(directory)?;
        let last_written = last_written(&wal_path).map_err(io(&wal_path))?;
        if last_written.is_none() && (snapshots.exists() || state_path.exists()) {
            return Err(StorageError::LogMissing { path: directory.to_owned() });
        }
        let wal = Wal::open(&wal_path, member, options)?;
        let (state, stored) = State::open(&state_path)?;
        let log = wal.contents().clone();
        let stored = match stored {
            Ok(stored) => fits(stored, &wal)?,
            Err(doubt) => Err(doubt),
        };
        let Stored { marker, mesh, ledger } = match stored.and_then(|stored| covers(stored, snapshots.current())) {
            Ok((stored, Ok(covered))) => {
                not_cut_short(directory, &stored, covered, &log)?;
                stored
            }
            // Made again by this version, it would have lost what the newer one knows.
            Ok((_, Err(newer @ SnapshotError::NewerFormat { .. }))) => return Err(newer.into()),
            Ok((stored, Err(damaged))) => {
                not_cut_short(directory, &stored, None, &log)?;
                replace_snapshot(&snapshots, &state, &stored, &damaged)?;
                stored
            }
            Err(doubt) => rebuild(directory, &state, &snapshots, &log, &doubt)?,
        };
        let past = DiskHistory::open(&directory.join("history"), member, Bounds::default(), mesh.revision());
        let past = Arc::new(past);
        let history = Arc::new(SharedHistory::with_past(History::new(mesh, history), past.clone()));
        let state = Arc::new(state);
        let applier = Applier::new(history.clone(), past, state.clone(), snapshots, marker, ledger);
        Ok(Self { wal: Arc::new(wal), state, history, applier, last_written, lock })
    }

    /// Puts everything on stable storage and closes the files; another process can open the directory then.
    ///
    /// # Errors
    /// `StateError` if the state could not be flushed: it will be rebuilt.
    pub fn close(&self) -> Result<(), StateError> {
        let flushed = self.applier.persist().and_then(|()| self.state.flush());
        self.abandon();
        flushed
    }

    /// Closes the files as they are, as a crash does.
    pub fn abandon(&self) {
        if self.wal.has_failed() {
            // Both lie on one disk.
            self.state.leak();
        }
        self.state.close();
        self.wal.close();
        // Unlocking fails only for a file that is not locked.
        let _unlocked = self.lock.unlock();
    }
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|source| StorageError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StorageError::Io { path, source }),
    }
}

fn last_written(wal: &Path) -> io::Result<Option<SystemTime>> {
    let mut last = None;
    for entry in std::fs::read_dir(wal)? {
        last = last.max(Some(entry?.metadata()?.modified()?));
    }
    Ok(last)
}

/// The log must be able to carry the state on: no entry between them is missing, and they tell the same story.
fn fits(stored: Stored, wal: &Wal) -> Result<Result<Stored, Doubt>, WalError> {
    let (purged, last) = {
        let log = wal.contents();
        (log.purged, log.last_log_id())
    };
    let Some(applied) = stored.marker.applied else {
        return Ok(if purged.is_none() { Ok(stored) } else { Err(Doubt::Log { applied: 0 }) });
    };
    let same_story = match wal.log_id(applied.index)? {
        Some(found) => found == applied,
        // A snapshot that was installed just before a crash is ahead of the whole log; `not_cut_short` tells.
        None => last <= Some(applied) && purged <= Some(applied),
    };
    let fits = same_story && purged <= Some(applied);
    Ok(if fits { Ok(stored) } else { Err(Doubt::Log { applied: applied.index }) })
}

/// The state must not be behind the snapshot. Gives what the snapshot covers, or how it is damaged, beside the state.
fn covers(
    stored: Stored,
    snapshot: Result<Option<(SnapshotMeta, SnapshotFile)>, SnapshotError>,
) -> Result<(Stored, Result<Option<LogId>, SnapshotError>), Doubt> {
    let covered = snapshot.map(|current| current.and_then(|(meta, _)| meta.last_log_id));
    match &covered {
        Ok(covered) if *covered > stored.marker.applied => Err(Doubt::BehindSnapshot),
        _ => Ok((stored, covered)),
    }
}

/// What was applied was in the log before; only a snapshot brings what the log never held.
fn not_cut_short(
    directory: &Path,
    stored: &Stored,
    covered: Option<LogId>,
    log: &Contents,
) -> Result<(), StorageError> {
    match (stored.marker.applied, log.last_log_id()) {
        (Some(applied), last) if Some(applied) > last.max(covered) => Err(StorageError::CutShort {
            path: directory.to_owned(),
            applied: applied.index,
            last: last.map_or(0, |last| last.index),
        }),
        _ => Ok(()),
    }
}

/// The state is whole, so a damaged snapshot is only a copy. The log was purged behind it: it is made again at once.
fn replace_snapshot(
    snapshots: &Snapshots,
    state: &State,
    stored: &Stored,
    damaged: &SnapshotError,
) -> Result<(), StorageError> {
    tracing::warn!(%damaged, "making a damaged snapshot again from the state, which is whole");
    state.flush()?;
    snapshots.build(&stored.marker.snapshot_meta(), &stored.mesh, &stored.ledger, stored.marker.digest)?;
    Ok(())
}

fn rebuild(
    directory: &Path,
    state: &State,
    snapshots: &Snapshots,
    log: &Contents,
    doubt: &Doubt,
) -> Result<Stored, StorageError> {
    let Content { meta, mesh, ledger } = snapshots.load()?.unwrap_or_default();
    if let Some(LogId { index, .. }) = log.purged.filter(|purged| Some(*purged) > meta.last_log_id) {
        return Err(StorageError::Gap { path: directory.to_owned(), purged: index });
    }
    if log.last_log_id().is_some() || meta.last_log_id.is_some() {
        tracing::warn!(
            reason = %doubt,
            snapshot = meta.snapshot_id,
            "the state database cannot be used: rebuilding it from the snapshot and the log"
        );
    }
    let digest = state::whole_digest(&mesh, &ledger);
    let revision = mesh.revision();
    let marker = Marker { applied: meta.last_log_id, membership: meta.last_membership, revision, digest };
    state.replace(&mesh, &ledger, &marker)?;
    Ok(Stored { marker, mesh, ledger })
}

#[cfg(test)]
mod tests;
