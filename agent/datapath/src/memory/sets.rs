//! Two sets of ordered maps, and the connections.

use std::{collections::BTreeMap, io, time::Duration};

use ringfence_ebpf_common::{
    Address, AddressValue, EndpointValue, FlowKey, FlowValue, RANGE_KEY_BITS, RangeKey, RuleKey, RuleValue, State,
};
use ringfence_policy::{revision::Revision, tables::Tables};

use crate::{
    capacity::Capacity,
    decode::Decoder,
    encode::PrefixedRange,
    error::ObserveError,
    flip::{Sets, StillBusy, WriteFailure},
    write::Write,
};

/// What the kernel keeps in maps.
pub(crate) struct MemorySets {
    sets: [Set; 2],
    generation: u32,
    flows: BTreeMap<FlowKey, FlowValue>,
    capacity: Capacity,
}

#[derive(Default)]
struct Set {
    addresses: BTreeMap<Address, AddressValue>,
    ranges: BTreeMap<PrefixedRange, u32>,
    endpoints: BTreeMap<u32, EndpointValue>,
    rules: BTreeMap<RuleKey, RuleValue>,
    revision: Revision,
}

/// What `decide` reads and writes: the active set and the connections.
pub(crate) struct MemoryState<'a> {
    set: &'a Set,
    flows: &'a mut BTreeMap<FlowKey, FlowValue>,
}

impl MemorySets {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { sets: Default::default(), generation: 0, flows: BTreeMap::new(), capacity }
    }

    pub(crate) fn state(&mut self) -> MemoryState<'_> {
        MemoryState { set: &self.sets[(self.generation & 1) as usize], flows: &mut self.flows }
    }
}

impl Sets for MemorySets {
    fn write(&mut self, parity: usize, write: &Write) -> Result<(), WriteFailure> {
        let capacity = self.capacity.of(write.table());
        let set = &mut self.sets[parity];
        match *write {
            Write::Address(key, value) => put(&mut set.addresses, capacity, key, value),
            Write::Range(key, value) => put(&mut set.ranges, capacity, key, value),
            Write::Endpoint(key, value) => put(&mut set.endpoints, capacity, key, value),
            Write::Rule(key, value) => put(&mut set.rules, capacity, key, value),
        }
    }

    fn read(&self, parity: usize) -> Result<Tables, ObserveError> {
        let set = &self.sets[parity];
        let mut decoder = Decoder::default();
        for (key, value) in &set.addresses {
            decoder.address(key, value);
        }
        for (key, identity) in &set.ranges {
            decoder.range(key, *identity)?;
        }
        for (key, value) in &set.endpoints {
            decoder.endpoint(*key, value)?;
        }
        for (key, value) in &set.rules {
            decoder.rule(key, value)?;
        }
        Ok(decoder.finish())
    }

    fn set_revision(&mut self, parity: usize, revision: Revision) -> io::Result<()> {
        self.sets[parity].revision = revision;
        Ok(())
    }

    fn revision(&self, parity: usize) -> Result<Revision, ObserveError> {
        Ok(self.sets[parity].revision)
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn activate(&mut self, generation: u32) {
        self.generation = generation;
    }

    fn wait(&mut self) -> Result<Duration, StillBusy> {
        // Packets are judged through `&mut self`: none can be on its way.
        Ok(Duration::ZERO)
    }

    fn capacity(&self) -> Capacity {
        self.capacity
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

    fn rule(&self, key: &RuleKey) -> Option<RuleValue> {
        self.set.rules.get(key).copied()
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowValue> {
        self.flows.get(key).copied()
    }

    fn set_flow(&mut self, key: &FlowKey, value: &FlowValue) {
        self.flows.insert(*key, *value);
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, capacity: u32, key: K, value: Option<V>) -> Result<(), WriteFailure> {
    let Some(value) = value else {
        map.remove(&key);
        return Ok(());
    };
    if map.len() >= capacity as usize && !map.contains_key(&key) {
        return Err(WriteFailure::Full);
    }
    map.insert(key, value);
    Ok(())
}

/// Clears the bits after the prefix, which counts from the family's first bit.
fn mask(key: &RangeKey, prefix_bits: u32) -> RangeKey {
    let keep = |word: u32, before: u32| {
        let bits = prefix_bits.saturating_sub(before).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        (u32::from_be(word) & mask).to_be()
    };
    let [a, b, c, d] = key.address.words;
    RangeKey {
        family: keep(key.family, 0),
        address: Address { words: [keep(a, 32), keep(b, 64), keep(c, 96), keep(d, 128)] },
    }
}
