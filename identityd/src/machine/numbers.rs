//! Sets of numbers within one cluster, searched for what is free.

use ringfence_policy::identity::Identity;

const WORD_BITS: u32 = u64::BITS;

/// A set of numbers, 1 to `Identity::MAX_NUMBER`: a bit each, up to the largest one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NumberSet {
    words: Vec<u64>,
    count: u32,
}

impl NumberSet {
    pub(super) fn insert(&mut self, number: u32) {
        let (word, bit) = place(number);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.count += u32::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    pub(super) fn remove(&mut self, number: u32) {
        let (word, bit) = place(number);
        let Some(bits) = self.words.get_mut(word) else { return };
        self.count -= u32::from(*bits & bit != 0);
        *bits &= !bit;
        // Equal sets have equal words.
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    fn word(&self, word: usize) -> u64 {
        self.words.get(word).copied().unwrap_or_default()
    }
}

/// What the numbers of one cluster are used for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Stand for label sets.
    pub(super) recorded: NumberSet,
    /// Released, and not to be used again yet.
    pub(super) resting: NumberSet,
    /// In blocks, adopted or not.
    pub(super) granted: NumberSet,
}

impl Numbers {
    pub(super) fn is_unused(&self) -> bool {
        self.recorded.len() + self.resting.len() + self.granted.len() == 0
    }

    /// How many numbers of blocks stand for nothing.
    pub(super) fn unadopted(&self) -> u32 {
        let words = self.granted.words.iter().enumerate();
        words.map(|(at, bits)| (bits & !self.recorded.word(at) & !self.resting.word(at)).count_ones()).sum()
    }

    /// The first of `count` consecutive numbers that are free, behind `cursor` if there are some, else from the beginning:
    /// numbers that were released come last.
    pub(super) fn free_run(&self, cursor: u32, count: u32) -> Option<u32> {
        self.free_run_from(cursor + 1, count).or_else(|| self.free_run_from(1, count))
    }

    fn free_run_from(&self, first: u32, count: u32) -> Option<u32> {
        let (mut start, mut number) = (first, first);
        while number <= Identity::MAX_NUMBER {
            let (word, bit) = place(number);
            let taken = self.recorded.word(word) | self.resting.word(word) | self.granted.word(word);
            if taken == u64::MAX {
                number = (number / WORD_BITS + 1) * WORD_BITS;
                start = number;
                continue;
            }
            number += 1;
            if taken & bit != 0 {
                start = number;
            } else if number - start == count {
                return Some(start);
            }
        }
        None
    }
}

fn place(number: u32) -> (usize, u64) {
    ((number / WORD_BITS) as usize, 1 << (number % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_runs_begin_behind_the_cursor_and_come_round() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.free_run(0, 1), Some(1), "0 is no number");
        (1..=200).for_each(|number| numbers.recorded.insert(number));
        numbers.resting.insert(202);
        numbers.granted.insert(204);
        assert_eq!(numbers.free_run(0, 1), Some(201));
        assert_eq!(numbers.free_run(201, 1), Some(203));
        assert_eq!(numbers.free_run(0, 2), Some(205));
        assert_eq!(numbers.free_run(Identity::MAX_NUMBER, 1), Some(201));
        assert_eq!(numbers.free_run(Identity::MAX_NUMBER - 2, 3), Some(205));
        assert_eq!(numbers.free_run(Identity::MAX_NUMBER - 3, 3), Some(Identity::MAX_NUMBER - 2));
        (1..=Identity::MAX_NUMBER).for_each(|number| numbers.granted.insert(number));
        assert_eq!((numbers.free_run(7, 1), numbers.granted.len()), (None, Identity::MAX_NUMBER));
        numbers.granted.remove(300);
        assert_eq!((numbers.free_run(7, 1), numbers.free_run(7, 2)), (Some(300), None));
        assert_eq!(numbers.unadopted(), Identity::MAX_NUMBER - 1 - 201);
    }

    #[test]
    fn equal_sets_are_equal_however_they_came_about() {
        let mut set = NumberSet::default();
        set.insert(5);
        set.insert(100_000);
        set.insert(100_000);
        assert_eq!(set.len(), 2);
        set.remove(100_000);
        set.remove(100_000);
        let mut other = NumberSet::default();
        other.insert(5);
        assert_eq!(set, other);
    }
}
