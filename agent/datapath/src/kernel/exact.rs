//! Addresses and rows of both sets, shared with the programs through memory.

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use ringfence_ebpf_common::{Address, ExactCell, Index, RowKey, exact::Exact, map};

use super::{
    cells::Mapping,
    error::OpenError,
    open::{check_layout, failed, take},
    reports, system,
};
use crate::{
    capacity::Capacity,
    error::{self, ObserveError},
    exact::{AtomicCell, Full, Slice, Table},
    flip::WriteFailure,
    write::Write,
};

/// An empty table: one group of cells.
const EMPTY: u32 = ringfence_ebpf_common::exact::GROUP - 1;

/// The tables of both sets.
pub(super) struct ExactTables {
    header: Header,
    key: [u64; 4],
    pub(super) addresses: [Cells<Address>; 2],
    pub(super) rows: [Cells<RowKey>; 2],
    capacity: [u32; 2],
}

/// One table.
pub(super) struct Cells<K> {
    memory: Mapping,
    count: usize,
    pub(super) table: Table<K>,
}

/// `INDEX` as memory.
struct Header(Mapping);

impl ExactTables {
    /// Maps them, and makes up the key of their hashes if there is none yet. No program may be attached that reads them
    /// before.
    pub(super) fn new(ebpf: &mut Ebpf, capacity: Capacity) -> Result<Self, OpenError> {
        let header = Header(memory::<Index>(map::INDEX, &array::<Index>(ebpf, map::INDEX)?, 1)?);
        // Also one that was not written to its end: nothing was found by it yet.
        if header.read().key.contains(&0) {
            let random = |source| OpenError::Memory { map: map::INDEX, source };
            let [a, b, c, d, _] = system::random().map_err(random)?;
            header.write(&Index {
                key: [a, b, c, d],
                addresses: [EMPTY; 2],
                rows: [EMPTY; 2],
                address_capacity: capacity.addresses,
                row_capacity: capacity.rows,
                padding: 0,
            });
        }
        let index = header.read();
        let mut open = |name, mask, capacity| cells_of(ebpf, name, index, mask, capacity);
        let [even, odd] = map::ADDRESSES;
        let addresses = [
            open(even, index.addresses[0], index.address_capacity)?,
            open(odd, index.addresses[1], index.address_capacity)?,
        ];
        let mut open = |name, mask, capacity| cells_of(ebpf, name, index, mask, capacity);
        let [even, odd] = map::ROWS;
        let rows = [open(even, index.rows[0], index.row_capacity)?, open(odd, index.rows[1], index.row_capacity)?];
        let mut tables =
            Self { header, key: index.key, addresses, rows, capacity: [index.address_capacity, index.row_capacity] };
        tables.mend();
        Ok(tables)
    }

    /// The most addresses, and the most rows.
    pub(super) const fn capacity(&self) -> [u32; 2] {
        self.capacity
    }

    /// Writes entries as they come, up to the first of another table; answers how many. On an error, how many were
    /// written before.
    pub(super) fn write(&mut self, parity: usize, writes: &[Write]) -> Result<usize, (usize, WriteFailure)> {
        let (addresses, rows) = (&mut self.addresses[parity], &mut self.rows[parity]);
        let mut failure = None;
        let mut done = 0;
        for write in writes {
            let written = match write {
                Write::Address(key, value) => addresses.write(key, value.as_ref()),
                Write::Row(key, value) => rows.write(key, value.as_ref()),
                Write::Tidy(error::Table::Addresses) => addresses.tidy(),
                Write::Tidy(error::Table::Rows) => rows.tidy(),
                _ => break,
            };
            if written.is_err() {
                failure = Some(WriteFailure::Full);
                break;
            }
            done += 1;
        }
        // Tables may have grown; nobody reads this set before the flip.
        self.mend();
        failure.map_or(Ok(done), |failure| Err((done, failure)))
    }

    /// Makes room at once for what is going to be written into an empty set.
    pub(super) fn reserve(&mut self, parity: usize, writes: &[Write]) {
        let count = |is: fn(&Write) -> bool| u32::try_from(writes.iter().filter(|write| is(write)).count());
        let (addresses, rows) = (&mut self.addresses[parity], &mut self.rows[parity]);
        if addresses.table.is_empty() {
            let more = count(|write| matches!(write, Write::Address(_, Some(_))));
            addresses.reserve(more.unwrap_or(u32::MAX));
        }
        if rows.table.is_empty() {
            let more = count(|write| matches!(write, Write::Row(_, Some(_))));
            rows.reserve(more.unwrap_or(u32::MAX));
        }
    }

    /// Writes `INDEX` again if it is not what the tables were made with; answers whether somebody else had changed it, if
    /// nothing was written before.
    pub(super) fn mend(&mut self) -> bool {
        let index = Index {
            key: self.key,
            addresses: [0, 1].map(|parity| self.addresses[parity].table.mask()),
            rows: [0, 1].map(|parity| self.rows[parity].table.mask()),
            address_capacity: self.capacity[0],
            row_capacity: self.capacity[1],
            padding: 0,
        };
        let differs = self.header.read() != index;
        if differs {
            self.header.write(&index);
        }
        differs
    }
}

impl<K: Exact> Cells<K> {
    /// The table of an open datapath, opened a second time to be read.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    pub(super) fn of_pin(
        name: &'static str,
        cells: &MapData,
        index: &MapData,
        mask: fn(&Index) -> u32,
    ) -> Result<Self, ObserveError> {
        let unreadable = |source| ObserveError::Map { map: name, source };
        let count = cells.info().map_err(reports::unreadable(name))?.max_entries() as usize;
        let memory = Mapping::new(cells.fd().as_fd(), count * size_of::<ExactCell>()).map_err(unreadable)?;
        let index = Header(Mapping::new(index.fd().as_fd(), size_of::<Index>()).map_err(unreadable)?).read();
        Ok(Self::adopt(memory, count, index, mask(&index), u32::MAX))
    }

    fn adopt(memory: Mapping, count: usize, index: Index, mask: u32, capacity: u32) -> Self {
        let table = Table::adopt(slice(&memory, count), index, mask, capacity);
        Self { memory, count, table }
    }

    /// What a packet finds under a key.
    pub(super) fn get(&self, key: &K) -> Option<K::Value> {
        self.table.get(self.cells(), key)
    }

    pub(super) fn cells(&self) -> Slice<'_> {
        slice(&self.memory, self.count)
    }

    fn write(&mut self, key: &K, value: Option<&K::Value>) -> Result<(), Full> {
        let cells = slice(&self.memory, self.count);
        match value {
            Some(value) => self.table.put(cells, key, value),
            None => {
                self.table.remove(cells, key);
                Ok(())
            }
        }
    }

    fn reserve(&mut self, entries: u32) {
        self.table.reserve(slice(&self.memory, self.count), entries);
    }

    fn tidy(&mut self) -> Result<(), Full> {
        self.table.tidy(slice(&self.memory, self.count));
        Ok(())
    }
}

impl Header {
    fn read(&self) -> Index {
        let half = |at: usize| self.half(at).load(Ordering::SeqCst);
        Index {
            key: [0, 1, 2, 3].map(|at| self.word(at).load(Ordering::SeqCst)),
            addresses: [half(8), half(9)],
            rows: [half(10), half(11)],
            address_capacity: half(12),
            row_capacity: half(13),
            padding: self.word(7).load(Ordering::SeqCst),
        }
    }

    /// The key goes last: without one, there are no tables.
    fn write(&self, index: &Index) {
        let halves = [index.addresses, index.rows, [index.address_capacity, index.row_capacity]];
        for (at, value) in (8..).zip(halves.concat()) {
            self.half(at).store(value, Ordering::SeqCst);
        }
        self.word(7).store(index.padding, Ordering::SeqCst);
        for (at, value) in (0..4).zip(index.key) {
            self.word(at).store(value, Ordering::SeqCst);
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < size_of::<Index>() / 8, "only words of an `Index` are asked for");
        // SAFETY: the mapping has an `Index` at the start of a page; programs only read it.
        unsafe { AtomicU64::from_ptr(self.0.start().cast::<u64>().add(at).as_ptr()) }
    }

    fn half(&self, at: usize) -> &AtomicU32 {
        assert!(at < size_of::<Index>() / 4, "only halves of an `Index` are asked for");
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.0.start().cast::<u32>().add(at).as_ptr()) }
    }
}

fn slice(memory: &Mapping, count: usize) -> Slice<'_> {
    let start: NonNull<AtomicCell> = memory.start().cast();
    // SAFETY: the mapping has `count` cells of 32 bytes from the start of a page, as long as it lives; all access is atomic
    // here, and programs only read, words at a time.
    Slice(unsafe { std::slice::from_raw_parts(start.as_ptr(), count) })
}

fn array<V>(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, OpenError> {
    check_layout::<u32, V>(name, ebpf.map(name))?;
    match take(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(OpenError::Missing { what: format!("map {name} of the expected type") }),
    }
}

fn memory<V>(name: &'static str, data: &MapData, count: usize) -> Result<Mapping, OpenError> {
    Mapping::new(data.fd().as_fd(), count * size_of::<V>()).map_err(|source| OpenError::Memory { map: name, source })
}

fn cells_of<K: Exact>(
    ebpf: &mut Ebpf,
    name: &'static str,
    index: Index,
    mask: u32,
    capacity: u32,
) -> Result<Cells<K>, OpenError> {
    let data = array::<ExactCell>(ebpf, name)?;
    let count = data.info().map_err(failed(name))?.max_entries() as usize;
    Ok(Cells::adopt(memory::<ExactCell>(name, &data, count)?, count, index, mask, capacity))
}
