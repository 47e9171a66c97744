//! The writer's side of the exact tables (`ringfence_ebpf_common::exact`): cells as memory, of a set that no packet reads.
//!
//! What a writer that was killed, or somebody else, left behind is found by `each`: it sees what a packet would find, and
//! counts cells that agree with no home. `tidy` keeps the former and forgets the latter.

use std::{
    marker::PhantomData,
    ops::{ControlFlow, Range},
    sync::atomic::{AtomicU64, Ordering},
};

use ringfence_ebpf_common::{
    Index,
    exact::{self, Cells, Exact, GROUP, LOOKS, cell_of},
};

/// An `ExactCell` that programs in the kernel read.
#[derive(Default)]
#[repr(C, align(32))]
pub(crate) struct AtomicCell([AtomicU64; 4]);

/// The cells of a table.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a>(pub(crate) &'a [AtomicCell]);

impl<'a> Cells for Slice<'a> {
    type Cell = &'a AtomicCell;

    fn cell(&self, index: u32) -> Option<&'a AtomicCell> {
        self.0.get(index as usize)
    }

    fn word(&self, cell: &'a AtomicCell, word: usize) -> u64 {
        // The flip, between writing and reading, has full barriers.
        cell.0[word].load(Ordering::Relaxed)
    }
}

impl Slice<'_> {
    fn words(self, index: u32) -> [u64; 4] {
        self.0[index as usize].0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn set(self, index: u32, words: [u64; 4]) {
        for (place, word) in self.0[index as usize].0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }
}

/// No cell is free where the entry may lie, or the table has as many entries as it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// One table of one set: how its cells are found, and how many are taken.
pub(crate) struct Table<K> {
    index: Index,
    mask: u32,
    capacity: u32,
    entries: u32,
    key: PhantomData<K>,
}

/// How many cells there are for so many entries: twice as many, a power of two, whole groups.
pub(crate) fn cells_for(entries: u32) -> u32 {
    entries.clamp(GROUP / 2, 1 << 29).next_power_of_two() * 2
}

impl<K: Exact> Table<K> {
    /// Takes over what is there. A mask that cannot be is that of an empty table.
    pub(crate) fn adopt(cells: Slice<'_>, index: Index, mask: u32, capacity: u32) -> Self {
        let possible = mask.checked_add(1).is_some_and(|count| {
            count.is_power_of_two()
                && count >= GROUP
                && usize::try_from(count).is_ok_and(|count| count <= cells.0.len())
        });
        let mask = if possible { mask } else { GROUP - 1 };
        let mut table = Self { index, mask, capacity, entries: 0, key: PhantomData };
        table.entries = table.taken(cells, 0..table.count());
        table
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Cells in use, minus one.
    pub(crate) const fn mask(&self) -> u32 {
        self.mask
    }

    pub(crate) fn put(&mut self, cells: Slice<'_>, key: &K, value: &K::Value) -> Result<(), Full> {
        if let Some(place) = self.find(cells, key) {
            cells.set(place, K::put(cells.words(place), Some((key, value))));
            return Ok(());
        }
        if self.entries >= self.capacity {
            return Err(Full);
        }
        if self.entries + 1 > self.count() / 2 {
            // If it cannot, there may be room nevertheless.
            let _ = self.grow(cells);
        }
        while !self.insert(cells, key, value) {
            self.grow(cells)?;
        }
        self.entries += 1;
        Ok(())
    }

    /// Removing what is not there is no error.
    pub(crate) fn remove(&mut self, cells: Slice<'_>, key: &K) {
        let Some(place) = self.find(cells, key) else { return };
        self.leave(cells, self.home(key), place);
        self.entries -= 1;
    }

    /// Makes room for so many entries at once in an empty table, as far as there is.
    pub(crate) fn reserve(&mut self, cells: Slice<'_>, entries: u32) {
        let room = u32::try_from(cells.0.len()).unwrap_or(u32::MAX);
        let count = cells_for(entries.min(self.capacity)).min(room);
        if self.entries == 0 && count > self.count() {
            self.spread(cells, count);
        }
    }

    /// Hands over every entry that a packet finds, until it breaks; answers how many cells are not as they should be, as
    /// far as it came.
    pub(crate) fn each(&self, cells: Slice<'_>, mut take: impl FnMut(K, K::Value) -> ControlFlow<()>) -> usize {
        let (found, wrong) = self.walk(cells, 0..self.count(), |_, _, key, value| take(key, value));
        match found {
            Some(found) => wrong + (self.taken(cells, 0..self.count()) as usize).saturating_sub(found),
            None => wrong,
        }
    }

    /// As `each`, but only some entries, about `at_once` if the table is half full: those of the groups from the cell `from` on.
    /// Answers how many of their cells are not as they should be, and where the next groups begin.
    pub(crate) fn some(
        &self,
        cells: Slice<'_>,
        from: u32,
        at_once: usize,
        mut take: impl FnMut(K, K::Value),
    ) -> (usize, Option<u32>) {
        // Entries lie in the group of their home.
        let groups = u32::try_from(at_once.div_ceil(GROUP as usize / 2)).unwrap_or(u32::MAX);
        let from = (from & !(GROUP - 1)).min(self.count());
        let end = from.saturating_add(groups.saturating_mul(GROUP)).min(self.count());
        let (found, wrong) = self.walk(cells, from..end, |_, _, key, value| {
            take(key, value);
            ControlFlow::Continue(())
        });
        let lost = (self.taken(cells, from..end) as usize).saturating_sub(found.unwrap_or_default());
        (wrong + lost, (end < self.count()).then_some(end))
    }

    /// The value of a key.
    pub(crate) fn get(&self, cells: Slice<'_>, key: &K) -> Option<K::Value> {
        let place = self.find(cells, key)?;
        key.value(&cells, &cells.0[place as usize])
    }

    /// Keeps what packets find, where it is, and nothing else.
    pub(crate) fn tidy(&mut self, cells: Slice<'_>) {
        let count = self.count() as usize;
        let (mut taken, mut bits) = (vec![false; count], vec![0_u64; count]);
        self.walk(cells, 0..self.count(), |home, place, _, _| {
            taken[place as usize] = true;
            bits[home as usize] |= 1 << (place.wrapping_sub(home) & (GROUP - 1));
            ControlFlow::Continue(())
        });
        for ((index, taken), bits) in (0..).zip(&taken).zip(bits) {
            let words = cells.words(index);
            let words = if *taken { words } else { K::put(words, None) };
            cells.set(index, K::put_homes(words, bits));
        }
        self.entries = self.taken(cells, 0..self.count());
    }

    /// Home, place, key and value of every entry of some homes that a packet finds. Answers how many there are, if it was not
    /// broken off, and how many bits of homes stand for none.
    fn walk(
        &self,
        cells: Slice<'_>,
        homes_of: Range<u32>,
        mut take: impl FnMut(u32, u32, K, K::Value) -> ControlFlow<()>,
    ) -> (Option<usize>, usize) {
        let (mut found, mut wrong) = (0, 0);
        let mut seen: Vec<K> = Vec::new();
        for home in homes_of {
            let mut left = homes::<K>(cells, home);
            wrong += left.count_ones().saturating_sub(LOOKS) as usize;
            seen.clear();
            while left != 0 && seen.len() < LOOKS as usize {
                let place = cell_of(home, left.trailing_zeros());
                left &= left - 1;
                let entry = K::entry(cells.words(place));
                let Some((key, value)) = entry.filter(|(key, _)| self.home(key) == home && !seen.contains(key)) else {
                    wrong += 1;
                    continue;
                };
                found += 1;
                seen.push(key);
                if take(home, place, key, value).is_break() {
                    return (None, wrong);
                }
            }
        }
        (Some(found), wrong)
    }

    const fn count(&self) -> u32 {
        self.mask + 1
    }

    fn home(&self, key: &K) -> u32 {
        exact::home(&self.index, self.mask, key)
    }

    fn taken(&self, cells: Slice<'_>, of: Range<u32>) -> u32 {
        let taken = of.filter(|index| K::entry(cells.words(*index)).is_some()).count();
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    fn find(&self, cells: Slice<'_>, key: &K) -> Option<u32> {
        let home = self.home(key);
        let mut left = homes::<K>(cells, home);
        while left != 0 {
            let place = cell_of(home, left.trailing_zeros());
            if key.value(&cells, &cells.0[place as usize]).is_some() {
                return Some(place);
            }
            left &= left - 1;
        }
        None
    }

    /// False if there is no room where it may lie.
    fn insert(&self, cells: Slice<'_>, key: &K, value: &K::Value) -> bool {
        let home = self.home(key);
        let homes = homes::<K>(cells, home);
        let free = |bit: &u32| K::entry(cells.words(cell_of(home, *bit))).is_none();
        // Home, else the first free one from anywhere: neighbours that look for room would fill the same stretch.
        let start = u32::try_from(key.hash(&self.index) >> 40).unwrap_or_default() % K::REACH;
        let bit = std::iter::once(0).chain(start..K::REACH).chain(0..start).find(free);
        let Some(bit) = bit.filter(|_| homes.count_ones() < LOOKS) else { return false };
        self.enter(cells, home, cell_of(home, bit), key, value);
        true
    }

    /// Spreads the entries over twice as many cells.
    fn grow(&mut self, cells: Slice<'_>) -> Result<(), Full> {
        let count = self.count().checked_mul(2).filter(|count| *count as usize <= cells.0.len()).ok_or(Full)?;
        self.spread(cells, count);
        Ok(())
    }

    /// Writes every entry anew, among so many cells: a multiple of what there is. A group becomes several, each with a part
    /// of its entries, so that each finds room: where it was, counted from the beginning of its group. Then those go home
    /// that can.
    fn spread(&mut self, cells: Slice<'_>, count: u32) {
        let mut entries = Vec::with_capacity(self.entries as usize);
        self.walk(cells, 0..self.count(), |_, place, key, value| {
            entries.push((place & (GROUP - 1), key, value));
            ControlFlow::Continue(())
        });
        self.mask = count - 1;
        for cell in &cells.0[..count as usize] {
            cell.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        for (place, key, value) in &entries {
            let home = self.home(key);
            self.enter(cells, home, cell_of(home & !(GROUP - 1), *place), key, value);
        }
        for (place, key, value) in &entries {
            let home = self.home(key);
            let place = cell_of(home & !(GROUP - 1), *place);
            if place != home && K::entry(cells.words(home)).is_none() {
                self.leave(cells, home, place);
                self.enter(cells, home, home, key, value);
            }
        }
        self.entries = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    }

    fn enter(&self, cells: Slice<'_>, home: u32, place: u32, key: &K, value: &K::Value) {
        cells.set(place, K::put(cells.words(place), Some((key, value))));
        let bit = 1 << (place.wrapping_sub(home) & (GROUP - 1));
        cells.set(home, K::put_homes(cells.words(home), homes::<K>(cells, home) | bit));
    }

    fn leave(&self, cells: Slice<'_>, home: u32, place: u32) {
        let bit = 1 << (place.wrapping_sub(home) & (GROUP - 1));
        cells.set(home, K::put_homes(cells.words(home), homes::<K>(cells, home) & !bit));
        cells.set(place, K::put(cells.words(place), None));
    }
}

fn homes<K: Exact>(cells: Slice<'_>, home: u32) -> u64 {
    K::homes(&cells, &cells.0[home as usize])
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug};

    use ringfence_ebpf_common::{
        Address, AddressValue, RowKey, RowValue,
        exact::{Found, find_at_home, find_elsewhere, home},
    };

    use super::*;

    const INDEX: Index = Index {
        key: [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321, 0xdead_beef_0bad_cafe, 0x5555_aaaa_1234_9876],
        addresses: [0; 2],
        rows: [0; 2],
        address_capacity: 0,
        row_capacity: 0,
        padding: 0,
    };
    const FIRST: u32 = GROUP - 1;

    fn cells(count: u32) -> Vec<AtomicCell> {
        (0..count).map(|_| AtomicCell::default()).collect()
    }

    /// IPv4 and IPv6 in turns.
    fn address(number: u32) -> (Address, AddressValue) {
        let key = if number.is_multiple_of(2) {
            Address::from_ipv4((0x0a00_0000 + number).to_be())
        } else {
            Address { words: [0xfd, u64::from(number).to_be()] }
        };
        (key, AddressValue { identity: number ^ 0xffff, endpoint: number % 3 })
    }

    fn row(number: u32) -> (RowKey, RowValue) {
        let direction = number.to_le_bytes()[0] & 1;
        let chunk = u16::try_from(number % 1024).unwrap();
        let key = RowKey { policy: number % 7 + 1, peer: number, chunk, direction, padding: 0 };
        (key, RowValue { low: u64::from(number) + 1, high: u64::from(number) << 32 })
    }

    /// As a packet does it.
    fn find<K: Exact>(slice: Slice<'_>, table: &Table<K>, key: &K) -> Option<K::Value> {
        let home = home(&INDEX, table.mask(), key);
        match find_at_home(&slice, home, key) {
            Found::Here(value) => Some(value),
            Found::Nothing => None,
            Found::Elsewhere => find_elsewhere(&slice, home, key),
        }
    }

    fn all<K: Exact + Ord>(slice: Slice<'_>, table: &Table<K>) -> (BTreeMap<K, K::Value>, usize) {
        let mut all = BTreeMap::new();
        let wrong = table.each(slice, |key, value| {
            all.insert(key, value);
            ControlFlow::Continue(())
        });
        (all, wrong)
    }

    /// Puts and removes at random beside an ordered map.
    fn compare<K: Exact + Ord + Debug>(entry: fn(u32) -> (K, K::Value))
    where
        K::Value: PartialEq + Debug,
    {
        const NUMBERS: u32 = 4000;
        let room = cells(cells_for(NUMBERS));
        let slice = Slice(&room);
        let (mut table, mut model) = (Table::adopt(slice, INDEX, FIRST, NUMBERS), BTreeMap::new());
        let mut random = 1_u32;
        for step in 0..60_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, _) = entry((random >> 12) % NUMBERS);
            // First it grows, then it comes and goes.
            if step > 30_000 && random >> 8 & 1 == 0 {
                table.remove(slice, &key);
                model.remove(&key);
            } else {
                let (_, value) = entry(step);
                table.put(slice, &key, &value).unwrap();
                model.insert(key, value);
            }
            assert_eq!(find(slice, &table, &key).as_ref(), model.get(&key));
        }
        assert!(model.len() > 1500, "too few entries to prove anything");
        assert_eq!(all(slice, &table), (model.clone(), 0));
        let (mut parts, mut from, mut read) = (0, Some(0), BTreeMap::new());
        while let Some(place) = from {
            let (wrong, next) = table.some(slice, place, 500, |key, value| {
                assert_eq!(table.get(slice, &key).as_ref(), Some(&value));
                assert!(read.insert(key, value).is_none(), "twice");
            });
            (parts, from) = (parts + 1, next);
            assert_eq!(wrong, 0);
        }
        assert!(read == model && parts == table.count().div_ceil(1024), "{parts} parts");
        for number in 0..NUMBERS {
            let (key, _) = entry(number);
            assert_eq!(find(slice, &table, &key).as_ref(), model.get(&key), "{number}");
        }
        let adopted = Table::<K>::adopt(slice, INDEX, table.mask(), NUMBERS);
        assert_eq!(adopted.entries, table.entries);
    }

    #[test]
    fn packets_find_what_was_written_and_nothing_else() {
        compare(address);
        compare(row);
    }

    #[test]
    fn a_table_takes_as_many_entries_as_it_is_meant_for() {
        fn fill<K: Exact>(entry: fn(u32) -> (K, K::Value), capacity: u32) {
            let room = cells(cells_for(capacity));
            let slice = Slice(&room);
            let mut table = Table::adopt(slice, INDEX, FIRST, capacity);
            for number in 0..capacity {
                let (key, value) = entry(number);
                assert_eq!(table.put(slice, &key, &value), Ok(()), "{number} of {capacity}");
            }
            let (key, value) = entry(capacity);
            assert_eq!(table.put(slice, &key, &value), Err(Full));
            assert!(find(slice, &table, &key).is_none());
            // One that is there can be changed, and one that goes makes room.
            table.put(slice, &entry(0).0, &entry(9).1).unwrap();
            table.remove(slice, &entry(0).0);
            table.put(slice, &key, &value).unwrap();
            assert!(find(slice, &table, &key).is_some());
        }
        for capacity in [1, 8, 64, 100, 1 << 16] {
            fill(address, capacity);
            fill(row, capacity);
        }
    }

    #[test]
    fn one_line_finds_most_entries_of_a_table_that_is_as_full_as_can_be() {
        let capacity = 1 << 16;
        let room = cells(cells_for(capacity));
        let slice = Slice(&room);
        let mut table = Table::adopt(slice, INDEX, FIRST, capacity);
        (0..capacity).map(row).for_each(|(key, value)| table.put(slice, &key, &value).unwrap());
        let at_home = |number: &u32| {
            let (key, _) = row(*number);
            matches!(find_at_home(&slice, home(&INDEX, table.mask(), &key), &key), Found::Here(_))
        };
        let at_home = (0..capacity).filter(at_home).count();
        println!("{at_home} of {capacity} are at home");
        assert!(at_home * 10 > capacity as usize * 7, "{at_home}");
    }

    /// A set between two states: of each word, what was there before or what came after. So is what a writer leaves that
    /// is killed at any of its stores, and much more.
    #[test]
    fn whatever_a_killed_writer_left_is_seen_and_put_in_order() {
        let (from, to): (BTreeMap<_, _>, BTreeMap<_, _>) =
            ((0..150).map(row).collect(), (100..400).map(|number| (row(number).0, row(number + 1).1)).collect());
        let made = |entries: &BTreeMap<RowKey, RowValue>| {
            let room = cells(cells_for(1000));
            let mut table = Table::adopt(Slice(&room), INDEX, FIRST, 1000);
            entries.iter().for_each(|(key, value)| table.put(Slice(&room), key, value).unwrap());
            (room, table.mask())
        };
        let ((before, small), (after, large)) = (made(&from), made(&to));
        let (mut random, mut out_of_order) = (7_u32, 0);
        for round in 0..200 {
            let room = cells(cells_for(1000));
            let slice = Slice(&room);
            for index in 0..u32::try_from(room.len()).unwrap() {
                let sides = [Slice(&before).words(index), Slice(&after).words(index)];
                let word = |at: usize| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Many words of either, or few.
                    sides[usize::from(random >> 16 & 15 < round % 16)][at]
                };
                slice.set(index, [0, 1, 2, 3].map(word));
            }
            let mask = if round % 2 == 0 { small } else { large };
            let mut table = Table::<RowKey>::adopt(slice, INDEX, mask, 1000);
            let (found, wrong) = all(slice, &table);
            out_of_order += usize::from(wrong > 0);
            if wrong > 0 {
                table.tidy(slice);
                assert_eq!(all(slice, &table), (found.clone(), 0), "round {round}");
            }
            // As a repair does.
            found.keys().filter(|key| !to.contains_key(key)).for_each(|key| table.remove(slice, key));
            to.iter().for_each(|(key, value)| table.put(slice, key, value).unwrap());
            assert_eq!(all(slice, &table), (to.clone(), 0), "round {round}");
            to.iter().for_each(|(key, value)| assert_eq!(find(slice, &table, key).as_ref(), Some(value)));
        }
        assert!(out_of_order > 100, "too few states to prove anything: {out_of_order}");
    }
}
