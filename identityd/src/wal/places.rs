//! Where the entries of the log lie on disk: one stretch for many entries, so that the index stays small.
//!
//! ```text
//! segment 7   … entry 40 | committed | entry 41 | entry 42 | truncate 41 | entry 41 | entry 42 …
//!               └────── stretch 40–40 (41, 42: gone) ────┘               └─ stretch 41–42 ─┘
//! ```
//!
//! A stretch begins with its first entry and ends behind its last one. Its entries follow each other; records of other
//! kinds may lie between them, and behind its last entry ones that were truncated. It is noted in the order of the
//! records, by the writer once they are on stable storage, and when a log is read at a start.

use std::{collections::VecDeque, ops::Range};

/// A stretch is closed when it has this many bytes: as much is read for one entry. A log of 256 MiB has 4,096 stretches.
const STRETCH_BYTES: u32 = 64 << 10;

/// Where one record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the segment.
    pub(super) sequence: u64,
    /// Offsets in the segment: of the record's first byte, and behind its last one.
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Entries that lie one after the other in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Indexes, both included.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) place: Place,
}

/// Stretches in the order of their indexes, without overlap.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Places {
    stretches: VecDeque<Stretch>,
    bytes: u64,
    /// The next entry begins a stretch: what lies behind the last one's entries is no more part of the log.
    is_cut: bool,
}

impl Place {
    pub(super) fn new(sequence: u64, offsets: Range<usize>) -> Self {
        let offset = |offset| u32::try_from(offset).expect("a segment is far below 4 GiB");
        Self { sequence, start: offset(offsets.start), end: offset(offsets.end) }
    }
}

impl Places {
    /// An entry is on disk.
    pub(super) fn note(&mut self, index: u64, place: Place) {
        let is_cut = std::mem::take(&mut self.is_cut);
        match self.stretches.back_mut() {
            Some(last) if !is_cut && last.goes_on_with(index, place) => {
                self.bytes += u64::from(place.end - last.place.end);
                last.last = index;
                last.place.end = place.end;
            }
            _ => {
                self.bytes += u64::from(place.end - place.start);
                self.stretches.push_back(Stretch { first: index, last: index, place });
            }
        }
    }

    /// The entries from `index` on are gone.
    pub(super) fn truncate(&mut self, index: u64) {
        while let Some(last) = self.stretches.pop_back_if(|stretch| stretch.first >= index) {
            self.bytes -= last.bytes();
        }
        if let Some(last) = self.stretches.back_mut() {
            last.last = last.last.min(index.saturating_sub(1));
        }
        self.is_cut = true;
    }

    /// The entries up to `index` are gone.
    pub(super) fn purge(&mut self, index: u64) {
        while let Some(first) = self.stretches.pop_front_if(|stretch| stretch.last <= index) {
            self.bytes -= first.bytes();
        }
    }

    /// The stretch with an entry.
    pub(super) fn of(&self, index: u64) -> Option<Stretch> {
        let after = self.stretches.partition_point(|stretch| stretch.first <= index);
        let stretch = self.stretches.get(after.checked_sub(1)?)?;
        (index <= stretch.last).then_some(*stretch)
    }

    /// What the entries take on disk, with what lies between them.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last index of each stretch and its bytes on disk.
    pub(super) fn weights(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.stretches.iter().map(|stretch| (stretch.last, stretch.bytes()))
    }
}

impl Stretch {
    fn goes_on_with(&self, index: u64, place: Place) -> bool {
        let is_next = self.last.checked_add(1) == Some(index) && self.place.sequence == place.sequence;
        is_next && self.place.end - self.place.start < STRETCH_BYTES
    }

    fn bytes(&self) -> u64 {
        u64::from(self.place.end - self.place.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: u32 = 1000;

    fn note(places: &mut Places, index: u64, sequence: u64, start: u32) {
        places.note(index, Place { sequence, start, end: start + RECORD });
    }

    fn stretches(places: &Places) -> Vec<(u64, u64)> {
        places.stretches.iter().map(|stretch| (stretch.first, stretch.last)).collect()
    }

    #[test]
    fn a_stretch_ends_when_it_is_long_enough_and_with_its_segment() {
        let mut places = Places::default();
        (0..100).for_each(|index| note(&mut places, index, 1, RECORD * u32::try_from(index).unwrap()));
        (100..110).for_each(|index| note(&mut places, index, 2, RECORD * u32::try_from(index).unwrap()));
        assert_eq!(stretches(&places), [(0, 65), (66, 99), (100, 109)]);
        assert_eq!(places.bytes(), 110 * u64::from(RECORD));
        for index in 0..110 {
            let stretch = places.of(index).unwrap();
            assert!((stretch.first..=stretch.last).contains(&index), "{index}: {stretch:?}");
        }
        assert_eq!(places.of(110), None);
    }

    #[test]
    fn what_was_truncated_or_purged_is_nowhere() {
        let mut places = Places::default();
        (0..10).for_each(|index| note(&mut places, index, 1, RECORD * u32::try_from(index).unwrap()));
        places.truncate(4);
        assert_eq!((stretches(&places), places.of(4)), (vec![(0, 3)], None));
        // Again 4 and 5, behind what they replace.
        (4..6).for_each(|index| note(&mut places, index, 1, 20 * RECORD));
        assert_eq!(stretches(&places), [(0, 3), (4, 5)]);
        assert_eq!(places.of(4).unwrap().place.start, 20 * RECORD);
        places.truncate(4);
        note(&mut places, 4, 1, 30 * RECORD);
        assert_eq!((stretches(&places), places.of(4).unwrap().place.start), (vec![(0, 3), (4, 4)], 30 * RECORD));
        places.purge(2);
        assert_eq!(stretches(&places), [(0, 3), (4, 4)], "3 is still needed");
        places.purge(3);
        assert_eq!((stretches(&places), places.bytes()), (vec![(4, 4)], u64::from(RECORD)));
        places.purge(9);
        assert_eq!((stretches(&places), places.bytes()), (vec![], 0));
    }
}
