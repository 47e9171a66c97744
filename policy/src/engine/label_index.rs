//! Which slots have which labels.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use crate::{
    cidr::Cidr,
    label::{Label, LabelSet, SOURCE_ANY, SOURCE_CIDR},
    selector::{Condition, LabelKey, Requirement},
};

/// Slots by key, source and value.
#[derive(Debug, Default)]
pub(super) struct LabelIndex {
    keys: HashMap<String, BTreeMap<String, Source>>,
    /// Labels of source `cidr`, which are selected by what covers them (LBL-13).
    ranges: BTreeMap<Cidr, RoaringBitmap>,
    /// Whoever has a label.
    labelled: RoaringBitmap,
}

/// The labels of one key and source.
#[derive(Debug, Default)]
struct Source {
    exists: RoaringBitmap,
    values: HashMap<String, RoaringBitmap>,
}

impl LabelIndex {
    pub(super) fn add(&mut self, slot: u32, labels: &LabelSet) {
        if !labels.is_empty() {
            self.labelled.insert(slot);
        }
        for label in labels.iter() {
            if let Some(range) = range_of(label) {
                self.ranges.entry(range).or_default().insert(slot);
            }
            let source = entry(entry(&mut self.keys, &label.key), &label.source);
            source.exists.insert(slot);
            match source.values.get_mut(label.value.as_str()) {
                Some(slots) => drop(slots.insert(slot)),
                None => drop(source.values.insert(label.value.to_string(), RoaringBitmap::from_iter([slot]))),
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32, labels: &LabelSet) {
        self.labelled.remove(slot);
        for label in labels.iter() {
            if let Some(range) = range_of(label)
                && let Some(slots) = self.ranges.get_mut(&range)
            {
                slots.remove(slot);
                if slots.is_empty() {
                    self.ranges.remove(&range);
                }
            }
            let Some(sources) = self.keys.get_mut(label.key.as_str()) else { continue };
            let Some(source) = sources.get_mut(label.source.as_str()) else { continue };
            source.exists.remove(slot);
            if let Some(slots) = source.values.get_mut(label.value.as_str()) {
                slots.remove(slot);
                if slots.is_empty() {
                    source.values.remove(label.value.as_str());
                }
            }
            if source.exists.is_empty() {
                sources.remove(label.source.as_str());
            }
            if sources.is_empty() {
                self.keys.remove(label.key.as_str());
            }
        }
    }

    pub(super) const fn labelled(&self) -> &RoaringBitmap {
        &self.labelled
    }

    /// The slots with a label that a requirement speaks of: those that meet it, or, for a negative one, those that do
    /// not. For values of ranges it may be too many (a set with several ranges): see [`is_exact`].
    pub(super) fn having(&self, requirement: &Requirement) -> RoaringBitmap {
        let values = values_of(&requirement.condition);
        if requirement.key.source == SOURCE_CIDR {
            return self.inside(&requirement.key).fold(RoaringBitmap::new(), |all, slots| all | slots);
        }
        let mut having = RoaringBitmap::new();
        for source in self.sources(&requirement.key) {
            match &values {
                None => having |= &source.exists,
                Some(values) => {
                    values.iter().filter_map(|value| source.values.get(*value)).for_each(|slots| having |= slots);
                }
            }
        }
        having
    }

    /// How many slots `having` has, at most.
    pub(super) fn count(&self, requirement: &Requirement) -> u64 {
        if requirement.key.source == SOURCE_CIDR {
            return self.inside(&requirement.key).map(RoaringBitmap::len).sum();
        }
        let values = values_of(&requirement.condition);
        let count = |source: &Source| match &values {
            Some(values) => values.iter().filter_map(|value| source.values.get(*value)).map(RoaringBitmap::len).sum(),
            None => source.exists.len(),
        };
        self.sources(&requirement.key).map(count).sum()
    }

    fn sources<'i>(&'i self, key: &'i LabelKey) -> impl Iterator<Item = &'i Source> {
        let sources = self.keys.get(&key.key).into_iter().flatten();
        sources.filter(|(source, _)| key.source == SOURCE_ANY || **source == key.source).map(|(_, slots)| slots)
    }

    fn inside(&self, key: &LabelKey) -> impl Iterator<Item = &RoaringBitmap> {
        let own = Cidr::from_label_key(&key.key);
        let from =
            own.into_iter().flat_map(|own| self.ranges.range(own..).map(move |(range, slots)| (own, range, slots)));
        from.take_while(|(own, range, _)| own.contains(range.address()))
            .filter(|(own, range, _)| own.covers(range))
            .map(|(_, _, slots)| slots)
    }
}

/// Whether the slots of a requirement are known without asking their label sets.
pub(super) fn is_exact(requirement: &Requirement) -> bool {
    requirement.key.source != SOURCE_CIDR || values_of(&requirement.condition).is_none()
}

/// The values that a condition names; none if it asks for the label alone.
pub(super) fn values_of(condition: &Condition) -> Option<Vec<&String>> {
    match condition {
        Condition::Is(value) => Some(vec![value]),
        Condition::In(values) | Condition::NotIn(values) => Some(values.iter().collect()),
        Condition::Exists | Condition::DoesNotExist => None,
    }
}

/// Whether whoever meets a condition has the label.
pub(super) fn is_positive(condition: &Condition) -> bool {
    matches!(condition, Condition::Is(_) | Condition::In(_) | Condition::Exists)
}

/// The range that a label stands for.
pub(super) fn range_of(label: &Label) -> Option<Cidr> {
    if label.source == SOURCE_CIDR { Cidr::from_label_key(&label.key) } else { None }
}

/// What a map has for a key: most keys are there already, and those need no text of their own.
fn entry<'m, V: Default>(map: &'m mut impl Map<V>, key: &str) -> &'m mut V {
    if !map.has(key) {
        map.put(key.to_owned());
    }
    map.at(key).expect("it has just been put there")
}

/// What both kinds of maps can do.
trait Map<V> {
    fn has(&self, key: &str) -> bool;
    fn put(&mut self, key: String);
    fn at(&mut self, key: &str) -> Option<&mut V>;
}

impl<V: Default> Map<V> for HashMap<String, V> {
    fn has(&self, key: &str) -> bool {
        self.contains_key(key)
    }
    fn put(&mut self, key: String) {
        self.insert(key, V::default());
    }
    fn at(&mut self, key: &str) -> Option<&mut V> {
        self.get_mut(key)
    }
}

impl<V: Default> Map<V> for BTreeMap<String, V> {
    fn has(&self, key: &str) -> bool {
        self.contains_key(key)
    }
    fn put(&mut self, key: String) {
        self.insert(key, V::default());
    }
    fn at(&mut self, key: &str) -> Option<&mut V> {
        self.get_mut(key)
    }
}
