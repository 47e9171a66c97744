//! What a log holds, in memory.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use crate::raft::{Entry, LogId, Vote};

/// What an entry takes beside its commands, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// The log as its reader sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The vote that was saved last.
    pub vote: Option<Vote>,
    /// Entries up to here are gone.
    pub purged: Option<LogId>,
    /// Entries up to here are known to be committed; may lag behind.
    pub committed: Option<LogId>,
    /// By index, without gaps.
    entries: BTreeMap<u64, Entry>,
    /// Of all entries together.
    bytes: usize,
}

impl Contents {
    /// The log id of the last entry, or the purge marker where there is none.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    /// The entries by index, without gaps.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<u64, Entry> {
        &self.entries
    }

    /// What the entries take in memory, roughly; known without looking at them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry behind the others.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += weight(&entry);
        self.entries.insert(entry.log_id.index, entry);
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        let gone = self.entries.split_off(&index);
        self.bytes -= gone.values().map(weight).sum::<usize>();
    }

    /// Drops the entries up to a log id.
    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        let kept = upto.index.checked_add(1).map(|first| self.entries.split_off(&first));
        let gone = std::mem::replace(&mut self.entries, kept.unwrap_or_default());
        self.bytes -= gone.values().map(weight).sum::<usize>();
    }
}

/// What an entry takes in memory, roughly.
pub fn weight(entry: &Entry) -> usize {
    let commands = if let EntryPayload::Normal(batch) = &entry.payload { batch.encoded_len() } else { 0 };
    commands + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    #[test]
    fn bytes_are_those_of_the_entries_that_are_there() {
        let log_id = |index| LogId::new(CommittedLeaderId::new(1, 1), index);
        let mut contents = Contents::default();
        for index in 1..=10 {
            contents.push(Entry { log_id: log_id(index), payload: EntryPayload::Blank });
        }
        let counted = |contents: &Contents| contents.entries.values().map(weight).sum::<usize>();
        contents.truncate(9);
        assert_eq!((contents.entries.len(), contents.bytes()), (8, counted(&contents)));
        contents.purge(log_id(3));
        assert_eq!((contents.entries.len(), contents.bytes()), (5, counted(&contents)));
        contents.purge(log_id(u64::MAX));
        assert_eq!((contents.entries.len(), contents.bytes()), (0, 0));
    }
}
