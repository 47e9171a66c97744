//! The state machine's state on disk: one sled tree that can always be rebuilt from snapshot and log.
//!
//! ```text
//! apply ─► one atomic batch: changed records + Marker { index it stands at, membership, digest }
//! open  ─► every record decoded, digest compared with the marker's ─► Stored, or Doubt ─► wiped and rebuilt
//! ```
//!
//! sled's own `flush` hands its data to the page cache and no further (docs/decisions/0002): `flush` here also syncs
//! the files below it. What a power failure makes of an unsynced sled shows as a digest that does not fit.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ringfence_policy::{
    mesh::Mesh,
    record::{RecordKey, Snapshot, Versioned},
    revision::Revision,
};
use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    digests::Digests,
    machine::ledger::{Ledger, Row, RowKey},
    raft::{LogId, StoredMembership},
};

const MARKER_KEY: &[u8] = b"marker";
const RECORD_PREFIX: &[u8] = b"record/";
const ROW_PREFIX: &[u8] = b"row/";
/// How often sled hands its buffers to the page cache on its own, so that a restart after a crash replays little.
const SLED_FLUSH_MS: u64 = 500;
/// How long a database that was just closed is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Where the state stands; written in the same batch as the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The members as of that entry.
    pub membership: StoredMembership,
    /// The mesh's revision.
    pub revision: Revision,
    /// Sum of the digests of all records and of the ledger's rows: equal states have equal sums (S14).
    pub digest: u64,
}

impl Marker {
    /// Remembers the digest of the state after the last entry applied.
    pub(crate) fn note(&self, digests: &Digests) {
        if let Some(LogId { index, .. }) = self.applied {
            digests.note(index, self.digest);
        }
    }
}

/// State that was read back.
#[derive(Debug)]
pub struct Stored {
    /// Where it stands.
    pub marker: Marker,
    /// The records.
    pub mesh: Mesh,
    /// What the state machine remembers beside them.
    pub ledger: Ledger,
}

/// What is written under a key, both encoded; nothing for what is gone.
pub(crate) type EncodedChange = (Vec<u8>, Option<Vec<u8>>);

/// The state cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// sled refuses.
    #[error("state database {}: {source}", path.display())]
    Sled {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// The file system refuses.
    #[error("state database {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was closed.
    #[error("the state database is closed: the member is stopping")]
    Closed,
}

/// Why stored state is not used. Not an error: it is rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// sled cannot open its files.
    #[error("it cannot be read: {source}")]
    Sled {
        /// Why.
        source: sled::Error,
    },
    /// A value does not decode.
    #[error("a value cannot be read: {source}")]
    Value {
        /// Why.
        source: CodecError,
    },
    /// Something is missing or too much.
    #[error("its records do not add up to its marker: they were only partly on stable storage")]
    Digest,
    /// A snapshot came in, and the process ended before the state was replaced.
    #[error("it stands behind the snapshot, which was installed just before the last stop")]
    BehindSnapshot,
    /// The log cannot carry it on.
    #[error("it stands at entry {applied}, which does not fit the log and the snapshot")]
    Log {
        /// Where it stands.
        applied: u64,
    },
}

/// The open database.
pub struct State {
    path: PathBuf,
    database: RwLock<Option<sled::Db>>,
    /// sled waits for ever in its destructor once a write has failed.
    failed: AtomicBool,
}

impl State {
    /// Opens the database and reads everything, or says why it must be rebuilt. The database is empty then.
    ///
    /// # Errors
    /// `StateError` if not even an empty database can be made.
    pub fn open(path: &Path) -> Result<(Self, Result<Stored, Doubt>), StateError> {
        let opened = open_sled(path).map_err(|source| Doubt::Sled { source });
        let stored = opened.and_then(|database| read(&database).map(|stored| (database, stored)));
        match stored {
            Ok((database, stored)) => {
                let state = Self::closed(path);
                state.set(Some(database));
                Ok((state, Ok(stored)))
            }
            Err(doubt) => {
                let state = Self::closed(path);
                state.wipe()?;
                Ok((state, Err(doubt)))
            }
        }
    }

    fn closed(path: &Path) -> Self {
        Self { path: path.to_owned(), database: RwLock::new(None), failed: AtomicBool::new(false) }
    }

    /// Replaces everything by an empty database.
    ///
    /// # Errors
    /// `StateError`.
    pub fn wipe(&self) -> Result<(), StateError> {
        self.close();
        match std::fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(self.io(source)),
            _ => {}
        }
        let database = open_sled(&self.path).map_err(|source| self.sled(source))?;
        self.failed.store(false, Ordering::SeqCst);
        self.set(Some(database));
        Ok(())
    }

    /// Writes changed records and rows, and the marker, as a whole or not at all.
    ///
    /// # Errors
    /// `StateError`.
    pub(crate) fn write(
        &self,
        changes: impl IntoIterator<Item = EncodedChange>,
        marker: &Marker,
    ) -> Result<(), StateError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(MARKER_KEY, codec::seal(&codec::encode(marker)));
        let database = self.database()?;
        database.apply_batch(batch).map_err(|source| self.sled(source))
    }

    /// Replaces the whole state, durably.
    ///
    /// # Errors
    /// `StateError`.
    pub fn replace(&self, mesh: &Mesh, ledger: &Ledger, marker: &Marker) -> Result<(), StateError> {
        self.wipe()?;
        let records = mesh.records().iter().map(|(key, versioned)| Stake::of_record(key, Some(versioned)));
        let rows = ledger.rows().map(|(key, row)| Stake::of_row(&key, Some(&row)));
        self.write(records.chain(rows).map(|stake| stake.change), marker)?;
        self.flush()
    }

    /// Returns once everything written is on stable storage.
    ///
    /// # Errors
    /// `StateError`.
    pub fn flush(&self) -> Result<(), StateError> {
        self.database()?.flush().map_err(|source| self.sled(source))?;
        sync_tree(&self.path)
    }

    /// Closes the files. Writes fail from now on.
    pub fn close(&self) {
        // Its last handle: sled writes what it holds back and unlocks its file.
        let last = self.set(None);
        if self.failed.load(Ordering::SeqCst) {
            std::mem::forget(last);
        }
    }

    /// Closes without another write, on a disk that is known to fail. The files stay locked until the process ends.
    pub fn leak(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.close();
    }

    /// A handle of its own, so that a write does not wait for a flush.
    fn database(&self) -> Result<sled::Db, StateError> {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StateError::Closed)
    }

    fn set(&self, database: Option<sled::Db>) -> Option<sled::Db> {
        std::mem::replace(&mut *self.database.write().unwrap_or_else(PoisonError::into_inner), database)
    }

    fn sled(&self, source: sled::Error) -> StateError {
        self.failed.store(true, Ordering::SeqCst);
        StateError::Sled { path: self.path.clone(), source }
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }
}

/// A record or a row of the ledger, encoded once for digest and disk.
pub(crate) struct Stake {
    /// Its share in `Marker::digest`.
    pub(crate) digest: u64,
    /// What is written.
    pub(crate) change: EncodedChange,
}

impl Stake {
    /// Of a record: a `Versioned`, or what encodes as one.
    pub(crate) fn of_record(key: &RecordKey, versioned: Option<&impl Serialize>) -> Self {
        Self::of(RECORD_PREFIX, key, versioned)
    }

    /// Of a row of the ledger.
    pub(crate) fn of_row(key: &RowKey, row: Option<&Row>) -> Self {
        Self::of(ROW_PREFIX, key, row)
    }

    fn of(prefix: &[u8], key: &impl Serialize, value: Option<&impl Serialize>) -> Self {
        let (key, value) = (codec::encode(key), value.map(codec::encode));
        let digest = value.as_ref().map_or(0, |value| codec::digest(&[&key, value]));
        Self { digest, change: ([prefix, &key].concat(), value) }
    }
}

/// The share of one record in `Marker::digest`.
#[must_use]
pub fn record_digest(key: &RecordKey, versioned: &Versioned) -> u64 {
    Stake::of_record(key, Some(versioned)).digest
}

/// The share of one row of the ledger in `Marker::digest`.
#[must_use]
pub fn row_digest(key: &RowKey, row: &Row) -> u64 {
    Stake::of_row(key, Some(row)).digest
}

/// The digest of a whole mesh and its ledger, counted from nothing.
#[must_use]
pub fn whole_digest(mesh: &Mesh, ledger: &Ledger) -> u64 {
    let records = mesh.records().iter().map(|(key, versioned)| record_digest(key, versioned));
    records.chain(ledger.rows().map(|(key, row)| row_digest(&key, &row))).fold(0, u64::wrapping_add)
}

/// sled's own threads, and children that were just forked, hold a closed database's lock for a moment longer: whoever opens
/// it again would take the state for damaged. That no other process has the directory open, its own lock sees to.
fn open_sled(path: &Path) -> Result<sled::Db, sled::Error> {
    let begun = Instant::now();
    loop {
        let opened = sled::Config::new().path(path).flush_every_ms(Some(SLED_FLUSH_MS)).open();
        let is_locked = matches!(&opened, Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock"));
        if !is_locked || begun.elapsed() > LOCK_PATIENCE {
            return opened;
        }
        thread::sleep(LOCK_PAUSE);
    }
}

fn read(database: &sled::Db) -> Result<Stored, Doubt> {
    let sled = |source| Doubt::Sled { source };
    let value = |source| Doubt::Value { source };
    let marker = database.get(MARKER_KEY).map_err(sled)?.ok_or(Doubt::Missing)?;
    let marker: Marker = codec::unseal(&marker).and_then(codec::decode).map_err(value)?;
    let mut records = BTreeMap::new();
    for item in database.scan_prefix(RECORD_PREFIX) {
        let (key, bytes) = item.map_err(sled)?;
        let key: RecordKey = codec::decode(&key[RECORD_PREFIX.len()..]).map_err(value)?;
        records.insert(key, codec::decode::<Versioned>(&bytes).map_err(value)?);
    }
    let mut ledger = Ledger::default();
    for item in database.scan_prefix(ROW_PREFIX) {
        let (key, bytes) = item.map_err(sled)?;
        let key: RowKey = codec::decode(&key[ROW_PREFIX.len()..]).map_err(value)?;
        ledger.set(&key, Some(codec::decode(&bytes).map_err(value)?));
    }
    let mesh = Mesh::from_snapshot(Snapshot { revision: marker.revision, records });
    if whole_digest(&mesh, &ledger) == marker.digest { Ok(Stored { marker, mesh, ledger }) } else { Err(Doubt::Digest) }
}

/// Syncs every file and directory below a directory: sled keeps large pages in files of their own.
fn sync_tree(path: &Path) -> Result<(), StateError> {
    let io = |source| StateError::Io { path: path.to_owned(), source };
    for entry in std::fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                Ok(file) => file.sync_data().map_err(io)?,
                // sled removes files that it needs no more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{
        identity::ClusterId,
        name::Name,
        record::{Change, Cluster, Delta, Record},
    };

    fn mesh(count: u32) -> Mesh {
        let mut mesh = Mesh::default();
        for id in 1..=count {
            let name = Name::new(format!("c{id}")).unwrap();
            let record = Record::Cluster(Cluster { name, id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] });
            let delta = Delta { revision: mesh.revision().next(), changes: vec![Change::Put(record)] };
            mesh.apply(&delta).unwrap();
        }
        mesh
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set(&RowKey::Clock, Some(Row::Clock(7)));
        ledger.set(&RowKey::Gateway(Name::new("c1").unwrap()), Some(Row::Gateway(3)));
        ledger
    }

    fn marker(mesh: &Mesh) -> Marker {
        Marker { revision: mesh.revision(), digest: whole_digest(mesh, &ledger()), ..Marker::default() }
    }

    #[test]
    fn s14_state_survives_a_restart_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (state, stored) = State::open(&path).unwrap();
        assert!(matches!(stored, Err(Doubt::Missing)));
        let mesh = mesh(50);
        state.replace(&mesh, &ledger(), &marker(&mesh)).unwrap();
        drop(state);
        let (_state, stored) = State::open(&path).unwrap();
        let stored = stored.unwrap();
        assert_eq!((stored.mesh, stored.ledger, stored.marker), (mesh.clone(), ledger(), marker(&mesh)));
    }

    #[test]
    fn state_that_lost_a_record_or_a_row_is_wiped() {
        let whole = mesh(5);
        // The marker speaks of five records and two rows.
        let records: Vec<_> = whole.records().keys().cloned().collect();
        let rows: Vec<_> = ledger().rows().map(|(key, _)| key).collect();
        for (records, rows) in [(&records[..4], &rows[..]), (&records[..], &rows[..1])] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state");
            let (state, _) = State::open(&path).unwrap();
            let records = records.iter().map(|key| Stake::of_record(key, whole.records().get(key)));
            let rows = rows.iter().map(|key| Stake::of_row(key, ledger().get(key).as_ref()));
            state.write(records.chain(rows).map(|stake| stake.change), &marker(&whole)).unwrap();
            drop(state);
            let (state, stored) = State::open(&path).unwrap();
            assert!(matches!(stored, Err(Doubt::Digest)));
            drop(state);
            let (_state, stored) = State::open(&path).unwrap();
            assert!(matches!(stored, Err(Doubt::Missing)), "it is empty now");
        }
    }

    #[test]
    fn files_that_are_no_database_are_wiped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("conf"), b"garbage").unwrap();
        std::fs::write(path.join("db"), vec![7; 10_000]).unwrap();
        let (state, stored) = State::open(&path).unwrap();
        assert!(stored.is_err());
        let mesh = mesh(1);
        state.replace(&mesh, &ledger(), &marker(&mesh)).unwrap();
    }
}
