//! What the state machine must remember beside the mesh: it is replicated, kept and counted into the digest like records,
//! but no follower hears of it and it makes no revisions.
//!
//! ```text
//! number of a label set:  in use ─ last endpoint gone ─► Idle ─ grace over ─► Quarantined (record deleted: a revision)
//!                            ▲                             │                        │ every live node has realised that
//!                            └─────── endpoint put ────────┘                        ▼
//!                         free ◄──────────── quarantine time over ──────────── Resting
//! ```

use std::{collections::BTreeMap, hash::Hash};

use ringfence_policy::{
    identity::{ClusterId, Identity},
    name::Name,
    revision::Revision,
    shared_map::SharedMap,
    store::StoreId,
};
use serde::{Deserialize, Serialize};

/// A cluster and a node of it.
pub type NodeKey = (Name, Name);

/// Everything the state machine remembers beside the mesh. A copy shares what there can be many of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    clock_ms: u64,
    counters: BTreeMap<ClusterId, Counter>,
    numbers: SharedMap<Identity, NumberState>,
    gateways: BTreeMap<Name, u64>,
    leases: SharedMap<NodeKey, Lease>,
    store: Option<StoreId>,
}

/// How far a cluster has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The cluster whose label the identities carry.
    pub owner: Name,
    /// The number given out last; the next one is looked for behind it.
    pub last: u32,
}

/// Where a number is that no endpoint refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NumberState {
    /// It stands for its label set.
    Idle {
        /// Since when at the earliest, on the store's clock.
        since_ms: u64,
    },
    /// Some node may still know it.
    Quarantined {
        /// The first revision without it.
        gone: Revision,
    },
    /// No node knows it.
    Resting {
        /// When it is free, on the store's clock.
        until_ms: u64,
    },
}

/// What is known of a node's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Counts the signs of life.
    pub renewals: u64,
    /// The revision it served packets with when it was heard of last; 0 if none is known.
    pub realised: Revision,
    /// It was silent for too long; its endpoints were removed.
    pub gone: bool,
}

/// Names a part of the ledger that changes on its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKey {
    /// The store's clock.
    Clock,
    /// A cluster's counter.
    Counter(ClusterId),
    /// A number that no endpoint refers to.
    Number(Identity),
    /// The signs of life of a cluster's gateways.
    Gateway(Name),
    /// A node's lease.
    Lease(NodeKey),
    /// Which store this is.
    Store,
}

/// A part of the ledger that changes on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// In milliseconds; counts only while the store has a leader.
    Clock(u64),
    /// Of a cluster.
    Counter(Counter),
    /// Of a number.
    Number(NumberState),
    /// How many.
    Gateway(u64),
    /// Of a node.
    Lease(Lease),
    /// Its id.
    Store(StoreId),
}

/// What a command does to the ledger: rows with their new content, or none where they are gone. Most do something to one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(Vec<(RowKey, Option<Row>)>);

impl Rows {
    /// Each row once, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&RowKey, Option<&Row>)> {
        self.0.iter().map(|(key, row)| (key, row.as_ref()))
    }

    pub(super) fn set(&mut self, key: RowKey, row: Option<Row>) {
        self.0.push((key, row));
    }

    /// Of a row that was set twice the last content counts.
    pub(super) fn settle(&mut self) {
        if self.0.len() > 1 {
            self.0.reverse();
            self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
            self.0.dedup_by(|(next, _), (kept, _)| next == kept);
        }
    }
}

impl Ledger {
    /// The store's clock: starts at 0, never goes back.
    #[must_use]
    pub const fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// How far each cluster has counted.
    #[must_use]
    pub const fn counters(&self) -> &BTreeMap<ClusterId, Counter> {
        &self.counters
    }

    /// Numbers that no endpoint refers to.
    #[must_use]
    pub const fn numbers(&self) -> &SharedMap<Identity, NumberState> {
        &self.numbers
    }

    /// How often gateways of a cluster told of their nodes.
    #[must_use]
    pub const fn gateways(&self) -> &BTreeMap<Name, u64> {
        &self.gateways
    }

    /// The lease of every registered node.
    #[must_use]
    pub const fn leases(&self) -> &SharedMap<NodeKey, Lease> {
        &self.leases
    }

    /// Which store this is; none before its founding.
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.store
    }

    /// Whether a node was silent for too long.
    #[must_use]
    pub fn is_gone(&self, node: &NodeKey) -> bool {
        self.leases.get(node).is_some_and(|lease| lease.gone)
    }

    /// One row.
    #[must_use]
    pub fn get(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Clock => (self.clock_ms > 0).then_some(Row::Clock(self.clock_ms)),
            RowKey::Counter(id) => self.counters.get(id).cloned().map(Row::Counter),
            RowKey::Number(identity) => self.numbers.get(identity).copied().map(Row::Number),
            RowKey::Gateway(cluster) => self.gateways.get(cluster).copied().map(Row::Gateway),
            RowKey::Lease(node) => self.leases.get(node).cloned().map(Row::Lease),
            RowKey::Store => self.store.map(Row::Store),
        }
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        let clock = self.get(&RowKey::Clock).map(|clock| (RowKey::Clock, clock));
        let counters = self.counters.iter().map(|(id, counter)| (RowKey::Counter(*id), Row::Counter(counter.clone())));
        let numbers = self.numbers.iter().map(|(number, state)| (RowKey::Number(*number), Row::Number(*state)));
        let gateways = self.gateways.iter().map(|(name, count)| (RowKey::Gateway(name.clone()), Row::Gateway(*count)));
        let leases = self.leases.iter().map(|(node, lease)| (RowKey::Lease(node.clone()), Row::Lease(lease.clone())));
        let store = self.get(&RowKey::Store).map(|store| (RowKey::Store, store));
        clock.into_iter().chain(store).chain(counters).chain(numbers).chain(gateways).chain(leases)
    }

    /// Replaces rows.
    pub fn apply(&mut self, rows: &Rows) {
        rows.iter().for_each(|(key, row)| self.set(key, row.cloned()));
    }

    /// Replaces a row. One whose key and content do not belong together is none.
    pub fn set(&mut self, key: &RowKey, row: Option<Row>) {
        match key {
            RowKey::Clock => self.clock_ms = if let Some(Row::Clock(clock_ms)) = row { clock_ms } else { 0 },
            RowKey::Counter(id) => {
                set(&mut self.counters, id, if let Some(Row::Counter(counter)) = row { Some(counter) } else { None });
            }
            RowKey::Number(number) => {
                share(&mut self.numbers, number, if let Some(Row::Number(state)) = row { Some(state) } else { None });
            }
            RowKey::Gateway(name) => {
                set(&mut self.gateways, name, if let Some(Row::Gateway(count)) = row { Some(count) } else { None });
            }
            RowKey::Store => self.store = if let Some(Row::Store(store)) = row { Some(store) } else { None },
            RowKey::Lease(node) => {
                share(&mut self.leases, node, if let Some(Row::Lease(lease)) = row { Some(lease) } else { None });
            }
        }
    }
}

fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}

fn share<K: Ord + Hash + Clone, V: Clone>(map: &mut SharedMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}
