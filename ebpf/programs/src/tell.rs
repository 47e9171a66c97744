//! Events into the ring.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use ringfence_ebpf_common::{Event, Hook, Tally, Work};

use crate::{
    maps::{BUCKETS, EVENTS, REVISION},
    shared::{now_ns, tally},
};

/// Writes one event, or counts why not: each call is either written, suppressed or lost (S16).
#[inline(always)]
pub fn tell(generation: u32, hook: Hook, work: &Work) {
    let now_ns = now_ns();
    let allowed = match BUCKETS.get_ptr_mut(0) {
        // SAFETY: points to this CPU's own bucket; programs on one CPU do not nest.
        Some(bucket) => unsafe { (*bucket).take(now_ns) },
        None => false,
    };
    if !allowed {
        return tally(Tally::EventsSuppressed);
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return tally(Tally::EventsLost) };
    let revision = REVISION.get(generation & 1).copied().unwrap_or(0);
    entry.write(Event::new(now_ns, revision, hook, work));
    // The reader polls: waking it would cost more than the rest of the packet.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    tally(Tally::EventsWritten);
}
