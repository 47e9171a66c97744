//! Connections in an array of cells, found and changed by several CPUs at once.
//!
//! ```text
//! set: 32 cells of a cache line each        keyed hash of the connection ─► its home, one cell of one set
//! home: which cells of the set hold its connections (a bit each) ─► mostly itself: one line to find one, or to know
//!       that there is none
//! ```
//!
//! What decides about packets, `STATE`, is one word: it is replaced as a whole while others read it. What a cell belongs
//! to changes under its version only: a writer takes it from even to `LOCKED | MOVING`, writes, and leaves the next one
//! behind. A reader compares the version before and after: what it could not read as one thing is no connection. Only
//! the holder of a cell's lock changes the bit of that cell in a home, so that bits and cells agree.
//!
//! Two CPUs that see a new connection at once may both insert it. Both entries were judged; a lookup finds the same one
//! each time, the other one ages.

use crate::layout::{Address, FLOW_CLOSING, FLOW_ESTABLISHED, Flow, FlowKey, FlowTable, FlowValue, NO_COUNTER, field};

/// Cells of a set; a power of two, and the bits of a home.
pub const WAYS: u32 = 32;
/// So many cells are looked at where the last newcomer found none free; else all of a set.
const CROWDED_PROBES: u32 = 8;
/// So many connections of one home are found.
const LOOKS: u32 = 8;
/// How often a cell that another CPU changes is tried.
const TRIES: u32 = 8;

/// Version: somebody changes the cell.
const LOCKED: u32 = 1;
/// Version: it is about to belong to another connection.
const MOVING: u32 = 2;
/// Version: between one owner and the next.
const NEXT: u32 = 4;

/// Of the word with the ports: what the connection is found by.
const TRANSPORT: u64 = 0xff_ffff_ffff;
const WAY_SHIFT: u32 = 40;
const PORT_SHIFT: u32 = 48;

/// A slot of `BAND_COUNTERS` in 13 bits.
const NO_SLOT: u32 = 0x1fff;

/// How long a connection is kept without a packet, in units of `FLOW_TICK_NS`; the others live for a part of that.
const LIFETIME: u64 = 6 * 3600 * 1_000_000_000 / FLOW_TICK_NS;
/// One unit of time of a connection: its time is 32 bits, which last for nine years.
pub const FLOW_TICK_NS: u64 = 1 << 26;

/// How cells are reached. Reads and writes are ordered as on x86: no read before an earlier one, no write before an
/// earlier read or write.
pub trait Cells {
    /// One of them.
    type Cell: Copy;
    /// None if the index is too high.
    fn cell(&self, index: u32) -> Option<Self::Cell>;
    /// Reads a word (`field::LOCAL` and so on).
    fn word(&self, cell: Self::Cell, field: usize) -> u64;
    /// Writes a word.
    fn set_word(&self, cell: Self::Cell, field: usize, value: u64);
    /// Reads half a word.
    fn half(&self, cell: Self::Cell, field: usize) -> u32;
    /// Writes half a word.
    fn set_half(&self, cell: Self::Cell, field: usize, value: u32);
    /// Replaces the version if it is `from`; a full barrier.
    fn take(&self, cell: Self::Cell, from: u32, to: u32) -> bool;
    /// Sets bits of `field::HOMES` atomically.
    fn set_homes(&self, cell: Self::Cell, bits: u32);
    /// Clears bits of `field::HOMES` atomically.
    fn clear_homes(&self, cell: Self::Cell, bits: u32);
}

/// What a lookup found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The connection, and its cell.
    Known(Flow, Place),
    /// Nothing.
    Unknown,
    /// Nothing, and a cell went to another connection while it was read.
    Moved,
}

/// A cell of a connection, as it was when it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which cell.
    pub index: u32,
    /// Its version.
    pub version: u32,
}

/// What became of a connection that was to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// It is there.
    Kept,
    /// It is there, in the place of another one that was alive.
    Evicted,
    /// Other CPUs were writing wherever it could have been.
    Not,
}

/// NH's part for one word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "words are cut into their halves")]
pub(crate) const fn part(word: u64, key: u64) -> u64 {
    let low = (word as u32).wrapping_add(key as u32) as u64;
    let high = ((word >> 32) as u32).wrapping_add((key >> 32) as u32) as u64;
    low.wrapping_mul(high)
}

impl FlowTable {
    /// The hash of a connection: NH of UMAC (RFC 4418 §5.2.2), so that nobody who does not know the key can aim at one
    /// set, and a multiplication that carries every bit upwards.
    #[inline(always)]
    const fn hash(&self, key: &FlowKey) -> u64 {
        let FlowKey { local, remote, transport } = key;
        let sum = part(local.words[0], self.key[0])
            .wrapping_add(part(local.words[1], self.key[1]))
            .wrapping_add(part(remote.words[0], self.key[2]))
            .wrapping_add(part(remote.words[1], self.key[3]))
            .wrapping_add(part(*transport, self.key[4]));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }

    /// The home of a connection.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the mask has 32 bits")]
    pub const fn home(&self, key: &FlowKey) -> u32 {
        self.hash(key) as u32 & self.mask
    }
}

impl Flow {
    /// How much of its time a connection has used up without a packet: `LIFETIME` is all of it.
    #[must_use]
    #[inline(always)]
    pub const fn spent(phase: u8, last_seen: u32, now: u32) -> u64 {
        let weight = match phase {
            FLOW_ESTABLISHED => 1,
            FLOW_CLOSING => 6 * 360,
            _ => 360,
        };
        Self::age(last_seen, now) as u64 * weight
    }

    /// Ticks since the last packet that was noted; another CPU may have noted one a little ahead of our clock.
    #[must_use]
    #[inline(always)]
    pub const fn age(last_seen: u32, now: u32) -> u32 {
        let age = now.wrapping_sub(last_seen);
        if age >> 31 == 0 { age } else { 0 }
    }

    /// Whether it is believed.
    #[must_use]
    #[inline(always)]
    pub const fn is_alive(&self, now: u32) -> bool {
        Self::spent(self.phase, self.last_seen, now) < LIFETIME
    }

    /// What decides about packets, in one word.
    #[inline(always)]
    const fn state(&self) -> u64 {
        let bits = (self.direction & 1) as u64
            | ((self.phase & 3) as u64) << 1
            | ((self.owned & 1) as u64) << 3
            | ((self.peer_local & 1) as u64) << 4
            | ((self.both & 1) as u64) << 5;
        let slots = (self.counter & NO_SLOT) as u64 | ((self.peer_counter & NO_SLOT) as u64) << 13;
        self.generation as u64 | slots << 32 | bits << 58
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the parts that `state` put together")]
    const fn from_words(ports: u64, state: u64, endpoint: u32, last_seen: u32) -> Self {
        let bits = (state >> 58) as u8;
        Self {
            last_seen,
            generation: state as u32,
            endpoint,
            counter: slot((state >> 32) as u32 & NO_SLOT),
            peer_counter: slot((state >> 45) as u32 & NO_SLOT),
            port: (ports >> PORT_SHIFT) as u16,
            direction: bits & 1,
            phase: bits >> 1 & 3,
            owned: bits >> 3 & 1,
            peer_local: bits >> 4 & 1,
            both: bits >> 5 & 1,
            padding: 0,
        }
    }
}

#[inline(always)]
const fn slot(bits: u32) -> u32 {
    if bits == NO_SLOT { NO_COUNTER } else { bits }
}

#[inline(always)]
const fn phase_of(state: u64) -> u8 {
    (state >> 59) as u8 & 3
}

/// What the home of a connection says of it.
pub enum Home {
    /// It is there.
    Known(Flow),
    /// There is none.
    Unknown,
    /// Ask `find`.
    Elsewhere,
}

/// Looks at the home of a connection only.
#[inline(always)]
pub fn find_at_home<C: Cells>(cells: &C, home: u32, key: &FlowKey) -> Home {
    let Some(cell) = cells.cell(home) else { return Home::Unknown };
    let homes = cells.half(cell, field::HOMES);
    if homes == 0 {
        return Home::Unknown;
    }
    if homes >> (home & (WAYS - 1)) & 1 != 0
        && let Look::Known(flow, _) = read(cells, cell, home, key)
    {
        return Home::Known(flow);
    }
    Home::Elsewhere
}

/// Finds a connection.
#[inline(always)]
pub fn find<C: Cells>(cells: &C, home: u32, key: &FlowKey) -> Look {
    let (set, own) = (home & !(WAYS - 1), home & (WAYS - 1));
    let Some(cell) = cells.cell(home) else { return Look::Unknown };
    let mut left = cells.half(cell, field::HOMES);
    let mut moved = false;
    // Most are at home.
    let mut way = if left >> own & 1 != 0 { own } else { lowest(left) };
    for _ in 0..LOOKS {
        if left == 0 {
            break;
        }
        let index = set | (way & (WAYS - 1));
        let Some(cell) = cells.cell(index) else { break };
        match read(cells, cell, index, key) {
            Look::Unknown => {}
            Look::Moved => moved = true,
            known @ Look::Known(..) => return known,
        }
        left &= !(1 << (way & (WAYS - 1)));
        way = lowest(left);
    }
    if moved { Look::Moved } else { Look::Unknown }
}

/// Reads a cell if it is the connection's.
#[inline(always)]
fn read<C: Cells>(cells: &C, cell: C::Cell, index: u32, key: &FlowKey) -> Look {
    let before = cells.half(cell, field::VERSION);
    let ports = cells.word(cell, field::PORTS);
    let other = (cells.word(cell, field::LOCAL) ^ key.local.words[0])
        | (cells.word(cell, field::LOCAL + 1) ^ key.local.words[1])
        | (cells.word(cell, field::REMOTE) ^ key.remote.words[0])
        | (cells.word(cell, field::REMOTE + 1) ^ key.remote.words[1])
        | (ports & TRANSPORT ^ key.transport);
    let state = cells.word(cell, field::STATE);
    let (endpoint, last_seen) = (cells.half(cell, field::ENDPOINT), cells.half(cell, field::LAST_SEEN));
    let after = cells.half(cell, field::VERSION);
    if before & MOVING != 0 || (before ^ after) & !LOCKED != 0 {
        return Look::Moved;
    }
    // A free cell has no endpoint.
    if other != 0 || endpoint == 0 {
        return Look::Unknown;
    }
    Look::Known(Flow::from_words(ports, state, endpoint, last_seen), Place { index, version: before })
}

/// The connection of a cell; none if it is free, or about to belong to another one.
pub fn value<C: Cells>(cells: &C, cell: C::Cell) -> Option<FlowValue> {
    let before = cells.half(cell, field::VERSION);
    let [local, remote] = [field::LOCAL, field::REMOTE]
        .map(|field| Address { words: [cells.word(cell, field), cells.word(cell, field + 1)] });
    let transport = cells.word(cell, field::PORTS) & TRANSPORT;
    // Read once more, with what is known of it, if nothing has changed.
    match read(cells, cell, 0, &FlowKey { local, remote, transport }) {
        Look::Known(flow, Place { version, .. }) if (before ^ version) & !LOCKED == 0 => {
            Some(FlowValue { key: FlowKey { local, remote, transport }, flow })
        }
        _ => None,
    }
}

/// Whether the last new connection found no free cell. Then most likely the next one finds none either: it looks at few.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Crowd(u32);

impl Crowd {
    /// Nobody has looked yet.
    pub const NONE: Self = Self(0);
}

/// Writes a connection: where it is, if it was found; else where there is room, else over the one that has used up most of its
/// time.
#[inline(always)]
pub fn write<C: Cells>(cells: &C, home: u32, value: &FlowValue, found: bool, now: u32, crowd: &mut Crowd) -> Written {
    if found && let Look::Known(there, place) = find(cells, home, &value.key) {
        return update(cells, home, value, &there, place);
    }
    insert(cells, home, value, now, crowd)
}

#[inline(always)]
fn update<C: Cells>(cells: &C, home: u32, value: &FlowValue, there: &Flow, place: Place) -> Written {
    let (flow, Some(cell)) = (&value.flow, cells.cell(place.index)) else { return Written::Not };
    let same_owner = there.endpoint == flow.endpoint && there.port == flow.port;
    if same_owner && there.state() == flow.state() {
        // If the cell has just gone to another connection, that one looks a moment younger.
        cells.set_half(cell, field::LAST_SEEN, flow.last_seen);
        return Written::Kept;
    }
    let free = place.version & !LOCKED;
    for _ in 0..TRIES {
        let lock = if same_owner { LOCKED } else { LOCKED | MOVING };
        if cells.take(cell, free, free | lock) {
            if same_owner {
                cells.set_word(cell, field::STATE, flow.state());
                cells.set_half(cell, field::LAST_SEEN, flow.last_seen);
                cells.set_half(cell, field::VERSION, free);
            } else {
                fill(cells, cell, value, home);
                cells.set_half(cell, field::VERSION, free.wrapping_add(NEXT));
            }
            return Written::Kept;
        }
        // Another version: it is not this connection's any more.
        if (cells.half(cell, field::VERSION) ^ free) & !LOCKED != 0 {
            break;
        }
    }
    Written::Not
}

/// Cells are looked at one after the other, from home on: the next ones are on their way while one is looked at, and most
/// connections stay near their home.
#[inline(always)]
fn insert<C: Cells>(cells: &C, home: u32, value: &FlowValue, now: u32, crowd: &mut Crowd) -> Written {
    let set = home & !(WAYS - 1);
    let probes = if crowd.0 != 0 { CROWDED_PROBES } else { WAYS };
    let (mut best, mut most_spent) = (home, 0);
    for probe in 0..WAYS {
        if probe >= probes {
            break;
        }
        let index = set | (home.wrapping_add(probe) & (WAYS - 1));
        let Some(cell) = cells.cell(index) else { break };
        let version = cells.half(cell, field::VERSION);
        if version & (LOCKED | MOVING) != 0 {
            continue;
        }
        let is_free = cells.half(cell, field::ENDPOINT) == 0;
        let phase = phase_of(cells.word(cell, field::STATE));
        let spent = Flow::spent(phase, cells.half(cell, field::LAST_SEEN), now);
        if is_free || spent >= LIFETIME {
            if put(cells, value, home, cell, Place { index, version }) {
                crowd.0 = 0;
                return Written::Kept;
            }
        } else if probe == 0 || spent > most_spent {
            (best, most_spent) = (index, spent);
        }
    }
    crowd.0 = 1;
    let Some(cell) = cells.cell(best) else { return Written::Not };
    let version = cells.half(cell, field::VERSION);
    if version & (LOCKED | MOVING) == 0 && put(cells, value, home, cell, Place { index: best, version }) {
        Written::Evicted
    } else {
        Written::Not
    }
}

/// Gives a cell to a connection, unless somebody else is faster.
#[inline(always)]
fn put<C: Cells>(cells: &C, value: &FlowValue, home: u32, cell: C::Cell, place: Place) -> bool {
    if !cells.take(cell, place.version, place.version | LOCKED | MOVING) {
        return false;
    }
    leave_home(cells, cell, place.index);
    fill(cells, cell, value, home);
    if let Some(home) = cells.cell(home) {
        cells.set_homes(home, 1 << (place.index & (WAYS - 1)));
    }
    cells.set_half(cell, field::VERSION, place.version.wrapping_add(NEXT));
    true
}

/// Whoever has the cell is not found there any more. Its lock is held.
#[inline(always)]
fn leave_home<C: Cells>(cells: &C, cell: C::Cell, index: u32) {
    if cells.half(cell, field::ENDPOINT) != 0 {
        let way = (cells.word(cell, field::PORTS) >> WAY_SHIFT) as u32 & (WAYS - 1);
        if let Some(home) = cells.cell(index & !(WAYS - 1) | way) {
            cells.clear_homes(home, 1 << (index & (WAYS - 1)));
        }
    }
}

#[inline(always)]
fn fill<C: Cells>(cells: &C, cell: C::Cell, value: &FlowValue, home: u32) {
    let FlowValue { key, flow } = value;
    let way = (home & (WAYS - 1)) as u64;
    cells.set_word(cell, field::LOCAL, key.local.words[0]);
    cells.set_word(cell, field::LOCAL + 1, key.local.words[1]);
    cells.set_word(cell, field::REMOTE, key.remote.words[0]);
    cells.set_word(cell, field::REMOTE + 1, key.remote.words[1]);
    cells.set_word(cell, field::PORTS, key.transport & TRANSPORT | way << WAY_SHIFT | (flow.port as u64) << PORT_SHIFT);
    cells.set_word(cell, field::STATE, flow.state());
    cells.set_half(cell, field::ENDPOINT, flow.endpoint);
    cells.set_half(cell, field::LAST_SEEN, flow.last_seen);
}

/// Forgets a connection. If somebody else changes it just now, it stays, judged by the generation that it carries.
#[inline(always)]
pub fn remove<C: Cells>(cells: &C, home: u32, key: &FlowKey) {
    let Look::Known(_, Place { index, version }) = find(cells, home, key) else { return };
    let Some(cell) = cells.cell(index) else { return };
    if version & LOCKED == 0 && cells.take(cell, version, version | LOCKED | MOVING) {
        leave_home(cells, cell, index);
        cells.set_half(cell, field::ENDPOINT, 0);
        cells.set_half(cell, field::VERSION, version.wrapping_add(NEXT));
    }
}

/// The lowest bit's number; anything for 0.
#[inline(always)]
const fn lowest(bits: u32) -> u32 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - (below >> 1 & 0x5555_5555);
    let fours = (pairs & 0x3333_3333) + (pairs >> 2 & 0x3333_3333);
    (((fours + (fours >> 4)) & 0x0f0f_0f0f).wrapping_mul(0x0101_0101) >> 24) & (WAYS - 1)
}
