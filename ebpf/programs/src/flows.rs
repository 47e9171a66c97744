//! The table of connections (`ringfence_ebpf_common::table`) in the kernel's map.

use core::arch::asm;

use ringfence_ebpf_common::{
    FlowCell, FlowKey, FlowValue, Tally, field,
    table::{self, Cells, Crowd, Home, Look, Written},
};

use crate::{maps, shared::tally};

/// The cells of `FLOWS`.
///
/// x86 keeps the order that `Cells` asks for by itself; volatile keeps the compiler from changing it. Elsewhere what
/// orders is read and written with atomic instructions that the kernel makes full barriers of.
struct Map;

impl Cells for Map {
    type Cell = *mut FlowCell;

    #[inline(always)]
    fn cell(&self, index: u32) -> Option<*mut FlowCell> {
        maps::FLOWS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn word(&self, cell: *mut FlowCell, field: usize) -> u64 {
        // SAFETY: points to a cell of the map, and `field` is a word of it.
        unsafe { cell.cast::<u64>().add(field).read_volatile() }
    }

    #[inline(always)]
    fn set_word(&self, cell: *mut FlowCell, field: usize, value: u64) {
        // SAFETY: as above.
        unsafe { cell.cast::<u64>().add(field).write_volatile(value) }
    }

    #[inline(always)]
    fn half(&self, cell: *mut FlowCell, field: usize) -> u32 {
        if cfg!(bpf_target_arch = "x86_64") || field != field::VERSION {
            // SAFETY: as above.
            return unsafe { cell.cast::<u32>().add(field).read_volatile() };
        }
        let before: u64;
        // SAFETY: points to the version of a cell, to which the instruction adds nothing.
        unsafe {
            asm!("w0 = atomic_fetch_add((u32 *)(r1 + 56), w0)", inlateout("r0") 0_u64 => before, in("r1") cell);
        }
        before as u32
    }

    #[inline(always)]
    fn set_half(&self, cell: *mut FlowCell, field: usize, value: u32) {
        if cfg!(bpf_target_arch = "x86_64") || field != field::VERSION {
            // SAFETY: as above.
            return unsafe { cell.cast::<u32>().add(field).write_volatile(value) };
        }
        // SAFETY: points to the version of a cell.
        unsafe {
            asm!("w0 = xchg32_32(r1 + 56, w0)", inlateout("r0") u64::from(value) => _, in("r1") cell);
        }
    }

    #[inline(always)]
    fn take(&self, cell: *mut FlowCell, from: u32, to: u32) -> bool {
        let before: u64;
        // SAFETY: points to the version of a cell; the instruction writes `to` there if `from` is there, and answers in
        // r0 what was there.
        unsafe {
            asm!("w0 = cmpxchg32_32(r1 + 56, w0, w2)", inlateout("r0") u64::from(from) => before, in("r1") cell,
                in("r2") u64::from(to));
        }
        before as u32 == from
    }

    #[inline(always)]
    fn set_homes(&self, cell: *mut FlowCell, bits: u32) {
        // SAFETY: points to the last word of a cell.
        unsafe { asm!("lock *(u32 *)(r1 + 60) |= w2", in("r1") cell, in("r2") u64::from(bits)) }
    }

    #[inline(always)]
    fn clear_homes(&self, cell: *mut FlowCell, bits: u32) {
        // SAFETY: as above.
        unsafe { asm!("lock *(u32 *)(r1 + 60) &= w2", in("r1") cell, in("r2") u64::from(!bits)) }
    }
}

/// As `State::home`. Without a table, one that no cell has: nothing is found, nothing is kept.
#[inline(always)]
pub fn home(key: &FlowKey) -> u32 {
    // SAFETY: points to a value of the map, which is written before any program reads it.
    maps::FLOW_TABLE.get_ptr(0).map_or(u32::MAX, |table| unsafe { &*table }.home(key))
}

/// As `State::flow`.
#[inline(always)]
pub fn flow(home: u32, value: &mut FlowValue) -> bool {
    match table::find_at_home(&Map, home, &value.key) {
        Home::Known(flow) => {
            value.flow = flow;
            true
        }
        Home::Unknown => false,
        Home::Elsewhere => ringfence_find_flow(home, value) != 0,
    }
}

/// Out of line, as the next ones, for the stack and for the verifier. No mangled names: they would have a hash of where
/// the sources lie in them.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_find_flow(home: u32, value: &mut FlowValue) -> u64 {
    match table::find(&Map, home, &value.key) {
        Look::Known(flow, _) => {
            value.flow = flow;
            return 1;
        }
        Look::Unknown => {}
        Look::Moved => tally(Tally::Reused),
    }
    0
}

/// As `State::set_flow`.
#[inline(always)]
pub fn set_flow(home: u32, value: &FlowValue, found: bool, crowd: &mut Crowd) {
    ringfence_write_flow(home, value, found as u64, crowd);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_write_flow(home: u32, value: &FlowValue, found: u64, crowd: &mut Crowd) -> u64 {
    match table::write(&Map, home, value, found != 0, value.flow.last_seen, crowd) {
        Written::Kept => {}
        Written::Evicted => tally(Tally::FlowsEvicted),
        // Its next packet is judged as a first one.
        Written::Not => tally(Tally::FlowsNotKept),
    }
    0
}

/// As `State::remove_flow`.
#[inline(always)]
pub fn remove_flow(home: u32, key: &FlowKey) {
    ringfence_remove_flow(home, key);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_remove_flow(home: u32, key: &FlowKey) -> u64 {
    table::remove(&Map, home, key);
    0
}
