//! The states one key may be in, given what was answered so far.
//!
//! A `Configuration` is one way to explain the answers: the state of the key, and which of the calls under way have taken
//! effect in it. Only configurations that no other one beats are kept: with the same state and the same changes done, the
//! one that has used up fewer calls of unknown outcome and owes fewer answers can do everything the other can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::history::Action;

/// What one key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing.
    Absent,
    /// A value.
    Present(u64),
    /// A number of the store's choice that nobody was told yet.
    SomeNumber,
}

/// One explanation of the answers so far. The sets hold indices of calls that have begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) state: State,
    /// Calls that are answered later and have changed the state already.
    pub(super) changed: BTreeSet<usize>,
    /// Calls that are answered later and have seen already what they will tell.
    pub(super) looked: BTreeSet<usize>,
    /// Puts that are answered later and may have taken effect just before the last change, so that nobody saw it.
    pub(super) unseen: BTreeSet<usize>,
    /// Calls of unknown outcome that have taken effect.
    pub(super) used: Rc<BTreeSet<usize>>,
}

/// Explanations, none of them beaten by another.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    best: BTreeMap<(State, BTreeSet<usize>), Vec<Rest>>,
}

/// `looked`, `unseen` and `used` of a configuration.
type Rest = (BTreeSet<usize>, BTreeSet<usize>, Rc<BTreeSet<usize>>);

impl State {
    /// The state after the action, if the action can give its answer in this state.
    #[must_use]
    pub fn step(self, action: Action) -> Option<Self> {
        let is_as_told = |told: Option<bool>, is: bool| told.is_none_or(|told| told == is);
        match action {
            Action::Put { value, changed } => {
                is_as_told(changed, self != Self::Present(value)).then_some(Self::Present(value))
            }
            Action::Delete { existed } => is_as_told(existed, self != Self::Absent).then_some(Self::Absent),
            Action::Read { seen: None } => (self == Self::Absent).then_some(self),
            Action::Read { seen: Some(value) } | Action::Allocate { number: Some(value) }
                if self == Self::SomeNumber =>
            {
                Some(Self::Present(value))
            }
            Action::Read { seen: Some(value) } => (self == Self::Present(value)).then_some(self),
            Action::Allocate { number: Some(value) } => {
                [Self::Absent, Self::Present(value)].contains(&self).then_some(Self::Present(value))
            }
            Action::Allocate { number: None } => Some(if self == Self::Absent { Self::SomeNumber } else { self }),
        }
    }
}

/// Whether the action, given its answer, can only have left the state as it was: then it is counted as done as soon as it
/// fits, which takes nothing from any other call.
pub(super) fn only_looked(action: Action) -> bool {
    matches!(
        action,
        Action::Read { .. } | Action::Put { changed: Some(false), .. } | Action::Delete { existed: Some(false) }
    )
}

impl Configuration {
    /// Nothing has begun.
    pub(super) fn new(state: State) -> Self {
        let (changed, looked) = (BTreeSet::new(), BTreeSet::new());
        Self { state, changed, looked, unseen: BTreeSet::new(), used: Rc::default() }
    }

    /// The one with the highest is tried first: used up the fewest, owes the fewest answers.
    pub(super) fn promise(&self) -> (Reverse<usize>, usize) {
        (Reverse(self.used.len()), self.looked.len() + self.unseen.len() + self.changed.len())
    }
}

impl Frontier {
    /// Keeps a configuration unless another beats it; false if it was not kept.
    pub(super) fn keep(&mut self, new: Configuration) -> bool {
        let beats = |one: &Rest, other: &Rest| {
            one.0.is_superset(&other.0)
                && one.1.is_superset(&other.1)
                && (Rc::ptr_eq(&one.2, &other.2) || one.2.is_subset(&other.2))
        };
        let rivals = self.best.entry((new.state, new.changed)).or_default();
        let new = (new.looked, new.unseen, new.used);
        if rivals.iter().any(|rival| beats(rival, &new)) {
            return false;
        }
        rivals.retain(|rival| !beats(&new, rival));
        rivals.push(new);
        true
    }

    pub(super) fn into_configurations(self) -> Vec<Configuration> {
        let mut configurations = Vec::new();
        for ((state, changed), all) in self.best {
            for (looked, unseen, used) in all {
                configurations.push(Configuration { state, changed: changed.clone(), looked, unseen, used });
            }
        }
        configurations
    }
}

/// Calls of unknown outcome that have begun. They stay to the end, so there may be many.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// Those that ask for the same are as good as each other.
    by_action: BTreeMap<Action, BTreeSet<usize>>,
    /// Values that somebody is told of; a put of another one can explain nothing but that there was some value.
    seen: BTreeSet<u64>,
}

impl Unknown {
    pub(super) fn new(seen: BTreeSet<u64>) -> Self {
        Self { by_action: BTreeMap::new(), seen }
    }

    pub(super) fn add(&mut self, index: usize, action: Action) {
        self.by_action.entry(action).or_default().insert(index);
    }

    pub(super) fn remove(&mut self, index: usize, action: Action) {
        if let Some(indices) = self.by_action.get_mut(&action) {
            indices.remove(&index);
        }
    }

    /// Which of those that are not used yet could make an answer right that is wrong in the present state.
    ///
    /// One is enough: what is right after two of them is right after the second alone.
    pub(super) fn helpers(&self, answered: Action, used: &BTreeSet<usize>) -> Vec<(usize, Action)> {
        let unused = |action: Action| {
            let index = self.by_action.get(&action)?.iter().find(|index| !used.contains(index))?;
            Some((*index, action))
        };
        let put = |value| unused(Action::Put { value, changed: None });
        let others = [unused(Action::Delete { existed: None }), unused(Action::Allocate { number: None })];
        let mut helpers: Vec<_> = others.into_iter().flatten().collect();
        match answered {
            Action::Read { seen: Some(value) } | Action::Put { value, changed: Some(false) } => {
                helpers.extend(put(value));
            }
            Action::Read { seen: None } | Action::Delete { existed: Some(false) } => {}
            _ => {
                let puts = self.by_action.keys().filter_map(|action| match (action, answered) {
                    (Action::Put { value, .. }, Action::Put { value: same, .. }) if *value == same => None,
                    (Action::Put { value, .. }, _) => put(*value),
                    _ => None,
                });
                let is_seen = |(_, action): &(usize, Action)| matches!(action, Action::Put { value, .. } if self.seen.contains(value));
                let (seen, unseen): (Vec<_>, Vec<_>) = puts.partition(is_seen);
                // Those that nobody is told of are as good as each other, and nothing else needs them.
                if unseen.is_empty() { helpers.extend(seen) } else { helpers.extend(unseen.into_iter().take(1)) }
            }
        }
        helpers
    }
}
