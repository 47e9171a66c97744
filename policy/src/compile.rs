//! From the mesh at one revision to the tables of one node.
//!
//! ```text
//! Mesh ─┬─ policies ─ parse (cached by text) ─► Rules ─┐
//!       ├─ identities ─► Population ───────────────────┼─ subject: each (local identity, direction) ─► rules
//!       └─ endpoints, nodes, pod ranges ─ addresses ───┴──────────────────────────────► addresses, ranges, endpoints
//! ```

mod addresses;
mod population;
mod subject;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    compat::Compat,
    diagnostic::Diagnostic,
    flow::Direction,
    identity::Identity,
    mesh::Mesh,
    name::Name,
    object::{Object, not_enforceable, parse_record},
    record::{PolicyKey, RecordKey},
    rule::Rule,
    tables::{EndpointEntry, EndpointId, RuleEntry, RuleKey, Tables},
    world::Settings,
};
use population::Population;
use subject::SubjectCompiler;

/// Compiles meshes for one node, one revision after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    compat: Compat,
    /// Parsed objects of the last mesh, each with the text it was parsed from.
    objects: BTreeMap<PolicyKey, (String, Arc<Object>)>,
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
}

/// Tables for a whole revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compilation {
    /// What the node enforces.
    pub tables: Tables,
    /// What somebody should look at although the tables are whole.
    pub problems: Vec<Problem>,
}

/// A revision that cannot be compiled whole. The node keeps the revision it has: leaving a policy out could open what it
/// closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the revision cannot be compiled: {}", listed(.problems))]
pub struct Incomplete {
    /// Why; at least one.
    pub problems: Vec<Problem>,
}

/// Something in the mesh that does not fit this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text of a policy is not understood, probably because a newer version accepted it.
    #[error("{key} cannot be read by this version, so no newer revision is enforced here: {}", listed(.diagnostics))]
    UnreadablePolicy {
        /// The object.
        key: PolicyKey,
        /// Why.
        diagnostics: Vec<Diagnostic>,
    },
    /// A policy says what the tables of this version cannot express. Its text passed an older or a newer check.
    #[error("{key} cannot be enforced here, so no newer revision is: {}", listed(.diagnostics))]
    NotEnforceable {
        /// The object.
        key: PolicyKey,
        /// Its fields, each with its position in the object's text.
        diagnostics: Vec<Diagnostic>,
    },
    /// An attached endpoint has no record yet. It is refused everything until it has (S9).
    #[error("endpoint {endpoint} is attached here and has no record at this revision: all its traffic is refused")]
    UnknownEndpoint {
        /// Its name on this node.
        endpoint: Name,
    },
    /// Two records claim one address. It is `unknown` until one of them gives it up.
    #[error("address {address} belongs to {first} and to {second}: it is treated as unknown")]
    AddressConflict {
        /// The address.
        address: std::net::IpAddr,
        /// Who claims it.
        first: RecordKey,
        /// Who claims it, too.
        second: RecordKey,
    },
}

impl Compiler {
    /// A compiler that reads objects in a given way; `Compiler::default()` reads them in Ringfence's.
    #[must_use]
    pub fn new(compat: Compat) -> Self {
        Self { compat, objects: BTreeMap::new() }
    }

    /// Compiles a mesh for a node. Equal meshes and nodes give equal tables, whatever was compiled before.
    ///
    /// # Errors
    /// `Incomplete` if a policy of the mesh cannot be read; no tables then (S10: the old revision stays whole).
    pub fn compile(&mut self, mesh: &Mesh, local: &LocalNode) -> Result<Compilation, Incomplete> {
        self.parse(mesh)?;
        let settings = Settings::new(local.cluster.clone(), self.compat);
        let (mut tables, problems) = addresses::compile(mesh, local);
        let population = Population::of(mesh);
        let rules: Vec<&Rule> = self.objects.values().flat_map(|(_, object)| &object.rules).collect();
        let mut compiler = SubjectCompiler::new(&settings, &rules, &population);
        let subjects: BTreeSet<Identity> = tables.endpoints.values().map(|entry| entry.identity).collect();
        let mut defaults = BTreeMap::new();
        for subject in subjects {
            let Some(labels) = population.labels(subject) else { continue };
            let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| {
                let compiled = compiler.compile(subject, labels, direction);
                for ((peer, protocol, port), verdict) in compiled.entries {
                    let key = RuleKey { subject, direction, peer, protocol, port };
                    tables.rules.insert(key, RuleEntry { verdict });
                }
                compiled.default
            });
            defaults.insert(subject, EndpointEntry { identity: subject, ingress, egress });
        }
        for entry in tables.endpoints.values_mut() {
            // Without labels a subject cannot be judged: it stays refused.
            *entry = defaults.get(&entry.identity).copied().unwrap_or(*entry);
        }
        Ok(Compilation { tables, problems })
    }

    /// Brings the cache of parsed objects to the mesh's policies.
    fn parse(&mut self, mesh: &Mesh) -> Result<(), Incomplete> {
        let mut before = std::mem::take(&mut self.objects);
        let mut problems = Vec::new();
        for record in mesh.policies() {
            let parsed = match before.remove(&record.key) {
                Some((text, object)) if text == record.text => Ok(object),
                _ => parse_record(record).map(Arc::new),
            };
            let unenforceable = parsed.as_ref().map(|object| not_enforceable(object)).unwrap_or_default();
            if !unenforceable.is_empty() {
                problems.push(Problem::NotEnforceable { key: record.key.clone(), diagnostics: unenforceable });
            }
            match parsed {
                Ok(object) => {
                    self.objects.insert(record.key.clone(), (record.text.clone(), object));
                }
                Err(diagnostics) => problems.push(Problem::UnreadablePolicy { key: record.key.clone(), diagnostics }),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Incomplete { problems }) }
    }
}

fn listed<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
