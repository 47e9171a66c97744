//! How long a member has not known itself in touch with a quorum of the store.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::raft::MemberNode;

/// A leader knows from its followers' answers, a follower from its leader's messages, which carry the leader's own
/// staleness: a leader that lost its quorum cannot keep its followers fresh.
#[derive(Debug)]
pub struct Freshness {
    metrics: watch::Receiver<RaftMetrics<u64, MemberNode>>,
    last: Mutex<Contact>,
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    at: Instant,
    /// How stale the other side was.
    staleness: Duration,
}

impl Freshness {
    /// Begins with a member that was last in touch when its log was last written; a new one counts from now.
    #[must_use]
    pub fn new(metrics: watch::Receiver<RaftMetrics<u64, MemberNode>>, last_written: Option<SystemTime>) -> Self {
        let staleness = last_written.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        Self { metrics, last: Mutex::new(Contact { at: Instant::now(), staleness }) }
    }

    /// A leader was heard that is itself this stale.
    pub fn heard_leader(&self, leader_staleness: Duration) {
        self.set(Contact { at: Instant::now(), staleness: leader_staleness });
    }

    /// Time since this member knew itself in touch with a quorum.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        if let Some(staleness) = self.as_leader() {
            self.set(Contact { at: Instant::now(), staleness });
            return staleness;
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.at.elapsed().saturating_add(last.staleness)
    }

    /// Time since a leader was heard, however stale it was itself.
    #[must_use]
    pub fn since_leader(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed()
    }

    fn as_leader(&self) -> Option<Duration> {
        let metrics = self.metrics.borrow();
        let leads = metrics.state == ServerState::Leader;
        metrics.millis_since_quorum_ack.filter(|_| leads).map(Duration::from_millis)
    }

    fn set(&self, contact: Contact) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = contact;
    }
}
