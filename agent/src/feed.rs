//! What the agent was told about the mesh.

use std::sync::{Arc, Mutex, PoisonError};

use ringfence_policy::{
    mesh::{Mesh, RevisionGap},
    revision::Revision,
};
use ringfence_proto::follow::FollowEvent;
use ringfence_runtime::freshness::Freshness;
use tokio::sync::watch;

/// The newest state received, and how old it may be.
#[derive(Debug)]
pub struct Feed {
    followed: watch::Sender<Followed>,
    freshness: Freshness,
    gateway: Mutex<String>,
}

/// A state of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// Shared: a delta is applied in place unless somebody still reads the state before it.
    pub mesh: Arc<Mesh>,
    /// Whether the gateway's newest state was reached at least once since the agent started.
    pub complete: bool,
}

/// What the gateway sent cannot follow what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// A revision is missing.
    #[error(transparent)]
    Gap(#[from] RevisionGap),
    /// The gateway has not yet what is here: going back would undo what is enforced (S3).
    #[error("its state is at revision {got}, older than revision {at} that is here")]
    Behind {
        /// The revision here.
        at: Revision,
        /// The revision there.
        got: Revision,
    },
}

impl Feed {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            followed: watch::Sender::new(Followed::default()),
            freshness: Freshness::unknown(),
            gateway: Mutex::new(String::new()),
        }
    }

    /// Takes what the gateway sent; as a whole or not at all.
    ///
    /// # Errors
    /// `OutOfOrder`; nothing changes then.
    pub fn take(&self, event: FollowEvent) -> Result<(), OutOfOrder> {
        let mut outcome = Ok(());
        self.followed.send_if_modified(|followed| {
            let at = followed.mesh.revision();
            match event {
                FollowEvent::Snapshot(snapshot) if snapshot.revision < at => {
                    outcome = Err(OutOfOrder::Behind { at, got: snapshot.revision });
                    false
                }
                FollowEvent::Snapshot(snapshot) => {
                    *followed = Followed { mesh: Arc::new(Mesh::from_snapshot(snapshot)), complete: true };
                    true
                }
                FollowEvent::Delta(delta) => {
                    outcome = Arc::make_mut(&mut followed.mesh).apply(&delta).map_err(OutOfOrder::from);
                    outcome.is_ok()
                }
                FollowEvent::Quiet { revision } if revision > at => {
                    Arc::make_mut(&mut followed.mesh).skip_to(revision);
                    true
                }
                FollowEvent::Quiet { .. } => false,
                FollowEvent::Progress { revision, staleness } if revision <= at => {
                    self.freshness.heard(staleness);
                    !std::mem::replace(&mut followed.complete, true)
                }
                FollowEvent::Progress { .. } => false,
            }
        });
        outcome
    }

    /// The newest state.
    #[must_use]
    pub fn followed(&self) -> Followed {
        self.followed.borrow().clone()
    }

    /// Wakes whenever the state moves.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Followed> {
        self.followed.subscribe()
    }

    /// How old the state may be.
    #[must_use]
    pub const fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The gateway that is followed; empty while none is.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the gateway that is followed.
    pub fn set_gateway(&self, address: &str) {
        address.clone_into(&mut self.gateway.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::record::{Delta, Snapshot};
    use std::time::Duration;

    fn delta(revision: u64) -> FollowEvent {
        FollowEvent::Delta(Delta { revision: Revision(revision), changes: vec![] })
    }

    fn snapshot(revision: u64) -> FollowEvent {
        FollowEvent::Snapshot(Snapshot { revision: Revision(revision), ..Snapshot::default() })
    }

    #[test]
    fn s3_the_state_never_goes_back_and_never_skips() {
        let feed = Feed::new();
        feed.take(snapshot(7)).unwrap();
        let reader = feed.followed();
        feed.take(delta(8)).unwrap();
        assert_eq!(reader.mesh.revision(), Revision(7), "a reader keeps the state it read");
        assert_eq!(feed.take(snapshot(7)), Err(OutOfOrder::Behind { at: Revision(8), got: Revision(7) }));
        assert!(matches!(feed.take(delta(10)), Err(OutOfOrder::Gap(_))));
        assert_eq!(feed.followed().mesh.revision(), Revision(8));
    }

    #[test]
    fn s13_what_is_of_no_interest_is_skipped_and_nothing_else() {
        let feed = Feed::new();
        feed.take(snapshot(7)).unwrap();
        feed.take(FollowEvent::Quiet { revision: Revision(9) }).unwrap();
        assert_eq!(feed.followed().mesh.revision(), Revision(9));
        feed.take(FollowEvent::Quiet { revision: Revision(8) }).unwrap();
        feed.take(delta(10)).unwrap();
        assert_eq!(feed.followed().mesh.revision(), Revision(10));
        assert!(matches!(feed.take(delta(12)), Err(OutOfOrder::Gap(_))));
    }

    #[test]
    fn s8_a_state_is_complete_once_the_gateways_head_was_reached() {
        let feed = Feed::new();
        let progress = |revision| FollowEvent::Progress { revision: Revision(revision), staleness: Duration::ZERO };
        feed.take(delta(1)).unwrap();
        feed.take(progress(2)).unwrap();
        assert!(!feed.followed().complete);
        feed.take(delta(2)).unwrap();
        feed.take(progress(2)).unwrap();
        assert!(feed.followed().complete);
    }
}
