//! How old a state may be that was received from somewhere.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the source last told about its own staleness, plus the time since.
///
/// Each tier adds the time since it heard from the tier above, so the figure never flatters.
#[derive(Debug)]
pub struct Freshness {
    last: Mutex<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    staleness: Duration,
    known: bool,
}

impl Freshness {
    /// Nothing was heard yet: stale since now.
    #[must_use]
    pub fn unknown() -> Self {
        Self { last: Mutex::new(Mark { at: Instant::now(), staleness: Duration::ZERO, known: false }) }
    }

    /// The state was read from a file that was that stale.
    pub fn assume(&self, staleness: Duration) {
        *self.lock() = Mark { at: Instant::now(), staleness, known: true };
    }

    /// The source told its staleness, and everything it has is here.
    pub fn heard(&self, staleness: Duration) {
        let mut last = self.lock();
        // A source that is more stale than what is here takes nothing away from what is known here.
        if !last.known || staleness <= last.now() {
            *last = Mark { at: Instant::now(), staleness, known: true };
        }
    }

    /// Whether there is any state to speak of.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.lock().known
    }

    /// How stale the state is now; since the start of the process where nothing was heard.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        self.lock().now()
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    fn now(self) -> Duration {
        self.staleness.saturating_add(self.at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_staleness_is_what_was_told_plus_the_time_since() {
        let freshness = Freshness::unknown();
        assert!(!freshness.is_known());
        freshness.heard(Duration::from_secs(7));
        assert!(freshness.is_known());
        assert!(freshness.staleness() >= Duration::from_secs(7), "the first news count, however stale");
        freshness.heard(Duration::ZERO);
        assert!(freshness.staleness() < Duration::from_secs(7));
        freshness.heard(Duration::from_secs(60));
        assert!(freshness.staleness() < Duration::from_secs(7), "a staler source makes nothing older");
    }
}
