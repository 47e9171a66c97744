//! Moving from one revision to the next as a whole.
//!
//! ```text
//! diff ─► idle set ─► REVISION of that set ─► ACTIVE ─► wait until nobody reads the old set ─► diff ─► old set
//!            │ a write fails: undo, nothing happened                                                (now the idle one)
//! ```
//!
//! A process may die between any two steps. Then packets go on with the active set, and whoever comes next makes the
//! idle one equal to it before using it.

use std::{io, time::Duration};

use ringfence_policy::{
    revision::Revision,
    tables::{TableDiff, Tables},
};

use crate::{
    capacity::Capacity,
    datapath::Applied,
    error::{ApplyError, ObserveError, Table},
    write::{Step, Write, plan},
};

/// Two sets of maps and the cell that selects one of them.
pub(crate) trait Sets {
    /// Writes one entry. Removing what is not there is no error.
    fn write(&mut self, parity: usize, write: &Write) -> Result<(), WriteFailure>;
    /// Reads a whole set.
    fn read(&self, parity: usize) -> Result<Tables, ObserveError>;
    /// Writes the number of a set's revision.
    fn set_revision(&mut self, parity: usize, revision: Revision) -> io::Result<()>;
    /// Reads the number of a set's revision.
    fn revision(&self, parity: usize) -> Result<Revision, ObserveError>;
    /// The generation that packets read.
    fn generation(&self) -> u32;
    /// Lets packets read another generation, from now on.
    fn activate(&mut self, generation: u32);
    /// Returns once no packet reads a set that was active before the call; answers how long that took.
    fn wait(&mut self) -> Result<Duration, StillBusy>;
    /// How much fits.
    fn capacity(&self) -> Capacity;
}

/// Why an entry was not written.
#[derive(Debug)]
pub(crate) enum WriteFailure {
    Full,
    #[cfg_attr(not(any(test, feature = "kernel")), expect(dead_code, reason = "memory can only be full"))]
    Other(io::Error),
}

/// Some packets were still being judged when patience ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StillBusy {
    pub(crate) waited: Duration,
}

/// The one writer of two sets.
pub(crate) struct Flip<S> {
    sets: S,
    /// The idle set may differ from the active one, or still be read by a packet.
    idle_unsure: bool,
}

/// The set that a generation reads.
const fn parity(generation: u32) -> usize {
    (generation & 1) as usize
}

impl<S: Sets> Flip<S> {
    /// Takes over sets of which only the active one is known to be whole.
    pub(crate) const fn adopt(sets: S) -> Self {
        Self { sets, idle_unsure: true }
    }

    pub(crate) const fn sets_mut(&mut self) -> &mut S {
        &mut self.sets
    }

    pub(crate) fn generation(&self) -> u32 {
        self.sets.generation()
    }

    /// The revision that packets are judged by.
    pub(crate) fn revision(&self) -> Result<Revision, ObserveError> {
        self.sets.revision(parity(self.generation()))
    }

    /// The tables that packets are judged by.
    pub(crate) fn tables(&self) -> Result<Tables, ObserveError> {
        self.sets.read(parity(self.generation()))
    }

    /// `Datapath::apply`.
    pub(crate) fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError> {
        let current = self.revision().map_err(|source| ApplyError::Repair { revision, source })?;
        if revision < current {
            return Err(ApplyError::Backwards { revision, current });
        }
        let generation = self.generation();
        let (active, next) = (parity(generation), generation.wrapping_add(1));
        if diff.is_empty() {
            // The tables in force are those of the new revision, too.
            self.sets.set_revision(active, revision).map_err(|source| ApplyError::Number { revision, source })?;
            return Ok(Applied { generation, entries: 0, grace: Duration::ZERO });
        }
        self.repair(revision)?;
        let steps = plan(diff);
        self.write_all(parity(next), &steps).map_err(|failure| self.apply_error(revision, failure))?;
        if let Err(source) = self.sets.set_revision(parity(next), revision) {
            self.undo(parity(next), &steps);
            return Err(ApplyError::Number { revision, source });
        }
        self.sets.activate(next);
        // From here on packets are judged by `revision`, whatever becomes of the rest.
        self.idle_unsure = true;
        let grace = match self.sets.wait() {
            Ok(grace) => {
                self.replay(active, &steps);
                grace
            }
            Err(StillBusy { waited }) => {
                tracing::warn!(?waited, "packets still read the old set: it is left alone until the next change");
                waited
            }
        };
        Ok(Applied { generation: next, entries: steps.len(), grace })
    }

    /// Makes the idle set equal to the active one. Does nothing if it is known to be.
    pub(crate) fn repair(&mut self, revision: Revision) -> Result<(), ApplyError> {
        if !self.idle_unsure {
            return Ok(());
        }
        self.sets.wait().map_err(|StillBusy { waited }| ApplyError::Busy {
            revision,
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        })?;
        let read = |parity| self.sets.read(parity).map_err(|source| ApplyError::Repair { revision, source });
        let active = parity(self.generation());
        let diff = read(1 - active)?.diff(&read(active)?);
        self.write_all(1 - active, &plan(&diff)).map_err(|failure| self.apply_error(revision, failure))?;
        self.idle_unsure = false;
        Ok(())
    }

    /// Writes all steps, or none.
    fn write_all(&mut self, parity: usize, steps: &[Step]) -> Result<(), (Table, WriteFailure)> {
        for (done, step) in steps.iter().enumerate() {
            if let Err(failure) = self.sets.write(parity, &step.forward) {
                self.undo(parity, &steps[..done]);
                return Err((step.forward.table(), failure));
            }
        }
        Ok(())
    }

    /// Takes steps back. If even that fails, the idle set is repaired before its next use.
    fn undo(&mut self, parity: usize, steps: &[Step]) {
        for step in steps.iter().rev() {
            if self.sets.write(parity, &step.backward).is_err() {
                self.idle_unsure = true;
                return;
            }
        }
    }

    /// Carries a change that is in force over to the other set.
    fn replay(&mut self, parity: usize, steps: &[Step]) {
        match self.write_all(parity, steps) {
            Ok(()) => self.idle_unsure = false,
            Err((table, failure)) => {
                tracing::warn!(%table, ?failure, "the idle set could not follow: it is repaired before the next change");
            }
        }
    }

    fn apply_error(&self, revision: Revision, (table, failure): (Table, WriteFailure)) -> ApplyError {
        match failure {
            WriteFailure::Full => ApplyError::Full { revision, table, capacity: self.sets.capacity().of(table) },
            WriteFailure::Other(source) => ApplyError::Write { revision, table, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemorySets;
    use ringfence_policy::{identity::Identity, tables::AddressEntry};

    /// Sets whose writes fail: from the `k`-th on for good (a process that was killed), or the `k`-th only.
    struct Failing {
        inner: MemorySets,
        writes_left: usize,
        dead: bool,
    }

    impl Sets for Failing {
        fn write(&mut self, parity: usize, write: &Write) -> Result<(), WriteFailure> {
            if self.writes_left == 0 {
                if !self.dead {
                    self.writes_left = usize::MAX;
                }
                return Err(WriteFailure::Other(io::Error::from_raw_os_error(12)));
            }
            self.writes_left -= 1;
            self.inner.write(parity, write)
        }
        fn read(&self, parity: usize) -> Result<Tables, ObserveError> {
            self.inner.read(parity)
        }
        fn set_revision(&mut self, parity: usize, revision: Revision) -> io::Result<()> {
            self.inner.set_revision(parity, revision)
        }
        fn revision(&self, parity: usize) -> Result<Revision, ObserveError> {
            self.inner.revision(parity)
        }
        fn generation(&self) -> u32 {
            self.inner.generation()
        }
        fn activate(&mut self, generation: u32) {
            self.inner.activate(generation);
        }
        fn wait(&mut self) -> Result<Duration, StillBusy> {
            self.inner.wait()
        }
        fn capacity(&self) -> Capacity {
            self.inner.capacity()
        }
    }

    /// Tables with the addresses `first..first + 4`.
    fn tables(first: u8) -> Tables {
        let mut tables = Tables::default();
        for host in first..first + 4 {
            let entry = AddressEntry { identity: Identity::from_bits(u32::from(host) + 1000), endpoint: None };
            tables.addresses.insert([10, 0, 0, host].into(), entry);
        }
        tables
    }

    /// A datapath at revision 1 with `tables(0)`, whose `k`-th write from now on fails.
    fn flip(k: usize, dead: bool) -> Flip<Failing> {
        let inner = MemorySets::new(Capacity::default());
        let mut flip = Flip::adopt(Failing { inner, writes_left: usize::MAX, dead: false });
        flip.apply(Revision(1), &Tables::default().diff(&tables(0))).unwrap();
        flip.sets.writes_left = k;
        flip.sets.dead = dead;
        flip
    }

    fn assert_both_sets(flip: &Flip<Failing>, expected: &Tables) {
        for parity in 0..2 {
            assert_eq!(&flip.sets.read(parity).unwrap(), expected);
        }
    }

    #[test]
    fn s10_a_failure_of_any_write_leaves_one_whole_revision() {
        let diff = tables(0).diff(&tables(2));
        // Four writes into the idle set, four into the other one.
        for k in 0..2 * diff.len() {
            let mut flip = flip(k, false);
            let generation = flip.generation();
            let applied = flip.apply(Revision(2), &diff);
            if k < diff.len() {
                assert!(
                    matches!(applied, Err(ApplyError::Write { table: Table::Addresses, .. })),
                    "write {k}: {applied:?}"
                );
                assert_eq!((flip.generation(), flip.revision().unwrap()), (generation, Revision(1)));
                assert_both_sets(&flip, &tables(0));
            } else {
                assert_eq!(applied.unwrap().generation, generation + 1, "write {k}: packets are served already");
                assert_eq!((flip.tables().unwrap(), flip.revision().unwrap()), (tables(2), Revision(2)));
            }
            let next = flip.tables().unwrap().diff(&tables(7));
            flip.apply(Revision(3), &next).unwrap();
            assert_both_sets(&flip, &tables(7));
        }
    }

    #[test]
    fn s8_killed_at_any_write_the_next_process_finds_one_whole_revision() {
        let diff = tables(0).diff(&tables(2));
        for k in 0..=2 * diff.len() {
            let mut killed = flip(k, true);
            let _ = killed.apply(Revision(2), &diff);
            let mut sets = killed.sets;
            sets.writes_left = usize::MAX;
            let mut flip = Flip::adopt(sets);
            let (expected, revision) = if k < diff.len() { (tables(0), 1) } else { (tables(2), 2) };
            assert_eq!(
                (flip.tables().unwrap(), flip.revision().unwrap()),
                (expected.clone(), Revision(revision)),
                "{k}"
            );
            flip.repair(Revision::ZERO).unwrap();
            assert_both_sets(&flip, &expected);
        }
    }
}
