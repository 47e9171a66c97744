//! Moving from one revision to the next as a whole.
//!
//! ```text
//! diff ─► idle set ─► REVISION of that set ─► ACTIVE ─► wait until nobody reads the old set ─► diff ─► old set
//!            │ a write fails: undo, nothing happened                                                (now the idle one)
//! ```
//!
//! A process may die between any two steps. Then packets go on with the active set, and whoever comes next makes the
//! idle one equal to it before using it.

mod reading;

pub use reading::Reading;
pub(crate) use reading::{Part, Place};

use std::{io, time::Duration};

use ringfence_ebpf_common::{Address, AddressValue, RowKey, RowValue};
use ringfence_policy::{
    revision::Revision,
    tables::{TableDiff, Tables},
};

use crate::{
    capacity::Capacity,
    datapath::{Applied, Verified},
    decode::Content,
    error::{ApplyError, ObserveError, Table},
    write::{Plan, Write},
};

/// Two sets of maps and the cell that selects one of them.
pub(crate) trait Sets {
    /// Writes entries in order. Removing what is not there is no error.
    fn write(&mut self, parity: usize, writes: &[Write]) -> Result<(), Unwritten>;
    /// Reads a whole set.
    fn read(&self, parity: usize) -> Result<Content, ObserveError>;
    /// Reads a part of a set, about so many entries.
    fn read_part(&self, parity: usize, from: Place, at_once: usize) -> Result<Part, ObserveError>;
    /// Looks an address up.
    fn address(&self, parity: usize, key: &Address) -> Result<Option<AddressValue>, ObserveError>;
    /// Looks a row up.
    fn row(&self, parity: usize, key: &RowKey) -> Result<Option<RowValue>, ObserveError>;
    /// Writes what both sets share again where it is not what was written; answers how often that was.
    fn mend(&mut self) -> Result<usize, ObserveError>;
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

/// How many entries were written, and why the next one was not.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) done: usize,
    pub(crate) failure: WriteFailure,
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

    pub(crate) const fn sets(&self) -> &S {
        &self.sets
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
        self.active()?.finish()
    }

    /// What stands in the set that packets read.
    pub(crate) fn active(&self) -> Result<Content, ObserveError> {
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
        let plan = Plan::of(diff);
        self.write_all(parity(next), &plan).map_err(|failure| self.apply_error(revision, failure))?;
        if let Err(source) = self.sets.set_revision(parity(next), revision) {
            self.undo(parity(next), &plan, plan.forward.len());
            return Err(ApplyError::Number { revision, source });
        }
        let (entries, grace) = (plan.forward.len(), self.activate(next, &plan));
        Ok(Applied { generation: next, entries, grace })
    }

    /// `Datapath::verify`.
    pub(crate) fn verify(&mut self, expected: &Tables) -> Result<Verified, ApplyError> {
        let revision = self.revision().map_err(|source| ApplyError::Repair { revision: Revision::ZERO, source })?;
        let unreadable = |source| ApplyError::Repair { revision, source };
        let shared = self.sets.mend().map_err(unreadable)?;
        self.wait(revision)?;
        let generation = self.generation();
        let (active, idle) = (parity(generation), 1 - parity(generation));
        let served = repairs(self.sets.read(active).map_err(unreadable)?, expected);
        let unserved = repairs(self.sets.read(idle).map_err(unreadable)?, expected);
        let verified = Verified { served: shared + served.len(), unserved: unserved.len() };
        self.idle_unsure = true;
        self.write_repairs(idle, &unserved, revision)?;
        if !served.is_empty() {
            // The set that packets read is never written: they move to the other one first.
            self.sets.set_revision(idle, revision).map_err(|source| ApplyError::Number { revision, source })?;
            self.sets.activate(generation.wrapping_add(1));
            self.wait(revision)?;
            self.write_repairs(active, &served, revision)?;
        }
        self.idle_unsure = false;
        Ok(verified)
    }

    /// Makes the idle set equal to the active one. Does nothing if it is known to be.
    pub(crate) fn repair(&mut self, revision: Revision) -> Result<(), ApplyError> {
        if !self.idle_unsure {
            return Ok(());
        }
        self.wait(revision)?;
        let unreadable = |source| ApplyError::Repair { revision, source };
        let active = parity(self.generation());
        let target = self.sets.read(active).and_then(Content::finish).map_err(unreadable)?;
        let writes = repairs(self.sets.read(1 - active).map_err(unreadable)?, &target);
        self.write_repairs(1 - active, &writes, revision)?;
        self.idle_unsure = false;
        Ok(())
    }

    /// Lets packets read the next generation, and carries the change over to the set they leave.
    fn activate(&mut self, next: u32, plan: &Plan) -> Duration {
        self.sets.activate(next);
        // From here on packets are judged by the new revision, whatever becomes of the rest.
        self.idle_unsure = true;
        match self.sets.wait() {
            Ok(grace) => {
                match self.write_all(1 - parity(next), plan) {
                    Ok(()) => self.idle_unsure = false,
                    Err((table, failure)) => {
                        tracing::warn!(%table, ?failure, "the idle set could not follow: it is repaired before the next change");
                    }
                }
                grace
            }
            Err(StillBusy { waited }) => {
                tracing::warn!(?waited, "packets still read the old set: it is left alone until the next change");
                waited
            }
        }
    }

    fn wait(&mut self, revision: Revision) -> Result<(), ApplyError> {
        let busy = |StillBusy { waited }| ApplyError::Busy {
            revision,
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        };
        self.sets.wait().map(drop).map_err(busy)
    }

    /// Writes everything, or nothing.
    fn write_all(&mut self, parity: usize, plan: &Plan) -> Result<(), (Table, WriteFailure)> {
        self.sets.write(parity, &plan.forward).map_err(|Unwritten { done, failure }| {
            self.undo(parity, plan, done);
            (plan.forward[done].table(), failure)
        })
    }

    fn write_repairs(&mut self, parity: usize, writes: &[Write], revision: Revision) -> Result<(), ApplyError> {
        self.sets
            .write(parity, writes)
            .map_err(|Unwritten { done, failure }| self.apply_error(revision, (writes[done].table(), failure)))
    }

    /// Takes the first `done` writes back. If even that fails, the idle set is repaired before its next use.
    fn undo(&mut self, parity: usize, plan: &Plan, done: usize) {
        let backward: Vec<Write> = plan.backward[..done].iter().rev().cloned().collect();
        if self.sets.write(parity, &backward).is_err() {
            self.idle_unsure = true;
        }
    }

    fn apply_error(&self, revision: Revision, (table, failure): (Table, WriteFailure)) -> ApplyError {
        match failure {
            WriteFailure::Full => ApplyError::Full { revision, table, capacity: self.sets.capacity().of(table) },
            WriteFailure::Other(source) => ApplyError::Write { revision, table, source },
        }
    }
}

/// The writes that make of what stands in a set what should: entries that nobody wrote go first.
fn repairs(content: Content, target: &Tables) -> Vec<Write> {
    let strays = content.strays.into_iter().map(|stray| stray.removal);
    strays.chain(Plan::of(&content.tables.diff(target)).forward).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemorySets;
    use ringfence_ebpf_common as bytes;
    use ringfence_policy::{
        flow::Direction,
        identity::Identity,
        tables::{AddressEntry, EndpointEntry, EndpointId, Interval, PolicyId, PortsKey, PortsOfProtocol, Row, RowKey},
    };

    /// Sets whose writes fail: from the `k`-th on for good (a process that was killed), or the `k`-th only.
    struct Failing {
        inner: MemorySets,
        writes_left: usize,
        dead: bool,
    }

    impl Sets for Failing {
        fn write(&mut self, parity: usize, writes: &[Write]) -> Result<(), Unwritten> {
            for (done, write) in writes.iter().enumerate() {
                if self.writes_left == 0 {
                    if !self.dead {
                        self.writes_left = usize::MAX;
                    }
                    return Err(Unwritten { done, failure: WriteFailure::Other(io::Error::from_raw_os_error(12)) });
                }
                self.writes_left -= 1;
                let written = self.inner.write(parity, std::slice::from_ref(write));
                written.map_err(|unwritten| Unwritten { done, ..unwritten })?;
            }
            Ok(())
        }
        fn read(&self, parity: usize) -> Result<Content, ObserveError> {
            self.inner.read(parity)
        }
        fn read_part(&self, parity: usize, from: Place, at_once: usize) -> Result<Part, ObserveError> {
            self.inner.read_part(parity, from, at_once)
        }
        fn address(&self, parity: usize, key: &Address) -> Result<Option<AddressValue>, ObserveError> {
            self.inner.address(parity, key)
        }
        fn row(&self, parity: usize, key: &bytes::RowKey) -> Result<Option<RowValue>, ObserveError> {
            self.inner.row(parity, key)
        }
        fn mend(&mut self) -> Result<usize, ObserveError> {
            self.inner.mend()
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

    /// Tables with the addresses `first..first + 4`, a range, an endpoint, ports and rows that all depend on `first`.
    fn tables(first: u8) -> Tables {
        let (mut tables, policy) = (Tables::default(), PolicyId(u32::from(first) + 1));
        for host in first..first + 4 {
            let entry = AddressEntry { identity: Identity::from_bits(u32::from(host) + 1000), endpoint: None };
            tables.addresses.insert([10, 0, 0, host].into(), entry);
        }
        tables.ranges.insert("10.0.0.0/8".parse().unwrap(), Identity::from_bits(u32::from(first)));
        let entry = EndpointEntry { identity: Identity::WORLD, policy, shadow: None, audit: first > 1 };
        tables.endpoints.insert(EndpointId(1), entry);
        let direction = Direction::Ingress;
        let bands = [(0, 0), (u16::from(first) + 80, 1)].map(|(first, band)| Interval { first, band });
        tables.ports.insert(PortsKey { policy, direction, protocol: 6 }, PortsOfProtocol::new(bands).unwrap());
        tables.rows.insert(RowKey::of(policy, direction, Identity::WORLD, 1), Row { low: 2, high: 0 });
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
            assert_eq!(&flip.sets.read(parity).unwrap().finish().unwrap(), expected);
        }
    }

    #[test]
    fn s10_a_failure_of_any_write_leaves_one_whole_revision() {
        let diff = tables(0).diff(&tables(2));
        assert_eq!(diff.len(), 2 * 2 + 1 + 1 + 2 + 2, "every table, into the idle set and then into the other one");
        for k in 0..2 * diff.len() {
            let mut flip = flip(k, false);
            let generation = flip.generation();
            let applied = flip.apply(Revision(2), &diff);
            if k < diff.len() {
                assert!(matches!(applied, Err(ApplyError::Write { .. })), "write {k}: {applied:?}");
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

    /// What packets would be judged by, looked at after every single step of a change.
    struct Watched {
        inner: MemorySets,
        /// Writes go to the set that packets read, as if there was one only.
        naive: bool,
        seen: Vec<Tables>,
    }

    impl Watched {
        fn look(&mut self) {
            let tables = self.inner.read(parity(self.inner.generation())).unwrap().finish().unwrap();
            if self.seen.last() != Some(&tables) {
                self.seen.push(tables);
            }
        }
    }

    impl Sets for Watched {
        fn write(&mut self, set: usize, writes: &[Write]) -> Result<(), Unwritten> {
            let set = if self.naive { parity(self.inner.generation()) } else { set };
            for write in writes {
                self.inner.write(set, std::slice::from_ref(write))?;
                self.look();
            }
            Ok(())
        }
        fn read(&self, parity: usize) -> Result<Content, ObserveError> {
            self.inner.read(parity)
        }
        fn read_part(&self, parity: usize, from: Place, at_once: usize) -> Result<Part, ObserveError> {
            self.inner.read_part(parity, from, at_once)
        }
        fn address(&self, parity: usize, key: &Address) -> Result<Option<AddressValue>, ObserveError> {
            self.inner.address(parity, key)
        }
        fn row(&self, parity: usize, key: &bytes::RowKey) -> Result<Option<RowValue>, ObserveError> {
            self.inner.row(parity, key)
        }
        fn mend(&mut self) -> Result<usize, ObserveError> {
            self.inner.mend()
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
            self.look();
        }
        fn wait(&mut self) -> Result<Duration, StillBusy> {
            self.inner.wait()
        }
        fn capacity(&self) -> Capacity {
            self.inner.capacity()
        }
    }

    #[test]
    fn s2_between_any_two_steps_packets_are_judged_by_the_old_revision_or_by_the_new_one() {
        let change = |naive| {
            let mut flip = Flip::adopt(Watched { inner: MemorySets::new(Capacity::default()), naive, seen: vec![] });
            flip.apply(Revision(1), &Tables::default().diff(&tables(0))).unwrap();
            flip.sets.seen = vec![tables(0)];
            flip.apply(Revision(2), &tables(0).diff(&tables(2))).unwrap();
            flip.sets.seen
        };
        assert_eq!(change(false), [tables(0), tables(2)]);
        let seen = change(true);
        let mixtures = seen.iter().filter(|seen| ![tables(0), tables(2)].contains(seen)).count();
        assert!(mixtures > 5, "control: whoever writes what packets read is seen doing so: {mixtures}");
    }

    #[test]
    fn s10_control_a_change_that_is_not_taken_back_leaves_half_a_revision() {
        let diff = tables(0).diff(&tables(2));
        for k in 1..diff.len() {
            let mut flip = flip(k, false);
            let next = 1 - parity(flip.generation());
            // What `apply` does, without taking back what was written before the failure.
            let written = flip.sets.write(next, &Plan::of(&diff).forward);
            assert_eq!(written.unwrap_err().done, k);
            let half = flip.sets.read(next).unwrap().finish().unwrap();
            assert!(half != tables(0) && half != tables(2), "write {k}");
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

    #[test]
    fn what_was_changed_from_outside_is_found_and_repaired_in_either_set() {
        let expected = tables(0);
        let strange = tables(3);
        let changes = [
            Plan::of(&expected.diff(&strange)).forward,
            vec![Write::Row(bytes::RowKey { policy: 0, peer: 0, chunk: 0, direction: 9, padding: 0 }, Some(ALL))],
            vec![Write::Endpoint(1, Some(bytes::EndpointValue { identity: 1, policy: 0, shadow: 0, flags: 0 }))],
        ];
        for (parities, change) in
            [vec![0], vec![1], vec![0, 1]].iter().flat_map(|p| changes.iter().map(move |c| (p.clone(), c)))
        {
            let mut flip = flip(usize::MAX, false);
            assert_eq!(flip.verify(&expected).unwrap(), Verified { served: 0, unserved: 0 });
            let generation = flip.generation();
            for parity in &parities {
                flip.sets.write(*parity, change).unwrap();
            }
            let verified = flip.verify(&expected).unwrap();
            let active = parity(generation);
            assert_eq!(verified.served != 0, parities.contains(&active), "{verified:?}");
            assert_eq!(verified.unserved != 0, parities.contains(&(1 - active)), "{verified:?}");
            assert_both_sets(&flip, &expected);
            assert_eq!(flip.revision().unwrap(), Revision(1));
            assert_eq!(flip.generation(), generation + u32::from(verified.served != 0), "packets never see a half");
            assert_eq!(flip.verify(&expected).unwrap(), Verified { served: 0, unserved: 0 });
        }
        let mut flip = flip(usize::MAX, false);
        flip.sets.inner.tamper_with_a_page();
        assert_ne!(flip.tables().unwrap(), expected);
        assert_eq!(flip.verify(&expected).unwrap(), Verified { served: 1, unserved: 0 });
        assert_both_sets(&flip, &expected);
    }

    const ALL: RowValue = RowValue { low: u64::MAX, high: 0 };
}
