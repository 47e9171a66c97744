//! The tables a node's datapath serves packets with, and the edits that lead from one set of tables to the next.
//!
//! ```text
//! address of the peer ─ addresses, else ranges, else world ─► identity ─┐
//! interface ─ endpoints ─► policy ─┬─ ports[policy, direction, protocol](port) ─► band (0 without) ─┐
//!                                  └─ rows[policy, direction, peer, band / 64] ─┬─ bit band % 64 ◄──┘
//!                                     rows[policy, direction, any,  band / 64] ─┴─► the greater class
//! ```
//!
//! A *policy* is what endpoints with equal rules share. A *band* is all ports about which it says the same; band 0 has
//! the ports that no rule names, and every port of a protocol without an entry. A row has the classes of one peer, for 64
//! bands (docs/decisions/0007).
//!
//! Tables are plain ordered maps: equal inputs give equal tables up to the numbers of policies, and two tables are
//! compared by value, or as `Tables::resolved`. A `TableDiff` carries what was there before, so that it can be undone,
//! replayed, and joined to the next one.

mod diff;
mod ports;
mod resolved;
mod row;

pub use diff::{Edit, TableDiff};
pub use ports::{Interval, InvalidIntervals, PortsOfProtocol};
pub use resolved::ResolvedTables;
pub use row::{BANDS_PER_ROW, Class, Row};

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    cidr::Cidr,
    flow::{Direction, Flow, Verdict},
    identity::Identity,
};

/// An endpoint on this node: the interface index of its host-side device. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EndpointId(pub u32);

/// A policy that endpoints of this node share. Never 0, and never used again for another content while a packet might
/// read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyId(pub u32);

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressEntry {
    /// Who has the address.
    pub identity: Identity,
    /// Set if the address belongs to an endpoint of this node.
    pub endpoint: Option<EndpointId>,
}

/// How one endpoint of this node is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// The subject of its rules: what its peers see.
    pub identity: Identity,
    /// Refuses or admits. One that nothing is said of refuses everything.
    pub policy: PolicyId,
    /// What would be decided if the objects under audit counted; only reported. None where they say nothing of it.
    pub shadow: Option<PolicyId>,
    /// A refusal of `policy` is reported and let through (AUD-2).
    pub audit: bool,
}

/// Which ports of which protocol, in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortsKey {
    /// Whose.
    pub policy: PolicyId,
    /// Seen from the subject.
    pub direction: Direction,
    /// IP protocol number: TCP, UDP, SCTP; ICMP and ICMPv6 with the message type as the port.
    pub protocol: u8,
}

/// Whose flows a row decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// Whose.
    pub policy: PolicyId,
    /// Seen from the subject.
    pub direction: Direction,
    /// `Identity::UNKNOWN` for any peer.
    pub peer: Identity,
    /// Which bands: those from `BANDS_PER_ROW * chunk` on.
    pub chunk: u16,
}

/// Everything a node enforces at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// Exact addresses.
    pub addresses: BTreeMap<IpAddr, AddressEntry>,
    /// Ranges for addresses that are not in `addresses`, longest prefix first; without a match an address is `world`.
    pub ranges: BTreeMap<Cidr, Identity>,
    /// The endpoints of this node. One that is missing here is refused everything (S9).
    pub endpoints: BTreeMap<EndpointId, EndpointEntry>,
    /// The bands of ports that policies name.
    pub ports: BTreeMap<PortsKey, PortsOfProtocol>,
    /// What policies say of peers. Rows of zeros are left out.
    pub rows: BTreeMap<RowKey, Row>,
}

impl Tables {
    /// The edits that lead from `self` to `target`.
    #[must_use]
    pub fn diff(&self, target: &Self) -> TableDiff {
        diff::between(self, target)
    }

    /// Carries out the edits of a diff that was made from these tables.
    pub fn apply(&mut self, diff: &TableDiff) {
        diff::apply(self, diff);
    }

    /// What policies say of a flow from or to an endpoint of this node, found as the datapath finds it; none if they say
    /// nothing, and the default is to deny. The subject is the endpoint's; `flow.subject` is not looked at. Of an
    /// endpoint without an entry nothing is said (S9).
    #[must_use]
    pub fn class(&self, endpoint: EndpointId, flow: &Flow) -> Option<Class> {
        self.class_in(self.endpoints.get(&endpoint)?.policy, flow)
    }

    /// What one policy says of a flow.
    #[must_use]
    pub fn class_in(&self, policy: PolicyId, flow: &Flow) -> Option<Class> {
        let Flow { peer, direction, protocol, port, .. } = *flow;
        let ports = self.ports.get(&PortsKey { policy, direction, protocol });
        let band = ports.map_or(0, |ports| ports.band(port));
        let said = |peer: Identity| self.rows.get(&RowKey::of(policy, direction, peer, band))?.class(band);
        said(peer).max(said(Identity::UNKNOWN))
    }

    /// The verdict that `class` comes to for packets. A flow for the proxy is refused: there is none yet.
    #[must_use]
    pub fn lookup(&self, endpoint: EndpointId, flow: &Flow) -> Verdict {
        match self.class(endpoint, flow) {
            Some(Class::Allow) => Verdict::Allow,
            Some(Class::Deny) => Verdict::DenyExplicit,
            Some(Class::Redirect) | None => Verdict::DenyDefault,
        }
    }
}

impl EndpointId {
    /// The node itself: the index of the loopback device, which no endpoint can have.
    pub const HOST: Self = Self(1);
}

impl RowKey {
    /// The row that has a band.
    #[must_use]
    pub const fn of(policy: PolicyId, direction: Direction, peer: Identity, band: u16) -> Self {
        Self { policy, direction, peer, chunk: band / BANDS_PER_ROW }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
