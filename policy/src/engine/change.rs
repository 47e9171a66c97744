//! Changes, and how entries follow them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine, EntriesDiff, Entry, EntryKey, Shared, Subject,
    entry::Class,
    resolved::{Resolved, SlotDiff, SlotEntry},
    rules::RuleId,
    shape::Shape,
    terms::Context,
};
use crate::{
    identity::Identity,
    label::LabelSet,
    record::PolicyKey,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::Rule,
    world::World,
};

/// The entries of one identity in each policy that has some, by the policy's shape.
type EntriesOf = BTreeMap<Shape, BTreeMap<SlotEntry, Class>>;

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
        self.subjects.entry(subject).or_insert(Subject { shape: None });
        self.reshape(vec![subject])
    }

    /// Somebody is on this node no more. Its entries are for whoever keeps them to drop.
    pub fn remove_subject(&mut self, subject: Identity) {
        if let Some(Subject { shape: Some(shape) }) = self.subjects.remove(&subject) {
            self.leave(subject, &shape);
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
        let before = std::mem::take(&mut self.policies);
        let mut diffs = Vec::new();
        for (shape, shared) in before {
            let subjects: Vec<Identity> = shared.subjects.iter().copied().collect();
            for subject in &subjects {
                self.join(*subject, &shape);
            }
            let after = self.policies.get(&shape).and_then(|shared| shared.policy.as_ref().ok());
            let diff = Resolved::difference(shared.policy.as_ref().ok(), after);
            diffs.push(self.diff(subjects, diff));
            self.drop_policy(shared);
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
        self.drop_policy(Shared { policy, subjects: BTreeSet::new() });
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
        for (shape, shared) in &mut self.policies {
            let Ok(policy) = &mut shared.policy else { continue };
            let entries = policy.entries_of(&selecting, slot);
            policy.set(&selecting, slot, false);
            if !entries.is_empty() {
                before.insert(shape.clone(), entries);
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
        for (shape, shared) in &mut self.policies {
            let Ok(policy) = &mut shared.policy else { continue };
            policy.set(&selecting, slot, true);
            let entries = policy.entries_of(&selecting, slot);
            if !entries.is_empty() {
                after.insert(shape.clone(), entries);
            }
        }
        after
    }

    /// The differences of identity changes; subjects among the identities may have other rules now.
    fn finish(&mut self, changes: Changes) -> Vec<EntriesDiff> {
        let mut diffs = Vec::new();
        for (shape, (put, removed)) in changes.policies {
            let Some(shared) = self.policies.get(&shape) else { continue };
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
        let mut moves: BTreeMap<(Option<Shape>, Option<Shape>), Vec<Identity>> = BTreeMap::new();
        for subject in subjects {
            let after = self.shape(subject);
            let Some(known) = self.subjects.get(&subject) else { continue };
            if known.shape != after {
                moves.entry((known.shape.clone(), after)).or_default().push(subject);
            }
        }
        let mut diffs = Vec::new();
        for ((before, after), subjects) in &moves {
            for subject in subjects {
                if let Some(shape) = after {
                    self.join(*subject, shape);
                }
                self.subjects.insert(*subject, Subject { shape: after.clone() });
            }
            let policy = |shape: &Option<Shape>| self.policies.get(shape.as_ref()?)?.policy.as_ref().ok();
            let diff = Resolved::difference(policy(before), policy(after));
            diffs.push(self.diff(subjects.clone(), diff));
        }
        for ((before, _), subjects) in &moves {
            if let Some(shape) = before {
                subjects.iter().for_each(|subject| self.leave(*subject, shape));
            }
        }
        diffs.retain(|diff| !diff.is_empty());
        diffs
    }

    fn join(&mut self, subject: Identity, shape: &Shape) {
        if !self.policies.contains_key(shape) {
            let policy = self.resolve(subject, shape);
            self.policies.insert(shape.clone(), Shared { policy, subjects: BTreeSet::new() });
        }
        if let Some(shared) = self.policies.get_mut(shape) {
            shared.subjects.insert(subject);
        }
    }

    fn leave(&mut self, subject: Identity, shape: &Shape) {
        let Some(shared) = self.policies.get_mut(shape) else { return };
        shared.subjects.remove(&subject);
        if shared.subjects.is_empty()
            && let Some(shared) = self.policies.remove(shape)
        {
            self.drop_policy(shared);
        }
    }

    fn drop_policy(&mut self, shared: Shared) {
        if let Ok(policy) = shared.policy {
            policy.held.iter().for_each(|held| self.selectors.release(*held));
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
    policies: BTreeMap<Shape, (Vec<Entry>, Vec<EntryKey>)>,
    identities: BTreeSet<Identity>,
}

impl Changes {
    fn add(&mut self, identity: Identity, before: &EntriesOf, after: &EntriesOf) {
        self.identities.insert(identity);
        let shapes: BTreeSet<&Shape> = before.keys().chain(after.keys()).collect();
        let none = BTreeMap::new();
        for shape in shapes {
            let key = |(direction, ports, _): &SlotEntry| EntryKey::new(*direction, identity, *ports);
            // Slots may differ, and there is only one.
            let plain = |entries: &BTreeMap<SlotEntry, Class>| -> BTreeMap<EntryKey, Class> {
                entries.iter().map(|(at, class)| (key(at), *class)).collect()
            };
            let before = plain(before.get(shape).unwrap_or(&none));
            let after = plain(after.get(shape).unwrap_or(&none));
            let new = after.iter().filter(|(key, class)| before.get(key) != Some(class));
            let put: Vec<Entry> = new.map(|(key, class)| Entry { key: *key, class: *class }).collect();
            let removed: Vec<EntryKey> = before.keys().filter(|key| !after.contains_key(key)).copied().collect();
            if put.is_empty() && removed.is_empty() {
                continue;
            }
            if !self.policies.contains_key(shape) {
                self.policies.insert(shape.clone(), (Vec::new(), Vec::new()));
            }
            if let Some(known) = self.policies.get_mut(shape) {
                known.0.extend(put);
                known.1.extend(removed);
            }
        }
    }
}
