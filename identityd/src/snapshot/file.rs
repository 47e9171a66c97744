//! One snapshot file: written and read section by section, so that neither takes more memory than a section.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, Write},
    path::PathBuf,
};

use ringfence_policy::{
    mesh::Mesh,
    record::{RecordKey, Snapshot, Versioned},
    revision::Revision,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{SnapshotError, io_error};
use crate::{
    codec::{self, CodecError, SECTION_HEADER_BYTES, SNAPSHOT_PREFIX_BYTES, SectionKind},
    raft::SnapshotMeta,
    state,
};

/// The largest part in which a snapshot travels, in bytes.
pub const PART_BYTES: usize = 1 << 20;
/// A section of records is closed when it has this many bytes.
const SECTION_BYTES: usize = 256 << 10;

/// An open snapshot file. It stays readable while a newer one takes its name.
#[derive(Debug)]
pub struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Count and digest of all records: the last section.
type End = (u64, u64);

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
        let (meta, _) = self.scan(|_, _| {})?;
        self.file.rewind().map_err(|source| io_error(&self.path, source))?;
        Ok(meta)
    }

    /// What the file holds.
    pub(super) fn read(&mut self) -> Result<(SnapshotMeta, Mesh), SnapshotError> {
        let mut records = BTreeMap::new();
        let (meta, revision) = self.scan(|key, versioned| drop(records.insert(key, versioned)))?;
        Ok((meta, Mesh::from_snapshot(Snapshot { revision, records })))
    }

    /// Writes a whole snapshot.
    pub(super) fn write(&mut self, meta: &SnapshotMeta, mesh: &Mesh) -> Result<(), SnapshotError> {
        self.try_write(meta, mesh).map_err(|source| io_error(&self.path, source))
    }

    fn try_write(&self, meta: &SnapshotMeta, mesh: &Mesh) -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(SECTION_BYTES, &self.file);
        file.write_all(&codec::snapshot_prefix())?;
        let mut number = 0;
        let mut section = |kind, payload: &[u8]| {
            number += 1;
            file.write_all(&codec::encode_section(number - 1, kind, payload))
        };
        section(SectionKind::Head, &codec::encode(&(meta, mesh.revision())))?;
        let (mut digest, mut payload) = (0_u64, Vec::new());
        for (key, versioned) in mesh.records() {
            digest = digest.wrapping_add(state::record_digest(key, versioned));
            push(&mut payload, &(key, versioned));
            if payload.len() >= SECTION_BYTES {
                section(SectionKind::Records, &payload)?;
                payload.clear();
            }
        }
        section(SectionKind::Records, &payload)?;
        section(SectionKind::End, &codec::encode(&(mesh.records().len() as u64, digest)))?;
        file.flush()
    }

    /// Hands every record to `take`, in order. Only when it returns is it known that the file was whole.
    fn scan(&mut self, mut take: impl FnMut(RecordKey, Versioned)) -> Result<(SnapshotMeta, Revision), SnapshotError> {
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
                    let (key, versioned) = pull(&mut rest)?;
                    digest = digest.wrapping_add(state::record_digest(&key, &versioned));
                    count += 1;
                    take(key, versioned);
                }
            };
            let whole = end == (count, digest) && sections.at_end()?;
            if whole { Ok(codec::decode(&head)?) } else { Err(CodecError::Checksum.into()) }
        };
        scan().map_err(|broken| match broken {
            Broken::Io(source) => io_error(&self.path, source),
            Broken::Content(source) => SnapshotError::Content { path: self.path.clone(), source },
        })
    }
}

/// Why a file is not read to its end.
enum Broken {
    Io(std::io::Error),
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
