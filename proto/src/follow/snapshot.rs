//! A snapshot that is sent while it is read: part after part, each under the lock for itself, so that a writer waits for
//! one part at most. What changes meanwhile comes once more, in the last parts, which are read at one revision.

use std::{
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prost::bytes::Bytes;
use ringfence_policy::{
    mesh::Mesh,
    record::{RecordKey, Versioned},
    revision::Revision,
    store::StoreId,
};
use tokio::sync::watch;

use super::encode::Chunk;

/// A part's size. Small enough for the allocator to use again what followers have taken, and for a writer to wait for.
pub(super) const PART_BYTES: usize = 64 << 10;
const SLACK_BYTES: usize = 1 << 10;

/// Events that carry one snapshot, for all followers that need one at that time.
#[derive(Debug)]
pub(super) struct EncodedSnapshot {
    parts: Mutex<Vec<Bytes>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    parts: usize,
    /// Set when all parts are there.
    whole_at: Option<Revision>,
}

/// What there is of a snapshot.
pub(super) enum Part {
    Ready(Bytes),
    /// It is being read.
    Awaited,
    /// There are no more: all of it is of this revision.
    End(Revision),
}

impl EncodedSnapshot {
    pub(super) fn new() -> Self {
        Self { parts: Mutex::default(), progress: watch::Sender::default() }
    }

    /// Of records that are all of one revision.
    pub(super) fn of<'r>(
        revision: Revision,
        store: Option<StoreId>,
        records: impl Iterator<Item = &'r Versioned>,
    ) -> Self {
        let (mut chunk, mut parts) = (Chunk::new(revision, false, PART_BYTES + SLACK_BYTES), Vec::new());
        put_all(&mut chunk, &mut parts, revision, records);
        parts.push(chunk.finish(Some((revision, store))));
        let progress = Progress { parts: parts.len(), whole_at: Some(revision) };
        Self { parts: Mutex::new(parts), progress: watch::Sender::new(progress) }
    }

    /// The revision of the whole; none while it is being read.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.progress.borrow().whole_at
    }

    pub(super) fn part(&self, index: usize) -> Part {
        let parts = self.parts();
        match (parts.get(index), self.revision()) {
            (Some(part), _) => Part::Ready(part.clone()),
            (None, Some(revision)) => Part::End(revision),
            (None, None) => Part::Awaited,
        }
    }

    /// Until there is a part of this index, or all are there.
    pub(super) async fn wait_for(&self, index: usize) {
        let is_there = |progress: &Progress| progress.parts > index || progress.whole_at.is_some();
        self.progress.subscribe().wait_for(is_there).await.expect("its sender is here");
    }

    /// Reads the mesh to its end; `read` gives access to it, and to whose it is, for a moment.
    pub(super) fn fill(&self, read: impl Fn(&mut dyn FnMut(&Mesh, Option<StoreId>))) {
        let mut reader = Reader::default();
        while self.revision().is_none() {
            let mut whole_at = None;
            let mut fresh = Vec::new();
            read(&mut |mesh, store| whole_at = reader.next(mesh, store, &mut fresh));
            let mut parts = self.parts();
            parts.append(&mut fresh);
            self.progress.send_replace(Progress { parts: parts.len(), whole_at });
        }
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a mesh was read.
#[derive(Debug, Default)]
struct Reader {
    began: Option<(Revision, Option<StoreId>)>,
    last: Option<RecordKey>,
}

impl Reader {
    /// Adds the next part; at the end also what mends the ones before, and answers with the revision of the whole.
    fn next(&mut self, mesh: &Mesh, store: Option<StoreId>, parts: &mut Vec<Bytes>) -> Option<Revision> {
        let (began, of) = *self.began.get_or_insert((mesh.revision(), store));
        let mut chunk = Chunk::new(began, false, PART_BYTES + SLACK_BYTES);
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, record) in mesh.records().range((after, Bound::Unbounded)) {
            chunk.put(record);
            if chunk.len() >= PART_BYTES {
                self.last = Some(key.clone());
                parts.push(chunk.finish(None));
                return None;
            }
        }
        let whole_at = mesh.revision();
        // Revisions of another store say nothing about this one's.
        if let Some(changed) = mesh.changed_since(began).filter(|_| of == store) {
            for key in changed.into_keys() {
                match mesh.records().get(key) {
                    Some(record) => chunk.put(record),
                    None => chunk.remove(key),
                }
                if chunk.len() >= PART_BYTES {
                    let next = Chunk::new(began, false, PART_BYTES + SLACK_BYTES);
                    parts.push(std::mem::replace(&mut chunk, next).finish(None));
                }
            }
        } else {
            // More has changed than is remembered, or the state was replaced: once more, at one go.
            chunk = Chunk::new(began, true, PART_BYTES + SLACK_BYTES);
            put_all(&mut chunk, parts, began, mesh.records().values());
        }
        parts.push(chunk.finish(Some((whole_at, store))));
        Some(whole_at)
    }
}

/// Adds records to a chunk, and to others where it is full.
fn put_all<'r>(
    chunk: &mut Chunk,
    parts: &mut Vec<Bytes>,
    began: Revision,
    records: impl Iterator<Item = &'r Versioned>,
) {
    for record in records {
        chunk.put(record);
        if chunk.len() >= PART_BYTES {
            let next = Chunk::new(began, false, PART_BYTES + SLACK_BYTES);
            parts.push(std::mem::replace(chunk, next).finish(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::{
        assembly::Assembly,
        wire::{FollowEvent, follow_event::Event},
    };
    use crate::v1;
    use prost::Message;
    use ringfence_policy::{
        label::LabelSet,
        name::Name,
        record::{Change, Delta, Node, Record, Snapshot},
    };

    fn node(number: usize) -> Record {
        // About a kilobyte.
        let addresses =
            (0..32).map(|n| std::net::Ipv6Addr::from((0xfd00 << 112) | ((number as u128) << 32) | n).into());
        let (cluster, name) = (Name::new("east").unwrap(), Name::new(format!("n{number:06}")).unwrap());
        Record::Node(Node { cluster, name, addresses: addresses.collect(), labels: LabelSet::default() })
    }

    fn apply(mesh: &mut Mesh, changes: Vec<Change>) {
        mesh.apply(&Delta { revision: mesh.revision().next(), changes }).unwrap();
    }

    /// Changes the mesh after every part; what a follower makes of the parts.
    fn read(mesh: &mut Mesh, mut change: impl FnMut(&mut Mesh, usize)) -> (Snapshot, usize) {
        let (mut reader, mut parts) = (Reader::default(), Vec::new());
        while reader.next(mesh, None, &mut parts).is_none() {
            change(mesh, parts.len());
        }
        let mut assembly = Assembly::default();
        let mut whole = None;
        for part in &parts {
            assert!(part.len() < PART_BYTES + 4 * SLACK_BYTES, "{} bytes", part.len());
            assert!(whole.is_none(), "nothing comes after the last part");
            let Some(Event::Snapshot(chunk)) = FollowEvent::decode(part.clone()).unwrap().event else { panic!() };
            whole = assembly.take(chunk).unwrap();
        }
        (whole.unwrap(), parts.len())
    }

    #[test]
    fn s13_a_snapshot_that_was_read_while_the_state_moved_is_of_one_revision() {
        let mut mesh = Mesh::default();
        apply(&mut mesh, (0..1000).map(|number| Change::Put(node(number * 10))).collect());
        let (whole, parts) = read(&mut mesh, |mesh, part| {
            let far = (part * 7919) % 1000;
            let near = part * 37 % 1000;
            apply(mesh, vec![Change::Put(node(far * 10 + 1)), Change::Delete(node(near * 10).key())]);
            let Record::Node(other) = node(far * 10) else { panic!() };
            apply(mesh, vec![Change::Put(Record::Node(Node { addresses: vec![], ..other }))]);
        });
        assert!(parts > 5, "{parts} parts");
        assert_eq!(whole, mesh.snapshot());
    }

    #[test]
    fn s13_what_changed_too_much_while_it_was_read_comes_anew() {
        let mut mesh = Mesh::default();
        apply(&mut mesh, (0..300).map(|number| Change::Put(node(number))).collect());
        let (whole, _) = read(&mut mesh, |mesh, part| {
            let gone = mesh.records().keys().next().unwrap().clone();
            apply(mesh, vec![Change::Delete(gone)]);
            if part == 2 {
                (0..5000).for_each(|_| apply(mesh, vec![Change::Put(node(299))]));
            }
        });
        assert_eq!(mesh.changed_since(Revision(1)), None);
        assert_eq!(whole, mesh.snapshot());
    }

    #[test]
    fn s13_of_another_store_that_came_meanwhile_everything_comes_anew() {
        let store = |number| Some(StoreId::new(1_795_000_000_000, [number; 10]));
        let mut mesh = Mesh::default();
        apply(&mut mesh, (0..300).map(|number| Change::Put(node(number))).collect());
        let (mut reader, mut parts) = (Reader::default(), Vec::new());
        assert_eq!(reader.next(&mesh, store(1), &mut parts), None);
        while reader.next(&mesh, store(2), &mut parts).is_none() {}
        let chunks: Vec<v1::SnapshotChunk> = parts
            .into_iter()
            .map(|part| match FollowEvent::decode(part).unwrap().event {
                Some(Event::Snapshot(chunk)) => chunk,
                other => panic!("{other:?}"),
            })
            .collect();
        let anew = chunks.iter().position(|chunk| chunk.anew).expect("everything comes once more");
        assert_eq!(chunks[anew..].iter().map(|chunk| chunk.records.len()).sum::<usize>(), 300);
        assert_eq!(chunks.last().unwrap().store_id, store(2).unwrap().to_string());
    }
}
