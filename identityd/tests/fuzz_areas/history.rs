//! A file of the history. The first byte says what the rest is: bytes behind the header as they are, or deltas (length as
//! 16 bits, payload) that are put into frames.

use std::{fs, time::SystemTime};

use ringfence_identityd::{
    codec::{self, RecordKind, SegmentHeader, push_record},
    history::{Bounds, DiskHistory, Reach},
};
use ringfence_policy::{record::Delta, revision::Revision};
use ringfence_proto::follow::Past as _;

const MEMBER: u64 = 7;
/// The first revision of the file, and the state's.
const FIRST: u64 = 11;
const HEAD: Revision = Revision(13);

/// Opens the history as a member does that starts, reads all of it, and adds to it.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(mode), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    let mut file = SegmentHeader { member: MEMBER, sequence: FIRST }.encode().to_vec();
    if *mode == 0 {
        file.extend_from_slice(body);
    } else {
        push_deltas(&mut file, body);
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(format!("{FIRST:016x}.deltas")), &file).expect("a file");
    let history = DiskHistory::open(directory.path(), MEMBER, Bounds::default(), HEAD);
    let before = Revision(FIRST - 1);
    let read = history.deltas_after(before, 100);
    // In order, without gaps, up to the head; or nothing at all.
    let revisions: Option<Vec<u64>> = read.map(|deltas| deltas.iter().map(|delta| delta.revision.0).collect());
    assert!(revisions.is_none() || revisions == Some((FIRST..=HEAD.0).collect()), "{revisions:?}");
    let next = Delta { revision: HEAD.next(), changes: vec![] };
    history.append([(next.revision, &*codec::encode(&next))], SystemTime::UNIX_EPOCH);
    if let Reach::Deltas(deltas) = history.read_from(HEAD) {
        assert_eq!(deltas.filter_map(Result::ok).collect::<Vec<_>>(), [next]);
    }
    revisions.is_some()
}

fn push_deltas(file: &mut Vec<u8>, mut body: &[u8]) {
    while let [low, high, rest @ ..] = body {
        let (payload, after) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        if payload.is_empty() {
            return;
        }
        push_record(file, FIRST, 0, 0, RecordKind::Delta, payload);
        body = after;
    }
}
