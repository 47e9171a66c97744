//! What a log holds: the newest entries in memory, of older ones only where they lie on disk.
//!
//! ```text
//! purged │ on disk: Places ……………………………… │ tail: in memory │
//!        └ first                    evicted ┘                 └ last
//! ```
//!
//! An entry leaves memory once it is committed (so that it will never be truncated), on stable storage, and the tail is
//! longer than it need be.

use std::collections::BTreeMap;

use openraft::EntryPayload;

use super::places::{Place, Places, Stretch};
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
    tail: BTreeMap<u64, Entry>,
    /// Of the tail's entries together.
    tail_bytes: usize,
    /// Entries that are on disk only.
    evicted: Option<Evicted>,
    /// Of all entries that are on stable storage.
    places: Places,
    /// Truncations that are not on stable storage yet: until they are, `places` may tell of what they removed.
    truncating: usize,
}

/// The entries between the purged ones and the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Evicted {
    first: u64,
    last: LogId,
}

/// Committed entries must stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entries from {index} on are to be removed, but entry {committed} is committed: that is no log of Raft's")]
pub struct TruncatesCommitted {
    /// The first one to be removed.
    pub index: u64,
    /// A committed one.
    pub committed: u64,
}

impl Contents {
    /// The log id of the last entry, or the purge marker where there is none.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        let last = self.tail.last_key_value().map(|(_, entry)| entry.log_id);
        last.or(self.evicted.map(|evicted| evicted.last)).or(self.purged)
    }

    /// The index of the first entry.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        self.evicted.map(|evicted| evicted.first).or_else(|| self.tail.keys().next().copied())
    }

    /// The index of the last entry.
    #[must_use]
    pub fn last_index(&self) -> Option<u64> {
        let last = self.tail.keys().next_back().copied();
        last.or(self.evicted.map(|evicted| evicted.last.index))
    }

    /// How many entries there are, in memory or on disk.
    #[must_use]
    pub fn len(&self) -> u64 {
        let evicted = self.evicted.map_or(0, |evicted| evicted.last.index - evicted.first + 1);
        evicted + u64::try_from(self.tail.len()).expect("a length in memory fits into 64 bits")
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest entries by index, without gaps. Those before them are on disk.
    #[must_use]
    pub const fn tail(&self) -> &BTreeMap<u64, Entry> {
        &self.tail
    }

    /// What the entries take on disk, apart from the very newest.
    #[must_use]
    pub const fn disk_bytes(&self) -> u64 {
        self.places.bytes()
    }

    /// The entries on disk, some together: the last index of each lot and its bytes.
    pub fn weights(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.places.weights()
    }

    /// Where an entry lies that is on disk only.
    pub(super) fn stretch(&self, index: u64) -> Option<Stretch> {
        let evicted = self.evicted.filter(|evicted| (evicted.first..=evicted.last.index).contains(&index))?;
        let stretch = self.places.of(index).expect("an entry leaves memory only once its place is known");
        Some(Stretch { last: stretch.last.min(evicted.last.index), ..stretch })
    }

    /// Adds an entry behind the others.
    pub(super) fn push(&mut self, entry: Entry) {
        self.tail_bytes += weight(&entry);
        self.tail.insert(entry.log_id.index, entry);
    }

    /// Drops the entries from `index` on. `truncated` must follow.
    ///
    /// # Errors
    /// `TruncatesCommitted`; nothing has changed then.
    pub(super) fn truncate(&mut self, index: u64) -> Result<(), TruncatesCommitted> {
        if let Some(Evicted { last, .. }) = self.evicted.filter(|evicted| index <= evicted.last.index) {
            return Err(TruncatesCommitted { index, committed: last.index });
        }
        self.truncating += 1;
        let gone = self.tail.split_off(&index);
        self.tail_bytes -= gone.values().map(weight).sum::<usize>();
        Ok(())
    }

    /// Drops the entries up to a log id.
    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.places.purge(upto.index);
        self.evicted = self.evicted.filter(|evicted| evicted.last.index > upto.index);
        if let Some(evicted) = &mut self.evicted {
            evicted.first = evicted.first.max(upto.index + 1);
            return;
        }
        let kept = upto.index.checked_add(1).map(|first| self.tail.split_off(&first));
        let gone = std::mem::replace(&mut self.tail, kept.unwrap_or_default());
        self.tail_bytes -= gone.values().map(weight).sum::<usize>();
    }

    /// An entry is on stable storage. Told in the order of the records.
    pub(super) fn stored(&mut self, index: u64, place: Place) {
        if self.purged.is_none_or(|purged| purged.index < index) {
            self.places.note(index, place);
        }
    }

    /// A truncation is on stable storage. Told in the order of the records.
    pub(super) fn truncated(&mut self, index: u64) {
        self.places.truncate(index);
        self.truncating = self.truncating.saturating_sub(1);
    }

    /// Lets go of the oldest entries, as long as the tail has more than so many bytes; they are on disk.
    pub(super) fn evict(&mut self, most_bytes: usize) -> Vec<Entry> {
        let mut gone = Vec::new();
        while self.tail_bytes > most_bytes
            && self.truncating == 0
            && let Some(oldest) = self.tail.first_entry()
            && self.committed.is_some_and(|committed| *oldest.key() <= committed.index)
            && self.places.of(*oldest.key()).is_some()
        {
            let entry = oldest.remove();
            self.tail_bytes -= weight(&entry);
            let first = self.evicted.map_or(entry.log_id.index, |evicted| evicted.first);
            self.evicted = Some(Evicted { first, last: entry.log_id });
            gone.push(entry);
        }
        gone
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

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    fn place(index: u64) -> Place {
        let start = u32::try_from(index * 100).unwrap();
        Place { sequence: 1, start, end: start + 100 }
    }

    /// Entries 1 to `last`, of which those up to `stored` are on stable storage and those up to `committed` committed.
    fn contents(last: u64, stored: u64, committed: u64) -> Contents {
        let mut contents = Contents { committed: Some(log_id(committed)), ..Contents::default() };
        for index in 1..=last {
            contents.push(Entry { log_id: log_id(index), payload: EntryPayload::Blank });
        }
        (1..=stored).for_each(|index| contents.stored(index, place(index)));
        contents
    }

    fn counted(contents: &Contents) -> usize {
        contents.tail.values().map(weight).sum()
    }

    #[test]
    fn bytes_are_those_of_the_entries_that_are_there() {
        let mut contents = contents(10, 10, 0);
        contents.truncate(9).unwrap();
        assert_eq!((contents.len(), contents.tail_bytes), (8, counted(&contents)));
        contents.truncated(9);
        contents.purge(log_id(3));
        assert_eq!((contents.len(), contents.tail_bytes), (5, counted(&contents)));
        contents.purge(log_id(u64::MAX));
        assert_eq!((contents.len(), contents.tail_bytes, contents.disk_bytes()), (0, 0, 0));
    }

    #[test]
    fn only_committed_entries_on_stable_storage_leave_memory() {
        for (stored, committed, left) in [(10, 6, 4), (5, 10, 5), (0, 10, 10), (10, 0, 10), (10, 10, 0)] {
            let mut contents = contents(10, stored, committed);
            contents.evict(0);
            assert_eq!(contents.tail().len(), left, "stored up to {stored}, committed up to {committed}");
            assert_eq!((contents.len(), contents.first_index()), (10, Some(1)));
            assert_eq!((contents.last_log_id(), contents.tail_bytes), (Some(log_id(10)), counted(&contents)));
        }
        let mut contents = contents(10, 10, 10);
        contents.evict(3 * ENTRY_OVERHEAD_BYTES);
        assert_eq!(contents.tail().len(), 3, "the newest stay");
    }

    /// Between a truncation and its record, places still tell of the entries that were truncated.
    #[test]
    fn nothing_leaves_memory_while_a_truncation_is_under_way() {
        let mut contents = contents(10, 10, 10);
        contents.truncate(9).unwrap();
        contents.push(Entry { log_id: log_id(9), payload: EntryPayload::Blank });
        contents.evict(0);
        assert_eq!(contents.tail().len(), 9);
        contents.truncated(9);
        contents.evict(0);
        assert_eq!(contents.tail().keys().copied().collect::<Vec<_>>(), [9], "the new 9 is not on disk");
    }

    #[test]
    fn what_left_memory_is_purged_and_never_truncated() {
        let mut contents = contents(10, 10, 7);
        contents.evict(0);
        assert_eq!(contents.truncate(7), Err(TruncatesCommitted { index: 7, committed: 7 }));
        contents.truncate(8).unwrap();
        assert_eq!((contents.last_log_id(), contents.len()), (Some(log_id(7)), 7));
        contents.truncated(8);
        contents.purge(log_id(4));
        assert_eq!((contents.first_index(), contents.len()), (Some(5), 3));
        assert_eq!((contents.stretch(4), contents.stretch(5).map(|stretch| stretch.last)), (None, Some(7)));
        contents.purge(log_id(7));
        assert_eq!((contents.first_index(), contents.last_log_id()), (None, Some(log_id(7))));
    }
}
