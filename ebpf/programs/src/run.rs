//! What happens at a hook.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use ringfence_ebpf_common::{Decision, Hook, MARK_JUDGED, MARK_MASK, Reason, decide};

use crate::{
    epoch::Epoch,
    maps::{ACTIVE, PACKETS},
    parse::parse,
    state::{Even, Odd},
};

/// Judges one packet: drops it, or leaves it to the programs after this one.
#[inline(always)]
pub fn run(context: &TcContext, hook: Hook) -> i32 {
    match Epoch::enter() {
        Some(epoch) => {
            // The one way out of both is here, so that the cell is always released; and only after the packet is
            // counted, so that counters are those of the revision once its predecessor's grace period is over.
            let answer = carry_out(context, hook, judge(context, hook));
            epoch.leave();
            answer
        }
        None => carry_out(context, hook, Decision::deny(Reason::Internal)),
    }
}

/// Reads `ACTIVE` once and decides with the set it selects.
#[inline(always)]
fn judge(context: &TcContext, hook: Hook) -> Decision {
    let Some(active) = ACTIVE.get_ptr(0) else { return Decision::deny(Reason::Internal) };
    // SAFETY: points to an aligned word of a map value. Volatile: the compiler must not read it a second time.
    let generation = unsafe { active.read_volatile() };
    let packet = match parse(context) {
        Ok(packet) => packet,
        Err(decision) => return decision,
    };
    // SAFETY: the context is valid while the program runs.
    let endpoint = unsafe { (*context.skb.skb).ifindex };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if generation & 1 == 0 {
        decide(&mut Even, generation, now_ns, hook, endpoint, &packet)
    } else {
        decide(&mut Odd, generation, now_ns, hook, endpoint, &packet)
    }
}

/// Counts, marks and answers.
#[inline(always)]
fn carry_out(context: &TcContext, hook: Hook, decision: Decision) -> i32 {
    if let Some(counter) = PACKETS.get_ptr_mut(decision.reason as u32) {
        // SAFETY: points to this CPU's own counter; programs on one CPU do not nest.
        unsafe { *counter += 1 };
    }
    let skb = context.skb.skb;
    // SAFETY: the context is valid while the program runs, and these fields are writable at this hook.
    unsafe {
        // For `Datapath::probe`; nobody else reads it.
        (*skb).cb[0] = decision.reason as u32;
        if hook == Hook::FromEndpoint {
            let judged = if decision.judged_both { MARK_JUDGED } else { 0 };
            (*skb).mark = (*skb).mark & !MARK_MASK | judged;
        }
    }
    if decision.allow { TC_ACT_UNSPEC } else { TC_ACT_SHOT as i32 }
}
