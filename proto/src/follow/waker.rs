//! Tells followers what is new, behind those who write.
//!
//! ```text
//! head, every second ─► round: deltas since the last one, encoded once ─► group after group, giving way after each
//!                          ▲                                                    │
//!                          └───── pause, as long as the round took times `REST` ┘
//! ```
//!
//! A thousand followers that wake at once would keep every core busy for milliseconds, and the next write with them. In
//! groups, a write waits behind one group at most; and what comes during the pause reaches the followers in one go, in one
//! write to each of them. So telling takes a bounded part of a core however fast revisions come, and where it takes little,
//! because followers are few or the machine has nothing else to do, everybody hears of every revision at once. Whoever is in
//! step needs nothing but the round; the others catch up with the history.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ringfence_policy::revision::Revision;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{frames::Run, shared::SharedHistory};

/// Progress marks are sent this often; slow followers are looked for, too.
const SECOND: Duration = Duration::from_secs(1);
const GROUPS: usize = 32;
/// Followers that join one group before the next one gets some.
const GROUP_SIZE: usize = 16;
/// A pause in rounds' lengths: telling takes a third of the time at most.
const REST: u32 = 2;
/// A shorter pause is none: the runtime's clock has no finer ticks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What followers are told together.
#[derive(Debug)]
pub(super) struct Round {
    /// Where a follower is in step.
    pub(super) from: Revision,
    /// The head when the round was made.
    pub(super) to: Revision,
    /// What leads there; empty if that is not known any more, or nobody followed.
    pub(super) deltas: Run,
    /// Seconds since the history began to be followed.
    pub(super) second: u64,
}

/// The followers of one history, in groups.
#[derive(Debug)]
pub(super) struct Waker {
    groups: [watch::Sender<Arc<Round>>; GROUPS],
    next: AtomicUsize,
}

impl Round {
    /// Nothing but where the head is.
    pub(super) fn at(head: Revision, second: u64) -> Self {
        Self { from: head, to: head, deltas: Run::default(), second }
    }
}

impl Waker {
    pub(super) fn new() -> Self {
        let nothing = Arc::new(Round::at(Revision::default(), 0));
        Self { groups: std::array::from_fn(|_| watch::Sender::new(nothing.clone())), next: AtomicUsize::new(0) }
    }

    /// A follower's place in a group.
    pub(super) fn join(&self) -> watch::Receiver<Arc<Round>> {
        self.groups[self.next.fetch_add(1, Ordering::Relaxed) / GROUP_SIZE % GROUPS].subscribe()
    }

    pub(super) fn followers(&self) -> usize {
        self.groups.iter().map(watch::Sender::receiver_count).sum()
    }
}

/// Makes rounds until the history is gone.
pub(super) async fn wake(history: Weak<SharedHistory>, mut head: watch::Receiver<Revision>) {
    let mut told = *head.borrow_and_update();
    let mut second = 0;
    let mut ticks = tokio::time::interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let tick = tokio::select! {
            changed = head.changed() => if changed.is_err() { return } else { false },
            _ = ticks.tick() => true,
        };
        let Some(history) = history.upgrade() else { return };
        if tick {
            second += 1;
            history.tidy();
        }
        let of_all = history.waker().followers();
        head.mark_unchanged();
        let began = Instant::now();
        if of_all > 0 {
            let round = Arc::new(history.round(told, second));
            told = round.to;
            for group in history.waker().groups.iter().filter(|group| group.receiver_count() > 0) {
                group.send_replace(round.clone());
                tokio::task::yield_now().await;
            }
        } else {
            told = *head.borrow_and_update();
        }
        for feeds in history.advance_views().chunks(GROUP_SIZE) {
            feeds.iter().for_each(|feed| feed.tell(second));
            tokio::task::yield_now().await;
        }
        drop(history);
        let pause = pause_after(began.elapsed());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long nobody is told anything after a round that took so long.
fn pause_after(round: Duration) -> Duration {
    let pause = round.saturating_mul(REST).min(LONGEST_PAUSE);
    if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_round_and_is_bounded() {
        let pause = |micros| pause_after(Duration::from_micros(micros)).as_micros();
        assert_eq!([0, 30, 400, 499].map(pause), [0; 4], "a few followers are told of every revision at once");
        assert_eq!([500, 3_000, 10_000, 900_000].map(pause), [1_000, 6_000, 20_000, 20_000]);
    }
}
