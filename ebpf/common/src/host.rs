//! The node itself as an endpoint: what passes its uplinks (HOST-1).
//!
//! ```text
//! uplink ─ neighbour discovery, DHCP, IGMP, what is not IP ─► pass, always
//!        ─ the address on this side is an endpoint's, another node's, or in a range of pods ─► pass: not the node's own
//!        ─ leaves with MARK_PASSED: an endpoint's, under the node's address ─► pass, and remember it for its answers
//!        ─ else: the node's own, whatever address it is ─► judge, as for an endpoint
//! ```

use crate::{
    decide::{Decision, End, Moment, NOTE_TICKS, Subject, Work, complete},
    judge::{Judgement, judge, look, next_phase},
    layout::{Address, EGRESS, Flow, HOST_ENDPOINT},
    packet::{Fragment, Hook, Packet, PacketKind},
    reason::Reason,
    state::State,
};

const IDENTITY_UNKNOWN: u32 = 0;
const IGMP: u8 = 2;
const UDP: u8 = 17;

/// Decides about a packet at an uplink, and leaves what `remember` is to write.
#[inline(always)]
pub fn judge_uplink<S: State>(state: &mut S, generation: u32, hook: Hook, work: &mut Work) {
    work.theirs.judgement = Judgement::NONE;
    work.own.judgement = Judgement::NONE;
    work.decision = decision(state, generation, hook, work);
    S::settle(work);
}

#[inline(always)]
fn decision<S: State>(state: &mut S, generation: u32, hook: Hook, work: &mut Work) -> Decision {
    let Work { packet, own, fragment, now_ns, .. } = work;
    let side = hook.side();
    own.subject = Subject::of(HOST_ENDPOINT, side);
    if let PacketKind::NeighbourDiscovery = packet.kind {
        return Decision::plain(Reason::NeighbourDiscovery);
    }
    let address = if side == EGRESS { &packet.source } else { &packet.destination };
    // Without an entry, no revision says that the node is under enforcement.
    if !is_host(state, address) || state.endpoint(HOST_ENDPOINT).is_none() {
        return passing(packet);
    }
    if let Fragment::Later = packet.fragment
        && !complete(state, *now_ns, fragment, packet)
    {
        return Decision::plain(Reason::Fragment);
    }
    if is_exempt(side, packet) {
        return Decision::plain(Reason::Exempt);
    }
    let moment = Moment::new(generation, *now_ns);
    own.value.key = packet.flow_key(side);
    let found = own.find(state);
    if side == EGRESS && packet.passed {
        borrow(moment, own, packet, found);
        Decision::plain(Reason::Passing)
    } else {
        look(moment, side, HOST_ENDPOINT, own, packet, found);
        judge(state, moment, side, own, packet);
        Decision::of(own)
    }
}

/// Not the node's: what it says of its datagram is for the hook where it is judged to remember.
#[inline(always)]
const fn passing(packet: &mut Packet) -> Decision {
    packet.fragment = Fragment::Whole;
    Decision::plain(Reason::Passing)
}

/// Notes a connection that goes under the node's address and is not the node's own to judge, so that its answers pass:
/// `end` has the key, and the connection if it was `found`.
#[inline(always)]
pub(crate) fn borrow(moment: Moment, end: &mut End, packet: &Packet, found: bool) {
    end.judgement = Judgement::NONE;
    let flow = &mut end.value.flow;
    let known = found && flow.endpoint == HOST_ENDPOINT && flow.is_alive(moment.now);
    // Somebody asked the node, and an endpoint answers under its address: judged where it was asked.
    if known && !flow.is_borrowed() {
        return;
    }
    if !known {
        *flow = Flow { endpoint: HOST_ENDPOINT, direction: EGRESS, owned: 1, both: 1, ..Flow::NONE };
    }
    let phase = next_phase(flow.phase, packet);
    if known && phase == flow.phase && Flow::age(flow.last_seen, moment.now) < NOTE_TICKS {
        return;
    }
    flow.generation = moment.generation;
    flow.phase = phase;
    flow.last_seen = moment.now;
    end.judgement.write();
}

/// Whether an address may be the node's own: it is, unless it is known to be somebody else's. An address that several claim
/// is `unknown`, and one of them may be the node; one inside a range of pods belongs to a pod that is not known yet.
#[inline(always)]
fn is_host<S: State>(state: &S, address: &Address) -> bool {
    match state.address(address) {
        Some(value) => value.endpoint == HOST_ENDPOINT || value.identity == IDENTITY_UNKNOWN,
        None => match state.range(address) {
            Some(identity) => identity != IDENTITY_UNKNOWN,
            None => true,
        },
    }
}

/// How the node gets its addresses (RFC 2131 §4.1, RFC 8415 §7.2), and what groups it listens to on its link (RFC 3376).
#[inline(always)]
const fn is_exempt(side: u8, packet: &Packet) -> bool {
    let (own, other) = if side == EGRESS {
        (packet.source_port, packet.destination_port)
    } else {
        (packet.destination_port, packet.source_port)
    };
    match packet.protocol {
        IGMP => true,
        UDP => matches!((own, other), (68, 67) | (546, 547)),
        _ => false,
    }
}
