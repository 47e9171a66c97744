//! The state machine: what a command does to the mesh. Pure and deterministic: every member computes the same.
//!
//! ```text
//! Mesh, Index, Command ─ transition ─► changes of the next revision + the identity asked for, or a Refusal
//! ```

mod endpoint;
mod index;

use std::collections::{BTreeMap, BTreeSet};

pub use index::Index;

use ringfence_policy::{
    cidr::Cidr,
    command::{Command, Refusal},
    identity::Identity,
    mesh::Mesh,
    name::Name,
    record::{Change, Cluster, Node, PolicyKey, PolicyRecord, Record, RecordKey},
};

/// What a command does: the changes of one revision (none if everything is so already), and the number of the label
/// set for commands that ask for one.
pub type Transition = (Vec<Change>, Option<Identity>);

/// What `command` does to `mesh`. `index` must be `Index::of` the same mesh.
///
/// # Errors
/// A `Refusal`; nothing may change then.
pub fn transition(mesh: &Mesh, index: &Index, command: &Command) -> Result<Transition, Refusal> {
    match command {
        Command::PutCluster(cluster) => without_identity(put_cluster(mesh, index, cluster)),
        Command::PutNode(node) => without_identity(put_node(mesh, index, node)),
        Command::PutEndpoint(spec) => endpoint::put(mesh, index, spec),
        Command::AllocateIdentity { cluster, labels } => endpoint::allocate(mesh, index, cluster, labels),
        Command::PutPolicies(policies) => Ok((put_policies(mesh, policies), None)),
        Command::DeletePolicies(keys) => without_identity(delete_policies(mesh, keys)),
        Command::Delete(key) => without_identity(delete(mesh, key)),
    }
}

fn without_identity(changes: Result<Vec<Change>, Refusal>) -> Result<Transition, Refusal> {
    changes.map(|changes| (changes, None))
}

/// A put that changes nothing makes no revision.
fn put(mesh: &Mesh, record: Record) -> Vec<Change> {
    if mesh.get(&record.key()) == Some(&record) { Vec::new() } else { vec![Change::Put(record)] }
}

fn cluster<'a>(mesh: &'a Mesh, name: &Name) -> Result<&'a Cluster, Refusal> {
    match mesh.get(&RecordKey::Cluster(name.clone())) {
        Some(Record::Cluster(cluster)) => Ok(cluster),
        _ => Err(Refusal::UnknownCluster { cluster: name.clone() }),
    }
}

fn put_cluster(mesh: &Mesh, index: &Index, new: &Cluster) -> Result<Vec<Change>, Refusal> {
    if let Some(id) = index.id_with_identities(&new.name).filter(|id| *id != new.id) {
        return Err(Refusal::ClusterIdChanged { cluster: new.name.clone(), id });
    }
    // An id whose numbers are in use stays with their cluster even after that was removed.
    if let Some(owner) = index.owner_of_numbers(new.id).filter(|owner| **owner != new.name) {
        return Err(Refusal::ClusterIdInUse { id: new.id, owner: owner.clone() });
    }
    for other in mesh.clusters().filter(|other| other.name != new.name) {
        if other.id == new.id {
            return Err(Refusal::ClusterIdInUse { id: new.id, owner: other.name.clone() });
        }
        if let Some(range) = new.pod_cidrs.iter().find(|new| other.pod_cidrs.iter().any(|old| overlap(new, old))) {
            return Err(Refusal::PodCidrOverlap { range: *range, owner: other.name.clone() });
        }
    }
    Ok(put(mesh, Record::Cluster(new.clone())))
}

fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}

fn put_node(mesh: &Mesh, index: &Index, node: &Node) -> Result<Vec<Change>, Refusal> {
    cluster(mesh, &node.cluster)?;
    let record = Record::Node(node.clone());
    index.check_addresses(&record.key(), &node.addresses)?;
    Ok(put(mesh, record))
}

/// The last text given for a key counts: one revision changes a record at most once.
fn put_policies(mesh: &Mesh, policies: &[PolicyRecord]) -> Vec<Change> {
    let last: BTreeMap<&PolicyKey, &PolicyRecord> = policies.iter().map(|policy| (&policy.key, policy)).collect();
    last.into_values().flat_map(|policy| put(mesh, Record::Policy(policy.clone()))).collect()
}

fn delete_policies(mesh: &Mesh, keys: &[PolicyKey]) -> Result<Vec<Change>, Refusal> {
    let keys: BTreeSet<RecordKey> = keys.iter().cloned().map(RecordKey::Policy).collect();
    match keys.iter().find(|key| mesh.get(key).is_none()) {
        Some(missing) => Err(Refusal::NotFound { key: missing.clone() }),
        None => Ok(keys.into_iter().map(Change::Delete).collect()),
    }
}

fn delete(mesh: &Mesh, key: &RecordKey) -> Result<Vec<Change>, Refusal> {
    if matches!(key, RecordKey::Identity(_) | RecordKey::Policy(_)) {
        return Err(Refusal::NotDeletable { key: key.clone() });
    }
    if mesh.get(key).is_none() {
        return Err(Refusal::NotFound { key: key.clone() });
    }
    let user = match key {
        RecordKey::Cluster(name) => {
            mesh.nodes().find(|node| node.cluster == *name).map(|node| Record::Node(node.clone()).key())
        }
        RecordKey::Node(cluster, name) => mesh
            .endpoints()
            .find(|endpoint| endpoint.cluster == *cluster && endpoint.node == *name)
            .map(ringfence_policy::record::Endpoint::key),
        _ => None,
    };
    match user {
        Some(user) => Err(Refusal::InUse { key: key.clone(), user }),
        None => Ok(vec![Change::Delete(key.clone())]),
    }
}

#[cfg(test)]
mod tests;
