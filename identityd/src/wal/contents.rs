//! What a log holds, in memory.

use std::collections::BTreeMap;

use crate::raft::{Entry, LogId, Vote};

/// The log as its reader sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The vote that was saved last.
    pub vote: Option<Vote>,
    /// Entries up to here are gone.
    pub purged: Option<LogId>,
    /// Entries up to here are known to be committed; may lag behind.
    pub committed: Option<LogId>,
    /// The entries by index, without gaps.
    pub entries: BTreeMap<u64, Entry>,
}

impl Contents {
    /// The log id of the last entry, or the purge marker where there is none.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        self.entries.split_off(&index);
    }

    /// Drops the entries up to a log id.
    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        let kept = upto.index.checked_add(1).map(|first| self.entries.split_off(&first));
        self.entries = kept.unwrap_or_default();
    }
}
