//! The kernel's table of connections, shared with the programs through memory.

use std::{io, os::fd::AsFd, ptr::NonNull};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
};
use ringfence_ebpf_common::{
    FlowCell, FlowTable, FlowValue, map,
    table::{self, Crowd, Look, Written},
};

use super::{
    cells::Mapping,
    error::OpenError,
    open::{check_layout, failed, take},
    raw::Raw,
    reports, system,
};
use crate::{
    error::ObserveError,
    flows::{self, AtomicCell, Slice},
};

/// The table.
pub(super) struct Flows {
    memory: Mapping,
    count: usize,
    table: FlowTable,
}

impl Flows {
    /// Maps it, and makes up the key of its hash if there is none yet. No program may be attached that reads it before.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        check_layout::<u32, FlowCell>(map::FLOWS, ebpf.map(map::FLOWS))?;
        check_layout::<u32, FlowTable>(map::FLOW_TABLE, ebpf.map(map::FLOW_TABLE))?;
        let Map::Array(cells) = take(ebpf, map::FLOWS)? else {
            return Err(OpenError::Missing { what: format!("map {} of the expected type", map::FLOWS) });
        };
        let header = Array::try_from(take(ebpf, map::FLOW_TABLE)?).map_err(failed(map::FLOW_TABLE))?;
        let count = cells.info().map_err(failed(map::FLOWS))?.max_entries();
        let table = table_of(header, count)?;
        let count = count as usize;
        let memory = Mapping::new(cells.fd().as_fd(), count * size_of::<FlowCell>())
            .map_err(|source| OpenError::Memory { map: map::FLOWS, source })?;
        Ok(Self { memory, count, table })
    }

    /// The table of an open datapath, opened a second time to be read.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    pub(super) fn of_pin(cells: &MapData) -> Result<Self, ObserveError> {
        let count = cells.info().map_err(reports::unreadable(map::FLOWS))?.max_entries() as usize;
        let memory = Mapping::new(cells.fd().as_fd(), count * size_of::<FlowCell>())
            .map_err(|source| ObserveError::Map { map: map::FLOWS, source })?;
        // Nothing is looked up by its key.
        Ok(Self { memory, count, table: FlowTable::default() })
    }

    /// How many connections there is room for.
    pub(super) const fn capacity(&self) -> u32 {
        self.table.mask.div_ceil(2)
    }

    /// Every connection.
    pub(super) fn each(&self) -> impl Iterator<Item = FlowValue> {
        flows::each(self.cells())
    }

    /// Adds a connection unless it is known.
    pub(super) fn add(&self, value: &FlowValue, now: u32) -> bool {
        let (cells, home) = (self.cells(), self.table.home(&value.key));
        let known = matches!(table::find(&cells, home, &value.key), Look::Known(..));
        !known && table::write(&cells, home, value, false, now, &mut { Crowd::NONE }) == Written::Kept
    }

    fn cells(&self) -> Slice<'_> {
        let start: NonNull<AtomicCell> = self.memory.start().cast();
        // SAFETY: the mapping has `count` cells of 64 bytes from the start of a page, as long as `self` lives; all access
        // is atomic, here and in the programs.
        Slice(unsafe { std::slice::from_raw_parts(start.as_ptr(), self.count) })
    }
}

/// How connections are found: as it was, or with a new key.
fn table_of(mut header: Array<MapData, Raw<FlowTable>>, cells: u32) -> Result<FlowTable, OpenError> {
    let Raw(there) = header.get(&0, 0).map_err(failed(map::FLOW_TABLE))?;
    if there.mask == cells - 1 {
        return Ok(there);
    }
    let random = |source: io::Error| OpenError::Memory { map: map::FLOW_TABLE, source };
    let table = flows::table(system::random().map_err(random)?, cells);
    header.set(0, Raw(table), 0).map_err(failed(map::FLOW_TABLE))?;
    Ok(table)
}
