//! The state machine's state on disk: one sled tree that can always be rebuilt from snapshot and log.
//!
//! ```text
//! applier/behind ─► changed records one by one, at last Marker { index it stands at, membership, digest }
//! open           ─► every record decoded, digest compared with the marker's ─► Stored, or Doubt ─► wiped and rebuilt
//! ```
//!
//! A process that ends in between leaves a digest that does not fit. One batch would cost more: sled holds all that it
//! replaces in memory as long as a batch lasts.
//!
//! sled's own `flush` hands its data to the page cache and no further (docs/decisions/0002): `flush` here also syncs
//! the files below it. What a power failure makes of an unsynced sled shows as a digest that does not fit.

use std::{
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
    raft::{LogId, SnapshotMeta, StoredMembership},
};

const MARKER_KEY: &[u8] = b"marker";
const RECORD_PREFIX: &[u8] = b"record/";
const ROW_PREFIX: &[u8] = b"row/";
/// What sled keeps in memory: it is read as a whole when it is opened, and only written afterwards.
const CACHE_BYTES: u64 = 1 << 20;
/// Reads after which sled has freed what a write replaced: it looks at every 128th, some epochs later.
const COLLECTING_READS: usize = 1024;
/// How long a database that was just closed is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Where the state stands; written behind the records.
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
    /// What a snapshot of this moment says that it covers.
    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        let Self { applied, membership, .. } = self.clone();
        let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |log_id| log_id.to_string());
        SnapshotMeta { last_log_id: applied, last_membership: membership, snapshot_id }
    }

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
        let state = Self::closed(path);
        let doubt = match open_sled(path) {
            Ok(database) => match read(&database) {
                Ok(stored) => {
                    state.set(Some(database));
                    return Ok((state, Ok(stored)));
                }
                // A new one: sled takes 4 MB to open, so it is not closed and opened once more.
                Err(doubt @ Doubt::Missing) if database.is_empty() => {
                    state.set(Some(database));
                    return Ok((state, Err(doubt)));
                }
                Err(doubt) => doubt,
            },
            Err(source) => Doubt::Sled { source },
        };
        state.wipe()?;
        Ok((state, Err(doubt)))
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

    /// Writes changed records and rows, then the marker. What is only partly written when the process ends does not fit
    /// its marker, and is rebuilt.
    ///
    /// # Errors
    /// `StateError`.
    pub(crate) fn write(
        &self,
        changes: impl IntoIterator<Item = EncodedChange>,
        marker: &Marker,
    ) -> Result<(), StateError> {
        let database = self.database()?;
        let write = || {
            for (key, value) in changes {
                match value {
                    Some(value) => database.insert(key, value)?,
                    None => database.remove(key)?,
                };
            }
            database.insert(MARKER_KEY, codec::seal(&codec::encode(marker)))?;
            // sled frees what was replaced only while the thread that did it goes on using it.
            (0..COLLECTING_READS).try_for_each(|_| database.get(MARKER_KEY).map(drop))
        };
        write().map_err(|source| self.sled(source))
    }

    /// Replaces the whole state, durably.
    ///
    /// # Errors
    /// `StateError`.
    pub fn replace(&self, mesh: &Mesh, ledger: &Ledger, marker: &Marker) -> Result<(), StateError> {
        self.wipe()?;
        let records = mesh.records().iter().map(|(key, versioned)| record_change(key, Some(versioned)));
        let rows = ledger.rows().map(|(key, row)| row_change(&key, Some(&row)));
        self.write(records.chain(rows), marker)?;
        self.flush()
    }

    /// Hands everything written to the page cache: it survives the end of the process, not that of the machine.
    ///
    /// # Errors
    /// `StateError`.
    pub(crate) fn hand_over(&self) -> Result<(), StateError> {
        self.database()?.flush().map(drop).map_err(|source| self.sled(source))
    }

    /// Returns once everything written is on stable storage.
    ///
    /// # Errors
    /// `StateError`.
    pub fn flush(&self) -> Result<(), StateError> {
        self.hand_over()?;
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

/// What is written of a record.
pub(crate) fn record_change(key: &RecordKey, versioned: Option<&Versioned>) -> EncodedChange {
    (prefixed(RECORD_PREFIX, key), versioned.map(codec::encode))
}

/// What is written of a row of the ledger.
pub(crate) fn row_change(key: &RowKey, row: Option<&Row>) -> EncodedChange {
    (prefixed(ROW_PREFIX, key), row.map(codec::encode))
}

fn prefixed(prefix: &[u8], key: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(prefix);
    codec::encode_into(&mut bytes, key);
    bytes
}

/// The share of one record in `Marker::digest`. Its key is part of it.
#[must_use]
pub fn record_digest(versioned: &Versioned) -> u64 {
    encoded_record_digest(&codec::encode(versioned))
}

/// As `record_digest`, of a record that is encoded already.
#[must_use]
pub fn encoded_record_digest(versioned: &[u8]) -> u64 {
    codec::digest(&[versioned])
}

/// The share of one row of the ledger in `Marker::digest`.
#[must_use]
pub fn row_digest(key: &RowKey, row: &Row) -> u64 {
    encoded_row_digest(&codec::encode(key), &codec::encode(row))
}

/// As `row_digest`, of a key and a row that are encoded already.
#[must_use]
pub fn encoded_row_digest(key: &[u8], row: &[u8]) -> u64 {
    codec::digest(&[key, row])
}

/// The digest of a whole mesh and its ledger, counted from nothing.
#[must_use]
pub fn whole_digest(mesh: &Mesh, ledger: &Ledger) -> u64 {
    let records = mesh.records().values().map(record_digest);
    records.chain(ledger.rows().map(|(key, row)| row_digest(&key, &row))).fold(0, u64::wrapping_add)
}

/// sled's own threads, and children that were just forked, hold a closed database's lock for a moment longer: whoever opens
/// it again would take the state for damaged. That no other process has the directory open, its own lock sees to.
fn open_sled(path: &Path) -> Result<sled::Db, sled::Error> {
    let begun = Instant::now();
    loop {
        // Whoever writes says when it is to be handed over.
        let opened = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open();
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
    let (mut records, mut ledger, mut digest) = (Vec::new(), Ledger::default(), 0_u64);
    for item in database.scan_prefix(RECORD_PREFIX) {
        let (key, bytes) = item.map_err(sled)?;
        let key: RecordKey = codec::decode(&key[RECORD_PREFIX.len()..]).map_err(value)?;
        digest = digest.wrapping_add(encoded_record_digest(&bytes));
        records.push((key, codec::decode::<Versioned>(&bytes).map_err(value)?));
    }
    for item in database.scan_prefix(ROW_PREFIX) {
        let (key, bytes) = item.map_err(sled)?;
        let encoded_key = &key[ROW_PREFIX.len()..];
        digest = digest.wrapping_add(encoded_row_digest(encoded_key, &bytes));
        let key: RowKey = codec::decode(encoded_key).map_err(value)?;
        ledger.set(&key, Some(codec::decode(&bytes).map_err(value)?));
    }
    if digest != marker.digest || records.iter().any(|(key, versioned)| *key != versioned.record.key()) {
        return Err(Doubt::Digest);
    }
    let snapshot = Snapshot { revision: marker.revision, records: records.into_iter().collect() };
    Ok(Stored { marker, mesh: Mesh::from_snapshot(snapshot), ledger })
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
            let records = records.iter().map(|key| record_change(key, whole.records().get(key)));
            let rows = rows.iter().map(|key| row_change(key, ledger().get(key).as_ref()));
            state.write(records.chain(rows), &marker(&whole)).unwrap();
            drop(state);
            let (state, stored) = State::open(&path).unwrap();
            assert!(matches!(stored, Err(Doubt::Digest)));
            drop(state);
            let (_state, stored) = State::open(&path).unwrap();
            assert!(matches!(stored, Err(Doubt::Missing)), "it is empty now");
        }
    }

    #[test]
    fn an_empty_database_is_taken_as_it_is_and_records_without_a_marker_are_wiped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        std::fs::create_dir(&path).unwrap();
        // Whatever wipes takes it away.
        let other = path.join("other");
        std::fs::write(&other, b"").unwrap();
        let (state, stored) = State::open(&path).unwrap();
        assert!(matches!(stored, Err(Doubt::Missing)) && other.exists());
        let whole = mesh(2);
        let (key, versioned) = whole.records().iter().next().unwrap();
        let (key, value) = record_change(key, Some(versioned));
        state.database().unwrap().insert(key, value.unwrap()).unwrap();
        drop(state);
        let (state, stored) = State::open(&path).unwrap();
        assert!(matches!(stored, Err(Doubt::Missing)) && !other.exists());
        assert!(state.database().unwrap().is_empty());
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
