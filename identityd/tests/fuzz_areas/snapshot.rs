//! A snapshot file. The first byte says what the rest is: the file as it is; sections (kind, length of the payload as 16
//! bits, payload) that are put into frames; or (anything else) what a snapshot holds, encoded, of which a file is made.

use std::fs;

use ringfence_identityd::{
    codec::{self, SectionKind},
    machine::ledger::{Ledger, Row, RowKey},
    raft::SnapshotMeta,
    snapshot::Snapshots,
    state::whole_digest,
};
use ringfence_policy::{
    mesh::Mesh,
    record::{RecordKey, Snapshot, Versioned},
    revision::Revision,
};

/// What the third way decodes.
pub(crate) type Parts = (SnapshotMeta, Revision, Vec<(RecordKey, Versioned)>, Vec<(RowKey, Row)>);

/// Loads the file as a member does that starts, and as one that receives it.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(mode), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    let directory = tempfile::tempdir().expect("a directory");
    let snapshots = Snapshots::open(directory.path()).expect("an empty directory");
    match mode {
        0 => fs::write(directory.path().join("snapshot"), body).expect("a file"),
        1 => fs::write(directory.path().join("snapshot"), sections(body)).expect("a file"),
        _ => {
            let Ok((meta, revision, records, rows)) = codec::decode::<Parts>(body) else { return false };
            let mut ledger = Ledger::default();
            rows.into_iter().for_each(|(key, row)| ledger.set(&key, Some(row)));
            let records = records.into_iter().collect();
            let mesh = Mesh::from_snapshot(Snapshot { revision, records });
            let digest = whole_digest(&mesh, &ledger);
            snapshots.build(&meta, &mesh, &ledger, digest).expect("what decodes can be written");
        }
    }
    let received = {
        let file = fs::read(directory.path().join("snapshot")).expect("a file");
        let mut receiving = snapshots.begin_receiving().expect("a file beside");
        file.chunks(100).for_each(|part| receiving.append(part).expect("a part"));
        receiving
    };
    let loaded = snapshots.load();
    let installed = snapshots.install(received);
    let Ok(loaded) = loaded else {
        assert!(installed.is_err(), "one that does not load is not installed either");
        return false;
    };
    let loaded = loaded.expect("it is there");
    assert_eq!(installed.ok().as_ref(), Some(&loaded));
    let digest = whole_digest(&loaded.mesh, &loaded.ledger);
    snapshots.build(&loaded.meta, &loaded.mesh, &loaded.ledger, digest).expect("what was read can be written");
    assert_eq!(snapshots.load().ok().flatten(), Some(loaded));
    true
}

fn sections(mut body: &[u8]) -> Vec<u8> {
    let mut file = codec::snapshot_prefix().to_vec();
    let mut number = 0;
    while let [kind, low, high, rest @ ..] = body {
        let (payload, after) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        let kind = match kind % 4 {
            0 => SectionKind::Head,
            1 => SectionKind::Records,
            2 => SectionKind::Ledger,
            _ => SectionKind::End,
        };
        file.extend(codec::encode_section(number, kind, payload));
        number += 1;
        body = after;
    }
    file
}
