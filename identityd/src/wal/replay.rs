//! Reading a log back: a torn tail is cut, any other damage refuses to start.
//!
//! Every record says up to which offset its segment was on stable storage when it was written. So a record that lies
//! behind the damage and says that the damaged place was on stable storage proves that something acknowledged is lost;
//! without such a record the damage is a write that was cut off and never acknowledged.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{Contents, FINISHED, TruncatesCommitted, UNFINISHED, places::Place};
use crate::REPLACE_MEMBER;
use crate::codec::{self, CodecError, Frame, RecordKind, SEGMENT_HEADER_BYTES, Scanned, SegmentHeader};
use crate::raft::{Entry, LogId, Vote};

/// A log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system refuses.
    #[error("write-ahead log {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Acknowledged records are damaged.
    #[error(
        "write-ahead log {} is damaged at byte {offset}: {reason}. This is not the trace of a crash, so nothing was cut. \
         Look after the disk. {}",
        path.display(),
        REPLACE_MEMBER
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: usize,
        /// What is wrong there.
        reason: DamageReason,
    },
    /// The log is another member's.
    #[error("write-ahead log {} belongs to member {found}, not to member {member}: check 'id' and 'data_dir'", path.display())]
    OtherMember {
        /// The segment.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who opens it.
        member: u64,
    },
    /// Another version wrote the log.
    #[error("write-ahead log {}: {source}", path.display())]
    OtherFormat {
        /// The segment.
        path: PathBuf,
        /// Which version.
        source: CodecError,
    },
}

/// What is wrong with a place of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// The segment's header does not decode.
    #[error("the segment's header cannot be read: {source}")]
    Header {
        /// Why.
        source: CodecError,
    },
    /// The name of the file is not that of its header.
    #[error("the header says segment {found}, the name or the segment before it says {expected}")]
    Sequence {
        /// In the header.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// A record that was on stable storage is unreadable.
    #[error("no record can be read here, but one at byte {later} was written after this place was on stable storage")]
    BeforeLaterRecord {
        /// Where the later one is.
        later: usize,
    },
    /// An earlier segment, which was whole when the next one was begun.
    #[error("no record can be read here, but a later segment exists")]
    EarlierSegment,
    /// A record is whole and does not decode.
    #[error("the record is whole, but does not decode: {source}")]
    Value {
        /// Why.
        source: CodecError,
    },
    /// A record of another kind of file.
    #[error("this is a record of the history, not of the log")]
    Delta,
    /// An entry that was on stable storage is unreadable.
    #[error("entry {index} cannot be read back")]
    Unreadable {
        /// Its index.
        index: u64,
    },
    /// Another entry lies where one was written.
    #[error("entry {found} lies where entry {expected} was written")]
    OtherEntry {
        /// The index found.
        found: u64,
        /// The index that was written.
        expected: u64,
    },
    /// Committed entries are removed.
    #[error(transparent)]
    Truncates(#[from] TruncatesCommitted),
    /// Entries are not in order.
    #[error("entry {found} follows entry {last}")]
    Gap {
        /// The index found.
        found: u64,
        /// The index before it.
        last: u64,
    },
    /// The first entries are missing.
    #[error("the first entry has index {first}, but entries are purged only up to {purged}")]
    MissingBeginning {
        /// The first index.
        first: u64,
        /// The last purged index, or -1.
        purged: i128,
    },
}

/// A segment that was read.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    /// The largest index of its entries, truncated ones included.
    pub(super) last_index: Option<u64>,
}

/// Everything a writer needs to go on.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) contents: Contents,
    pub(super) segments: Vec<Segment>,
    /// Where the last segment's records end, and how long its file is.
    pub(super) end: usize,
    pub(super) size: usize,
    /// Whether bytes behind `end` are a torn tail.
    pub(super) torn: bool,
    /// The bytes before `end` of which no record says that they were on stable storage.
    pub(super) unproven: Vec<u8>,
}

/// Reads a log; `tail_bytes` is what its entries may take in memory.
pub(super) fn replay(directory: &Path, member: u64, tail_bytes: usize) -> Result<Replayed, WalError> {
    let mut replayed = Replayed::default();
    let paths = segments(directory)?;
    for (position, path) in paths.iter().enumerate() {
        let is_last = position + 1 == paths.len();
        let bytes = std::fs::read(path).map_err(|source| WalError::Io { path: path.clone(), source })?;
        let expected = replayed.segments.last().map(|segment| segment.sequence + 1);
        let sequence = read_header(path, &bytes, member, expected)?;
        replayed.segments.push(Segment { sequence, path: path.clone(), last_index: None });
        replay_segment(&mut replayed, &bytes, is_last, tail_bytes)?;
    }
    finish(&mut replayed)?;
    Ok(replayed)
}

fn segments(directory: &Path) -> Result<Vec<PathBuf>, WalError> {
    let io = |source| WalError::Io { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(FINISHED) => paths.push(path),
            // Left by a crash while a segment was made; it never held anything.
            Some(UNFINISHED) => std::fs::remove_file(&path).map_err(io)?,
            _ => {}
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_header(path: &Path, bytes: &[u8], member: u64, expected: Option<u64>) -> Result<u64, WalError> {
    let damaged = |reason| WalError::Damaged { path: path.to_owned(), offset: 0, reason };
    let header = SegmentHeader::decode(bytes).map_err(|source| match source {
        CodecError::NewerFormat { .. } | CodecError::OlderFormat { .. } => {
            WalError::OtherFormat { path: path.to_owned(), source }
        }
        source => damaged(DamageReason::Header { source }),
    })?;
    if header.member != member {
        return Err(WalError::OtherMember { path: path.to_owned(), found: header.member, member });
    }
    let named = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
    let expected = expected.or(named).unwrap_or_default();
    if header.sequence != expected || named != Some(expected) {
        return Err(damaged(DamageReason::Sequence { found: header.sequence, expected }));
    }
    Ok(header.sequence)
}

fn replay_segment(replayed: &mut Replayed, bytes: &[u8], is_last: bool, tail_bytes: usize) -> Result<(), WalError> {
    let Replayed { contents, segments, .. } = replayed;
    let Some(segment) = segments.last_mut() else { return Ok(()) };
    let damaged = |path: &Path, offset, reason| Err(WalError::Damaged { path: path.to_owned(), offset, reason });
    let (mut offset, mut proven) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
    let whole = loop {
        match codec::scan_record(bytes, segment.sequence, offset) {
            Scanned::Record(frame) => {
                let end = offset + codec::RECORD_HEADER_BYTES + frame.payload.len();
                if let Err(reason) = apply(contents, segment, frame, offset..end) {
                    if let DamageReason::Value {
                        source: source @ (CodecError::NewerFormat { .. } | CodecError::OlderFormat { .. }),
                    } = reason
                    {
                        return Err(WalError::OtherFormat { path: segment.path.clone(), source });
                    }
                    return damaged(&segment.path, offset, reason);
                }
                contents.evict(tail_bytes);
                proven = proven.max(frame.synced as usize);
                offset = end;
            }
            Scanned::End => break true,
            Scanned::Damaged => break false,
        }
    };
    // Zeros end a log only if nothing follows them: a lost page looks like an end, too.
    let rest_is_zero = whole && bytes[offset.min(bytes.len())..].iter().all(|byte| *byte == 0);
    if !rest_is_zero {
        if let Some(later) = proof_of_loss(bytes, segment.sequence, offset) {
            return damaged(&segment.path, offset, DamageReason::BeforeLaterRecord { later });
        }
        if !is_last {
            return damaged(&segment.path, offset, DamageReason::EarlierSegment);
        }
    }
    (replayed.end, replayed.size, replayed.torn) = (offset, bytes.len(), !rest_is_zero);
    replayed.unproven = bytes.get(proven..offset).unwrap_or_default().to_vec();
    Ok(())
}

/// A whole record behind `offset` that was written after `offset` was on stable storage.
fn proof_of_loss(bytes: &[u8], sequence: u64, offset: usize) -> Option<usize> {
    (offset + 1..bytes.len()).find(|later| {
        matches!(codec::scan_record(bytes, sequence, *later), Scanned::Record(frame) if frame.synced as usize > offset)
    })
}

fn apply(
    contents: &mut Contents,
    segment: &mut Segment,
    frame: Frame<'_>,
    place: Range<usize>,
) -> Result<(), DamageReason> {
    match frame.kind {
        RecordKind::Entry => {
            let entry: Entry = value(frame)?;
            let found = entry.log_id.index;
            if let Some(last) = contents.last_index().filter(|last| last.checked_add(1) != Some(found)) {
                return Err(DamageReason::Gap { found, last });
            }
            segment.last_index = segment.last_index.max(Some(found));
            contents.push(entry);
            contents.stored(found, Place::new(segment.sequence, place));
        }
        RecordKind::Vote => contents.vote = Some(value::<Vote>(frame)?),
        RecordKind::Truncate => {
            let index = value(frame)?;
            contents.truncate(index)?;
            contents.truncated(index);
        }
        RecordKind::Purge => contents.purge(value::<LogId>(frame)?),
        RecordKind::Committed => contents.committed = value::<Option<LogId>>(frame)?,
        RecordKind::Delta => return Err(DamageReason::Delta),
    }
    Ok(())
}

fn value<T: DeserializeOwned>(frame: Frame<'_>) -> Result<T, DamageReason> {
    codec::decode(frame.payload).map_err(|source| DamageReason::Value { source })
}

fn finish(replayed: &mut Replayed) -> Result<(), WalError> {
    let purged = replayed.contents.purged.map_or(-1, |log_id| i128::from(log_id.index));
    if let (Some(first), Some(segment)) = (replayed.contents.first_index(), replayed.segments.first())
        && i128::from(first) != purged + 1
    {
        let reason = DamageReason::MissingBeginning { first, purged };
        return Err(WalError::Damaged { path: segment.path.clone(), offset: SEGMENT_HEADER_BYTES, reason });
    }
    if replayed.torn
        && let Some(segment) = replayed.segments.last()
    {
        tracing::warn!(
            segment = %segment.path.display(),
            offset = replayed.end,
            "cutting a torn tail: a write that was never acknowledged"
        );
    }
    Ok(())
}
