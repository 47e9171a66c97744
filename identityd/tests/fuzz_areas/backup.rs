//! A backup file. The first byte says what the rest is: the file as it is, or one whose trailer is made to fit.

use prost::Message as _;
use ringfence_identityd::restore::rows;
use ringfence_policy::mesh::Mesh;
use ringfence_proto::{
    backup::{read, write},
    v1::{BackupFrame, BackupTrailer, backup_frame::Frame},
};

/// Reads the file as a restore does, and writes it again.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(mode), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    let file = if *mode == 0 { body.to_vec() } else { with_trailer(body) };
    let Ok(backup) = read(&file) else { return false };
    let again: Vec<u8> =
        write(backup.header.clone(), backup.snapshot.clone(), backup.ledger.clone()).flatten().collect();
    assert_eq!(read(&again).ok().as_ref(), Some(&backup));
    let mesh = Mesh::from_snapshot(backup.snapshot);
    let Ok(ledger) = rows::rebuilt(&mesh, backup.ledger) else { return false };
    let kept = rows::rebuilt(&mesh, rows::kept(&ledger));
    assert_eq!(kept.ok(), Some(ledger));
    true
}

/// The file with a trailer for what comes before its end: as many records as there are, so far as that can be told.
fn with_trailer(body: &[u8]) -> Vec<u8> {
    let (Some(records), before) = (body.first(), body.get(1..).unwrap_or_default()) else { return Vec::new() };
    let trailer = BackupTrailer { records: (*records).into(), checksum: crc32fast::hash(before) };
    let frame = BackupFrame { frame: Some(Frame::Trailer(trailer)) }.encode_to_vec();
    let length = u32::try_from(frame.len()).expect("a few bytes").to_le_bytes();
    [before, &length, &frame].concat()
}
