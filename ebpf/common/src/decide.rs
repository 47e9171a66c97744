//! The decision about one packet.
//!
//! A packet that an endpoint of this node sends to another one of this node is judged for both ends at the sender's
//! hook, with one reading of the generation, and marked; the receiver's hook lets marked packets pass. So one revision
//! judges a packet on its whole way through the node (S1).

use crate::{
    answer::Answer,
    host,
    judge::{Judgement, judge, look},
    layout::{
        Address, EGRESS, FLOW_OPENING, Flow, FlowKey, FlowValue, FragmentKey, FragmentPorts, FragmentValue,
        HOST_ENDPOINT, INGRESS, NO_COUNTER,
    },
    packet::{Fragment, Hook, Packet, PacketKind},
    reason::Reason,
    state::State,
    table::{Crowd, FLOW_TICK_NS},
};

const SECOND_NS: u64 = 1_000_000_000;
const TCP: u8 = 6;
/// A write per packet would cost more than the rest of the decision: the time of a connection is kept to a second.
pub(crate) const NOTE_TICKS: u32 = 15;
const _: () = assert!(NOTE_TICKS as u64 == SECOND_NS.div_ceil(FLOW_TICK_NS), "a second");
/// For how long a first fragment is remembered: as receivers do (RFC 791 §3.2: 15 s, RFC 8200 §4.5: 60 s).
const FRAGMENT_NS: u64 = 60 * SECOND_NS;

/// When and by which generation a packet is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) generation: u32,
    /// In units of `FLOW_TICK_NS`.
    pub(crate) now: u32,
}

impl Moment {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits last for nine years")]
    pub(crate) const fn new(generation: u32, now_ns: u64) -> Self {
        Self { generation, now: (now_ns / FLOW_TICK_NS) as u32 }
    }
}

/// A packet, and room for what is worked out about it: too much for a BPF program's stack of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What the parser found.
    pub packet: Packet,
    pub(crate) own: End,
    pub(crate) theirs: End,
    pub(crate) fragment: FragmentValue,
    /// What `decide` said.
    pub decision: Decision,
    /// Coarse monotonic time, which the caller sets before.
    pub now_ns: u64,
    /// For the caller: which tick of the clock `now_ns` belongs to.
    pub tick: u64,
    /// As the last new connection of this CPU found it.
    pub(crate) crowd: Crowd,
}

/// One end of the packet's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) value: FlowValue,
    /// Interface index of the other side if it is on this node.
    pub(crate) peer_endpoint: u32,
    /// 1 if the connection is known.
    pub(crate) known: u32,
    /// Where it is looked for.
    pub(crate) home: u32,
    /// 1 if anything was there under its key.
    pub(crate) found: u32,
    pub(crate) answer: Answer,
    pub(crate) subject: Subject,
    pub(crate) judgement: Judgement,
}

/// What happens to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// It passes.
    pub allow: bool,
    /// Why.
    pub reason: Reason,
    /// Both ends were judged: the packet is to be marked with `MARK_JUDGED`.
    pub judged_both: bool,
    /// Somebody may want to know: see `Event`.
    pub tell: bool,
    /// The receiver's judgement counted, although the packet is seen at its sender's hook.
    pub at_receiver: bool,
    /// Slots of `BAND_COUNTERS` that count it, or `NO_COUNTER`.
    pub counters: [u32; 2],
}

/// One end of a connection and what its policy was asked; for people only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Interface index.
    pub endpoint: u32,
    /// Its identity.
    pub identity: u32,
    /// The other side's.
    pub peer_identity: u32,
    /// The policy that was asked; 0 if none was.
    pub policy: u32,
    /// What it was asked about.
    pub port: u16,
    /// The band of the port.
    pub band: u16,
    /// Who began the connection.
    pub direction: u8,
    /// `EVENT_…`
    pub flags: u8,
}

impl End {
    /// Reads what is known of the connection whose key is set; false if that is nothing.
    #[inline(always)]
    pub(crate) fn find<S: State>(&mut self, state: &S) -> bool {
        let home = state.home(&self.value.key);
        let found = state.flow(home, &mut self.value);
        self.note(home, found);
        found
    }

    /// Keeps for `remember` what a lookup came to.
    #[inline(always)]
    const fn note(&mut self, home: u32, found: bool) {
        self.home = home;
        self.found = found as u32;
    }
}

impl Work {
    /// For one packet.
    #[must_use]
    pub const fn new(packet: Packet) -> Self {
        const NOWHERE: Address = Address { words: [0; 2] };
        let key = FlowKey { local: NOWHERE, remote: NOWHERE, transport: 0 };
        let end = End {
            value: FlowValue { key, flow: Flow::NONE },
            peer_endpoint: 0,
            known: 0,
            home: 0,
            found: 0,
            answer: Answer::NONE,
            subject: Subject::of(0, 0),
            judgement: Judgement::NONE,
        };
        let decision = Decision::plain(Reason::Internal);
        let ports = FragmentPorts { seen_ns: 0, source_port: 0, destination_port: 0, port: 0, protocol: 0 };
        let key = FragmentKey { source: NOWHERE, destination: NOWHERE, identification: 0, protocol: 0 };
        let (fragment, crowd) = (FragmentValue { key, ports }, Crowd::NONE);
        Self { packet, own: end, theirs: end, fragment, decision, now_ns: 0, tick: 0, crowd }
    }

    /// Clears what the last packet left, for one that was not understood.
    #[inline(always)]
    pub const fn forget(&mut self, endpoint: u32, hook: Hook, reason: Reason) {
        self.decision = Decision::plain(reason);
        self.packet.source = Address { words: [0; 2] };
        self.packet.destination = Address { words: [0; 2] };
        self.packet.protocol = 0;
        self.own.subject = Subject::of(endpoint, hook.side());
    }

    /// Who was judged.
    #[must_use]
    #[inline(always)]
    pub const fn subject(&self) -> &Subject {
        if self.decision.at_receiver { &self.theirs.subject } else { &self.own.subject }
    }
}

impl Subject {
    /// An endpoint of which nothing is known yet.
    #[must_use]
    #[inline(always)]
    pub const fn of(endpoint: u32, direction: u8) -> Self {
        Self { endpoint, identity: 0, peer_identity: 0, policy: 0, port: 0, band: 0, direction, flags: 0 }
    }
}

impl Decision {
    /// A decision that needs no policy. Refusals are told.
    #[must_use]
    #[inline(always)]
    pub const fn plain(reason: Reason) -> Self {
        let (allow, tell) = (reason.passes(), !reason.passes());
        Self { allow, reason, judged_both: false, tell, at_receiver: false, counters: [NO_COUNTER; 2] }
    }

    #[inline(always)]
    pub(crate) const fn of(end: &End) -> Self {
        let Judgement { reason, tell, .. } = end.judgement;
        let counters = [end.value.flow.counter, NO_COUNTER];
        Self { allow: reason.passes(), reason, judged_both: false, tell, at_receiver: false, counters }
    }
}

/// Decides about one packet at one hook of one endpoint, with the set that `generation` selects (as read from `ACTIVE`,
/// once): see `Work::decision`.
///
/// The programs run its three parts one after the other, too, each with a stack of its own.
#[inline(always)]
pub fn decide<S: State>(state: &mut S, generation: u32, hook: Hook, endpoint: u32, work: &mut Work) {
    if hook.is_uplink() {
        host::judge_uplink(state, generation, hook, work);
        remember(state, work);
    } else if !recall(state, generation, hook, endpoint, work) {
        judge_ends(state, generation, hook, work);
        remember(state, work);
    }
}

/// What needs no set: true if the packet is decided about. Most are, so nothing here may call anything: on processors
/// whose returns have to be guarded, a call costs as much as the rest.
#[inline(always)]
pub fn recall<S: State>(state: &mut S, generation: u32, hook: Hook, endpoint: u32, work: &mut Work) -> bool {
    let Work { packet, own, fragment, decision, now_ns, .. } = work;
    if let PacketKind::NeighbourDiscovery = packet.kind {
        *decision = Decision::plain(Reason::NeighbourDiscovery);
        return true;
    }
    if matches!(hook, Hook::ToEndpoint) && packet.judged {
        *decision = Decision::plain(Reason::Judged);
        return true;
    }
    if let Fragment::Later = packet.fragment
        && !complete(state, *now_ns, fragment, packet)
    {
        own.subject = Subject::of(endpoint, hook.side());
        *decision = Decision::plain(Reason::Fragment);
        return true;
    }
    own.value.key = packet.flow_key(hook.side());
    let moment = Moment::new(generation, *now_ns);
    let home = state.home(&own.value.key);
    let found = state.flow(home, &mut own.value);
    let flow = &own.value.flow;
    if found
        && flow.endpoint == endpoint
        && flow.generation == generation
        && goes_on(flow, hook, packet)
        && Flow::age(flow.last_seen, moment.now) < NOTE_TICKS
    {
        *decision = Decision {
            allow: true,
            reason: Reason::Established,
            judged_both: flow.both != 0 && matches!(hook, Hook::FromEndpoint),
            tell: false,
            at_receiver: false,
            counters: [flow.counter, flow.peer_counter],
        };
        return true;
    }
    own.note(home, found);
    look(moment, hook.side(), endpoint, own, packet, found);
    false
}

/// Judges the ends of a connection about which `recall` left what it knows.
#[inline(always)]
pub fn judge_ends<S: State>(state: &mut S, generation: u32, hook: Hook, work: &mut Work) {
    let Work { packet, own, theirs, decision, now_ns, .. } = work;
    let moment = Moment::new(generation, *now_ns);
    theirs.judgement = Judgement::NONE;
    judge(state, moment, hook.side(), own, packet);
    // Where the other end is judged, too, and as what: a local receiver at its sender's hook; the node itself at its receiver's,
    // for its own packets meet no other hook on their way to an endpoint.
    let (peer_endpoint, passes) = (own.peer_endpoint, own.judgement.reason.passes());
    let of_host = passes && peer_endpoint == HOST_ENDPOINT && matches!(hook, Hook::ToEndpoint);
    let local_pair = passes && peer_endpoint != 0 && matches!(hook, Hook::FromEndpoint);
    *decision = if !local_pair && !of_host {
        Decision::of(own)
    } else if let Reason::Hairpin = own.judgement.reason {
        Decision { judged_both: true, ..Decision::of(own) }
    } else {
        let side = if of_host { EGRESS } else { INGRESS };
        theirs.value.key = packet.flow_key(side);
        let found = theirs.find(state);
        if of_host && packet.passed {
            host::borrow(moment, theirs, packet, found);
            *decision = Decision::of(own);
            S::settle(work);
            return;
        }
        look(moment, side, peer_endpoint, theirs, packet, found);
        judge(state, moment, side, theirs, packet);
        both_ends(own, theirs, packet)
    };
    S::settle(work);
}

/// Writes down what `judge_ends` says of the connection.
#[inline(always)]
pub fn remember<S: State>(state: &mut S, work: &mut Work) {
    let Work { packet, own, theirs, fragment, decision, now_ns, crowd, .. } = work;
    theirs.remember(state, crowd);
    own.remember(state, crowd);
    if let Fragment::First = packet.fragment
        && decision.allow
    {
        remember_ports(state, *now_ns, fragment, packet);
    }
}

/// Whether a packet says nothing new about a connection that its generation has judged, for each end it has to be judged
/// for here.
#[inline(always)]
fn goes_on(flow: &Flow, hook: Hook, packet: &Packet) -> bool {
    let judged = match hook {
        Hook::FromEndpoint => flow.both == flow.peer_local,
        Hook::ToEndpoint | Hook::FromHost | Hook::ToHost => flow.peer_local == 0,
    };
    let steady = flow.phase != FLOW_OPENING || packet.protocol != TCP;
    // The others of its datagram will ask for what a first fragment says.
    let alone = !matches!(packet.fragment, Fragment::First);
    matches!(packet.kind, PacketKind::Data) && alone && judged && steady && flow.owned != 0
}

/// The other end is on this node and was judged, too. Here it is called the receiver, which it is but for packets of the node
/// itself.
#[inline(always)]
fn both_ends(own: &mut End, theirs: &End, packet: &Packet) -> Decision {
    let (sender, receiver) = (own.judgement, theirs.judgement);
    if !receiver.reason.passes() {
        // A packet that the other end refuses leaves no connection behind.
        own.judgement.keep();
        return Decision { at_receiver: true, ..Decision::of(theirs) };
    }
    let flow = &mut own.value.flow;
    if !matches!(packet.kind, PacketKind::Error) && (flow.both == 0 || flow.peer_counter != theirs.value.flow.counter) {
        flow.both = 1;
        flow.peer_counter = theirs.value.flow.counter;
        own.judgement.write();
    }
    let counters = [own.value.flow.counter, theirs.value.flow.counter];
    // One packet, one reason: what is new at the receiver counts for more than what the sender's policy allows.
    let sender_allows = matches!(sender.reason, Reason::New | Reason::Established | Reason::Reevaluated);
    let at_receiver = receiver.tell && sender_allows && receiver.reason as u32 != sender.reason as u32;
    let reason = if at_receiver { receiver.reason } else { sender.reason };
    Decision { allow: true, reason, judged_both: true, tell: sender.tell || at_receiver, at_receiver, counters }
}

/// Gives a later fragment the ports of the first one.
#[inline(always)]
pub(crate) fn complete<S: State>(state: &S, now_ns: u64, fragment: &mut FragmentValue, packet: &mut Packet) -> bool {
    fragment.key = packet.fragment_key();
    let Some(first) = state.fragment(&fragment.key) else { return false };
    packet.source_port = first.source_port;
    packet.destination_port = first.destination_port;
    packet.port = first.port;
    packet.protocol = (first.protocol & 0xff) as u8;
    now_ns.saturating_sub(first.seen_ns) < FRAGMENT_NS
}

#[inline(always)]
pub(crate) fn remember_ports<S: State>(state: &mut S, now_ns: u64, fragment: &mut FragmentValue, packet: &Packet) {
    fragment.key = packet.fragment_key();
    fragment.ports = FragmentPorts {
        seen_ns: now_ns,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        port: packet.port,
        protocol: packet.protocol as u16,
    };
    state.set_fragment(fragment);
}
