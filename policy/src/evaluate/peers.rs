//! Whom an element speaks of (§4.2, §4.9).

use std::collections::BTreeSet;

use super::as_cilium;
use crate::{
    label::{CLUSTER_KEY, SOURCE_ANY, SOURCE_K8S},
    rule::{CidrPeer, Element, Peers, Section},
    selector::{LabelKey, Requirement, Selector},
    world::{Reach, Settings, World},
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
/// A deny on ports of somebody who is not known denies everyone on them, as in Cilium: nobody knows what else it closes.
pub(crate) fn selectors(
    settings: &Settings,
    world: &World,
    element: &Element,
    denies: bool,
    requirements: &Requirements,
) -> Vec<Selector> {
    let everyone = || if element.ports.is_some() { vec![Selector::WILDCARD] } else { Vec::new() };
    let Some(peers) = &element.peers else {
        // REQ-3.
        let closed = !as_cilium(settings) && !denies && !element.requires.is_empty();
        return if closed { element.requires.clone() } else { everyone() };
    };
    if denies && !as_cilium(settings) && element.ports.is_some() && is_dangling(world, peers) {
        return everyone();
    }
    let services_count = !(as_cilium(settings) && denies);
    let services = peers.services.iter().filter(|_| services_count).flat_map(|service| world.backends(service));
    let fqdns = peers.fqdns.iter().filter_map(crate::rule::FqdnPeer::selector);
    let closed = peers.empty_selectors || peers.empty_ranges;
    let all = || listed(settings, peers, denies, requirements).into_iter().chain(services).collect();
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

/// Whether peers are meant that cannot be known at the moment: services that are not there, groups of a cloud.
fn is_dangling(world: &World, peers: &Peers) -> bool {
    peers.groups > 0 || peers.services.iter().any(|service| !world.has_service(service))
}

/// Without services and names.
fn listed(settings: &Settings, peers: &Peers, denies: bool, requirements: &Requirements) -> Vec<Selector> {
    // REQ-2: requirements restrict selectors of endpoints and nothing else.
    let endpoints = peers.endpoints.iter().map(|selector| requirements.added_to(selector));
    let local = settings.reach == Reach::LocalCluster && !denies;
    let endpoints = endpoints.map(|selector| if local { within_cluster(settings, selector) } else { selector });
    let entities = peers.entities.iter().flat_map(|entity| entity.selectors(&settings.local_cluster));
    let sets = peers.cidr_sets.iter().map(|set| set.selector(settings.dual_stack));
    let nodes = peers.nodes.iter().cloned();
    endpoints.chain(entities).chain(ranges(settings, peers)).chain(sets).chain(nodes).collect()
}

/// CL-2: a selector that speaks of pods and of no cluster means those of the local one. Built-in identities have no
/// cluster, and the true wildcard means them, too.
fn within_cluster(settings: &Settings, mut selector: Selector) -> Selector {
    let of_pods = |key: &LabelKey| key.source == SOURCE_K8S || key.source == SOURCE_ANY;
    let pods = selector.requirements().any(|requirement| of_pods(&requirement.key));
    let names_one = |key: &LabelKey| of_pods(key) && key.key == CLUSTER_KEY;
    if pods && !selector.requirements().any(|requirement| names_one(&requirement.key)) {
        let cluster = LabelKey::new(SOURCE_K8S, CLUSTER_KEY);
        selector.require(Requirement::equals(cluster, settings.local_cluster.as_str()));
    }
    selector
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
