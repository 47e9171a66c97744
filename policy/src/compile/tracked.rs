//! Entries of a table that remember what they were.

use std::collections::BTreeMap;

use crate::tables::Edit;

/// Entries, and what those that changed were when edits were last taken.
#[derive(Debug)]
pub(super) struct Tracked<K, V> {
    current: BTreeMap<K, V>,
    before: BTreeMap<K, Option<V>>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self { current: BTreeMap::new(), before: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V: PartialEq + Copy> Tracked<K, V> {
    pub(super) const fn current(&self) -> &BTreeMap<K, V> {
        &self.current
    }

    /// An entry has this value from now on; none for no entry.
    pub(super) fn set(&mut self, key: K, value: Option<V>) {
        let before = match value {
            Some(value) => self.current.insert(key, value),
            None => self.current.remove(&key),
        };
        if before != value {
            self.before.entry(key).or_insert(before);
        }
    }

    /// The edits since they were last taken, in order.
    pub(super) fn take_edits(&mut self) -> Vec<Edit<K, V>> {
        let changed = std::mem::take(&mut self.before).into_iter();
        let edits = changed.map(|(key, before)| Edit { after: self.current.get(&key).copied(), key, before });
        edits.filter(|edit| edit.before != edit.after).collect()
    }
}
