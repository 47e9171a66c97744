//! Deltas encoded once, for all followers that need them.

use std::{collections::VecDeque, sync::Arc};

use prost::bytes::Bytes;
use ringfence_policy::revision::Revision;

/// Bytes of deltas that are kept for followers that lag a little.
const BYTES: usize = 4 << 20;

/// Consecutive deltas as events.
pub(super) type Run = Arc<[(Revision, Bytes)]>;

/// The newest deltas, as far as somebody followed when they came.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// One revision after the other.
    deltas: VecDeque<(Revision, Bytes)>,
    bytes: usize,
}

impl Frames {
    pub(super) fn push(&mut self, revision: Revision, frame: Bytes) {
        if self.deltas.back().is_some_and(|(last, _)| last.next() != revision) {
            *self = Self::default();
        }
        self.bytes += frame.len();
        self.deltas.push_back((revision, frame));
        while self.bytes > BYTES
            && let Some((_, oldest)) = self.deltas.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    pub(super) fn compact(&mut self, upto: Revision) {
        while self.deltas.front().is_some_and(|(revision, _)| *revision <= upto)
            && let Some((_, oldest)) = self.deltas.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// At most `limit` frames from the one that follows `from` to that of `upto`; none if the next one is not here.
    pub(super) fn after(&self, from: Revision, upto: Revision, limit: usize) -> Option<Run> {
        let first = self.deltas.front()?.0;
        let skip = usize::try_from((from.0 + 1).checked_sub(first.0)?).ok()?;
        let until = |(revision, _): &&(Revision, Bytes)| *revision <= upto;
        let run: Run = self.deltas.iter().skip(skip).take(limit).take_while(until).cloned().collect();
        (!run.is_empty()).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(frames: &Frames, from: u64, upto: u64) -> Vec<u64> {
        let run = frames.after(Revision(from), Revision(upto), 3);
        run.iter().flat_map(|run| run.iter()).map(|(revision, _)| revision.0).collect()
    }

    #[test]
    fn s13_frames_have_no_gap() {
        let mut frames = Frames::default();
        assert!(after(&frames, 0, 9).is_empty());
        (5..=9).for_each(|revision| frames.push(Revision(revision), Bytes::new()));
        assert_eq!(after(&frames, 4, 9), [5, 6, 7]);
        assert_eq!(after(&frames, 4, 6), [5, 6]);
        assert_eq!(after(&frames, 8, 9), [9]);
        assert!(after(&frames, 9, 9).is_empty());
        assert!(after(&frames, 3, 9).is_empty(), "4 is gone");
        frames.push(Revision(12), Bytes::new());
        assert!(after(&frames, 8, 12).is_empty(), "10 and 11 were not kept: nobody followed");
        assert_eq!(after(&frames, 11, 12), [12]);
        frames.compact(Revision(12));
        assert!(after(&frames, 11, 12).is_empty());
    }

    #[test]
    fn frames_are_bounded_by_their_bytes() {
        let mut frames = Frames::default();
        for revision in 1..=9 {
            frames.push(Revision(revision), Bytes::from(vec![0; BYTES / 3]));
        }
        assert_eq!(after(&frames, 6, 9), [7, 8, 9]);
        assert!(after(&frames, 5, 9).is_empty());
        frames.push(Revision(10), Bytes::from(vec![0; BYTES + 1]));
        assert_eq!((frames.deltas.len(), frames.bytes), (0, 0), "one that is too large is encoded by who needs it");
    }
}
