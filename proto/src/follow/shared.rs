//! A history that many followers read while one writer moves it.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use ringfence_policy::{
    mesh::{History, Mesh, RevisionGap},
    record::Delta,
    revision::Revision,
};
use tokio::sync::watch;

/// `History` behind a lock, with a signal for every new head. Put it into an `Arc`.
#[derive(Debug)]
pub struct SharedHistory {
    history: RwLock<History>,
    head: watch::Sender<Revision>,
}

impl SharedHistory {
    /// Shares a history.
    #[must_use]
    pub fn new(history: History) -> Self {
        let head = watch::Sender::new(history.mesh().revision());
        Self { history: RwLock::new(history), head }
    }

    /// Reads under the lock: keep `f` short, the writer waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&History) -> R) -> R {
        f(&self.lock_read())
    }

    /// Moves to the next revision and wakes every follower.
    ///
    /// # Errors
    /// `RevisionGap` if the delta does not follow; nothing changes then.
    pub fn push(&self, delta: Delta) -> Result<(), RevisionGap> {
        let revision = delta.revision;
        self.lock_write().push(delta)?;
        self.head.send_replace(revision);
        Ok(())
    }

    /// Forgets the steps up to a revision; the oldest one from which a follower resumes now.
    pub fn compact(&self, upto: Revision) -> Revision {
        let mut history = self.lock_write();
        history.compact(upto);
        history.oldest()
    }

    /// Replaces the state; every follower gets a snapshot.
    pub fn reset(&self, mesh: Mesh) {
        let revision = mesh.revision();
        self.lock_write().reset(mesh);
        self.head.send_replace(revision);
    }

    /// The newest revision, and a way to wait for the next one.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    fn lock_read(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().expect("History's methods do not panic while the lock is held")
    }

    fn lock_write(&self) -> RwLockWriteGuard<'_, History> {
        self.history.write().expect("History's methods do not panic while the lock is held")
    }
}
