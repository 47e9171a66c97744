//! Events encoded once, for all followers that need them.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use prost::{Message, bytes::Bytes};
use ringfence_policy::{
    record::{Delta, Snapshot},
    revision::Revision,
    store::StoreId,
};

use super::{
    server::chunk,
    wire::{FollowEvent, follow_event::Event},
};
use crate::v1;

/// A snapshot as the events that carry it.
#[derive(Debug)]
pub(super) struct EncodedSnapshot {
    pub(super) revision: Revision,
    pub(super) chunks: Vec<Bytes>,
}

/// The newest deltas, as far as somebody followed when they came; the snapshot that is being sent at the moment.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// One revision after the other; the last one is the head.
    deltas: VecDeque<(Revision, Bytes)>,
    snapshot: Weak<EncodedSnapshot>,
}

impl Frames {
    pub(super) fn push(&mut self, revision: Revision, frame: Bytes, capacity: usize) {
        if self.deltas.back().is_some_and(|(last, _)| last.next() != revision) {
            self.deltas.clear();
        }
        if self.deltas.len() >= capacity {
            self.deltas.pop_front();
        }
        self.deltas.push_back((revision, frame));
    }

    pub(super) fn compact(&mut self, upto: Revision) {
        self.deltas.retain(|(revision, _)| *revision > upto);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// At most `limit` frames that follow `from`; none if the next one is not here.
    pub(super) fn after(&self, from: Revision, limit: usize) -> Vec<(Revision, Bytes)> {
        let first = self.deltas.front().map_or(0, |(first, _)| first.0);
        let skip = (from.0 + 1).checked_sub(first).filter(|_| first > 0).and_then(|skip| usize::try_from(skip).ok());
        skip.map_or_else(Vec::new, |skip| self.deltas.iter().skip(skip).take(limit).cloned().collect())
    }

    pub(super) fn snapshot(&self) -> Option<Arc<EncodedSnapshot>> {
        self.snapshot.upgrade()
    }

    pub(super) fn set_snapshot(&mut self, snapshot: &Arc<EncodedSnapshot>) {
        self.snapshot = Arc::downgrade(snapshot);
    }
}

/// A delta as an event.
pub(super) fn encode_delta(delta: &Delta) -> Bytes {
    encode(Event::Delta(delta.clone().into()))
}

/// A snapshot of a store as events, each of about the size of a chunk.
pub(super) fn encode_snapshot(store: Option<StoreId>, snapshot: Snapshot) -> EncodedSnapshot {
    let revision = snapshot.revision;
    let store_id = store.map(|store| store.to_string()).unwrap_or_default();
    let mut chunks = chunk(snapshot.records.into_values()).peekable();
    let mut encoded = Vec::new();
    while let Some(records) = chunks.next() {
        let last = chunks.peek().is_none();
        let store_id = store_id.clone();
        encoded.push(encode(Event::Snapshot(v1::SnapshotChunk { revision: revision.0, records, last, store_id })));
    }
    EncodedSnapshot { revision, chunks: encoded }
}

fn encode(event: Event) -> Bytes {
    FollowEvent::from(event).encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_frames_have_no_gap_and_are_bounded() {
        let mut frames = Frames::default();
        let frame = Bytes::new;
        let after = |frames: &Frames, from| {
            frames.after(Revision(from), 3).into_iter().map(|(revision, _)| revision.0).collect::<Vec<_>>()
        };
        assert!(after(&frames, 0).is_empty());
        (3..=9).for_each(|revision| frames.push(Revision(revision), frame(), 5));
        assert_eq!(after(&frames, 4), [5, 6, 7]);
        assert_eq!(after(&frames, 8), [9]);
        assert!(after(&frames, 9).is_empty());
        assert!(after(&frames, 3).is_empty(), "4 is gone");
        frames.push(Revision(12), frame(), 5);
        assert!(after(&frames, 8).is_empty(), "10 and 11 were not kept: nobody followed");
        assert_eq!(after(&frames, 11), [12]);
    }
}
