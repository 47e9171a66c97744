//! What is told about packets, in words of the policy engine.

use std::net::IpAddr;

use ringfence_ebpf_common::{self as bytes, BandCounter, EVENT_CUT, EVENT_SHADOW_DIFFERS, Event, Reason};
use ringfence_policy::{
    flow::Direction,
    identity::Identity,
    revision::Revision,
    tables::{EndpointId, PolicyId, Tables},
};

use crate::encode;

/// A connection that began, a verdict that changed, or a drop; seen from the endpoint that was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Nanoseconds on the clock of the datapath: CLOCK_MONOTONIC, coarse.
    pub time_ns: u64,
    /// What judged the packet.
    pub revision: Revision,
    /// Why it was treated as it was; whether it passed is `reason.passes()`.
    pub reason: Reason,
    /// Who was judged.
    pub endpoint: EndpointId,
    /// Its identity; `UNKNOWN` if policy was not asked.
    pub identity: Identity,
    /// The other side's identity; `UNKNOWN` if policy was not asked, or if it has none.
    pub peer: Identity,
    /// The endpoint's address and port; for ICMP, see `ProbePacket`. `::` if the packet was not understood.
    pub local: (IpAddr, u16),
    /// The other side's.
    pub remote: (IpAddr, u16),
    /// IP protocol number.
    pub protocol: u8,
    /// Which way the packet went: `Egress` if the endpoint sent it.
    pub packet: Direction,
    /// Who began the connection: `Egress` if the endpoint did.
    pub direction: Direction,
    /// The policy that was asked; none if none was.
    pub policy: Option<PolicyId>,
    /// The port or message type it was asked about.
    pub port: u16,
    /// The band of that port.
    pub band: u16,
    /// The policy under audit would decide otherwise.
    pub shadow_differs: bool,
    /// A connection that was allowed before was refused.
    pub cut: bool,
}

/// How many packets a band of a policy decided. A packet is counted for the endpoint's own policy, and for the
/// receiver's too if both ends are on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandReport {
    /// Whose band; none: those that found no counter of their own.
    pub band: Option<(PolicyId, Direction, u16)>,
    /// Since the policy came here.
    pub counter: BandCounter,
}

impl FlowEvent {
    /// None if the bytes are no event.
    pub(crate) fn new(event: &Event) -> Option<Self> {
        let reason = Reason::ALL.into_iter().find(|reason| *reason as u8 == event.reason)?;
        Some(Self {
            time_ns: event.time_ns,
            revision: Revision(event.revision),
            reason,
            endpoint: EndpointId(event.endpoint),
            identity: Identity::from_bits(event.identity),
            peer: Identity::from_bits(event.peer_identity),
            local: (encode::ip(&event.key.local), event.key.local_port()),
            remote: (encode::ip(&event.key.remote), event.key.remote_port()),
            protocol: event.key.protocol(),
            packet: encode::direction(event.side)?,
            direction: encode::direction(event.direction)?,
            policy: (event.policy != 0).then_some(PolicyId(event.policy)),
            port: event.port,
            band: event.band,
            shadow_differs: event.flags & EVENT_SHADOW_DIFFERS != 0,
            cut: event.flags & EVENT_CUT != 0,
        })
    }
}

impl BandReport {
    /// `owner`: 0 for slot 0.
    pub(crate) fn new(owner: u64, counter: BandCounter) -> Self {
        let band = bytes::band_of(owner)
            .and_then(|(policy, direction, band)| Some((PolicyId(policy), encode::direction(direction)?, band)));
        Self { band, counter }
    }
}

/// The policy that a slot counts for; none for slot 0.
pub(crate) fn policy_of(owner: u64) -> Option<PolicyId> {
    bytes::band_of(owner).map(|(policy, ..)| PolicyId(policy))
}

/// Whether an endpoint is judged by a policy.
pub(crate) fn has_policy(tables: &Tables, policy: PolicyId) -> bool {
    tables.endpoints.values().any(|entry| entry.policy == policy)
}
