//! Address ranges: those of pods, which are never world (S12), and those that policies name, which get identities of this
//! node's own (ID-20).

use std::collections::BTreeMap;

use super::tracked::Tracked;
use crate::{address::AddressBook, cidr::Cidr, identity::Identity, label::LabelSet, tables::Edit};

/// The largest number of a range; local identities behind it are those of nodes.
const LAST: u32 = Identity::MAX_NUMBER >> 1;

/// Ranges by who names them. Traffic is classified by the longest prefix: a range that policies name inside the pods'
/// ranges stays `unknown` (S12), and one of every address of a family is the world.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// How many clusters name it.
    pods: BTreeMap<Cidr, usize>,
    /// How many objects name it.
    named: BTreeMap<Cidr, usize>,
    identities: BTreeMap<Cidr, Identity>,
    /// Which range an identity stands for.
    taken: BTreeMap<Identity, Cidr>,
    /// What ranges stood for in tables that were there before (ID-17).
    known: BTreeMap<Cidr, Identity>,
    last_number: u32,
    entries: Tracked<Cidr, Identity>,
    dual_stack: bool,
}

/// How identities change in the end: their labels, or none for those that are no more.
#[derive(Debug, Default)]
pub(super) struct IdentityChanges(pub(super) BTreeMap<Identity, Option<LabelSet>>);

impl IdentityChanges {
    pub(super) fn put(&mut self, identity: Identity, labels: LabelSet) {
        self.0.insert(identity, Some(labels));
    }

    pub(super) fn remove(&mut self, identity: Identity) {
        self.0.insert(identity, None);
    }
}

impl Ranges {
    /// `known` is what ranges stand for in the tables in force.
    pub(super) fn new(dual_stack: bool, known: &BTreeMap<Cidr, Identity>) -> Self {
        let local = known.iter().filter(|(_, identity)| identity.is_local());
        Self { known: local.map(|(range, identity)| (*range, *identity)).collect(), dual_stack, ..Self::default() }
    }

    pub(super) fn add_pods(&mut self, range: Cidr, changes: &mut IdentityChanges) {
        *self.pods.entry(range).or_default() += 1;
        self.settle_inside(range, changes);
    }

    pub(super) fn remove_pods(&mut self, range: Cidr, changes: &mut IdentityChanges) {
        forget(&mut self.pods, range);
        self.settle_inside(range, changes);
    }

    pub(super) fn add_named(&mut self, range: Cidr, changes: &mut IdentityChanges) {
        *self.named.entry(range).or_default() += 1;
        self.settle(range, changes);
    }

    pub(super) fn remove_named(&mut self, range: Cidr, changes: &mut IdentityChanges) {
        forget(&mut self.named, range);
        self.settle(range, changes);
    }

    pub(super) const fn entries(&self) -> &BTreeMap<Cidr, Identity> {
        self.entries.current()
    }

    pub(super) fn take_edits(&mut self) -> Vec<Edit<Cidr, Identity>> {
        self.entries.take_edits()
    }

    fn settle_inside(&mut self, pods: Cidr, changes: &mut IdentityChanges) {
        let inside: Vec<Cidr> = self.named.keys().filter(|range| pods.covers(range)).copied().collect();
        inside.into_iter().chain([pods]).for_each(|range| self.settle(range, changes));
    }

    /// Brings the identity and the entry of a range to what names it.
    fn settle(&mut self, range: Cidr, changes: &mut IdentityChanges) {
        let labels = self.own_labels(range);
        match (labels, self.identities.get(&range).copied()) {
            (Some(labels), None) => {
                let identity = self.allocate(range);
                self.identities.insert(range, identity);
                self.taken.insert(identity, range);
                changes.put(identity, labels);
            }
            (None, Some(identity)) => {
                self.identities.remove(&range);
                self.taken.remove(&identity);
                changes.remove(identity);
            }
            _ => {}
        }
        let pods = self.pods.contains_key(&range).then_some(Identity::UNKNOWN);
        self.entries.set(range, pods.or_else(|| self.identities.get(&range).copied()));
    }

    /// The labels of a range with an identity of its own; none if it needs none.
    fn own_labels(&self, range: Cidr) -> Option<LabelSet> {
        let in_pods = (0..=range.prefix_length())
            .filter_map(|length| Cidr::new(range.address(), length))
            .any(|around| self.pods.contains_key(&around));
        if in_pods || !self.named.contains_key(&range) {
            return None;
        }
        let mut book = AddressBook::new(self.dual_stack, false);
        book.add_range(range);
        let labels = book.labels_of(range);
        (AddressBook::identity(&labels) == AddressBook::LOCAL).then_some(labels)
    }

    /// What the range stood for before, or a number that nothing stands for, and that was not given for long.
    fn allocate(&mut self, range: Cidr) -> Identity {
        let before = self.known.remove(&range).filter(|identity| !self.taken.contains_key(identity));
        before.unwrap_or_else(|| {
            let in_force: Vec<Identity> = self.known.values().copied().collect();
            loop {
                self.last_number = self.last_number % LAST + 1;
                let identity =
                    Identity::local(self.last_number).expect("it is from 1 to the largest number of a range");
                if !self.taken.contains_key(&identity) && !in_force.contains(&identity) {
                    return identity;
                }
            }
        })
    }
}

fn forget(counts: &mut BTreeMap<Cidr, usize>, range: Cidr) {
    if let Some(count) = counts.get_mut(&range) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&range);
        }
    }
}
