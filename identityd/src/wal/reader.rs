//! Reading entries back from the segments: every record of a stretch is checked, and the entries are those expected.

use std::path::Path;

use super::{Disk, WalError, places::Stretch, replay::DamageReason, segment_path};
use crate::codec::{self, RECORD_HEADER_BYTES, RecordKind, Scanned};
use crate::raft::Entry;

/// The entries of a stretch from index `from` on, until `take` has enough of them and says no.
///
/// # Errors
/// `WalError::Io`, and `WalError::Damaged` for anything that is not what was written there.
pub(super) fn read(
    disk: &dyn Disk,
    directory: &Path,
    stretch: Stretch,
    from: u64,
    mut take: impl FnMut(Entry) -> bool,
) -> Result<(), WalError> {
    let Stretch { first, last, place } = stretch;
    let path = segment_path(directory, place.sequence);
    let base = place.start as usize;
    let mut piece = vec![0; place.end as usize - base];
    disk.read_at(&path, &mut piece, u64::from(place.start))
        .map_err(|source| WalError::Io { path: path.clone(), source })?;
    let damaged = |offset, reason| Err(WalError::Damaged { path: path.clone(), offset: base + offset, reason });
    let (mut index, mut offset) = (first, 0);
    while index <= last {
        let Scanned::Record(frame) = codec::scan_piece(&piece, place.sequence, base, offset) else {
            return damaged(offset, DamageReason::Unreadable { index });
        };
        if frame.kind == RecordKind::Entry {
            if index >= from {
                let entry: Entry = match codec::decode(frame.payload) {
                    Ok(entry) => entry,
                    Err(source) => return damaged(offset, DamageReason::Value { source }),
                };
                if entry.log_id.index != index {
                    return damaged(offset, DamageReason::OtherEntry { found: entry.log_id.index, expected: index });
                }
                if !take(entry) {
                    return Ok(());
                }
            }
            index += 1;
        }
        offset += RECORD_HEADER_BYTES + frame.payload.len();
    }
    Ok(())
}
