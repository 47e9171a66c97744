//! Whom the rules that are applied to somebody speak of, without what they say: what a node has to know of its peers.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

use super::{
    PolicyObject,
    population::Population,
    selectors::{SelectorId, Selectors},
};
use crate::{
    evaluate::{Requirements, selectors},
    identity::Identity,
    label::LabelSet,
    record::PolicyKey,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::{Rule, Subject},
    world::{Settings, World},
};

/// Identities and rules, and which selectors of peers matter to whom.
#[derive(Debug)]
pub struct Reach {
    settings: Settings,
    population: Population,
    selectors: Selectors,
    objects: BTreeMap<PolicyKey, Vec<Reaching>>,
}

/// Selectors of peers, by number: the same one as long as a rule names it.
pub type Peers = BTreeSet<SelectorId>;

/// One rule.
#[derive(Debug)]
struct Reaching {
    subject: Subject,
    peers: Peers,
}

impl Reach {
    /// Nobody but the reserved identities, no rules.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let selectors = Selectors::new(settings.dual_stack);
        let mut reach = Self { settings, population: Population::default(), selectors, objects: BTreeMap::new() };
        RESERVED_PEERS.into_iter().for_each(|peer| reach.put_identity(peer, reserved_labels(peer)));
        reach
    }

    /// The labels of an identity.
    #[must_use]
    pub fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.population.labels(identity)
    }

    /// Adds an identity, or gives it other labels.
    pub fn put_identity(&mut self, identity: Identity, labels: LabelSet) {
        self.remove_identity(identity);
        let slot = self.population.add(identity, labels);
        let labels = self.population.labels_at(slot).expect("it was just added");
        let selecting = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&selecting, slot, true);
    }

    /// Forgets an identity.
    pub fn remove_identity(&mut self, identity: Identity) {
        let Some(slot) = self.population.slot(identity) else { return };
        let Some(labels) = self.population.labels_at(slot) else { return };
        let selecting = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&selecting, slot, false);
        self.population.remove(identity);
    }

    /// Replaces an object's rules, or takes them out; whom they are and were applied to.
    pub fn change_object(&mut self, key: &PolicyKey, object: Option<&PolicyObject>) -> Vec<Subject> {
        let rules: Vec<Reaching> =
            object.iter().flat_map(|object| &object.rules).map(|rule| self.reaching(rule)).collect();
        let mut subjects: Vec<Subject> = rules.iter().map(|rule| rule.subject.clone()).collect();
        let before = if rules.is_empty() { self.objects.remove(key) } else { self.objects.insert(key.clone(), rules) };
        for Reaching { subject, peers } in before.into_iter().flatten() {
            peers.into_iter().for_each(|number| self.selectors.release(number));
            subjects.push(subject);
        }
        subjects
    }

    /// The selectors of peers in the rules that are applied to any of them, or to a host with these labels.
    #[must_use]
    pub fn peers(&self, subjects: &BTreeSet<Identity>, host: &LabelSet) -> Peers {
        let of_pods = subjects.iter().filter_map(|subject| Some((*subject, self.labels(*subject)?)));
        let known: Vec<_> = of_pods.chain([(Identity::HOST, host)]).collect();
        let applied = |rule: &&Reaching| known.iter().any(|(subject, labels)| rule.subject.selects(*subject, labels));
        let rules = self.objects.values().flatten().filter(applied);
        rules.flat_map(|rule| &rule.peers).copied().collect()
    }

    /// Whom they select, as identities' bits.
    #[must_use]
    pub fn selected(&self, peers: &Peers) -> RoaringBitmap {
        let slots = peers.iter().filter_map(|number| self.selectors.selected(*number));
        let slots = slots.fold(RoaringBitmap::new(), |all, selected| all | selected);
        slots.iter().map(|slot| self.population.identity(slot).bits()).collect()
    }

    /// Whether any of them selects an identity.
    #[must_use]
    pub fn selects(&self, peers: &Peers, identity: Identity) -> bool {
        self.population.slot(identity).is_some_and(|slot| {
            peers.iter().any(|number| self.selectors.selected(*number).is_some_and(|slots| slots.contains(slot)))
        })
    }

    /// Requirements of other rules only narrow a rule's selectors (REQ-1), so they may be left out; and a selector that
    /// selects everyone selects who is unknown, too: nobody need be known for it.
    fn reaching(&mut self, rule: &Rule) -> Reaching {
        let (world, required) = (World::default(), Requirements::default());
        let mut peers = Peers::new();
        for (_, denies, element) in rule.elements() {
            for selector in selectors(&self.settings, &world, element, denies, &required) {
                if selector.is_wildcard() {
                    continue;
                }
                let number = self.selectors.acquire(selector, &self.population);
                self.selectors.ensure(number, &self.population);
                if !peers.insert(number) {
                    self.selectors.release(number);
                }
            }
        }
        Reaching { subject: rule.subject.clone(), peers }
    }
}
