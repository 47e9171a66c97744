//! The mesh's state at one revision, and the history that lets followers resume.
//!
//! The store, every gateway and every agent hold the same `Mesh` and move it by the same `Delta`s:
//!
//! ```text
//! Snapshot ─► Mesh ─ apply(Delta) ─► Mesh at the next revision
//!                └─► History ─ resume(from) ─► the deltas since `from`, or a Snapshot when they are gone
//! ```

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::{
    cidr::Cidr,
    name::Name,
    record::{
        Change, CidrGroupRecord, Cluster, Delta, Endpoint, FqdnRecord, IdentityBlock, IdentityRecord, MeshSettings,
        Node, PolicyRecord, Record, RecordKey, Records, ServiceRecord, Snapshot, Versioned,
    },
    revision::Revision,
};
use journal::Journal;

/// Every record at one revision. Two are equal if these are, however they were reached. A copy shares the records and
/// takes a moment, whatever their number.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    revision: Revision,
    records: Records,
    journal: Journal,
}

/// A delta does not follow the state it is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delta for revision {got} cannot follow revision {at}: expected {}", at.next())]
pub struct RevisionGap {
    /// The revision of the state.
    pub at: Revision,
    /// The revision of the delta.
    pub got: Revision,
}

impl Mesh {
    /// The state a snapshot describes.
    #[must_use]
    pub fn from_snapshot(snapshot: Snapshot) -> Self {
        Self { revision: snapshot.revision, journal: Journal::from(snapshot.revision), records: snapshot.records }
    }

    /// The whole state; shares the records.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, records: self.records.clone() }
    }

    /// Moves to the next revision.
    ///
    /// # Errors
    /// `RevisionGap` unless the delta is for exactly the next revision; the state is then as before.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), RevisionGap> {
        if delta.revision != self.revision.next() {
            return Err(RevisionGap { at: self.revision, got: delta.revision });
        }
        let mut former = Vec::with_capacity(delta.changes.len());
        for change in &delta.changes {
            let key = change.key();
            let before = match change {
                Change::Put(record) => {
                    let versioned = Versioned { revision: delta.revision, record: record.clone() };
                    self.records.insert(key.clone(), versioned)
                }
                Change::Delete(key) => self.records.remove(key),
            };
            former.push((key, before));
        }
        self.revision = delta.revision;
        self.journal.push(delta.revision, former);
        Ok(())
    }

    /// Moves to a later revision that changes nothing of what is here: for a part of a mesh, as a node's view is.
    pub fn skip_to(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// The revision of the state.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// All records in key order.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// The records that have changed since a revision, each with what it was then (none if there was none), at a cost
    /// that depends on them alone. None if that revision is not remembered any more, or has not been reached: everything
    /// may have changed.
    #[must_use]
    pub fn changed_since(&self, revision: Revision) -> Option<BTreeMap<&RecordKey, Option<&Record>>> {
        if revision > self.revision { None } else { self.journal.since(revision) }
    }

    /// One record.
    #[must_use]
    pub fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key).map(|versioned| &versioned.record)
    }

    /// All clusters, found without looking at other kinds.
    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        let first = RecordKey::Cluster(Name::first());
        self.records
            .range(first..)
            .map_while(|(_, v)| if let Record::Cluster(cluster) = &v.record { Some(cluster) } else { None })
    }

    /// The ranges of pods of all clusters.
    pub fn pod_cidrs(&self) -> impl Iterator<Item = &Cidr> {
        self.clusters().flat_map(|cluster| &cluster.pod_cidrs)
    }

    /// All nodes, found without looking at other kinds.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let first = RecordKey::Node(Name::first(), Name::first());
        self.records
            .range(first..)
            .map_while(|(_, v)| if let Record::Node(node) = &v.record { Some(node) } else { None })
    }

    /// All identities.
    pub fn identities(&self) -> impl Iterator<Item = &IdentityRecord> {
        self.records.values().filter_map(|v| if let Record::Identity(record) = &v.record { Some(record) } else { None })
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.records
            .values()
            .filter_map(|v| if let Record::Endpoint(endpoint) = &v.record { Some(&**endpoint) } else { None })
    }

    /// All policy objects.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyRecord> {
        self.records.values().filter_map(|v| if let Record::Policy(policy) = &v.record { Some(policy) } else { None })
    }
}

impl PartialEq for Mesh {
    fn eq(&self, other: &Self) -> bool {
        (self.revision, &self.records) == (other.revision, &other.records)
    }
}

impl Eq for Mesh {}

impl Mesh {
    /// All CIDR groups.
    pub fn cidr_groups(&self) -> impl Iterator<Item = &CidrGroupRecord> {
        self.records.values().filter_map(|v| if let Record::CidrGroup(group) = &v.record { Some(group) } else { None })
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &ServiceRecord> {
        self.records
            .values()
            .filter_map(|v| if let Record::Service(service) = &v.record { Some(&**service) } else { None })
    }

    /// What DNS names stand for.
    pub fn fqdns(&self) -> impl Iterator<Item = &FqdnRecord> {
        self.records.values().filter_map(|v| if let Record::Fqdn(fqdn) = &v.record { Some(fqdn) } else { None })
    }

    /// The blocks of numbers of one cluster, found without looking at other kinds.
    pub fn blocks_of<'m>(&'m self, cluster: &'m Name) -> impl Iterator<Item = &'m IdentityBlock> {
        let first = RecordKey::Block(cluster.clone(), Name::first());
        self.records.range(first..).map_while(move |(_, versioned)| match &versioned.record {
            Record::Block(block) if block.cluster == *cluster => Some(block),
            _ => None,
        })
    }

    /// The settings, or the defaults where there are none.
    #[must_use]
    pub fn settings(&self) -> MeshSettings {
        match self.get(&RecordKey::Settings) {
            Some(Record::Settings(settings)) => settings.clone(),
            _ => MeshSettings::default(),
        }
    }

    /// The endpoints of one node, found without looking at others.
    pub fn endpoints_of<'m>(&'m self, cluster: &'m Name, node: &'m Name) -> impl Iterator<Item = &'m Endpoint> {
        let first = RecordKey::Endpoint(cluster.clone(), node.clone(), Name::first());
        self.records.range(first..).map_while(move |(_, versioned)| match &versioned.record {
            Record::Endpoint(endpoint) if endpoint.cluster == *cluster && endpoint.node == *node => Some(&**endpoint),
            _ => None,
        })
    }
}

/// The current state and the newest deltas, bounded.
#[derive(Debug)]
pub struct History {
    mesh: Mesh,
    deltas: VecDeque<Arc<Delta>>,
    capacity: usize,
}

/// How a follower gets from where it is to the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Apply these in order; empty if it is at the head already.
    Deltas(Vec<Arc<Delta>>),
    /// It is too far behind (or ahead of this history, after a restore): replace everything.
    Snapshot(Snapshot),
}

impl History {
    /// A history that keeps at most `capacity` deltas.
    #[must_use]
    pub fn new(mesh: Mesh, capacity: usize) -> Self {
        Self { mesh, deltas: VecDeque::new(), capacity }
    }

    /// The current state.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Moves to the next revision and remembers the step.
    ///
    /// # Errors
    /// `RevisionGap` as `Mesh::apply`; nothing changes then.
    pub fn push(&mut self, delta: Delta) -> Result<(), RevisionGap> {
        self.mesh.apply(&delta)?;
        if self.deltas.len() == self.capacity {
            self.deltas.pop_front();
        }
        if self.capacity > 0 {
            self.deltas.push_back(Arc::new(delta));
        }
        Ok(())
    }

    /// Replaces the state; followers will get a snapshot.
    pub fn reset(&mut self, mesh: Mesh) {
        self.mesh = mesh;
        self.deltas.clear();
    }

    /// Forgets the steps up to a revision; who resumes from before gets a snapshot.
    pub fn compact(&mut self, upto: Revision) {
        while self.deltas.front().is_some_and(|delta| delta.revision <= upto) {
            self.deltas.pop_front();
        }
    }

    /// The oldest revision from which a follower resumes without a snapshot.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        let first = self.deltas.front().map_or(self.mesh.revision.0, |delta| delta.revision.0 - 1);
        Revision(first)
    }

    /// How many deltas are kept at most.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether a follower at `from` reaches the head by deltas alone. One that has nothing yet is at revision 0; one
    /// ahead of the head needs a snapshot: only that can be right.
    #[must_use]
    pub fn covers(&self, from: Revision) -> bool {
        let head = self.mesh.revision;
        let oldest = self.deltas.front().map_or(head.next(), |delta| delta.revision);
        from <= head && from.next() >= oldest
    }

    /// The deltas after `from`, in order; meaningful where `covers` says so.
    pub fn since(&self, from: Revision) -> impl Iterator<Item = &Arc<Delta>> {
        let oldest = self.deltas.front().map_or(0, |delta| delta.revision.0);
        let skip = usize::try_from((from.0 + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        self.deltas.iter().skip(skip)
    }

    /// What a follower at `from` needs to reach the head.
    #[must_use]
    pub fn resume(&self, from: Revision) -> Resume {
        if !self.covers(from) {
            return Resume::Snapshot(self.mesh.snapshot());
        }
        Resume::Deltas(self.since(from).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::ClusterId, name::Name};

    fn cluster(name: &str, id: u32) -> Record {
        Record::Cluster(Cluster { name: Name::new(name).unwrap(), id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] })
    }

    fn put(revision: u64, name: &str) -> Delta {
        Delta { revision: Revision(revision), changes: vec![Change::Put(cluster(name, 1))] }
    }

    #[test]
    fn s13_a_delta_follows_exactly_or_changes_nothing() {
        let mut mesh = Mesh::default();
        mesh.apply(&put(1, "east")).unwrap();
        let before = mesh.clone();
        for wrong in [1, 3] {
            assert_eq!(mesh.apply(&put(wrong, "west")), Err(RevisionGap { at: Revision(1), got: Revision(wrong) }));
            assert_eq!(mesh, before);
        }
        mesh.apply(&Delta { revision: Revision(2), changes: vec![Change::Delete(cluster("east", 1).key())] }).unwrap();
        assert_eq!(mesh.records().len(), 0);
    }

    #[test]
    fn s13_a_compacted_history_resumes_from_its_oldest_revision_on() {
        let mut history = History::new(Mesh::default(), 10);
        for revision in 1..=4 {
            history.push(put(revision, "east")).unwrap();
        }
        assert_eq!(history.oldest(), Revision(0));
        history.compact(Revision(2));
        assert_eq!(history.oldest(), Revision(2));
        assert!(matches!(history.resume(Revision(2)), Resume::Deltas(deltas) if deltas.len() == 2));
        assert!(matches!(history.resume(Revision(1)), Resume::Snapshot(_)));
        history.compact(Revision(9));
        assert_eq!(history.oldest(), Revision(4));
        assert!(matches!(history.resume(Revision(4)), Resume::Deltas(deltas) if deltas.is_empty()));
    }

    #[test]
    fn what_changed_is_told_with_what_it_was() {
        let mut mesh = Mesh::default();
        let (east, west) = (cluster("east", 1), cluster("west", 2));
        mesh.apply(&put(1, "east")).unwrap();
        mesh.apply(&Delta { revision: Revision(2), changes: vec![Change::Put(west.clone())] }).unwrap();
        mesh.apply(&Delta { revision: Revision(3), changes: vec![Change::Delete(east.key())] }).unwrap();
        mesh.apply(&Delta { revision: Revision(4), changes: vec![Change::Put(cluster("east", 3))] }).unwrap();
        let since = |revision| mesh.changed_since(Revision(revision)).map(Vec::from_iter);
        assert_eq!(since(0).unwrap(), [(&east.key(), None), (&west.key(), None)]);
        assert_eq!(since(1).unwrap(), [(&east.key(), Some(&east)), (&west.key(), None)]);
        assert_eq!(since(3).unwrap(), [(&east.key(), None)]);
        assert_eq!((since(4), since(5)), (Some(vec![]), None));
        let copy = Mesh::from_snapshot(mesh.snapshot());
        assert_eq!(copy, mesh, "a journal is no part of the state");
        assert_eq!(copy.changed_since(Revision(4)), Some(BTreeMap::new()));
        assert_eq!(copy.changed_since(Revision(3)), None, "nobody knows what was there");
    }

    #[test]
    fn a_journal_is_bounded() {
        let mut mesh = Mesh::default();
        let revisions = u64::try_from(journal::CHANGES).unwrap() + 2;
        for revision in 1..=revisions {
            mesh.apply(&put(revision, "east")).unwrap();
        }
        assert_eq!(mesh.changed_since(Revision(1)), None);
        assert_eq!(mesh.changed_since(Revision(2)).map(|changed| changed.len()), Some(1));
    }

    #[test]
    fn s13_resume_gives_every_delta_once_or_a_snapshot() {
        let mut history = History::new(Mesh::default(), 2);
        for revision in 1..=4 {
            history.push(put(revision, "east")).unwrap();
        }
        let revisions = |resume| match resume {
            Resume::Deltas(deltas) => Some(deltas.iter().map(|d| d.revision.0).collect::<Vec<_>>()),
            Resume::Snapshot(_) => None,
        };
        assert_eq!(revisions(history.resume(Revision(4))), Some(vec![]));
        assert_eq!(revisions(history.resume(Revision(3))), Some(vec![4]));
        assert_eq!(revisions(history.resume(Revision(2))), Some(vec![3, 4]));
        assert_eq!(revisions(history.resume(Revision(1))), None);
        assert_eq!(revisions(history.resume(Revision(9))), None, "ahead of the head: only a snapshot can be right");
    }
}
