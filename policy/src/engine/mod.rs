//! The incremental compiler: what every subject of a node may do with every peer, kept up to date change by change.
//!
//! ```text
//! identities ─► Population: a dense slot each ─► LabelIndex: key → source → value → bitmap of slots
//! rules ─► terms (class, protocol, ports, selector) ─► Selectors: each once, with the bitmap of the slots it selects
//!                                                      └─ Anchors: by one label that must be there
//! subject ─► its rules ─► Resolved (shared by subjects with equal rules): bands of ports, bitmaps of peers for each class
//! Resolved ─► lookup(flow): Outcome      Resolved ─► entries: what a datapath's map holds      change ─► EntriesDiff
//! ```
//!
//! A flow is denied if any rule that covers it denies, else redirected if one redirects, else allowed if one allows. So a
//! policy needs no precedence between its parts: for each protocol and interval of ports that rules write (a *band*) it
//! keeps, for each class, the union of the slots that the selectors of that class select. Nothing is spread out by
//! identity and port: resolving costs rules and bands, and bitmap unions where several selectors share a band.
//!
//! A new identity is looked up in the anchors by its own labels. Only selectors with one of these labels as their anchor
//! (or with none that must be there) are asked, so neither the number of identities nor selectors that cannot match it
//! count. Its slot is then set in the bands of the policies that use the selectors, and its entries are the difference.
//! Labels of one slot never change in place: other labels are a removal and an addition whose entries are compared.
//!
//! Rules that change make subjects be resolved again, from bitmaps that are there already; the difference of the entries
//! is taken band by band from the two policies, by bitmap. Selectors that no rule uses any more are dropped.
//!
//! Entries follow the map of MAP-1 … MAP-5: a band is split into aligned blocks (PORT-2), denied blocks absorb what they
//! cover, redirects absorb plain allows, and what an entry for any peer says already is not repeated for one peer. They
//! depend on the state alone, and the state on what is there, never on the order in which it came.
//!
//! Classes are what this module decides. What a proxy checks, and who must authenticate, is the evaluator's to say;
//! rules that name either are checked for conflicts by it, and a subject with a conflict gets no policy (CONF-1 … CONF-5).

mod anchors;
mod bands;
mod change;
mod effective;
mod entry;
mod intervals;
mod label_index;
mod policies;
mod population;
mod resolved;
mod rules;
mod selectors;
mod shape;
mod terms;

pub use entry::{Class, EntriesDiff, Entry, EntryKey, Outcome, PortForm, Ports};
pub use resolved::Resolved;

use std::collections::BTreeMap;

use crate::{
    evaluate::Conflict,
    flow::Flow,
    identity::Identity,
    record::PolicyKey,
    reserved::{RESERVED_PEERS, reserved_labels},
    world::{Settings, World},
};
use policies::{Policies, PolicyId};
use population::Population;
use rules::{RuleId, Rules};
use selectors::Selectors;

/// Everything that a node's policy depends on, and what follows from it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    world: World,
    population: Population,
    selectors: Selectors,
    rules: Rules,
    /// Which rules each object has.
    objects: BTreeMap<PolicyKey, Vec<RuleId>>,
    /// Who is on this node, each with a policy: none while its labels are not known, and it is refused everything.
    subjects: BTreeMap<Identity, Option<PolicyId>>,
    /// One for each set of rules that selects somebody.
    policies: Policies,
}

impl Engine {
    /// Nobody but the reserved identities, and no rules. `world` is the same for every subject.
    #[must_use]
    pub fn new(settings: Settings, world: World) -> Self {
        let mut engine = Self {
            population: Population::default(),
            selectors: Selectors::new(settings.dual_stack),
            rules: Rules::default(),
            objects: BTreeMap::new(),
            subjects: BTreeMap::new(),
            policies: Policies::default(),
            settings,
            world,
        };
        // The host is the first one, so that it has slot 0.
        engine.put_identities(RESERVED_PEERS.map(|peer| (peer, reserved_labels(peer))));
        engine
    }

    /// What is decided about a flow of a subject: what `evaluate` decides, without what a proxy or a handshake needs.
    /// A subject that has not been added, or whose labels are not known, is refused everything.
    ///
    /// # Errors
    /// `Conflict` if the subject's rules contradict each other.
    pub fn lookup(&self, flow: &Flow) -> Result<Outcome, Conflict> {
        match self.policy(flow.subject) {
            None => Ok(Outcome::DenyDefault),
            Some(policy) => Ok(policy?.lookup(flow.direction, self.slot_of(flow), flow.protocol, flow.port)),
        }
    }

    /// The policy of a subject; none if it has not been added or its labels are not known.
    ///
    /// # Errors
    /// `Conflict` if its rules contradict each other.
    #[must_use]
    pub fn policy(&self, subject: Identity) -> Option<Result<&Resolved, Conflict>> {
        let shared = self.policies.get((*self.subjects.get(&subject)?)?)?;
        Some(shared.policy.as_ref().map_err(|conflict| *conflict))
    }

    /// The entries of a subject's policy, in no order that means anything. None without a policy.
    pub fn entries(&self, subject: Identity, form: PortForm) -> Vec<Entry> {
        let mut entries = Vec::new();
        if let Some(Ok(policy)) = self.policy(subject) {
            policy.each_entry(form, |direction, ports, slot, class| {
                let peer = slot.map_or(Identity::UNKNOWN, |slot| self.population.identity(slot));
                entries.push(Entry { key: EntryKey::new(direction, peer, ports), class });
            });
        }
        entries
    }

    /// How many entries a subject's policy has.
    #[must_use]
    pub fn count_entries(&self, subject: Identity, form: PortForm) -> usize {
        self.policy(subject).and_then(Result::ok).map_or(0, |policy| policy.count_entries(form))
    }

    /// The entries of every subject, in order: equal states have equal dumps. A conflict stands in place of the entries.
    #[must_use]
    pub fn dump(&self) -> BTreeMap<Identity, Result<Vec<Entry>, Conflict>> {
        let entries = |subject: Identity| {
            let mut entries = self.entries(subject, PortForm::Blocks);
            entries.sort_unstable();
            entries
        };
        let one = |subject: Identity| match self.policy(subject) {
            Some(Err(conflict)) => Err(conflict),
            _ => Ok(entries(subject)),
        };
        self.subjects.keys().map(|subject| (*subject, one(*subject))).collect()
    }

    /// How many different selectors of peers the rules have.
    #[must_use]
    pub fn selector_count(&self) -> usize {
        self.selectors.len()
    }

    /// How many policies the subjects share.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.policies.len()
    }

    fn slot_of(&self, flow: &Flow) -> Option<u32> {
        self.population.slot(flow.peer)
    }
}
