//! Events into the ring.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use ringfence_ebpf_common::{Event, Hook, Tally, Work};

use crate::{
    maps::{BUCKETS, EVENTS, REVISION},
    shared::tally,
};

/// Writes one event, or counts why not: each call is either written, suppressed or lost (S16).
#[inline(always)]
pub fn tell(generation: u32, hook: Hook, work: &Work) {
    ringfence_tell(generation, hook.number(), work);
}

/// Out of line for the stack. No mangled name: it would have a hash of where the sources lie in it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_tell(generation: u32, hook: u64, work: &Work) -> u64 {
    write(generation, Hook::of(hook), work);
    0
}

#[inline(always)]
fn write(generation: u32, hook: Hook, work: &Work) {
    let allowed = match BUCKETS.get_ptr_mut(0) {
        // SAFETY: points to this CPU's own bucket; programs on one CPU do not nest.
        Some(bucket) => unsafe { (*bucket).take(work.now_ns) },
        None => false,
    };
    if allowed { publish(generation, hook, work) } else { tally(Tally::EventsSuppressed) }
}

/// Writes an event, or counts that there was no room.
#[inline(always)]
pub fn publish(generation: u32, hook: Hook, work: &Work) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return tally(Tally::EventsLost) };
    let revision = REVISION.get(generation & 1).copied().unwrap_or(0);
    entry.write(Event::new(revision, hook, work));
    // The reader polls: waking it would cost more than the rest of the packet.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    tally(Tally::EventsWritten);
}
