//! How many entries the tables hold.

use ringfence_ebpf_common::capacity;

use crate::error::Table;

/// The most entries of each table. The default is what the eBPF programs declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Exact addresses of the mesh.
    pub addresses: u32,
    /// Address ranges.
    pub ranges: u32,
    /// Endpoints of this node.
    pub endpoints: u32,
    /// Rules of this node's subjects.
    pub rules: u32,
}

impl Capacity {
    /// The most entries of one table.
    #[must_use]
    pub const fn of(&self, table: Table) -> u32 {
        match table {
            Table::Addresses => self.addresses,
            Table::Ranges => self.ranges,
            Table::Endpoints => self.endpoints,
            Table::Rules => self.rules,
        }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            addresses: capacity::ADDRESSES,
            ranges: capacity::RANGES,
            endpoints: capacity::ENDPOINTS,
            rules: capacity::RULES,
        }
    }
}
