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
#[cfg_attr(not(any(test, feature = "kernel")), expect(dead_code, reason = "the kernel's are listed"))]
pub(crate) fn each(cells: Slice<'_>) -> impl Iterator<Item = FlowValue> {
    cells.0.iter().filter_map(move |cell| table::value(&cells, cell))
}
