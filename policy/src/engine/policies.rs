//! The policies of all subjects, each once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    resolved::{Resolved, Unresolvable},
    shape::Shape,
};
use crate::tables::PolicyId;

/// Policies by number and by shape.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: BTreeMap<PolicyId, Shared>,
    shapes: BTreeMap<Shape, PolicyId>,
    /// Not given again before what they stood for has been taken out of the tables.
    retired: BTreeSet<PolicyId>,
}

/// A policy with how many subjects have it, those for whom it is a shadow included.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) shape: Shape,
    pub(super) policy: Result<Resolved, Unresolvable>,
    pub(super) users: usize,
}

impl Policies {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn find(&self, shape: &Shape) -> Option<PolicyId> {
        self.shapes.get(shape).copied()
    }

    pub(super) fn get(&self, number: PolicyId) -> Option<&Shared> {
        self.known.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: PolicyId) -> Option<&mut Shared> {
        self.known.get_mut(&number)
    }

    /// A policy, with a number that stands for nothing in any table.
    pub(super) fn add(&mut self, shape: Shape, policy: Result<Resolved, Unresolvable>, users: usize) -> PolicyId {
        // There are few: no more than subjects, and their shadows.
        let used = |number: &PolicyId| self.known.contains_key(number) || self.retired.contains(number);
        let number = numbers().find(|number| !used(number)).expect("a node has fewer than 2^32 policies at a time");
        self.shapes.insert(shape.clone(), number);
        self.known.insert(number, Shared { shape, policy, users });
        number
    }

    pub(super) fn remove(&mut self, number: PolicyId) -> Option<Shared> {
        let shared = self.known.remove(&number)?;
        self.shapes.remove(&shared.shape);
        self.retired.insert(number);
        Some(shared)
    }

    /// The tables no longer hold what was removed.
    pub(super) fn forget_removed(&mut self) {
        self.retired.clear();
    }

    /// Gives every policy another number: the one that `chosen` has for it, or one that is not `taken`. Only before
    /// anything was removed.
    pub(super) fn renumber(
        &mut self,
        chosen: &BTreeMap<PolicyId, PolicyId>,
        taken: &BTreeSet<PolicyId>,
    ) -> BTreeMap<PolicyId, PolicyId> {
        let mut unused = numbers().filter(|number| !taken.contains(number));
        let mut renamed = BTreeMap::new();
        for (before, shared) in std::mem::take(&mut self.known) {
            let fresh = || unused.next().expect("a node has fewer than 2^32 policies at a time");
            let after = chosen.get(&before).copied().unwrap_or_else(fresh);
            renamed.insert(before, after);
            self.shapes.insert(shared.shape.clone(), after);
            self.known.insert(after, shared);
        }
        // Those in the tables that nobody has any more are removed with the first edits.
        self.retired = taken.iter().filter(|number| !self.known.contains_key(number)).copied().collect();
        renamed
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PolicyId, &Shared)> {
        self.known.iter().map(|(number, shared)| (*number, shared))
    }

    /// Those that can be enforced.
    pub(super) fn resolved(&self) -> impl Iterator<Item = (PolicyId, &Resolved)> {
        self.iter().filter_map(|(number, shared)| Some((number, shared.policy.as_ref().ok()?)))
    }
}

fn numbers() -> impl Iterator<Item = PolicyId> {
    (1..=u32::MAX).map(PolicyId)
}
