//! What a transition must find quickly: derived from the mesh, kept up to date change by change.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ringfence_policy::{
    command::Refusal,
    identity::{ClusterId, Identity},
    label::{CLUSTER_KEY, LabelSet},
    mesh::Mesh,
    name::Name,
    record::{Change, Record, RecordKey},
};

/// Label set → number, address → owner, and how far each cluster has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    numbers: HashMap<LabelSet, Identity>,
    counters: BTreeMap<ClusterId, Counter>,
    addresses: HashMap<IpAddr, RecordKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Counter {
    /// The cluster whose label the identities carry.
    owner: Name,
    /// The largest number ever given out. Identities are never removed, so none is ever reused (S4).
    last: u32,
}

impl Index {
    /// The index of a mesh.
    #[must_use]
    pub fn of(mesh: &Mesh) -> Self {
        let mut index = Self::default();
        mesh.records().values().for_each(|versioned| index.insert(&versioned.record));
        index
    }

    /// Follows the changes of one revision; `before` is the mesh they are about to change.
    pub fn apply(&mut self, before: &Mesh, changes: &[Change]) {
        // All old addresses first: within one revision an address may move from one record to another.
        for change in changes {
            if let Some(old) = before.get(&change.key()) {
                for address in addresses(old) {
                    self.addresses.remove(address);
                }
            }
        }
        for change in changes {
            if let Change::Put(record) = change {
                self.insert(record);
            }
        }
    }

    /// The number of a label set (cluster label included), if it has one.
    #[must_use]
    pub fn number(&self, labels: &LabelSet) -> Option<Identity> {
        self.numbers.get(labels).copied()
    }

    /// The next number of a cluster.
    ///
    /// # Errors
    /// `IdentitiesExhausted` after the last.
    pub fn next_number(&self, id: ClusterId, cluster: &Name) -> Result<Identity, Refusal> {
        let last = self.counters.get(&id).map_or(0, |counter| counter.last);
        Identity::global(id, last + 1).map_err(|_| Refusal::IdentitiesExhausted { cluster: cluster.clone() })
    }

    /// The id under which a cluster has identities.
    #[must_use]
    pub fn id_with_identities(&self, cluster: &Name) -> Option<ClusterId> {
        self.counters.iter().find(|(_, counter)| counter.owner == *cluster).map(|(id, _)| *id)
    }

    /// The cluster that has identities under an id.
    #[must_use]
    pub fn owner_of_numbers(&self, id: ClusterId) -> Option<&Name> {
        self.counters.get(&id).map(|counter| &counter.owner)
    }

    /// Whether a record may have these addresses.
    ///
    /// # Errors
    /// `AddressInUse` for the first one that belongs to another record.
    pub fn check_addresses(&self, key: &RecordKey, addresses: &[IpAddr]) -> Result<(), Refusal> {
        for address in addresses {
            if let Some(owner) = self.addresses.get(address).filter(|owner| *owner != key) {
                return Err(Refusal::AddressInUse { address: *address, owner: owner.clone() });
            }
        }
        Ok(())
    }

    fn insert(&mut self, record: &Record) {
        let key = record.key();
        for address in addresses(record) {
            self.addresses.insert(*address, key.clone());
        }
        if let Record::Identity(record) = record {
            self.numbers.insert(record.labels.clone(), record.identity);
            let owner = record.labels.get(CLUSTER_KEY).and_then(|label| Name::new(label.value.clone()).ok());
            if let (Some(id), Some(owner)) = (record.identity.cluster(), owner) {
                let counter = self.counters.entry(id).or_insert(Counter { owner, last: 0 });
                counter.last = counter.last.max(record.identity.number());
            }
        }
    }
}

fn addresses(record: &Record) -> &[IpAddr] {
    match record {
        Record::Node(node) => &node.addresses,
        Record::Endpoint(endpoint) => &endpoint.addresses,
        Record::Cluster(_) | Record::Identity(_) | Record::Policy(_) => &[],
    }
}
