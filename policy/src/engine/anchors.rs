//! Selectors by one label that must be there: whoever does not have it is not selected, and need not be asked.

use std::collections::{BTreeMap, HashMap};

use super::label_index::{LabelIndex, is_positive, range_of, values_of};
use crate::{
    cidr::Cidr,
    label::{LabelSet, SOURCE_CIDR},
    selector::{Condition, Requirement, Selector},
};

/// Numbers of selectors, by anchor. Sources are left out: who has the label with another source is asked in vain.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    keys: HashMap<String, Key>,
    ranges: BTreeMap<Cidr, Vec<u32>>,
    /// Selectors without a label that must be there.
    loose: Vec<u32>,
}

/// The selectors that are anchored at one key.
#[derive(Debug, Default)]
struct Key {
    exists: Vec<u32>,
    values: HashMap<String, Vec<u32>>,
}

/// Where a selector is anchored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchor(Option<Requirement>);

impl Anchors {
    /// The rarest of a selector's positive requirements.
    pub(super) fn choose(selector: &Selector, index: &LabelIndex) -> Anchor {
        let positive = |requirement: &&Requirement| is_positive(&requirement.condition);
        let rank =
            |requirement: &&Requirement| (index.count(requirement), matches!(requirement.condition, Condition::Exists));
        Anchor(selector.requirements().filter(positive).min_by_key(rank).cloned())
    }

    pub(super) fn add(&mut self, number: u32, anchor: &Anchor) {
        self.each(anchor, |list| list.push(number));
    }

    pub(super) fn remove(&mut self, number: u32, anchor: &Anchor) {
        self.each(anchor, |list| list.retain(|known| *known != number));
        let Some(Requirement { key, condition }) = &anchor.0 else { return };
        if let Some(lists) = self.keys.get_mut(&key.key) {
            for value in values_of(condition).into_iter().flatten() {
                if lists.values.get(value).is_some_and(Vec::is_empty) {
                    lists.values.remove(value);
                }
            }
            if lists.exists.is_empty() && lists.values.is_empty() {
                self.keys.remove(&key.key);
            }
        }
        if let Some(range) = Cidr::from_label_key(&key.key)
            && self.ranges.get(&range).is_some_and(Vec::is_empty)
        {
            self.ranges.remove(&range);
        }
    }

    /// Calls a function with every list that an anchor belongs to.
    fn each(&mut self, anchor: &Anchor, mut change: impl FnMut(&mut Vec<u32>)) {
        let Some(requirement) = &anchor.0 else { return change(&mut self.loose) };
        let key = &requirement.key;
        if key.source == SOURCE_CIDR {
            // A key that is no range selects nobody.
            if let Some(range) = Cidr::from_label_key(&key.key) {
                change(self.ranges.entry(range).or_default());
            }
            return;
        }
        if !self.keys.contains_key(&key.key) {
            self.keys.insert(key.key.clone(), Key::default());
        }
        let Some(lists) = self.keys.get_mut(&key.key) else { return };
        match values_of(&requirement.condition) {
            Some(values) => {
                values.into_iter().for_each(|value| change(lists.values.entry(value.clone()).or_default()));
            }
            None => change(&mut lists.exists),
        }
    }

    /// The selectors that may select a label set; the others do not. May name one twice.
    pub(super) fn candidates(&self, labels: &LabelSet, candidates: &mut Vec<u32>) {
        candidates.extend(&self.loose);
        for label in labels.iter() {
            if let Some(key) = self.keys.get(label.key.as_str()) {
                candidates.extend(&key.exists);
                candidates.extend(key.values.get(label.value.as_str()).into_iter().flatten());
            }
            if let Some(range) = range_of(label) {
                let covering = (0..=range.prefix_length()).filter_map(|length| Cidr::new(range.address(), length));
                covering.filter_map(|range| self.ranges.get(&range)).for_each(|list| candidates.extend(list));
            }
        }
    }
}
