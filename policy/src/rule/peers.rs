//! The peers of an element: who is on the other side.

use std::collections::BTreeSet;

use crate::{
    cidr::Cidr,
    entity::Entity,
    l7::dns_rule::FqdnSelector,
    label::{SOURCE_CIDR, SOURCE_CIDR_GROUP, SOURCE_FQDN, cidr_group_key},
    selector::{Condition, LabelKey, Requirement, Selector},
};

/// The lists of peers that are written, each in its own field. The selectors of all of them are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// `fromEndpoints` or `toEndpoints`, namespaces added.
    pub endpoints: Vec<Selector>,
    /// `fromEntities` or `toEntities`.
    pub entities: Vec<Entity>,
    /// `fromCIDR` or `toCIDR`. Of a range of every address, see [`CidrPeer::everywhere`].
    pub cidrs: Vec<Cidr>,
    /// `fromCIDRSet` or `toCIDRSet`.
    pub cidr_sets: Vec<CidrPeer>,
    /// `fromNodes` or `toNodes`, over labels of source `node`.
    pub nodes: Vec<Selector>,
    /// `toServices`.
    pub services: Vec<ServicePeer>,
    /// `toFQDNs`.
    pub fqdns: Vec<FqdnPeer>,
    /// How many `fromGroups` or `toGroups` are written: who is in them is not known to this engine.
    pub groups: usize,
    /// `endpoints` or `nodes` is written and empty (SEM-23).
    pub empty_selectors: bool,
    /// `entities`, `cidrs` or `cidr_sets` is written and empty (SEM-23).
    pub empty_ranges: bool,
}

/// One element of a CIDRSet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CidrPeer {
    /// Which addresses.
    pub source: CidrSource,
    /// Which of them not (DENY-8).
    pub except: BTreeSet<Cidr>,
}

/// Which addresses an element of a CIDRSet means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CidrSource {
    /// `cidr`.
    Range(Cidr),
    /// `cidrGroupRef`: the group of this name, once there is one (GRP-1).
    Group(String),
    /// `cidrGroupSelector`: groups with these labels (GRP-2).
    Selected(Selector),
}

/// One element of `toServices` (SVC-1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePeer {
    /// None for every namespace.
    pub namespace: Option<String>,
    /// By name, or else by labels.
    pub name: Option<String>,
    /// The service's labels, where `name` is none.
    pub labels: Selector,
}

/// One element of `toFQDNs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FqdnPeer {
    /// None where the element names nothing.
    pub names: Option<FqdnSelector>,
}

impl Peers {
    /// Whether no list of them has an element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let lists = [
            self.endpoints.len(),
            self.entities.len(),
            self.cidrs.len(),
            self.cidr_sets.len(),
            self.nodes.len(),
            self.services.len(),
            self.fqdns.len(),
            self.groups,
        ];
        lists.iter().all(|length| *length == 0)
    }

    /// Every range that is named, `except` included (ID-20).
    pub fn ranges(&self) -> impl Iterator<Item = Cidr> {
        let sets = self.cidr_sets.iter().flat_map(|set| {
            let range = if let CidrSource::Range(range) = &set.source { Some(*range) } else { None };
            range.into_iter().chain(set.except.iter().copied())
        });
        self.cidrs.iter().copied().chain(sets)
    }
}

impl CidrPeer {
    /// A range without exceptions.
    #[must_use]
    pub fn of(range: Cidr) -> Self {
        Self { source: CidrSource::Range(range), except: BTreeSet::new() }
    }

    /// The selector over identity labels (LBL-13, GRP-1 … GRP-3). `dual_stack` decides which label stands for every
    /// address of a family.
    #[must_use]
    pub fn selector(&self, dual_stack: bool) -> Selector {
        let mut selector = match &self.source {
            CidrSource::Range(range) if range.prefix_length() == 0 => Self::everywhere(*range, dual_stack),
            CidrSource::Range(range) => Self::range(*range),
            CidrSource::Group(name) => Selector::label(SOURCE_CIDR_GROUP, &cidr_group_key(name)),
            CidrSource::Selected(selector) => selector.clone(),
        };
        for range in &self.except {
            let key = LabelKey::new(SOURCE_CIDR, range.label_key());
            selector.require(Requirement { key, condition: Condition::DoesNotExist });
        }
        selector
    }

    /// Whom a range selects by its own label.
    #[must_use]
    pub fn range(range: Cidr) -> Selector {
        Selector::label(SOURCE_CIDR, &range.label_key())
    }

    /// Every address of a family outside the mesh.
    #[must_use]
    pub fn everywhere(range: Cidr, dual_stack: bool) -> Selector {
        Entity::world_of(range.address().is_ipv4(), dual_stack)
    }
}

impl FqdnPeer {
    /// The selector over identity labels (FQDN-1); none where no name is named.
    #[must_use]
    pub fn selector(&self) -> Option<Selector> {
        self.names.as_ref().map(|names| Selector::label(SOURCE_FQDN, names.label()))
    }
}
