//! The kernel's maps as two sets.

use std::{collections::BTreeSet, io, ops::ControlFlow, time::Duration};

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use ringfence_ebpf_common::{
    Address, AddressValue, Directory, EndpointValue, Page, PortsKey, RangeKey, RowKey, RowValue, map,
};
use ringfence_policy::revision::Revision;

use super::{cells::Cells, error::io_error, exact::ExactTables, raw::Raw};
use crate::{
    capacity::Capacity,
    decode::Content,
    encode::PrefixedRange,
    error::{ObserveError, Table},
    flip::{Part, Place, Sets, StillBusy, Unwritten, WriteFailure},
    pages::{Directories, Store, ports_of},
    write::Write,
};

/// Both sets, and the cells that packets read.
pub(super) struct KernelSets {
    pub(super) exact: ExactTables,
    pub(super) maps: Maps,
    pub(super) directories: Directories,
    pub(super) revision: Array<MapData, u64>,
    pub(super) cells: Cells,
    pub(super) capacity: Capacity,
}

/// What a revision is written to, but for addresses and rows.
pub(super) struct Maps {
    pub(super) sets: [KernelSet; 2],
    pub(super) pages: Array<MapData, Raw<Page>>,
}

/// The maps of one parity.
pub(super) struct KernelSet {
    pub(super) ranges: LpmTrie<MapData, Raw<RangeKey>, u32>,
    pub(super) endpoints: HashMap<MapData, u32, Raw<EndpointValue>>,
    pub(super) directories: HashMap<MapData, Raw<PortsKey>, Raw<Directory>>,
}

impl KernelSets {
    /// Takes over the directories and pages that are there.
    pub(super) fn adopt(&mut self) -> Result<(), ObserveError> {
        for parity in 0..2 {
            for entry in self.maps.sets[parity].directories.iter() {
                let (key, directory) = entry.map_err(failed(Table::Ports))?;
                let pages = &self.maps.pages;
                let page = |number: u16| pages.get(&u32::from(number), 0).map_or(Page { bands: [0; 256] }, |raw| raw.0);
                self.directories.adopt(parity, key.0, directory.0, page);
            }
        }
        Ok(())
    }

    /// The policies that packets are judged by.
    pub(super) fn policies(&self) -> Result<BTreeSet<u32>, ObserveError> {
        let set = &self.maps.sets[(self.generation() & 1) as usize];
        set.endpoints
            .iter()
            .map(|entry| entry.map(|(_, value)| value.0.policy).map_err(failed(Table::Endpoints)))
            .collect()
    }

    /// Ranges, endpoints and ports.
    fn others(&self, set: &KernelSet, content: &mut Content) -> Result<(), ObserveError> {
        for entry in set.ranges.iter() {
            let (key, identity) = entry.map_err(failed(Table::Ranges))?;
            content.range(&PrefixedRange { prefix_bits: key.prefix_len(), key: key.data().0 }, identity);
        }
        for entry in set.endpoints.iter() {
            let (key, value) = entry.map_err(failed(Table::Endpoints))?;
            content.endpoint(key, &value.0);
        }
        for entry in set.directories.iter() {
            let (key, directory) = entry.map_err(failed(Table::Ports))?;
            content.ports(&key.0, ports_of(&directory.0, |number| self.page(number)));
        }
        Ok(())
    }

    fn page(&self, number: u16) -> Option<Page> {
        self.maps.pages.get(&u32::from(number), 0).ok().map(|raw| raw.0)
    }
}

impl Sets for KernelSets {
    fn write(&mut self, parity: usize, writes: &[Write]) -> Result<(), Unwritten> {
        self.exact.reserve(parity, writes);
        let mut done = 0;
        while let Some(write) = writes.get(done) {
            let at_once = |written: Result<(), WriteFailure>| written.map(|()| 1).map_err(|failure| (0, failure));
            let written = match write {
                Write::Address(..) | Write::Row(..) | Write::Tidy(_) => self.exact.write(parity, &writes[done..]),
                Write::Ports(key, ports) => {
                    at_once(self.directories.write(&mut self.maps, parity, key, ports.as_ref()))
                }
                other => at_once(self.maps.sets[parity].write(other)),
            };
            match written {
                Ok(count) => done += count,
                Err((before, failure)) => return Err(Unwritten { done: done + before, failure }),
            }
        }
        Ok(())
    }

    fn read(&self, parity: usize) -> Result<Content, ObserveError> {
        let (set, mut content) = (&self.maps.sets[parity], Content::default());
        let (addresses, rows) = (&self.exact.addresses[parity], &self.exact.rows[parity]);
        let wrong = addresses.table.each(addresses.cells(), |key, value| {
            content.address(&key, &value);
            ControlFlow::Continue(())
        });
        content.disorder(Table::Addresses, wrong);
        self.others(set, &mut content)?;
        let wrong = rows.table.each(rows.cells(), |key, value| {
            content.row(&key, &value);
            ControlFlow::Continue(())
        });
        content.disorder(Table::Rows, wrong);
        Ok(content)
    }

    fn read_part(&self, parity: usize, from: Place, at_once: usize) -> Result<Part, ObserveError> {
        let mut content = Content::default();
        let (addresses, rows) = (&self.exact.addresses[parity], &self.exact.rows[parity]);
        let next = match from {
            Place::Others => {
                self.others(&self.maps.sets[parity], &mut content)?;
                Some(Place::Addresses(None))
            }
            Place::Addresses(from) => {
                let take = |key, value| content.address(&key, &value);
                let (wrong, next) = addresses.table.some(addresses.cells(), from.unwrap_or(0), at_once, take);
                content.disorder(Table::Addresses, wrong);
                Some(next.map_or(Place::Rows(None), |next| Place::Addresses(Some(next))))
            }
            Place::Rows(from) => {
                let take = |key, value| content.row(&key, &value);
                let (wrong, next) = rows.table.some(rows.cells(), from.unwrap_or(0), at_once, take);
                content.disorder(Table::Rows, wrong);
                next.map(|next| Place::Rows(Some(next)))
            }
        };
        Ok(Part { content, next })
    }

    fn address(&self, parity: usize, key: &Address) -> Result<Option<AddressValue>, ObserveError> {
        Ok(self.exact.addresses[parity].get(key))
    }

    fn row(&self, parity: usize, key: &RowKey) -> Result<Option<RowValue>, ObserveError> {
        Ok(self.exact.rows[parity].get(key))
    }

    fn mend(&mut self) -> Result<usize, ObserveError> {
        let mut mended = usize::from(self.exact.mend());
        for (number, page) in self.directories.pages() {
            let index = u32::from(number);
            let there = self.maps.pages.get(&index, 0).map_err(failed(Table::Ports))?;
            if there.0 != *page {
                self.maps.pages.set(index, Raw(*page), 0).map_err(failed(Table::Ports))?;
                mended += 1;
            }
        }
        Ok(mended)
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

impl KernelSet {
    fn write(&mut self, write: &Write) -> Result<(), WriteFailure> {
        finish(match write {
            Write::Range(range, Some(identity)) => self.ranges.insert(&range_key(range), *identity, 0),
            Write::Range(range, None) => self.ranges.remove(&range_key(range)),
            Write::Endpoint(key, Some(value)) => self.endpoints.insert(*key, Raw(*value), 0),
            Write::Endpoint(key, None) => self.endpoints.remove(key),
            Write::Ports(..) => unreachable!("`Directories` writes them"),
            Write::Address(..) | Write::Row(..) | Write::Tidy(_) => unreachable!("`ExactTables` writes them"),
        })
    }
}

impl Store for Maps {
    fn write_page(&mut self, number: u16, page: &Page) -> Result<(), WriteFailure> {
        finish(self.pages.set(u32::from(number), Raw(*page), 0))
    }

    fn write_directory(
        &mut self,
        parity: usize,
        key: &PortsKey,
        directory: Option<&Directory>,
    ) -> Result<(), WriteFailure> {
        let map = &mut self.sets[parity].directories;
        finish(match directory {
            Some(directory) => map.insert(Raw(*key), Raw(*directory), 0),
            None => map.remove(&Raw(*key)),
        })
    }
}

fn finish(written: Result<(), MapError>) -> Result<(), WriteFailure> {
    match written.map_err(io_error) {
        Ok(()) => Ok(()),
        // Only a removal finds nothing.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(failure(error)),
    }
}

fn failure(error: io::Error) -> WriteFailure {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => WriteFailure::Full,
        _ => WriteFailure::Other(error),
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
