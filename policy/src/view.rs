//! What one node has to know of the mesh to judge its endpoints' packets as if it knew everything.
//!
//! ```text
//! Mesh ─ changed_since ─► Peers: endpoints by identity, address, named port, node ──┐
//!                     └─► Reach: identities, rules ─► selectors of peers ───────────┼─► View of a node: bitmaps
//!                                                                                   └─► changes of each view
//! ```
//!
//! A view is a part of the mesh: all clusters, nodes, policies, groups, services, DNS names and settings, and of identities
//! and endpoints
//!
//! - the node's own endpoints,
//! - the identities that a selector of a rule can match that is applied to one of these or to the node's host, and the
//!   endpoints behind them,
//! - the endpoints that would be taken for something else if they were left out (below), with their identities.
//!
//! Whoever is left out is `unknown` to the node: its address lies in a range of pods and in no other record, so it is never
//! world (S12), whatever ranges policies name. No selector of an applied rule selects it, so what the rules say of it is what
//! they say of anyone, and that is what they say of `unknown`: the verdict is the same. Hence an endpoint is in every view
//!
//! - if one of its addresses lies outside all ranges of pods: left out it would be world, or a range that a policy names;
//! - if another record claims one of its addresses, too: such an address is `unknown`, and must not become the other's;
//! - if its identity is a reserved one, as of a node's proxy or health check: it means the same everywhere, and they are few;
//! - if its identity has no labels: no revision with it can be enforced, here as everywhere;
//! - if it is the first one with a named port: what names mean to egress rules depends on all peers that have them.
//!
//! What a node alone knows counts, too, if it says so: addresses of its devices that its record does not name. An endpoint
//! elsewhere that claims one of these makes it `unknown` to a node that knows the mesh, and would leave it the host's if it
//! were left out. So a node that enforces policies of its host says which addresses its devices have (`Viewer`), and
//! whoever claims one of them is in its view. An address that comes to a device later asks for another view, unless it
//! lies outside the ranges of pods: whoever claims such a one is in every view. Until that view is there, the node takes
//! the address for `unknown` (`LocalHost::unsure`).
//!
//! A view is a function of the mesh and the viewer alone, so every server has the same at the same revision, and a change
//! of rules or of the node's endpoints brings what they need in the very revision that makes them count.

mod node;
mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use roaring::RoaringBitmap;

use crate::{
    compat::Compat,
    engine::{PolicyObject, Reach},
    identity::Identity,
    mesh::Mesh,
    name::Name,
    object::parse_record,
    record::{Change, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey, Versioned},
    revision::Revision,
    rule::Subject,
    world::Settings,
};
use node::View;
use peers::Peers;

/// The views of a cluster's nodes, kept up to date together.
#[derive(Debug)]
pub struct Views {
    cluster: Name,
    at: Revision,
    reach: Reach,
    peers: Peers,
    nodes: BTreeMap<Viewer, View>,
}

/// A node as far as its view depends on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Viewer {
    /// Its name in its cluster.
    pub node: Name,
    /// Addresses of its devices that its record need not name; empty where the host is not enforced.
    pub addresses: Arc<BTreeSet<IpAddr>>,
}

/// What changed from one revision of the mesh to another, as far as views depend on it.
#[derive(Debug, Default)]
struct Touched {
    /// Records that are in every view.
    everywhere: BTreeSet<RecordKey>,
    /// Identities whose record changed.
    identities: BTreeSet<Identity>,
    /// Slots of endpoints whose record changed.
    changed: RoaringBitmap,
    /// Slots of endpoints whose place may have changed, those included.
    endpoints: RoaringBitmap,
    /// Identities that endpoints had before or have now.
    worn: BTreeSet<Identity>,
    /// Nodes of the cluster whose record or endpoints changed.
    nodes: BTreeSet<Name>,
    /// Whom rules that changed are or were applied to.
    subjects: Vec<Subject>,
}

impl Views {
    /// Reads a mesh; no node has a view yet.
    #[must_use]
    pub fn new(mesh: &Mesh, cluster: Name) -> Self {
        let reach = Reach::new(Settings::new(cluster.clone(), Compat::default()));
        let peers = Peers::new(cluster.clone());
        let mut views = Self { cluster, at: mesh.revision(), reach, peers, nodes: BTreeMap::new() };
        views.touch(mesh.records().values().map(|versioned| (None, Some(&versioned.record))));
        views
    }

    /// Whose nodes have the views.
    #[must_use]
    pub const fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The revision of the views.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.at
    }

    /// A node has a view from now on.
    pub fn add(&mut self, viewer: &Viewer) {
        if !self.nodes.contains_key(viewer) {
            let view = View::new(viewer, &self.reach, &self.peers);
            self.nodes.insert(viewer.clone(), view);
        }
    }

    /// A node's view is not needed any more.
    pub fn remove(&mut self, viewer: &Viewer) {
        self.nodes.remove(viewer);
    }

    /// Moves all views to the mesh's revision: what each of them changes, in the order of the keys; nodes without changes
    /// are left out. None if it is not known any more what changed: make them anew.
    pub fn advance(&mut self, mesh: &Mesh) -> Option<BTreeMap<Viewer, Vec<Change>>> {
        let changed = mesh.changed_since(self.at)?;
        let touched = self.touch(changed.into_iter().map(|(key, former)| (former, mesh.get(key))));
        self.at = mesh.revision();
        let mut changes = BTreeMap::new();
        for (viewer, view) in &mut self.nodes {
            let own = view.advance(viewer, &touched, &self.reach, &self.peers);
            // Not every identity that is selected or worn has a record: what never was there cannot go.
            let is_or_was = |key: &&RecordKey| match key {
                RecordKey::Identity(identity) => mesh.get(key).is_some() || touched.identities.contains(identity),
                _ => true,
            };
            let all: BTreeSet<&RecordKey> = touched.everywhere.iter().chain(own.iter().filter(is_or_was)).collect();
            let is_shown = |key: &RecordKey| view.shows(key, &self.peers);
            let change = |key: &RecordKey| match mesh.get(key).filter(|_| is_shown(key)) {
                Some(record) => Change::Put(record.clone()),
                None => Change::Delete(key.clone()),
            };
            if !all.is_empty() {
                changes.insert(viewer.clone(), all.into_iter().map(change).collect());
            }
        }
        self.peers.forget_removed();
        Some(changes)
    }

    /// The records of a node's view, which must have been added, of the mesh at the views' revision.
    pub fn records<'m>(
        &self,
        viewer: &Viewer,
        mesh: &'m Mesh,
    ) -> impl Iterator<Item = (&'m RecordKey, &'m Versioned)> + use<'m> {
        let keys: Vec<RecordKey> = self.nodes.get(viewer).into_iter().flat_map(|view| view.keys(&self.peers)).collect();
        let policies = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: None, name: Name::first() };
        let before = mesh.records().range(..RecordKey::Identity(Identity::UNKNOWN));
        let behind = mesh.records().range(RecordKey::Policy(policies)..).filter(|(key, _)| is_everywhere(key));
        before.chain(keys.into_iter().filter_map(|key| mesh.records().get_key_value(&key))).chain(behind)
    }

    /// Records as they were and as they are, each with the same key.
    fn touch<'r>(&mut self, changes: impl IntoIterator<Item = (Option<&'r Record>, Option<&'r Record>)>) -> Touched {
        let mut touched = Touched::default();
        let mut identities = Vec::new();
        for (before, after) in changes {
            if before == after {
                continue;
            }
            let Some(record) = after.or(before) else { continue };
            match record {
                Record::Identity(record) => {
                    touched.identities.insert(record.identity);
                    identities.push((record.identity, after));
                }
                Record::Policy(record) => {
                    let object = if after.is_some() { rules_of(record) } else { None };
                    touched.subjects.extend(self.reach.change_object(&record.key, object.as_ref()));
                }
                Record::Endpoint(_) | Record::Node(_) | Record::Cluster(_) => {
                    self.peers.change(before, after, &mut touched);
                }
                _ => {}
            }
            let key = record.key();
            if is_everywhere(&key) {
                touched.everywhere.insert(key);
            }
        }
        for (identity, after) in identities {
            if !is_of_store(identity) {
                continue;
            }
            match after {
                Some(Record::Identity(record)) => self.reach.put_identity(identity, record.labels.clone()),
                _ => self.reach.remove_identity(identity),
            }
        }
        self.peers.settle(&self.reach, &mut touched);
        touched
    }
}

/// Of a text that cannot be read there are no rules: it keeps every node from enforcing a revision with it.
fn rules_of(record: &PolicyRecord) -> Option<PolicyObject> {
    let object = parse_record(record).ok()?;
    let key: PolicyKey = object.key;
    Some(PolicyObject { key, rules: object.rules })
}

const fn is_everywhere(key: &RecordKey) -> bool {
    !matches!(key, RecordKey::Identity(_) | RecordKey::Endpoint(..) | RecordKey::Block(..))
}

fn is_of_store(identity: Identity) -> bool {
    identity.reserved_name().is_none() && !identity.is_local()
}
