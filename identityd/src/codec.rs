//! The one place that knows the store's bytes: values, log records, segment headers, snapshot files.
//!
//! ```text
//! value      format:1 | postcard
//! segment    "RFWALSEG" | version:4 | member:8 | sequence:8 | crc:4          then records, then zeros
//! record     payload length:4 | crc:4 | synced:4 | kind:1 | payload          crc also covers sequence and offset
//! snapshot   "RFSNAPSH" | version:4                                      then sections: head, records …, ledger …, end
//! section    payload length:4 | crc:4 | kind:1 | payload                 crc also covers the section's number
//! ```
//!
//! Integers are little-endian, checksums CRC-32 (IEEE). A record's checksum covers where it lies, so that bytes of an
//! old record, or bytes that look like one inside a payload, never pass for a record.

mod deltas;

use std::cmp::Ordering;

use postcard::ser_flavors::Flavor;
use ringfence_policy::{record::Record, revision::Revision};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use deltas::EncodedDeltas;

/// The format of values, segments and snapshots that this version writes, and the one that it reads.
pub const FORMAT_VERSION: u8 = 2;
/// Length of a segment's header in bytes.
pub const SEGMENT_HEADER_BYTES: usize = 32;
/// Length of a record without its payload in bytes.
pub const RECORD_HEADER_BYTES: usize = 13;
/// The largest payload of a record in bytes: an upper bound for what a damaged length can claim.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"RFWALSEG";
const SNAPSHOT_MAGIC: [u8; 8] = *b"RFSNAPSH";
/// Length of what a snapshot begins with, in bytes.
pub const SNAPSHOT_PREFIX_BYTES: usize = 12;
/// Length of a section of a snapshot without its payload, in bytes.
pub const SECTION_HEADER_BYTES: usize = 9;
/// The largest payload of a section in bytes; reading one never takes more memory.
pub const MAX_SECTION_BYTES: usize = 4 << 20;
const CRC_BYTES: usize = 4;

/// Bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is less than the smallest possible content.
    #[error("{length} bytes are too few")]
    TooShort {
        /// How many there are.
        length: usize,
    },
    /// The bytes begin with something else.
    #[error("the first bytes are not {expected:?}: this is not a file of the store")]
    Magic {
        /// What they should be.
        expected: String,
    },
    /// A later version wrote them.
    #[error(
        "format version {found} is newer than {FORMAT_VERSION}, the newest that this identityd reads: upgrade identityd"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// A version before the first release wrote them.
    #[error(
        "format version {found} is older than {FORMAT_VERSION}, the oldest that this identityd reads: \
         take a backup with the identityd that wrote it, and restore that"
    )]
    OlderFormat {
        /// The version found.
        found: u32,
    },
    /// The checksum does not fit.
    #[error("the checksum does not fit: the bytes are damaged")]
    Checksum,
    /// The value does not decode.
    #[error("the content does not decode: {source}")]
    Malformed {
        /// Why.
        source: postcard::Error,
    },
    /// Something follows the value.
    #[error("{count} bytes follow the content")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

/// What a record of the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A Raft log entry.
    Entry = 1,
    /// The member's vote.
    Vote = 2,
    /// Entries from an index on are gone.
    Truncate = 3,
    /// Entries up to a log id are gone: a snapshot holds what they did.
    Purge = 4,
    /// Entries up to a log id are committed.
    Committed = 5,
    /// What one revision changed; only in the history.
    Delta = 6,
}

/// What a section of a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SectionKind {
    /// What the snapshot covers.
    Head = 1,
    /// Some of its records.
    Records = 2,
    /// How many records and rows there are, and their digest.
    End = 3,
    /// Some rows of the ledger.
    Ledger = 4,
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub member: u64,
    /// Counts the segments of a log from 1 without gaps.
    pub sequence: u64,
}

/// A record as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: RecordKind,
    /// Everything before this offset of the segment was on stable storage when the record was written.
    pub synced: u32,
    /// The value.
    pub payload: &'a [u8],
}

/// What lies at an offset of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A whole record.
    Record(Frame<'a>),
    /// Nothing was written here: the length is zero.
    End,
    /// Bytes that are no record.
    Damaged,
}

/// Encodes a value for the log, the state, a snapshot or another member.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    encode_into(&mut bytes, value);
    bytes
}

/// As `encode`, behind what a buffer holds already.
pub fn encode_into<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    buffer.push(FORMAT_VERSION);
    push(buffer, value);
}

/// A part of a value, without a format: what a struct's or a tuple's fields are, one after the other.
fn push<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    postcard::serialize_with_flavor(value, Appending(buffer))
        .expect("the store's values are plain data of known length; writing to memory cannot fail");
}

/// Where postcard writes.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Encodes a `Versioned` into an empty buffer; gives where its record begins.
pub(crate) fn encode_versioned(buffer: &mut Vec<u8>, revision: Revision, record: &Record) -> usize {
    encode_into(buffer, &revision);
    let start = buffer.len();
    push(buffer, record);
    start
}

/// Decodes what `encode` made.
///
/// # Errors
/// `CodecError` for another format, malformed content and trailing bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, content) = bytes.split_first().ok_or(CodecError::TooShort { length: 0 })?;
    check_format(u32::from(*format))?;
    let (value, rest) = postcard::take_from_bytes(content).map_err(|source| CodecError::Malformed { source })?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::TrailingBytes { count: rest.len() }) }
}

/// A 64-bit digest, the same on every machine and in every version: each step is one to one in what it takes in, so
/// contents that differ in one word differ in their digest.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |word: u64| {
        let mixed = (hash ^ word).wrapping_mul(FACTOR);
        hash = mixed ^ mixed >> 29;
    };
    for part in parts {
        take(u64_of(part.len()));
        let (words, rest) = part.as_chunks::<8>();
        words.iter().for_each(|word| take(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            take(u64::from_le_bytes(last));
        }
    }
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

fn check_format(found: u32) -> Result<(), CodecError> {
    match found.cmp(&u32::from(FORMAT_VERSION)) {
        Ordering::Greater => Err(CodecError::NewerFormat { found }),
        Ordering::Less => Err(CodecError::OlderFormat { found }),
        Ordering::Equal => Ok(()),
    }
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&u32::from(FORMAT_VERSION).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.member.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the beginning of a segment.
    ///
    /// # Errors
    /// `CodecError`; a newer version is told before the checksum is looked at, because a newer header may differ.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return Err(CodecError::TooShort { length: bytes.len() });
        }
        check_magic(bytes, SEGMENT_MAGIC)?;
        if crc32fast::hash(&bytes[..28]) != u32_at(bytes, 28) {
            return Err(CodecError::Checksum);
        }
        Ok(Self { member: u64_at(bytes, 12), sequence: u64_at(bytes, 20) })
    }
}

/// Appends a record to `buffer`, whose first byte will lie at `base` of the segment.
pub fn push_record(buffer: &mut Vec<u8>, sequence: u64, base: u32, synced: u32, kind: RecordKind, payload: &[u8]) {
    let start = buffer.len();
    let offset = base + u32_of(start);
    buffer.extend_from_slice(&u32_of(payload.len()).to_le_bytes());
    buffer.extend_from_slice(&[0; CRC_BYTES]);
    buffer.extend_from_slice(&synced.to_le_bytes());
    buffer.push(kind as u8);
    buffer.extend_from_slice(payload);
    let crc = record_crc(sequence, offset, &buffer[start..]);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Looks at one offset of a segment.
#[must_use]
pub fn scan_record(segment: &[u8], sequence: u64, offset: usize) -> Scanned<'_> {
    scan_piece(segment, sequence, 0, offset)
}

/// As `scan_record`, in a piece of a segment whose first byte lies at `base` of it; `offset` is counted from there.
#[must_use]
pub fn scan_piece(piece: &[u8], sequence: u64, base: usize, offset: usize) -> Scanned<'_> {
    let Some(bytes) = piece.get(offset..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES) else {
        let rest = piece.get(offset..).unwrap_or_default();
        return if rest.iter().all(|byte| *byte == 0) { Scanned::End } else { Scanned::Damaged };
    };
    let length = u32_at(bytes, 0) as usize;
    if length == 0 {
        return if bytes[..RECORD_HEADER_BYTES].iter().all(|byte| *byte == 0) {
            Scanned::End
        } else {
            Scanned::Damaged
        };
    }
    let Some(record) = bytes.get(..RECORD_HEADER_BYTES + length).filter(|_| length <= MAX_PAYLOAD_BYTES) else {
        return Scanned::Damaged;
    };
    let kind = match record[12] {
        1 => RecordKind::Entry,
        2 => RecordKind::Vote,
        3 => RecordKind::Truncate,
        4 => RecordKind::Purge,
        5 => RecordKind::Committed,
        6 => RecordKind::Delta,
        _ => return Scanned::Damaged,
    };
    if record_crc(sequence, u32_of(base + offset), record) != u32_at(record, 4) {
        return Scanned::Damaged;
    }
    Scanned::Record(Frame { kind, synced: u32_at(record, 8), payload: &record[RECORD_HEADER_BYTES..] })
}

/// What a snapshot begins with.
#[must_use]
pub fn snapshot_prefix() -> [u8; SNAPSHOT_PREFIX_BYTES] {
    let mut bytes = [0; SNAPSHOT_PREFIX_BYTES];
    bytes[..8].copy_from_slice(&SNAPSHOT_MAGIC);
    bytes[8..].copy_from_slice(&u32::from(FORMAT_VERSION).to_le_bytes());
    bytes
}

/// Checks what a snapshot begins with.
///
/// # Errors
/// `CodecError` for another kind of file and for a newer format.
pub fn check_snapshot_prefix(bytes: [u8; SNAPSHOT_PREFIX_BYTES]) -> Result<(), CodecError> {
    match check_magic(&bytes, SNAPSHOT_MAGIC) {
        Ok(()) if bytes != snapshot_prefix() => Err(CodecError::Checksum),
        checked => checked,
    }
}

/// Section `number` of a snapshot, counted from 0.
#[must_use]
pub fn encode_section(number: u32, kind: SectionKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTION_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&u32_of(payload.len()).to_le_bytes());
    bytes.extend_from_slice(&[0; CRC_BYTES]);
    bytes.push(kind as u8);
    let crc = section_crc(number, &bytes, payload);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The length of the payload that a section's header announces, in bytes.
///
/// # Errors
/// `CodecError::Checksum` for a length that no section has.
pub fn section_length(header: &[u8; SECTION_HEADER_BYTES]) -> Result<usize, CodecError> {
    let length = u32_at(header, 0) as usize;
    if length <= MAX_SECTION_BYTES { Ok(length) } else { Err(CodecError::Checksum) }
}

/// The kind of section `number`, if it is whole.
///
/// # Errors
/// `CodecError::Checksum`.
pub fn check_section(
    number: u32,
    header: &[u8; SECTION_HEADER_BYTES],
    payload: &[u8],
) -> Result<SectionKind, CodecError> {
    if section_crc(number, header, payload) != u32_at(header, 4) {
        return Err(CodecError::Checksum);
    }
    match header[8] {
        1 => Ok(SectionKind::Head),
        2 => Ok(SectionKind::Records),
        3 => Ok(SectionKind::End),
        4 => Ok(SectionKind::Ledger),
        _ => Err(CodecError::Checksum),
    }
}

/// Puts a checksum before bytes.
#[must_use]
pub fn seal(bytes: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(bytes).to_le_bytes(), bytes].concat()
}

/// The bytes that were sealed.
///
/// # Errors
/// `CodecError` if they are not the same.
pub fn unseal(sealed: &[u8]) -> Result<&[u8], CodecError> {
    match sealed.split_at_checked(CRC_BYTES) {
        Some((crc, bytes)) if u32_at(crc, 0) == crc32fast::hash(bytes) => Ok(bytes),
        Some(_) => Err(CodecError::Checksum),
        None => Err(CodecError::TooShort { length: sealed.len() }),
    }
}

fn check_magic(bytes: &[u8], magic: [u8; 8]) -> Result<(), CodecError> {
    if bytes[..8] != magic {
        return Err(CodecError::Magic { expected: String::from_utf8_lossy(&magic).into_owned() });
    }
    check_format(u32_at(bytes, 8))
}

fn record_crc(sequence: u64, offset: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

fn section_crc(number: u32, header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&header[..4]);
    hasher.update(&header[8..]);
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes is four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes is eight bytes"))
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("segments, records and snapshot heads are far below 4 GiB")
}

fn u64_of(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits into 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_what_is_wrong_with_them() {
        let bytes = encode(&(7_u32, "seven"));
        assert_eq!(decode::<(u32, String)>(&bytes), Ok((7, "seven".to_owned())));
        assert_eq!(decode::<u32>(&[]), Err(CodecError::TooShort { length: 0 }));
        assert_eq!(decode::<u32>(&[9, 0]), Err(CodecError::NewerFormat { found: 9 }));
        assert_eq!(decode::<u32>(&[1, 0]), Err(CodecError::OlderFormat { found: 1 }));
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::TrailingBytes { count: 6 }));
        assert!(matches!(decode::<(u32, String)>(&bytes[..4]), Err(CodecError::Malformed { .. })));
    }

    #[test]
    fn every_flipped_bit_changes_a_digest() {
        let content: Vec<u8> = (0..61).collect();
        let mut seen = std::collections::BTreeSet::from([digest(&[&content]), digest(&[&content, b""])]);
        for length in 0..content.len() {
            assert!(seen.insert(digest(&[&content[..length]])), "{length} bytes");
            assert!(seen.insert(digest(&[&content[..length], &content[length..]])), "split at {length}");
        }
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(digest(&[&flipped])), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let mut segment = vec![0; 40];
        push_record(&mut segment, 3, 0, 40, RecordKind::Vote, b"payload");
        let expected = Frame { kind: RecordKind::Vote, synced: 40, payload: b"payload" };
        assert_eq!(scan_record(&segment, 3, 40), Scanned::Record(expected));
        assert_eq!(scan_record(&segment, 4, 40), Scanned::Damaged, "a record of another segment");
        for bit in 40 * 8..segment.len() * 8 {
            let mut damaged = segment.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(scan_record(&damaged, 3, 40), Scanned::Damaged, "bit {bit}");
        }
        assert_eq!(scan_record(&segment, 3, 0), Scanned::End);
        assert_eq!(scan_record(&segment, 3, segment.len()), Scanned::End);
    }

    #[test]
    fn every_flipped_bit_of_a_section_is_seen() {
        let bytes = encode_section(3, SectionKind::Records, b"payload");
        let check = |number, bytes: &[u8]| {
            let (header, payload) = bytes.split_first_chunk().unwrap();
            check_section(number, header, payload)
        };
        assert_eq!(check(3, &bytes), Ok(SectionKind::Records));
        assert_eq!(check(4, &bytes), Err(CodecError::Checksum), "a section in another place");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(3, &damaged), Err(CodecError::Checksum), "bit {bit}");
        }
        assert_eq!(section_length(&[0xff; SECTION_HEADER_BYTES]), Err(CodecError::Checksum));
    }

    #[test]
    fn what_is_sealed_comes_back_whole_or_not_at_all() {
        let sealed = seal(b"marker");
        assert_eq!(unseal(&sealed), Ok(&b"marker"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(unseal(b"abc"), Err(CodecError::TooShort { length: 3 }));
    }

    #[test]
    fn a_newer_segment_is_told_from_a_damaged_one() {
        let header = SegmentHeader { member: 2, sequence: 5 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[12] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(CodecError::Checksum));
        bytes[8] = FORMAT_VERSION + 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(CodecError::NewerFormat { found: 3 }));
        bytes[8] = FORMAT_VERSION - 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(CodecError::OlderFormat { found: 1 }));
    }
}
