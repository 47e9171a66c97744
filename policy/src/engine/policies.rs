//! The policies of all subjects, each once.

use std::collections::{BTreeMap, BTreeSet};

use super::{resolved::Resolved, shape::Shape};
use crate::{evaluate::Conflict, identity::Identity};

/// The number of a policy.
pub(super) type PolicyId = u32;

/// Policies by number and by shape.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: Vec<Option<Shared>>,
    free: Vec<PolicyId>,
    shapes: BTreeMap<Shape, PolicyId>,
}

/// A policy with those who have it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) shape: Shape,
    pub(super) policy: Result<Resolved, Conflict>,
    pub(super) subjects: BTreeSet<Identity>,
}

impl Policies {
    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    pub(super) fn find(&self, shape: &Shape) -> Option<PolicyId> {
        self.shapes.get(shape).copied()
    }

    pub(super) fn get(&self, number: PolicyId) -> Option<&Shared> {
        self.known[number as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: PolicyId) -> Option<&mut Shared> {
        self.known[number as usize].as_mut()
    }

    /// A policy that nobody has yet.
    pub(super) fn add(&mut self, shape: Shape, policy: Result<Resolved, Conflict>) -> PolicyId {
        let number = self.free.pop().unwrap_or_else(|| {
            self.known.push(None);
            u32::try_from(self.known.len() - 1).expect("there are at most 2^32 policies")
        });
        self.shapes.insert(shape.clone(), number);
        self.known[number as usize] = Some(Shared { shape, policy, subjects: BTreeSet::new() });
        number
    }

    pub(super) fn remove(&mut self, number: PolicyId) -> Option<Shared> {
        let shared = self.known[number as usize].take()?;
        self.shapes.remove(&shared.shape);
        self.free.push(number);
        Some(shared)
    }

    /// All of them without a conflict.
    pub(super) fn resolved_mut(&mut self) -> impl Iterator<Item = (PolicyId, &mut Resolved)> {
        let shared = (0..).zip(&mut self.known).filter_map(|(number, shared)| Some((number, shared.as_mut()?)));
        shared.filter_map(|(number, shared)| Some((number, shared.policy.as_mut().ok()?)))
    }

    /// The numbers of all of them.
    pub(super) fn numbers(&self) -> Vec<PolicyId> {
        self.shapes.values().copied().collect()
    }
}
