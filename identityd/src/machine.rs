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

use std::{collections::BTreeMap, sync::Arc};

use ringfence_policy::{
    cidr::Cidr,
    command::{Command, Housekeeping, IdentityUsage, Refusal},
    identity::Identity,
    mesh::Mesh,
    name::Name,
    record::{Change, Cluster, Endpoint, MeshSettings, Node, Record, RecordKey, Versioned},
    store::StoreId,
};

use index::Index;
use ledger::{Ledger, Row, RowKey, Rows};

/// What a command does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transition {
    /// The changes of one revision, at most one for each key; none if everything is so already.
    changes: Vec<Change>,
    /// What the records of `changes` were, in the same order: whoever needs it looks for no key again.
    former: Vec<Option<Arc<Versioned>>>,
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

    /// Follows a transition.
    pub fn apply(&mut self, transition: &Transition) {
        self.index.apply(transition, &self.ledger);
        self.ledger.apply(&transition.rows);
    }
}

impl Transition {
    /// The changes of one revision, each with what the record was.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = (&Change, Option<&Versioned>)> {
        self.changes.iter().zip(self.former.iter().map(Option::as_deref))
    }

    /// The changes of one revision, and the identity asked for.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Change>, Option<Identity>) {
        (self.changes, self.identity)
    }

    fn of(identity: Identity) -> Self {
        Self { identity: Some(identity), ..Self::default() }
    }

    /// A put that changes nothing makes no change.
    fn put(&mut self, view: View<'_>, record: Record) {
        let former = view.former(&record.key());
        self.replace(former, record);
    }

    /// As `put`, of a record that was looked for already.
    fn replace(&mut self, former: Option<&Arc<Versioned>>, record: Record) {
        if former.is_none_or(|former| former.record != record) {
            self.reserve();
            self.changes.push(Change::Put(record));
            self.former.push(former.cloned());
        }
    }

    fn delete(&mut self, view: View<'_>, key: RecordKey) {
        self.reserve();
        self.former.push(view.former(&key).cloned());
        self.changes.push(Change::Delete(key));
    }

    /// Most commands change one record, and the history keeps their changes as they are: no room for more.
    fn reserve(&mut self) {
        if self.changes.is_empty() {
            self.changes.reserve_exact(1);
        }
    }

    fn set(&mut self, key: RowKey, row: Option<Row>) {
        self.rows.set(key, row);
    }
}

impl<'v> View<'v> {
    fn ledger(self) -> &'v Ledger {
        &self.book.ledger
    }

    fn index(self) -> &'v Index {
        &self.book.index
    }

    fn former(self, key: &RecordKey) -> Option<&'v Arc<Versioned>> {
        self.mesh.records().get_shared(key)
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
    transition.rows.settle();
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
    let mut transition = Transition::default();
    transition.put(view, Record::Cluster(new.clone()));
    Ok(transition)
}

fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}

fn put_node(view: View<'_>, node: &Node) -> Result<Transition, Refusal> {
    view.cluster(&node.cluster)?;
    let record = Record::Node(node.clone());
    view.index().check_addresses(&record.key(), node.addresses.iter())?;
    let mut transition = Transition::default();
    transition.put(view, record);
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
    let mut transition = Transition::default();
    transition.delete(view, key.clone());
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
