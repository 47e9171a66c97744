//! Exact tables (addresses, rows) in arrays of cells, which the agent writes as memory.
//!
//! ```text
//! cell: 32 bytes, two to a cache line      keyed hash of the entry's key ─► its home, one cell
//! home: which cells, counted from itself round its group of 64, hold its entries (a bit each) ─► mostly itself: one
//!       line to find an entry, or to know that there is none
//! ```
//!
//! Each set of a revision has arrays of its own. A set is written only while no packet reads it (the flip and its grace
//! period), so that cells need no versions and no order: nobody ever meets one that is half-written. For the same reason
//! a table can grow in place: the agent spreads the entries of the idle set anew over twice as many cells, and says so
//! in `Index`. So tables are as dense as their entries, not as their arrays, and stay in caches as long as they can.
//!
//! A writer that is killed leaves an idle set in any state. `docs/datapath.md` says how that is found and put in order.

use crate::{
    layout::{Address, AddressValue, Index, RowKey, RowValue},
    table::part,
};

/// Cells of a group.
pub const GROUP: u32 = 64;
/// No home has more entries than this: so many are looked at.
pub const LOOKS: u32 = 10;

/// `AddressValue::endpoint` in a cell: it is taken. An interface index is a positive `int`.
const TAKEN: u64 = 1 << 63;
/// Of a row's second word: chunk and direction; the home's bits stand above.
const ROW_KEY: u64 = 0xffff;
const ROW_HOMES_SHIFT: u32 = 16;
const ROW_DIRECTION_SHIFT: u32 = 15;

/// How cells are reached.
pub trait Cells {
    /// One of them.
    type Cell: Copy;
    /// None if the index is too high.
    fn cell(&self, index: u32) -> Option<Self::Cell>;
    /// Reads one of its four words.
    fn word(&self, cell: Self::Cell, word: usize) -> u64;
}

/// The key of an exact table: what its cells look like.
pub trait Exact: Copy + PartialEq {
    /// What stands beside it.
    type Value: Copy;
    /// How many cells from its home an entry may lie.
    const REACH: u32;
    /// Where the search begins.
    fn hash(&self, index: &Index) -> u64;
    /// The bits of a home.
    fn homes<C: Cells>(cells: &C, cell: C::Cell) -> u64;
    /// The value in a cell if it is this key's.
    fn value<C: Cells>(&self, cells: &C, cell: C::Cell) -> Option<Self::Value>;
    /// The entry in a cell, if there is one.
    fn entry(words: [u64; 4]) -> Option<(Self, Self::Value)>;
    /// A cell with this entry, or without one, and with the bits of `words` as a home.
    fn put(words: [u64; 4], entry: Option<(&Self, &Self::Value)>) -> [u64; 4];
    /// A cell with other bits as a home.
    fn put_homes(words: [u64; 4], homes: u64) -> [u64; 4];
}

/// Words: the address in two; identity, endpoint and `TAKEN`; the home's bits.
impl Exact for Address {
    type Value = AddressValue;
    const REACH: u32 = GROUP;

    #[inline(always)]
    fn hash(&self, index: &Index) -> u64 {
        let sum = part(self.words[0], index.key[0]).wrapping_add(part(self.words[1], index.key[1]));
        mix(sum)
    }

    #[inline(always)]
    fn homes<C: Cells>(cells: &C, cell: C::Cell) -> u64 {
        cells.word(cell, 3)
    }

    #[inline(always)]
    fn value<C: Cells>(&self, cells: &C, cell: C::Cell) -> Option<AddressValue> {
        let other = (cells.word(cell, 0) ^ self.words[0]) | (cells.word(cell, 1) ^ self.words[1]);
        let value = cells.word(cell, 2);
        if other == 0 && value & TAKEN != 0 { Some(address_value(value)) } else { None }
    }

    fn entry([high, low, value, _]: [u64; 4]) -> Option<(Self, AddressValue)> {
        (value & TAKEN != 0).then_some((Self { words: [high, low] }, address_value(value)))
    }

    fn put([.., homes]: [u64; 4], entry: Option<(&Self, &AddressValue)>) -> [u64; 4] {
        match entry {
            Some((Self { words: [high, low] }, value)) => {
                [*high, *low, u64::from(value.identity) | u64::from(value.endpoint) << 32 | TAKEN, homes]
            }
            None => [0, 0, 0, homes],
        }
    }

    fn put_homes([high, low, value, _]: [u64; 4], homes: u64) -> [u64; 4] {
        [high, low, value, homes]
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a word is cut into its halves")]
const fn address_value(word: u64) -> AddressValue {
    AddressValue { identity: word as u32, endpoint: ((word & !TAKEN) >> 32) as u32 }
}

/// Words: policy and peer; chunk (15 bits, of which bands need ten), direction, the home's 48 bits; the value in two. A row
/// that says nothing is never written: it marks a free cell.
impl Exact for RowKey {
    type Value = RowValue;
    const REACH: u32 = 48;

    #[inline(always)]
    fn hash(&self, index: &Index) -> u64 {
        let [first, second] = row_words(self);
        mix(part(first, index.key[2]).wrapping_add(part(second, index.key[3])))
    }

    #[inline(always)]
    fn homes<C: Cells>(cells: &C, cell: C::Cell) -> u64 {
        cells.word(cell, 1) >> ROW_HOMES_SHIFT
    }

    #[inline(always)]
    fn value<C: Cells>(&self, cells: &C, cell: C::Cell) -> Option<RowValue> {
        let [first, second] = row_words(self);
        let other = (cells.word(cell, 0) ^ first) | ((cells.word(cell, 1) ^ second) & ROW_KEY);
        let value = RowValue { low: cells.word(cell, 2), high: cells.word(cell, 3) };
        if other == 0 && value.low | value.high != 0 { Some(value) } else { None }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the parts that `row_words` put together")]
    fn entry([first, second, low, high]: [u64; 4]) -> Option<(Self, RowValue)> {
        let key = Self {
            policy: first as u32,
            peer: (first >> 32) as u32,
            chunk: second as u16 & 0x7fff,
            direction: (second >> ROW_DIRECTION_SHIFT) as u8 & 1,
            padding: 0,
        };
        (low | high != 0).then_some((key, RowValue { low, high }))
    }

    fn put([_, second, ..]: [u64; 4], entry: Option<(&Self, &RowValue)>) -> [u64; 4] {
        let homes = second & !ROW_KEY;
        match entry {
            Some((key, value)) => {
                let [first, second] = row_words(key);
                [first, second | homes, value.low, value.high]
            }
            None => [0, homes, 0, 0],
        }
    }

    fn put_homes([first, second, low, high]: [u64; 4], homes: u64) -> [u64; 4] {
        [first, second & ROW_KEY | homes << ROW_HOMES_SHIFT, low, high]
    }
}

#[inline(always)]
const fn row_words(key: &RowKey) -> [u64; 2] {
    let direction = ((key.direction & 1) as u64) << ROW_DIRECTION_SHIFT;
    [key.policy as u64 | (key.peer as u64) << 32, (key.chunk & 0x7fff) as u64 | direction]
}

/// Carries every bit upwards, and the upper ones down.
#[inline(always)]
const fn mix(sum: u64) -> u64 {
    let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// The cell that a home's bit stands for.
#[must_use]
#[inline(always)]
pub const fn cell_of(home: u32, bit: u32) -> u32 {
    home & !(GROUP - 1) | (home.wrapping_add(bit) & (GROUP - 1))
}

/// The home of a key.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mask has 32 bits")]
pub fn home<K: Exact>(index: &Index, mask: u32, key: &K) -> u32 {
    key.hash(index) as u32 & mask
}

/// What the home of a key says.
pub enum Found<V> {
    /// It is there.
    Here(V),
    /// There is none.
    Nothing,
    /// Ask `find_elsewhere`.
    Elsewhere,
}

/// Looks at the home only.
#[inline(always)]
pub fn find_at_home<K: Exact, C: Cells>(cells: &C, home: u32, key: &K) -> Found<K::Value> {
    let Some(cell) = cells.cell(home) else { return Found::Nothing };
    let homes = K::homes(cells, cell);
    if homes == 0 {
        return Found::Nothing;
    }
    if homes & 1 != 0
        && let Some(value) = key.value(cells, cell)
    {
        return Found::Here(value);
    }
    if homes == 1 { Found::Nothing } else { Found::Elsewhere }
}

/// Looks wherever else the home says.
#[inline(always)]
pub fn find_elsewhere<K: Exact, C: Cells>(cells: &C, home: u32, key: &K) -> Option<K::Value> {
    let mut left = K::homes(cells, cells.cell(home)?);
    for _ in 0..LOOKS {
        if left == 0 {
            break;
        }
        let cell = cells.cell(cell_of(home, lowest(left)))?;
        if let Some(value) = key.value(cells, cell) {
            return Some(value);
        }
        left &= left - 1;
    }
    None
}

/// The lowest bit's number; anything for 0. BPF cannot count zeros.
#[must_use]
#[inline(always)]
pub const fn lowest(bits: u64) -> u32 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - (below >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    ((((fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32) & (GROUP - 1)
}
