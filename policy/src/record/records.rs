//! Every record of a mesh, by key.

use std::{ops::RangeBounds, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RecordKey, Versioned};
use crate::shared_map::SharedMap;

/// Records in key order. A copy shares them: it takes a moment, whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(SharedMap<RecordKey, Arc<Versioned>>);

impl Records {
    /// One record.
    #[must_use]
    pub fn get(&self, key: &RecordKey) -> Option<&Versioned> {
        self.0.get(key).map(|versioned| &**versioned)
    }

    /// One record, to hold on to it.
    #[must_use]
    pub fn get_shared(&self, key: &RecordKey) -> Option<&Arc<Versioned>> {
        self.0.get(key)
    }

    /// One record, with the key that is kept.
    #[must_use]
    pub fn get_key_value(&self, key: &RecordKey) -> Option<(&RecordKey, &Versioned)> {
        self.0.get_key_value(key).map(|(key, versioned)| (key, &**versioned))
    }

    /// Whether there is one.
    #[must_use]
    pub fn contains_key(&self, key: &RecordKey) -> bool {
        self.0.contains_key(key)
    }

    /// Adds or replaces a record; gives the one from before.
    pub fn insert(&mut self, key: RecordKey, versioned: impl Into<Arc<Versioned>>) -> Option<Arc<Versioned>> {
        self.0.insert(key, versioned.into())
    }

    /// Removes a record; gives it.
    pub fn remove(&mut self, key: &RecordKey) -> Option<Arc<Versioned>> {
        self.0.remove(key)
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = (&RecordKey, &Versioned)> {
        self.0.iter().map(|(key, versioned)| (key, &**versioned))
    }

    /// The records of a range of keys, in order.
    pub fn range<R: RangeBounds<RecordKey>>(
        &self,
        range: R,
    ) -> impl Iterator<Item = (&RecordKey, &Versioned)> + use<'_, R> {
        self.0.range(range).map(|(key, versioned)| (key, &**versioned))
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &RecordKey> {
        self.0.keys()
    }

    /// All records without their keys.
    pub fn values(&self) -> impl Iterator<Item = &Versioned> {
        self.0.values().map(|versioned| &**versioned)
    }

    /// All records without their keys; those that nobody else has are not copied.
    pub fn into_values(self) -> impl Iterator<Item = Versioned> {
        self.0.into_iter().map(|(_, versioned)| Arc::unwrap_or_clone(versioned))
    }
}

impl FromIterator<(RecordKey, Versioned)> for Records {
    fn from_iter<T: IntoIterator<Item = (RecordKey, Versioned)>>(records: T) -> Self {
        Self(records.into_iter().map(|(key, versioned)| (key, Arc::new(versioned))).collect())
    }
}

impl<const N: usize> From<[(RecordKey, Versioned); N]> for Records {
    fn from(records: [(RecordKey, Versioned); N]) -> Self {
        records.into_iter().collect()
    }
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SharedMap::deserialize(deserializer).map(Self)
    }
}
