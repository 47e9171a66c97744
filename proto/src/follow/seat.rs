//! What one follower is being given, and whether it takes it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use ringfence_policy::revision::Revision;

use super::{
    frames::Run,
    snapshot::{EncodedSnapshot, Part},
};

/// One follower's place. All that is held for it lies here, so that it can be taken away from one that does not take it.
#[derive(Debug)]
pub(super) struct Seat {
    patience: Duration,
    sitting: Mutex<Sitting>,
}

#[derive(Debug)]
struct Sitting {
    /// All up to here was given.
    at: Revision,
    held: Held,
    /// When it got something after which it has not come back.
    given: Option<Instant>,
    cut_off: bool,
}

/// What is to be given next.
#[derive(Debug)]
pub(super) enum Held {
    Nothing,
    /// With the revision to which they lead.
    Deltas {
        deltas: Run,
        next: usize,
        to: Revision,
    },
    Snapshot {
        snapshot: Arc<EncodedSnapshot>,
        next: usize,
    },
}

/// What there is for a follower that comes.
pub(super) enum Taken {
    Event(Bytes),
    /// All was given that leads to this revision; `anew` after a snapshot.
    Nothing {
        at: Revision,
        anew: bool,
    },
    /// The next part of a snapshot is not there yet.
    Awaited(Arc<EncodedSnapshot>, usize),
    /// It had its time.
    CutOff(Revision, Duration),
}

impl Held {
    /// All of these; there is one at least.
    pub(super) fn all(deltas: Run) -> Self {
        let to = deltas.last().map_or_else(Revision::default, |(last, _)| *last);
        Self::Deltas { deltas, next: 0, to }
    }
}

impl Seat {
    /// `patience`: a follower that takes nothing for this long is cut off, so that it does not hold on to a snapshot for
    /// ever.
    pub(super) fn new(at: Revision, patience: Duration) -> Self {
        let sitting = Sitting { at, held: Held::Nothing, given: Some(Instant::now()), cut_off: false };
        Self { patience, sitting: Mutex::new(sitting) }
    }

    pub(super) fn take(&self) -> Taken {
        let mut sitting = self.lock();
        if sitting.cut_off {
            return Taken::CutOff(sitting.at, self.patience);
        }
        let (event, at) = match &mut sitting.held {
            Held::Nothing => return Taken::Nothing { at: sitting.at, anew: false },
            Held::Deltas { deltas, next, to } => {
                let Some((revision, frame)) = deltas.get(*next).cloned() else {
                    (sitting.at, sitting.held) = (*to, Held::Nothing);
                    return Taken::Nothing { at: sitting.at, anew: false };
                };
                *next += 1;
                (frame, Some(revision))
            }
            Held::Snapshot { snapshot, next } => match snapshot.part(*next) {
                Part::Ready(part) => {
                    *next += 1;
                    (part, None)
                }
                Part::Awaited => return Taken::Awaited(snapshot.clone(), *next),
                Part::End(revision) => {
                    (sitting.at, sitting.held) = (revision, Held::Nothing);
                    return Taken::Nothing { at: revision, anew: true };
                }
            },
        };
        sitting.at = at.unwrap_or(sitting.at);
        sitting.given = Some(Instant::now());
        Taken::Event(event)
    }

    pub(super) fn hold(&self, held: Held) {
        let mut sitting = self.lock();
        if !sitting.cut_off {
            sitting.held = held;
        }
    }

    /// It has come and waits.
    pub(super) fn waits(&self) {
        self.lock().given = None;
    }

    /// Cuts off one that has not come for too long.
    pub(super) fn check(&self, now: Instant) {
        let mut sitting = self.lock();
        if sitting.given.is_some_and(|given| now.duration_since(given) >= self.patience) {
            (sitting.cut_off, sitting.held) = (true, Held::Nothing);
        }
    }

    #[cfg(test)]
    pub(super) fn is_cut_off(&self) -> bool {
        self.lock().cut_off
    }

    fn lock(&self) -> MutexGuard<'_, Sitting> {
        self.sitting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
