//! The judgement of one end of a connection.

use crate::{
    decide::{End, Moment, Subject},
    event::{EVENT_CUT, EVENT_SHADOW_DIFFERS},
    layout::{
        Address, AddressValue, BORROWED, EGRESS, ENDPOINT_AUDIT, EndpointValue, FLOW_CLOSING, FLOW_ESTABLISHED,
        FLOW_OPENING, Flow, FlowKey, FlowValue, HOST_ENDPOINT, NO_COUNTER, PortsKey, RowKey, band_owner,
    },
    packet::{Packet, PacketKind},
    reason::{Reason, Tally},
    state::State,
};

const SECOND_NS: u64 = 1_000_000_000;
const TCP: u8 = 6;

const IDENTITY_UNKNOWN: u32 = 0;
const IDENTITY_WORLD_IPV4: u32 = 9;
const IDENTITY_WORLD_IPV6: u32 = 10;

/// Classes of a band: see `RowValue`.
const CLASS_ALLOW: u64 = 1;
const CLASS_REDIRECT: u64 = 2;
const CLASS_DENY: u64 = 3;

/// One end's judgement; what it says of the connection stands in the `FlowValue` that was judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement {
    pub(crate) reason: Reason,
    memory: Memory,
    /// More data will not change the connection.
    pub(crate) steady: bool,
    pub(crate) tell: bool,
}

/// What is to become of the entry in `FLOWS`.
#[derive(Clone, Copy, Debug)]
enum Memory {
    Keep,
    /// Something but the time changed, or the time is old enough to matter.
    Write,
    /// It was allowed once and is refused now.
    Forget,
}

impl Flow {
    /// Of which nothing is known.
    pub(crate) const NONE: Self = Self {
        last_seen_ns: 0,
        generation: 0,
        endpoint: 0,
        peer_endpoint: 0,
        counter: NO_COUNTER,
        port: 0,
        direction: 0,
        phase: FLOW_OPENING,
        owned: 0,
        padding: [0; 3],
    };
}

impl Judgement {
    /// Before there is one.
    pub(crate) const NONE: Self = Self::plain(Reason::Internal, Memory::Keep);

    #[inline(always)]
    const fn plain(reason: Reason, memory: Memory) -> Self {
        Self { reason, memory, steady: false, tell: !reason.passes() }
    }

    /// Writes or forgets the connection.
    #[inline(always)]
    pub(crate) fn remember<S: State>(&self, state: &mut S, value: &FlowValue) {
        match self.memory {
            Memory::Keep => {}
            Memory::Write => state.set_flow(value),
            Memory::Forget => state.remove_flow(&value.key),
        }
    }
}

/// Judges one end. `side` is `EGRESS` where the endpoint sends the packet. `end` has the key and the endpoint, and gets
/// the judgement.
#[inline(always)]
pub(crate) fn judge<S: State>(state: &mut S, moment: Moment, side: u8, end: &mut End, packet: &Packet) {
    end.judgement = judgement(state, moment, side, end, packet);
    S::settle(end);
}

#[inline(always)]
fn judgement<S: State>(state: &mut S, moment: Moment, side: u8, end: &mut End, packet: &Packet) -> Judgement {
    let End { value, subject, .. } = end;
    let endpoint = value.flow.endpoint;
    *subject = Subject::of(endpoint, side);
    let known = match state.flow(&value.key) {
        // An opening packet from the other side begins another connection.
        Some(flow)
            if flow.endpoint == endpoint
                && alive(&flow, moment.now_ns)
                && !(flow.direction != side && matches!(packet.kind, PacketKind::Open)) =>
        {
            value.flow = flow;
            true
        }
        _ => false,
    };
    if known && (value.flow.generation == moment.generation || value.flow.peer_endpoint == BORROWED) {
        return go_on(moment, side, &mut value.flow, packet);
    }
    if !known {
        value.flow = Flow { endpoint, port: packet.port, direction: side, ..Flow::NONE };
        if let PacketKind::Error = packet.kind {
            return Judgement::plain(Reason::Unrelated, Memory::Keep);
        }
    }
    ask_policy(state, moment, side, end, known, packet)
}

/// A connection that the current generation has judged.
#[inline(always)]
fn go_on(moment: Moment, side: u8, flow: &mut Flow, packet: &Packet) -> Judgement {
    if side == EGRESS && flow.owned == 0 {
        return Judgement::plain(Reason::Spoofed, Memory::Keep);
    }
    if let PacketKind::Error = packet.kind {
        return Judgement::plain(Reason::Related, Memory::Keep);
    }
    let phase = next_phase(flow.phase, packet);
    // A write per packet would cost more than the rest of the decision: the time is kept to a second.
    let write = phase != flow.phase || moment.now_ns.saturating_sub(flow.last_seen_ns) > SECOND_NS;
    if write {
        flow.phase = phase;
        flow.last_seen_ns = moment.now_ns;
    }
    let memory = if write { Memory::Write } else { Memory::Keep };
    Judgement { reason: Reason::Established, memory, steady: true, tell: false }
}

/// A connection that is new, or that another generation judged.
#[inline(always)]
fn ask_policy<S: State>(
    state: &mut S,
    moment: Moment,
    side: u8,
    end: &mut End,
    known: bool,
    packet: &Packet,
) -> Judgement {
    let End { value: FlowValue { key, flow }, subject, .. } = end;
    let endpoint = flow.endpoint;
    let memory = if known { Memory::Forget } else { Memory::Keep };
    let Some(own) = state.endpoint(endpoint) else {
        return Judgement::plain(Reason::NotRealised, memory);
    };
    flow.owned = owns(state, endpoint, &key.local) as u8;
    if side == EGRESS && flow.owned == 0 {
        return Judgement::plain(Reason::Spoofed, memory);
    }
    let peer = lookup_peer(state, &key.remote);
    flow.peer_endpoint = peer.endpoint;
    if peer.endpoint == endpoint && side == EGRESS {
        return Judgement::plain(Reason::Hairpin, Memory::Keep);
    }
    subject.identity = own.identity;
    subject.peer_identity = peer.identity;
    subject.policy = own.policy;
    subject.port = flow.port;
    subject.direction = flow.direction;
    let reason = classify(state, own, peer.identity, key, flow, subject);
    flow.counter = state.counter(band_owner(subject.policy, subject.direction, subject.band));
    if !reason.passes() {
        subject.flags |= if known { EVENT_CUT } else { 0 };
        return Judgement::plain(reason, memory);
    }
    if let PacketKind::Error = packet.kind {
        // The connection waits for a packet of its own.
        return Judgement::plain(Reason::Related, Memory::Keep);
    }
    flow.generation = moment.generation;
    flow.phase = next_phase(flow.phase, packet);
    flow.last_seen_ns = moment.now_ns;
    let unchanged = known && matches!(reason, Reason::New);
    let reason = if unchanged { Reason::Reevaluated } else { reason };
    Judgement { reason, memory: Memory::Write, steady: false, tell: !unchanged }
}

/// Asks the endpoint's policy, and its shadow, about a connection. `New` if it passes.
#[inline(always)]
fn classify<S: State>(
    state: &mut S,
    own: EndpointValue,
    peer: u32,
    key: &FlowKey,
    flow: &Flow,
    subject: &mut Subject,
) -> Reason {
    let (reason, band) = class(state, own.policy, peer, key, flow);
    subject.band = band;
    if own.shadow != 0 {
        let (shadow, _) = class(state, own.shadow, peer, key, flow);
        if shadow.passes() != reason.passes() {
            subject.flags = EVENT_SHADOW_DIFFERS;
            state.tally(if shadow.passes() { Tally::ShadowAllows } else { Tally::ShadowRefuses });
        }
    }
    if own.flags & ENDPOINT_AUDIT != 0 { reason.under_audit() } else { reason }
}

/// What one policy says of a connection, and in which band.
#[inline(always)]
fn class<S: State>(state: &S, policy: u32, peer: u32, key: &FlowKey, flow: &Flow) -> (Reason, u16) {
    let ports = PortsKey { policy, direction: flow.direction, protocol: key.protocol(), padding: 0 };
    let band = state.band(&ports, flow.port);
    let anyone = RowKey { policy, peer: IDENTITY_UNKNOWN, chunk: band >> 6, direction: flow.direction, padding: 0 };
    let mut class = match state.row(&anyone) {
        Some(row) => row.class(band),
        None => 0,
    };
    if peer != IDENTITY_UNKNOWN
        && let Some(row) = state.row(&RowKey { peer, ..anyone })
    {
        let said = row.class(band);
        class = if said > class { said } else { class };
    }
    let reason = match class {
        CLASS_ALLOW => Reason::New,
        CLASS_REDIRECT => Reason::NoProxy,
        CLASS_DENY => Reason::DenyExplicit,
        _ => Reason::DenyDefault,
    };
    (reason, band)
}

/// Exact address, then range, then world (S12: a range of the mesh says `unknown`, so that no pod is ever world).
#[inline(always)]
fn lookup_peer<S: State>(state: &S, address: &Address) -> AddressValue {
    if let Some(value) = state.address(address) {
        return value;
    }
    let identity = match state.range(address) {
        Some(identity) => identity,
        None if address.is_ipv4() => IDENTITY_WORLD_IPV4,
        None => IDENTITY_WORLD_IPV6,
    };
    AddressValue { identity, endpoint: 0 }
}

/// Whether an endpoint, which is not 0, has an address. The node has whatever comes from itself.
#[inline(always)]
fn owns<S: State>(state: &S, endpoint: u32, address: &Address) -> bool {
    if endpoint == HOST_ENDPOINT {
        return true;
    }
    // Not one condition: the compiler would read the value that is not there, and the verifier would refuse that.
    let owner = match state.address(address) {
        Some(value) => value.endpoint,
        None => 0,
    };
    owner == endpoint
}

#[inline(always)]
const fn is_tcp(packet: &Packet) -> bool {
    packet.protocol == TCP
}

#[inline(always)]
pub(crate) fn next_phase(phase: u8, packet: &Packet) -> u8 {
    match packet.kind {
        PacketKind::Open => FLOW_OPENING,
        PacketKind::Close => FLOW_CLOSING,
        PacketKind::Error => phase,
        PacketKind::Data | PacketKind::NeighbourDiscovery if is_tcp(packet) && phase != FLOW_CLOSING => {
            FLOW_ESTABLISHED
        }
        PacketKind::Data | PacketKind::NeighbourDiscovery => phase,
    }
}

#[inline(always)]
pub(crate) fn alive(flow: &Flow, now_ns: u64) -> bool {
    let lifetime_s = match flow.phase {
        FLOW_ESTABLISHED => 6 * 3600,
        FLOW_CLOSING => 10,
        _ => 60,
    };
    // Another CPU may have written a time that is a little ahead of ours.
    now_ns.saturating_sub(flow.last_seen_ns) < lifetime_s * SECOND_NS
}
