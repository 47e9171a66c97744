//! Snapshots: the whole state at one log entry in one file, written beside, synced, then renamed.
//!
//! ```text
//! build    Mesh + Ledger + SnapshotMeta ─► snapshot.building ─ fsync ─ rename ─► snapshot ─► other members, in parts
//! receive  parts ─► snapshot.incoming ─ fsync, checksum ─ rename ─► snapshot ─► State, Mesh, Ledger
//! ```

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use ringfence_policy::{mesh::Mesh, record::Snapshot};

use crate::{
    codec::{self, CodecError},
    machine::ledger::Ledger,
    raft::SnapshotMeta,
    wal::sync_parent,
};

/// The largest part in which a snapshot travels, in bytes.
pub const PART_BYTES: usize = 1 << 20;

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
    /// The content is not a whole snapshot.
    #[error(
        "snapshot {}: {source}. Restore this member's data directory, or remove the directory as a whole and let the \
         member join again while a majority of the others runs",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The records.
    pub mesh: Mesh,
    /// What the state machine remembers beside them.
    pub ledger: Ledger,
}

/// An open snapshot file. It stays readable while a newer one takes its name.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: File,
}

/// The snapshots of one member: the current one, and one that is being built or received.
#[derive(Debug, Clone)]
pub struct Snapshots {
    directory: PathBuf,
}

impl SnapshotFile {
    /// Appends a part.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn append(&mut self, part: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(part).map_err(|source| io_error(&self.path, source))
    }

    /// The next part, at most `PART_BYTES` long; empty at the end.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn next_part(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let mut part = Vec::with_capacity(PART_BYTES);
        let limit = u64::try_from(PART_BYTES).unwrap_or(u64::MAX);
        (&self.file).take(limit).read_to_end(&mut part).map_err(|source| io_error(&self.path, source))?;
        Ok(part)
    }

    /// Whether the file is a whole snapshot.
    ///
    /// # Errors
    /// `SnapshotError::Content` if it is not.
    pub fn check(&mut self) -> Result<(), SnapshotError> {
        self.read().map(|_| ())
    }

    fn read(&mut self) -> Result<Content, SnapshotError> {
        let mut bytes = Vec::new();
        self.file.rewind().map_err(|source| io_error(&self.path, source))?;
        self.file.read_to_end(&mut bytes).map_err(|source| io_error(&self.path, source))?;
        let content = |source| SnapshotError::Content { path: self.path.clone(), source };
        let (head, body) = codec::decode_snapshot(&bytes).map_err(content)?;
        let meta = codec::decode(head).map_err(content)?;
        let (snapshot, ledger): (Snapshot, Ledger) = codec::decode(body).map_err(content)?;
        Ok(Content { meta, mesh: Mesh::from_snapshot(snapshot), ledger })
    }
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

    /// Removes the current snapshot; durable on return.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn remove(&self) -> Result<(), SnapshotError> {
        let path = self.directory.join(CURRENT);
        std::fs::remove_file(&path).and_then(|()| sync_parent(&path)).map_err(|source| io_error(&path, source))
    }

    /// Writes a snapshot and makes it the current one; durable on return.
    ///
    /// # Errors
    /// `SnapshotError::Io`; the current one is then as before.
    pub fn build(&self, content: &Content) -> Result<(), SnapshotError> {
        let Content { meta, mesh, ledger } = content;
        let bytes = codec::encode_snapshot(&codec::encode(meta), &codec::encode(&(mesh.snapshot(), ledger)));
        let path = self.directory.join(BUILDING);
        let mut file = File::create(&path).map_err(|source| io_error(&path, source))?;
        file.write_all(&bytes).map_err(|source| io_error(&path, source))?;
        self.publish(&path, &file)
    }

    /// An empty file for parts that come in.
    ///
    /// # Errors
    /// `SnapshotError::Io`.
    pub fn begin_receiving(&self) -> Result<SnapshotFile, SnapshotError> {
        let path = self.directory.join(INCOMING);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Ok(SnapshotFile { file: file.map_err(|source| io_error(&path, source))?, path })
    }

    /// Checks a received file and makes it the current snapshot; durable on return.
    ///
    /// # Errors
    /// `SnapshotError`; the current one is then as before.
    pub fn install(&self, mut received: SnapshotFile) -> Result<Content, SnapshotError> {
        let content = received.read()?;
        self.publish(&received.path, &received.file)?;
        Ok(content)
    }

    /// The current snapshot, checked, with its file open at the beginning.
    ///
    /// # Errors
    /// `SnapshotError` if there is one and it cannot be read.
    pub fn current(&self) -> Result<Option<(Content, SnapshotFile)>, SnapshotError> {
        let path = self.directory.join(CURRENT);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, source)),
        };
        let mut file = SnapshotFile { path, file };
        let content = file.read()?;
        file.file.rewind().map_err(|source| io_error(&file.path, source))?;
        Ok(Some((content, file)))
    }

    fn publish(&self, path: &Path, file: &File) -> Result<(), SnapshotError> {
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
    use crate::machine::ledger::{Row, RowKey};
    use ringfence_policy::revision::Revision;

    fn content(id: &str, revision: u64) -> Content {
        let mut ledger = Ledger::default();
        ledger.set(&RowKey::Clock, Some(Row::Clock(revision * 1000)));
        Content {
            meta: SnapshotMeta { snapshot_id: id.to_owned(), ..SnapshotMeta::default() },
            mesh: Mesh::from_snapshot(Snapshot { revision: Revision(revision), ..Snapshot::default() }),
            ledger,
        }
    }

    #[test]
    fn a_received_snapshot_replaces_the_current_one_only_when_whole() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (source, target) = (Snapshots::open(source.path()).unwrap(), Snapshots::open(target.path()).unwrap());
        assert!(source.current().unwrap().is_none());
        source.build(&content("new", 9)).unwrap();
        target.build(&content("old", 3)).unwrap();
        let bytes = {
            let (_, mut file) = source.current().unwrap().unwrap();
            let bytes = file.next_part().unwrap();
            assert!(file.next_part().unwrap().is_empty());
            bytes
        };
        let mut cut = target.begin_receiving().unwrap();
        cut.append(&bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(target.install(cut), Err(SnapshotError::Content { .. })));
        assert_eq!(target.current().unwrap().unwrap().0, content("old", 3));
        let mut whole = target.begin_receiving().unwrap();
        bytes.chunks(7).for_each(|part| whole.append(part).unwrap());
        assert_eq!(target.install(whole).unwrap(), content("new", 9));
        assert_eq!(target.current().unwrap().unwrap().0, content("new", 9));
    }
}
