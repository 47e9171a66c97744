//! Notices when the machine does not let this process run: then a late answer is no evidence of a lost packet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);
/// Shorter delays are ordinary scheduling.
const NOTABLE: Duration = Duration::from_millis(100);

/// A thread that only sleeps, and how much too long it slept.
#[derive(Debug, Clone, Default)]
pub struct StallClock {
    /// When each stall ended, and how long it was.
    stalls: Arc<Mutex<Vec<(Instant, Duration)>>>,
}

impl StallClock {
    /// Watches until `stop`.
    #[must_use]
    pub fn start(stop: &Arc<AtomicBool>) -> Self {
        let clock = Self::default();
        let (watching, stop) = (clock.clone(), Arc::clone(stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                thread::sleep(TICK);
                watching.note(Instant::now(), begin.elapsed().saturating_sub(TICK));
            }
        });
        clock
    }

    /// How long the machine stood still since `begin`, all stalls together.
    #[must_use]
    pub fn stalled_since(&self, begin: Instant) -> Duration {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.iter().filter(|(end, _)| *end > begin).map(|(end, length)| (*length).min(*end - begin)).sum()
    }

    fn note(&self, end: Instant, late: Duration) {
        if late > NOTABLE {
            self.stalls.lock().unwrap_or_else(PoisonError::into_inner).push((end, late));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stalls_since_then_count_and_only_their_part_since_then() {
        let clock = StallClock::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        clock.note(at(500), Duration::from_millis(400));
        clock.note(at(900), Duration::from_millis(50)); // ordinary
        clock.note(at(2000), Duration::from_millis(1000));
        assert_eq!(clock.stalled_since(begin), Duration::from_millis(1400));
        assert_eq!(clock.stalled_since(at(400)), Duration::from_millis(1100));
        assert_eq!(clock.stalled_since(at(2000)), Duration::ZERO);
    }
}
