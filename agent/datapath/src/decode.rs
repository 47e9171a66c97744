//! From the bytes of a set of maps to tables.

use std::fmt::Debug;

use ringfence_ebpf_common as bytes;
use ringfence_policy::{
    identity::Identity,
    tables::{EndpointId, PortsOfProtocol, Tables},
};

use crate::{
    encode::{self, PrefixedRange},
    error::ObserveError,
    write::Write,
};

/// What stands in a set of maps.
#[derive(Default)]
pub(crate) struct Content {
    pub(crate) tables: Tables,
    /// Entries that Ringfence cannot have written, as the writes that remove them.
    pub(crate) strays: Vec<Stray>,
}

/// An entry that Ringfence cannot have written.
pub(crate) struct Stray {
    pub(crate) removal: Write,
    entry: String,
}

impl Content {
    pub(crate) fn address(&mut self, key: &bytes::Address, value: &bytes::AddressValue) {
        self.tables.addresses.insert(encode::ip(key), encode::address_entry(value));
    }

    pub(crate) fn range(&mut self, key: &PrefixedRange, identity: u32) {
        match encode::cidr(key) {
            Some(range) => {
                self.tables.ranges.insert(range, Identity::from_bits(identity));
            }
            None => self.stray(Write::Range(*key, None), key),
        }
    }

    pub(crate) fn endpoint(&mut self, key: u32, value: &bytes::EndpointValue) {
        match encode::endpoint_entry(value) {
            Some(entry) => {
                self.tables.endpoints.insert(EndpointId(key), entry);
            }
            None => self.stray(Write::Endpoint(key, None), (key, value)),
        }
    }

    /// `ports`: none if the directory or its pages say what is never written.
    pub(crate) fn ports(&mut self, key: &bytes::PortsKey, ports: Option<PortsOfProtocol>) {
        match encode::ports_from_key(key).zip(ports) {
            Some((key, ports)) => {
                self.tables.ports.insert(key, ports);
            }
            None => self.stray(Write::Ports(*key, None), key),
        }
    }

    pub(crate) fn row(&mut self, key: &bytes::RowKey, value: &bytes::RowValue) {
        match encode::row_from_key(key).zip(encode::row(value)) {
            Some((key, row)) => {
                self.tables.rows.insert(key, row);
            }
            None => self.stray(Write::Row(*key, None), (key, value)),
        }
    }

    /// `cells` of a table agree with no entry: a writer was killed, or somebody else was there.
    #[cfg(feature = "kernel")]
    pub(crate) fn disorder(&mut self, table: crate::error::Table, cells: usize) {
        if cells > 0 {
            self.strays.push(Stray { removal: Write::Tidy(table), entry: format!("{cells} cells out of order") });
        }
    }

    /// The tables.
    ///
    /// # Errors
    /// `ObserveError::Corrupt` with the first stray.
    pub(crate) fn finish(self) -> Result<Tables, ObserveError> {
        match self.strays.into_iter().next() {
            Some(Stray { removal, entry }) => Err(ObserveError::Corrupt { table: removal.table(), entry }),
            None => Ok(self.tables),
        }
    }

    fn stray(&mut self, removal: Write, entry: impl Debug) {
        self.strays.push(Stray { removal, entry: format!("{entry:?}") });
    }
}
