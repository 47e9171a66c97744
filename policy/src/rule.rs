//! Rules: what a policy object says once it is parsed, checked and normalised.
//!
//! ```text
//! Rule { subject, ingress: Section, egress: Section, audit, log }
//! Section { allow, deny: none, or a list of Element; default_deny }  none ≠ empty: SEM-1 … SEM-4
//! Element { peers, requires, ports: none, or a list of PortRule }    none ≠ empty: SEM-20 … SEM-26
//! PortRule { ports, proxy }                                          one element of toPorts, or of icmps
//! ```

mod peers;
mod ports;
mod proxy;

pub use peers::{CidrPeer, CidrSource, FqdnPeer, Peers, ServicePeer};
pub use ports::{Port, PortNumber, PortProtocol, PortRule};
pub use proxy::{Listener, Parser, Proxy, TlsContext};

use crate::{
    compat::Compat, diagnostic::Position, flow::Direction, identity::Identity, label::LabelSet, selector::Selector,
};

/// One `spec` (or one element of `specs`) of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins in its object's text.
    pub position: Position,
    /// Its object is under audit: it decides nothing, and counts for what would be decided (AUD-5).
    pub audit: bool,
    /// `log.value`: what records of the flows it decides are marked with.
    pub log: Option<String>,
    /// What it is applied to.
    pub subject: Subject,
    /// What it says about flows towards the subject.
    pub ingress: Section,
    /// What it says about flows from the subject.
    pub egress: Section,
}

/// What a rule is applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `endpointSelector`: endpoints, and never a node.
    Endpoints(Selector),
    /// `nodeSelector`: nodes with these labels (HOST-1).
    Nodes(Selector),
}

/// One direction of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `ingress` or `egress`; none if it is not written.
    pub allow: Option<Vec<Element>>,
    /// `ingressDeny` or `egressDeny`; none if it is not written.
    pub deny: Option<Vec<Element>>,
    /// `enableDefaultDeny` for this direction; none if it is not written (SEM-3).
    pub default_deny: Option<bool>,
}

/// One element of a direction's list: these peers on these ports (SEM-40).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Where it begins in its object's text.
    pub position: Position,
    /// None if no list of peers is written.
    pub peers: Option<Peers>,
    /// `fromRequires` or `toRequires`: what every selector of endpoints of the direction must meet, too (REQ-1).
    pub requires: Vec<Selector>,
    /// None if `toPorts` and `icmps` are absent or empty (SEM-25).
    pub ports: Option<Vec<PortRule>>,
    /// What both ends must have proved before the flow passes; none if it is not written (AUTH-2).
    pub authentication: Option<Authentication>,
}

/// How both ends prove who they are, in the order of AUTH-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authentication {
    /// Not at all.
    Disabled,
    /// `required`: with certificates of the mesh.
    Required,
    /// `test-always-fail`: never.
    TestAlwaysFail,
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

    /// Every element of its lists, with the direction and whether it denies.
    pub fn elements(&self) -> impl Iterator<Item = (Direction, bool, &Element)> {
        [Direction::Ingress, Direction::Egress].into_iter().flat_map(|direction| {
            let section = self.section(direction);
            let allowed = section.allow.iter().flatten().map(move |element| (direction, false, element));
            allowed.chain(section.deny.iter().flatten().map(move |element| (direction, true, element)))
        })
    }
}

impl Subject {
    /// Whether the rule is applied to somebody. Nodes are selected by `nodeSelector` only, and nothing else is.
    #[must_use]
    pub fn selects(&self, subject: Identity, labels: &LabelSet) -> bool {
        match self {
            Self::Endpoints(selector) => subject != Identity::HOST && selector.matches(labels),
            Self::Nodes(selector) => subject == Identity::HOST && selector.matches(labels),
        }
    }
}

impl Section {
    /// Whether the section has content, which is what puts its subject under enforcement (SEM-2, SEM-5). A list with an
    /// element always does (SEM-8). A list that is written and empty does here and does not in Cilium, and so does
    /// `enableDefaultDeny` if it is true (SEM-6).
    #[must_use]
    pub fn has_content(&self, compat: Compat) -> bool {
        let asked = compat == Compat::Ringfence && self.default_deny == Some(true);
        asked
            || [&self.allow, &self.deny].into_iter().flatten().any(|list| match compat {
                Compat::Ringfence => true,
                Compat::Cilium => !list.is_empty(),
            })
    }

    /// Whether its content refuses what nothing allows (SEM-3, SEM-4).
    #[must_use]
    pub fn denies_by_default(&self) -> bool {
        self.default_deny.unwrap_or(true)
    }
}

impl Authentication {
    /// Each with the word that policies write.
    pub const WORDS: [(&'static str, Self); 3] =
        [("required", Self::Required), ("disabled", Self::Disabled), ("test-always-fail", Self::TestAlwaysFail)];
}
