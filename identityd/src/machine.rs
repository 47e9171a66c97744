//! The state machine: what a command does to the mesh. Pure and deterministic: every member computes the same.
//!
//! ```text
//! Mesh, Book { Ledger (kept), Index (derived) }, Command ─ transition ─► changes of the next revision, rows of the ledger,
//!                                                                       the identity asked for; or a Refusal
//! ```
//!
//! Time enters only with `Housekeeping::Tick`. The ledger's clock counts while the store has a leader, so neither an
//! election nor a clock that jumps makes anything early.

mod block;
mod endpoint;
mod identity;
mod index;
mod lease;
pub mod ledger;
mod numbers;
mod objects;
mod tick;

use std::collections::BTreeMap;

use ringfence_policy::{
    cidr::Cidr,
    command::{Command, Housekeeping, IdentityUsage, Refusal},
    identity::Identity,
    mesh::Mesh,
    name::Name,
    record::{Change, Cluster, Endpoint, MeshSettings, Node, Record, RecordKey},
    store::StoreId,
};

use index::Index;
use ledger::{Ledger, Row, RowKey, Rows};

/// What a command does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transition {
    /// The changes of one revision; none if everything is so already.
    pub changes: Vec<Change>,
    /// The changes of the ledger.
    pub rows: Rows,
    /// The number of the label set, for commands that ask for one.
    pub identity: Option<Identity>,
}

/// What the state machine knows beside the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    ledger: Ledger,
    index: Index,
}

/// What transitions read.
#[derive(Clone, Copy)]
struct View<'v> {
    mesh: &'v Mesh,
    book: &'v Book,
}

impl Book {
    /// The book of a mesh with a ledger.
    #[must_use]
    pub fn of(mesh: &Mesh, ledger: Ledger) -> Self {
        Self { index: Index::of(mesh, &ledger), ledger }
    }

    /// What is kept.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The mesh's settings.
    #[must_use]
    pub const fn settings(&self) -> &MeshSettings {
        &self.index.settings
    }

    /// Whether something waits for time to pass.
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        !self.ledger.numbers().is_empty() || !self.index.expiring.is_empty()
    }

    /// What the numbers of each cluster are used for.
    #[must_use]
    pub fn usage(&self, mesh: &Mesh) -> BTreeMap<Name, IdentityUsage> {
        mesh.clusters().map(|cluster| (cluster.name.clone(), self.index.usage(cluster.id))).collect()
    }

    /// Follows a transition; `before` is the mesh that it is about to change.
    pub fn apply(&mut self, before: &Mesh, transition: &Transition) {
        self.index.apply(before, &self.ledger, &transition.changes, &transition.rows);
        self.ledger.apply(&transition.rows);
    }
}

impl Transition {
    fn of(changes: Vec<Change>) -> Self {
        Self { changes, ..Self::default() }
    }

    fn set(&mut self, key: RowKey, row: Option<Row>) {
        self.rows.insert(key, row);
    }
}

impl<'v> View<'v> {
    fn ledger(self) -> &'v Ledger {
        &self.book.ledger
    }

    fn index(self) -> &'v Index {
        &self.book.index
    }

    /// A put that changes nothing makes no revision.
    fn put(self, record: Record) -> Vec<Change> {
        if self.mesh.get(&record.key()) == Some(&record) { Vec::new() } else { vec![Change::Put(record)] }
    }

    fn cluster(self, name: &Name) -> Result<&'v Cluster, Refusal> {
        match self.mesh.get(&RecordKey::Cluster(name.clone())) {
            Some(Record::Cluster(cluster)) => Ok(cluster),
            _ => Err(Refusal::UnknownCluster { cluster: name.clone() }),
        }
    }
}

/// What `command` does to `mesh`, whose book is `book`.
///
/// # Errors
/// A `Refusal`; nothing may change then.
pub fn transition(mesh: &Mesh, book: &Book, command: &Command) -> Result<Transition, Refusal> {
    let view = View { mesh, book };
    let mut transition = match command {
        Command::PutCluster(cluster) => put_cluster(view, cluster),
        Command::PutNode(node) => put_node(view, node),
        Command::PutEndpoint(spec) => endpoint::put(view, spec),
        Command::AllocateIdentity { cluster, labels } => identity::allocate(view, cluster, labels),
        Command::ReleaseIdentity(identity) => identity::release(view, *identity),
        Command::PutPolicies(policies) => Ok(objects::put(view, policies, &[])),
        Command::PutObjects { policies, groups } => Ok(objects::put(view, policies, groups)),
        Command::DeletePolicies(keys) => objects::delete_policies(view, keys),
        Command::PutServices(services) => objects::put_services(view, services),
        Command::PutFqdns(specs) => objects::put_fqdns(view, specs),
        Command::PutSettings(settings) => objects::put_settings(view, settings),
        Command::Delete(key) => delete(view, key),
        Command::KeepAlive { cluster, nodes } => lease::keep_alive(view, cluster, nodes),
        Command::GrantBlock { cluster, holder, count } => block::grant(view, cluster, holder, *count),
        Command::ReturnBlock { cluster, holder } => block::give_back(view, cluster, holder),
        Command::AdoptFromBlock { cluster, holder, identity, labels } => {
            block::adopt(view, cluster, holder, *identity, labels)
        }
        Command::Housekeeping(Housekeeping::Tick { now_ms }) => Ok(tick::tick(view, *now_ms)),
        Command::Housekeeping(Housekeeping::ExpireNode { cluster, node, renewals }) => {
            Ok(lease::expire(view, &(cluster.clone(), node.clone()), *renewals))
        }
        Command::Housekeeping(Housekeeping::Found(store)) => Ok(found(view, *store)),
    }?;
    identity::follow_references(view, &mut transition);
    Ok(transition)
}

/// The first id stays: every leader that knows of none proposes one.
fn found(view: View<'_>, store: StoreId) -> Transition {
    let mut transition = Transition::default();
    if view.ledger().store().is_none() {
        transition.set(RowKey::Store, Some(Row::Store(store)));
    }
    transition
}

fn put_cluster(view: View<'_>, new: &Cluster) -> Result<Transition, Refusal> {
    let (index, ledger) = (view.index(), view.ledger());
    if let Some(id) = index.id_with_numbers(ledger, &new.name).filter(|id| *id != new.id) {
        return Err(Refusal::ClusterIdChanged { cluster: new.name.clone(), id });
    }
    // An id whose numbers are not all free stays with their cluster even after that was removed.
    if let Some(owner) = index.owner_of_numbers(ledger, new.id).filter(|owner| **owner != new.name) {
        return Err(Refusal::ClusterIdInUse { id: new.id, owner: owner.clone() });
    }
    for other in view.mesh.clusters().filter(|other| other.name != new.name) {
        if other.id == new.id {
            return Err(Refusal::ClusterIdInUse { id: new.id, owner: other.name.clone() });
        }
        if let Some(range) = new.pod_cidrs.iter().find(|new| other.pod_cidrs.iter().any(|old| overlap(new, old))) {
            return Err(Refusal::PodCidrOverlap { range: *range, owner: other.name.clone() });
        }
    }
    Ok(Transition::of(view.put(Record::Cluster(new.clone()))))
}

fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}

fn put_node(view: View<'_>, node: &Node) -> Result<Transition, Refusal> {
    view.cluster(&node.cluster)?;
    let record = Record::Node(node.clone());
    view.index().check_addresses(&record.key(), &node.addresses)?;
    let mut transition = Transition::of(view.put(record));
    lease::renew(view, &(node.cluster.clone(), node.name.clone()), None, &mut transition);
    Ok(transition)
}

fn delete(view: View<'_>, key: &RecordKey) -> Result<Transition, Refusal> {
    if matches!(key, RecordKey::Identity(_) | RecordKey::Policy(_) | RecordKey::Block(..) | RecordKey::Settings) {
        return Err(Refusal::NotDeletable { key: key.clone() });
    }
    if view.mesh.get(key).is_none() {
        return Err(Refusal::NotFound { key: key.clone() });
    }
    let user = match key {
        RecordKey::Cluster(name) => view.mesh.records().keys().find(|key| owner(key) == Some(name)).cloned(),
        RecordKey::Node(cluster, name) => view.mesh.endpoints_of(cluster, name).next().map(Endpoint::key),
        _ => None,
    };
    if let Some(user) = user {
        return Err(Refusal::InUse { key: key.clone(), user });
    }
    let mut transition = Transition::of(vec![Change::Delete(key.clone())]);
    match key {
        RecordKey::Cluster(name) => transition.set(RowKey::Gateway(name.clone()), None),
        RecordKey::Node(cluster, name) => transition.set(RowKey::Lease((cluster.clone(), name.clone())), None),
        _ => {}
    }
    Ok(transition)
}

/// The cluster that a record belongs to, apart from identities, which outlive it.
fn owner(key: &RecordKey) -> Option<&Name> {
    match key {
        RecordKey::Node(cluster, _)
        | RecordKey::Endpoint(cluster, ..)
        | RecordKey::Service(cluster, ..)
        | RecordKey::Fqdn(cluster, _)
        | RecordKey::Block(cluster, _) => Some(cluster),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
