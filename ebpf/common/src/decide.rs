//! The decision about one packet.
//!
//! A packet that an endpoint of this node sends to another one of this node is judged for both ends at the sender's
//! hook, with one reading of the generation, and marked; the receiver's hook lets marked packets pass. So one revision
//! judges a packet on its whole way through the node (S1).

use crate::{
    host,
    judge::{Judgement, judge},
    layout::{
        Address, EGRESS, Flow, FlowKey, FlowValue, FragmentKey, FragmentPorts, FragmentValue, HOST_ENDPOINT, INGRESS,
        NO_COUNTER,
    },
    packet::{Fragment, Hook, Packet, PacketKind},
    reason::Reason,
    state::{Cached, State},
};

const SECOND_NS: u64 = 1_000_000_000;
/// For how long a first fragment is remembered: as receivers do (RFC 791 §3.2: 15 s, RFC 8200 §4.5: 60 s).
const FRAGMENT_NS: u64 = 60 * SECOND_NS;

/// When and by which generation a packet is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) generation: u32,
    pub(crate) now_ns: u64,
}

/// A packet, and room for what is worked out about it: too much for a BPF program's stack of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What the parser found.
    pub packet: Packet,
    pub(crate) own: End,
    theirs: End,
    pub(crate) fragment: FragmentValue,
    /// What `decide` said.
    pub decision: Decision,
}

/// One end of the packet's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) value: FlowValue,
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

impl Work {
    /// For one packet.
    #[must_use]
    pub const fn new(packet: Packet) -> Self {
        const NOWHERE: Address = Address { words: [0; 2] };
        let key = FlowKey { local: NOWHERE, remote: NOWHERE, transport: 0 };
        let end =
            End { value: FlowValue { key, flow: Flow::NONE }, subject: Subject::of(0, 0), judgement: Judgement::NONE };
        let decision = Decision::plain(Reason::Internal);
        let ports = FragmentPorts { seen_ns: 0, source_port: 0, destination_port: 0, port: 0, protocol: 0 };
        let key = FragmentKey { source: NOWHERE, destination: NOWHERE, identification: 0, protocol: 0 };
        Self { packet, own: end, theirs: end, fragment: FragmentValue { key, ports }, decision }
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
#[inline(always)]
pub fn decide<S: State>(state: &mut S, generation: u32, hook: Hook, endpoint: u32, work: &mut Work) {
    work.decision = decision(state, generation, hook, endpoint, work);
    S::settle(work);
}

#[inline(always)]
fn decision<S: State>(state: &mut S, generation: u32, hook: Hook, endpoint: u32, work: &mut Work) -> Decision {
    if hook.is_uplink() {
        return host::decision(state, generation, hook, work);
    }
    let Work { packet, own, theirs, fragment, .. } = work;
    own.subject = Subject::of(endpoint, hook.side());
    if let PacketKind::NeighbourDiscovery = packet.kind {
        return Decision::plain(Reason::NeighbourDiscovery);
    }
    if matches!(hook, Hook::ToEndpoint) && packet.judged {
        return Decision::plain(Reason::Judged);
    }
    if let Fragment::Later = packet.fragment
        && !complete(state, fragment, packet)
    {
        return Decision::plain(Reason::Fragment);
    }
    own.value.key = packet.flow_key(hook.side());
    // What changes a connection, or could, is not for the cache; nor is a first fragment, which others will ask for.
    if let PacketKind::Data = packet.kind
        && !matches!(packet.fragment, Fragment::First)
        && let Some(cached) = state.cached(&own.value.key, endpoint, generation)
    {
        return Decision {
            allow: true,
            reason: Reason::Established,
            judged_both: cached.both && matches!(hook, Hook::FromEndpoint),
            tell: false,
            at_receiver: false,
            counters: [cached.counter, cached.peer_counter],
        };
    }
    // Only now: to ask for the time costs a tenth of what a cached connection does.
    let moment = Moment { generation, now_ns: state.now_ns() };
    own.value.flow.endpoint = endpoint;
    judge(state, moment, hook.side(), own, packet);
    let peer_endpoint = own.value.flow.peer_endpoint;
    let passes = own.judgement.reason.passes();
    let local_pair = passes && peer_endpoint != 0 && matches!(hook, Hook::FromEndpoint);
    // The node's own packets meet no other hook on their way to an endpoint.
    let of_host = passes && peer_endpoint == HOST_ENDPOINT && matches!(hook, Hook::ToEndpoint);
    let decision = if of_host {
        theirs.value.key = packet.flow_key(EGRESS);
        theirs.value.flow.endpoint = HOST_ENDPOINT;
        if packet.passed {
            host::borrow(state, moment, theirs, packet);
            own.judgement.remember(state, &own.value);
            Decision::of(own)
        } else {
            judge(state, moment, EGRESS, theirs, packet);
            both_ends(state, own, theirs)
        }
    } else if !local_pair {
        own.judgement.remember(state, &own.value);
        Decision::of(own)
    } else if let Reason::Hairpin = own.judgement.reason {
        Decision { judged_both: true, ..Decision::of(own) }
    } else {
        theirs.value.key = packet.flow_key(INGRESS);
        theirs.value.flow.endpoint = peer_endpoint;
        judge(state, moment, INGRESS, theirs, packet);
        both_ends(state, own, theirs)
    };
    if let Fragment::First = packet.fragment
        && decision.allow
    {
        remember_ports(state, moment, fragment, packet);
    }
    cache(state, hook, own, packet, &decision);
    decision
}

/// The other end is on this node and was judged, too. Here it is called the receiver, which it is but for packets of the node
/// itself.
#[inline(always)]
fn both_ends<S: State>(state: &mut S, own: &End, theirs: &End) -> Decision {
    let (sender, receiver) = (own.judgement, theirs.judgement);
    receiver.remember(state, &theirs.value);
    if !receiver.reason.passes() {
        return Decision { at_receiver: true, ..Decision::of(theirs) };
    }
    // Only now: a packet that the other end refuses leaves no connection behind.
    sender.remember(state, &own.value);
    let counters = [own.value.flow.counter, theirs.value.flow.counter];
    // One packet, one reason: what is new at the receiver counts for more than what the sender's policy allows.
    let sender_allows = matches!(sender.reason, Reason::New | Reason::Established | Reason::Reevaluated);
    let at_receiver = receiver.tell && sender_allows && receiver.reason as u32 != sender.reason as u32;
    let reason = if at_receiver { receiver.reason } else { sender.reason };
    Decision { allow: true, reason, judged_both: true, tell: sender.tell || at_receiver, at_receiver, counters }
}

/// Lets this CPU remember a connection that its next packet will not change.
#[inline(always)]
fn cache<S: State>(state: &mut S, hook: Hook, own: &End, packet: &Packet, decision: &Decision) {
    // A connection of one packet is not worth a cell.
    let known = matches!((decision.reason, packet.kind), (Reason::Established, PacketKind::Data));
    let local_pair = own.value.flow.peer_endpoint != 0;
    let whole_judgement = match hook {
        Hook::FromEndpoint => local_pair == decision.judged_both,
        Hook::ToEndpoint | Hook::FromHost | Hook::ToHost => !local_pair,
    };
    if known && own.judgement.steady && whole_judgement && own.value.flow.owned != 0 {
        let [counter, peer_counter] = decision.counters;
        state.set_cached(&own.value, Cached { counter, peer_counter, both: decision.judged_both });
    }
}

/// Gives a later fragment the ports of the first one.
#[inline(always)]
pub(crate) fn complete<S: State>(state: &S, fragment: &mut FragmentValue, packet: &mut Packet) -> bool {
    fragment.key = packet.fragment_key();
    let Some(first) = state.fragment(&fragment.key) else { return false };
    packet.source_port = first.source_port;
    packet.destination_port = first.destination_port;
    packet.port = first.port;
    packet.protocol = (first.protocol & 0xff) as u8;
    state.now_ns().saturating_sub(first.seen_ns) < FRAGMENT_NS
}

#[inline(always)]
pub(crate) fn remember_ports<S: State>(state: &mut S, moment: Moment, fragment: &mut FragmentValue, packet: &Packet) {
    fragment.key = packet.fragment_key();
    fragment.ports = FragmentPorts {
        seen_ns: moment.now_ns,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        port: packet.port,
        protocol: packet.protocol as u16,
    };
    state.set_fragment(fragment);
}
