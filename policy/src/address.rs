//! The labels of addresses outside the pods: which prefixes are known, and what lies in them (§2.3).
//!
//! ```text
//! rules (ranges, exceptions, DNS names) ┐
//! CIDR groups ──────────────────────────┼─► AddressBook ─ longest prefix, then its parents ─► labels of an address
//! nodes, API servers ───────────────────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    cidr::Cidr,
    entity::Entity,
    identity::Identity,
    l7::dns_name::DnsName,
    label::{Label, LabelSet, SOURCE_CIDR, SOURCE_CIDR_GROUP, SOURCE_FQDN, SOURCE_RESERVED},
    object::CidrGroup,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::{Peers, Rule},
    selector::Selector,
};

/// Built-in labels of what is part of the mesh (ID-23).
const IN_MESH: [&str; 4] = ["host", "remote-node", "health", "ingress"];
const NODES: [&str; 2] = ["host", "remote-node"];
const WORLDS: [&str; 3] = ["world", "world-ipv4", "world-ipv6"];

/// Every prefix that something is known about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressBook {
    known: BTreeMap<Cidr, LabelSet>,
    dual_stack: bool,
    ranges_match_nodes: bool,
}

impl AddressBook {
    /// An identity that no other has: what addresses with labels of their own are given here. Only the labels of such an
    /// identity count.
    pub const LOCAL: Identity = Identity::from_bits(0x4000_0001);

    /// `dual_stack` is whether the world has an identity for each family (ID-22), `ranges_match_nodes` whether ranges
    /// may select nodes (ID-23).
    #[must_use]
    pub const fn new(dual_stack: bool, ranges_match_nodes: bool) -> Self {
        Self { known: BTreeMap::new(), dual_stack, ranges_match_nodes }
    }

    /// Something is known about a prefix. Of two labels with one key the first stays.
    pub fn add<'l>(&mut self, range: Cidr, labels: impl IntoIterator<Item = &'l Label>) {
        let known = self.known.entry(range).or_default();
        for label in labels {
            if known.get(&label.key).is_none() {
                known.insert(label.clone());
            }
        }
    }

    /// The prefixes that rules name, whomever they are applied to (ID-20).
    pub fn add_ranges<'r>(&mut self, rules: impl IntoIterator<Item = &'r Rule>) {
        peers(rules).flat_map(Peers::ranges).for_each(|range| self.add_range(range));
    }

    /// A prefix that is selected by its range, such as a service's address (SVC-2).
    pub fn add_range(&mut self, range: Cidr) {
        // LBL-9: every address of a family is the world, and has no label of its own.
        let own = (range.prefix_length() > 0).then(|| Label::new(SOURCE_CIDR, range.label_key(), ""));
        self.add(range, &own);
    }

    /// The addresses of the DNS names that rules select, as far as a policy uses them (FQDN-1, FQDN-2, FQDN-8).
    pub fn add_names<'r>(
        &mut self,
        rules: impl IntoIterator<Item = &'r Rule>,
        answers: &BTreeMap<DnsName, BTreeSet<IpAddr>>,
        is_used: impl Fn(&Selector) -> bool,
    ) {
        let used =
            peers(rules).flat_map(|peers| &peers.fqdns).filter(|fqdn| fqdn.selector().is_some_and(|s| is_used(&s)));
        for names in used.filter_map(|fqdn| fqdn.names.as_ref()) {
            let label = Label::new(SOURCE_FQDN, names.label(), "");
            for address in answers.iter().filter(|(name, _)| names.selects(name)).flat_map(|(_, found)| found) {
                self.add(Cidr::host(*address), [&label]);
            }
        }
    }

    /// The prefixes of a group, whether a rule refers to it or not (GRP-2).
    pub fn add_group(&mut self, group: &CidrGroup) {
        let labels = group.identity_labels();
        group.ranges.iter().for_each(|range| self.add(*range, labels.iter()));
    }

    /// The labels of an address that no pod has (ID-16, ID-21 … ID-23).
    #[must_use]
    pub fn labels(&self, address: IpAddr) -> LabelSet {
        self.labels_of(Cidr::host(address))
    }

    /// The labels of addresses whose longest known prefix this one is, or would be.
    #[must_use]
    pub fn labels_of(&self, range: Cidr) -> LabelSet {
        let address = range.address();
        let lengths = (0..=range.prefix_length()).rev();
        let covering = lengths.filter_map(|length| self.known.get(&Cidr::new(address, length)?));
        let mut labels = LabelSet::default();
        let mut in_range = false;
        for label in covering.flat_map(LabelSet::iter) {
            // One range is enough: containment says the rest (LBL-13).
            let is_range = label.source == SOURCE_CIDR;
            if labels.get(&label.key).is_none() && !(is_range && in_range) {
                in_range |= is_range;
                labels.insert(label.clone());
            }
        }
        self.corrected(&labels, address.is_ipv4())
    }

    /// The identity to ask verdicts for: a reserved one, or `LOCAL` with the labels.
    #[must_use]
    pub fn identity(labels: &LabelSet) -> Identity {
        RESERVED_PEERS.into_iter().find(|peer| reserved_labels(*peer) == *labels).unwrap_or(Self::LOCAL)
    }

    /// ID-22, ID-23: what is outside the mesh is in the world; what is part of it is not, and in no range either.
    fn corrected(&self, labels: &LabelSet, ipv4: bool) -> LabelSet {
        let has = |names: &[&str]| {
            labels.iter().any(|label| label.source == SOURCE_RESERVED && names.contains(&label.key.as_str()))
        };
        if !has(&IN_MESH) {
            let world = Entity::world_of(ipv4, self.dual_stack);
            let world = world.requirements().map(|world| Label::new(&world.key.source, &world.key.key, ""));
            return labels.iter().cloned().chain(world.filter(|_| !has(&WORLDS))).collect();
        }
        let keeps_ranges = self.ranges_match_nodes && has(&NODES);
        let kept = |label: &&Label| match label.source.as_str() {
            SOURCE_RESERVED => !WORLDS.contains(&label.key.as_str()),
            SOURCE_CIDR | SOURCE_CIDR_GROUP | SOURCE_FQDN => keeps_ranges,
            _ => true,
        };
        labels.iter().filter(kept).cloned().collect()
    }
}

fn peers<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> impl Iterator<Item = &'r Peers> {
    rules.into_iter().flat_map(Rule::elements).filter_map(|(_, _, element)| element.peers.as_ref())
}
