//! The table of connections (`ringfence_ebpf_common::table`) outside a program: in memory, and in the kernel's map as
//! memory.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ringfence_ebpf_common::{
    FlowTable, FlowValue, field,
    table::{self, Cells, WAYS},
};

/// A `FlowCell` that other threads, or programs in the kernel, change.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct AtomicCell {
    words: [AtomicU64; 6],
    halves: [AtomicU32; 4],
}

/// Where the halves begin, counted in halves.
const FIRST_HALF: usize = field::ENDPOINT;

impl AtomicCell {
    const fn half(&self, field: usize) -> &AtomicU32 {
        &self.halves[field - FIRST_HALF]
    }
}

/// The cells of a table.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a>(pub(crate) &'a [AtomicCell]);

impl<'a> Cells for Slice<'a> {
    type Cell = &'a AtomicCell;

    fn cell(&self, index: u32) -> Option<&'a AtomicCell> {
        self.0.get(index as usize)
    }

    fn word(&self, cell: &'a AtomicCell, field: usize) -> u64 {
        cell.words[field].load(Ordering::SeqCst)
    }

    fn set_word(&self, cell: &'a AtomicCell, field: usize, value: u64) {
        cell.words[field].store(value, Ordering::SeqCst);
    }

    fn half(&self, cell: &'a AtomicCell, field: usize) -> u32 {
        cell.half(field).load(Ordering::SeqCst)
    }

    fn set_half(&self, cell: &'a AtomicCell, field: usize, value: u32) {
        cell.half(field).store(value, Ordering::SeqCst);
    }

    fn take(&self, cell: &'a AtomicCell, from: u32, to: u32) -> bool {
        cell.half(field::VERSION).compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn set_homes(&self, cell: &'a AtomicCell, bits: u32) {
        cell.half(field::HOMES).fetch_or(bits, Ordering::SeqCst);
    }

    fn clear_homes(&self, cell: &'a AtomicCell, bits: u32) {
        cell.half(field::HOMES).fetch_and(!bits, Ordering::SeqCst);
    }
}

/// How many cells there are for so many connections: twice as many, a power of two, whole sets.
pub(crate) fn cells_for(flows: u32) -> u32 {
    flows.clamp(WAYS, 1 << 29).next_power_of_two() * 2
}

/// How connections are found among so many cells, a power of two.
pub(crate) const fn table(key: [u64; 5], cells: u32) -> FlowTable {
    FlowTable { key, mask: cells - 1, padding: 0 }
}

/// Every connection of a table. Those that come, go or move meanwhile may be left out.
pub(crate) fn each(cells: Slice<'_>) -> impl Iterator<Item = FlowValue> {
    cells.0.iter().filter_map(move |cell| table::value(&cells, cell))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread};

    use ringfence_ebpf_common::{
        Address, EGRESS, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_OPENING, Flow, FlowKey, NO_COUNTER,
        table::{Crowd, Look, Written, value},
    };

    use super::*;

    const KEY: [u64; 5] =
        [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321, 7, 0xdead_beef_0bad_cafe, 0x5555_aaaa_1234_9876];
    /// What decides about packets says which connection it belongs to: a mixture of two shows.
    fn connection(number: u32) -> FlowValue {
        let host = |base: u32| Address::from_ipv4((base + number).to_be());
        let key = FlowKey::new(host(0x0a00_0000), host(0x0b00_0000), number.to_le_bytes()[0].into(), 80, 6);
        FlowValue { key, flow: flow(number, 0) }
    }

    /// In its `version`-th state.
    fn flow(number: u32, version: u32) -> Flow {
        Flow {
            last_seen: 0,
            generation: number.wrapping_mul(0x9e37_79b9) ^ version,
            endpoint: number + 1,
            counter: (number + version) % 4096,
            peer_counter: NO_COUNTER,
            port: u16::try_from(number % 65_536).unwrap(),
            direction: EGRESS,
            phase: FLOW_ESTABLISHED,
            owned: 1,
            peer_local: 0,
            both: 0,
            padding: 0,
        }
    }

    /// Whether what was found is a state of this connection, up to the `versions`-th.
    fn is_own(found: &Flow, number: u32, versions: u32) -> bool {
        (0..versions).any(|version| Flow { last_seen: found.last_seen, ..flow(number, version) } == *found)
    }

    /// As a packet does, on a CPU whose last newcomer found room.
    fn write<C: Cells>(cells: &C, table: &FlowTable, value: &FlowValue, now: u32) -> Written {
        write_in(cells, table, value, now, &mut { Crowd::NONE })
    }

    /// On a CPU whose last newcomer found this.
    fn write_in<C: Cells>(cells: &C, table: &FlowTable, value: &FlowValue, now: u32, crowd: &mut Crowd) -> Written {
        let found = matches!(find(cells, table, &value.key), Look::Known(..));
        table::write(cells, table.home(&value.key), value, found, now, crowd)
    }

    fn find<C: Cells>(cells: &C, table: &FlowTable, key: &FlowKey) -> Look {
        table::find(cells, table.home(key), key)
    }

    fn remove<C: Cells>(cells: &C, table: &FlowTable, key: &FlowKey) {
        table::remove(cells, table.home(key), key);
    }

    fn cells(count: u32) -> Vec<AtomicCell> {
        (0..count).map(|_| AtomicCell::default()).collect()
    }

    /// Bits of homes and owners of cells say the same.
    fn assert_consistent(slice: Slice<'_>, table: &FlowTable) {
        for (index, cell) in slice.0.iter().enumerate() {
            let index = u32::try_from(index).unwrap();
            assert_eq!(slice.half(cell, field::VERSION) & 3, 0, "cell {index} is locked");
            let set = index & !(WAYS - 1);
            let homes: Vec<u32> = (0..WAYS)
                .filter(|way| slice.half(slice.cell(set | way).unwrap(), field::HOMES) >> (index - set) & 1 != 0)
                .collect();
            let expected: Vec<u32> =
                value(&slice, cell).map(|value| table.home(&value.key) - set).into_iter().collect();
            assert_eq!(homes, expected, "cell {index}");
        }
    }

    /// Runs something at the `at`-th access; without versions, nobody sees that it did.
    struct Interrupted<'a, 'b> {
        inner: Slice<'a>,
        at: Cell<usize>,
        interrupt: &'b dyn Fn(),
        sees_versions: bool,
    }

    impl Interrupted<'_, '_> {
        fn step(&self) {
            if self.at.get() == 1 {
                (self.interrupt)();
            }
            self.at.set(self.at.get().saturating_sub(1));
        }
    }

    impl<'a> Cells for Interrupted<'a, '_> {
        type Cell = &'a AtomicCell;
        fn cell(&self, index: u32) -> Option<&'a AtomicCell> {
            self.inner.cell(index)
        }
        fn word(&self, cell: &'a AtomicCell, field: usize) -> u64 {
            self.step();
            self.inner.word(cell, field)
        }
        fn set_word(&self, cell: &'a AtomicCell, field: usize, value: u64) {
            self.step();
            self.inner.set_word(cell, field, value);
        }
        fn half(&self, cell: &'a AtomicCell, field: usize) -> u32 {
            self.step();
            if field == field::VERSION && !self.sees_versions { 0 } else { self.inner.half(cell, field) }
        }
        fn set_half(&self, cell: &'a AtomicCell, field: usize, value: u32) {
            self.step();
            self.inner.set_half(cell, field, value);
        }
        fn take(&self, cell: &'a AtomicCell, from: u32, to: u32) -> bool {
            self.step();
            self.inner.take(cell, from, to)
        }
        fn set_homes(&self, cell: &'a AtomicCell, bits: u32) {
            self.step();
            self.inner.set_homes(cell, bits);
        }
        fn clear_homes(&self, cell: &'a AtomicCell, bits: u32) {
            self.step();
            self.inner.clear_homes(cell, bits);
        }
    }

    /// Looks connection 0 up while its cell goes to others at the `at`-th access; answers whether what was found is a
    /// mixture, and what was found.
    fn find_while_reused(at: usize, sees_versions: bool) -> (bool, Look) {
        let (all, table) = (cells(WAYS), table(KEY, WAYS));
        let slice = Slice(&all);
        assert_eq!(write(&slice, &table, &connection(0), 0), Written::Kept);
        let interrupt = || {
            // A full set, twice: nothing stays where it was.
            for number in 1..=2 * WAYS {
                write(
                    &slice,
                    &table,
                    &FlowValue { flow: Flow { last_seen: number, ..flow(number, 0) }, ..connection(number) },
                    100,
                );
            }
        };
        let interrupted = Interrupted { inner: slice, at: Cell::new(at), interrupt: &interrupt, sees_versions };
        let found = find(&interrupted, &table, &connection(0).key);
        (matches!(&found, Look::Known(flow, _) if !is_own(flow, 0, 1)), found)
    }

    #[test]
    fn a_cell_that_goes_to_another_connection_while_it_is_read_is_not_believed() {
        let found: Vec<(bool, Look)> = (1..40).map(|at| find_while_reused(at, true)).collect();
        assert!(found.iter().all(|(mixture, _)| !mixture), "{found:?}");
        assert!(found.iter().any(|(_, found)| *found == Look::Moved), "the cell is reused while it is read");
        assert!(matches!(found[39 - 1].1, Look::Known(..)), "nothing happens after the last access");
        // Control: without versions the mixture is believed.
        assert!((1..40).any(|at| find_while_reused(at, false).0), "this test cannot see a mixture");
    }

    #[test]
    fn whatever_happens_between_two_steps_of_a_write_no_connection_becomes_another_one() {
        let (one, other) = (connection(0), connection(1));
        let changed = |number| FlowValue { flow: flow(number, 1), ..connection(number) };
        for at in 1..400 {
            let (all, table) = (cells(WAYS), table(KEY, WAYS));
            let slice = Slice(&all);
            for number in 0..WAYS {
                write(&slice, &table, &connection(number), 0);
            }
            let interrupt = || {
                write(&slice, &table, &changed(1), 0);
                remove(&slice, &table, &one.key);
                write(&slice, &table, &connection(100), 0);
                write(&slice, &table, &one, 0);
            };
            let interrupted =
                Interrupted { inner: slice, at: Cell::new(at), interrupt: &interrupt, sees_versions: true };
            write(&interrupted, &table, &changed(0), 0);
            write(&interrupted, &table, &connection(200), 0);
            remove(&interrupted, &table, &other.key);
            for number in (0..WAYS).chain([100, 200]) {
                if let Look::Known(found, _) = find(&slice, &table, &connection(number).key) {
                    assert!(is_own(&found, number, 2), "step {at}, connection {number}: {found:?}");
                }
            }
            assert_consistent(slice, &table);
        }
    }

    #[test]
    fn threads_that_use_the_same_sets_never_find_another_ones_connection() {
        let (all, table) = (cells(2 * WAYS), table(KEY, 2 * WAYS));
        let slice = Slice(&all);
        let found: usize = thread::scope(|scope| {
            let hammer = |seed: u32| {
                let (mut random, mut found) = (seed, 0);
                for step in 0..60_000_u32 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let number = (random >> 16) % 150;
                    match random >> 8 & 7 {
                        0 => remove(&slice, &table, &connection(number).key),
                        1..4 => {
                            let flow = Flow { last_seen: step, ..flow(number, random >> 12 & 3) };
                            write(&slice, &table, &FlowValue { flow, ..connection(number) }, step);
                        }
                        _ => {
                            if let Look::Known(flow, _) = find(&slice, &table, &connection(number).key) {
                                assert!(is_own(&flow, number, 4), "{number}: {flow:?}");
                                found += 1;
                            }
                        }
                    }
                }
                found
            };
            let threads: Vec<_> = (1..=4).map(|seed| scope.spawn(move || hammer(seed * 7919))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(found > 10_000, "too few to prove anything: {found}");
        assert_consistent(slice, &table);
    }

    #[test]
    fn twice_as_many_cells_as_connections_hardly_ever_evict_one() {
        let cells_count = 1 << 16;
        let (all, table) = (cells(cells_count), table(KEY, cells_count));
        let slice = Slice(&all);
        // One CPU makes all of them.
        let mut crowd = Crowd::NONE;
        let mut fill = |numbers: std::ops::Range<u32>| -> usize {
            let value = |number| FlowValue { flow: Flow { endpoint: 1, ..flow(number, 0) }, ..connection(number) };
            numbers
                .filter(|number| write_in(&slice, &table, &value(*number), 0, &mut crowd) == Written::Evicted)
                .count()
        };
        // Each port of each of many hosts, as a node sees them: half as many as there are cells.
        let half = fill(0..cells_count / 2);
        let whole = fill(cells_count / 2..cells_count);
        println!("evicted by the first half: {half}; by the second one: {whole}");
        assert!(half <= 4, "{half} of {} were evicted", cells_count / 2);
        assert!(whole < 6000, "{whole}");
        assert_consistent(slice, &table);
    }

    #[test]
    fn the_connection_that_has_used_up_most_of_its_time_makes_room() {
        let second = 15;
        let now = 4 * 3600 * second;
        for (phase, idle, goes) in [
            (FLOW_ESTABLISHED, 3600 * second, true),
            (FLOW_OPENING, 30 * second, true),
            (FLOW_CLOSING, 5 * second, true),
            (FLOW_ESTABLISHED, 0, false),
        ] {
            let (all, table) = (cells(WAYS), table(KEY, WAYS));
            let slice = Slice(&all);
            let put = |number, phase, last_seen| {
                let flow = Flow { last_seen, phase, ..flow(number, 0) };
                write(&slice, &table, &FlowValue { flow, ..connection(number) }, now)
            };
            put(0, phase, now - idle);
            // The rest was idle for a second.
            for number in 1..WAYS {
                put(number, FLOW_ESTABLISHED, now - second);
            }
            let is_there = || matches!(find(&slice, &table, &connection(0).key), Look::Known(..));
            assert!(is_there());
            assert_eq!(put(1000, FLOW_ESTABLISHED, now), Written::Evicted);
            assert_eq!(is_there(), !goes, "phase {phase}, idle for {idle} ticks");
        }
    }

    #[test]
    fn where_nothing_is_free_a_newcomer_looks_at_few_and_still_takes_the_most_spent_of_them() {
        let (all, table) = (cells(WAYS), table(KEY, WAYS));
        let (slice, mut crowd) = (Slice(&all), Crowd::NONE);
        // The cells that a newcomer's search reads, and what became of it.
        let mut put = |number: u32, now: u32| {
            let counted =
                Interrupted { inner: slice, at: Cell::new(usize::MAX), interrupt: &|| (), sees_versions: true };
            let flow = Flow { last_seen: now, ..flow(number, 0) };
            let written = write_in(&counted, &table, &FlowValue { flow, ..connection(number) }, now, &mut crowd);
            (usize::MAX - counted.at.get(), written)
        };
        for number in 0..WAYS {
            assert_eq!(put(number, number).1, Written::Kept);
        }
        // Not known to be full yet: all of the set, of which the oldest goes.
        let (thorough, written) = put(100, 100);
        assert_eq!((written, find(&slice, &table, &connection(0).key)), (Written::Evicted, Look::Unknown));
        let (brief, written) = put(101, 101);
        assert_eq!(written, Written::Evicted);
        assert!(brief * 2 < thorough, "{brief} and {thorough} accesses");
        // However few it looks at, it does not take the youngest ones there are: both newcomers are still there.
        for number in 102..2000 {
            let before = number - 1;
            assert_eq!(put(number, number).1, Written::Evicted);
            assert!(matches!(find(&slice, &table, &connection(before).key), Look::Known(..)), "{before}");
        }
        // One that finds room makes the next one look everywhere again.
        for number in 0..2000 {
            remove(&slice, &table, &connection(number).key);
        }
        assert_eq!(put(3000, 2000).1, Written::Kept);
        for number in 3001..3000 + WAYS {
            assert_eq!(put(number, 2000).1, Written::Kept, "{number}");
        }
        assert_consistent(slice, &table);
    }
}
