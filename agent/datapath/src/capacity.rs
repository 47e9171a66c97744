//! How many entries the tables hold.

use ringfence_ebpf_common::capacity;

use crate::error::Table;

/// The most entries of each table. The default is what the eBPF programs declare; `docs/datapath.md` has the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Exact addresses of the mesh.
    pub addresses: u32,
    /// Address ranges.
    pub ranges: u32,
    /// Endpoints of this node.
    pub endpoints: u32,
    /// Policies times directions times protocols that name ports.
    pub ports: u32,
    /// Rows of this node's policies.
    pub rows: u32,
    /// Connections. There is room for twice as many; where it is full nevertheless, the one that has used up most of its
    /// time is forgotten. The kernel's datapath makes room for fewer where it would take more than a 128th of the
    /// machine's memory.
    pub flows: u32,
}

impl Capacity {
    /// The most entries of one table.
    #[must_use]
    pub const fn of(&self, table: Table) -> u32 {
        match table {
            Table::Addresses => self.addresses,
            Table::Ranges => self.ranges,
            Table::Endpoints => self.endpoints,
            Table::Ports => self.ports,
            Table::Rows => self.rows,
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            addresses: capacity::ADDRESSES,
            ranges: capacity::RANGES,
            endpoints: capacity::ENDPOINTS,
            ports: capacity::DIRECTORIES,
            rows: capacity::ROWS,
            flows: capacity::FLOWS,
        }
    }
}
