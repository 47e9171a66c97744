//! The digests of the state after each of the last entries: members that have applied the same entry compare them (S14).
//!
//! ```text
//! apply ─ note(index, digest) ─► Digests ─ latest ─► own status ─ ping ─► another member ─ at(index) ─► equal, or an alarm
//! ```

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many entries two members may be apart and still be compared; 16 bytes each.
const REMEMBERED: usize = 4096;

/// Entries by index, in order, each with the digest of the state after it.
#[derive(Debug, Default)]
pub struct Digests {
    recent: Mutex<VecDeque<(u64, u64)>>,
}

/// Two members have applied the same entries and hold different states: one of them is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "S14 is broken: after entry {index} member {member} has state {theirs:016x}, this member has {own:016x}. One of them \
     is damaged: compare the state of all members in 'ringfence status', stop the one that differs and let it rebuild \
     its state (remove 'state' in its data_dir)"
)]
pub struct Diverged {
    /// The other member.
    pub member: u64,
    /// The entry after which they were compared.
    pub index: u64,
    /// Its digest.
    pub theirs: u64,
    /// This member's.
    pub own: u64,
}

impl Digests {
    /// The state after entry `index`. An index that goes back starts anew: a snapshot was installed.
    pub fn note(&self, index: u64, digest: u64) {
        let mut recent = self.lock();
        if recent.back().is_some_and(|(last, _)| *last >= index) {
            recent.clear();
        }
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back((index, digest));
    }

    /// The last entry applied, and the digest after it; zeros before the first.
    #[must_use]
    pub fn latest(&self) -> (u64, u64) {
        self.lock().back().copied().unwrap_or_default()
    }

    /// The digest after an entry, while it is remembered.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<u64> {
        let recent = self.lock();
        recent.binary_search_by_key(&index, |(index, _)| *index).ok().map(|at| recent[at].1)
    }

    /// Compares with what another member says; one that is ahead or far behind is compared at its next word.
    ///
    /// # Errors
    /// `Diverged` if both know the state after `index` and differ.
    pub fn compare(&self, member: u64, index: u64, theirs: u64) -> Result<(), Diverged> {
        match self.at(index) {
            Some(own) if own != theirs => Err(Diverged { member, index, theirs, own }),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_different_states_at_one_index_are_told() {
        let digests = Digests::default();
        assert_eq!(digests.latest(), (0, 0));
        (1..=3).for_each(|index| digests.note(index, index * 10));
        assert_eq!(digests.latest(), (3, 30));
        for (index, theirs) in [(2, 20), (3, 30), (4, 1), (0, 1)] {
            assert_eq!(digests.compare(2, index, theirs), Ok(()), "entry {index}");
        }
        let diverged = digests.compare(2, 2, 21).unwrap_err();
        assert_eq!(diverged, Diverged { member: 2, index: 2, theirs: 21, own: 20 });
        assert!(diverged.to_string().contains("after entry 2 member 2 has state 0000000000000015"), "{diverged}");
    }

    #[test]
    fn the_past_is_bounded_and_a_snapshot_starts_anew() {
        let digests = Digests::default();
        (1..=REMEMBERED as u64 + 1).for_each(|index| digests.note(index, index));
        assert_eq!((digests.at(1), digests.at(2)), (None, Some(2)));
        digests.note(7, 70);
        assert_eq!((digests.latest(), digests.at(8)), ((7, 70), None));
    }
}
