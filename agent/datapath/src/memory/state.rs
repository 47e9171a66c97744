//! What `decide` reads and writes in memory.

use std::collections::{BTreeMap, VecDeque};

use ringfence_ebpf_common::{
    Address, AddressValue, BandCounter, Bucket, CacheCell, Cached, Decision, EndpointValue, Event, Flow, FlowKey,
    FlowValue, FragmentKey, FragmentPorts, FragmentValue, NO_COUNTER, Page, PortsKey, RANGE_KEY_BITS, RowKey, RowValue,
    State, Tally, capacity,
};

use super::sets::{Set, mask};
use crate::{datapath::Tallies, encode::PrefixedRange};

/// Events that nobody has taken yet, at most.
const EVENTS: usize = 65_536;
/// Cells of the one CPU's cache: a power of two.
const CELLS: u64 = 1024;

/// The active set and what both sets share.
pub(super) struct MemoryState<'a> {
    pub(super) set: &'a Set,
    pub(super) pages: &'a BTreeMap<u16, Page>,
    pub(super) shared: &'a mut Shared,
    pub(super) now_ns: u64,
}

/// Connections, fragments, counters and events.
pub(super) struct Shared {
    flows: BTreeMap<FlowKey, Flow>,
    most_flows: usize,
    cells: BTreeMap<u64, CacheCell>,
    fragments: BTreeMap<FragmentKey, FragmentPorts>,
    bands: BTreeMap<u32, u64>,
    counters: BTreeMap<u32, BandCounter>,
    pub(super) tallies: Tallies,
    pub(super) events: VecDeque<Event>,
    bucket: Bucket,
}

impl Shared {
    pub(super) fn new(most_flows: usize) -> Self {
        Self {
            flows: BTreeMap::new(),
            most_flows,
            cells: BTreeMap::new(),
            fragments: BTreeMap::new(),
            bands: [(0, 0)].into(),
            counters: BTreeMap::new(),
            tallies: Tallies::default(),
            events: VecDeque::new(),
            bucket: Bucket::default(),
        }
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

    /// Connections, in order.
    pub(super) const fn flows(&self) -> &BTreeMap<FlowKey, Flow> {
        &self.flows
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
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

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

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.shared.flows.get(key).copied()
    }

    fn set_flow(&mut self, value: &FlowValue) {
        let flows = &mut self.shared.flows;
        if flows.len() >= self.shared.most_flows && !flows.contains_key(&value.key) {
            let oldest = flows.iter().min_by_key(|(_, flow)| flow.last_seen_ns).map(|(key, _)| *key);
            flows.remove(&oldest.unwrap_or(value.key));
        }
        flows.insert(value.key, value.flow);
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        self.shared.flows.remove(key);
    }

    fn cached(&self, key: &FlowKey, endpoint: u32, generation: u32) -> Option<Cached> {
        let cell = self.shared.cells.get(&(key.spread() % CELLS))?;
        let valid = cell.key == *key && cell.endpoint == endpoint && cell.generation == generation;
        valid.then_some(Cached { counter: cell.counter, peer_counter: cell.peer_counter, both: cell.both != 0 })
    }

    fn set_cached(&mut self, value: &FlowValue, cached: Cached) {
        let cell = CacheCell {
            key: value.key,
            generation: value.flow.generation,
            endpoint: value.flow.endpoint,
            // Nothing ticks here: what a cell says stays true until the generation changes.
            filled: 0,
            counter: cached.counter,
            peer_counter: cached.peer_counter,
            both: u32::from(cached.both),
        };
        self.shared.cells.insert(value.key.spread() % CELLS, cell);
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
