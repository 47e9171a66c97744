//! One snapshot file: written and read section by section, so that neither takes more memory than a section.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, Write},
    ops::Range,
    path::PathBuf,
};

use ringfence_policy::{
    mesh::Mesh,
    record::{Snapshot, Versioned},
    revision::Revision,
};
use serde::Serialize;

use super::{Content, SnapshotError, io_error};
use crate::{
    codec::{self, CodecError, SECTION_HEADER_BYTES, SNAPSHOT_PREFIX_BYTES, SectionKind},
    machine::ledger::Ledger,
    raft::SnapshotMeta,
    state,
};

/// The largest part in which a snapshot travels, in bytes.
pub const PART_BYTES: usize = 1 << 20;
/// A section of records or rows is closed when it has this many bytes.
const SECTION_BYTES: usize = 256 << 10;
/// Length of the length of a value, in bytes.
const LENGTH_BYTES: usize = 4;

/// An open snapshot file. It stays readable while a newer one takes its name.
#[derive(Debug)]
pub struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Count and digest of all records and rows: the last section.
type End = (u64, u64);

/// What sections hold many of, as it lies there.
#[derive(Clone, Copy)]
enum Item<'a> {
    /// An encoded `Versioned`.
    Record(&'a [u8]),
    /// An encoded key and an encoded row.
    Row(&'a [u8], &'a [u8]),
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
        let (meta, _) = self.scan(|_| Ok(()))?;
        self.file.rewind().map_err(|source| io_error(&self.path, source))?;
        Ok(meta)
    }

    /// What the file holds.
    pub(super) fn read(&mut self) -> Result<Content, SnapshotError> {
        let (mut records, mut ledger) = (Vec::new(), Ledger::default());
        let (meta, revision) = self.scan(|item| {
            match item {
                Item::Record(versioned) => {
                    let versioned: Versioned = codec::decode(versioned)?;
                    records.push((versioned.record.key(), versioned));
                }
                Item::Row(key, row) => ledger.set(&codec::decode(key)?, Some(codec::decode(row)?)),
            }
            Ok(())
        })?;
        let snapshot = Snapshot { revision, records: records.into_iter().collect() };
        Ok(Content { meta, mesh: Mesh::from_snapshot(snapshot), ledger })
    }

    /// Writes a whole snapshot; the next part is the first one afterwards. Gives the digest of what it holds.
    pub(super) fn write(&mut self, meta: &SnapshotMeta, mesh: &Mesh, ledger: &Ledger) -> Result<u64, SnapshotError> {
        let written = self.try_write(meta, mesh, ledger).and_then(|digest| self.file.rewind().map(|()| digest));
        written.map_err(|source| io_error(&self.path, source))
    }

    fn try_write(&self, meta: &SnapshotMeta, mesh: &Mesh, ledger: &Ledger) -> io::Result<u64> {
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
        let mut payload = Vec::with_capacity(SECTION_BYTES + SECTION_BYTES / 4);
        for versioned in mesh.records().values() {
            let place = push(&mut payload, versioned);
            add(state::encoded_record_digest(&payload[place]));
            if payload.len() >= SECTION_BYTES {
                section(SectionKind::Records, &payload)?;
                payload.clear();
            }
        }
        section(SectionKind::Records, &payload)?;
        payload.clear();
        for (key, row) in ledger.rows() {
            let (key, row) = (push(&mut payload, &key), push(&mut payload, &row));
            add(state::encoded_row_digest(&payload[key], &payload[row]));
            if payload.len() >= SECTION_BYTES {
                section(SectionKind::Ledger, &payload)?;
                payload.clear();
            }
        }
        section(SectionKind::Ledger, &payload)?;
        section(SectionKind::End, &codec::encode(&(count, digest)))?;
        file.flush()?;
        Ok(digest)
    }

    /// Hands every record and row to `take`, in order. Only when it returns is it known that the file was whole.
    fn scan(
        &mut self,
        mut take: impl FnMut(Item<'_>) -> Result<(), CodecError>,
    ) -> Result<(SnapshotMeta, Revision), SnapshotError> {
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
                    take(item)?;
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

impl Item<'_> {
    fn digest(self) -> u64 {
        match self {
            Self::Record(versioned) => state::encoded_record_digest(versioned),
            Self::Row(key, row) => state::encoded_row_digest(key, row),
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

fn pull_item<'a>(kind: SectionKind, rest: &mut &'a [u8]) -> Result<Item<'a>, CodecError> {
    match kind {
        SectionKind::Records => pull(rest).map(Item::Record),
        SectionKind::Ledger => Ok(Item::Row(pull(rest)?, pull(rest)?)),
        SectionKind::Head | SectionKind::End => Err(CodecError::Checksum),
    }
}

/// Appends an encoded value with its length; gives where it lies.
fn push<T: Serialize>(payload: &mut Vec<u8>, value: &T) -> Range<usize> {
    payload.extend_from_slice(&[0; LENGTH_BYTES]);
    let start = payload.len();
    codec::encode_into(payload, value);
    let length = u32::try_from(payload.len() - start).expect("a record is below 64 KiB");
    payload[start - LENGTH_BYTES..start].copy_from_slice(&length.to_le_bytes());
    start..payload.len()
}

/// Takes an encoded value off the front.
fn pull<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let short = CodecError::TooShort { length: rest.len() };
    let (length, after) = rest.split_first_chunk().ok_or(short.clone())?;
    let (value, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(short)?;
    *rest = after;
    Ok(value)
}
