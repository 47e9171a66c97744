//! Edits between tables.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AddressEntry, EndpointEntry, EndpointId, PortsKey, PortsOfProtocol, Row, RowKey, Tables};
use crate::{cidr::Cidr, identity::Identity};

/// One entry that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<K, V> {
    /// Which entry.
    pub key: K,
    /// Its value before; none if it is new.
    pub before: Option<V>,
    /// Its value after; none if it goes away.
    pub after: Option<V>,
}

/// All entries that change between two tables, in key order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Edits of `Tables::addresses`.
    pub addresses: Vec<Edit<IpAddr, AddressEntry>>,
    /// Edits of `Tables::ranges`.
    pub ranges: Vec<Edit<Cidr, Identity>>,
    /// Edits of `Tables::endpoints`.
    pub endpoints: Vec<Edit<EndpointId, EndpointEntry>>,
    /// Edits of `Tables::ports`.
    pub ports: Vec<Edit<PortsKey, PortsOfProtocol>>,
    /// Edits of `Tables::rows`.
    pub rows: Vec<Edit<RowKey, Row>>,
}

impl TableDiff {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len() + self.ranges.len() + self.endpoints.len() + self.ports.len() + self.rows.len()
    }

    /// The edits that undo this diff.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            addresses: invert(&self.addresses),
            ranges: invert(&self.ranges),
            endpoints: invert(&self.endpoints),
            ports: invert(&self.ports),
            rows: invert(&self.rows),
        }
    }

    /// The edits that do what this diff and then another one do; what both undo together is left out.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            addresses: join(self.addresses, next.addresses),
            ranges: join(self.ranges, next.ranges),
            endpoints: join(self.endpoints, next.endpoints),
            ports: join(self.ports, next.ports),
            rows: join(self.rows, next.rows),
        }
    }
}

pub(super) fn between(old: &Tables, new: &Tables) -> TableDiff {
    TableDiff {
        addresses: diff_maps(&old.addresses, &new.addresses),
        ranges: diff_maps(&old.ranges, &new.ranges),
        endpoints: diff_maps(&old.endpoints, &new.endpoints),
        ports: diff_maps(&old.ports, &new.ports),
        rows: diff_maps(&old.rows, &new.rows),
    }
}

pub(super) fn apply(tables: &mut Tables, diff: &TableDiff) {
    apply_edits(&mut tables.addresses, &diff.addresses);
    apply_edits(&mut tables.ranges, &diff.ranges);
    apply_edits(&mut tables.endpoints, &diff.endpoints);
    apply_edits(&mut tables.ports, &diff.ports);
    apply_edits(&mut tables.rows, &diff.rows);
}

fn diff_maps<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<Edit<K, V>> {
    let gone_or_changed = old.iter().filter(|(key, value)| new.get(key) != Some(value));
    let added = new.keys().filter(|key| !old.contains_key(key));
    let mut keys: Vec<&K> = gone_or_changed.map(|(key, _)| key).chain(added).collect();
    keys.sort();
    let edit = |key: &K| Edit { key: key.clone(), before: old.get(key).cloned(), after: new.get(key).cloned() };
    keys.into_iter().map(edit).collect()
}

fn apply_edits<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, edits: &[Edit<K, V>]) {
    for edit in edits {
        match &edit.after {
            Some(value) => map.insert(edit.key.clone(), value.clone()),
            None => map.remove(&edit.key),
        };
    }
}

fn invert<K: Clone, V: Clone>(edits: &[Edit<K, V>]) -> Vec<Edit<K, V>> {
    let swap =
        |edit: &Edit<K, V>| Edit { key: edit.key.clone(), before: edit.after.clone(), after: edit.before.clone() };
    edits.iter().map(swap).collect()
}

/// Two lists of edits in key order as one.
fn join<K: Ord, V: PartialEq>(first: Vec<Edit<K, V>>, next: Vec<Edit<K, V>>) -> Vec<Edit<K, V>> {
    if first.is_empty() {
        return next;
    }
    let mut all: Vec<Edit<K, V>> = Vec::with_capacity(first.len() + next.len());
    let mut next = next.into_iter().peekable();
    for mut edit in first {
        while let Some(earlier) = next.next_if(|other| other.key < edit.key) {
            all.push(earlier);
        }
        if let Some(same) = next.next_if(|other| other.key == edit.key) {
            edit.after = same.after;
        }
        if edit.before != edit.after {
            all.push(edit);
        }
    }
    all.extend(next);
    all
}
