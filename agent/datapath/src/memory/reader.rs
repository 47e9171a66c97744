//! A copy of what packets read, for a reader that takes its time.

use std::{net::IpAddr, ops::ControlFlow};

use ringfence_policy::{
    cidr::Cidr,
    identity::Identity,
    tables::{AddressEntry, EndpointEntry, EndpointId, PortsKey, PortsOfProtocol, Row, RowKey, Tables},
};

use super::state::Shared;
use crate::{
    decode::Content,
    error::ObserveError,
    read::{Connection, Head, MapReader, Take},
    report::BandReport,
};

/// Tables and connections of one moment.
pub(super) struct MemoryReader {
    head: Head,
    tables: Tables,
    strays: usize,
    bands: Vec<BandReport>,
    connections: Vec<Connection>,
}

impl MemoryReader {
    pub(super) fn new(head: Head, content: Content, shared: &Shared) -> Self {
        Self {
            head,
            strays: content.strays.len(),
            tables: content.tables,
            bands: shared.bands().map(|(owner, counter)| BandReport::new(owner, counter)).collect(),
            connections: shared.connections().filter_map(|value| Connection::new(&value.key, &value.flow)).collect(),
        }
    }

    fn hand_over<T>(&self, entries: impl IntoIterator<Item = T>, take: Take<'_, T>) -> usize {
        let _stopped: ControlFlow<()> = entries.into_iter().try_for_each(take);
        self.strays
    }
}

impl MapReader for MemoryReader {
    fn head(&self) -> Result<Head, ObserveError> {
        Ok(self.head)
    }

    fn addresses(&self, take: Take<'_, (IpAddr, AddressEntry)>) -> Result<usize, ObserveError> {
        Ok(self.hand_over(self.tables.addresses.iter().map(|(key, entry)| (*key, *entry)), take))
    }

    fn ranges(&self, take: Take<'_, (Cidr, Identity)>) -> Result<usize, ObserveError> {
        Ok(self.hand_over(self.tables.ranges.iter().map(|(key, entry)| (*key, *entry)), take))
    }

    fn endpoints(&self, take: Take<'_, (EndpointId, EndpointEntry)>) -> Result<usize, ObserveError> {
        Ok(self.hand_over(self.tables.endpoints.iter().map(|(key, entry)| (*key, *entry)), take))
    }

    fn ports(&self, take: Take<'_, (PortsKey, PortsOfProtocol)>) -> Result<usize, ObserveError> {
        Ok(self.hand_over(self.tables.ports.iter().map(|(key, entry)| (*key, entry.clone())), take))
    }

    fn rows(&self, take: Take<'_, (RowKey, Row)>) -> Result<usize, ObserveError> {
        Ok(self.hand_over(self.tables.rows.iter().map(|(key, entry)| (*key, *entry)), take))
    }

    fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        Ok(self.bands.clone())
    }

    fn connections(&self, take: Take<'_, Connection>) -> Result<(), ObserveError> {
        self.hand_over(self.connections.iter().copied(), take);
        Ok(())
    }
}
