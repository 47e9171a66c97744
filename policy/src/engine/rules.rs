//! The rules of all objects, by number, and whom they are applied to.

use std::collections::{BTreeSet, HashMap};

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
    rule::{Element, Proxy, Rule, Subject},
    selector::Selector,
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
}

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
        self.known[number as usize] = Some(Known { rule, subject, terms, requires, can_conflict });
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

    /// Compiles every rule again: names stand for something else.
    pub(super) fn compile_again(&mut self, context: Context<'_>, selectors: &mut Selectors) {
        for known in self.known.iter_mut().flatten() {
            for (direction, terms) in [Direction::Ingress, Direction::Egress].into_iter().zip(&mut known.terms) {
                let before = std::mem::take(terms);
                context.add(direction, known.rule.section(direction), &Default::default(), selectors, terms);
                before.held.iter().for_each(|held| selectors.release(*held));
            }
        }
    }
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
