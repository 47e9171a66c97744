//! Tells followers what is new, behind those who write.
//!
//! ```text
//! head, every second ─► round: deltas since the last one, encoded once ─► group after group, giving way after each
//!                          ▲                                                    │
//!                          └── pause: the round's length times `REST`, and ─────┘
//!                              `SHARE` for each follower that was told
//! ```
//!
//! A thousand followers that wake at once would keep every core busy for milliseconds, and the next write with them. In
//! groups, a write waits behind one group at most; and what comes during the pause reaches the followers in one go, in one
//! write to each of them.
//!
//! The pause is one for all, and follows what telling costs. A write to a follower costs a core some 10 µs, nearly all of it
//! for the write itself, however many revisions it carries. So a server writes to followers 5,000 times a second, which
//! takes a twentieth of a core, before revisions that come quickly share a write. A calm store tells of a revision at once;
//! so does one with a handful of followers, whatever comes; and nobody waits for longer than `LONGEST_PAUSE`. Where rounds
//! take longer than that, because the machine is busy, telling still takes a third of the time at most.
//!
//! Whoever is in step needs nothing but the round; the others catch up with the history.

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
/// A pause for each follower that was told: twenty times what it costs.
const SHARE: Duration = Duration::from_micros(200);
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
        let feeds = history.advance_views();
        for feeds in feeds.chunks(GROUP_SIZE) {
            feeds.iter().for_each(|feed| feed.tell(second));
            tokio::task::yield_now().await;
        }
        drop(history);
        let pause = pause_after(began.elapsed(), of_all + feeds.len());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long nobody is told anything after a round that took so long for so many.
fn pause_after(round: Duration, followers: usize) -> Duration {
    let shares = SHARE.saturating_mul(u32::try_from(followers).unwrap_or(u32::MAX));
    let pause = round.saturating_mul(REST).max(shares).min(LONGEST_PAUSE);
    if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
}

#[cfg(test)]
mod tests {
    use ringfence_policy::{
        mesh::{History, Mesh},
        record::Delta,
    };

    use super::*;

    #[test]
    fn the_pause_grows_with_the_round_and_with_followers_and_is_bounded() {
        let pause = |(micros, followers)| pause_after(Duration::from_micros(micros), followers).as_micros();
        let few = [(0, 0), (30, 1), (400, 2), (499, 4)];
        assert_eq!(few.map(pause), [0; 4], "a few followers are told of every revision at once");
        let slow = [(500, 1), (3_000, 1), (10_000, 1), (900_000, 1)];
        assert_eq!(slow.map(pause), [1_000, 6_000, 20_000, 20_000]);
        let many = [(100, 5), (300, 33), (10_000, 33), (1_000, 100), (2_000, usize::MAX)];
        assert_eq!(many.map(pause), [1_000, 6_600, 20_000, 20_000, 20_000]);
    }

    /// How long it takes to tell so many followers of 21 revisions that come one by one, each when the last one was told.
    async fn telling(followers: usize) -> Duration {
        let history = Arc::new(SharedHistory::new(History::new(Mesh::default(), 100)));
        let mut places: Vec<_> = (0..followers).map(|_| history.waker().join()).collect();
        tokio::spawn(wake(Arc::downgrade(&history), history.head()));
        let place = places.last_mut().unwrap();
        let mut began = Instant::now();
        for revision in 1..=21 {
            history.push(Delta { revision: Revision(revision), changes: vec![] }).unwrap();
            place.wait_for(|round| round.to == Revision(revision)).await.unwrap();
            if revision == 1 {
                began = Instant::now();
            }
        }
        began.elapsed()
    }

    #[tokio::test]
    async fn many_followers_share_writes_and_few_wait_for_nothing() {
        let (mut few, many) = (telling(3).await, telling(50).await);
        let pauses = SHARE * 50 * 20;
        for _ in 0..4 {
            // A busy machine may stop any of them; all of them would have the pauses.
            few = few.min(telling(3).await);
        }
        assert!(many >= pauses && few < pauses, "3 followers: {few:?}, 50 followers: {many:?}");
    }
}
