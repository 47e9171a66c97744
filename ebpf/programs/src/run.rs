//! What happens at a hook.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use ringfence_ebpf_common::{
    Decision, Fragment, HOST_ENDPOINT, Hook, MARK_JUDGED, MARK_MASK, MARK_PASSED, NO_COUNTER, Packet, PacketKind,
    Reason, Work, judge_ends, judge_uplink, recall, remember,
};

use crate::{
    epoch::Epoch,
    maps::{ACTIVE, BAND_COUNTERS, PACKETS, WORK},
    parse::{parse, parse_plain},
    shared::{set_clock, settle},
    state::{Even, Odd},
    tell::tell,
};

/// Judges one packet: drops it, or leaves it to the programs after this one.
#[inline(always)]
pub fn run(context: &TcContext, hook: Hook) -> i32 {
    match Epoch::enter() {
        Some(epoch) => {
            // The one way out is here, so that the cell is always released; and only after the packet is counted, so
            // that counters are those of the revision once its predecessor's grace period is over.
            let decision = judge(context, hook);
            count(context, &decision);
            epoch.leave();
            answer(context, hook, &decision)
        }
        None => answer(context, hook, &Decision::plain(Reason::Internal)),
    }
}

/// Reads `ACTIVE` once and decides with the set it selects.
#[inline(always)]
fn judge(context: &TcContext, hook: Hook) -> Decision {
    let endpoint = if hook.is_uplink() {
        HOST_ENDPOINT
    } else {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*context.skb.skb).ifindex }
    };
    let (Some(active), Some(work)) = (ACTIVE.get_ptr(0), WORK.get_ptr_mut(0)) else {
        return Decision::plain(Reason::Internal);
    };
    // SAFETY: points to an aligned word of a map value. Volatile: the compiler must not read it a second time.
    let generation = unsafe { active.read_volatile() };
    // SAFETY: this CPU's own; programs on one CPU do not nest, and what the last packet left there is a valid `Work`.
    let work = unsafe { &mut *work };
    work.packet = Packet {
        source_port: 0,
        destination_port: 0,
        port: 0,
        kind: PacketKind::Data,
        fragment: Fragment::Whole,
        ..work.packet
    };
    set_clock(work);
    let parsed = if parse_plain(context, &mut work.packet) {
        PARSED
    } else {
        ringfence_parse(context.skb.skb, &mut work.packet, hook.number())
    };
    match parsed {
        PARSED => {
            settle(&mut work.packet);
            // `decide`, in parts. The first and the last do not look at a set.
            if hook.is_uplink() || !recall(&mut Even, generation, hook, endpoint, work) {
                match (hook.is_uplink(), generation & 1) {
                    (false, 0) => ringfence_judge_even(work, generation, hook.number()),
                    (false, _) => ringfence_judge_odd(work, generation, hook.number()),
                    (true, 0) => ringfence_uplink_even(work, generation, hook.number()),
                    (true, _) => ringfence_uplink_odd(work, generation, hook.number()),
                };
                settle(work);
                remember(&mut Even, work);
            }
        }
        reason => work.forget(endpoint, hook, Reason::of_parser(reason)),
    }
    settle(work);
    if work.decision.tell {
        tell(generation, hook, work);
    }
    work.decision
}

/// What `ringfence_parse` answers for a packet that policy can be asked about.
const PARSED: u64 = u64::MAX;

/// Out of line for the stack. No mangled name: it would have a hash of where the sources lie in it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_parse(skb: *mut __sk_buff, packet: &mut Packet, hook: u64) -> u64 {
    match parse(&TcContext::new(skb), Hook::of(hook), packet) {
        Ok(()) => PARSED,
        Err(reason) => reason as u64,
    }
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_judge_even(work: &mut Work, generation: u32, hook: u64) -> u64 {
    judge_ends(&mut Even, generation, Hook::of(hook), work);
    0
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_uplink_even(work: &mut Work, generation: u32, hook: u64) -> u64 {
    judge_uplink(&mut Even, generation, Hook::of(hook), work);
    0
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_judge_odd(work: &mut Work, generation: u32, hook: u64) -> u64 {
    judge_ends(&mut Odd, generation, Hook::of(hook), work);
    0
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ringfence_uplink_odd(work: &mut Work, generation: u32, hook: u64) -> u64 {
    judge_uplink(&mut Odd, generation, Hook::of(hook), work);
    0
}

#[inline(always)]
fn count(context: &TcContext, decision: &Decision) {
    if let Some(counter) = PACKETS.get_ptr_mut(decision.reason as u32) {
        // SAFETY: points to this CPU's own counter; programs on one CPU do not nest.
        unsafe { *counter += 1 };
    }
    for slot in decision.counters {
        if slot != NO_COUNTER
            && let Some(counter) = BAND_COUNTERS.get_ptr_mut(slot)
        {
            let bytes = u64::from(context.len());
            // SAFETY: as above.
            unsafe {
                if decision.allow {
                    (*counter).allowed_packets += 1;
                    (*counter).allowed_bytes += bytes;
                } else {
                    (*counter).refused_packets += 1;
                    (*counter).refused_bytes += bytes;
                }
            }
        }
    }
}

/// Marks and answers.
#[inline(always)]
fn answer(context: &TcContext, hook: Hook, decision: &Decision) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the context is valid while the program runs, and these fields are writable at this hook.
    unsafe {
        // For `Datapath::probe`; nobody else reads it.
        (*skb).cb[0] = decision.reason as u32;
        if hook == Hook::FromEndpoint {
            let judged = if decision.judged_both { MARK_JUDGED } else { 0 };
            (*skb).mark = (*skb).mark & !MARK_MASK | MARK_PASSED | judged;
        }
    }
    if decision.allow { TC_ACT_UNSPEC } else { TC_ACT_SHOT as i32 }
}
