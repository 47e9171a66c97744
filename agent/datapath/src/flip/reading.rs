//! Reading the maps back in parts, so that a revision that comes meanwhile waits for one of them only.
//!
//! ```text
//! shared pages ─► each set: small tables at once ─► addresses, rows, some at a time ─► as many as there should be ─► all right
//!                                                                  │ a revision came meanwhile: counts say nothing
//!                                                                  └─► each one that should be there is looked up, some at a time
//! anything is not as it should be ─► `Flip::verify`, as a whole
//! ```

use std::{
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
};

use ringfence_policy::{
    revision::Revision,
    tables::{RowKey, Tables},
};

use super::{Flip, Sets};
use crate::{
    datapath::Verified,
    decode::Content,
    encode,
    error::{ApplyError, ObserveError},
};

/// How far reading back has come. The default has not begun.
#[derive(Debug)]
pub struct Reading {
    at_once: usize,
    step: Step,
    /// What packets read when the reading of this set began.
    generation: u32,
    /// Addresses and rows of this set.
    seen: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Begin,
    /// What stands in a set, from a place on.
    Entries(usize, Place),
    /// What should stand there.
    Addresses(usize, Option<IpAddr>),
    Rows(usize, Option<RowKey>),
    End,
}

/// Where reading a set goes on; `None` is the beginning of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ranges, endpoints and ports: few, and read at once.
    Others,
    Addresses(Option<u32>),
    Rows(Option<u32>),
}

/// Some of what a set holds, and where the rest begins.
pub(crate) struct Part {
    pub(crate) content: Content,
    pub(crate) next: Option<Place>,
}

impl Default for Reading {
    fn default() -> Self {
        Self::of(1024)
    }
}

impl Reading {
    /// So many entries at a time.
    const fn of(at_once: usize) -> Self {
        Self { at_once, step: Step::Begin, generation: 0, seen: 0 }
    }

    /// Whether nothing was read yet.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        matches!(self.step, Step::Begin)
    }
}

impl<S: Sets> Flip<S> {
    /// `Datapath::verify_part`.
    pub(crate) fn verify_part(
        &mut self,
        expected: &Tables,
        reading: &mut Reading,
    ) -> Result<Option<Verified>, ApplyError> {
        // The idle set may differ for a while, and is repaired then.
        if self.idle_unsure {
            *reading = Reading::of(reading.at_once);
            return self.verify(expected).map(Some);
        }
        let unreadable = |source| ApplyError::Repair { revision: Revision::ZERO, source };
        let mended = if reading.is_new() { self.sets.mend().map_err(unreadable)? } else { 0 };
        let next = if mended == 0 { self.read_on(expected, reading).map_err(unreadable)? } else { None };
        match next {
            Some(Step::End) => {
                *reading = Reading::of(reading.at_once);
                Ok(Some(Verified { served: 0, unserved: 0 }))
            }
            Some(step) => {
                reading.step = step;
                Ok(None)
            }
            None => {
                *reading = Reading::of(reading.at_once);
                self.verify(expected).map(|found| Some(Verified { served: found.served + mended, ..found }))
            }
        }
    }

    /// The next step; none if something is not as it should be.
    fn read_on(&self, expected: &Tables, reading: &mut Reading) -> Result<Option<Step>, ObserveError> {
        match reading.step {
            Step::Begin => Ok(Some(self.begin_set(reading, 0))),
            Step::Entries(parity, place) => self.entries(expected, reading, parity, place),
            Step::Addresses(parity, after) => {
                let (rest, mut last) = ((after.map_or(Unbounded, Excluded), Unbounded), None);
                for (address, entry) in expected.addresses.range(rest).take(reading.at_once) {
                    if self.sets.address(parity, &encode::address(*address))? != Some(encode::address_value(entry)) {
                        return Ok(None);
                    }
                    last = Some(*address);
                }
                Ok(Some(last.map_or(Step::Rows(parity, None), |_| Step::Addresses(parity, last))))
            }
            Step::Rows(parity, after) => {
                let (rest, mut last) = ((after.map_or(Unbounded, Excluded), Unbounded), None);
                for (key, row) in expected.rows.range(rest).take(reading.at_once) {
                    if self.sets.row(parity, &encode::row_key(key))? != Some(encode::row_value(row)) {
                        return Ok(None);
                    }
                    last = Some(*key);
                }
                Ok(Some(last.map_or_else(|| self.begin_set(reading, parity + 1), |_| Step::Rows(parity, last))))
            }
            Step::End => Ok(Some(Step::End)),
        }
    }

    fn begin_set(&self, reading: &mut Reading, parity: usize) -> Step {
        reading.seen = 0;
        reading.generation = self.generation();
        if parity < 2 { Step::Entries(parity, Place::Others) } else { Step::End }
    }

    fn entries(
        &self,
        expected: &Tables,
        reading: &mut Reading,
        parity: usize,
        place: Place,
    ) -> Result<Option<Step>, ObserveError> {
        let Part { content: Content { tables, strays }, next } = self.sets.read_part(parity, place, reading.at_once)?;
        let others = place != Place::Others
            || (&tables.ranges, &tables.endpoints, &tables.ports)
                == (&expected.ranges, &expected.endpoints, &expected.ports);
        let addresses = tables.addresses.iter().all(|(key, entry)| expected.addresses.get(key) == Some(entry));
        let rows = tables.rows.iter().all(|(key, row)| expected.rows.get(key) == Some(row));
        if !strays.is_empty() || !others || !addresses || !rows {
            return Ok(None);
        }
        reading.seen += tables.addresses.len() + tables.rows.len();
        Ok(match next {
            Some(next) => Some(Step::Entries(parity, next)),
            None if reading.generation != self.generation() => Some(Step::Addresses(parity, None)),
            None if reading.seen == expected.addresses.len() + expected.rows.len() => {
                Some(self.begin_set(reading, parity + 1))
            }
            None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capacity::Capacity,
        memory::MemorySets,
        write::{Plan, Write},
    };
    use ringfence_policy::{
        identity::Identity,
        tables::{AddressEntry, Class, EndpointEntry, EndpointId, PolicyId, Row},
    };

    fn tables(which: u8) -> Tables {
        let mut tables = Tables::default();
        for host in 0..9 {
            let entry = AddressEntry { identity: Identity::from_bits(u32::from(host) + 1000), endpoint: None };
            tables.addresses.insert([10, 0, which * u8::from(host == 4), host].into(), entry);
            let mut row = Row::default();
            row.set(0, if host == 5 && which == 1 { Class::Deny } else { Class::Allow });
            let peer = Identity::from_bits(u32::from(host) + 1000);
            let key = RowKey::of(PolicyId(1), ringfence_policy::flow::Direction::Ingress, peer, 0);
            tables.rows.insert(key, row);
        }
        tables.ranges.insert("10.0.0.0/8".parse().unwrap(), Identity::from_bits(7));
        let entry = EndpointEntry { identity: Identity::WORLD, policy: PolicyId(1), shadow: None, audit: which == 1 };
        tables.endpoints.insert(EndpointId(1), entry);
        tables
    }

    fn flip() -> Flip<MemorySets> {
        let mut flip = Flip::adopt(MemorySets::new(Capacity::default()));
        flip.apply(Revision(1), &Tables::default().diff(&tables(0))).unwrap();
        flip
    }

    /// Reads everything back, and does something before each part.
    fn read(
        flip: &mut Flip<MemorySets>,
        mut meanwhile: impl FnMut(&mut Flip<MemorySets>, usize) -> Tables,
    ) -> (usize, Verified) {
        let mut reading = Reading::of(2);
        for part in 0.. {
            let expected = meanwhile(flip, part);
            if let Some(verified) = flip.verify_part(&expected, &mut reading).unwrap() {
                assert!(reading.is_new());
                return (part + 1, verified);
            }
        }
        unreachable!("it ends")
    }

    const NOTHING: Verified = Verified { served: 0, unserved: 0 };

    #[test]
    fn what_is_right_is_found_right_in_parts_and_whatever_revisions_come_meanwhile() {
        let mut flip = flip();
        let (parts, verified) = read(&mut flip, |_, _| tables(0));
        assert!(parts > 20, "two entries at a time: {parts} parts");
        assert_eq!(verified, NOTHING);
        for at in 0..parts {
            let mut which = 0;
            let mut revision = 10 + 10 * at as u64;
            let (_, verified) = read(&mut flip, |flip, part| {
                if part == at || part % 7 == 3 {
                    revision += 1;
                    flip.apply(Revision(revision), &tables(which).diff(&tables(1 - which))).unwrap();
                    which = 1 - which;
                }
                tables(which)
            });
            assert_eq!(verified, NOTHING, "a revision before part {at}");
            flip.apply(Revision(revision + 1), &tables(which).diff(&tables(0))).unwrap();
        }
    }

    #[test]
    fn what_somebody_else_changed_is_found_and_repaired_whatever_revisions_come_meanwhile() {
        let expected = tables(0);
        let removed = |all: &Tables| {
            let mut some = all.clone();
            some.addresses.pop_last();
            let key = *some.rows.keys().next().unwrap();
            some.rows.remove(&key);
            some
        };
        let mut other = expected.clone();
        other.addresses.insert("10.9.9.9".parse().unwrap(), AddressEntry { identity: Identity::HOST, endpoint: None });
        let mut wrong = expected.clone();
        wrong.addresses.first_entry().unwrap().get_mut().identity = Identity::HOST;
        let stray = Write::Endpoint(
            9,
            Some(encode::endpoint_value(&EndpointEntry {
                identity: Identity::WORLD,
                policy: PolicyId(0),
                shadow: None,
                audit: false,
            })),
        );
        let changes = [removed(&expected), other, wrong, Tables::default()]
            .map(|strange| Plan::of(&expected.diff(&strange)).forward)
            .into_iter()
            .chain([vec![stray]]);
        for (parity, change) in changes.flat_map(|change| [0, 1].map(|parity| (parity, change.clone()))) {
            for revisions in [false, true] {
                let mut flip = flip();
                flip.sets.write(parity, &change).unwrap();
                let mut revision = 1;
                let (_, verified) = read(&mut flip, |flip, part| {
                    if revisions && part % 5 == 4 {
                        // Packets move to the other set, and nothing else changes.
                        revision += 1;
                        let next = flip.generation() + 1;
                        flip.sets.activate(next);
                        flip.sets.set_revision((next & 1) as usize, Revision(revision)).unwrap();
                    }
                    expected.clone()
                });
                assert_ne!(verified, NOTHING, "{change:?} in set {parity}");
                assert_eq!(read(&mut flip, |_, _| expected.clone()).1, NOTHING);
                assert_eq!(flip.tables().unwrap(), expected);
            }
        }
    }
}
