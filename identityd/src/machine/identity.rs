//! Numbers of label sets: given, referred to, released (§2.5).

use std::collections::BTreeMap;

use ringfence_policy::{
    command::{Housekeeping, Refusal},
    identity::Identity,
    label::{CLUSTER_KEY, Label, LabelSet, SOURCE_CIDR, SOURCE_K8S, SOURCE_RESERVED},
    name::Name,
    record::{Cluster, Endpoint, IdentityRecord, Record, RecordKey},
    reserved::reserved_endpoint,
};

use super::{
    Transition, View,
    index::{put, worn},
    ledger::{NumberState, Row, RowKey},
};

/// Gives a label set its number without an endpoint; its grace begins again.
pub(super) fn allocate(view: View<'_>, name: &Name, labels: &LabelSet) -> Result<Transition, Refusal> {
    let owner = view.cluster(name)?;
    check(name, labels)?;
    let mut transition = number(view, owner, &relevant(view, name, labels))?;
    if let Some(identity) = transition.identity.filter(|identity| view.index().references(*identity) == 0) {
        transition.set(RowKey::Number(identity), Some(Row::Number(idle(view))));
    }
    Ok(transition)
}

/// One label set, one number (S5): the one it has, or the cluster's next.
pub(super) fn number(view: View<'_>, owner: &Cluster, labels: &LabelSet) -> Result<Transition, Refusal> {
    if let Some(identity) = view.index().number(labels) {
        return Ok(Transition::of(identity));
    }
    let (identity, counter) = view.index().free_run(view.ledger(), owner.id, &owner.name, 1)?;
    let mut transition = Transition::of(identity);
    transition.put(view, Record::Identity(IdentityRecord { identity, labels: labels.clone() }));
    transition.set(RowKey::Counter(owner.id), Some(Row::Counter(counter)));
    Ok(transition)
}

/// The number of an endpoint's labels, and those that make it: a reserved one for a node's proxy and health check, whose
/// label sets need no record; else the one that it has, or that the store gives.
pub(super) fn of_endpoint(
    view: View<'_>,
    owner: &Cluster,
    labels: &LabelSet,
    old: Option<&Endpoint>,
) -> Result<(Transition, LabelSet), Refusal> {
    if let Some(identity) = reserved_endpoint(labels) {
        return Ok((Transition::of(identity), labels.clone()));
    }
    check(&owner.name, labels)?;
    if let Some(old) = old.filter(|old| is_relevant(view, labels, &old.labels)) {
        // It refers to its number, so that stands for the same labels still.
        return Ok((Transition::of(old.identity), old.labels.clone()));
    }
    let labels = relevant(view, &owner.name, labels);
    Ok((number(view, owner, &labels)?, view.index().shared(labels)))
}

/// Whether endpoints of a cluster may have these labels.
///
/// # Errors
/// `ReservedLabel`, `ForeignClusterLabel`.
pub(super) fn check(cluster: &Name, labels: &LabelSet) -> Result<(), Refusal> {
    if let Some(label) = labels.iter().find(|label| [SOURCE_RESERVED, SOURCE_CIDR].contains(&label.source.as_str())) {
        return Err(Refusal::ReservedLabel { label: label.to_string() });
    }
    if let Some(label) = labels.get(CLUSTER_KEY).filter(|label| label.value != cluster.as_str()) {
        return Err(Refusal::ForeignClusterLabel { label: label.to_string(), cluster: cluster.clone() });
    }
    Ok(())
}

/// The labels that make the identity, with the cluster's own, whatever the filter says of that one.
pub(super) fn relevant(view: View<'_>, cluster: &Name, labels: &LabelSet) -> LabelSet {
    let own = Label::new(SOURCE_K8S, CLUSTER_KEY, cluster.as_str());
    let mut labels = view.index().filter.relevant(labels);
    if labels.get(CLUSTER_KEY) != Some(&own) {
        labels.insert(own);
    }
    labels
}

/// Whether `known`, which is of the same cluster, is what `relevant` makes of labels.
fn is_relevant(view: View<'_>, labels: &LabelSet, known: &LabelSet) -> bool {
    let is_other = |label: &&Label| label.key != CLUSTER_KEY;
    let relevant = labels.iter().filter(is_other).filter(|label| view.index().filter.is_relevant(label));
    relevant.eq(known.iter().filter(is_other))
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
    transition.delete(view, RecordKey::Identity(identity));
    transition.set(RowKey::Number(identity), Some(Row::Number(state)));
}

/// From now on. The clock was read at the beginning of its step at the latest, so the grace begins at the step's end.
pub(super) fn idle(view: View<'_>) -> NumberState {
    NumberState::Idle { since_ms: view.ledger().clock_ms().saturating_add(Housekeeping::MAX_STEP_MS) }
}

/// A number whose last reference goes becomes idle, one that gets its first is idle no more (S6).
pub(super) fn follow_references(view: View<'_>, transition: &mut Transition) {
    let mut moved: BTreeMap<Identity, i64> = BTreeMap::new();
    for (change, former) in transition.changes() {
        let old = former.and_then(|former| worn(&former.record));
        let new = put(change).and_then(worn);
        if old == new {
            continue;
        }
        old.into_iter().for_each(|old| *moved.entry(old).or_default() -= 1);
        new.into_iter().for_each(|new| *moved.entry(new).or_default() += 1);
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
