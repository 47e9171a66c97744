//! Keys, values and names of the kernel's maps.

/// The version of everything in this file: part of the path the maps are pinned under.
pub const LAYOUT: &str = "v1";

/// Names of the maps that exist once.
pub mod map {
    /// `Array<u32>[1]`, mmapable: the generation that packets read; its parity selects the set.
    pub const ACTIVE: &str = "ACTIVE";
    /// `Array<EpochCell>[MAX_CPUS]`, mmapable: one line per CPU, non-zero while a packet is being judged there.
    pub const EPOCH: &str = "EPOCH";
    /// `Array<u64>[2]` by parity: the revision of each set, written before the flip, so that the one read through
    /// `ACTIVE` is always the revision that packets are judged by.
    pub const REVISION: &str = "REVISION";
    /// `LruHashMap<FlowKey, FlowValue>`: connections, shared by both sets.
    pub const FLOWS: &str = "FLOWS";
    /// `PerCpuArray<u64>[Reason::COUNT]`: packets by reason.
    pub const PACKETS: &str = "PACKETS";
    /// `HashMap<Address, AddressValue>`, by parity.
    pub const ADDRESSES: [&str; 2] = ["ADDRESSES_0", "ADDRESSES_1"];
    /// `LpmTrie<RangeKey, u32>` (identity), by parity.
    pub const RANGES: [&str; 2] = ["RANGES_0", "RANGES_1"];
    /// `HashMap<u32, EndpointValue>` by interface index, by parity.
    pub const ENDPOINTS: [&str; 2] = ["ENDPOINTS_0", "ENDPOINTS_1"];
    /// `HashMap<RuleKey, RuleValue>`, by parity.
    pub const RULES: [&str; 2] = ["RULES_0", "RULES_1"];
}

/// Names of the programs.
pub mod program {
    /// Packets that leave an endpoint: ingress of its host-side device.
    pub const FROM_ENDPOINT: &str = "from_endpoint";
    /// Packets towards an endpoint: egress of its host-side device.
    pub const TO_ENDPOINT: &str = "to_endpoint";
}

/// The most entries of each map.
pub mod capacity {
    /// Exact addresses of the mesh.
    pub const ADDRESSES: u32 = 524_288;
    /// Address ranges.
    pub const RANGES: u32 = 65_536;
    /// Endpoints of one node.
    pub const ENDPOINTS: u32 = 1024;
    /// Rules of one node.
    pub const RULES: u32 = 524_288;
    /// Connections of one node.
    pub const FLOWS: u32 = 131_072;
    /// CPUs with an epoch cell.
    pub const CPUS: u32 = 512;
}

/// The bits of `skb->mark` that belong to Ringfence.
pub const MARK_MASK: u32 = 0x0f00;
/// Both ends of this packet have been judged at the sender's hook. The kernel clears the mark when a packet enters
/// the node's network namespace from another one, so an endpoint cannot set it.
pub const MARK_JUDGED: u32 = 0x0400;

/// An address in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct Address {
    /// Four words as they stand in the packet.
    pub words: [u32; 4],
}

/// The data of a range's key; its prefix length counts from the first bit of `family`. Without the family, `::/0` would
/// match every IPv4-mapped address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct RangeKey {
    /// `FAMILY_IPV4` or `FAMILY_IPV6`.
    pub family: u32,
    /// The lowest address of the range.
    pub address: Address,
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

/// How an endpoint is judged. Verdicts are `VERDICT_…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct EndpointValue {
    /// Identity bits.
    pub identity: u32,
    /// For ingress flows that no rule matches.
    pub ingress: u16,
    /// For egress flows that no rule matches.
    pub egress: u16,
}

/// Which flows a rule decides; zeros are wildcards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct RuleKey {
    /// Identity bits of the endpoint the rule is applied to.
    pub subject: u32,
    /// Identity bits of the other side; 0 for any.
    pub peer: u32,
    /// Destination port, host byte order; 0 for any.
    pub port: u16,
    /// IP protocol number; 0 for any.
    pub protocol: u8,
    /// `INGRESS` or `EGRESS`.
    pub direction: u8,
}

/// What a rule says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct RuleValue {
    /// `VERDICT_ALLOW` or `VERDICT_DENY_EXPLICIT`.
    pub verdict: u32,
}

/// A connection from one endpoint's point of view: the same key for both directions and both hooks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct FlowKey {
    /// The endpoint's address.
    pub local: Address,
    /// The other side's address.
    pub remote: Address,
    /// Host byte order; the echo identifier for ICMP.
    pub local_port: u16,
    /// Host byte order; the echo identifier for ICMP.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// An allowed connection. Denied ones are not remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FlowValue {
    /// Coarse monotonic time of the last packet.
    pub last_seen_ns: u64,
    /// The generation that judged it last.
    pub generation: u32,
    /// Interface index of the endpoint that the key is seen from.
    pub endpoint: u32,
    /// Interface index of the other side if it is on this node, at `generation`.
    pub peer_endpoint: u32,
    /// `INGRESS` or `EGRESS`: who began.
    pub direction: u8,
    /// `FLOW_…`
    pub phase: u8,
    /// Zero.
    pub padding: [u8; 2],
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

/// The flow passes.
pub const VERDICT_ALLOW: u16 = 1;
/// Nothing allows the flow.
pub const VERDICT_DENY_DEFAULT: u16 = 2;
/// A deny rule matches.
pub const VERDICT_DENY_EXPLICIT: u16 = 3;

/// TCP handshake, or any other protocol: kept for a minute.
pub const FLOW_OPENING: u8 = 0;
/// TCP after the handshake: kept for six hours without a packet.
pub const FLOW_ESTABLISHED: u8 = 1;
/// TCP after FIN or RST: kept for ten seconds.
pub const FLOW_CLOSING: u8 = 2;

impl Address {
    /// The word before the IPv4 address in an IPv4-mapped one.
    const MAPPED: u32 = 0x0000_ffff_u32.to_be();

    /// From an IPv4 address in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn from_ipv4(word: u32) -> Self {
        Self { words: [0, 0, Self::MAPPED, word] }
    }

    /// The key that finds the longest range around this address; use it with `RANGE_KEY_BITS`.
    #[must_use]
    #[inline(always)]
    pub const fn range_key(&self) -> RangeKey {
        RangeKey { family: if self.is_ipv4() { FAMILY_IPV4 } else { FAMILY_IPV6 }, address: *self }
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == Self::MAPPED
    }
}
