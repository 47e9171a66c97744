//! The cells that tell the agent when no packet reads the old set any more.
//!
//! A traffic control program runs with bottom halves off: on one CPU it is never nested and never pre-empted by another
//! packet, so that one cell per CPU is enough.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use ringfence_ebpf_common::EpochCell;

use crate::maps::EPOCH;

/// This CPU's cell, marked as busy.
pub struct Epoch {
    cell: *mut EpochCell,
}

impl Epoch {
    /// Marks this CPU as busy: every read after this sees `ACTIVE` as it is now or newer. None without a cell for this
    /// CPU; the packet must then be dropped.
    #[inline(always)]
    pub fn enter() -> Option<Self> {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let cell = EPOCH.get_ptr_mut(cpu)?;
        exchange(cell, 1);
        Some(Self { cell })
    }

    /// Marks this CPU as idle, after every read of the set.
    #[inline(always)]
    pub fn leave(self) {
        if cfg!(bpf_target_arch = "x86_64") {
            // A store is never seen before the reads that come before it: a barrier would cost 6 ns a packet.
            // SAFETY: points into a map value; `busy` is its first word. The empty instruction keeps the compiler from
            // moving a read behind the store.
            unsafe {
                core::arch::asm!("");
                self.cell.cast::<u64>().write_volatile(0);
            }
        } else {
            exchange(self.cell, 0);
        }
    }
}

/// Writes with a full barrier before and after. `core` has no atomic exchange for this target.
#[inline(always)]
fn exchange(cell: *mut EpochCell, busy: u64) {
    // SAFETY: `cell` points into a map value (null was excluded); its first word is `busy`. The instruction touches
    // nothing else, and without `nomem` the compiler moves no memory access across it.
    unsafe { core::arch::asm!("r0 = xchg_64(r1 + 0, r0)", inlateout("r0") busy => _, in("r1") cell) }
}
