//! Cells of addresses and rows, as somebody else with the right to do so sees them.

use std::{collections::HashMap, net::IpAddr, path::Path};

use aya::maps::{Array, Map, MapData};

/// Of an address's third word: the cell is taken.
const TAKEN: u64 = 1 << 63;

/// A pinned table.
pub(crate) struct Cells {
    map: Array<MapData, [u64; 4]>,
    count: u32,
    /// Cells of addresses, as they were found.
    known: HashMap<IpAddr, (u32, [u64; 4])>,
}

impl Cells {
    pub(crate) fn open(pin: &Path) -> Self {
        let data = MapData::from_pin(pin).unwrap();
        let count = data.info().unwrap().max_entries();
        Self { map: Array::try_from(Map::Array(data)).unwrap(), count, known: HashMap::new() }
    }

    pub(crate) fn all(&self) -> Vec<(u32, [u64; 4])> {
        (0..self.count).map(|index| (index, self.map.get(&index, 0).unwrap())).collect()
    }

    pub(crate) fn set(&mut self, index: u32, words: [u64; 4]) {
        self.map.set(index, words, 0).unwrap();
    }

    /// Gives an address that is there another identity and endpoint.
    pub(crate) fn set_address(&mut self, address: IpAddr, identity: u32, endpoint: u32) {
        let cell = self.known.get(&address).copied().unwrap_or_else(|| self.find(address));
        self.known.insert(address, cell);
        let (index, [high, low, _, homes]) = cell;
        self.set(index, [high, low, u64::from(identity) | u64::from(endpoint) << 32 | TAKEN, homes]);
    }

    fn find(&self, address: IpAddr) -> (u32, [u64; 4]) {
        let key = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |at: usize| u64::from_ne_bytes(key[at..at + 8].try_into().unwrap());
        let there = |words: &[u64; 4]| words[..2] == [word(0), word(8)] && words[2] & TAKEN != 0;
        self.all().into_iter().find(|(_, words)| there(words)).unwrap()
    }
}
