//! The exact tables (`ringfence_ebpf_common::exact`) in the kernel's maps.

use aya_ebpf::maps::Array;
use ringfence_ebpf_common::{
    Address, AddressValue, ExactCell, Index, RowKey, RowValue,
    exact::{self, Cells, Found},
};

use crate::maps;

/// The cells of one map: a set that a packet reads is not written.
struct Map(&'static Array<ExactCell>);

impl Cells for Map {
    type Cell = &'static ExactCell;

    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&'static ExactCell> {
        self.0.get(index)
    }

    #[inline(always)]
    fn word(&self, cell: &'static ExactCell, word: usize) -> u64 {
        cell.words[word]
    }
}

#[inline(always)]
fn index() -> Option<&'static Index> {
    maps::INDEX.get(0)
}

/// As `State::address`, in the set of a parity.
#[inline(always)]
pub fn address(set: usize, address: &Address) -> Option<AddressValue> {
    let index = index()?;
    let home = exact::home(index, index.addresses[set], address);
    let map = if set == 0 { &maps::ADDRESSES_0 } else { &maps::ADDRESSES_1 };
    match exact::find_at_home(&Map(map), home, address) {
        Found::Here(value) => Some(value),
        Found::Nothing => None,
        Found::Elsewhere => {
            let mut value = AddressValue { identity: 0, endpoint: 0 };
            let found = if set == 0 {
                ringfence_find_address_even(home, address, &mut value)
            } else {
                ringfence_find_address_odd(home, address, &mut value)
            };
            if found != 0 { Some(value) } else { None }
        }
    }
}

/// As `State::row`, in the set of a parity.
#[inline(always)]
pub fn row(set: usize, key: &RowKey) -> Option<RowValue> {
    let index = index()?;
    let home = exact::home(index, index.rows[set], key);
    let map = if set == 0 { &maps::ROWS_0 } else { &maps::ROWS_1 };
    match exact::find_at_home(&Map(map), home, key) {
        Found::Here(value) => Some(value),
        Found::Nothing => None,
        Found::Elsewhere => {
            let mut value = RowValue { low: 0, high: 0 };
            let found = if set == 0 {
                ringfence_find_row_even(home, key, &mut value)
            } else {
                ringfence_find_row_odd(home, key, &mut value)
            };
            if found != 0 { Some(value) } else { None }
        }
    }
}

/// What is not at home, one function for each map. Out of line: it is seldom asked for. No mangled names: they would have
/// a hash of where the sources lie in them.
macro_rules! elsewhere {
    ($name:ident, $map:ident, $key:ty, $value:ty) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(home: u32, key: &$key, value: &mut $value) -> u64 {
            match exact::find_elsewhere(&Map(&maps::$map), home, key) {
                Some(found) => {
                    *value = found;
                    1
                }
                None => 0,
            }
        }
    };
}

elsewhere!(ringfence_find_address_even, ADDRESSES_0, Address, AddressValue);
elsewhere!(ringfence_find_address_odd, ADDRESSES_1, Address, AddressValue);
elsewhere!(ringfence_find_row_even, ROWS_0, RowKey, RowValue);
elsewhere!(ringfence_find_row_odd, ROWS_1, RowKey, RowValue);
