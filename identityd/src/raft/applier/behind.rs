//! The state on disk, behind the one in memory: what changed is noted, and written from time to time.
//!
//! ```text
//! apply ─► Position { Dirty: which records and rows } ─ every WRITE_INTERVAL, when they are many, before a snapshot ─┐
//!                  └─ Image: the state at one entry, in a moment ───────────────────────────────────────────────┴─► State
//! ```
//!
//! A record that changes often is written once. Nothing is lost by it: the log brings back what a crash takes from the
//! state, as it does anyway for what was not synced. The log is cut only behind a durable snapshot, and before that is
//! made everything is written and synced.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use ringfence_proto::follow::SharedHistory;

use super::position::{Image, Position};
use crate::{
    history::DiskHistory,
    machine::Book,
    state::{Marker, State, StateError},
};

/// How far the disk may be behind: a restart after a crash applies as much again.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// … and as far as this many bytes say which records and rows it misses: 100,000 endpoints, or many more identities.
const MOST_DIRTY_BYTES: usize = 12 << 20;
/// Beyond this many, applying waits for the disk.
const TOO_MANY_DIRTY_BYTES: usize = 4 * MOST_DIRTY_BYTES;

/// The state machine's state, in memory and on disk. One writer at a time for each of them.
pub(super) struct Behind {
    pub(super) history: Arc<SharedHistory>,
    pub(super) past: Arc<DiskHistory>,
    pub(super) state: Arc<State>,
    position: Mutex<Position>,
    /// Held while the disk is written, so that images come in their order. Taken before `position`.
    writing: Mutex<()>,
    failed: Mutex<Option<StateError>>,
    wake: SyncSender<()>,
}

impl Behind {
    pub(super) fn start(
        history: Arc<SharedHistory>,
        past: Arc<DiskHistory>,
        state: Arc<State>,
        position: Position,
    ) -> Arc<Self> {
        let (wake, woken) = sync_channel(1);
        let position = Mutex::new(position);
        let (writing, failed) = (Mutex::default(), Mutex::default());
        let behind = Arc::new(Self { history, past, state, position, writing, failed, wake });
        let weak = Arc::downgrade(&behind);
        let spawned = std::thread::Builder::new().name("state".to_owned()).spawn(move || write_behind(&weak, &woken));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for the state: it is written only before snapshots, and at the end");
        }
        behind
    }

    pub(super) fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().expect("no code panics while it holds the state machine's position")
    }

    /// The state as it is.
    pub(super) fn image(&self) -> Image {
        self.position().image(&self.history)
    }

    /// Something was applied; so many bytes say what is not on disk.
    ///
    /// # Errors
    /// That of an earlier write.
    pub(super) fn noted(&self, dirty_bytes: usize) -> Result<(), StateError> {
        if let Some(error) = self.failed().take() {
            return Err(error);
        }
        if dirty_bytes >= TOO_MANY_DIRTY_BYTES {
            return self.write();
        }
        if dirty_bytes >= MOST_DIRTY_BYTES {
            self.wake();
        }
        Ok(())
    }

    /// Lets the disk catch up soon.
    pub(super) fn wake(&self) {
        match self.wake.try_send(()) {
            // Woken already, or without a thread.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Brings the disk up to what was applied when this was called. Applying goes on meanwhile.
    ///
    /// # Errors
    /// `StateError`; the state on disk is of no use any more then.
    pub(super) fn write(&self) -> Result<(), StateError> {
        let _writing = self.writing();
        let (dirty, image) = {
            let mut position = self.position();
            if !position.dirty.has_moved {
                return Ok(());
            }
            (std::mem::take(&mut position.dirty), position.image(&self.history))
        };
        // After a crash the history must reach as far as the state.
        self.past.flush();
        self.state.write(dirty.changes(&image), &image.marker)?;
        self.state.hand_over()
    }

    /// Replaces the state, on disk first.
    ///
    /// # Errors
    /// `StateError`.
    pub(super) fn replace(&self, image: Image, adopt: impl FnOnce(&Marker)) -> Result<(), StateError> {
        let _writing = self.writing();
        let Image { marker, mesh, ledger } = image;
        self.state.replace(&mesh, &ledger, &marker)?;
        let next = Position::new(marker, Book::of(&mesh, ledger));
        // Whoever reads the state meanwhile, the core thread too, waits for the exchange only: what is new is made before,
        // and what goes is freed behind.
        let before = self.history.read(|history| history.mesh().clone());
        let former = {
            let mut position = self.position();
            adopt(&next.marker);
            self.history.replace(next.book.ledger().store(), mesh);
            std::mem::replace(&mut *position, next)
        };
        drop((former, before));
        Ok(())
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Option<StateError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_behind(behind: &Weak<Behind>, woken: &Receiver<()>) {
    while !matches!(woken.recv_timeout(WRITE_INTERVAL), Err(RecvTimeoutError::Disconnected)) {
        let Some(behind) = behind.upgrade() else { return };
        if let Err(error) = behind.write() {
            *behind.failed() = Some(error);
        }
    }
}
