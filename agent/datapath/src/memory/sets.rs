//! Two sets of ordered maps, and what both share.

use std::{collections::BTreeMap, io, time::Duration};

use ringfence_ebpf_common::{
    Address, AddressValue, Directory, EndpointValue, Page, PortsKey, RangeKey, RowKey, RowValue,
};
use ringfence_policy::revision::Revision;

use super::state::{MemoryState, Shared};
use crate::{
    capacity::Capacity,
    decode::Content,
    encode::PrefixedRange,
    error::{ObserveError, Table},
    flip::{Part, Place, Sets, StillBusy, Unwritten, WriteFailure},
    pages::{Directories, Store, ports_of},
    write::Write,
};

/// What the kernel keeps in maps.
pub(crate) struct MemorySets {
    maps: Maps,
    directories: Directories,
    generation: u32,
    shared: Shared,
}

struct Maps {
    sets: [Set; 2],
    pages: BTreeMap<u16, Page>,
    capacity: Capacity,
}

#[derive(Default)]
pub(super) struct Set {
    pub(super) addresses: BTreeMap<Address, AddressValue>,
    pub(super) ranges: BTreeMap<PrefixedRange, u32>,
    pub(super) endpoints: BTreeMap<u32, EndpointValue>,
    pub(super) directories: BTreeMap<PortsKey, Directory>,
    pub(super) rows: BTreeMap<RowKey, RowValue>,
    revision: Revision,
}

impl MemorySets {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let maps = Maps { sets: Default::default(), pages: BTreeMap::new(), capacity };
        let shared = Shared::new(capacity.flows);
        Self { maps, directories: Directories::default(), generation: 0, shared }
    }

    pub(super) fn state(&mut self, now_ns: u64) -> MemoryState<'_> {
        let set = &self.maps.sets[(self.generation & 1) as usize];
        MemoryState { set, pages: &self.maps.pages, shared: &mut self.shared, now_ns }
    }

    /// Ranges, endpoints and ports.
    fn others(&self, set: &Set, content: &mut Content) {
        for (key, identity) in &set.ranges {
            content.range(key, *identity);
        }
        for (key, value) in &set.endpoints {
            content.endpoint(*key, value);
        }
        for (key, directory) in &set.directories {
            content.ports(key, ports_of(directory, |number| self.maps.pages.get(&number).copied()));
        }
    }

    pub(super) const fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) const fn shared_mut(&mut self) -> &mut Shared {
        &mut self.shared
    }

    /// Something else than Ringfence changes a page.
    #[cfg(test)]
    pub(crate) fn tamper_with_a_page(&mut self) {
        let page = self.maps.pages.values_mut().next().expect("some page is in use");
        page.bands[80] = 9;
    }
}

impl Sets for MemorySets {
    fn write(&mut self, parity: usize, writes: &[Write]) -> Result<(), Unwritten> {
        for (done, write) in writes.iter().enumerate() {
            let written = match write {
                Write::Ports(key, ports) => self.directories.write(&mut self.maps, parity, key, ports.as_ref()),
                other => self.maps.write(parity, other),
            };
            written.map_err(|failure| Unwritten { done, failure })?;
        }
        Ok(())
    }

    fn read(&self, parity: usize) -> Result<Content, ObserveError> {
        let (set, mut content) = (&self.maps.sets[parity], Content::default());
        for (key, value) in &set.addresses {
            content.address(key, value);
        }
        self.others(set, &mut content);
        for (key, value) in &set.rows {
            content.row(key, value);
        }
        Ok(content)
    }

    fn read_part(&self, parity: usize, from: Place, at_once: usize) -> Result<Part, ObserveError> {
        let (set, mut content) = (&self.maps.sets[parity], Content::default());
        let next = match from {
            Place::Others => {
                self.others(set, &mut content);
                Some(Place::Addresses(None))
            }
            Place::Addresses(from) => {
                let next = some(&set.addresses, from, at_once, |key, value| content.address(key, value));
                Some(next.map_or(Place::Rows(None), |next| Place::Addresses(Some(next))))
            }
            Place::Rows(from) => {
                some(&set.rows, from, at_once, |key, value| content.row(key, value)).map(|next| Place::Rows(Some(next)))
            }
        };
        Ok(Part { content, next })
    }

    fn address(&self, parity: usize, key: &Address) -> Result<Option<AddressValue>, ObserveError> {
        Ok(self.maps.sets[parity].addresses.get(key).copied())
    }

    fn row(&self, parity: usize, key: &RowKey) -> Result<Option<RowValue>, ObserveError> {
        Ok(self.maps.sets[parity].rows.get(key).copied())
    }

    fn mend(&mut self) -> Result<usize, ObserveError> {
        let wrong: Vec<(u16, Page)> = self
            .directories
            .pages()
            .filter(|(number, page)| *number != 0 && self.maps.pages.get(number) != Some(page))
            .map(|(number, page)| (number, *page))
            .collect();
        let mended = wrong.len();
        self.maps.pages.extend(wrong);
        Ok(mended)
    }

    fn set_revision(&mut self, parity: usize, revision: Revision) -> io::Result<()> {
        self.maps.sets[parity].revision = revision;
        Ok(())
    }

    fn revision(&self, parity: usize) -> Result<Revision, ObserveError> {
        Ok(self.maps.sets[parity].revision)
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
        self.maps.capacity
    }
}

impl Maps {
    fn write(&mut self, parity: usize, write: &Write) -> Result<(), WriteFailure> {
        let capacity = self.capacity.of(write.table());
        let set = &mut self.sets[parity];
        match write {
            Write::Address(key, value) => put(&mut set.addresses, capacity, *key, *value),
            Write::Range(key, value) => put(&mut set.ranges, capacity, *key, *value),
            Write::Endpoint(key, value) => put(&mut set.endpoints, capacity, *key, *value),
            Write::Row(key, value) => put(&mut set.rows, capacity, *key, *value),
            Write::Ports(..) => unreachable!("`Directories` writes them"),
            Write::Tidy(_) => Ok(()),
        }
    }
}

impl Store for Maps {
    fn write_page(&mut self, number: u16, page: &Page) -> Result<(), WriteFailure> {
        self.pages.insert(number, *page);
        Ok(())
    }

    fn write_directory(
        &mut self,
        parity: usize,
        key: &PortsKey,
        directory: Option<&Directory>,
    ) -> Result<(), WriteFailure> {
        let capacity = self.capacity.of(Table::Ports);
        put(&mut self.sets[parity].directories, capacity, *key, directory.copied())
    }
}

/// Hands over some entries, those from a place on; answers where the next ones begin.
fn some<K, V>(map: &BTreeMap<K, V>, from: Option<u32>, at_once: usize, mut take: impl FnMut(&K, &V)) -> Option<u32> {
    let from = from.unwrap_or(0);
    let mut entries = map.iter().skip(from as usize);
    entries.by_ref().take(at_once).for_each(|(key, value)| take(key, value));
    entries.next().map(|_| from.saturating_add(u32::try_from(at_once).unwrap_or(u32::MAX)))
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
pub(super) fn mask(key: &RangeKey, prefix_bits: u32) -> RangeKey {
    let keep = |word: u32, before: u32| {
        let bits = prefix_bits.saturating_sub(before).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        (u32::from_be(word) & mask).to_be()
    };
    let [a, b, c, d] = key.words;
    RangeKey { family: keep(key.family, 0), words: [keep(a, 32), keep(b, 64), keep(c, 96), keep(d, 128)] }
}
