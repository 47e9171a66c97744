//! The incremental compiler of policies: what every subject of a node may do with every peer, as the ports and rows of
//! `Tables`, kept up to date change by change.
//!
//! ```text
//! identities ─► Population: a dense slot each ─► LabelIndex: key → source → value → bitmap of slots
//! rules ─► terms (class, protocol, ports, selector) ─► Selectors: each once, with the bitmap of the slots it selects
//!                                                      └─ Anchors: by one label that must be there
//! subject ─► Shape: its rules, its names of ports ─► Resolved (a PolicyId, shared by subjects of one shape): Bands
//! Bands: ports cut into bands; for each selector, masks over bands ─► a peer's row: the masks of its selectors joined
//! change ─► edits of ports and rows ─ take_edits ─► TableDiff
//! ```
//!
//! A flow is denied if any rule that covers it denies, else redirected if one redirects, else allowed if one allows. So a
//! policy needs no precedence between its parts, and what it says of a peer is the union of what it says of the selectors
//! that select the peer. Nothing is spread out by identity and port: resolving costs rules and bands, and a row costs the
//! selectors of its peer.
//!
//! A new identity is looked up in the anchors by its own labels. Only selectors with one of these labels as their anchor
//! (or with none that must be there) are asked, so neither the number of identities nor selectors that cannot match it
//! count. Its rows follow from the selectors, in each policy. Nothing else has to know it.
//!
//! Rules that change move the subjects they select to a policy of another number, made from bitmaps that are there
//! already; the rows of a policy that nobody has any more go. So a policy's bands never change under its number.
//! Selectors that no rule uses any more are dropped.
//!
//! Classes are what this module decides. What a proxy checks, and who must authenticate, is the evaluator's to say;
//! rules that name either are checked for conflicts by it, and a subject with a conflict gets no policy (CONF-1 … CONF-5).
//!
//! Rules of objects under audit do not count. Where some select a subject it also has a *shadow*: the policy it would have
//! if they did.

mod anchors;
mod bands;
mod change;
mod edits;
mod label_index;
mod masks;
mod policies;
mod population;
mod reach;
mod resolved;
mod rules;
mod selectors;
mod shape;
mod terms;

pub use bands::TooManyBands;
pub use reach::{Peers as PeerSelectors, Reach};
pub use resolved::Unresolvable;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    identity::Identity,
    label::LabelSet,
    record::{NamedPort, PolicyKey},
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::Rule,
    tables::{PolicyId, TableDiff, Tables},
    world::{Settings, World},
};
use edits::Edits;
use policies::Policies;
use population::Population;
use resolved::Resolved;
use rules::{RuleId, Rules};
use selectors::Selectors;

/// Everything that a node's policies depend on, and what follows from it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// Without anybody's own ports.
    world: World,
    population: Population,
    selectors: Selectors,
    rules: Rules,
    objects: BTreeMap<PolicyKey, Vec<RuleId>>,
    /// Who is on this node, each with policies: none while its labels are not known.
    subjects: BTreeMap<Subject, Option<Policed>>,
    /// One for each shape that somebody has.
    policies: Policies,
    edits: Edits,
}

/// Somebody on this node whom rules are applied to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its labels decide which rules.
    pub identity: Identity,
    /// What ingress rules mean by names of ports.
    pub named_ports: BTreeSet<NamedPort>,
}

/// A policy object, as far as nodes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyObject {
    /// Which object.
    pub key: PolicyKey,
    /// What it says. Those under audit count for shadows only.
    pub rules: Vec<Rule>,
}

/// The policies of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policed {
    /// What it is judged by.
    pub policy: PolicyId,
    /// What it would be judged by if objects under audit counted; none if none selects it, or if there was no policy then.
    pub shadow: Option<PolicyId>,
}

impl Engine {
    /// Nobody but the reserved identities, no rules, no services, no names of ports.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut engine = Self {
            population: Population::default(),
            selectors: Selectors::new(settings.dual_stack),
            rules: Rules::default(),
            objects: BTreeMap::new(),
            subjects: BTreeMap::new(),
            policies: Policies::default(),
            edits: Edits::default(),
            world: World::default(),
            settings,
        };
        // The host is the first one, so that it has slot 0.
        engine.put_identities(RESERVED_PEERS.map(|peer| (peer, reserved_labels(peer))));
        engine
    }

    /// The policies of a subject; none if it has not been added or its labels are not known. Nothing may pass then.
    #[must_use]
    pub fn policed(&self, subject: &Subject) -> Option<Policed> {
        let known = (*self.subjects.get(subject)?)?;
        let sound = |policy: &PolicyId| self.policies.get(*policy).is_some_and(|shared| shared.policy.is_ok());
        Some(Policed { shadow: known.shadow.filter(sound), ..known })
    }

    /// Why a subject's policy refuses everything, and should not come into force; none if it is sound, or there is none.
    #[must_use]
    pub fn unresolvable(&self, subject: &Subject) -> Option<Unresolvable> {
        self.policies.get(self.policed(subject)?.policy)?.policy.as_ref().err().copied()
    }

    /// The labels of an identity.
    #[must_use]
    pub fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.population.labels(identity)
    }

    /// The edits of ports and rows since they were last taken, in order: once they are in the tables, these are
    /// `tables`.
    pub fn take_edits(&mut self) -> TableDiff {
        self.policies.forget_removed();
        self.edits.take()
    }

    /// The ports and rows of all policies; addresses, ranges and endpoints are for others to fill in.
    #[must_use]
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for (policy, resolved) in self.policies.resolved() {
            tables.ports.extend(resolved.ports(policy).map(|(key, ports)| (key, ports.clone())));
        }
        let rows = |(policy, resolved)| Resolved::rows(resolved, policy, &self.selectors, &self.population);
        tables.rows = self.policies.resolved().flat_map(rows).collect();
        tables
    }

    /// Gives every policy another number: the one that is `chosen` for it, else one that is not `taken`. Before any edits
    /// were taken: they go, and `tables` is what is to be enforced.
    pub fn renumber(&mut self, chosen: &BTreeMap<PolicyId, PolicyId>, taken: &BTreeSet<PolicyId>) {
        let renamed = self.policies.renumber(chosen, taken);
        for policed in self.subjects.values_mut().flatten() {
            policed.policy = renamed[&policed.policy];
            policed.shadow = policed.shadow.map(|shadow| renamed[&shadow]);
        }
        self.edits = Edits::default();
    }

    /// How many different selectors of peers the rules have.
    #[must_use]
    pub fn selector_count(&self) -> usize {
        self.selectors.len()
    }

    /// How many policies the subjects share, shadows included.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// Resolves the policy of an identity without names of ports from what is known, as a change of its rules does, and
    /// drops it again: for measuring. How many intervals of ports it speaks of; none without labels, or for a conflict.
    pub fn measure_resolving(&mut self, identity: Identity) -> Option<usize> {
        let subject = Subject::from(identity);
        let shape = self.shapes(&subject)?.policy;
        let policy = self.resolve(&subject, &shape);
        let intervals = policy.as_ref().ok().map(Resolved::interval_count);
        self.release(policy);
        intervals
    }
}

impl From<Identity> for Subject {
    /// Somebody who has no names for ports.
    fn from(identity: Identity) -> Self {
        Self { identity, named_ports: BTreeSet::new() }
    }
}
