//! What `decide` reads and writes in memory.

use std::collections::{BTreeMap, VecDeque};

use ringfence_ebpf_common::{
    ANSWERS, Address, AddressValue, Answer, Answered, BandCounter, Bucket, Decision, EndpointValue, Event,
    FLOW_TICK_NS, FlowKey, FlowTable, FlowValue, FragmentKey, FragmentPorts, FragmentValue, NO_COUNTER, Page, PortsKey,
    Question, RANGE_KEY_BITS, RowKey, RowValue, State, Tally, capacity,
    table::{self, Crowd, Look, Written},
};

use super::sets::{Set, mask};
use crate::{
    datapath::Tallies,
    encode::PrefixedRange,
    flows::{self, AtomicCell, Slice},
};

/// Events that nobody has taken yet, at most.
const EVENTS: usize = 65_536;
/// Connections, at most: nobody but tests has more.
const FLOWS: u32 = 4096;

/// The active set and what both sets share.
pub(super) struct MemoryState<'a> {
    pub(super) set: &'a Set,
    pub(super) pages: &'a BTreeMap<u16, Page>,
    pub(super) shared: &'a mut Shared,
    pub(super) now_ns: u64,
}

/// Connections, fragments, counters and events.
pub(super) struct Shared {
    cells: Vec<AtomicCell>,
    table: FlowTable,
    fragments: BTreeMap<FragmentKey, FragmentPorts>,
    bands: BTreeMap<u32, u64>,
    counters: BTreeMap<u32, BandCounter>,
    pub(super) tallies: Tallies,
    pub(super) events: VecDeque<Event>,
    bucket: Bucket,
    answers: [Answered; ANSWERS as usize],
}

impl Shared {
    pub(super) fn new(flows: u32) -> Self {
        let cells = flows::cells_for(flows.min(FLOWS));
        Self {
            cells: (0..cells).map(|_| AtomicCell::default()).collect(),
            // Nobody aims at a table in memory.
            table: flows::table([1, 2, 3, 4, 5], cells),
            fragments: BTreeMap::new(),
            bands: [(0, 0)].into(),
            counters: BTreeMap::new(),
            tallies: Tallies::default(),
            events: VecDeque::new(),
            bucket: Bucket::default(),
            answers: [Answered::NOTHING; ANSWERS as usize],
        }
    }

    /// How many answers are remembered.
    #[cfg(test)]
    pub(super) fn answers(&self) -> usize {
        self.answers.iter().filter(|answered| **answered != Answered::NOTHING).count()
    }

    /// Counts a packet for the bands that decided it.
    pub(super) fn count(&mut self, decision: &Decision, bytes: u64) {
        for slot in decision.counters.into_iter().filter(|slot| *slot != NO_COUNTER) {
            let counter = self.counters.entry(slot).or_default();
            if decision.allow {
                counter.allowed_packets += 1;
                counter.allowed_bytes += bytes;
            } else {
                counter.refused_packets += 1;
                counter.refused_bytes += bytes;
            }
        }
    }

    /// Keeps an event, or counts why not.
    pub(super) fn tell(&mut self, event: Event) {
        let tally = if !self.bucket.take(event.time_ns) {
            Tally::EventsSuppressed
        } else if self.events.len() == EVENTS {
            Tally::EventsLost
        } else {
            self.events.push_back(event);
            Tally::EventsWritten
        };
        self.tallies.add(tally, 1);
    }

    /// Every connection.
    pub(super) fn connections(&self) -> impl Iterator<Item = FlowValue> {
        flows::each(Slice(&self.cells))
    }

    /// Owners of slots, with what they counted.
    pub(super) fn bands(&self) -> impl Iterator<Item = (u64, BandCounter)> {
        self.bands.iter().map(|(slot, owner)| (*owner, self.counters.get(slot).copied().unwrap_or_default()))
    }

    /// Frees the slots of owners that are gone.
    pub(super) fn free_bands(&mut self, stays: impl Fn(u64) -> bool) {
        let gone: Vec<u32> =
            self.bands.iter().filter(|(_, owner)| **owner != 0 && !stays(**owner)).map(|(slot, _)| *slot).collect();
        for slot in gone {
            self.bands.remove(&slot);
            self.counters.remove(&slot);
        }
    }
}

impl State for MemoryState<'_> {
    fn address(&self, address: &Address) -> Option<AddressValue> {
        self.set.addresses.get(address).copied()
    }

    fn range(&self, address: &Address) -> Option<u32> {
        let key = address.range_key();
        let longest = |prefix_bits: u32| {
            let range = PrefixedRange { prefix_bits, key: mask(&key, prefix_bits) };
            self.set.ranges.get(&range).copied()
        };
        (0..=RANGE_KEY_BITS).rev().find_map(longest)
    }

    fn endpoint(&self, id: u32) -> Option<EndpointValue> {
        self.set.endpoints.get(&id).copied()
    }

    fn band(&self, key: &PortsKey, port: u16) -> u16 {
        let Some(directory) = self.set.directories.get(key) else { return 0 };
        let [high, low] = port.to_be_bytes();
        let page = self.pages.get(&directory.pages[usize::from(high)]);
        page.map_or(0, |page| page.bands[usize::from(low)])
    }

    fn row(&self, key: &RowKey) -> Option<RowValue> {
        self.set.rows.get(key).copied()
    }

    fn answer(&self, question: &Question, answer: &mut Answer) -> bool {
        let answered = &self.shared.answers[question.slot() as usize];
        if answered.is_about(question) {
            *answer = answered.answer;
        }
        answered.is_about(question)
    }

    fn keep_answer(&mut self, question: &Question, answer: &Answer) {
        self.shared.answers[question.slot() as usize] = Answered { question: *question, answer: *answer };
    }

    fn home(&self, key: &FlowKey) -> u32 {
        self.shared.table.home(key)
    }

    fn flow(&self, home: u32, value: &mut FlowValue) -> bool {
        let found = table::find(&Slice(&self.shared.cells), home, &value.key);
        if let Look::Known(flow, _) = found {
            value.flow = flow;
        }
        matches!(found, Look::Known(..))
    }

    fn set_flow(&mut self, home: u32, value: &FlowValue, found: bool, crowd: &mut Crowd) {
        let now = u32::try_from(self.now_ns / FLOW_TICK_NS).unwrap_or(u32::MAX);
        let written = table::write(&Slice(&self.shared.cells), home, value, found, now, crowd);
        match written {
            Written::Kept => {}
            Written::Evicted => self.tally(Tally::FlowsEvicted),
            Written::Not => self.tally(Tally::FlowsNotKept),
        }
    }

    fn remove_flow(&mut self, home: u32, key: &FlowKey) {
        table::remove(&Slice(&self.shared.cells), home, key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.shared.fragments.get(key).copied()
    }

    fn set_fragment(&mut self, value: &FragmentValue) {
        let fragments = &mut self.shared.fragments;
        if fragments.len() >= capacity::FRAGMENTS as usize {
            fragments.clear();
        }
        fragments.insert(value.key, value.ports);
    }

    fn counter(&mut self, owner: u64) -> u32 {
        let bands = &mut self.shared.bands;
        if let Some((slot, _)) = bands.iter().find(|(_, there)| **there == owner) {
            return *slot;
        }
        let free = (1..capacity::BANDS).find(|slot| !bands.contains_key(slot));
        if let Some(slot) = free {
            bands.insert(slot, owner);
        }
        free.unwrap_or(0)
    }

    fn tally(&mut self, tally: Tally) {
        self.shared.tallies.add(tally, 1);
    }

    fn settle<T>(_: &mut T) {}
}
