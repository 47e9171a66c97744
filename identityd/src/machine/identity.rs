//! Numbers of label sets: given, referred to, released (§2.5).

use std::collections::BTreeMap;

use ringfence_policy::{
    command::{Housekeeping, Refusal},
    identity::Identity,
    label::{CLUSTER_KEY, Label, LabelSet, SOURCE_CIDR, SOURCE_K8S, SOURCE_RESERVED},
    name::Name,
    record::{Change, Cluster, IdentityRecord, Record, RecordKey},
    reserved::reserved_endpoint,
};

use super::{
    Transition, View,
    ledger::{NumberState, Row, RowKey},
};

/// Gives a label set its number without an endpoint; its grace begins again.
pub(super) fn allocate(view: View<'_>, name: &Name, labels: &LabelSet) -> Result<Transition, Refusal> {
    let owner = view.cluster(name)?;
    let mut transition = number(view, owner, &relevant(view, name, labels)?)?;
    if let Some(identity) = transition.identity.filter(|identity| view.index().references(*identity) == 0) {
        transition.set(RowKey::Number(identity), Some(Row::Number(idle(view))));
    }
    Ok(transition)
}

/// One label set, one number (S5): the one it has, or the cluster's next.
pub(super) fn number(view: View<'_>, owner: &Cluster, labels: &LabelSet) -> Result<Transition, Refusal> {
    if let Some(identity) = view.index().number(labels) {
        return Ok(Transition { identity: Some(identity), ..Transition::default() });
    }
    let (identity, counter) = view.index().free_run(view.ledger(), owner.id, &owner.name, 1)?;
    let record = Record::Identity(IdentityRecord { identity, labels: labels.clone() });
    let mut transition =
        Transition { changes: vec![Change::Put(record)], identity: Some(identity), ..Transition::default() };
    transition.set(RowKey::Counter(owner.id), Some(Row::Counter(counter)));
    Ok(transition)
}

/// What an endpoint's labels come to, and their number: a reserved one for a node's proxy and health check, whose label sets
/// need no record; else the one that the store gives.
pub(super) fn of_endpoint(
    view: View<'_>,
    owner: &Cluster,
    labels: &LabelSet,
) -> Result<(LabelSet, Transition), Refusal> {
    if let Some(identity) = reserved_endpoint(labels) {
        return Ok((labels.clone(), Transition { identity: Some(identity), ..Transition::default() }));
    }
    let labels = relevant(view, &owner.name, labels)?;
    let transition = number(view, owner, &labels)?;
    Ok((labels, transition))
}

/// The labels that make the identity, with the cluster's own, whatever the filter says of that one.
pub(super) fn relevant(view: View<'_>, cluster: &Name, labels: &LabelSet) -> Result<LabelSet, Refusal> {
    if let Some(label) = labels.iter().find(|label| [SOURCE_RESERVED, SOURCE_CIDR].contains(&label.source.as_str())) {
        return Err(Refusal::ReservedLabel { label: label.to_string() });
    }
    if let Some(label) = labels.get(CLUSTER_KEY).filter(|label| label.value != cluster.as_str()) {
        return Err(Refusal::ForeignClusterLabel { label: label.to_string(), cluster: cluster.clone() });
    }
    let own = Label::new(SOURCE_K8S, CLUSTER_KEY, cluster.as_str());
    let mut labels = view.index().filter.relevant(labels);
    if labels.get(CLUSTER_KEY) != Some(&own) {
        labels.insert(own);
    }
    Ok(labels)
}

/// Ends the grace of a number that nobody refers to.
pub(super) fn release(view: View<'_>, identity: Identity) -> Result<Transition, Refusal> {
    let key = RecordKey::Identity(identity);
    if view.mesh.get(&key).is_none() {
        return Err(Refusal::NotFound { key });
    }
    if view.index().references(identity) > 0 {
        let user = view.mesh.endpoints().find(|endpoint| endpoint.identity == identity);
        let user = user.expect("a reference is an endpoint").key();
        return Err(Refusal::InUse { key, user });
    }
    let mut transition = Transition::default();
    quarantine(view, identity, &mut transition);
    Ok(transition)
}

/// Removes the record of a number in the next revision.
pub(super) fn quarantine(view: View<'_>, identity: Identity, transition: &mut Transition) {
    let state = NumberState::Quarantined { gone: view.mesh.revision().next() };
    transition.changes.push(Change::Delete(RecordKey::Identity(identity)));
    transition.set(RowKey::Number(identity), Some(Row::Number(state)));
}

/// From now on. The clock was read at the beginning of its step at the latest, so the grace begins at the step's end.
pub(super) fn idle(view: View<'_>) -> NumberState {
    NumberState::Idle { since_ms: view.ledger().clock_ms().saturating_add(Housekeeping::MAX_STEP_MS) }
}

/// A number whose last reference goes becomes idle, one that gets its first is idle no more (S6).
pub(super) fn follow_references(view: View<'_>, transition: &mut Transition) {
    let mut moved: BTreeMap<Identity, i64> = BTreeMap::new();
    for change in &transition.changes {
        if let Some(Record::Endpoint(old)) = view.mesh.get(&change.key()) {
            *moved.entry(old.identity).or_default() -= 1;
        }
        if let Change::Put(Record::Endpoint(new)) = change {
            *moved.entry(new.identity).or_default() += 1;
        }
    }
    // A reserved number is always there, whoever refers to it.
    let given = moved.into_iter().filter(|(identity, _)| identity.reserved_name().is_none());
    for (identity, difference) in given {
        let before = i64::from(view.index().references(identity));
        let key = RowKey::Number(identity);
        match (before, before + difference) {
            (1.., 0) => transition.set(key, Some(Row::Number(idle(view)))),
            (0, 1..) if view.ledger().numbers().contains_key(&identity) => transition.set(key, None),
            _ => {}
        }
    }
}
