//! A history that many followers read while one writer moves it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::{Duration, Instant},
};

use ringfence_policy::{
    mesh::{History, Mesh, RevisionGap},
    name::Name,
    record::{Delta, Snapshot},
    revision::Revision,
    store::StoreId,
};
use tokio::sync::watch;

use super::{
    encode::encode_delta,
    frames::{Frames, Run},
    past::Past,
    position::Position,
    seat::Seat,
    snapshot::EncodedSnapshot,
    views::{Cluster, Entrance, Feed, Interest},
    waker::{self, Round, Waker},
};

/// Deltas that a follower gets at once; it comes back for more.
const DELTAS_AT_ONCE: usize = 64;
/// An encoded snapshot that nobody needs any more is kept for so long for the next one who does.
const KEEP_SNAPSHOT: Duration = Duration::from_secs(2);

/// `History` behind a lock, with a signal for every new head. Put it into an `Arc`.
#[derive(Debug)]
pub struct SharedHistory {
    history: RwLock<History>,
    /// Whose history it is. Taken only under the lock of the history where both are read, and changed with it.
    store: Mutex<Option<StoreId>>,
    frames: RwLock<Frames>,
    head: watch::Sender<Revision>,
    waker: Waker,
    waking: OnceLock<()>,
    seats: Mutex<Vec<Weak<Seat>>>,
    snapshot: Mutex<Option<Kept>>,
    views: Mutex<BTreeMap<Name, Cluster>>,
    /// Why nobody is served any more. One for all: a signal for each follower costs as much as a tenth of a delivery.
    stopped: OnceLock<&'static str>,
    past: Option<Arc<dyn Past>>,
}

/// A snapshot that is being sent, or was a moment ago.
#[derive(Debug)]
struct Kept {
    snapshot: Arc<EncodedSnapshot>,
    used: Instant,
}

/// What a follower needs next.
pub(super) enum Next {
    /// The next revisions; none if it is at the head.
    Deltas(Run),
    /// Everything anew.
    Snapshot(Arc<EncodedSnapshot>),
}

impl SharedHistory {
    /// Shares a history.
    #[must_use]
    pub fn new(history: History) -> Self {
        Self {
            head: watch::Sender::new(history.mesh().revision()),
            history: RwLock::new(history),
            store: Mutex::default(),
            frames: RwLock::default(),
            waker: Waker::new(),
            waking: OnceLock::new(),
            seats: Mutex::default(),
            snapshot: Mutex::default(),
            views: Mutex::default(),
            stopped: OnceLock::new(),
            past: None,
        }
    }

    /// Shares a history with a longer past.
    #[must_use]
    pub fn with_past(history: History, past: Arc<dyn Past>) -> Self {
        Self { past: Some(past), ..Self::new(history) }
    }

    /// Reads under the lock: keep `f` short, the writer waits for it.
    pub fn read<R>(&self, f: impl FnOnce(&History) -> R) -> R {
        f(&self.lock_read())
    }

    /// Moves to the next revision and has every follower told.
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
        let oldest = {
            let mut history = self.lock_write();
            history.compact(upto);
            history.oldest()
        };
        self.frames().compact(upto);
        let Some(past) = &self.past else { return oldest };
        past.compact(upto);
        oldest.min(past.oldest())
    }

    /// Whose history it is, and its head.
    #[must_use]
    pub fn position(&self) -> Position {
        let history = self.lock_read();
        Position { store: *self.lock_store(), revision: history.mesh().revision() }
    }

    /// The whole state, and whose it is.
    #[must_use]
    pub fn whole(&self) -> (Option<StoreId>, Snapshot) {
        let history = self.lock_read();
        (*self.lock_store(), history.mesh().snapshot())
    }

    /// Says whose history it is, as soon as that is known.
    pub fn found(&self, store: StoreId) {
        let history = self.lock_read();
        let before = self.lock_store().replace(store);
        drop(history);
        if before != Some(store) {
            // A snapshot says whose it is, too.
            *self.kept() = None;
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
        {
            let mut clusters = self.views();
            let mut history = self.lock_write();
            *self.lock_store() = store;
            history.reset(mesh);
            clusters.values_mut().for_each(|cluster| cluster.renew(history.mesh()));
        }
        *self.frames() = Frames::default();
        *self.kept() = None;
        self.head.send_replace(revision);
    }

    /// Ends the streams of all followers, and of those that still come, as `unavailable` for a reason, so that they move on
    /// to another server at once.
    pub fn stop(&self, reason: &'static str) {
        self.stopped.get_or_init(|| reason);
        // For a round, which wakes those who wait.
        self.head.send_modify(|_| ());
    }

    pub(super) fn stopped(&self) -> Option<&'static str> {
        self.stopped.get().copied()
    }

    /// The newest revision, and a way to wait for the next one.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// A follower comes; its seat is looked after.
    pub(super) fn look_after(self: &Arc<Self>, seat: &Arc<Seat>) {
        self.waking.get_or_init(|| {
            tokio::spawn(waker::wake(Arc::downgrade(self), self.head()));
        });
        self.seats().push(Arc::downgrade(seat));
    }

    /// A follower of a view comes, with what it has of it; takes a while.
    pub(super) fn enter(&self, interest: &Interest, from: Revision) -> Entrance {
        let mut clusters = self.views();
        let history = self.lock_read();
        let new = || Cluster::new(interest.cluster.clone(), history.mesh());
        let cluster = clusters.entry(interest.cluster.clone()).or_insert_with(new);
        cluster.advance(history.mesh());
        let store = *self.lock_store();
        cluster.enter(&interest.viewer, from, history.mesh(), store)
    }

    /// Brings the views to the head; what their followers are told through.
    pub(super) fn advance_views(&self) -> Vec<Arc<Feed>> {
        let mut clusters = self.views();
        if clusters.is_empty() {
            return Vec::new();
        }
        let history = self.lock_read();
        clusters.values_mut().for_each(|cluster| cluster.advance(history.mesh()));
        clusters.values().flat_map(Cluster::feeds).filter(|feed| feed.followers() > 0).cloned().collect()
    }

    pub(super) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// What leads from a revision to the head, encoded for everybody.
    pub(super) fn round(&self, from: Revision, second: u64) -> Round {
        let (to, deltas) = {
            let history = self.lock_read();
            let deltas = history.covers(from).then(|| history.since(from).cloned().collect::<Vec<_>>());
            (history.mesh().revision(), deltas)
        };
        let Some(deltas) = deltas else { return Round::at(to, second) };
        let deltas = encode(&deltas);
        let mut frames = self.frames();
        deltas.iter().for_each(|(revision, frame)| frames.push(*revision, frame.clone()));
        Round { from, to, deltas, second }
    }

    /// Once a second: cuts off who takes nothing, drops what nobody needs.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        self.seats().retain(|seat| seat.upgrade().inspect(|seat| seat.check(now)).is_some());
        self.views().retain(|_, cluster| cluster.tidy(now));
        let mut kept = self.kept();
        if let Some(Kept { snapshot, used }) = &mut *kept {
            if Arc::strong_count(snapshot) > 1 {
                *used = now;
            } else if now.duration_since(*used) >= KEEP_SNAPSHOT {
                *kept = None;
            }
        }
    }

    /// What a follower at `from` needs next on its way to `upto`.
    pub(super) async fn next(self: Arc<Self>, from: Revision, upto: Revision) -> Next {
        if let Some(run) = self.lock_frames().after(from, upto, DELTAS_AT_ONCE) {
            return Next::Deltas(run);
        }
        let remembered = {
            let history = self.lock_read();
            let until = |delta: &&Arc<Delta>| delta.revision <= upto;
            let deltas = || history.since(from).take(DELTAS_AT_ONCE).take_while(until).cloned().collect::<Vec<_>>();
            history.covers(from).then(deltas)
        };
        if let Some(deltas) = remembered.filter(|deltas| !deltas.is_empty()) {
            return Next::Deltas(encode(&deltas));
        }
        match self.past(from).await {
            Some(deltas) => Next::Deltas(deltas),
            None => Next::Snapshot(self.snapshot()),
        }
    }

    /// The next revisions from before memory begins. One that has nothing yet gets a snapshot rather than everything
    /// that ever was.
    async fn past(&self, from: Revision) -> Option<Run> {
        let is_behind = Revision::default() < from && from < *self.head.borrow();
        let past = self.past.clone().filter(|_| is_behind)?;
        let read = tokio::task::spawn_blocking(move || past.deltas_after(from, DELTAS_AT_ONCE)).await.ok()??;
        let deltas: Run = read.iter().map(|delta| (delta.revision, encode_delta(delta))).collect();
        (!deltas.is_empty()).then_some(deltas)
    }

    /// One that is there already, if the deltas since are, too; else a new one.
    pub(super) fn snapshot(self: &Arc<Self>) -> Arc<EncodedSnapshot> {
        let mut kept = self.kept();
        let resumable = |kept: &&mut Kept| kept.snapshot.revision().is_none_or(|at| self.lock_read().covers(at));
        if let Some(kept) = kept.as_mut().filter(resumable) {
            kept.used = Instant::now();
            return kept.snapshot.clone();
        }
        let snapshot = Arc::new(EncodedSnapshot::new());
        *kept = Some(Kept { snapshot: snapshot.clone(), used: Instant::now() });
        let (history, filled) = (self.clone(), snapshot.clone());
        // Where it keeps no other task waiting.
        tokio::task::spawn_blocking(move || {
            filled.fill(|look| {
                let inner = history.lock_read();
                let store = *history.lock_store();
                look(inner.mesh(), store);
            });
        });
        snapshot
    }

    fn lock_read(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().expect("History's methods do not panic while the lock is held")
    }

    fn lock_write(&self) -> RwLockWriteGuard<'_, History> {
        self.history.write().expect("History's methods do not panic while the lock is held")
    }

    fn lock_store(&self) -> MutexGuard<'_, Option<StoreId>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_frames(&self) -> RwLockReadGuard<'_, Frames> {
        self.frames.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn frames(&self) -> RwLockWriteGuard<'_, Frames> {
        self.frames.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken before the history, where both are needed.
    fn views(&self) -> MutexGuard<'_, BTreeMap<Name, Cluster>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(deltas: &[Arc<Delta>]) -> Run {
    deltas.iter().map(|delta| (delta.revision, encode_delta(delta))).collect()
}
