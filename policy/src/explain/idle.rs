//! Rules and elements that do nothing for those who are in the mesh.

use std::fmt;

use super::{
    Party,
    classes::{PROTOCOLS, classes, cuts, meant},
    explain,
    matching::selects,
    place::{Place, Places, list},
};
use crate::{
    evaluate::{Conflict, Decision, Requirements, SubjectPolicy, selectors},
    flow::{Direction, Flow},
    label::{SOURCE_CIDR, SOURCE_CIDR_GROUP, SOURCE_FQDN, SOURCE_NODE, SOURCE_RESERVED},
    object::Object,
    rule::Element,
    selector::Selector,
    world::{Settings, World},
};

/// Labels of these sources are not those of workloads.
const NOT_OF_WORKLOADS: [&str; 5] = [SOURCE_CIDR, SOURCE_CIDR_GROUP, SOURCE_FQDN, SOURCE_NODE, SOURCE_RESERVED];

/// Why a rule or an element does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The rule selects none of the parties.
    NoSubject,
    /// The element's peers are workloads, and none of the parties is one of them.
    NoPeer,
    /// Whatever it allows is denied, here for one.
    Denied(Place),
    /// The rule selects somebody whose rules contradict each other (CONF).
    Contradiction(Conflict),
}

/// Every rule and element that does nothing for the parties. Of those who are not among the parties nothing is known.
#[must_use]
pub fn idle(settings: &Settings, world: &World, objects: &[Object], parties: &[Party]) -> Vec<(Place, Idle)> {
    let places = Places::of(objects);
    let classes = classes(settings, world, objects.iter(), parties);
    let parties: Vec<&Party> = classes.iter().map(|members| &parties[members[0]]).collect();
    let search = Search { settings, world, objects, cuts: PROTOCOLS.map(|number| cuts(world, number, objects.iter())) };
    let conflicts: Vec<Option<Conflict>> = parties.iter().map(|party| search.policy(party).err()).collect();
    let mut found = Vec::new();
    for (object, rules) in objects.iter().enumerate().map(|(index, object)| (index, &object.rules)) {
        for (index, rule) in rules.iter().enumerate() {
            let subjects: Vec<&Party> =
                parties.iter().copied().filter(|party| rule.subject.selects(party.identity, &party.labels)).collect();
            if subjects.is_empty() {
                found.push((places.rule(object, index), Idle::NoSubject));
                continue;
            }
            let selected = |party: &Party| rule.subject.selects(party.identity, &party.labels);
            let conflict = parties.iter().zip(&conflicts).find_map(|(party, why)| why.filter(|_| selected(party)));
            found.extend(conflict.map(|why| (places.rule(object, index), Idle::Contradiction(why))));
            for (direction, denies) in [Direction::Ingress, Direction::Egress].map(|d| [(d, false), (d, true)]).concat()
            {
                let elements = list(rule.section(direction), denies).unwrap_or_default();
                for (at, element) in elements.iter().enumerate() {
                    let why = search.element(element, direction, denies, &subjects, &parties);
                    found.extend(why.map(|why| (places.element((object, index), direction, denies, at), why)));
                }
            }
        }
    }
    // What a NetworkPolicy says in one place is several elements.
    found.dedup();
    found
}

struct Search<'s> {
    settings: &'s Settings,
    world: &'s World,
    objects: &'s [Object],
    cuts: [Vec<(u16, u16)>; PROTOCOLS.len()],
}

impl Idle {
    /// The numbered rule that says why.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NoSubject => "SEM-1",
            Self::NoPeer => "SEM-23",
            Self::Denied(_) => "SEM-43",
            Self::Contradiction(conflict) => conflict.rule(),
        }
    }

    /// What would be right.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NoSubject => "correct the selector or its namespace, or remove the rule",
            Self::NoPeer => "correct the selector or its namespace, or remove the element",
            Self::Denied(_) => "deny only the peers and ports that are meant",
            Self::Contradiction(_) => "nodes keep the policy they have: change one of the rules that meet",
        }
    }
}

impl Search<'_> {
    fn policy(&self, subject: &Party) -> Result<SubjectPolicy, Conflict> {
        let rules = self.objects.iter().flat_map(|object| &object.rules);
        SubjectPolicy::resolve(self.settings, self.world, rules, subject.identity, &subject.labels)
    }

    fn element(
        &self,
        element: &Element,
        direction: Direction,
        denies: bool,
        subjects: &[&Party],
        parties: &[&Party],
    ) -> Option<Idle> {
        let selectors = selectors(self.settings, self.world, element, denies, &Requirements::default());
        let selected =
            |party: &&&Party| selectors.iter().any(|s| selects(self.settings, s, party.identity, &party.labels));
        let peers: Vec<&Party> = parties.iter().filter(selected).copied().collect();
        if peers.is_empty() {
            let of_workloads = !selectors.is_empty() && selectors.iter().all(is_of_workloads);
            return of_workloads.then_some(Idle::NoPeer);
        }
        if denies { None } else { self.denied(element, direction, subjects, &peers) }
    }

    /// Whether everything that the element covers is denied.
    fn denied(&self, element: &Element, direction: Direction, subjects: &[&Party], peers: &[&Party]) -> Option<Idle> {
        let ports = self.ports(element);
        let mut denied = None;
        for subject in subjects {
            let policy = self.policy(subject).ok()?;
            for peer in peers {
                for (protocol, port) in &ports {
                    let (protocol, port) = (*protocol, *port);
                    let flow = Flow { subject: subject.identity, peer: peer.identity, direction, protocol, port };
                    if policy.decide(&flow, &peer.labels) != Decision::DenyExplicit {
                        return None;
                    }
                    denied.get_or_insert((*subject, *peer, flow));
                }
            }
        }
        let (subject, peer, flow) = denied?;
        let explained = explain(self.settings, self.world, self.objects, subject, peer, flow);
        explained.decided_by().map(|found| Idle::Denied(found.place.clone()))
    }

    /// One port of each range that the element covers and no rule divides.
    fn ports(&self, element: &Element) -> Vec<(u8, u16)> {
        let mut ports = Vec::new();
        for (protocol, cuts) in PROTOCOLS.iter().zip(&self.cuts) {
            let written = element.ports.as_ref().map(|rules| {
                let all = rules.iter().flat_map(|rule| &rule.ports);
                all.flat_map(|port| meant(self.world, port, *protocol)).collect::<Vec<_>>()
            });
            let covered = |first: u16| {
                written.as_ref().is_none_or(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&first)))
            };
            ports.extend(cuts.iter().filter(|(first, _)| covered(*first)).map(|(first, _)| (*protocol, *first)));
        }
        ports
    }
}

fn is_of_workloads(selector: &Selector) -> bool {
    let other = |source: &str| NOT_OF_WORKLOADS.contains(&source);
    !selector.is_wildcard() && !selector.requirements().any(|requirement| other(&requirement.key.source))
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubject => f.write_str("it selects none of the identities"),
            Self::NoPeer => f.write_str("none of the identities is a peer of it"),
            Self::Contradiction(conflict) => {
                write!(f, "the rules of somebody it selects contradict each other: {conflict}")
            }
            Self::Denied(place) => write!(f, "everything it allows is denied, by {place} for one"),
        }
    }
}
