//! The pinned maps, opened a second time for reading.

use std::{
    io,
    net::IpAddr,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use ringfence_ebpf_common::{
    Address, BandCounter, Directory, EndpointValue, FlowValue, Index, Page, PortsKey as PortsBytes, RangeKey,
    RowKey as RowBytes, capacity, exact::Exact, map,
};
use ringfence_policy::{
    cidr::Cidr,
    identity::Identity,
    revision::Revision,
    tables::{AddressEntry, EndpointEntry, EndpointId, PortsKey, PortsOfProtocol, Row, RowKey},
};

use super::{connections::Flows, error::io_error, exact::Cells, raw::Raw, reports, system};
use crate::{
    encode::{self, PrefixedRange},
    error::{ObserveError, Table},
    pages::ports_of,
    read::{Connection, Head, MapReader, Take},
    report::BandReport,
};

/// Reads the maps that are pinned in a directory.
pub(super) struct KernelReader {
    directory: PathBuf,
    active: Array<MapData, u32>,
    revision: Array<MapData, u64>,
}

impl KernelReader {
    pub(super) fn open(directory: &Path) -> Result<Self, ObserveError> {
        Ok(Self {
            active: open(directory, map::ACTIVE, Map::Array)?,
            revision: open(directory, map::REVISION, Map::Array)?,
            directory: directory.to_owned(),
        })
    }

    fn generation(&self) -> Result<u32, ObserveError> {
        self.active.get(&0, 0).map_err(reports::unreadable(map::ACTIVE))
    }

    fn parity(&self) -> Result<usize, ObserveError> {
        Ok((self.generation()? & 1) as usize)
    }

    fn map<T: TryFrom<Map, Error = MapError>>(
        &self,
        name: &'static str,
        kind: fn(MapData) -> Map,
    ) -> Result<T, ObserveError> {
        open(&self.directory, name, kind)
    }

    fn exact<K: Exact>(&self, name: &'static str, mask: fn(&Index) -> u32) -> Result<Cells<K>, ObserveError> {
        Cells::of_pin(name, &data(&self.directory, name)?, &data(&self.directory, map::INDEX)?, mask)
    }
}

impl MapReader for KernelReader {
    fn head(&self) -> Result<Head, ObserveError> {
        let generation = self.generation()?;
        let revision = self.revision.get(&(generation & 1), 0).map_err(reports::unreadable(map::REVISION))?;
        Ok(Head { generation, revision: Revision(revision), now_ns: system::monotonic_ns() })
    }

    fn addresses(&self, take: Take<'_, (IpAddr, AddressEntry)>) -> Result<usize, ObserveError> {
        let parity = self.parity()?;
        let masks: [fn(&Index) -> u32; 2] = [|index| index.addresses[0], |index| index.addresses[1]];
        let cells: Cells<Address> = self.exact(map::ADDRESSES[parity], masks[parity])?;
        Ok(cells.table.each(cells.cells(), |key, value| take((encode::ip(&key), encode::address_entry(&value)))))
    }

    fn ranges(&self, take: Take<'_, (Cidr, Identity)>) -> Result<usize, ObserveError> {
        let map: LpmTrie<_, Raw<RangeKey>, u32> = self.map(map::RANGES[self.parity()?], Map::LpmTrie)?;
        let decode = |(key, identity): (aya::maps::lpm_trie::Key<Raw<RangeKey>>, u32)| {
            let range = PrefixedRange { prefix_bits: key.prefix_len(), key: key.data().0 };
            Some((encode::cidr(&range)?, Identity::from_bits(identity)))
        };
        each(map.iter().take(2 * capacity::RANGES as usize), Table::Ranges, decode, take)
    }

    fn endpoints(&self, take: Take<'_, (EndpointId, EndpointEntry)>) -> Result<usize, ObserveError> {
        let map: HashMap<_, u32, Raw<EndpointValue>> = self.map(map::ENDPOINTS[self.parity()?], Map::HashMap)?;
        let decode =
            |(key, value): (u32, Raw<EndpointValue>)| Some((EndpointId(key), encode::endpoint_entry(&value.0)?));
        each(map.iter().take(2 * capacity::ENDPOINTS as usize), Table::Endpoints, decode, take)
    }

    fn ports(&self, take: Take<'_, (PortsKey, PortsOfProtocol)>) -> Result<usize, ObserveError> {
        let map: HashMap<_, Raw<PortsBytes>, Raw<Directory>> =
            self.map(map::DIRECTORIES[self.parity()?], Map::HashMap)?;
        let pages: Array<_, Raw<Page>> = self.map(map::PAGES, Map::Array)?;
        let page = |number: u16| pages.get(&u32::from(number), 0).ok().map(|raw| raw.0);
        let decode = |(key, directory): (Raw<PortsBytes>, Raw<Directory>)| {
            Some((encode::ports_from_key(&key.0)?, ports_of(&directory.0, page)?))
        };
        each(map.iter().take(2 * capacity::DIRECTORIES as usize), Table::Ports, decode, take)
    }

    fn rows(&self, take: Take<'_, (RowKey, Row)>) -> Result<usize, ObserveError> {
        let parity = self.parity()?;
        let masks: [fn(&Index) -> u32; 2] = [|index| index.rows[0], |index| index.rows[1]];
        let cells: Cells<RowBytes> = self.exact(map::ROWS[parity], masks[parity])?;
        let mut strays = 0;
        let wrong =
            cells.table.each(cells.cells(), |key, value| match encode::row_from_key(&key).zip(encode::row(&value)) {
                Some(row) => take(row),
                None => {
                    strays += 1;
                    ControlFlow::Continue(())
                }
            });
        Ok(strays + wrong)
    }

    fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        let owners: Array<_, u64> = self.map(map::BANDS, Map::Array)?;
        let counters: PerCpuArray<_, Raw<BandCounter>> = self.map(map::BAND_COUNTERS, Map::PerCpuArray)?;
        let owner = |slot| owners.get(&slot, 0).map_err(reports::unreadable(map::BANDS));
        reports::bands(owner, &counters)
    }

    fn connections(&self, take: Take<'_, Connection>) -> Result<(), ObserveError> {
        let flows = Flows::of_pin(&data(&self.directory, map::FLOWS)?)?;
        for FlowValue { key, flow } in flows.each() {
            if Connection::new(&key, &flow).is_some_and(|connection| take(connection).is_break()) {
                break;
            }
        }
        Ok(())
    }
}

fn data(directory: &Path, name: &'static str) -> Result<MapData, ObserveError> {
    MapData::from_pin(directory.join(name)).map_err(reports::unreadable(name))
}

fn open<T: TryFrom<Map, Error = MapError>>(
    directory: &Path,
    name: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<T, ObserveError> {
    T::try_from(kind(data(directory, name)?)).map_err(reports::unreadable(name))
}

/// Hands over what can be decoded; answers how much cannot.
fn each<E, T>(
    entries: impl Iterator<Item = Result<E, MapError>>,
    table: Table,
    decode: impl Fn(E) -> Option<T>,
    take: Take<'_, T>,
) -> Result<usize, ObserveError> {
    let mut strays = 0;
    for entry in entries {
        match decode(entry.map_err(io_error).map_err(failed(table))?) {
            None => strays += 1,
            Some(entry) => {
                if take(entry).is_break() {
                    break;
                }
            }
        }
    }
    Ok(strays)
}

fn failed(table: Table) -> impl Fn(io::Error) -> ObserveError {
    move |source| ObserveError::Read { table, source }
}
