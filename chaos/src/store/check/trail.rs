//! What the followers of the store were told: one line of revisions, the same for all of them (S13).
//!
//! ```text
//! stream ─ delta, snapshot ─► Watcher (a mesh) ─ digest after each revision ─► Trail, shared by all streams
//! calls ─ revision, answer ──────────────────────────────────────────────────► Trail::explains
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;

use ringfence_policy::{
    mesh::Mesh,
    record::{Change, Delta, Snapshot, Versioned},
    revision::Revision,
};

use super::history::{Action, Call, Key};
use crate::store::vocabulary;

/// A stream broke a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenStream {
    /// Not the next revision.
    #[error("{stream} got revision {got} after {at}: out of order, doubled or with a gap")]
    Gap {
        /// The stream.
        stream: String,
        /// What it had.
        at: u64,
        /// What came.
        got: u64,
    },
    /// Two streams were told different things.
    #[error("{stream} and {other} differ at revision {revision}")]
    Differs {
        /// The stream.
        stream: String,
        /// The first stream that had the revision.
        other: String,
        /// The revision.
        revision: u64,
    },
    /// Half of a change.
    #[error("{stream} got revision {revision} torn: {key} changed without its twin")]
    Torn {
        /// The stream.
        stream: String,
        /// The revision.
        revision: u64,
        /// What changed alone.
        key: Key,
    },
}

/// An answer contradicts the streams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// An acknowledged change is not in the revision that it was told to be.
    #[error(
        "client {client} was told that revision {revision} changes {key} ({action}); the streams say otherwise: {told:?}"
    )]
    Change {
        /// Who was told.
        client: usize,
        /// The revision.
        revision: u64,
        /// The key.
        key: Key,
        /// What it did.
        action: Action,
        /// What the streams carried for the key.
        told: Option<Option<u64>>,
    },
    /// A list does not show the state of its revision.
    #[error("client {client} listed revision {revision} with {key} = {listed:?}; in the streams it was {told:?}")]
    List {
        /// Who listed.
        client: usize,
        /// The revision.
        revision: u64,
        /// The key.
        key: Key,
        /// What the list said.
        listed: Option<u64>,
        /// What the streams say.
        told: Option<u64>,
    },
}

/// Every revision that any stream carried.
#[derive(Debug, Default)]
pub struct Trail {
    steps: BTreeMap<u64, Step>,
    snapshots: usize,
    /// The oldest state that a snapshot told: streams begin with one, so nobody has the changes that led to it.
    begin: State,
}

/// What every key held at a revision.
#[derive(Debug, Default)]
struct State {
    revision: u64,
    values: BTreeMap<Key, u64>,
}

#[derive(Debug)]
struct Step {
    /// Of the whole mesh after the revision.
    digest: u64,
    /// None while only a snapshot told of the revision.
    changes: Option<Vec<(Key, Option<u64>)>>,
    /// Who told first.
    stream: String,
}

/// The receiving end of one stream, kept through all its connections.
#[derive(Debug)]
pub struct Watcher {
    stream: String,
    mesh: Mesh,
    digest: u64,
}

impl Watcher {
    /// Has nothing yet.
    #[must_use]
    pub fn new(stream: String) -> Self {
        Self { stream, mesh: Mesh::default(), digest: 0 }
    }

    /// The newest revision it has, to resume from.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.mesh.revision()
    }

    /// Takes the next revision.
    ///
    /// # Errors
    /// `BrokenStream`.
    pub fn take_delta(&mut self, delta: &Delta, trail: &mut Trail) -> Result<(), BrokenStream> {
        let before: Vec<u64> =
            delta.changes.iter().filter_map(|change| self.mesh.records().get(&change.key())).map(digest_of).collect();
        let at = self.mesh.revision().0;
        self.mesh.apply(delta).map_err(|_| self.gap(at, delta.revision.0))?;
        let after: Vec<u64> =
            delta.changes.iter().filter_map(|change| self.mesh.records().get(&change.key())).map(digest_of).collect();
        self.digest = after.into_iter().fold(self.digest, u64::wrapping_add);
        self.digest = before.into_iter().fold(self.digest, u64::wrapping_sub);
        let changes: Vec<_> = delta.changes.iter().filter_map(vocabulary::change).collect();
        let torn = |(key, value): &&(Key, Option<u64>)| {
            vocabulary::twin_of(key).is_some_and(|twin| !changes.contains(&(twin, *value)))
        };
        if let Some((key, _)) = changes.iter().find(torn) {
            let (stream, key) = (self.stream.clone(), key.clone());
            return Err(BrokenStream::Torn { stream, revision: delta.revision.0, key });
        }
        trail.note(self, Some(changes))
    }

    /// Takes a snapshot in the place of all it has.
    ///
    /// # Errors
    /// `BrokenStream`.
    pub fn take_snapshot(&mut self, snapshot: Snapshot, trail: &mut Trail) -> Result<(), BrokenStream> {
        let at = self.mesh.revision().0;
        if snapshot.revision.0 < at {
            return Err(self.gap(at, snapshot.revision.0));
        }
        self.mesh = Mesh::from_snapshot(snapshot);
        trail.begin_at(&self.mesh);
        self.digest = self.mesh.records().values().map(digest_of).fold(0, u64::wrapping_add);
        trail.snapshots += 1;
        trail.note(self, None)
    }

    fn gap(&self, at: u64, got: u64) -> BrokenStream {
        BrokenStream::Gap { stream: self.stream.clone(), at, got }
    }
}

impl Trail {
    /// How many revisions are known with their changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.values().filter(|step| step.changes.is_some()).count()
    }

    /// How many snapshots were taken by streams.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.snapshots
    }

    /// Whether no revision is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn begin_at(&mut self, mesh: &Mesh) {
        let revision = mesh.revision().0;
        if self.steps.is_empty() || revision < self.begin.revision {
            let values = mesh.records().values().filter_map(|versioned| vocabulary::value(&versioned.record));
            self.begin = State { revision, values: values.collect() };
        }
    }

    fn note(&mut self, watcher: &Watcher, changes: Option<Vec<(Key, Option<u64>)>>) -> Result<(), BrokenStream> {
        let (revision, digest) = (watcher.mesh.revision().0, watcher.digest);
        let new = || Step { digest, changes: None, stream: watcher.stream.clone() };
        let step = self.steps.entry(revision).or_insert_with(new);
        let differs = step.digest != digest
            || step.changes.as_ref().zip(changes.as_ref()).is_some_and(|(known, told)| known != told);
        if differs {
            let (stream, other) = (watcher.stream.clone(), step.stream.clone());
            return Err(BrokenStream::Differs { stream, other, revision });
        }
        if step.changes.is_none() {
            step.changes = changes;
        }
        Ok(())
    }

    /// Whether what clients were told fits the streams; returns how many answers could be compared.
    ///
    /// # Errors
    /// The first that is `Unexplained`.
    pub fn explains(&self, calls: &[Call]) -> Result<usize, Unexplained> {
        // Revisions from one to the other are known without a gap: so is every value at every one of them.
        let begin = self.begin.revision;
        let known: u64 = (begin + 1..).take_while(|at| self.changes(*at).is_some()).last().unwrap_or(begin);
        let mut values: BTreeMap<&Key, BTreeMap<u64, Option<u64>>> = BTreeMap::new();
        for (key, value) in &self.begin.values {
            values.entry(key).or_default().insert(begin, Some(*value));
        }
        for (revision, step) in self.steps.range((Bound::Excluded(begin), Bound::Included(known))) {
            for (key, value) in step.changes.iter().flatten() {
                values.entry(key).or_default().insert(*revision, *value);
            }
        }
        let value_at = |key: &Key, at: u64| {
            values.get(key).and_then(|line| line.range(..=at).next_back()).and_then(|(_, value)| *value)
        };
        let mut compared = 0;
        for call in calls {
            let Some(revision) = call.revision().filter(|at| (begin..=known).contains(at)) else { continue };
            let client = call.client;
            for (key, action) in &call.parts {
                let key = || key.clone();
                let expected = match *action {
                    // How the first state came to be, nobody was told.
                    Action::Put { .. } | Action::Delete { .. } if revision == begin => continue,
                    Action::Put { value, changed: Some(true) } => Some(value),
                    Action::Delete { existed: Some(true) } => None,
                    Action::Read { seen } => {
                        let told = value_at(&key(), revision);
                        if told != seen {
                            return Err(Unexplained::List { client, revision, key: key(), listed: seen, told });
                        }
                        compared += 1;
                        continue;
                    }
                    _ => continue,
                };
                let told = values.get(&key()).and_then(|line| line.get(&revision)).copied();
                if told != Some(expected) {
                    return Err(Unexplained::Change { client, revision, key: key(), action: *action, told });
                }
                compared += 1;
            }
        }
        Ok(compared)
    }

    fn changes(&self, revision: u64) -> Option<&Vec<(Key, Option<u64>)>> {
        self.steps.get(&revision).and_then(|step| step.changes.as_ref())
    }

    /// Values that a stream carried although their writers were told that nothing was done.
    #[must_use]
    pub fn carried(&self, refused: &BTreeSet<(Key, u64)>) -> Vec<(Key, u64)> {
        let all = self.steps.values().filter_map(|step| step.changes.as_ref()).flatten();
        let put = all.filter_map(|(key, value)| value.map(|value| (key.clone(), value)));
        put.filter(|put| refused.contains(put)).collect()
    }
}

fn digest_of(versioned: &Versioned) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(versioned.revision.0);
    hasher
        .write(&serde_json::to_vec(&Change::Put(versioned.record.clone())).expect("a record has no part JSON refuses"));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::history::Outcome;
    use ringfence_policy::{command::Command, record::Record};

    fn delta(revision: u64, names: &[&str], value: u64) -> Delta {
        let Command::PutPolicies(policies) = vocabulary::put_policies(names, value) else { unreachable!() };
        let changes = policies.into_iter().map(|policy| Change::Put(Record::Policy(policy))).collect();
        Delta { revision: Revision(revision), changes }
    }

    fn watcher(name: &str, deltas: &[Delta], trail: &mut Trail) -> Watcher {
        let mut watcher = Watcher::new(name.to_owned());
        deltas.iter().for_each(|delta| watcher.take_delta(delta, trail).unwrap());
        watcher
    }

    #[test]
    fn s13_gaps_repetitions_and_steps_back_are_caught() {
        let mut trail = Trail::default();
        let mut watcher = watcher("a", &[delta(1, &["p"], 1), delta(2, &["p"], 2)], &mut trail);
        for wrong in [1, 2, 4] {
            let gap = watcher.take_delta(&delta(wrong, &["p"], 3), &mut trail).unwrap_err();
            assert_eq!(gap, BrokenStream::Gap { stream: "a".to_owned(), at: 2, got: wrong });
        }
        let old = Snapshot { revision: Revision(1), ..Snapshot::default() };
        assert!(matches!(watcher.take_snapshot(old, &mut trail), Err(BrokenStream::Gap { at: 2, got: 1, .. })));
        watcher.take_delta(&delta(3, &["p"], 3), &mut trail).unwrap();
    }

    #[test]
    fn s13_streams_that_differ_are_caught() {
        let mut trail = Trail::default();
        let whole = watcher("a", &[delta(1, &["p"], 1), delta(2, &["q"], 2)], &mut trail);
        let mut other = watcher("b", &[delta(1, &["p"], 1)], &mut trail);
        let differs = other.take_delta(&delta(2, &["q"], 3), &mut trail).unwrap_err();
        assert_eq!(differs.to_string(), "b and a differ at revision 2");
        let mut late = Watcher::new("late".to_owned());
        late.take_snapshot(whole.mesh.snapshot(), &mut trail).unwrap();
        let mut lost = whole.mesh.snapshot();
        let first = lost.records.keys().next().unwrap().clone();
        lost.records.remove(&first);
        assert!(matches!(late.take_snapshot(lost, &mut trail), Err(BrokenStream::Differs { revision: 2, .. })));
    }

    #[test]
    fn s13_half_a_change_is_caught() {
        let (mut trail, twins) = (Trail::default(), vocabulary::twins(1));
        let both: Vec<&str> = twins.iter().map(String::as_str).collect();
        let mut watcher = watcher("a", &[delta(1, &both, 1)], &mut trail);
        let torn = watcher.take_delta(&delta(2, &both[..1], 2), &mut trail).unwrap_err();
        assert!(matches!(torn, BrokenStream::Torn { revision: 2, .. }), "{torn}");
    }

    #[test]
    fn answers_that_the_streams_do_not_bear_out_are_caught() {
        let mut trail = Trail::default();
        drop(watcher("a", &[delta(1, &["p"], 1), delta(2, &["q"], 2)], &mut trail));
        let call = |revision, action| {
            let outcome = Outcome::Answered { at_ns: 1, revision: Some(revision) };
            Call { client: 0, member: 0, begin_ns: 0, outcome, parts: vec![(Key::Policy("q".to_owned()), action)] }
        };
        let put = |value| Action::Put { value, changed: Some(true) };
        let good = [call(1, Action::Read { seen: None }), call(2, Action::Read { seen: Some(2) }), call(2, put(2))];
        assert_eq!(trail.explains(&good), Ok(3));
        assert_eq!(trail.explains(&[call(9, put(9))]), Ok(0), "not known yet");

        // As in a drill: the streams begin with a snapshot.
        let mut late = Trail::default();
        let mut beginning = Watcher::new("late".to_owned());
        let whole = watcher("a", &[delta(1, &["p"], 1), delta(2, &["q"], 2)], &mut Trail::default());
        beginning.take_snapshot(whole.mesh.snapshot(), &mut late).unwrap();
        assert_eq!(late.explains(&[call(2, Action::Read { seen: Some(2) })]), Ok(1), "nothing came behind it");
        beginning.take_delta(&delta(3, &["q"], 3), &mut late).unwrap();
        let known = [call(2, Action::Read { seen: Some(2) }), call(3, put(3)), call(1, put(7)), call(2, put(2))];
        assert_eq!(late.explains(&known), Ok(2), "what led to the snapshot is not known");
        assert!(late.explains(&[call(2, Action::Read { seen: None })]).is_err());
        assert!(late.explains(&[call(3, put(2))]).is_err());
        for (revision, action) in [(1, put(2)), (2, put(3)), (2, Action::Delete { existed: Some(true) })] {
            let wrong = trail.explains(&[call(revision, action)]);
            assert!(matches!(wrong, Err(Unexplained::Change { .. })), "{action} at {revision}");
        }
        let list = trail.explains(&[call(1, Action::Read { seen: Some(2) })]).unwrap_err();
        assert!(list.to_string().contains("listed revision 1 with policy q = Some(2)"), "{list}");
        let refused = BTreeSet::from([(Key::Policy("q".to_owned()), 2), (Key::Policy("q".to_owned()), 3)]);
        assert_eq!(trail.carried(&refused).len(), 1);
    }
}
