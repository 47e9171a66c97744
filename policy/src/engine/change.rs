//! Changes, and how entries follow them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine, EntriesDiff, Entry, EntryKey,
    entry::Class,
    policies::PolicyId,
    resolved::{Resolved, SlotDiff, SlotEntry},
    rules::RuleId,
    shape::Shape,
    terms::Context,
};
use crate::{
    evaluate::Conflict,
    identity::Identity,
    label::LabelSet,
    record::PolicyKey,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::Rule,
    world::World,
};

/// The entries of one identity in each policy that has some, by the policy's number.
type EntriesOf = BTreeMap<PolicyId, BTreeMap<SlotEntry, Class>>;

impl Engine {
    /// Adds identities, or gives them other labels. Of an identity that is given twice the last one counts. Apply the
    /// differences in order.
    pub fn put_identities(&mut self, identities: impl IntoIterator<Item = (Identity, LabelSet)>) -> Vec<EntriesDiff> {
        let mut changes = Changes::default();
        let mut seen = BTreeSet::new();
        let mut identities: Vec<(Identity, LabelSet)> = identities.into_iter().collect();
        identities.reverse();
        identities.retain(|(identity, _)| seen.insert(*identity));
        identities.reverse();
        for (identity, labels) in identities {
            self.put_identity(identity, labels, &mut changes);
        }
        self.finish(changes)
    }

    /// Forgets identities. Reserved ones stay, with their built-in labels.
    pub fn remove_identities(&mut self, identities: impl IntoIterator<Item = Identity>) -> Vec<EntriesDiff> {
        let mut changes = Changes::default();
        for identity in identities {
            if RESERVED_PEERS.contains(&identity) {
                self.put_identity(identity, reserved_labels(identity), &mut changes);
                continue;
            }
            let before = self.detach(identity);
            changes.add(identity, &before, &EntriesOf::default());
        }
        self.finish(changes)
    }

    /// Replaces or adds the rules of objects, and removes those of others.
    pub fn change_objects(
        &mut self,
        put: impl IntoIterator<Item = (PolicyKey, Vec<Rule>)>,
        removed: impl IntoIterator<Item = PolicyKey>,
    ) -> Vec<EntriesDiff> {
        let mut retired: Vec<RuleId> =
            removed.into_iter().filter_map(|key| self.objects.remove(&key)).flatten().collect();
        for (key, rules) in put {
            let known = self.objects.get(&key).into_iter().flatten();
            let known: Vec<&Rule> = known.filter_map(|number| Some(&self.rules.get(*number)?.rule)).collect();
            if known.iter().copied().eq(&rules) && !known.is_empty() {
                continue;
            }
            let context = Context { settings: &self.settings, world: &self.world, population: &self.population };
            let add = |rule| self.rules.add(rule, context, &mut self.selectors);
            let numbers = rules.into_iter().map(add).collect();
            retired.extend(self.objects.insert(key, numbers).into_iter().flatten());
        }
        retired.iter().for_each(|number| self.rules.retire(*number));
        let diffs = self.reshape(self.subjects.keys().copied().collect());
        retired.iter().for_each(|number| self.rules.free(*number, &mut self.selectors));
        diffs
    }

    /// Somebody is on this node from now on. Its labels are those of its identity, whenever that is known.
    pub fn add_subject(&mut self, subject: Identity) -> Vec<EntriesDiff> {
        self.subjects.entry(subject).or_insert(None);
        self.reshape(vec![subject])
    }

    /// Somebody is on this node no more. Its entries are for whoever keeps them to drop.
    pub fn remove_subject(&mut self, subject: Identity) {
        if let Some(Some(policy)) = self.subjects.remove(&subject) {
            self.leave(subject, policy);
        }
    }

    /// Names stand for something else: services, named ports.
    pub fn set_world(&mut self, world: World) -> Vec<EntriesDiff> {
        if self.world == world {
            return Vec::new();
        }
        self.world = world;
        let context = Context { settings: &self.settings, world: &self.world, population: &self.population };
        self.rules.compile_again(context, &mut self.selectors);
        let mut diffs = Vec::new();
        for number in self.policies.numbers() {
            let Some(shared) = self.policies.get(number) else { continue };
            let (shape, subjects) = (shared.shape.clone(), Vec::from_iter(shared.subjects.iter().copied()));
            let Some(subject) = subjects.first() else { continue };
            let after = self.resolve(*subject, &shape);
            let Some(shared) = self.policies.get_mut(number) else { continue };
            let before = std::mem::replace(&mut shared.policy, after);
            let diff = Resolved::difference(before.as_ref().ok(), shared.policy.as_ref().ok());
            diffs.push(self.diff(subjects, diff));
            self.drop_policy(before);
        }
        diffs.retain(|diff| !diff.is_empty());
        diffs
    }

    /// Resolves the policy of an identity from what is known, as a change of its rules does, and drops it again: for
    /// measuring. How many intervals of ports it speaks of; none without labels, or for a conflict.
    pub fn measure_resolving(&mut self, subject: Identity) -> Option<usize> {
        let shape = self.shape(subject)?;
        let policy = self.resolve(subject, &shape);
        let intervals = policy.as_ref().ok().map(Resolved::interval_count);
        self.drop_policy(policy);
        intervals
    }

    fn put_identity(&mut self, identity: Identity, labels: LabelSet, changes: &mut Changes) {
        if self.population.labels(identity) == Some(&labels) {
            return;
        }
        let before = self.detach(identity);
        let after = self.attach(identity, labels);
        changes.add(identity, &before, &after);
    }

    /// Takes an identity out of everything; what it had in each policy.
    fn detach(&mut self, identity: Identity) -> EntriesOf {
        let mut before = EntriesOf::default();
        let Some(slot) = self.population.slot(identity) else { return before };
        let Some(labels) = self.population.labels_at(slot) else { return before };
        let selecting = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&selecting, slot, false);
        for (number, policy) in self.policies.resolved_mut() {
            let entries = policy.entries_of(&selecting, slot);
            policy.set(&selecting, slot, false);
            if !entries.is_empty() {
                before.insert(number, entries);
            }
        }
        self.population.remove(identity);
        before
    }

    /// Puts a new identity into everything; what it has in each policy.
    fn attach(&mut self, identity: Identity, labels: LabelSet) -> EntriesOf {
        let slot = self.population.add(identity, labels);
        let mut after = EntriesOf::default();
        let Some(labels) = self.population.labels_at(slot) else { return after };
        let selecting = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&selecting, slot, true);
        for (number, policy) in self.policies.resolved_mut() {
            policy.set(&selecting, slot, true);
            let entries = policy.entries_of(&selecting, slot);
            if !entries.is_empty() {
                after.insert(number, entries);
            }
        }
        after
    }

    /// The differences of identity changes; subjects among the identities may have other rules now.
    fn finish(&mut self, changes: Changes) -> Vec<EntriesDiff> {
        let mut diffs = Vec::new();
        for (number, (put, removed)) in changes.policies {
            let Some(shared) = self.policies.get(number) else { continue };
            let subjects = shared.subjects.iter().copied().collect();
            let mut diff = EntriesDiff { subjects, put, removed };
            diff.put.sort_unstable();
            diff.removed.sort_unstable();
            diffs.push(diff);
        }
        let subjects: Vec<Identity> =
            changes.identities.into_iter().filter(|id| self.subjects.contains_key(id)).collect();
        if !subjects.is_empty() {
            diffs.extend(self.reshape(subjects));
        }
        diffs
    }

    /// Brings subjects to the policy of the rules that select them now.
    fn reshape(&mut self, subjects: Vec<Identity>) -> Vec<EntriesDiff> {
        // Those that change alike are compared once.
        let mut moves: BTreeMap<(Option<PolicyId>, Option<Shape>), Vec<Identity>> = BTreeMap::new();
        for subject in subjects {
            let Some(before) = self.subjects.get(&subject).copied() else { continue };
            let after = self.shape(subject);
            let same =
                before.and_then(|number| self.policies.get(number)).map(|shared| &shared.shape) == after.as_ref();
            if !same {
                moves.entry((before, after)).or_default().push(subject);
            }
        }
        let mut diffs = Vec::new();
        for ((before, shape), subjects) in &moves {
            let mut after = None;
            for subject in subjects {
                after = shape.as_ref().map(|shape| self.join(*subject, shape));
                self.subjects.insert(*subject, after);
            }
            let policy = |number: Option<PolicyId>| self.policies.get(number?)?.policy.as_ref().ok();
            let diff = Resolved::difference(policy(*before), policy(after));
            diffs.push(self.diff(subjects.clone(), diff));
        }
        for ((before, _), subjects) in &moves {
            if let Some(number) = before {
                subjects.iter().for_each(|subject| self.leave(*subject, *number));
            }
        }
        diffs.retain(|diff| !diff.is_empty());
        diffs
    }

    fn join(&mut self, subject: Identity, shape: &Shape) -> PolicyId {
        let number = match self.policies.find(shape) {
            Some(number) => number,
            None => {
                let policy = self.resolve(subject, shape);
                self.policies.add(shape.clone(), policy)
            }
        };
        if let Some(shared) = self.policies.get_mut(number) {
            shared.subjects.insert(subject);
        }
        number
    }

    fn leave(&mut self, subject: Identity, number: PolicyId) {
        let Some(shared) = self.policies.get_mut(number) else { return };
        shared.subjects.remove(&subject);
        if shared.subjects.is_empty()
            && let Some(shared) = self.policies.remove(number)
        {
            self.drop_policy(shared.policy);
        }
    }

    fn drop_policy(&mut self, policy: Result<Resolved, Conflict>) {
        for held in policy.into_iter().flat_map(|policy| policy.held) {
            self.selectors.release(held);
        }
    }

    fn diff(&self, subjects: Vec<Identity>, diff: SlotDiff) -> EntriesDiff {
        let key = |(direction, ports, slot): SlotEntry| {
            let peer = slot.map_or(Identity::UNKNOWN, |slot| self.population.identity(slot));
            EntryKey::new(direction, peer, ports)
        };
        let mut put: Vec<Entry> = diff.put.into_iter().map(|(at, class)| Entry { key: key(at), class }).collect();
        let mut removed: Vec<EntryKey> = diff.removed.into_iter().map(key).collect();
        put.sort_unstable();
        removed.sort_unstable();
        EntriesDiff { subjects, put, removed }
    }
}

/// What identities change, by policy.
#[derive(Default)]
struct Changes {
    policies: BTreeMap<PolicyId, (Vec<Entry>, Vec<EntryKey>)>,
    identities: BTreeSet<Identity>,
}

impl Changes {
    fn add(&mut self, identity: Identity, before: &EntriesOf, after: &EntriesOf) {
        self.identities.insert(identity);
        let numbers: BTreeSet<PolicyId> = before.keys().chain(after.keys()).copied().collect();
        let none = BTreeMap::new();
        for number in numbers {
            let key = |(direction, ports, _): &SlotEntry| EntryKey::new(*direction, identity, *ports);
            // Slots may differ, and there is only one.
            let plain = |entries: &BTreeMap<SlotEntry, Class>| -> BTreeMap<EntryKey, Class> {
                entries.iter().map(|(at, class)| (key(at), *class)).collect()
            };
            let before = plain(before.get(&number).unwrap_or(&none));
            let after = plain(after.get(&number).unwrap_or(&none));
            let new = after.iter().filter(|(key, class)| before.get(key) != Some(class));
            let put: Vec<Entry> = new.map(|(key, class)| Entry { key: *key, class: *class }).collect();
            let removed: Vec<EntryKey> = before.keys().filter(|key| !after.contains_key(key)).copied().collect();
            if put.is_empty() && removed.is_empty() {
                continue;
            }
            let known = self.policies.entry(number).or_default();
            known.0.extend(put);
            known.1.extend(removed);
        }
    }
}
