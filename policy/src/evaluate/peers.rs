//! Whom an element speaks of (§4.2, §4.9).

use std::collections::BTreeSet;

use super::as_cilium;
use crate::{
    rule::{CidrPeer, Element, Peers, Section},
    selector::{Requirement, Selector},
    world::{Settings, World},
};

/// What all `requires` lists of a direction's allow, or deny, elements demand together (REQ-1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Requirements(BTreeSet<Requirement>);

impl Requirements {
    /// Of the allow elements, or the deny elements, of all sections of a subject.
    pub(crate) fn of(sections: &[&Section], denies: bool) -> Self {
        let lists = sections.iter().map(|section| if denies { &section.deny } else { &section.allow });
        let elements = lists.flatten().flatten();
        let selectors = elements.flat_map(|element| &element.requires);
        Self(selectors.flat_map(Selector::requirements).cloned().collect())
    }

    fn added_to(&self, selector: &Selector) -> Selector {
        selector.requirements().chain(&self.0).cloned().collect()
    }
}

/// The selectors of an element's peers; any of them selects.
///
/// No list of peers means everyone, but only if there is a port part (SEM-20, SEM-21). Lists that are written and empty
/// select nobody (SEM-23); Cilium takes some of them for absent, which opens what nobody meant to open (SEM-24, §11).
pub(crate) fn selectors(
    settings: &Settings,
    world: &World,
    element: &Element,
    denies: bool,
    requirements: &Requirements,
) -> Vec<Selector> {
    let everyone = || if element.ports.is_some() { vec![Selector::WILDCARD] } else { Vec::new() };
    let Some(peers) = &element.peers else {
        let closed = !as_cilium(settings) && !denies && !element.requires.is_empty();
        return if closed { element.requires.clone() } else { everyone() };
    };
    let services_count = !(as_cilium(settings) && denies);
    let services = peers.services.iter().filter(|_| services_count).flat_map(|service| world.backends(service));
    let fqdns = peers.fqdns.iter().filter_map(crate::rule::FqdnPeer::selector);
    let closed = peers.empty_selectors || peers.empty_ranges;
    let all = || listed(settings, peers, requirements).into_iter().chain(services).collect();
    let mut selectors: Vec<Selector> = match (as_cilium(settings), closed) {
        (_, false) => all(),
        (true, true) if peers.empty_selectors => return Vec::new(),
        (true, true) => Vec::new(),
        // An allow list that is written and empty closes the lists beside it; for a deny, that would open them.
        (false, true) if denies => all(),
        (false, true) => return Vec::new(),
    };
    selectors.extend(fqdns);
    let absent = selectors.is_empty() && as_cilium(settings) && !closed && peers.fqdns.is_empty();
    if absent { everyone() } else { selectors }
}

/// Without services and names.
fn listed(settings: &Settings, peers: &Peers, requirements: &Requirements) -> Vec<Selector> {
    // REQ-2: requirements restrict selectors of endpoints and nothing else.
    let endpoints = peers.endpoints.iter().map(|selector| requirements.added_to(selector));
    let entities = peers.entities.iter().flat_map(|entity| entity.selectors(&settings.local_cluster));
    let sets = peers.cidr_sets.iter().map(|set| set.selector(settings.dual_stack));
    let nodes = peers.nodes.iter().cloned();
    endpoints.chain(entities).chain(ranges(settings, peers)).chain(sets).chain(nodes).collect()
}

/// GRP-3: a range of every address means the world of its family, too; both of them mean all of the world.
fn ranges(settings: &Settings, peers: &Peers) -> Vec<Selector> {
    let own = peers.cidrs.iter().map(|range| CidrPeer::range(*range));
    let every = peers.cidrs.iter().filter(|range| range.prefix_length() == 0);
    let families: Vec<bool> = every.clone().map(|range| range.address().is_ipv4()).collect();
    let worlds = every.map(|range| CidrPeer::everywhere(*range, settings.dual_stack));
    let both = families.contains(&true) && families.contains(&false);
    let world = both.then(|| Selector::label(crate::label::SOURCE_RESERVED, "world"));
    own.chain(worlds).chain(world).collect()
}
