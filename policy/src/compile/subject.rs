//! The rules of one subject in one direction, deny precedence resolved.
//!
//! What elements say is collected at four levels, from (any peer, any port) to (one peer, one port). The verdict of a
//! flow is the strictest of what the four levels say about it, deny before allow. Lookups, however, stop at the first
//! hit of (peer, port), (any peer, port), (peer, any port), default: so each of these keys gets the verdict of all
//! levels that cover it, and is left out where the next probe says the same.

use std::collections::{BTreeMap, BTreeSet};

use super::population::Population;
use crate::{
    evaluate::{Enforced, Requirements, enforced, selectors},
    flow::{Direction, Verdict},
    identity::Identity,
    label::LabelSet,
    rule::{Element, Port as PortEntry, PortNumber, Rule, Section},
    selector::Selector,
    world::{Settings, World},
};

/// Protocol number and port.
type Port = (u8, u16);
/// Any protocol, any port.
const EVERY_PORT: Port = (0, 0);

/// What the tables get for one subject and direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubjectRules {
    /// For flows that no entry matches.
    pub(super) default: Verdict,
    /// By peer (`UNKNOWN` for any), protocol and port (0 for any).
    pub(super) entries: BTreeMap<(Identity, u8, u16), Verdict>,
}

/// Compiles subjects under one set of rules.
pub(super) struct SubjectCompiler<'a> {
    settings: &'a Settings,
    rules: &'a [&'a Rule],
    population: &'a Population<'a>,
    /// Whom a selector selects is the same for every subject.
    selected: BTreeMap<Selector, Vec<Identity>>,
}

/// What all elements say, by how much they cover.
#[derive(Default)]
struct Levels {
    everyone: Option<Said>,
    everyone_on: BTreeMap<Port, Said>,
    peers: BTreeMap<Identity, Said>,
    peers_on: BTreeMap<Identity, BTreeMap<Port, Said>>,
}

/// What elements say about the flows they cover. Deny is the greater one: it wins (SEM-43).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Allow,
    Deny,
}

impl<'a> SubjectCompiler<'a> {
    pub(super) fn new(settings: &'a Settings, rules: &'a [&'a Rule], population: &'a Population<'a>) -> Self {
        Self { settings, rules, population, selected: BTreeMap::new() }
    }

    pub(super) fn compile(&mut self, subject: Identity, labels: &LabelSet, direction: Direction) -> SubjectRules {
        let rules = self.rules.iter().filter(|rule| rule.subject.selects(subject, labels));
        let sections: Vec<&Section> = rules.map(|rule| rule.section(direction)).collect();
        if enforced(self.settings, subject, labels, &sections) == Enforced::No {
            return SubjectRules { default: Verdict::Allow, entries: BTreeMap::new() }; // SEM-1, SEM-10
        }
        let mut levels = Levels::default();
        for section in sections {
            let allowed = section.allow.iter().flatten().map(|element| (Said::Allow, element));
            let denied = section.deny.iter().flatten().map(|element| (Said::Deny, element));
            for (said, element) in allowed.chain(denied) {
                self.add(&mut levels, said, element);
            }
        }
        if direction == Direction::Ingress {
            levels.add_peer(Said::Allow, Identity::HOST, None); // SEM-50
        }
        levels.resolve()
    }

    fn add(&mut self, levels: &mut Levels, said: Said, element: &Element) {
        // SEM-41: the union of all entries; ANY is every protocol that has ports.
        let entries =
            |rules: &Vec<crate::rule::PortRule>| rules.iter().flat_map(|rule| &rule.ports).flat_map(each).collect();
        let ports: Option<Vec<Port>> = element.ports.as_ref().map(entries);
        let (world, required) = (World::default(), Requirements::default());
        for selector in selectors(self.settings, &world, element, said == Said::Deny, &required) {
            if selector.is_wildcard() {
                levels.add_everyone(said, ports.as_deref());
                continue;
            }
            let population = self.population;
            let selected = self.selected.entry(selector).or_insert_with_key(|selector| population.select(selector));
            for peer in selected {
                levels.add_peer(said, *peer, ports.as_deref());
            }
        }
    }
}

/// What an enforceable object has is one port (`object::not_enforceable`).
fn each(entry: &PortEntry) -> impl Iterator<Item = Port> + use<> {
    let port = match entry.number {
        PortNumber::Range { first, .. } => Some(first),
        PortNumber::Named { .. } => None,
    };
    let numbers = entry.protocol.numbers();
    port.into_iter().flat_map(move |port| numbers.iter().map(move |number| (*number, port)))
}

impl Levels {
    /// `ports` is none for every port.
    fn add_everyone(&mut self, said: Said, ports: Option<&[Port]>) {
        match ports {
            None => self.everyone = self.everyone.max(Some(said)),
            Some(ports) => ports.iter().for_each(|port| strengthen(&mut self.everyone_on, *port, said)),
        }
    }

    fn add_peer(&mut self, said: Said, peer: Identity, ports: Option<&[Port]>) {
        match ports {
            None => strengthen(&mut self.peers, peer, said),
            Some(ports) => {
                let own = self.peers_on.entry(peer).or_default();
                ports.iter().for_each(|port| strengthen(own, *port, said));
            }
        }
    }

    fn resolve(&self) -> SubjectRules {
        let default = verdict(self.everyone);
        let mut entries = BTreeMap::new();
        let mut put = |peer: Identity, (protocol, port): Port, verdict| {
            entries.insert((peer, protocol, port), verdict);
        };
        // Any peer on one port: the next probe is whatever a peer has for every port, at least the default. An entry that
        // equals the default is left out, so that a stricter one of the peer is found.
        let everyone_on = self.everyone_on.iter().map(|(port, said)| (*port, verdict(self.everyone.max(Some(*said)))));
        let everyone_on: BTreeMap<Port, Verdict> = everyone_on.filter(|(_, verdict)| *verdict != default).collect();
        for (port, verdict) in &everyone_on {
            put(Identity::UNKNOWN, *port, *verdict);
        }
        let with_own_rules: BTreeSet<&Identity> = self.peers.keys().chain(self.peers_on.keys()).collect();
        for peer in with_own_rules {
            let on_every_port = self.everyone.max(self.peers.get(peer).copied());
            let otherwise = verdict(on_every_port);
            if otherwise != default {
                put(*peer, EVERY_PORT, otherwise);
            }
            let own = self.peers_on.get(peer);
            // Entries for any peer hide what the peer has for every port, so the peer needs its own beside them.
            let ports: BTreeSet<&Port> = own.into_iter().flat_map(BTreeMap::keys).chain(everyone_on.keys()).collect();
            for port in ports {
                let own = own.and_then(|own| own.get(port)).copied();
                let right = verdict(on_every_port.max(self.everyone_on.get(port).copied()).max(own));
                if right != everyone_on.get(port).copied().unwrap_or(otherwise) {
                    put(*peer, *port, right);
                }
            }
        }
        SubjectRules { default, entries }
    }
}

fn strengthen<K: Ord>(map: &mut BTreeMap<K, Said>, key: K, said: Said) {
    let known = map.entry(key).or_insert(said);
    *known = said.max(*known);
}

fn verdict(said: Option<Said>) -> Verdict {
    match said {
        None => Verdict::DenyDefault,
        Some(Said::Allow) => Verdict::Allow,
        Some(Said::Deny) => Verdict::DenyExplicit,
    }
}
