//! Keeps the log small: it lies on disk and is read at a start, so it is bounded in bytes, not only in number.
//!
//! ```text
//! log ─ more than LOG_BYTES ─► snapshot ─► purge behind it; KEPT_BYTES stay for members that lag
//! ```
//!
//! openraft counts entries (`snapshot_every`), and an entry may hold one command or hundreds.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Raft;
use crate::wal::Wal;

/// The log is cut when it has this many bytes.
pub const LOG_BYTES: u64 = 256 << 20;
/// Bytes that stay behind a snapshot at most.
pub const KEPT_BYTES: u64 = 64 << 20;
/// How often the log is weighed: at 100 MB/s it grows by 20 MB in that time.
const INTERVAL: Duration = Duration::from_millis(200);

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    Snapshot,
    /// Entries up to an index are not needed any more.
    Purge(u64),
}

/// Keeps the log of a member small until cancelled.
pub async fn keep_log_small(raft: Raft, wal: Arc<Wal>, token: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (snapshot, applied) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow();
            (metrics.snapshot.map(|log_id| log_id.index), metrics.last_applied.map(|log_id| log_id.index))
        };
        let step = {
            let contents = wal.contents();
            next(contents.disk_bytes(), contents.weights(), snapshot, applied)
        };
        let taken = match step {
            Step::Nothing => continue,
            Step::Snapshot => raft.trigger().snapshot().await,
            Step::Purge(upto) => raft.trigger().purge_log(upto).await,
        };
        if taken.is_err() {
            // Raft has stopped, and somebody else says why.
            return;
        }
    }
}

/// What to do about entries (last index and bytes of each lot, in order, and all their bytes) behind a snapshot that covers
/// some of them. Looks only at those that stay.
fn next(
    total: u64,
    lots: impl DoubleEndedIterator<Item = (u64, u64)>,
    snapshot: Option<u64>,
    applied: Option<u64>,
) -> Step {
    if total < LOG_BYTES {
        return Step::Nothing;
    }
    let (mut kept, mut purged) = (0, None);
    for (index, bytes) in lots.rev() {
        kept += bytes;
        if kept > KEPT_BYTES && snapshot >= Some(index) {
            purged = Some(index);
            kept -= bytes;
            break;
        }
    }
    match purged {
        Some(upto) if kept < LOG_BYTES => Step::Purge(upto),
        _ if applied > snapshot => Step::Snapshot,
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_log_of_few_large_entries_is_cut_behind_a_snapshot() {
        let log = |from: u64, to: u64| (from..=to).map(|index| (index, MIB)).collect();
        let next = |log: Vec<(u64, u64)>, snapshot, applied| {
            next(log.iter().map(|(_, bytes)| bytes).sum(), log.into_iter(), snapshot, applied)
        };
        assert_eq!(next(log(1, 255), None, Some(255)), Step::Nothing);
        assert_eq!(next(log(1, 256), None, Some(255)), Step::Snapshot);
        assert_eq!(next(log(1, 260), Some(255), Some(260)), Step::Purge(196), "64 MiB stay: 197 to 260");
        assert_eq!(next(log(1, 400), Some(255), Some(400)), Step::Purge(255), "what no snapshot covers stays");
        assert_eq!(next(log(256, 520), Some(255), Some(520)), Step::Snapshot);
        assert_eq!(next(log(1, 520), Some(255), Some(520)), Step::Snapshot, "purging alone is not enough");
        assert_eq!(next(log(1, 300), None, None), Step::Nothing, "nothing is applied that a snapshot could hold");
    }
}
