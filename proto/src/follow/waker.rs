//! Wakes followers when there is something new, behind those who write.
//!
//! ```text
//! head ─► waker: group after group, giving way after each ─► pause, longer the more followers there are ─► …
//! ```
//!
//! A thousand followers that wake at once would keep every core busy for milliseconds, and the next write with them. In
//! groups, a write waits behind one group at most; and what comes during the pause reaches the followers in one go.

use std::{
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringfence_policy::revision::Revision;
use tokio::sync::watch;

use super::shared::SharedHistory;

const GROUPS: usize = 32;
/// A single group's followers are woken for every revision.
const FEW_FOLLOWERS: usize = 16;
/// What one follower adds to the pause.
const PAUSE_OF_ONE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The followers of one history, in groups.
#[derive(Debug)]
pub(super) struct Waker {
    groups: [watch::Sender<Revision>; GROUPS],
    next: AtomicUsize,
}

impl Waker {
    pub(super) fn new(head: Revision) -> Self {
        Self { groups: std::array::from_fn(|_| watch::Sender::new(head)), next: AtomicUsize::new(0) }
    }

    /// A follower's place in a group.
    pub(super) fn join(&self) -> watch::Receiver<Revision> {
        self.groups[self.next.fetch_add(1, Ordering::Relaxed) % GROUPS].subscribe()
    }

    pub(super) fn followers(&self) -> usize {
        self.groups.iter().map(watch::Sender::receiver_count).sum()
    }
}

/// Wakes until the history is gone.
pub(super) async fn wake(history: Weak<SharedHistory>, mut head: watch::Receiver<Revision>) {
    while head.changed().await.is_ok() {
        let Some(history) = history.upgrade() else { return };
        let revision = *head.borrow_and_update();
        let waker = history.waker();
        for group in &waker.groups {
            if group.receiver_count() > 0 {
                group.send_replace(revision);
                tokio::task::yield_now().await;
            }
        }
        let followers = waker.followers();
        drop(history);
        if followers > FEW_FOLLOWERS {
            let followers = u32::try_from(followers).unwrap_or(u32::MAX);
            tokio::time::sleep(PAUSE_OF_ONE.saturating_mul(followers).min(LONGEST_PAUSE)).await;
        }
    }
}
