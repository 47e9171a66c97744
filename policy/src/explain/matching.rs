//! Which elements cover a flow.

use super::{
    Match,
    place::{Place, Places, list},
};
use crate::{
    compat::Compat,
    evaluate::{Requirements, selectors},
    flow::{Direction, Flow},
    identity::Identity,
    label::LabelSet,
    rule::{Element, Parser, Port, PortNumber, PortProtocol, Section},
    selector::Selector,
    world::{Settings, World},
};

/// Every element of the sections that apply to one subject, in one direction.
pub(super) struct Candidates<'c> {
    pub(super) settings: &'c Settings,
    pub(super) world: &'c World,
    list: Vec<Candidate<'c>>,
    places: &'c Places<'c>,
}

/// One element.
pub(super) struct Candidate<'c> {
    rule: (usize, usize),
    index: usize,
    pub(super) denies: bool,
    pub(super) element: &'c Element,
    pub(super) selectors: Vec<Selector>,
}

impl<'c> Candidates<'c> {
    /// Of `(object, rule, section)`.
    pub(super) fn new(
        settings: &'c Settings,
        world: &'c World,
        sections: &[(usize, usize, &'c Section)],
        places: &'c Places<'c>,
    ) -> Self {
        let plain: Vec<&Section> = sections.iter().map(|(_, _, section)| *section).collect();
        let mut candidates = Vec::new();
        for denies in [false, true] {
            let requirements = Requirements::of(&plain, denies);
            for (object, rule, section) in sections {
                for (index, element) in list(section, denies).unwrap_or_default().iter().enumerate() {
                    let selectors = selectors(settings, world, element, denies, &requirements);
                    candidates.push(Candidate { rule: (*object, *rule), index, denies, element, selectors });
                }
            }
        }
        candidates.sort_by_key(|candidate| (candidate.rule, candidate.denies, candidate.index));
        Self { settings, world, list: candidates, places }
    }

    /// The elements that allow.
    pub(super) fn allowing(&self) -> impl Iterator<Item = &Candidate<'c>> {
        self.list.iter().filter(|candidate| !candidate.denies)
    }

    pub(super) fn place(&self, candidate: &Candidate<'c>, direction: Direction) -> Place {
        self.places.element(candidate.rule, direction, candidate.denies, candidate.index)
    }

    pub(super) fn matches(&self, flow: &Flow, peer: &LabelSet) -> Vec<Match> {
        let mut matches = Vec::new();
        for candidate in self.list.iter().filter(|candidate| self.speaks_of(candidate, flow, peer)) {
            let Some(parser) = self.covering(candidate, flow) else { continue };
            let place = self.place(candidate, flow.direction);
            let (object, rule) = candidate.rule;
            let rule = &self.places.objects()[object].rules[rule];
            let (denies, audit, log) = (candidate.denies, rule.audit, rule.log.clone());
            matches.push(Match { place, denies, parser, audit, log });
        }
        matches.dedup();
        matches
    }

    /// Whether a selector of the element selects the peer.
    pub(super) fn speaks_of(&self, candidate: &Candidate<'c>, flow: &Flow, peer: &LabelSet) -> bool {
        candidate.selectors.iter().any(|selector| selects(self.settings, selector, flow.peer, peer))
    }

    /// Whether the element's ports cover the flow, and who reads it then.
    pub(super) fn covering(&self, candidate: &Candidate<'c>, flow: &Flow) -> Option<Option<Parser>> {
        let Some(rules) = &candidate.element.ports else { return Some(None) };
        let covers = |port: &Port| self.covers(port, flow, candidate.denies);
        let mut covering = rules.iter().filter(|rule| rule.ports.iter().any(covers));
        let first = covering.next()?;
        let parsers = std::iter::once(first).chain(covering).map(|rule| rule.proxy.parser(flow.protocol));
        Some(parsers.flatten().next())
    }

    fn covers(&self, port: &Port, flow: &Flow, denies: bool) -> bool {
        let messages = matches!(port.protocol, PortProtocol::Icmp | PortProtocol::Icmpv6);
        if !port.protocol.numbers().contains(&flow.protocol) {
            return false;
        }
        match &port.number {
            // ICMP-2: to Cilium, message type 0 is every type.
            number if messages && *number == PortNumber::one(0) && self.settings.compat == Compat::Cilium => true,
            PortNumber::Range { first, last } => (*first..=*last).contains(&flow.port),
            PortNumber::Named { name, last } => {
                let numbers = self.world.ports(flow.direction, name, flow.protocol);
                // PORT-4: several numbers are none to an allow.
                let every_number = denies && self.settings.compat != Compat::Cilium;
                let mut meant = numbers.iter().filter(|_| every_number || numbers.len() == 1);
                meant.any(|first| (*first..=*last.max(first)).contains(&flow.port))
            }
        }
    }
}

/// Whether a selector means a peer (ID-15).
pub(super) fn selects(settings: &Settings, selector: &Selector, peer: Identity, labels: &LabelSet) -> bool {
    if settings.dual_stack { selector.selects(peer, labels) } else { selector.selects_labels(labels) }
}
