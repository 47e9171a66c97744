//! Policy objects: their texts, read once, and the ranges they name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    problem::Problem,
    ranges::{IdentityChanges, Ranges},
};
use crate::{
    cidr::Cidr,
    engine::PolicyObject,
    object::{Object, not_enforceable, parse_record},
    record::{PolicyKey, PolicyRecord},
    rule::{Peers, Rule},
};

/// What is known of objects besides their rules.
#[derive(Debug, Default)]
pub(super) struct Objects {
    ranges: BTreeMap<PolicyKey, BTreeSet<Cidr>>,
    broken: BTreeMap<PolicyKey, Problem>,
}

/// Objects for the engine.
#[derive(Debug, Default)]
pub(super) struct ObjectChanges {
    pub(super) put: Vec<PolicyObject>,
    pub(super) removed: Vec<PolicyKey>,
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
        self.ranges.remove(key).iter().flatten().for_each(|range| ranges.remove_named(*range, identities));
        changes.removed.push(key.clone());
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.broken.values().cloned()
    }
}

fn ranges_of(object: &Object) -> BTreeSet<Cidr> {
    let elements = object.rules.iter().flat_map(Rule::elements);
    elements.filter_map(|(_, _, element)| element.peers.as_ref()).flat_map(Peers::ranges).collect()
}
