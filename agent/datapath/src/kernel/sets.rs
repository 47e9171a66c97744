//! The kernel's maps as two sets.

use std::{io, time::Duration};

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use ringfence_ebpf_common::{Address, AddressValue, EndpointValue, RangeKey, RuleKey, RuleValue, map};
use ringfence_policy::{revision::Revision, tables::Tables};

use super::{cells::Cells, error::io_error, raw::Raw};
use crate::{
    capacity::Capacity,
    decode::Decoder,
    encode::PrefixedRange,
    error::{ObserveError, Table},
    flip::{Sets, StillBusy, WriteFailure},
    write::Write,
};

/// Both sets, and the cells that packets read.
pub(super) struct KernelSets {
    pub(super) sets: [KernelSet; 2],
    pub(super) revision: Array<MapData, u64>,
    pub(super) cells: Cells,
    pub(super) capacity: Capacity,
}

/// The maps of one parity.
pub(super) struct KernelSet {
    pub(super) addresses: HashMap<MapData, Raw<Address>, Raw<AddressValue>>,
    pub(super) ranges: LpmTrie<MapData, Raw<RangeKey>, u32>,
    pub(super) endpoints: HashMap<MapData, u32, Raw<EndpointValue>>,
    pub(super) rules: HashMap<MapData, Raw<RuleKey>, Raw<RuleValue>>,
}

impl Sets for KernelSets {
    fn write(&mut self, parity: usize, write: &Write) -> Result<(), WriteFailure> {
        let set = &mut self.sets[parity];
        let written = match *write {
            Write::Address(key, Some(value)) => set.addresses.insert(Raw(key), Raw(value), 0),
            Write::Address(key, None) => set.addresses.remove(&Raw(key)),
            Write::Range(range, Some(identity)) => set.ranges.insert(&range_key(&range), identity, 0),
            Write::Range(range, None) => set.ranges.remove(&range_key(&range)),
            Write::Endpoint(key, Some(value)) => set.endpoints.insert(key, Raw(value), 0),
            Write::Endpoint(key, None) => set.endpoints.remove(&key),
            Write::Rule(key, Some(value)) => set.rules.insert(Raw(key), Raw(value), 0),
            Write::Rule(key, None) => set.rules.remove(&Raw(key)),
        };
        match written.map_err(io_error) {
            Ok(()) => Ok(()),
            // Only a removal finds nothing.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => Err(WriteFailure::Full),
            Err(error) => Err(WriteFailure::Other(error)),
        }
    }

    fn read(&self, parity: usize) -> Result<Tables, ObserveError> {
        let set = &self.sets[parity];
        let mut decoder = Decoder::default();
        for entry in set.addresses.iter() {
            let (key, value) = entry.map_err(failed(Table::Addresses))?;
            decoder.address(&key.0, &value.0);
        }
        for entry in set.ranges.iter() {
            let (key, identity) = entry.map_err(failed(Table::Ranges))?;
            decoder.range(&PrefixedRange { prefix_bits: key.prefix_len(), key: key.data().0 }, identity)?;
        }
        for entry in set.endpoints.iter() {
            let (key, value) = entry.map_err(failed(Table::Endpoints))?;
            decoder.endpoint(key, &value.0)?;
        }
        for entry in set.rules.iter() {
            let (key, value) = entry.map_err(failed(Table::Rules))?;
            decoder.rule(&key.0, &value.0)?;
        }
        Ok(decoder.finish())
    }

    fn set_revision(&mut self, parity: usize, revision: Revision) -> io::Result<()> {
        self.revision.set(index(parity), revision.0, 0).map_err(io_error)
    }

    fn revision(&self, parity: usize) -> Result<Revision, ObserveError> {
        let read = self.revision.get(&index(parity), 0);
        read.map(Revision).map_err(|error| ObserveError::Map { map: map::REVISION, source: io_error(error) })
    }

    fn generation(&self) -> u32 {
        self.cells.generation()
    }

    fn activate(&mut self, generation: u32) {
        self.cells.activate(generation);
    }

    fn wait(&mut self) -> Result<Duration, StillBusy> {
        self.cells.wait()
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}

fn range_key(range: &PrefixedRange) -> Key<Raw<RangeKey>> {
    Key::new(range.prefix_bits, Raw(range.key))
}

fn failed(table: Table) -> impl Fn(MapError) -> ObserveError {
    move |error| ObserveError::Read { table, source: io_error(error) }
}

const fn index(parity: usize) -> u32 {
    if parity == 0 { 0 } else { 1 }
}
