//! The judgement of one end of a connection.

use crate::{
    answer::{Answer, Question},
    decide::{End, Moment, NOTE_TICKS, Subject},
    event::{EVENT_CUT, EVENT_SHADOW_DIFFERS},
    layout::{
        Address, AddressValue, EGRESS, ENDPOINT_AUDIT, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_OPENING, Flow, FlowKey,
        FlowValue, HOST_ENDPOINT, NO_COUNTER, PortsKey, RowKey, band_owner,
    },
    packet::{Packet, PacketKind},
    reason::{Reason, Tally},
    state::State,
    table::Crowd,
};

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
    pub(crate) tell: bool,
}

/// What is to become of the cell in `FLOWS`.
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
        last_seen: 0,
        generation: 0,
        endpoint: 0,
        counter: NO_COUNTER,
        peer_counter: NO_COUNTER,
        port: 0,
        direction: 0,
        phase: FLOW_OPENING,
        owned: 0,
        peer_local: 0,
        both: 0,
        padding: 0,
    };
}

impl Flow {
    /// Whether it is another one's connection that goes under the node's address: its answers pass (`host::borrow`). No
    /// connection that was judged looks like that: both ends are judged only where the other side is on this node.
    #[must_use]
    #[inline(always)]
    pub const fn is_borrowed(&self) -> bool {
        self.both != 0 && self.peer_local == 0
    }
}

impl Judgement {
    /// Before there is one.
    pub(crate) const NONE: Self = Self::plain(Reason::Internal, Memory::Keep);

    #[inline(always)]
    const fn plain(reason: Reason, memory: Memory) -> Self {
        Self { reason, memory, tell: !reason.passes() }
    }

    /// Something of the connection changed.
    #[inline(always)]
    pub(crate) const fn write(&mut self) {
        self.memory = Memory::Write;
    }

    /// Nothing of the connection is to be written.
    #[inline(always)]
    pub(crate) const fn keep(&mut self) {
        self.memory = Memory::Keep;
    }
}

impl End {
    /// Writes or forgets the connection.
    #[inline(always)]
    pub(crate) fn remember<S: State>(&self, state: &mut S, crowd: &mut Crowd) {
        match self.judgement.memory {
            Memory::Keep => {}
            Memory::Write => state.set_flow(self.home, &self.value, self.found != 0, crowd),
            Memory::Forget => state.remove_flow(self.home, &self.value.key),
        }
    }
}

/// What is known before an end is judged: of a connection that was found, if it is this end's and alive.
#[inline(always)]
pub(crate) fn look(moment: Moment, side: u8, endpoint: u32, end: &mut End, packet: &Packet, found: bool) {
    let flow = &mut end.value.flow;
    // An opening packet from the other side begins another connection.
    let other = flow.direction != side && matches!(packet.kind, PacketKind::Open);
    if found && flow.endpoint == endpoint && flow.is_alive(moment.now) && !other {
        end.known = 1;
    } else {
        *flow = Flow { endpoint, port: packet.port, direction: side, ..Flow::NONE };
        end.known = 0;
    }
}

/// Judges one end, of which is known what `look` says. `side` is `EGRESS` where the endpoint sends the packet.
#[inline(always)]
pub(crate) fn judge<S: State>(state: &mut S, moment: Moment, side: u8, end: &mut End, packet: &Packet) {
    S::settle(end);
    end.judgement = judgement(state, moment, side, end, packet);
    S::settle(end);
}

#[inline(always)]
fn judgement<S: State>(state: &mut S, moment: Moment, side: u8, end: &mut End, packet: &Packet) -> Judgement {
    end.subject = Subject::of(end.value.flow.endpoint, side);
    end.peer_endpoint = 0;
    if end.known == 0 {
        if let PacketKind::Error = packet.kind {
            return Judgement::plain(Reason::Unrelated, Memory::Keep);
        }
    } else if end.value.flow.generation == moment.generation || end.value.flow.is_borrowed() {
        if end.value.flow.peer_local != 0 {
            end.peer_endpoint = endpoint_of(state, &end.value.key.remote);
        }
        return go_on(moment, side, &mut end.value.flow, packet);
    }
    ask_policy(state, moment, side, end, packet)
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
    let write = phase != flow.phase || Flow::age(flow.last_seen, moment.now) >= NOTE_TICKS;
    if write {
        flow.phase = phase;
        flow.last_seen = moment.now;
    }
    let memory = if write { Memory::Write } else { Memory::Keep };
    Judgement { reason: Reason::Established, memory, tell: false }
}

/// A connection that is new, or that another generation judged.
#[inline(always)]
fn ask_policy<S: State>(state: &mut S, moment: Moment, side: u8, end: &mut End, packet: &Packet) -> Judgement {
    let End { value: FlowValue { key, flow }, peer_endpoint, known, answer, subject, .. } = end;
    let (endpoint, known) = (flow.endpoint, *known != 0);
    let memory = if known { Memory::Forget } else { Memory::Keep };
    if !ask(state, moment, key, flow, answer) {
        return Judgement::plain(Reason::NotRealised, memory);
    }
    S::settle(answer);
    let own = answer.own;
    flow.owned = answer.owned;
    if side == EGRESS && flow.owned == 0 {
        return Judgement::plain(Reason::Spoofed, memory);
    }
    let peer = lookup_peer(state, &key.remote);
    *peer_endpoint = peer.endpoint;
    (flow.peer_local, flow.both, flow.peer_counter) = ((peer.endpoint != 0) as u8, 0, NO_COUNTER);
    if peer.endpoint == endpoint && side == EGRESS {
        return Judgement::plain(Reason::Hairpin, Memory::Keep);
    }
    subject.identity = own.identity;
    subject.peer_identity = peer.identity;
    subject.policy = own.policy;
    subject.port = flow.port;
    subject.direction = flow.direction;
    let reason = classify(state, answer, peer.identity, key, flow, subject);
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
    flow.last_seen = moment.now;
    let unchanged = known && matches!(reason, Reason::New);
    let reason = if unchanged { Reason::Reevaluated } else { reason };
    Judgement { reason, memory: Memory::Write, tell: !unchanged }
}

/// What the endpoint's policy says of the connection to anyone; false if there is no such endpoint.
#[inline(always)]
fn ask<S: State>(state: &mut S, moment: Moment, key: &FlowKey, flow: &Flow, answer: &mut Answer) -> bool {
    let port = flow.port as u64 | (key.protocol() as u64) << 16 | (flow.direction as u64) << 24;
    let question = Question { local: key.local, generation: moment.generation, endpoint: flow.endpoint, port };
    if state.answer(&question, answer) {
        return true;
    }
    let Some(own) = state.endpoint(flow.endpoint) else { return false };
    answer.own = own;
    // The node has whatever comes from itself.
    answer.owned = (flow.endpoint == HOST_ENDPOINT || endpoint_of(state, &key.local) == flow.endpoint) as u8;
    (answer.band, answer.anyone) = of_anyone(state, own.policy, key, flow);
    // Whoever makes addresses up makes nobody forget.
    if answer.owned != 0 {
        state.keep_answer(&question, answer);
    }
    true
}

/// Asks the endpoint's policy, and its shadow, about a connection. `New` if it passes.
#[inline(always)]
fn classify<S: State>(
    state: &mut S,
    answer: &Answer,
    peer: u32,
    key: &FlowKey,
    flow: &Flow,
    subject: &mut Subject,
) -> Reason {
    let own = answer.own;
    let reason = class(state, own.policy, peer, flow, (answer.band, answer.anyone));
    subject.band = answer.band;
    if own.shadow != 0 {
        let of_anyone = of_anyone(state, own.shadow, key, flow);
        let shadow = class(state, own.shadow, peer, flow, of_anyone);
        if shadow.passes() != reason.passes() {
            subject.flags = EVENT_SHADOW_DIFFERS;
            state.tally(if shadow.passes() { Tally::ShadowAllows } else { Tally::ShadowRefuses });
        }
    }
    if own.flags & ENDPOINT_AUDIT != 0 { reason.under_audit() } else { reason }
}

/// In which band of a policy a connection is, and the class that has for anyone.
#[inline(always)]
fn of_anyone<S: State>(state: &S, policy: u32, key: &FlowKey, flow: &Flow) -> (u16, u64) {
    let ports = PortsKey { policy, direction: flow.direction, protocol: key.protocol(), padding: 0 };
    let band = state.band(&ports, flow.port);
    let class = match state.row(&row_key(policy, IDENTITY_UNKNOWN, band, flow)) {
        Some(row) => row.class(band),
        None => 0,
    };
    (band, class)
}

#[inline(always)]
const fn row_key(policy: u32, peer: u32, band: u16, flow: &Flow) -> RowKey {
    RowKey { policy, peer, chunk: band >> 6, direction: flow.direction, padding: 0 }
}

/// What one policy says of a connection, of whose band is known what it says to anyone.
#[inline(always)]
fn class<S: State>(state: &S, policy: u32, peer: u32, flow: &Flow, (band, anyone): (u16, u64)) -> Reason {
    let mut class = anyone;
    if peer != IDENTITY_UNKNOWN
        && let Some(row) = state.row(&row_key(policy, peer, band, flow))
    {
        let said = row.class(band);
        class = if said > class { said } else { class };
    }
    match class {
        CLASS_ALLOW => Reason::New,
        CLASS_REDIRECT => Reason::NoProxy,
        CLASS_DENY => Reason::DenyExplicit,
        _ => Reason::DenyDefault,
    }
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

/// The endpoint of this node that has an address; 0 if none has.
#[inline(always)]
fn endpoint_of<S: State>(state: &S, address: &Address) -> u32 {
    // Not one condition: the compiler would read the value that is not there, and the verifier would refuse that.
    match state.address(address) {
        Some(value) => value.endpoint,
        None => 0,
    }
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
