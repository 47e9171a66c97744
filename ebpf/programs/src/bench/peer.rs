//! The peer's lookups, for one table with ours: own code from the facts about its layout. IPv4 and TCP only.
//!
//! ```text
//! identity: one longest-prefix lookup of the address, also for single addresses
//! connection: an LRU hash per direction: as an answer first, then as it is; counters and lifetime in the entry
//! policy: two longest-prefix lookups, of the peer's identity and of any: identity, direction, protocol, port
//! ```
//!
//! What else the peer does for a packet (services, metrics, notifications) is left out.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{LpmTrie, LruHashMap, lpm_trie::Key},
    programs::TcContext,
};

/// Family and address: 20 bytes, as in the peer's table of addresses.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Prefix {
    family: u32,
    address: [u32; 4],
}

/// What an address stands for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Endpoint {
    identity: u32,
    tunnel: u32,
    flags: u32,
}

/// Identity, direction, protocol, port: 8 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PolicyKey {
    identity: u32,
    direction: u8,
    protocol: u8,
    /// Network byte order.
    port: u16,
}

/// Proxy port, deny flag, length of the prefix, authentication; counters.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PolicyEntry {
    proxy_port: u16,
    deny: u8,
    prefix: u8,
    authentication: u32,
    packets: u64,
    bytes: u64,
}

/// A connection in one direction: 14 bytes.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Tuple {
    destination: u32,
    source: u32,
    destination_port: u16,
    source_port: u16,
    protocol: u8,
    flags: u8,
}

/// Counters, lifetime and flags: 56 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    packets: u64,
    bytes: u64,
    lifetime_s: u32,
    flags: u16,
    service: u16,
    identity: u32,
    rest: [u32; 5],
    last_report_s: [u32; 2],
}

#[map]
static PEER_ADDRESSES: LpmTrie<Prefix, Endpoint> = LpmTrie::with_max_entries(524_288, BPF_F_NO_PREALLOC);
#[map]
static PEER_POLICY: LpmTrie<PolicyKey, PolicyEntry> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static PEER_CONNECTIONS: LruHashMap<Tuple, Entry> = LruHashMap::with_max_entries(524_288, 0);

const FAMILY_IPV4: u32 = 1_u32.to_be();
const WORLD: u32 = 2;
const EGRESS: u8 = 1;
const ANSWER: u8 = 1;
const LIFETIME_S: u32 = 8000;

/// Judges a frame that leaves an endpoint.
#[inline(always)]
pub fn run(context: &TcContext) -> i32 {
    let start = context.data();
    if start + super::END > context.data_end() {
        return TC_ACT_SHOT as i32;
    }
    // SAFETY: the verifier has seen the bound check; the offsets are even.
    let read32 = |at: usize| unsafe { ((start + at) as *const [u16; 2]).read() };
    // SAFETY: as above.
    let read16 = |at: usize| unsafe { ((start + at) as *const u16).read() };
    let word = |[low, high]: [u16; 2]| u32::from(low) | u32::from(high) << 16;
    let (source, destination) = (word(read32(26)), word(read32(super::DESTINATION)));
    let (source_port, destination_port, protocol) = (read16(super::SOURCE_PORT), read16(36), 6);
    let answer = Tuple {
        destination: source,
        source: destination,
        destination_port: source_port,
        source_port: destination_port,
        protocol,
        flags: ANSWER,
    };
    let forward = Tuple { destination, source, destination_port, source_port, protocol, flags: 0 };
    let address = Key::new(64, Prefix { family: FAMILY_IPV4, address: [destination, 0, 0, 0] });
    let identity = PEER_ADDRESSES.get(address).map_or(WORLD, |endpoint| endpoint.identity);
    if touch(context, &answer) {
        return TC_ACT_UNSPEC;
    }
    let known = touch(context, &forward);
    if !allows(context, identity, protocol, destination_port) {
        return TC_ACT_SHOT as i32;
    }
    if !known {
        let entry = Entry {
            packets: 1,
            bytes: u64::from(context.len()),
            lifetime_s: now_s() + 60,
            flags: 0,
            service: 0,
            identity,
            rest: [0; 5],
            last_report_s: [0; 2],
        };
        let _ = PEER_CONNECTIONS.insert(&forward, &entry, 0);
    }
    TC_ACT_UNSPEC
}

/// Whether a connection is known; counts for it and lets it live on.
#[inline(always)]
fn touch(context: &TcContext, tuple: &Tuple) -> bool {
    let Some(entry) = PEER_CONNECTIONS.get_ptr_mut(tuple) else { return false };
    // SAFETY: points to a value of the map.
    unsafe {
        add(&raw mut (*entry).packets, 1);
        add(&raw mut (*entry).bytes, u64::from(context.len()));
        (*entry).lifetime_s = now_s() + LIFETIME_S;
    }
    true
}

#[inline(always)]
fn allows(context: &TcContext, identity: u32, protocol: u8, port: u16) -> bool {
    let find = |identity| {
        let key = Key::new(64, PolicyKey { identity, direction: EGRESS, protocol, port });
        PEER_POLICY.get(key).map(core::ptr::from_ref)
    };
    let (own, any) = (find(identity), find(0));
    let chosen: *const PolicyEntry = match (own, any) {
        (Some(own), None) => own,
        (None, Some(any)) => any,
        // SAFETY: both point to values of the map.
        (Some(own), Some(any)) => unsafe {
            if (*own).deny == 0 && ((*any).deny != 0 || (*any).prefix > (*own).prefix) { any } else { own }
        },
        (None, None) => return false,
    };
    // SAFETY: as above.
    unsafe {
        // The map's, which every CPU adds to: nothing is written through a reference.
        add((&raw const (*chosen).packets).cast_mut(), 1);
        add((&raw const (*chosen).bytes).cast_mut(), u64::from(context.len()));
        (*chosen).deny == 0
    }
}

#[inline(always)]
fn now_s() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_ns() } / 1_000_000_000) as u32
}

#[inline(always)]
fn add(place: *mut u64, value: u64) {
    // SAFETY: `place` points to an aligned word of a map value.
    unsafe { core::arch::asm!("lock *(u64 *)(r1 + 0) += r2", in("r1") place, in("r2") value) }
}
