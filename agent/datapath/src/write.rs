//! A table's edit as one write to a map, and its undoing.

use ringfence_ebpf_common::{Address, AddressValue, EndpointValue, PortsKey, RowKey, RowValue};
use ringfence_policy::tables::{Edit, PortsOfProtocol, TableDiff};

use crate::{
    encode::{self, PrefixedRange},
    error::Table,
};

/// One write to one map: a value, or the removal of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Address(Address, Option<AddressValue>),
    Range(PrefixedRange, Option<u32>),
    Endpoint(u32, Option<EndpointValue>),
    Ports(PortsKey, Option<PortsOfProtocol>),
    Row(RowKey, Option<RowValue>),
    /// Forgets what stands in a table and no packet finds.
    #[cfg_attr(not(feature = "kernel"), expect(dead_code, reason = "ordered maps are in order"))]
    Tidy(Table),
}

/// Writes, and the writes that take them back, in the same order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) forward: Vec<Write>,
    pub(crate) backward: Vec<Write>,
}

impl Write {
    pub(crate) const fn table(&self) -> Table {
        match self {
            Self::Address(..) => Table::Addresses,
            Self::Range(..) => Table::Ranges,
            Self::Endpoint(..) => Table::Endpoints,
            Self::Ports(..) => Table::Ports,
            Self::Row(..) => Table::Rows,
            Self::Tidy(table) => *table,
        }
    }
}

impl Plan {
    /// The writes that carry out a diff. Removals come first, so that a full table can exchange entries.
    pub(crate) fn of(diff: &TableDiff) -> Self {
        let mut plan = Self { forward: Vec::with_capacity(diff.len()), backward: Vec::with_capacity(diff.len()) };
        for removals in [true, false] {
            plan.add(&diff.addresses, removals, |key| {
                let key = encode::address(*key);
                move |value| Write::Address(key, value.map(encode::address_value))
            });
            plan.add(&diff.ranges, removals, |key| {
                let key = encode::range(key);
                move |value| Write::Range(key, value.map(|identity| identity.bits()))
            });
            plan.add(&diff.endpoints, removals, |key| {
                let key = key.0;
                move |value| Write::Endpoint(key, value.map(encode::endpoint_value))
            });
            plan.add(&diff.ports, removals, |key| {
                let key = encode::ports_key(key);
                move |value| Write::Ports(key, value.cloned())
            });
            plan.add(&diff.rows, removals, |key| {
                let key = encode::row_key(key);
                move |value| Write::Row(key, value.map(encode::row_value))
            });
        }
        plan
    }

    fn add<K, V, W: Fn(Option<&V>) -> Write>(&mut self, edits: &[Edit<K, V>], removals: bool, write: impl Fn(&K) -> W) {
        for edit in edits.iter().filter(|edit| edit.after.is_none() == removals) {
            let write = write(&edit.key);
            self.forward.push(write(edit.after.as_ref()));
            self.backward.push(write(edit.before.as_ref()));
        }
    }
}
