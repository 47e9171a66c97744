//! Keys, values and names of the kernel's maps.

/// The version of everything in this file: part of the path the maps are pinned under.
pub const LAYOUT: &str = "v4";

/// Names of the maps. A pair is two maps by parity of the generation: all that a revision says.
pub mod map {
    /// `Array<u32>[1]`, mmapable: the generation that packets read; its parity selects the set.
    pub const ACTIVE: &str = "ACTIVE";
    /// `Array<EpochCell>[CPUS]`, mmapable: one line per CPU, non-zero while a packet is being judged there.
    pub const EPOCH: &str = "EPOCH";
    /// `Array<u64>[2]` by parity: the revision of each set, written before the flip, so that the one read through
    /// `ACTIVE` is always the revision that packets are judged by.
    pub const REVISION: &str = "REVISION";
    /// `Array<ExactCell>`, mmapable: `Address` → `AddressValue`; see `exact`.
    pub const ADDRESSES: [&str; 2] = ["ADDRESSES_0", "ADDRESSES_1"];
    /// `LpmTrie<RangeKey, u32>` (identity).
    pub const RANGES: [&str; 2] = ["RANGES_0", "RANGES_1"];
    /// `HashMap<u32, EndpointValue>` by interface index.
    pub const ENDPOINTS: [&str; 2] = ["ENDPOINTS_0", "ENDPOINTS_1"];
    /// `HashMap<PortsKey, Directory>`.
    pub const DIRECTORIES: [&str; 2] = ["DIRECTORIES_0", "DIRECTORIES_1"];
    /// `Array<ExactCell>`, mmapable: `RowKey` → `RowValue`; see `exact`.
    pub const ROWS: [&str; 2] = ["ROWS_0", "ROWS_1"];
    /// `Array<Index>[1]`, mmapable: how both are found.
    pub const INDEX: &str = "INDEX";
    /// `Array<Page>`, for both sets: a page is written only while no directory of either set names it.
    pub const PAGES: &str = "PAGES";
    /// `Array<FlowCell>`, mmapable: connections; a power of two of cells, see `table`.
    pub const FLOWS: &str = "FLOWS";
    /// `Array<FlowTable>[1]`: how they are found.
    pub const FLOW_TABLE: &str = "FLOW_TABLE";
    /// `LruHashMap<FragmentKey, FragmentValue>`: ports of datagrams that come in fragments.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `PerCpuArray<u64>[Reason::COUNT]`: packets by reason.
    pub const PACKETS: &str = "PACKETS";
    /// `PerCpuArray<u64>[Tally::COUNT]`: what is counted beside packets.
    pub const TALLIES: &str = "TALLIES";
    /// `Array<u64>[BANDS]`, mmapable: the policy, direction and band that a slot of `BAND_COUNTERS` counts; 0 if free.
    pub const BANDS: &str = "BANDS";
    /// `PerCpuArray<BandCounter>[BANDS]`; slot 0 counts for those that found none.
    pub const BAND_COUNTERS: &str = "BAND_COUNTERS";
    /// `RingBuf` of `Event`.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<Bucket>[1]`: how many events this CPU may still write.
    pub const BUCKETS: &str = "BUCKETS";
}

/// Names of the programs.
pub mod program {
    /// Packets that leave an endpoint: ingress of its host-side device.
    pub const FROM_ENDPOINT: &str = "from_endpoint";
    /// Packets towards an endpoint: egress of its host-side device.
    pub const TO_ENDPOINT: &str = "to_endpoint";
    /// Packets that leave the node: egress of an uplink.
    pub const FROM_HOST: &str = "from_host";
    /// Packets that come to the node: ingress of an uplink.
    pub const TO_HOST: &str = "to_host";
}

/// The most entries of each map; `docs/datapath.md` has the memory.
pub mod capacity {
    /// Exact addresses of the mesh.
    pub const ADDRESSES: u32 = 524_288;
    /// Address ranges.
    pub const RANGES: u32 = 65_536;
    /// Endpoints of one node.
    pub const ENDPOINTS: u32 = 1024;
    /// Policies times directions times protocols that name ports.
    pub const DIRECTORIES: u32 = 4096;
    /// Different pages of 256 ports.
    pub const PAGES: u32 = 8192;
    /// Rows of one node: eight policies with 65,536 peers each, for example.
    pub const ROWS: u32 = 524_288;
    /// Connections of one node, where memory allows: half as many as there are cells.
    pub const FLOWS: u32 = 1_048_576;
    /// Datagrams in fragments at one time.
    pub const FRAGMENTS: u32 = 8192;
    /// Bands that are counted one by one.
    pub const BANDS: u32 = 4096;
    /// CPUs with an epoch cell.
    pub const CPUS: u32 = 512;
    /// Bytes of the ring of events: a power of two.
    pub const EVENT_BYTES: u32 = 4 << 20;
}

/// The bits of `skb->mark` that belong to Ringfence.
pub const MARK_MASK: u32 = 0x0f00;
/// Both ends of this packet have been judged at the sender's hook. The kernel clears the mark when a packet enters
/// the node's network namespace from another one, so an endpoint cannot set it.
pub const MARK_JUDGED: u32 = 0x0400;

/// The packet is not the node's own to judge: an endpoint's, judged where it left that, or of a connection that must not be
/// cut (the agent's own to its gateways). Only who has `CAP_NET_ADMIN` on the node can set it.
pub const MARK_PASSED: u32 = 0x0800;
/// The endpoint that is the node itself: the index of the loopback device, which no endpoint can have.
pub const HOST_ENDPOINT: u32 = 1;

/// An address in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct Address {
    /// Two words as they stand in the packet.
    pub words: [u64; 2],
}

/// The data of a range's key; its prefix length counts from the first bit of `family`. Without the family, `::/0` would
/// match every IPv4-mapped address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct RangeKey {
    /// `FAMILY_IPV4` or `FAMILY_IPV6`.
    pub family: u32,
    /// The lowest address of the range: four words as they stand in the packet.
    pub words: [u32; 4],
}

/// What an address stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct AddressValue {
    /// Identity bits.
    pub identity: u32,
    /// Interface index of the local endpoint that has the address; 0 if it is not on this node.
    pub endpoint: u32,
}

/// How an endpoint is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct EndpointValue {
    /// Identity bits.
    pub identity: u32,
    /// The policy that refuses or admits.
    pub policy: u32,
    /// The policy that is only reported; 0 for none.
    pub shadow: u32,
    /// `ENDPOINT_AUDIT` or 0.
    pub flags: u32,
}

/// Which ports of which protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct PortsKey {
    /// Whose.
    pub policy: u32,
    /// `INGRESS` or `EGRESS`.
    pub direction: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: u16,
}

/// Which page has the bands of ports `256 * i` to `256 * i + 255`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct Directory {
    /// Numbers of pages; page 0 is all zeros.
    pub pages: [u16; 256],
}

/// The bands of 256 ports in a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct Page {
    /// By the lower byte of the port.
    pub bands: [u16; 256],
}

/// Whose flows a row decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct RowKey {
    /// Whose.
    pub policy: u32,
    /// Identity bits of the other side; 0 for any.
    pub peer: u32,
    /// Which bands: `64 * chunk` to `64 * chunk + 63`.
    pub chunk: u16,
    /// `INGRESS` or `EGRESS`.
    pub direction: u8,
    /// Zero.
    pub padding: u8,
}

/// The classes of 64 bands: bit i of both. 00 nothing is said, 01 allow, 10 redirect, 11 deny.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct RowValue {
    /// The lower bits.
    pub low: u64,
    /// The upper bits.
    pub high: u64,
}

/// A connection from one endpoint's point of view: the same key for both directions and both hooks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// The endpoint's address.
    pub local: Address,
    /// The other side's address.
    pub remote: Address,
    /// Ports and protocol in one word, for speed: see `FlowKey::new`.
    pub transport: u64,
}

/// An allowed connection. Denied ones are not remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FlowValue {
    /// Which one.
    pub key: FlowKey,
    /// The connection.
    pub flow: Flow,
}

/// What is known of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Flow {
    /// Coarse monotonic time of the last packet that was noted, in units of `FLOW_TICK_NS`.
    pub last_seen: u32,
    /// The generation that judged it last.
    pub generation: u32,
    /// Interface index of the endpoint that the key is seen from.
    pub endpoint: u32,
    /// The slot of `BAND_COUNTERS` that its packets are counted in.
    pub counter: u32,
    /// The slot of the other end, if `both`; else `NO_COUNTER`.
    pub peer_counter: u32,
    /// The port that policy is asked about.
    pub port: u16,
    /// `INGRESS` or `EGRESS`: who began.
    pub direction: u8,
    /// `FLOW_…`
    pub phase: u8,
    /// 1 if the local address is the endpoint's, at `generation`: only then may it send on this connection.
    pub owned: u8,
    /// 1 if the other side is on this node, at `generation`.
    pub peer_local: u8,
    /// 1 if the other side, which is on this node, was judged too, by `generation`, when this end sent.
    pub both: u8,
    /// Zero.
    pub padding: u8,
}

/// A connection in the table; a cache line. `table` says who writes what when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct FlowCell {
    /// As in `FlowKey`.
    pub local: Address,
    /// As in `FlowKey`.
    pub remote: Address,
    /// `FlowKey::transport` in 40 bits, the way of its home in 8, `Flow::port`.
    pub ports: u64,
    /// `Flow::generation`, `counter` and `peer_counter` in 13 bits each, `direction`, `phase` in two bits, `owned`,
    /// `peer_local`, `both`.
    pub state: u64,
    /// As in `Flow`; 0 in a free cell.
    pub endpoint: u32,
    /// As in `Flow`.
    pub last_seen: u32,
    /// Counts the owners of the cell in steps of four; the lower bits say that somebody writes.
    pub version: u32,
    /// Which cells of this set have connections whose home is this cell.
    pub homes: u32,
}

/// Parts of a `FlowCell`: numbers of 64-bit words, and then of 32-bit halves.
pub mod field {
    /// Two words.
    pub const LOCAL: usize = 0;
    /// Two words.
    pub const REMOTE: usize = 2;
    /// A word.
    pub const PORTS: usize = 4;
    /// A word.
    pub const STATE: usize = 5;
    /// Half a word, as the rest.
    pub const ENDPOINT: usize = 12;
    /// Half a word.
    pub const LAST_SEEN: usize = 13;
    /// Half a word.
    pub const VERSION: usize = 14;
    /// Half a word.
    pub const HOMES: usize = 15;
}

/// How connections are found: the same as long as there are any.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct FlowTable {
    /// Of the hash: secret, made at random once.
    pub key: [u64; 5],
    /// Cells of `FLOWS`, minus one; a power of two, and at least a set.
    pub mask: u32,
    /// Zero.
    pub padding: u32,
}

/// A cell of `ADDRESSES` or `ROWS`: `exact` says what its words are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C, align(32))]
pub struct ExactCell {
    /// Four words.
    pub words: [u64; 4],
}

/// How addresses and rows are found; a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C, align(64))]
pub struct Index {
    /// Of the hashes: secret, made at random once.
    pub key: [u64; 4],
    /// By parity: cells of `ADDRESSES` that are in use, minus one; a power of two, and at least a group.
    pub addresses: [u32; 2],
    /// The same for `ROWS`.
    pub rows: [u32; 2],
    /// The most addresses of a set.
    pub address_capacity: u32,
    /// The most rows of a set.
    pub row_capacity: u32,
    /// Zero.
    pub padding: u64,
}

/// Which datagram a fragment belongs to (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// As it stands in the packet.
    pub identification: u32,
    /// IP protocol number for IPv4; 0 for IPv6.
    pub protocol: u32,
}

/// What the first fragment of a datagram said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FragmentValue {
    /// Again: an LRU map may give the element to another key while it is read.
    pub key: FragmentKey,
    /// What it said.
    pub ports: FragmentPorts,
}

/// The transport of a datagram that comes in fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FragmentPorts {
    /// Coarse monotonic time.
    pub seen_ns: u64,
    /// As in `Packet`.
    pub source_port: u16,
    /// As in `Packet`.
    pub destination_port: u16,
    /// As in `Packet`.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u16,
}

/// Packets that one band of a policy decided.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct BandCounter {
    /// Packets that passed.
    pub allowed_packets: u64,
    /// Their bytes, with link-layer headers.
    pub allowed_bytes: u64,
    /// Packets that were refused.
    pub refused_packets: u64,
    /// Their bytes.
    pub refused_bytes: u64,
}

/// One CPU's cell; a cache line, so that CPUs do not disturb each other.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct EpochCell {
    /// Non-zero while a packet is being judged on this CPU.
    pub busy: u64,
    /// Fills the line.
    pub padding: [u64; 7],
}

/// `EndpointValue::flags`: what its policy refuses is reported and passes.
pub const ENDPOINT_AUDIT: u32 = 1;
/// In place of a slot of `BAND_COUNTERS`: nothing is counted.
pub const NO_COUNTER: u32 = u32::MAX;

/// `RangeKey::family` of an IPv4 range, network byte order.
pub const FAMILY_IPV4: u32 = 4_u32.to_be();
/// `RangeKey::family` of an IPv6 range, network byte order.
pub const FAMILY_IPV6: u32 = 6_u32.to_be();
/// The prefix length of one IPv6 address in a `RangeKey`: 32 bits of family, 128 of address.
pub const RANGE_KEY_BITS: u32 = 160;

/// Direction byte: the peer sends.
pub const INGRESS: u8 = 0;
/// Direction byte: the endpoint sends.
pub const EGRESS: u8 = 1;

/// TCP handshake, or any other protocol: kept for a minute.
pub const FLOW_OPENING: u8 = 0;
/// TCP after the handshake: kept for six hours without a packet.
pub const FLOW_ESTABLISHED: u8 = 1;
/// TCP after FIN or RST: kept for ten seconds.
pub const FLOW_CLOSING: u8 = 2;

impl Address {
    /// The second word of an IPv4-mapped address, without the IPv4 address.
    const MAPPED: u64 = 0x0000_ffff_0000_0000_u64.to_be();
    const IPV4_SHIFT: u32 = if cfg!(target_endian = "little") { 32 } else { 0 };
    const MAPPED_MASK: u64 = 0xffff_ffff_0000_0000_u64.to_be();

    /// From an IPv4 address in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn from_ipv4(word: u32) -> Self {
        Self { words: [0, Self::MAPPED | (word as u64) << Self::IPV4_SHIFT] }
    }

    /// The key that finds the longest range around this address; use it with `RANGE_KEY_BITS`.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a word is cut into its halves")]
    pub const fn range_key(&self) -> RangeKey {
        let [a, b] = self.words;
        let (first, second) = (32 - Self::IPV4_SHIFT, Self::IPV4_SHIFT);
        RangeKey {
            family: if self.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 },
            words: [(a >> first) as u32, (a >> second) as u32, (b >> first) as u32, (b >> second) as u32],
        }
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.words[0] == 0 && self.words[1] & Self::MAPPED_MASK == Self::MAPPED
    }
}

impl FlowKey {
    /// Ports in host byte order.
    #[must_use]
    #[inline(always)]
    pub const fn new(local: Address, remote: Address, local_port: u16, remote_port: u16, protocol: u8) -> Self {
        Self { local, remote, transport: local_port as u64 | (remote_port as u64) << 16 | (protocol as u64) << 32 }
    }

    /// The endpoint's port: for ICMP see `Packet`.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lowest 16 bits are meant")]
    pub const fn local_port(&self) -> u16 {
        self.transport as u16
    }

    /// The other side's port.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are meant")]
    pub const fn remote_port(&self) -> u16 {
        (self.transport >> 16) as u16
    }

    /// IP protocol number.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits are meant")]
    pub const fn protocol(&self) -> u8 {
        (self.transport >> 32) as u8
    }
}

impl FragmentKey {
    /// Word by word: a comparison of arrays would become a call.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b] = self.source.words;
        let [c, d] = other.source.words;
        let [e, f] = self.destination.words;
        let [g, h] = other.destination.words;
        let rest = (self.identification ^ other.identification) | (self.protocol ^ other.protocol);
        (a ^ c) | (b ^ d) | (e ^ g) | (f ^ h) | rest as u64 == 0
    }
}

impl RowValue {
    /// The class of a band, as in `RowValue`: 0 nothing, 1 allow, 2 redirect, 3 deny.
    #[must_use]
    #[inline(always)]
    pub const fn class(&self, band: u16) -> u64 {
        let bit = band & 63;
        (self.high >> bit & 1) << 1 | (self.low >> bit & 1)
    }
}

/// Who a slot of `BANDS` counts for; never 0, as no policy is.
#[must_use]
#[inline(always)]
pub const fn band_owner(policy: u32, direction: u8, band: u16) -> u64 {
    (policy as u64) << 32 | (direction as u64) << 16 | band as u64
}

/// The policy, direction and band of an owner; none for 0.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the parts that `band_owner` put together")]
pub const fn band_of(owner: u64) -> Option<(u32, u8, u16)> {
    if owner == 0 { None } else { Some(((owner >> 32) as u32, (owner >> 16) as u8, owner as u16)) }
}
