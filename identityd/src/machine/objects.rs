//! Records that only say what they say: policies, groups, services, DNS names, settings.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_policy::{
    command::{FqdnSpec, Housekeeping, Refusal},
    record::{
        BoundAddress, CidrGroupRecord, FqdnRecord, MAX_FQDN_ADDRESSES, MeshSettings, PolicyKey, PolicyRecord, Record,
        RecordKey, ServiceRecord,
    },
};

use super::{Transition, View};

pub(super) fn put(view: View<'_>, policies: &[PolicyRecord], groups: &[CidrGroupRecord]) -> Transition {
    let policies = policies.iter().cloned().map(Record::Policy);
    put_all(view, policies.chain(groups.iter().cloned().map(Record::CidrGroup)))
}

pub(super) fn delete_policies(view: View<'_>, keys: &[PolicyKey]) -> Result<Transition, Refusal> {
    let keys: BTreeSet<RecordKey> = keys.iter().cloned().map(RecordKey::Policy).collect();
    match keys.iter().find(|key| view.mesh.get(key).is_none()) {
        Some(missing) => Err(Refusal::NotFound { key: missing.clone() }),
        None => {
            let mut transition = Transition::default();
            keys.into_iter().for_each(|key| transition.delete(view, key));
            Ok(transition)
        }
    }
}

pub(super) fn put_services(view: View<'_>, services: &[ServiceRecord]) -> Result<Transition, Refusal> {
    for service in services {
        view.cluster(&service.cluster)?;
    }
    Ok(put_all(view, services.iter().cloned().map(Arc::new).map(Record::Service)))
}

pub(super) fn put_settings(view: View<'_>, settings: &MeshSettings) -> Result<Transition, Refusal> {
    settings.check()?;
    Ok(put_each(view, [Record::Settings(settings.clone())]))
}

pub(super) fn put_fqdns(view: View<'_>, specs: &[FqdnSpec]) -> Result<Transition, Refusal> {
    let mut records: BTreeMap<RecordKey, FqdnRecord> = BTreeMap::new();
    for FqdnSpec { cluster, name, addresses } in specs {
        view.cluster(cluster)?;
        if addresses.is_empty() {
            return Err(Refusal::NoFqdnAddress { name: name.clone() });
        }
        let key = RecordKey::Fqdn(cluster.clone(), name.clone());
        let known = match (records.remove(&key), view.mesh.get(&key)) {
            (Some(record), _) => record.addresses,
            (None, Some(Record::Fqdn(record))) => record.addresses.clone(),
            _ => Vec::new(),
        };
        // Never early: the clock may stand at the beginning of its step.
        let now_ms = view.ledger().clock_ms().saturating_add(Housekeeping::MAX_STEP_MS);
        let new = addresses.iter().map(|(address, valid_ms)| BoundAddress {
            address: *address,
            expires_ms: now_ms
                .saturating_add(*valid_ms)
                .div_ceil(BoundAddress::GRID_MS)
                .saturating_mul(BoundAddress::GRID_MS),
        });
        let addresses = merged(known.into_iter().chain(new));
        records.insert(key, FqdnRecord { cluster: cluster.clone(), name: name.clone(), addresses });
    }
    Ok(put_each(view, records.into_values().map(Record::Fqdn)))
}

/// Each address once, with its latest expiry; of too many those that expire last stay.
fn merged(bound: impl Iterator<Item = BoundAddress>) -> Vec<BoundAddress> {
    let mut latest = BTreeMap::new();
    for BoundAddress { address, expires_ms } in bound {
        let known = latest.entry(address).or_insert(expires_ms);
        *known = expires_ms.max(*known);
    }
    let mut addresses: Vec<_> =
        latest.into_iter().map(|(address, expires_ms)| BoundAddress { address, expires_ms }).collect();
    addresses.sort_by_key(|bound| (Reverse(bound.expires_ms), bound.address));
    addresses.truncate(MAX_FQDN_ADDRESSES);
    addresses.sort();
    addresses
}

/// The last record given for a key counts: one revision changes a record at most once.
fn put_all(view: View<'_>, records: impl Iterator<Item = Record>) -> Transition {
    let last: BTreeMap<RecordKey, Record> = records.map(|record| (record.key(), record)).collect();
    put_each(view, last.into_values())
}

fn put_each(view: View<'_>, records: impl IntoIterator<Item = Record>) -> Transition {
    let mut transition = Transition::default();
    records.into_iter().for_each(|record| transition.put(view, record));
    transition
}
