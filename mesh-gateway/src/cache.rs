//! What the gateway knows of the mesh.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ringfence_policy::{
    mesh::{History, Mesh, RevisionGap},
    record::{Delta, Snapshot},
    revision::Revision,
    store::StoreId,
};
use ringfence_proto::follow::{FollowEvent, Position, SharedHistory};
use ringfence_runtime::freshness::Freshness;

/// The newest state received, its history for agents that resume, and how old it may be.
#[derive(Debug)]
pub struct MeshCache {
    history: Arc<SharedHistory>,
    freshness: Arc<Freshness>,
    upstream: Mutex<String>,
}

/// What the upstream sent cannot follow what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// A revision is missing.
    #[error(transparent)]
    Gap(#[from] RevisionGap),
    /// The upstream has not yet, or no more, what is here: going back would undo what agents already enforce (S3).
    #[error("its state is at revision {got}, older than revision {at} that is here")]
    Behind {
        /// The revision here.
        at: Revision,
        /// The revision there.
        got: Revision,
    },
}

impl MeshCache {
    /// Knows nothing yet.
    ///
    /// `history`: the most deltas to keep.
    #[must_use]
    pub fn new(history: usize) -> Self {
        Self {
            history: Arc::new(SharedHistory::new(History::new(Mesh::default(), history))),
            freshness: Arc::new(Freshness::unknown()),
            upstream: Mutex::new(String::new()),
        }
    }

    /// Takes what the upstream sent; as a whole or not at all. `store`: of which it is.
    ///
    /// # Errors
    /// `OutOfOrder`; nothing changes then.
    pub fn take(&self, event: FollowEvent, store: Option<StoreId>) -> Result<(), OutOfOrder> {
        match event {
            FollowEvent::Snapshot(snapshot) => self.replace(snapshot, store)?,
            FollowEvent::Delta(delta) => self.push(delta)?,
            // The gateway follows everything: a revision that is left out is missing.
            FollowEvent::Quiet { revision } => return Err(RevisionGap { at: self.revision(), got: revision }.into()),
            FollowEvent::Progress { revision, staleness } if revision <= self.revision() => {
                self.freshness.heard(staleness);
            }
            FollowEvent::Progress { .. } => {}
        }
        Ok(())
    }

    /// Starts with a state that was kept on disk.
    pub fn restore(&self, snapshot: Snapshot, store: Option<StoreId>, staleness: Duration) {
        self.history.replace(store, Mesh::from_snapshot(snapshot));
        self.freshness.assume(staleness);
    }

    /// The newest state and the steps to it.
    #[must_use]
    pub fn history(&self) -> Arc<SharedHistory> {
        Arc::clone(&self.history)
    }

    /// How old the state may be.
    #[must_use]
    pub fn freshness(&self) -> Arc<Freshness> {
        Arc::clone(&self.freshness)
    }

    /// The newest revision and its store: where the upstream goes on.
    #[must_use]
    pub fn position(&self) -> Position {
        self.history.position()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.history.read(|history| history.mesh().revision())
    }

    /// The member that is followed; empty while none is.
    #[must_use]
    pub fn upstream(&self) -> String {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the member that is followed.
    pub fn set_upstream(&self, address: &str) {
        address.clone_into(&mut self.upstream.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn replace(&self, snapshot: Snapshot, store: Option<StoreId>) -> Result<(), OutOfOrder> {
        let Position { store: before, revision: at } = self.position();
        if snapshot.revision < at {
            return Err(OutOfOrder::Behind { at, got: snapshot.revision });
        }
        if before.is_some() && store != before {
            tracing::warn!(?before, ?store, revision = %snapshot.revision, "the store was replaced by another one");
        }
        self.history.replace(store, Mesh::from_snapshot(snapshot));
        Ok(())
    }

    fn push(&self, delta: Delta) -> Result<(), OutOfOrder> {
        Ok(self.history.push(delta)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(revision: u64) -> FollowEvent {
        FollowEvent::Delta(Delta { revision: Revision(revision), changes: vec![] })
    }

    fn snapshot(revision: u64) -> FollowEvent {
        FollowEvent::Snapshot(Snapshot { revision: Revision(revision), ..Snapshot::default() })
    }

    #[test]
    fn s3_the_cache_never_goes_back_and_never_skips() {
        let cache = MeshCache::new(10);
        let (store, other) = (StoreId::new(1, [1; 10]), StoreId::new(2, [2; 10]));
        cache.take(snapshot(7), Some(store)).unwrap();
        cache.take(delta(8), Some(store)).unwrap();
        for of in [store, other] {
            assert_eq!(
                cache.take(snapshot(7), Some(of)),
                Err(OutOfOrder::Behind { at: Revision(8), got: Revision(7) })
            );
        }
        assert!(matches!(cache.take(delta(10), Some(store)), Err(OutOfOrder::Gap(_))));
        assert_eq!(cache.position(), Position { store: Some(store), revision: Revision(8) });
        cache.take(snapshot(9), Some(other)).unwrap();
        assert_eq!(cache.position(), Position { store: Some(other), revision: Revision(9) });
    }

    #[test]
    fn s11_only_a_mark_that_was_reached_makes_the_state_fresh() {
        let cache = MeshCache::new(10);
        let progress = |revision| FollowEvent::Progress { revision: Revision(revision), staleness: Duration::ZERO };
        cache.take(snapshot(7), None).unwrap();
        cache.take(progress(9), None).unwrap();
        assert!(!cache.freshness().is_known(), "revisions 8 and 9 are not here yet");
        cache.take(progress(7), None).unwrap();
        assert!(cache.freshness().is_known());
    }
}
