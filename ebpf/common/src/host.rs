//! The node itself as an endpoint: what passes its uplinks (HOST-1).
//!
//! ```text
//! uplink ─ neighbour discovery, DHCP, IGMP, what is not IP ─► pass, always
//!        ─ the address on this side is an endpoint's, another node's, or in a range of pods ─► pass: not the node's own
//!        ─ leaves with MARK_PASSED: an endpoint's, under the node's address ─► pass, and remember it for its answers
//!        ─ else: the node's own, whatever address it is ─► judge, as for an endpoint
//! ```

use crate::{
    decide::{Decision, End, Moment, Subject, Work, complete, remember_ports},
    judge::{alive, judge, next_phase},
    layout::{Address, BORROWED, EGRESS, Flow, HOST_ENDPOINT},
    packet::{Fragment, Hook, Packet, PacketKind},
    reason::Reason,
    state::State,
};

const IDENTITY_UNKNOWN: u32 = 0;
const SECOND_NS: u64 = 1_000_000_000;
const IGMP: u8 = 2;
const UDP: u8 = 17;

/// Decides about a packet at an uplink.
#[inline(always)]
pub(crate) fn decision<S: State>(state: &mut S, generation: u32, hook: Hook, work: &mut Work) -> Decision {
    let Work { packet, own, fragment, .. } = work;
    let side = hook.side();
    own.subject = Subject::of(HOST_ENDPOINT, side);
    if let PacketKind::NeighbourDiscovery = packet.kind {
        return Decision::plain(Reason::NeighbourDiscovery);
    }
    let address = if side == EGRESS { &packet.source } else { &packet.destination };
    // Without an entry, no revision says that the node is under enforcement.
    if !is_host(state, address) || state.endpoint(HOST_ENDPOINT).is_none() {
        return Decision::plain(Reason::Passing);
    }
    if let Fragment::Later = packet.fragment
        && !complete(state, fragment, packet)
    {
        return Decision::plain(Reason::Fragment);
    }
    if is_exempt(side, packet) {
        return Decision::plain(Reason::Exempt);
    }
    let moment = Moment { generation, now_ns: state.now_ns() };
    own.value.key = packet.flow_key(side);
    own.value.flow.endpoint = HOST_ENDPOINT;
    let decision = if side == EGRESS && packet.passed {
        borrow(state, moment, own, packet);
        Decision::plain(Reason::Passing)
    } else {
        judge(state, moment, side, own, packet);
        own.judgement.remember(state, &own.value);
        Decision::of(own)
    };
    if let Fragment::First = packet.fragment
        && decision.allow
    {
        remember_ports(state, moment, fragment, packet);
    }
    decision
}

/// Remembers a connection that goes under the node's address and is not the node's own to judge, so that its answers pass:
/// `end` has the key.
#[inline(always)]
pub(crate) fn borrow<S: State>(state: &mut S, moment: Moment, end: &mut End, packet: &Packet) {
    let Moment { generation, now_ns } = moment;
    end.value.flow = match state.flow(&end.value.key) {
        // Somebody asked the node, and an endpoint answers under its address: judged where it was asked.
        Some(flow) if flow.endpoint == HOST_ENDPOINT && flow.peer_endpoint != BORROWED && alive(&flow, now_ns) => {
            return;
        }
        Some(flow) if flow.endpoint == HOST_ENDPOINT && flow.peer_endpoint == BORROWED && alive(&flow, now_ns) => {
            if now_ns.saturating_sub(flow.last_seen_ns) < SECOND_NS && next_phase(flow.phase, packet) == flow.phase {
                return;
            }
            flow
        }
        _ => Flow { endpoint: HOST_ENDPOINT, peer_endpoint: BORROWED, direction: EGRESS, owned: 1, ..Flow::NONE },
    };
    end.value.flow.generation = generation;
    end.value.flow.phase = next_phase(end.value.flow.phase, packet);
    end.value.flow.last_seen_ns = now_ns;
    state.set_flow(&end.value);
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
