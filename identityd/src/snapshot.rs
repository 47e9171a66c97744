//! Snapshots: the whole state at one log entry in one file, written beside, synced, then renamed.
//!
//! ```text
//! build    Mesh + Ledger + SnapshotMeta ─ sections ─► snapshot.building ─ fsync ─ rename ─► snapshot ─► other members
//! receive  parts ─► snapshot.incoming ─ fsync, every section checked ─ rename ─► snapshot ─► State, Mesh, Ledger
//! ```
//!
//! A file is written, sent, received and checked without ever being in memory as a whole.

mod file;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use ringfence_policy::mesh::Mesh;

pub use file::{PART_BYTES, SnapshotFile};

use crate::{REPLACE_MEMBER, codec::CodecError, machine::ledger::Ledger, raft::SnapshotMeta, wal::sync_parent};

const CURRENT: &str = "snapshot";
const BUILDING: &str = "snapshot.building";
const INCOMING: &str = "snapshot.incoming";

/// A snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refuses.
    #[error("snapshot {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A newer version wrote it: nothing is wrong with it.
    #[error("snapshot {}: {source}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Which version.
        source: CodecError,
    },
    /// The content is not a whole snapshot.
    #[error(
        "snapshot {}: {source}. {}",
        path.display(),
        REPLACE_MEMBER
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The log must not be cut behind such a snapshot. Whatever damaged the state in memory, a start rebuilds it.
    #[error(
        "the state in memory is damaged: its records add up to {written:016x}, its changes to {carried:016x} (S14); \
         restart identityd, and look after the machine's memory if it comes again"
    )]
    Damaged {
        /// The digest of what was written.
        written: u64,
        /// The digest that changes were counted into one by one.
        carried: u64,
    },
}

/// What a snapshot holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The records.
    pub mesh: Mesh,
    /// What the state machine remembers beside them.
    pub ledger: Ledger,
}

/// The snapshots of one member: the current one, and one that is being built or received.
#[derive(Debug, Clone)]
pub struct Snapshots {
    directory: PathBuf,
}

impl Snapshots {
    /// In a directory that exists. Files that a crash left unfinished are removed.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        for name in [BUILDING, INCOMING] {
            let path = directory.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(io_error(&path, source)),
                _ => {}
            }
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Whether there is a current snapshot.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directory.join(CURRENT).exists()
    }

    /// Writes a snapshot of a state with this digest and makes it the current one; durable on return. Gives the file at its
    /// first part. It is not read back: that would show the page cache, not the disk. Its checksums are of what was written;
    /// whoever receives it checks them all, and so does a start.
    ///
    /// # Errors
    /// `SnapshotError::Io`, and `Damaged` if what was written has another digest; the current one is then as before.
    pub fn build(
        &self,
        meta: &SnapshotMeta,
        mesh: &Mesh,
        ledger: &Ledger,
        digest: u64,
    ) -> Result<SnapshotFile, SnapshotError> {
        let mut file = self.begin(BUILDING)?;
        let written = file.write(meta, mesh, ledger)?;
        if written != digest {
            return Err(SnapshotError::Damaged { written, carried: digest });
        }
        self.publish(&file)?;
        file.path = self.directory.join(CURRENT);
        Ok(file)
    }

    /// An empty file for parts that come in.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn begin_receiving(&self) -> Result<SnapshotFile, SnapshotError> {
        self.begin(INCOMING)
    }

    /// Checks a received file and makes it the current snapshot; durable on return.
    ///
    /// # Errors
    /// `SnapshotError`; the current one is then as before.
    pub fn install(&self, mut received: SnapshotFile) -> Result<Content, SnapshotError> {
        let content = received.read()?;
        self.publish(&received)?;
        Ok(content)
    }

    /// What the current snapshot covers, with its file, every section checked.
    ///
    /// # Errors
    /// `SnapshotError` if there is one and it cannot be read.
    pub fn current(&self) -> Result<Option<(SnapshotMeta, SnapshotFile)>, SnapshotError> {
        let Some(mut file) = self.open_current()? else { return Ok(None) };
        Ok(Some((file.covers()?, file)))
    }

    /// What the current snapshot covers and holds.
    ///
    /// # Errors
    /// `SnapshotError` if there is one and it cannot be read.
    pub fn load(&self) -> Result<Option<Content>, SnapshotError> {
        self.open_current()?.map(|mut file| file.read()).transpose()
    }

    fn open_current(&self) -> Result<Option<SnapshotFile>, SnapshotError> {
        let path = self.directory.join(CURRENT);
        match File::open(&path) {
            Ok(file) => Ok(Some(SnapshotFile { path, file })),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    fn begin(&self, name: &str) -> Result<SnapshotFile, SnapshotError> {
        let path = self.directory.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Ok(SnapshotFile { file: file.map_err(|source| io_error(&path, source))?, path })
    }

    fn publish(&self, SnapshotFile { path, file }: &SnapshotFile) -> Result<(), SnapshotError> {
        let current = self.directory.join(CURRENT);
        file.sync_all().map_err(|source| io_error(path, source))?;
        std::fs::rename(path, &current).map_err(|source| io_error(path, source))?;
        sync_parent(&current).map_err(|source| io_error(&current, source))
    }
}

fn io_error(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::ledger::{Row, RowKey},
        state::whole_digest,
    };
    use ringfence_policy::{
        identity::ClusterId,
        name::Name,
        record::{Change, Cluster, Delta, Record},
    };

    fn meta(id: &str) -> SnapshotMeta {
        SnapshotMeta { snapshot_id: id.to_owned(), ..SnapshotMeta::default() }
    }

    fn mesh(count: u32) -> Mesh {
        let mut mesh = Mesh::default();
        for id in 1..=count {
            let name = Name::new(format!("c{id}")).unwrap();
            let record =
                Record::Cluster(Cluster { name, id: ClusterId::new(id % 200 + 1).unwrap(), pod_cidrs: vec![] });
            mesh.apply(&Delta { revision: mesh.revision().next(), changes: vec![Change::Put(record)] }).unwrap();
        }
        mesh
    }

    fn ledger(clusters: u32) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set(&RowKey::Clock, Some(Row::Clock(7)));
        for id in 1..=clusters {
            ledger.set(&RowKey::Gateway(Name::new(format!("c{id}")).unwrap()), Some(Row::Gateway(id.into())));
        }
        ledger
    }

    fn content(id: &str, mesh: &Mesh, ledger: &Ledger) -> Content {
        Content { meta: meta(id), mesh: mesh.clone(), ledger: ledger.clone() }
    }

    fn build(snapshots: &Snapshots, id: &str, mesh: &Mesh, ledger: &Ledger) -> SnapshotFile {
        snapshots.build(&meta(id), mesh, ledger, whole_digest(mesh, ledger)).unwrap()
    }

    fn bytes_of(snapshots: &Snapshots) -> Vec<u8> {
        parts(snapshots.current().unwrap().unwrap().1)
    }

    fn parts(mut file: SnapshotFile) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let part = file.next_part().unwrap();
            assert!(part.len() <= PART_BYTES);
            if part.is_empty() {
                return bytes;
            }
            bytes.extend(part);
        }
    }

    fn receive<'a>(target: &Snapshots, parts: impl IntoIterator<Item = &'a [u8]>) -> SnapshotFile {
        let mut file = target.begin_receiving().unwrap();
        parts.into_iter().for_each(|part| file.append(part).unwrap());
        file
    }

    #[test]
    fn a_received_snapshot_replaces_the_current_one_only_when_whole() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (Snapshots::open(source.path()).unwrap(), Snapshots::open(target.path()).unwrap());
        assert!(source.current().unwrap().is_none());
        // Several sections, and several parts.
        let (large, rows) = (mesh(60_000), ledger(20_000));
        build(&source, "new", &large, &rows);
        build(&target, "old", &mesh(3), &ledger(1));
        let bytes = bytes_of(&source);
        assert!(bytes.len() > PART_BYTES, "{} bytes", bytes.len());
        for cut in [1, 30, bytes.len() / 2] {
            let file = receive(&target, [&bytes[..bytes.len() - cut]]);
            assert!(matches!(target.install(file), Err(SnapshotError::Content { .. })));
        }
        let longer = receive(&target, [&bytes[..], b"x"]);
        assert!(matches!(target.install(longer), Err(SnapshotError::Content { .. })));
        assert_eq!(target.current().unwrap().unwrap().0, meta("old"));
        let mut whole = receive(&target, bytes.chunks(7000));
        whole.check().unwrap();
        assert_eq!(target.install(whole).unwrap(), content("new", &large, &rows));
        assert_eq!(target.load().unwrap().unwrap(), content("new", &large, &rows));
    }

    #[test]
    fn a_snapshot_that_was_built_is_sent_as_it_lies() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        let (mesh, ledger) = (mesh(40_000), ledger(3));
        let built = build(&snapshots, "built", &mesh, &ledger);
        // A newer one takes its name meanwhile.
        let lies = bytes_of(&snapshots);
        build(&snapshots, "newer", &Mesh::default(), &Ledger::default());
        assert!(parts(built) == lies, "from its beginning to its end");
        let newer = build(&snapshots, "newer", &Mesh::default(), &Ledger::default());
        let target = tempfile::tempdir().unwrap();
        let target = Snapshots::open(target.path()).unwrap();
        assert_eq!(target.install(receive(&target, [&lies[..]])).unwrap(), content("built", &mesh, &ledger));
        assert_eq!(target.install(receive(&target, [&parts(newer)[..]])).unwrap().meta, meta("newer"));
    }

    #[test]
    fn a_state_that_was_damaged_in_memory_becomes_no_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        let (whole, rows) = (mesh(20), ledger(2));
        build(&snapshots, "before", &whole, &rows);
        let carried = whole_digest(&whole, &rows);
        let built = snapshots.build(&meta("damaged"), &mesh(19), &rows, carried);
        assert!(matches!(built, Err(SnapshotError::Damaged { carried: c, .. }) if c == carried));
        assert_eq!(snapshots.load().unwrap().unwrap(), content("before", &whole, &rows), "the one before stays");
    }

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        build(&snapshots, "id", &mesh(2), &ledger(2));
        let bytes = bytes_of(&snapshots);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(directory.path().join(CURRENT), damaged).unwrap();
            let seen = snapshots.load().unwrap_err();
            assert!(
                matches!(seen, SnapshotError::Content { .. } | SnapshotError::NewerFormat { .. }),
                "bit {bit}: {seen}"
            );
        }
        // Sections of equal length in another order, or one of them left out, have other numbers.
        build(&snapshots, "id", &Mesh::default(), &Ledger::default());
        assert_eq!(snapshots.load().unwrap().unwrap(), content("id", &Mesh::default(), &Ledger::default()));
    }
}
