//! Policy objects: their texts, read once, and the ranges they name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    problem::Problem,
    ranges::{IdentityChanges, Ranges},
};
use crate::{
    cidr::Cidr,
    engine::PolicyObject,
    identity::Identity,
    label::LabelSet,
    object::{Object, not_enforceable, parse_record},
    record::{PolicyKey, PolicyRecord},
    rule::{Peers, Rule, Subject},
};

/// What is known of objects besides their rules.
#[derive(Debug, Default)]
pub(super) struct Objects {
    ranges: BTreeMap<PolicyKey, BTreeSet<Cidr>>,
    /// Those that ask for nodes by their labels.
    askers: BTreeSet<PolicyKey>,
    /// Whom objects select that select nodes.
    of_nodes: BTreeMap<PolicyKey, Vec<Subject>>,
    broken: BTreeMap<PolicyKey, Problem>,
}

/// Objects for the engine.
#[derive(Debug, Default)]
pub(super) struct ObjectChanges {
    pub(super) put: Vec<PolicyObject>,
    pub(super) removed: Vec<PolicyKey>,
    /// Of each object that began (true) or ceased to ask for nodes.
    pub(super) asking: Vec<bool>,
}

impl Objects {
    /// Of an object that cannot be enforced, the rules before stay: no revision with it is.
    pub(super) fn put(
        &mut self,
        record: &PolicyRecord,
        ranges: &mut Ranges,
        identities: &mut IdentityChanges,
        changes: &mut ObjectChanges,
    ) {
        let key = &record.key;
        let object = match parse_record(record) {
            Ok(object) => object,
            Err(diagnostics) => {
                self.broken.insert(key.clone(), Problem::UnreadablePolicy { key: key.clone(), diagnostics });
                return;
            }
        };
        let diagnostics = not_enforceable(&object);
        if !diagnostics.is_empty() {
            self.broken.insert(key.clone(), Problem::NotEnforceable { key: key.clone(), diagnostics });
            return;
        }
        self.broken.remove(key);
        let after = ranges_of(&object);
        after.iter().for_each(|range| ranges.add_named(*range, identities));
        let before = self.ranges.insert(key.clone(), after);
        before.iter().flatten().for_each(|range| ranges.remove_named(*range, identities));
        let asks = asks_for_nodes(&object);
        self.ask(key, asks, changes);
        let subjects = object.rules.iter().map(|rule| &rule.subject);
        let of_nodes: Vec<Subject> = subjects.filter(|subject| matches!(subject, Subject::Nodes(_))).cloned().collect();
        if of_nodes.is_empty() {
            self.of_nodes.remove(key);
        } else {
            self.of_nodes.insert(key.clone(), of_nodes);
        }
        changes.put.push(PolicyObject { key: object.key, rules: object.rules });
    }

    pub(super) fn remove(
        &mut self,
        key: &PolicyKey,
        ranges: &mut Ranges,
        identities: &mut IdentityChanges,
        changes: &mut ObjectChanges,
    ) {
        self.broken.remove(key);
        self.of_nodes.remove(key);
        self.ask(key, false, changes);
        self.ranges.remove(key).iter().flatten().for_each(|range| ranges.remove_named(*range, identities));
        changes.removed.push(key.clone());
    }

    fn ask(&mut self, key: &PolicyKey, asks: bool, changes: &mut ObjectChanges) {
        let changed = if asks { self.askers.insert(key.clone()) } else { self.askers.remove(key) };
        changes.asking.extend(changed.then_some(asks));
    }

    /// The objects that select a node with these labels.
    pub(super) fn selecting_host<'o>(&'o self, labels: &'o LabelSet) -> impl Iterator<Item = &'o PolicyKey> {
        let selects = |subjects: &Vec<Subject>| subjects.iter().any(|subject| subject.selects(Identity::HOST, labels));
        self.of_nodes.iter().filter(move |(_, subjects)| selects(subjects)).map(|(key, _)| key)
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.broken.values().cloned()
    }
}

fn asks_for_nodes(object: &Object) -> bool {
    let elements = object.rules.iter().flat_map(Rule::elements);
    elements.filter_map(|(_, _, element)| element.peers.as_ref()).any(|peers| !peers.nodes.is_empty())
}

fn ranges_of(object: &Object) -> BTreeSet<Cidr> {
    let elements = object.rules.iter().flat_map(Rule::elements);
    elements.filter_map(|(_, _, element)| element.peers.as_ref()).flat_map(Peers::ranges).collect()
}
