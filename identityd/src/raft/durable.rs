//! How far this member's own log is on stable storage, while openraft is told that it has everything already.
//!
//! ```text
//! leader: append ─┬─► own disk ──────────────────────────► Durable ─┐
//!                 └─► followers (at once) ─ a majority ─► committed ┴─► told to followers, applied, answered
//! follower: append ─┬─► own disk ─► Durable ─► the leader is answered
//!                   └─► applies what was committed before, meanwhile
//! ```
//!
//! openraft waits for the own disk before it replicates, and a follower's before it does anything else. Here it is told at
//! once that the member has the new entries, so that all disks and the state machine work at the same time; in return
//! nothing that counts as committed is applied or told to anybody before this member really has it, and no follower
//! answers before it has what it was sent. An entry that a crash takes was seen by nobody.

use tokio::sync::watch;

use super::LogId;

/// The last own entry on stable storage; clones share it.
#[derive(Debug, Clone)]
pub struct Durable {
    upto: watch::Sender<Option<LogId>>,
}

impl Durable {
    /// Everything that was read back at the start is durable.
    #[must_use]
    pub fn new(upto: Option<LogId>) -> Self {
        Self { upto: watch::Sender::new(upto) }
    }

    /// Entries up to `log_id` are on stable storage.
    pub fn advance(&self, log_id: LogId) {
        self.upto.send_if_modified(|upto| {
            let is_newer = Some(log_id) > *upto;
            if is_newer {
                *upto = Some(log_id);
            }
            is_newer
        });
    }

    /// Entries from `index` on are gone; those before stay what they are.
    pub fn truncate(&self, index: u64, last: Option<LogId>) {
        self.upto.send_if_modified(|upto| {
            let is_gone = upto.is_some_and(|upto| upto.index >= index);
            if is_gone {
                *upto = last;
            }
            is_gone
        });
    }

    /// Returns when the entry is on stable storage; never, if the log fails before.
    pub async fn wait_for(&self, log_id: LogId) {
        let mut upto = self.upto.subscribe();
        // The sender lives as long as `self`.
        let _ = upto.wait_for(|upto| *upto >= Some(log_id)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    #[tokio::test]
    async fn an_entry_is_waited_for_again_after_it_was_truncated() {
        let durable = Durable::new(Some(log_id(1, 5)));
        durable.wait_for(log_id(1, 5)).await;
        durable.advance(log_id(1, 9));
        durable.advance(log_id(1, 7));
        durable.wait_for(log_id(1, 9)).await;
        durable.truncate(8, Some(log_id(1, 7)));
        let waiting = tokio::spawn({
            let durable = durable.clone();
            async move { durable.wait_for(log_id(2, 8)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        durable.advance(log_id(2, 8));
        waiting.await.unwrap();
    }
}
