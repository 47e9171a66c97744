//! How quick the disk has been of late: whether somebody with other work may wait for it.

use std::time::Duration;

/// As many syncs are remembered.
const REMEMBERED: usize = 9;
/// Half of the remembered syncs must have been that quick …
const USUALLY_MICROS: u32 = 2_000;
/// … and the newest one that quick: a disk that begins to stall has shown it with one sync.
const NEWEST_MICROS: u32 = 10_000;

/// Durations of the last syncs, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    micros: [u32; REMEMBERED],
    /// Syncs so far.
    count: usize,
}

impl Pace {
    /// A sync took that long.
    pub(super) fn note(&mut self, took: Duration) {
        self.micros[self.count % REMEMBERED] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
    }

    /// Whether the next sync is expected to be over in a moment. Not before enough of them are known.
    pub(super) fn is_quick(&self) -> bool {
        let Some(newest) =
            self.count.checked_sub(REMEMBERED).map(|before| self.micros[(before + REMEMBERED - 1) % REMEMBERED])
        else {
            return false;
        };
        let quick = self.micros.iter().filter(|micros| **micros <= USUALLY_MICROS).count();
        newest <= NEWEST_MICROS && quick > REMEMBERED / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(micros: impl IntoIterator<Item = u64>) -> bool {
        let mut pace = Pace::default();
        micros.into_iter().for_each(|micros| pace.note(Duration::from_micros(micros)));
        pace.is_quick()
    }

    #[test]
    fn a_disk_is_quick_while_most_syncs_are_and_the_newest_is_no_stall() {
        let quick = [300; REMEMBERED];
        assert!(!after([]) && !after([300; REMEMBERED - 1]), "nobody knows yet");
        assert!(after(quick));
        assert!(after(quick.into_iter().chain([9_000; 4])), "some are slower everywhere");
        assert!(!after(quick.into_iter().chain([9_000; 5])));
        assert!(!after(quick.into_iter().chain([11_000])), "a stall");
        assert!(after(quick.into_iter().chain([11_000, 300])), "a stall that is over");
        assert!(!after([9_000; 2 * REMEMBERED]) && after([9_000; REMEMBERED].into_iter().chain([300; 5])));
    }
}
