//! The state on disk, a little behind the one in memory: what many commands changed is written at once.
//!
//! ```text
//! apply ─ note(encoded changes, marker) ─► pending ─ every WRITE_INTERVAL, or when it is large ─► State, one batch
//! ```
//!
//! Nothing is lost by it: the marker is written in the same batch, so what a crash takes from the state the log brings
//! back, as it does anyway for what sled had not synced. The log is cut only behind a snapshot, and before that
//! everything pending is written.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use crate::state::{EncodedChange, Marker, State, StateError};

/// How far the disk may be behind.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// What waits takes at most about this much memory; beyond, applying waits for the disk.
const PENDING_BYTES: usize = 8 << 20;

/// Writes behind the state machine; ends with it.
pub(super) struct Lagging {
    state: Arc<State>,
    pending: Mutex<Pending>,
    wake: SyncSender<()>,
}

#[derive(Default)]
struct Pending {
    changes: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// None if everything is written.
    marker: Option<Marker>,
    failed: Option<StateError>,
}

impl Lagging {
    pub(super) fn start(state: Arc<State>) -> Arc<Self> {
        let (wake, woken) = sync_channel(1);
        let lagging = Arc::new(Self { state, pending: Mutex::default(), wake });
        let weak = Arc::downgrade(&lagging);
        let spawned = std::thread::Builder::new().name("state".to_owned()).spawn(move || write_behind(&weak, &woken));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for the state: it is written only when much is pending, and at the end");
        }
        lagging
    }

    /// Takes what was applied last.
    ///
    /// # Errors
    /// That of an earlier write; nothing more is taken then.
    pub(super) fn note(&self, changes: Vec<EncodedChange>, marker: Marker) -> Result<(), StateError> {
        let mut pending = self.lock();
        for (key, value) in changes {
            pending.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            pending.changes.insert(key, value);
        }
        pending.marker = Some(marker);
        let is_large = pending.bytes >= PENDING_BYTES;
        if let Some(error) = pending.failed.take() {
            return Err(error);
        }
        if is_large {
            return Self::write_locked(&self.state, &mut pending);
        }
        match self.wake.try_send(()) {
            // Woken already, or without a thread.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => Ok(()),
        }
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// `StateError`.
    pub(super) fn write(&self) -> Result<(), StateError> {
        Self::write_locked(&self.state, &mut self.lock())
    }

    /// Forgets what is pending: the whole state is replaced.
    pub(super) fn clear(&self) {
        *self.lock() = Pending::default();
    }

    /// The lock is held while sled takes the batch into its memory, so that batches come in their order.
    fn write_locked(state: &State, pending: &mut Pending) -> Result<(), StateError> {
        let Some(marker) = pending.marker.take() else { return Ok(()) };
        pending.bytes = 0;
        state.write(pending.changes.drain(), &marker)
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_behind(lagging: &Weak<Lagging>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        std::thread::sleep(WRITE_INTERVAL);
        let Some(lagging) = lagging.upgrade() else { return };
        if let Err(error) = lagging.write() {
            lagging.lock().failed = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::revision::Revision;

    fn marker(revision: u64) -> Marker {
        Marker { revision: Revision(revision), ..Marker::default() }
    }

    #[test]
    fn what_is_pending_reaches_the_disk_whole_and_failures_reach_the_state_machine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (state, _) = State::open(&path).unwrap();
        let state = Arc::new(state);
        let lagging = Lagging::start(state.clone());
        for revision in 1..=3 {
            lagging.note(Vec::new(), marker(revision)).unwrap();
        }
        lagging.write().unwrap();
        state.flush().unwrap();
        state.close();
        lagging.note(Vec::new(), marker(4)).unwrap();
        assert!(matches!(lagging.write(), Err(StateError::Closed)));
        let (_, stored) = State::open(&path).unwrap();
        assert_eq!(stored.unwrap().marker, marker(3));
    }
}
