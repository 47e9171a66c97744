//! Backup files: a whole state of the mesh, readable by every later version and on any machine.
//!
//! ```text
//! "RINGFENCE BACKUP\n"  { u32 LE length, BackupFrame }…   header, chunks of records, of the ledger's rows, trailer with
//!                                                         the count of records and CRC-32
//! ```
//!
//! The records travel as the messages of the protocol, not as a member has them on disk: what a member writes may
//! change, a backup must not.

use prost::Message as _;
use ringfence_policy::{
    record::{Snapshot, Versioned},
    revision::Revision,
};

use crate::{
    convert::InvalidMessage,
    v1::{self, backup_frame::Frame},
};

const MAGIC: &[u8] = b"RINGFENCE BACKUP\n";
/// Records or rows of a frame.
const RECORDS_PER_FRAME: usize = 256;
/// No frame of ours comes near.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// Where it comes from.
    pub header: v1::BackupHeader,
    /// The state.
    pub snapshot: Snapshot,
    /// What the store remembers beside it; empty in files from before feature level 2.
    pub ledger: Vec<v1::LedgerRow>,
}

/// A file is not a whole backup.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBackup {
    /// It begins with something else.
    #[error("it is not a backup of a Ringfence store")]
    Magic,
    /// It ends too early, or goes on behind its end.
    #[error("it is cut off or has something behind its end, at byte {offset}")]
    Length {
        /// Where.
        offset: usize,
    },
    /// A frame cannot be read.
    #[error("it is damaged at byte {offset}: {source}")]
    Frame {
        /// Where.
        offset: usize,
        /// Why.
        source: prost::DecodeError,
    },
    /// Frames are missing, or in the wrong order.
    #[error("its parts are in the wrong order at byte {offset}")]
    Order {
        /// Where.
        offset: usize,
    },
    /// The checksum or the count does not fit.
    #[error("its checksum does not fit: {records} records are there, {expected} should be")]
    Checksum {
        /// How many were read.
        records: usize,
        /// How many should be there.
        expected: u64,
    },
    /// A record is not valid.
    #[error("a record in it is not valid: {0}")]
    Record(#[from] InvalidMessage),
}

/// A file's bytes, in parts of at most a few MiB.
pub fn write(
    header: v1::BackupHeader,
    snapshot: Snapshot,
    ledger: Vec<v1::LedgerRow>,
) -> impl Iterator<Item = Vec<u8>> + Send {
    let revision = snapshot.revision.0;
    let count = snapshot.records.len();
    let mut records = snapshot.records.into_values();
    let mut checksum = crc32fast::Hasher::new();
    let mut first = MAGIC.to_vec();
    first.extend(frame(Frame::Header(v1::BackupHeader { revision, ..header })));
    checksum.update(&first);
    let chunks = std::iter::from_fn(move || {
        let part: Vec<v1::Versioned> = records.by_ref().take(RECORDS_PER_FRAME).map(v1::Versioned::from).collect();
        let chunk = v1::SnapshotChunk { revision, records: part, last: false, ..Default::default() };
        (!chunk.records.is_empty()).then_some(Frame::Chunk(chunk))
    });
    let mut rows = ledger.into_iter();
    let ledger = std::iter::from_fn(move || {
        let rows: Vec<_> = rows.by_ref().take(RECORDS_PER_FRAME).collect();
        (!rows.is_empty()).then_some(Frame::Ledger(v1::LedgerChunk { rows }))
    });
    let mut chunks = chunks.fuse().chain(ledger.fuse());
    let mut done = false;
    let rest = std::iter::from_fn(move || {
        if let Some(chunk) = chunks.next() {
            let bytes = frame(chunk);
            checksum.update(&bytes);
            return Some(bytes);
        }
        if std::mem::replace(&mut done, true) {
            return None;
        }
        let checksum = checksum.clone().finalize();
        Some(frame(Frame::Trailer(v1::BackupTrailer { records: count as u64, checksum })))
    });
    std::iter::once(first).chain(rest)
}

fn frame(frame: Frame) -> Vec<u8> {
    let message = v1::BackupFrame { frame: Some(frame) };
    let length = u32::try_from(message.encoded_len()).expect("a few hundred records of at most 64 KiB");
    let mut bytes = length.to_le_bytes().to_vec();
    message.encode(&mut bytes).expect("a Vec takes all that is written");
    bytes
}

/// Reads a file and checks all of it.
///
/// # Errors
/// `InvalidBackup`.
pub fn read(bytes: &[u8]) -> Result<Backup, InvalidBackup> {
    if !bytes.starts_with(MAGIC) {
        return Err(InvalidBackup::Magic);
    }
    let mut offset = MAGIC.len();
    let Frame::Header(header) = next(bytes, &mut offset)? else {
        return Err(InvalidBackup::Order { offset });
    };
    let revision = Revision(header.revision);
    let (mut snapshot, mut ledger) = (Snapshot { revision, ..Snapshot::default() }, Vec::new());
    loop {
        let at = offset;
        match next(bytes, &mut offset)? {
            Frame::Chunk(chunk) if chunk.revision == revision.0 => {
                for record in chunk.records {
                    let versioned = Versioned::try_from(record)?;
                    snapshot.records.insert(versioned.record.key(), versioned);
                }
            }
            Frame::Ledger(chunk) => ledger.extend(chunk.rows),
            Frame::Trailer(trailer) => {
                let records = snapshot.records.len();
                if offset != bytes.len() {
                    return Err(InvalidBackup::Length { offset });
                }
                if trailer.records != records as u64 || trailer.checksum != crc32fast::hash(&bytes[..at]) {
                    return Err(InvalidBackup::Checksum { records, expected: trailer.records });
                }
                return Ok(Backup { header, snapshot, ledger });
            }
            _ => return Err(InvalidBackup::Order { offset: at }),
        }
    }
}

fn next(bytes: &[u8], offset: &mut usize) -> Result<Frame, InvalidBackup> {
    let at = *offset;
    let cut = || InvalidBackup::Length { offset: at };
    let (length, rest) = bytes[at..].split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
    let body = rest.get(..length).filter(|_| length <= MAX_FRAME_BYTES).ok_or_else(cut)?;
    let message = v1::BackupFrame::decode(body).map_err(|source| InvalidBackup::Frame { offset: at, source })?;
    *offset = at + 4 + length;
    message.frame.ok_or(InvalidBackup::Order { offset: at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{
        label::LabelSet,
        name::Name,
        record::{Node, Record},
    };

    fn snapshot(nodes: usize) -> Snapshot {
        let node = |number: usize| {
            let (cluster, name) = (Name::new("east").unwrap(), Name::new(format!("n{number}")).unwrap());
            Record::Node(Node { cluster, name, addresses: vec![], labels: LabelSet::default() })
        };
        let records = (0..nodes).map(node).map(|record| (record.key(), Versioned { revision: Revision(3), record }));
        Snapshot { revision: Revision(9), records: records.collect() }
    }

    fn ledger(rows: usize) -> Vec<v1::LedgerRow> {
        let row = |clock| v1::LedgerRow { row: Some(v1::ledger_row::Row::ClockMs(clock)) };
        (0..rows as u64).map(row).collect()
    }

    fn file(nodes: usize) -> Vec<u8> {
        let header = v1::BackupHeader { saved_by: "member 1".to_owned(), ..v1::BackupHeader::default() };
        write(header, snapshot(nodes), ledger(nodes)).flatten().collect()
    }

    #[test]
    fn what_was_written_is_read() {
        for nodes in [0, 1, RECORDS_PER_FRAME, RECORDS_PER_FRAME + 1] {
            let backup = read(&file(nodes)).unwrap();
            assert_eq!((backup.snapshot, backup.ledger, backup.header.revision), (snapshot(nodes), ledger(nodes), 9));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let bytes = file(3);
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 4;
            assert!(read(&damaged).is_err(), "byte {index}");
            assert!(read(&bytes[..index]).is_err(), "{index} bytes");
        }
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(read(&longer), Err(InvalidBackup::Length { .. })));
    }
}
