//! What numbers of the datapath mean to people.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ringfence_policy::{
    cidr::Cidr,
    identity::Identity,
    label::{Label, LabelSet, SOURCE_CIDR},
    mesh::Mesh,
    name::Name,
    record::{Record, RecordKey},
    reserved::reserved_labels,
    tables::EndpointId,
};

/// Names of this node's endpoints, and the ranges behind identities that only this node has. Shared with the datapath's
/// owner, who knows.
#[derive(Debug, Default)]
pub struct People(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Shared, so that readers need not hold the lock.
    endpoints: Arc<BTreeMap<EndpointId, Name>>,
    ranges: BTreeMap<Identity, Cidr>,
    identities: BTreeMap<Cidr, Identity>,
}

impl People {
    /// These are attached, and no others.
    pub(crate) fn know(&self, attached: &BTreeMap<Name, EndpointId>) {
        self.lock().endpoints = Arc::new(attached.iter().map(|(name, id)| (*id, name.clone())).collect());
    }

    /// What ranges stand for; none for those that are no more.
    pub(crate) fn know_ranges(&self, ranges: impl IntoIterator<Item = (Cidr, Option<Identity>)>) {
        let mut known = self.lock();
        for (range, identity) in ranges {
            if let Some(before) = known.identities.remove(&range) {
                known.ranges.remove(&before);
            }
            if let Some(identity) = identity.filter(|identity| identity.is_local()) {
                known.identities.insert(range, identity);
                known.ranges.insert(identity, range);
            }
        }
    }

    /// This node's endpoints.
    pub(crate) fn endpoints(&self) -> Arc<BTreeMap<EndpointId, Name>> {
        Arc::clone(&self.lock().endpoints)
    }

    /// The range that a local identity stands for.
    pub(crate) fn range(&self, identity: Identity) -> Option<Cidr> {
        self.lock().ranges.get(&identity).copied()
    }

    /// The labels of an identity; empty if they are not known.
    pub(crate) fn labels(&self, mesh: &Mesh, identity: Identity) -> LabelSet {
        if identity.reserved_name().is_some() {
            return reserved_labels(identity);
        }
        if identity.is_local() {
            let range = self.range(identity);
            return range.map(|range| Label::new(SOURCE_CIDR, range.to_string(), "")).into_iter().collect();
        }
        match mesh.get(&RecordKey::Identity(identity)) {
            Some(Record::Identity(record)) => record.labels.clone(),
            _ => LabelSet::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint's name; its number where the name is not known.
pub(crate) fn endpoint_name(endpoints: &BTreeMap<EndpointId, Name>, id: EndpointId) -> String {
    endpoints.get(&id).map_or_else(|| id.to_string(), ToString::to_string)
}
