//! A segment of the log. The first byte says what the rest is: bytes behind a segment's header as they are, or records
//! (kind, what was synced before in units of 16 bytes, length of the payload as 16 bits, payload) that are put into frames.

use std::{fs, path::Path};

use ringfence_identityd::{
    codec::{RecordKind, SegmentHeader, push_record},
    wal::{Contents, Wal, WalOptions, read},
};

const MEMBER: u64 = 7;
const SEQUENCE: u64 = 1;
const TAIL_BYTES: usize = 4 << 20;

/// Reads the segment as a member does that starts.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(mode), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    let header = SegmentHeader { member: MEMBER, sequence: SEQUENCE };
    let mut segment = header.encode().to_vec();
    if *mode == 0 {
        segment.extend_from_slice(body);
    } else {
        push_records(&mut segment, body);
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(format!("{SEQUENCE:016x}.segment")), &segment).expect("a segment");
    let Ok(contents) = read(directory.path(), MEMBER, TAIL_BYTES) else { return false };
    holds(&contents, directory.path());
    reads_back(&contents, directory.path());
    true
}

/// Entries without gaps, behind what was purged; reading again gives the same.
fn holds(contents: &Contents, directory: &Path) {
    let indexes: Vec<u64> = contents.tail().keys().copied().collect();
    assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{indexes:?}");
    assert!(contents.tail().iter().all(|(index, entry)| *index == entry.log_id.index));
    assert!(contents.purged.is_none_or(|purged| indexes.first().is_none_or(|first| *first > purged.index)));
    assert_eq!(read(directory, MEMBER, TAIL_BYTES).as_ref().ok(), Some(contents));
}

/// Where every committed entry is on disk only, the log holds the same; or removes some of them, and is refused.
fn reads_back(contents: &Contents, directory: &Path) {
    let options = WalOptions { tail_bytes: 0, ..WalOptions::default() };
    match Wal::open(directory, MEMBER, options) {
        Ok(wal) => {
            let expected: Vec<_> = contents.tail().range(..u64::MAX).map(|(_, entry)| entry.clone()).collect();
            assert_eq!(wal.read(0..u64::MAX, usize::MAX).ok(), Some(expected));
            assert_eq!(wal.contents().last_log_id(), contents.last_log_id());
        }
        Err(error) => assert!(error.to_string().contains("is committed"), "{error}"),
    }
}

fn push_records(segment: &mut Vec<u8>, mut body: &[u8]) {
    while let [kind, synced, low, high, rest @ ..] = body {
        let (payload, after) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        if payload.is_empty() {
            return;
        }
        push_record(segment, SEQUENCE, 0, u32::from(*synced) * 16, kind_of(*kind), payload);
        body = after;
    }
}

const fn kind_of(byte: u8) -> RecordKind {
    match byte % 6 {
        0 => RecordKind::Entry,
        1 => RecordKind::Vote,
        2 => RecordKind::Truncate,
        3 => RecordKind::Purge,
        4 => RecordKind::Committed,
        _ => RecordKind::Delta,
    }
}
