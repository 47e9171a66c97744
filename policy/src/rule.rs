//! Rules: what a policy object says once it is parsed, checked and normalised.
//!
//! ```text
//! Rule { subject, ingress: Section, egress: Section }
//! Section { allow, deny: none, or a list of Element }        none ≠ empty: SEM-1 … SEM-4
//! Element { peers: none, or Peers; ports: none, or a list }  none ≠ empty: SEM-20 … SEM-26
//! ```

use crate::{
    compat::Compat, diagnostic::Position, entity::Entity, flow::Direction, flow::protocol, identity::Identity,
    label::LabelSet, name::Name, selector::Selector,
};

/// One `spec` (or one element of `specs`) of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins in its object's text.
    pub position: Position,
    /// The endpoints it is applied to.
    pub subject: Selector,
    /// What it says about flows towards them.
    pub ingress: Section,
    /// What it says about flows from them.
    pub egress: Section,
}

/// One direction of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `ingress` or `egress`; none if it is not written.
    pub allow: Option<Vec<Element>>,
    /// `ingressDeny` or `egressDeny`; none if it is not written.
    pub deny: Option<Vec<Element>>,
}

/// One element of a direction's list: these peers on these ports (SEM-40).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Where it begins in its object's text.
    pub position: Position,
    /// None if no list of peers is written.
    pub peers: Option<Peers>,
    /// None if `toPorts` is absent or empty (SEM-25); the ports of all its entries else, maybe none at all (SEM-26).
    pub ports: Option<Vec<PortRule>>,
}

/// The union of all lists of peers that are written. Without any peer in them it selects nobody (SEM-23).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// `fromEndpoints` or `toEndpoints`, namespaces added.
    pub endpoints: Vec<Selector>,
    /// `fromEntities` or `toEntities`.
    pub entities: Vec<Entity>,
}

/// One entry of `ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRule {
    /// Which protocols.
    pub protocol: PortProtocol,
    /// 1–65535.
    pub port: u16,
}

/// The protocols that have ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// All of the others (SEM-41).
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Rule {
    /// What the rule says about a direction.
    #[must_use]
    pub fn section(&self, direction: Direction) -> &Section {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Section {
    /// Whether the section puts the subject into default deny. A list with an element always does (SEM-2, SEM-8). A
    /// list that is written and empty does here and does not in Cilium.
    #[must_use]
    pub fn isolates(&self, compat: Compat) -> bool {
        [&self.allow, &self.deny].into_iter().flatten().any(|list| match compat {
            Compat::Ringfence => true,
            Compat::Cilium => !list.is_empty(),
        })
    }
}

impl Element {
    /// The selectors of its peers; any of them selects.
    ///
    /// No list of peers means everyone, but only if there is a port part (SEM-20, SEM-21).
    #[must_use]
    pub fn peer_selectors(&self, local_cluster: &Name) -> Vec<Selector> {
        match (&self.peers, &self.ports) {
            (Some(peers), _) => {
                let entities = peers.entities.iter().flat_map(|entity| entity.selectors(local_cluster));
                peers.endpoints.iter().cloned().chain(entities).collect()
            }
            (None, Some(_)) => vec![Selector::WILDCARD],
            (None, None) => Vec::new(),
        }
    }

    /// Whether it speaks of a peer.
    #[must_use]
    pub fn selects(&self, peer: Identity, labels: &LabelSet, local_cluster: &Name) -> bool {
        self.peer_selectors(local_cluster).iter().any(|selector| selector.selects(peer, labels))
    }

    /// Whether it speaks of a port. Without a port part it speaks of every protocol there is (SEM-22).
    #[must_use]
    pub fn covers(&self, protocol: u8, port: u16) -> bool {
        match &self.ports {
            None => true,
            Some(ports) => ports.iter().any(|rule| rule.port == port && rule.protocol.numbers().contains(&protocol)),
        }
    }
}

impl PortProtocol {
    /// Each with the word that policies write.
    pub const WORDS: [(&'static str, Self); 4] =
        [("TCP", Self::Tcp), ("UDP", Self::Udp), ("SCTP", Self::Sctp), ("ANY", Self::Any)];

    /// The IP protocol numbers.
    #[must_use]
    pub const fn numbers(self) -> &'static [u8] {
        match self {
            Self::Any => &[protocol::TCP, protocol::UDP, protocol::SCTP],
            Self::Tcp => &[protocol::TCP],
            Self::Udp => &[protocol::UDP],
            Self::Sctp => &[protocol::SCTP],
        }
    }
}
