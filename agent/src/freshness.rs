//! How old the followed state may be.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the gateway last told about its own staleness, plus the time since.
#[derive(Debug)]
pub struct Freshness {
    last: Mutex<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    staleness: Duration,
    told: bool,
}

impl Freshness {
    /// Nothing was told yet: stale since now.
    #[must_use]
    pub fn new() -> Self {
        Self { last: Mutex::new(Mark { at: Instant::now(), staleness: Duration::ZERO, told: false }) }
    }

    /// A gateway told its staleness, and everything it has is here. A gateway that is more stale than this agent
    /// already is takes nothing away from what is known here.
    pub fn heard(&self, staleness: Duration) {
        let mut last = self.lock();
        if !last.told || staleness <= last.now() {
            *last = Mark { at: Instant::now(), staleness, told: true };
        }
    }

    /// How stale the state is now.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        self.lock().now()
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self::new()
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
        let freshness = Freshness::new();
        freshness.heard(Duration::from_secs(7));
        assert!(freshness.staleness() >= Duration::from_secs(7), "the first news count, however stale");
        freshness.heard(Duration::ZERO);
        freshness.heard(Duration::from_secs(60));
        assert!(freshness.staleness() < Duration::from_secs(7), "a staler source makes nothing older");
    }
}
