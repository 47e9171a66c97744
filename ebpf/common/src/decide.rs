//! The decision about one packet.
//!
//! A packet that an endpoint of this node sends to another one of this node is judged for both ends at the sender's
//! hook, with one reading of the generation, and marked; the receiver's hook lets marked packets pass. So one revision
//! judges a packet on its whole way through the node (S1).

use crate::layout::{
    Address, AddressValue, EGRESS, EndpointValue, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_OPENING, FlowKey, FlowValue,
    INGRESS, RuleKey, RuleValue, VERDICT_ALLOW, VERDICT_DENY_EXPLICIT,
};

const SECOND_NS: u64 = 1_000_000_000;
const TCP: u8 = 6;

const IDENTITY_UNKNOWN: u32 = 0;
const IDENTITY_WORLD_IPV4: u32 = 9;
const IDENTITY_WORLD_IPV6: u32 = 10;

/// Where a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// It leaves an endpoint.
    FromEndpoint,
    /// It goes to an endpoint.
    ToEndpoint,
}

/// What the parser found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Host byte order; the echo identifier for ICMP echo, else 0.
    pub source_port: u16,
    /// Host byte order; the echo identifier for ICMP echo, else 0.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// What else matters.
    pub kind: PacketKind,
    /// It carries `MARK_JUDGED`.
    pub judged: bool,
}

/// What a packet is to the connection it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// Nothing special.
    Data,
    /// TCP SYN without ACK: somebody wants a new connection.
    Open,
    /// TCP FIN or RST.
    Close,
    /// IPv6 neighbour discovery (ICMPv6 133–137): passes before any policy, or nobody could be reached at all.
    NeighbourDiscovery,
}

/// Why a packet was treated as it was; the index of its counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// A known connection, judged by the current generation already.
    Established = 0,
    /// A known connection, judged again after a change.
    Reevaluated = 1,
    /// A new connection that policy allows.
    New = 2,
    /// Judged at the sender's hook.
    Judged = 3,
    /// Neighbour discovery or ARP.
    NeighbourDiscovery = 4,
    /// No rule allows it.
    DenyDefault = 5,
    /// A deny rule matches.
    DenyExplicit = 6,
    /// The endpoint is not part of a realised revision (S9).
    NotRealised = 7,
    /// The endpoint sends with an address that is not its own.
    Spoofed = 8,
    /// Not IP, truncated, or not understood.
    Unparsable = 9,
    /// A later fragment: its ports are not known.
    Fragment = 10,
    /// The program could not do its work: a map that must be there is not.
    Internal = 11,
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
}

/// What a decision reads and writes: the maps of one set, and the connections.
pub trait State {
    /// Exact address.
    fn address(&self, address: &Address) -> Option<AddressValue>;
    /// Longest prefix: identity bits.
    fn range(&self, address: &Address) -> Option<u32>;
    /// An endpoint of this node by interface index.
    fn endpoint(&self, id: u32) -> Option<EndpointValue>;
    /// A rule.
    fn rule(&self, key: &RuleKey) -> Option<RuleValue>;
    /// Reads a connection.
    fn flow(&self, key: &FlowKey) -> Option<FlowValue>;
    /// Writes a connection; a full table may forget another one.
    fn set_flow(&mut self, key: &FlowKey, value: &FlowValue);
    /// Forgets a connection.
    fn remove_flow(&mut self, key: &FlowKey);
}

/// One end's judgement, and the connection entry to write if the packet passes.
#[derive(Clone, Copy)]
struct Judgement {
    reason: Reason,
    flow: FlowValue,
    /// Needed only if something but the time changed, or the time is old enough to matter.
    write: bool,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: u32 = 12;
    /// Every reason, in the order of its counter.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Established,
        Self::Reevaluated,
        Self::New,
        Self::Judged,
        Self::NeighbourDiscovery,
        Self::DenyDefault,
        Self::DenyExplicit,
        Self::NotRealised,
        Self::Spoofed,
        Self::Unparsable,
        Self::Fragment,
        Self::Internal,
    ];

    /// A short name for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Reevaluated => "reevaluated",
            Self::New => "new",
            Self::Judged => "judged-at-sender",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::DenyDefault => "deny-default",
            Self::DenyExplicit => "deny-explicit",
            Self::NotRealised => "not-realised",
            Self::Spoofed => "spoofed",
            Self::Unparsable => "unparsable",
            Self::Fragment => "fragment",
            Self::Internal => "internal",
        }
    }
}

impl Decision {
    /// The packet passes.
    #[must_use]
    #[inline(always)]
    pub const fn allow(reason: Reason) -> Self {
        Self { allow: true, reason, judged_both: false }
    }

    /// The packet is dropped.
    #[must_use]
    #[inline(always)]
    pub const fn deny(reason: Reason) -> Self {
        Self { allow: false, reason, judged_both: false }
    }
}

/// Decides about one packet at one hook of one endpoint, with the set that `generation` selects.
///
/// `now_ns` is a monotonic clock that may be coarse.
#[inline(always)]
pub fn decide<S: State>(
    state: &mut S,
    generation: u32,
    now_ns: u64,
    hook: Hook,
    endpoint: u32,
    packet: &Packet,
) -> Decision {
    if let PacketKind::NeighbourDiscovery = packet.kind {
        return Decision::allow(Reason::NeighbourDiscovery);
    }
    let moment = Moment { generation, now_ns };
    match hook {
        Hook::ToEndpoint if packet.judged => Decision::allow(Reason::Judged),
        Hook::ToEndpoint => match judge(state, moment, endpoint, INGRESS, packet) {
            Ok(judgement) => {
                if judgement.write {
                    state.set_flow(&flow_key(INGRESS, packet), &judgement.flow);
                }
                Decision::allow(judgement.reason)
            }
            Err(reason) => Decision::deny(reason),
        },
        Hook::FromEndpoint => decide_from_endpoint(state, moment, endpoint, packet),
    }
}

#[inline(always)]
fn decide_from_endpoint<S: State>(state: &mut S, moment: Moment, endpoint: u32, packet: &Packet) -> Decision {
    let sender = match judge(state, moment, endpoint, EGRESS, packet) {
        Ok(judgement) => judgement,
        Err(reason) => return Decision::deny(reason),
    };
    let mut decision = Decision::allow(sender.reason);
    if sender.flow.peer_endpoint != 0 {
        match judge(state, moment, sender.flow.peer_endpoint, INGRESS, packet) {
            Ok(receiver) => {
                if receiver.write {
                    state.set_flow(&flow_key(INGRESS, packet), &receiver.flow);
                }
                decision.judged_both = true;
            }
            Err(reason) => return Decision::deny(reason),
        }
    }
    // Only now: a packet that the other end refuses leaves no connection behind.
    if sender.write {
        state.set_flow(&flow_key(EGRESS, packet), &sender.flow);
    }
    decision
}

/// When and by which generation a packet is judged.
#[derive(Clone, Copy)]
struct Moment {
    generation: u32,
    now_ns: u64,
}

/// Judges one end. `side` is `EGRESS` where the endpoint sends the packet.
#[inline(always)]
fn judge<S: State>(
    state: &mut S,
    moment: Moment,
    endpoint: u32,
    side: u8,
    packet: &Packet,
) -> Result<Judgement, Reason> {
    let Some(own) = state.endpoint(endpoint) else { return Err(Reason::NotRealised) };
    let key = flow_key(side, packet);
    if let Some(flow) = state.flow(&key)
        && alive(&flow, moment.now_ns)
    {
        let opens_backwards = flow.direction != side && matches!(packet.kind, PacketKind::Open);
        if flow.endpoint == endpoint && !opens_backwards {
            return judge_known(state, moment, own, side, &key, flow, packet);
        }
    }
    if side == EGRESS && !owns(state, endpoint, &packet.source) {
        return Err(Reason::Spoofed);
    }
    let peer = lookup_peer(state, &key.remote);
    judge_policy(state, own, side, peer.identity, &key)?;
    let flow = FlowValue {
        last_seen_ns: moment.now_ns,
        generation: moment.generation,
        endpoint,
        peer_endpoint: peer.endpoint,
        direction: side,
        phase: next_phase(FLOW_OPENING, packet),
        padding: [0; 2],
    };
    Ok(Judgement { reason: Reason::New, flow, write: true })
}

/// A connection that is known: judged again, in the direction it began, if the generation changed.
#[inline(always)]
fn judge_known<S: State>(
    state: &mut S,
    moment: Moment,
    own: EndpointValue,
    side: u8,
    key: &FlowKey,
    mut flow: FlowValue,
    packet: &Packet,
) -> Result<Judgement, Reason> {
    let phase = next_phase(flow.phase, packet);
    let current = flow.generation == moment.generation;
    // A write per packet would cost more than the rest of the decision: the time is kept to a second.
    let write = !current || phase != flow.phase || moment.now_ns.wrapping_sub(flow.last_seen_ns) > SECOND_NS;
    if !current {
        // The address may have gone to somebody else meanwhile.
        if side == EGRESS && !owns(state, flow.endpoint, &key.local) {
            state.remove_flow(key);
            return Err(Reason::Spoofed);
        }
        let peer = lookup_peer(state, &key.remote);
        if let Err(reason) = judge_policy(state, own, flow.direction, peer.identity, key) {
            state.remove_flow(key);
            return Err(reason);
        }
        flow.generation = moment.generation;
        flow.peer_endpoint = peer.endpoint;
    }
    flow.phase = phase;
    flow.last_seen_ns = moment.now_ns;
    let reason = if current { Reason::Established } else { Reason::Reevaluated };
    Ok(Judgement { reason, flow, write })
}

/// Looks a flow up in the rules of an endpoint.
#[inline(always)]
fn judge_policy<S: State>(
    state: &S,
    own: EndpointValue,
    direction: u8,
    peer: u32,
    key: &FlowKey,
) -> Result<(), Reason> {
    let port = match key.protocol {
        6 | 17 | 132 if direction == EGRESS => key.remote_port,
        6 | 17 | 132 => key.local_port,
        _ => 0,
    };
    let exact = RuleKey { subject: own.identity, peer, port, protocol: key.protocol, direction };
    let fallback = if direction == EGRESS { own.egress } else { own.ingress };
    let verdict = match state.rule(&exact) {
        Some(rule) => rule.verdict,
        None => match state.rule(&RuleKey { peer: IDENTITY_UNKNOWN, ..exact }) {
            Some(rule) => rule.verdict,
            None => match state.rule(&RuleKey { port: 0, protocol: 0, ..exact }) {
                Some(rule) => rule.verdict,
                None => fallback as u32,
            },
        },
    };
    if verdict == VERDICT_ALLOW as u32 {
        Ok(())
    } else if verdict == VERDICT_DENY_EXPLICIT as u32 {
        Err(Reason::DenyExplicit)
    } else {
        Err(Reason::DenyDefault)
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

#[inline(always)]
fn owns<S: State>(state: &S, endpoint: u32, source: &Address) -> bool {
    match state.address(source) {
        Some(value) => value.endpoint == endpoint,
        None => false,
    }
}

#[inline(always)]
fn flow_key(side: u8, packet: &Packet) -> FlowKey {
    let sent = side == EGRESS;
    FlowKey {
        local: if sent { packet.source } else { packet.destination },
        remote: if sent { packet.destination } else { packet.source },
        local_port: if sent { packet.source_port } else { packet.destination_port },
        remote_port: if sent { packet.destination_port } else { packet.source_port },
        protocol: packet.protocol,
        padding: [0; 3],
    }
}

#[inline(always)]
fn next_phase(phase: u8, packet: &Packet) -> u8 {
    match packet.kind {
        PacketKind::Open => FLOW_OPENING,
        PacketKind::Close => FLOW_CLOSING,
        PacketKind::Data | PacketKind::NeighbourDiscovery if packet.protocol == TCP && phase != FLOW_CLOSING => {
            FLOW_ESTABLISHED
        }
        PacketKind::Data | PacketKind::NeighbourDiscovery => phase,
    }
}

#[inline(always)]
fn alive(flow: &FlowValue, now_ns: u64) -> bool {
    let lifetime_s = match flow.phase {
        FLOW_ESTABLISHED => 6 * 3600,
        FLOW_CLOSING => 10,
        _ => 60,
    };
    // Another CPU may have written a time that is a little ahead of ours.
    now_ns.saturating_sub(flow.last_seen_ns) < lifetime_s * SECOND_NS
}
