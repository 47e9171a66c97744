//! A history that many followers read while one writer moves it.

use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prost::bytes::Bytes;
use ringfence_policy::{
    mesh::{History, Mesh, RevisionGap},
    record::{Delta, Snapshot},
    revision::Revision,
    store::StoreId,
};
use tokio::sync::{Mutex, watch};

use super::{
    frames::{EncodedSnapshot, Frames, encode_delta, encode_snapshot},
    past::Past,
    position::Position,
    waker::{self, Waker},
};

/// Deltas that a follower gets at once; it comes back for more.
const DELTAS_AT_ONCE: usize = 64;

/// `History` behind a lock, with a signal for every new head. Put it into an `Arc`.
#[derive(Debug)]
pub struct SharedHistory {
    inner: RwLock<Inner>,
    head: watch::Sender<Revision>,
    waker: Waker,
    waking: OnceLock<()>,
    /// A snapshot is encoded by one follower while the others that need one wait for it.
    encoding: Mutex<()>,
    past: Option<Arc<dyn Past>>,
}

#[derive(Debug)]
struct Inner {
    history: History,
    frames: Frames,
    store: Option<StoreId>,
}

/// What a follower needs next.
pub(super) enum Next {
    /// The next revisions, each as an event; none if it is at the head.
    Deltas(Vec<(Revision, Bytes)>),
    /// Everything anew.
    Snapshot(Arc<EncodedSnapshot>),
}

impl SharedHistory {
    /// Shares a history.
    #[must_use]
    pub fn new(history: History) -> Self {
        let head = history.mesh().revision();
        let inner = RwLock::new(Inner { history, frames: Frames::default(), store: None });
        let (head, waker) = (watch::Sender::new(head), Waker::new(head));
        Self { inner, head, waker, waking: OnceLock::new(), encoding: Mutex::new(()), past: None }
    }

    /// Shares a history with a longer past.
    #[must_use]
    pub fn with_past(history: History, past: Arc<dyn Past>) -> Self {
        Self { past: Some(past), ..Self::new(history) }
    }

    /// Reads under the lock: keep `f` short, the writer waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&History) -> R) -> R {
        f(&self.lock_read().history)
    }

    /// Moves to the next revision and wakes every follower.
    ///
    /// # Errors
    /// `RevisionGap` if the delta does not follow; nothing changes then.
    pub fn push(&self, delta: Delta) -> Result<(), RevisionGap> {
        let revision = delta.revision;
        // For those who follow now; whoever comes later encodes what it needs.
        let frame = (self.waker.followers() > 0).then(|| encode_delta(&delta));
        let mut inner = self.lock_write();
        inner.history.push(delta)?;
        if let Some(frame) = frame {
            let capacity = inner.history.capacity();
            inner.frames.push(revision, frame, capacity);
        }
        drop(inner);
        self.head.send_replace(revision);
        Ok(())
    }

    /// Forgets the steps up to a revision; the oldest one from which a follower resumes now.
    pub fn compact(&self, upto: Revision) -> Revision {
        let oldest = {
            let mut inner = self.lock_write();
            inner.history.compact(upto);
            inner.frames.compact(upto);
            inner.history.oldest()
        };
        let Some(past) = &self.past else { return oldest };
        past.compact(upto);
        oldest.min(past.oldest())
    }

    /// Whose history it is, and its head.
    #[must_use]
    pub fn position(&self) -> Position {
        let inner = self.lock_read();
        Position { store: inner.store, revision: inner.history.mesh().revision() }
    }

    /// The whole state, and whose it is.
    #[must_use]
    pub fn whole(&self) -> (Option<StoreId>, Snapshot) {
        let inner = self.lock_read();
        (inner.store, inner.history.mesh().snapshot())
    }

    /// Says whose history it is, as soon as that is known.
    pub fn found(&self, store: StoreId) {
        let mut inner = self.lock_write();
        if inner.store != Some(store) {
            inner.store = Some(store);
            // A snapshot says whose it is, too.
            inner.frames.clear();
        }
    }

    /// Replaces the state; every follower gets a snapshot.
    pub fn reset(&self, mesh: Mesh) {
        let store = self.position().store;
        self.replace(store, mesh);
    }

    /// Replaces the state by one of a store, perhaps another; every follower gets a snapshot.
    pub fn replace(&self, store: Option<StoreId>, mesh: Mesh) {
        let revision = mesh.revision();
        let mut inner = self.lock_write();
        inner.store = store;
        inner.frames.clear();
        inner.history.reset(mesh);
        drop(inner);
        self.head.send_replace(revision);
    }

    /// The newest revision, and a way to wait for the next one.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// A follower's way to wait for the next revision.
    pub(super) fn join(self: &Arc<Self>) -> watch::Receiver<Revision> {
        self.waking.get_or_init(|| {
            tokio::spawn(waker::wake(Arc::downgrade(self), self.head()));
        });
        self.waker.join()
    }

    pub(super) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// What a follower at `from` needs next.
    pub(super) async fn next(&self, from: Revision) -> Next {
        let ready = {
            let inner = self.lock_read();
            let frames = inner.frames.after(from, DELTAS_AT_ONCE);
            match &*frames {
                [] if from == inner.history.mesh().revision() => Some(Next::Deltas(Vec::new())),
                [] if !inner.history.covers(from) => None,
                [] => {
                    let encoded = |delta: &Arc<Delta>| (delta.revision, encode_delta(delta));
                    Some(Next::Deltas(inner.history.since(from).take(DELTAS_AT_ONCE).map(encoded).collect()))
                }
                _ => Some(Next::Deltas(frames)),
            }
        };
        match ready {
            Some(next) => next,
            None => match self.past(from).await {
                Some(deltas) => Next::Deltas(deltas),
                None => Next::Snapshot(self.snapshot().await),
            },
        }
    }

    /// The next revisions from before memory begins. One that has nothing yet gets a snapshot rather than everything
    /// that ever was.
    async fn past(&self, from: Revision) -> Option<Vec<(Revision, Bytes)>> {
        let is_behind = Revision::default() < from && from < *self.head.borrow();
        let past = self.past.clone().filter(|_| is_behind)?;
        let read = tokio::task::spawn_blocking(move || past.deltas_after(from, DELTAS_AT_ONCE)).await.ok()??;
        let deltas: Vec<_> = read.iter().map(|delta| (delta.revision, encode_delta(delta))).collect();
        (!deltas.is_empty()).then_some(deltas)
    }

    /// One that is being sent already, if the deltas since are there; else a new one.
    pub(super) async fn snapshot(&self) -> Arc<EncodedSnapshot> {
        let _alone = self.encoding.lock().await;
        let (store, snapshot) = {
            let inner = self.lock_read();
            let resumable = |snapshot: &Arc<EncodedSnapshot>| inner.history.covers(snapshot.revision);
            if let Some(snapshot) = inner.frames.snapshot().filter(resumable) {
                return snapshot;
            }
            (inner.store, inner.history.mesh().snapshot())
        };
        let encoded = Arc::new(encode_apart(store, snapshot).await);
        self.lock_write().frames.set_snapshot(&encoded);
        encoded
    }

    fn lock_read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().expect("History's methods do not panic while the lock is held")
    }

    fn lock_write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect("History's methods do not panic while the lock is held")
    }
}

/// Where it keeps no other task waiting.
async fn encode_apart(store: Option<StoreId>, snapshot: Snapshot) -> EncodedSnapshot {
    tokio::task::spawn_blocking(move || encode_snapshot(store, snapshot)).await.expect("encoding does not panic")
}
