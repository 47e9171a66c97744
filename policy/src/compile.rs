//! From changes of the mesh to edits of one node's tables.
//!
//! ```text
//! Mesh ─ changed_since ─► State ─┬─ clusters ─► Ranges: pods' ranges; ranges that policies name, an identity each
//!                                ├─ nodes ─► Nodes: an identity for each label set, once a policy asks ─┐
//!                                ├─ endpoints ─► Addresses: who has which ◄─────────────────────────────┘
//!                                ├─ identities ─────────────────────────────┐
//!                                ├─ policies ─ parse ─► rules ──────────────┼─► Engine ─► ports, rows
//!                                └─ endpoints of this node, attached ─► subjects ┘    └─► policies of endpoints
//! edits since the tables in force ─► TableDiff
//! ```
//!
//! The cost is that of the change. Only where nothing is known of what changed (at the start, after a snapshot) is
//! everything compiled anew and compared with the tables in force, once; numbers of policies and ranges that are in force
//! are then kept for what says the same.
//!
//! A revision that cannot be compiled whole gives no edits. They wait, like those that the datapath could not take: the
//! next diff leads from the tables in force all the same.

mod addresses;
mod nodes;
mod objects;
mod problem;
mod ranges;
mod state;
mod tracked;

pub use problem::{Incomplete, Problem};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    compat::Compat,
    mesh::Mesh,
    name::Name,
    revision::Revision,
    tables::{EndpointId, TableDiff, Tables},
    world::{Enforcement, Settings},
};
use state::State;

/// Compiles meshes for one node, one revision after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    compat: Compat,
    /// None before the first mesh.
    following: Option<Following>,
}

/// The node that tables are made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Its cluster: what entity `cluster` means here.
    pub cluster: Name,
    /// Its name within the cluster.
    pub node: Name,
    /// The endpoints that are attached on it, by name, with the interface indices of their host-side devices.
    pub endpoints: BTreeMap<Name, EndpointId>,
    /// Those of them whose refusals are reported and let through (AUD-2).
    pub audited: BTreeSet<Name>,
    /// When its endpoints and itself are enforced.
    pub enforcement: Enforcement,
    /// The node itself as a subject; none if it has no uplinks, so that nothing could be enforced (HOST-3).
    pub host: Option<LocalHost>,
}

/// The node itself, which is `EndpointId::HOST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalHost {
    /// Addresses that its devices have, beside those of its record.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that an endpoint may have as well, of which the mesh that is compiled does not tell: they are
    /// `unknown`, as if one had them.
    pub unsure: BTreeSet<IpAddr>,
    /// As `Settings::failsafe`.
    pub failsafe: BTreeSet<(u8, u16)>,
    /// Its refusals are reported and let through (HOST-7).
    pub audit: bool,
}

impl LocalNode {
    /// A node without endpoints that is no subject itself.
    #[must_use]
    pub const fn new(cluster: Name, node: Name) -> Self {
        let endpoints = BTreeMap::new();
        Self { cluster, node, endpoints, audited: BTreeSet::new(), enforcement: Enforcement::Default, host: None }
    }

    /// What its policies depend on besides the mesh.
    fn settings(&self, compat: Compat) -> Settings {
        let failsafe = self.host.iter().flat_map(|host| host.failsafe.iter().copied()).collect();
        let (enforcement, host_firewall) = (self.enforcement, self.host.is_some());
        Settings { enforcement, host_firewall, failsafe, ..Settings::new(self.cluster.clone(), compat) }
    }
}

/// What leads to a whole revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compilation {
    /// From the tables in force to what the node should enforce.
    pub diff: TableDiff,
    /// What somebody should look at although the tables are whole.
    pub problems: Vec<Problem>,
}

/// A mesh that is followed.
#[derive(Debug)]
struct Following {
    at: Revision,
    settings: Settings,
    node: Name,
    state: State,
    /// From the tables in force; none before they were compared with what was compiled.
    pending: Option<TableDiff>,
}

impl Compiler {
    /// A compiler that reads objects in a given way; `Compiler::default()` reads them in Ringfence's.
    #[must_use]
    pub const fn new(compat: Compat) -> Self {
        Self { compat, following: None }
    }

    /// Compiles a mesh for a node. Equal meshes and nodes come to equal tables (`Tables::resolved`), whatever was
    /// compiled before. `in_force` are the tables that packets are judged by: those that the diffs led to after which
    /// `realised` was called, or any others the first time.
    ///
    /// # Errors
    /// `Incomplete` if not all of the mesh can be enforced; no edits then (S10: the old revision stays whole).
    pub fn compile(&mut self, mesh: &Mesh, local: &LocalNode, in_force: &Tables) -> Result<Compilation, Incomplete> {
        let settings = local.settings(self.compat);
        let following = self.following.take().filter(|following| following.is_of(local, &settings));
        let following = following.and_then(|following| following.moved(mesh));
        let mut following = following.unwrap_or_else(|| Following::start(mesh, local, settings, in_force));
        following.state.attach(local);
        let following = self.following.insert(following);
        let problems = following.state.blocking();
        if !problems.is_empty() {
            return Err(Incomplete { problems });
        }
        let diff = following.diff(in_force);
        Ok(Compilation { diff, problems: following.state.problems(local) })
    }

    /// The last diff is in force. Without this call the next one has its edits, too.
    pub fn realised(&mut self) {
        if let Some(pending) = self.following.as_mut().and_then(|following| following.pending.as_mut()) {
            *pending = TableDiff::default();
        }
    }
}

impl Following {
    fn start(mesh: &Mesh, local: &LocalNode, settings: Settings, in_force: &Tables) -> Self {
        let mut state = State::new(settings.clone(), local, in_force);
        state.change(mesh.records().values().map(|versioned| (None, Some(&versioned.record))));
        Self { at: mesh.revision(), settings, node: local.node.clone(), state, pending: None }
    }

    fn is_of(&self, local: &LocalNode, settings: &Settings) -> bool {
        (&self.settings, &self.node) == (settings, &local.node)
    }

    /// At the mesh's revision; none if it is not known what changed.
    fn moved(mut self, mesh: &Mesh) -> Option<Self> {
        let changed = mesh.changed_since(self.at)?;
        self.state.change(changed.into_iter().map(|(key, former)| (former, mesh.get(key))));
        self.at = mesh.revision();
        Some(self)
    }

    fn diff(&mut self, in_force: &Tables) -> TableDiff {
        let pending = match self.pending.take() {
            Some(pending) => pending.then(self.state.take_edits()),
            None => self.state.adopt(in_force),
        };
        self.pending.insert(pending).clone()
    }
}
