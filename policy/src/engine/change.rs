//! Changes, and the edits that follow them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine, Policed, PolicyObject, Subject,
    resolved::{Resolved, Unresolvable},
    rules::RuleId,
    selectors::SelectorId,
    shape::{Shape, Shapes},
    terms::Context,
};
use crate::{
    identity::Identity,
    label::LabelSet,
    record::PolicyKey,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::Rule,
    tables::{PolicyId, Row, RowKey},
    world::World,
};

impl Engine {
    /// Adds identities, or gives them other labels. Of an identity that is given twice the last one counts. `unknown` has
    /// no labels, whatever they are said to be.
    pub fn put_identities(&mut self, identities: impl IntoIterator<Item = (Identity, LabelSet)>) {
        let mut changed = BTreeSet::new();
        for (identity, labels) in identities {
            if identity != Identity::UNKNOWN && self.population.labels(identity) != Some(&labels) {
                self.put_identity(identity, labels);
                changed.insert(identity);
            }
        }
        self.reshape_those(|subject| changed.contains(&subject.identity));
    }

    /// Forgets identities. Reserved ones stay, with their built-in labels.
    pub fn remove_identities(&mut self, identities: impl IntoIterator<Item = Identity>) {
        let mut changed = BTreeSet::new();
        for identity in identities {
            if RESERVED_PEERS.contains(&identity) {
                self.put_identity(identity, reserved_labels(identity));
            } else {
                let selecting = self.detach(identity);
                self.edit_rows(identity, &selecting, &[]);
            }
            changed.insert(identity);
        }
        self.reshape_those(|subject| changed.contains(&subject.identity));
    }

    /// Replaces or adds objects, and removes others.
    pub fn change_objects(
        &mut self,
        put: impl IntoIterator<Item = PolicyObject>,
        removed: impl IntoIterator<Item = PolicyKey>,
    ) {
        let removed = removed.into_iter().filter_map(|key| self.objects.remove(&key));
        let mut retired: Vec<RuleId> = removed.flatten().collect();
        for PolicyObject { key, rules } in put {
            if let Some(known) = self.objects.get(&key) {
                let same = known.iter().map(|number| self.rules.get(*number).map(|known| &known.rule));
                if same.eq(rules.iter().map(Some)) {
                    continue;
                }
            }
            let context = Context { settings: &self.settings, world: &self.world, population: &self.population };
            let add = |rule: Rule| self.rules.add(rule, context, &mut self.selectors);
            let rules = rules.into_iter().map(add).collect();
            retired.extend(self.objects.insert(key, rules).into_iter().flatten());
        }
        retired.iter().for_each(|number| self.rules.retire(*number));
        self.reshape_those(|_| true);
        retired.iter().for_each(|number| self.rules.free(*number, &mut self.selectors));
    }

    /// Somebody is on this node from now on. Its labels are those of its identity, whenever that is known.
    pub fn add_subject(&mut self, subject: impl Into<Subject>) {
        let subject = subject.into();
        self.subjects.entry(subject.clone()).or_insert(None);
        self.reshape(&subject);
    }

    /// Somebody is on this node no more.
    pub fn remove_subject(&mut self, subject: &Subject) {
        if let Some(Some(policed)) = self.subjects.remove(subject) {
            self.leave(policed);
        }
    }

    /// Names stand for something else: services, peers' ports. Each subject has its own ports: those of the world are not
    /// looked at.
    pub fn set_world(&mut self, world: World) {
        let world = World { own_ports: Vec::new(), ..world };
        if self.world == world {
            return;
        }
        self.world = world;
        let context = Context { settings: &self.settings, world: &self.world, population: &self.population };
        let (changed, released) = self.rules.compile_again(context, &mut self.selectors);
        let concerned = |shape: &Shape| shape.rules.iter().any(|number| changed.contains(number));
        let policies: Vec<PolicyId> =
            self.policies.iter().filter(|(_, shared)| concerned(&shared.shape)).map(|(number, _)| number).collect();
        for number in policies {
            self.resolve_again(number);
        }
        released.into_iter().for_each(|selector| self.selectors.release(selector));
    }

    fn put_identity(&mut self, identity: Identity, labels: LabelSet) {
        let before = self.detach(identity);
        let slot = self.population.add(identity, labels);
        let labels = self.population.labels_at(slot).expect("it was just added");
        let after = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&after, slot, true);
        self.edit_rows(identity, &before, &after);
    }

    /// Takes an identity out of everything; which selectors selected it.
    fn detach(&mut self, identity: Identity) -> Vec<SelectorId> {
        let Some(slot) = self.population.slot(identity) else { return Vec::new() };
        let Some(labels) = self.population.labels_at(slot) else { return Vec::new() };
        let selecting = self.selectors.selecting(slot, identity, labels);
        self.selectors.set(&selecting, slot, false);
        self.population.remove(identity);
        selecting
    }

    /// Other selectors select a peer: its rows change in every policy.
    fn edit_rows(&mut self, peer: Identity, before: &[SelectorId], after: &[SelectorId]) {
        if before == after {
            return;
        }
        for (policy, resolved) in self.policies.resolved() {
            let mut rows: BTreeMap<RowKey, (Option<Row>, Option<Row>)> = BTreeMap::new();
            for (key, row) in resolved.rows_of(policy, peer, before) {
                rows.entry(key).or_default().0 = Some(row);
            }
            for (key, row) in resolved.rows_of(policy, peer, after) {
                rows.entry(key).or_default().1 = Some(row);
            }
            for (key, (before, after)) in rows.into_iter().filter(|(_, (before, after))| before != after) {
                self.edits.row(key, before, after);
            }
        }
    }

    /// Brings subjects to the policies of the rules that select them now.
    fn reshape_those(&mut self, changed: impl Fn(&Subject) -> bool) {
        let subjects: Vec<Subject> = self.subjects.keys().filter(|subject| changed(subject)).cloned().collect();
        // Whoever is alike moves together: the policy that all leave goes once.
        subjects.iter().for_each(|subject| self.reshape(subject));
    }

    fn reshape(&mut self, subject: &Subject) {
        let Some(before) = self.subjects.get(subject).copied() else { return };
        let shapes = self.shapes(subject);
        let shape_of = |number: PolicyId| self.policies.get(number).map(|shared| &shared.shape);
        let same = before.is_some_and(|before| {
            shapes.as_ref().is_some_and(|shapes| {
                shape_of(before.policy) == Some(&shapes.policy)
                    && before.shadow.and_then(shape_of) == shapes.shadow.as_ref()
            })
        });
        if same {
            return;
        }
        let after = shapes.map(|Shapes { policy, shadow }| Policed {
            policy: self.join(subject, policy),
            shadow: shadow.map(|shadow| self.join(subject, shadow)),
        });
        self.subjects.insert(subject.clone(), after);
        if let Some(before) = before {
            self.leave(before);
        }
    }

    fn join(&mut self, subject: &Subject, shape: Shape) -> PolicyId {
        if let Some(number) = self.policies.find(&shape) {
            if let Some(shared) = self.policies.get_mut(number) {
                shared.users += 1;
            }
            return number;
        }
        let policy = self.resolve(subject, &shape);
        self.publish(shape, policy, 1)
    }

    /// Puts a policy into the tables.
    fn publish(&mut self, shape: Shape, policy: Result<Resolved, Unresolvable>, users: usize) -> PolicyId {
        let number = self.policies.add(shape, policy, users);
        self.edit_policy(number, true);
        number
    }

    /// Takes a policy out of the tables.
    fn withdraw(&mut self, number: PolicyId) {
        self.edit_policy(number, false);
        if let Some(shared) = self.policies.remove(number) {
            self.release(shared.policy);
        }
    }

    fn leave(&mut self, policed: Policed) {
        for number in [Some(policed.policy), policed.shadow].into_iter().flatten() {
            let Some(shared) = self.policies.get_mut(number) else { continue };
            shared.users -= 1;
            if shared.users == 0 {
                self.withdraw(number);
            }
        }
    }

    /// All ports and rows of a policy come, or go.
    fn edit_policy(&mut self, number: PolicyId, comes: bool) {
        let Some(Ok(policy)) = self.policies.get(number).map(|shared| &shared.policy) else { return };
        for (key, ports) in policy.ports(number) {
            let (before, after) = if comes { (None, Some(ports.clone())) } else { (Some(ports.clone()), None) };
            self.edits.port(key, before, after);
        }
        for (key, row) in policy.rows(number, &self.selectors, &self.population) {
            let (before, after) = if comes { (None, Some(row)) } else { (Some(row), None) };
            self.edits.row(key, before, after);
        }
    }

    /// Names in the rules of a policy stand for something else.
    fn resolve_again(&mut self, number: PolicyId) {
        let has_it = |policed: &Policed| policed.policy == number || policed.shadow == Some(number);
        let user = self.subjects.iter().find(|(_, policed)| policed.iter().any(has_it));
        let Some(subject) = user.map(|(subject, _)| subject.clone()) else { return };
        let Some((shape, users)) = self.policies.get(number).map(|shared| (shared.shape.clone(), shared.users)) else {
            return;
        };
        let after = self.resolve(&subject, &shape);
        let before = self.policies.get(number).map(|shared| &shared.policy);
        let same = match (before, &after) {
            (Some(Ok(before)), Ok(after)) => before.says_the_same(after),
            (Some(Err(before)), Err(after)) => before == after,
            _ => false,
        };
        if same {
            // It keeps its number, with the selectors that are held now.
            if let Some(shared) = self.policies.get_mut(number) {
                let before = std::mem::replace(&mut shared.policy, after);
                self.release(before);
            }
            return;
        }
        self.withdraw(number);
        let other = self.publish(shape, after, users);
        for policed in self.subjects.values_mut().flatten() {
            if policed.policy == number {
                policed.policy = other;
            }
            if policed.shadow == Some(number) {
                policed.shadow = Some(other);
            }
        }
    }

    /// What was acquired for a policy alone.
    pub(super) fn release(&mut self, policy: Result<Resolved, Unresolvable>) {
        for held in policy.into_iter().flat_map(|policy| policy.held) {
            self.selectors.release(held);
        }
    }
}
