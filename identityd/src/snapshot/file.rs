//! One snapshot file: written and read section by section, so that neither takes more memory than a section.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, Write},
    path::PathBuf,
};

use ringfence_policy::{
    mesh::Mesh,
    record::{RecordKey, Snapshot, Versioned},
    revision::Revision,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Content, SnapshotError, io_error};
use crate::{
    codec::{self, CodecError, SECTION_HEADER_BYTES, SNAPSHOT_PREFIX_BYTES, SectionKind},
    machine::ledger::{Ledger, Row, RowKey},
    raft::SnapshotMeta,
    state,
};

/// The largest part in which a snapshot travels, in bytes.
pub const PART_BYTES: usize = 1 << 20;
/// A section of records or rows is closed when it has this many bytes.
const SECTION_BYTES: usize = 256 << 10;

/// An open snapshot file. It stays readable while a newer one takes its name.
#[derive(Debug)]
pub struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Count and digest of all records and rows: the last section.
type End = (u64, u64);

/// What sections hold many of.
enum Item {
    Record(RecordKey, Versioned),
    Row(RowKey, Row),
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

    /// Whether the file is a whole snapshot. The next part is the first one afterwards.
    ///
    /// # Errors
    /// `SnapshotError::Content` if it is not.
    pub fn check(&mut self) -> Result<(), SnapshotError> {
        self.covers().map(drop)
    }

    /// What the file covers, if it is whole.
    pub(super) fn covers(&mut self) -> Result<SnapshotMeta, SnapshotError> {
        let (meta, _) = self.scan(|_| {})?;
        self.file.rewind().map_err(|source| io_error(&self.path, source))?;
        Ok(meta)
    }

    /// What the file holds.
    pub(super) fn read(&mut self) -> Result<Content, SnapshotError> {
        let (mut records, mut ledger) = (BTreeMap::new(), Ledger::default());
        let (meta, revision) = self.scan(|item| match item {
            Item::Record(key, versioned) => drop(records.insert(key, versioned)),
            Item::Row(key, row) => ledger.set(&key, Some(row)),
        })?;
        Ok(Content { meta, mesh: Mesh::from_snapshot(Snapshot { revision, records }), ledger })
    }

    /// Writes a whole snapshot.
    pub(super) fn write(&mut self, meta: &SnapshotMeta, mesh: &Mesh, ledger: &Ledger) -> Result<(), SnapshotError> {
        self.try_write(meta, mesh, ledger).map_err(|source| io_error(&self.path, source))
    }

    fn try_write(&self, meta: &SnapshotMeta, mesh: &Mesh, ledger: &Ledger) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(SECTION_BYTES, &self.file);
        file.write_all(&codec::snapshot_prefix())?;
        let mut number = 0;
        let mut section = |kind, payload: &[u8]| {
            number += 1;
            file.write_all(&codec::encode_section(number - 1, kind, payload))
        };
        section(SectionKind::Head, &codec::encode(&(meta, mesh.revision())))?;
        let (mut count, mut digest) = (0_u64, 0_u64);
        let mut add = |share: u64| {
            count += 1;
            digest = digest.wrapping_add(share);
        };
        let records = mesh.records().iter();
        write_all(records, SectionKind::Records, &mut section, |(key, versioned)| {
            add(state::record_digest(key, versioned));
        })?;
        write_all(ledger.rows(), SectionKind::Ledger, &mut section, |(key, row)| add(state::row_digest(key, row)))?;
        section(SectionKind::End, &codec::encode(&(count, digest)))?;
        file.flush()
    }

    /// Hands every record and row to `take`, in order. Only when it returns is it known that the file was whole.
    fn scan(&mut self, mut take: impl FnMut(Item)) -> Result<(SnapshotMeta, Revision), SnapshotError> {
        self.file.rewind().map_err(|source| io_error(&self.path, source))?;
        let mut sections = Sections { number: 0, file: BufReader::with_capacity(SECTION_BYTES, &self.file) };
        let mut scan = || -> Result<_, Broken> {
            let mut prefix = [0; SNAPSHOT_PREFIX_BYTES];
            sections.read(&mut prefix)?;
            codec::check_snapshot_prefix(prefix)?;
            let (SectionKind::Head, head) = sections.next()? else { return Err(CodecError::Checksum.into()) };
            let (mut count, mut digest) = (0_u64, 0_u64);
            let end: End = loop {
                let (kind, payload) = sections.next()?;
                if kind == SectionKind::End {
                    break codec::decode(&payload)?;
                }
                let mut rest = &payload[..];
                while !rest.is_empty() {
                    let item = pull_item(kind, &mut rest)?;
                    digest = digest.wrapping_add(item.digest());
                    count += 1;
                    take(item);
                }
            };
            let whole = end == (count, digest) && sections.at_end()?;
            if whole { Ok(codec::decode(&head)?) } else { Err(CodecError::Checksum.into()) }
        };
        scan().map_err(|broken| match broken {
            Broken::Io(source) => io_error(&self.path, source),
            Broken::Content(source @ CodecError::NewerFormat { .. }) => {
                SnapshotError::NewerFormat { path: self.path.clone(), source }
            }
            Broken::Content(source) => SnapshotError::Content { path: self.path.clone(), source },
        })
    }
}

impl Item {
    fn digest(&self) -> u64 {
        match self {
            Self::Record(key, versioned) => state::record_digest(key, versioned),
            Self::Row(key, row) => state::row_digest(key, row),
        }
    }
}

/// Why a file is not read to its end.
enum Broken {
    Io(io::Error),
    Content(CodecError),
}

impl From<CodecError> for Broken {
    fn from(source: CodecError) -> Self {
        Self::Content(source)
    }
}

/// The sections of a file, one in memory at a time.
struct Sections<'a> {
    number: u32,
    file: BufReader<&'a File>,
}

impl Sections<'_> {
    /// The next section, whole.
    fn next(&mut self) -> Result<(SectionKind, Vec<u8>), Broken> {
        let mut header = [0; SECTION_HEADER_BYTES];
        self.read(&mut header)?;
        let mut payload = vec![0; codec::section_length(&header)?];
        self.read(&mut payload)?;
        let kind = codec::check_section(self.number, &header, &payload)?;
        self.number += 1;
        Ok((kind, payload))
    }

    fn at_end(&mut self) -> Result<bool, Broken> {
        self.file.fill_buf().map(<[u8]>::is_empty).map_err(Broken::Io)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        self.file.read_exact(bytes).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => Broken::Content(CodecError::TooShort { length: bytes.len() }),
            _ => Broken::Io(source),
        })
    }
}

/// Writes sections of one kind until there are no items left; each item is shown to `note`.
fn write_all<T: Serialize>(
    items: impl Iterator<Item = T>,
    kind: SectionKind,
    section: &mut impl FnMut(SectionKind, &[u8]) -> io::Result<()>,
    mut note: impl FnMut(&T),
) -> io::Result<()> {
    let mut payload = Vec::new();
    for item in items {
        note(&item);
        push(&mut payload, &item);
        if payload.len() >= SECTION_BYTES {
            section(kind, &payload)?;
            payload.clear();
        }
    }
    section(kind, &payload)
}

fn pull_item(kind: SectionKind, rest: &mut &[u8]) -> Result<Item, CodecError> {
    match kind {
        SectionKind::Records => pull(rest).map(|(key, versioned)| Item::Record(key, versioned)),
        SectionKind::Ledger => pull(rest).map(|(key, row)| Item::Row(key, row)),
        SectionKind::Head | SectionKind::End => Err(CodecError::Checksum),
    }
}

/// Appends a value with its length.
fn push<T: Serialize>(payload: &mut Vec<u8>, value: &T) {
    let value = codec::encode(value);
    payload.extend_from_slice(&u32::try_from(value.len()).expect("a record is below 64 KiB").to_le_bytes());
    payload.extend_from_slice(&value);
}

/// Takes a value off the front.
fn pull<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, CodecError> {
    let short = CodecError::TooShort { length: rest.len() };
    let (length, after) = rest.split_first_chunk().ok_or(short.clone())?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(short)?;
    *rest = after;
    codec::decode(value)
}
