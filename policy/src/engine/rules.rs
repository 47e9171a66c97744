//! The rules of all objects, by number, and whom they are applied to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    anchors::{Anchor, Anchors},
    selectors::Selectors,
    terms::{Context, Terms},
};
use crate::{
    evaluate::Requirements,
    flow::Direction,
    identity::Identity,
    label::LabelSet,
    rule::{Element, PortNumber, Proxy, Rule, Subject},
    selector::Selector,
    world::World,
};

/// The number of a rule.
pub(super) type RuleId = u32;

/// Rules by number.
#[derive(Debug, Default)]
pub(super) struct Rules {
    known: Vec<Option<Known>>,
    free: Vec<RuleId>,
    /// Whom rules are applied to, each once: many rules have one subject.
    subjects: Vec<Option<Applied>>,
    free_subjects: Vec<u32>,
    /// By selector, and whether it selects nodes.
    numbers: HashMap<(Selector, bool), u32>,
    anchors: Anchors,
}

/// The rules that are applied to one subject.
#[derive(Debug)]
struct Applied {
    subject: Subject,
    anchor: Anchor,
    rules: BTreeSet<RuleId>,
}

/// One rule, compiled.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) rule: Rule,
    subject: u32,
    /// What it says alone: other rules may add requirements (REQ-1).
    pub(super) terms: [Terms; 2],
    /// It adds requirements itself.
    pub(super) requires: bool,
    /// It names proxies or authentication, so it can contradict others.
    pub(super) can_conflict: bool,
    /// The names, with protocols, that ingress elements have for ports: each subject's own (PORT-4).
    own_names: BTreeSet<(String, u8)>,
    /// It has names for what the mesh decides: services, peers' ports.
    names_others: bool,
}

/// What the names that rules have for a subject's own ports stand for.
pub(super) type OwnNames = BTreeMap<(String, u8), BTreeSet<u16>>;

impl Rules {
    pub(super) fn add(&mut self, rule: Rule, context: Context<'_>, selectors: &mut Selectors) -> RuleId {
        let number = self.free.pop().unwrap_or_else(|| {
            self.known.push(None);
            u32::try_from(self.known.len() - 1).expect("there are at most 2^32 rules")
        });
        let subject = self.apply(&rule.subject, number, context);
        let terms = [Direction::Ingress, Direction::Egress].map(|direction| {
            let mut terms = Terms::default();
            context.add(direction, rule.section(direction), &Default::default(), selectors, &mut terms);
            terms
        });
        let requires = rule.elements().any(|(_, _, element)| !element.requires.is_empty());
        let can_conflict = rule.elements().any(|(_, _, element)| can_conflict(element));
        let own_names = names_of_ports(&rule, Direction::Ingress).collect();
        let names_others = names_of_ports(&rule, Direction::Egress).next().is_some()
            || rule.elements().any(|(_, _, element)| element.peers.iter().any(|peers| !peers.services.is_empty()));
        let known = Known { rule, subject, terms, requires, can_conflict, own_names, names_others };
        self.known[number as usize] = Some(known);
        number
    }

    /// Takes a rule out of what is applied; its number is not used again before it is freed.
    pub(super) fn retire(&mut self, number: RuleId) {
        let Some(known) = &self.known[number as usize] else { return };
        let slot = &mut self.subjects[known.subject as usize];
        let Some(applied) = slot else { return };
        applied.rules.remove(&number);
        if applied.rules.is_empty()
            && let Some(applied) = slot.take()
        {
            self.anchors.remove(known.subject, &applied.anchor);
            self.numbers.remove(&key(&applied.subject));
            self.free_subjects.push(known.subject);
        }
    }

    /// The number of a rule's subject, to which it is applied from now on.
    fn apply(&mut self, subject: &Subject, rule: RuleId, context: Context<'_>) -> u32 {
        let key = key(subject);
        let number = self.numbers.get(&key).copied().unwrap_or_else(|| {
            let number = self.free_subjects.pop().unwrap_or_else(|| {
                self.subjects.push(None);
                u32::try_from(self.subjects.len() - 1).expect("there are at most 2^32 subjects")
            });
            let anchor = Anchors::choose(&key.0, &context.population.index);
            self.anchors.add(number, &anchor);
            self.numbers.insert(key, number);
            let applied = Applied { subject: subject.clone(), anchor, rules: BTreeSet::new() };
            self.subjects[number as usize] = Some(applied);
            number
        });
        if let Some(applied) = &mut self.subjects[number as usize] {
            applied.rules.insert(rule);
        }
        number
    }

    /// Frees the number of a retired rule that no policy has any more.
    pub(super) fn free(&mut self, number: RuleId, selectors: &mut Selectors) {
        if let Some(known) = self.known[number as usize].take() {
            known.terms.iter().flat_map(|terms| &terms.held).for_each(|held| selectors.release(*held));
            self.free.push(number);
        }
    }

    /// A rule that has not been freed.
    pub(super) fn get(&self, number: RuleId) -> Option<&Known> {
        self.known[number as usize].as_ref()
    }

    /// The rules that are applied to somebody, in order.
    pub(super) fn selecting(&self, identity: Identity, labels: &LabelSet) -> Vec<RuleId> {
        let mut candidates = Vec::new();
        self.anchors.candidates(labels, &mut candidates);
        candidates.sort_unstable();
        candidates.dedup();
        let applied = candidates.iter().filter_map(|number| self.subjects[*number as usize].as_ref());
        let selecting = applied.filter(|applied| applied.subject.selects(identity, labels));
        let mut rules: Vec<RuleId> = selecting.flat_map(|applied| &applied.rules).copied().collect();
        rules.sort_unstable();
        rules
    }

    /// What the allow and the deny elements of these rules demand in a direction.
    pub(super) fn requirements(&self, numbers: &[RuleId], direction: Direction) -> [Requirements; 2] {
        let rules = numbers.iter().filter_map(|number| self.get(*number));
        let sections: Vec<_> = rules.map(|known| known.rule.section(direction)).collect();
        [false, true].map(|denies| Requirements::of(&sections, denies))
    }

    /// What the names of these rules for a subject's own ports stand for.
    pub(super) fn own_names(&self, numbers: &[RuleId], world: &World) -> OwnNames {
        let names = numbers.iter().filter_map(|number| self.get(*number)).flat_map(|known| &known.own_names);
        let meant = |(name, protocol): &(String, u8)| world.ports(Direction::Ingress, name, *protocol);
        names.map(|name| (name.clone(), meant(name))).collect()
    }

    /// Compiles the rules again that name what the mesh decides: which ones, and the selectors to be released once no
    /// policy is left that was made of what they said before.
    pub(super) fn compile_again(
        &mut self,
        context: Context<'_>,
        selectors: &mut Selectors,
    ) -> (BTreeSet<RuleId>, Vec<u32>) {
        let (mut changed, mut released) = (BTreeSet::new(), Vec::new());
        for (number, known) in (0..).zip(&mut self.known) {
            let Some(known) = known.as_mut().filter(|known| known.names_others) else { continue };
            for (direction, terms) in [Direction::Ingress, Direction::Egress].into_iter().zip(&mut known.terms) {
                let before = std::mem::take(terms);
                context.add(direction, known.rule.section(direction), &Default::default(), selectors, terms);
                released.extend(before.held);
            }
            changed.insert(number);
        }
        (changed, released)
    }
}

/// The names that a rule has for ports in a direction, with their protocols.
fn names_of_ports(rule: &Rule, wanted: Direction) -> impl Iterator<Item = (String, u8)> {
    let elements = rule.elements().filter(move |(direction, ..)| *direction == wanted);
    let ports = elements.flat_map(|(_, _, element)| element.ports.iter().flatten()).flat_map(|rule| &rule.ports);
    ports.flat_map(|port| {
        let name = if let PortNumber::Named { name, .. } = &port.number { Some(name) } else { None };
        name.into_iter().flat_map(|name| port.protocol.numbers().iter().map(|protocol| (name.clone(), *protocol)))
    })
}

fn key(subject: &Subject) -> (Selector, bool) {
    match subject {
        Subject::Endpoints(selector) => (selector.clone(), false),
        Subject::Nodes(selector) => (selector.clone(), true),
    }
}

fn can_conflict(element: &Element) -> bool {
    element.authentication.is_some() || element.ports.iter().flatten().any(|rule| rule.proxy != Proxy::default())
}
