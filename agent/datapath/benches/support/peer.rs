//! Fills the tables of the peer's layout (`ebpf/programs/src/bench/peer.rs`) with the same world.

use std::net::Ipv4Addr;

use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
};
use ringfence_policy::flow::protocol;

use crate::{ADDRESSES, FIRST_PEER, PEER_IDENTITIES};

/// As in the bench's tables.
const FIRST_IDENTITY: u32 = 0x0020_0001;
const EGRESS: u8 = 1;
/// Identity, direction and protocol, and ports 64 to 127 in one entry, which is fewer than the peer would need for ours.
const BITS: u32 = 32 + 8 + 8 + 10;

pub(crate) fn fill(object: &mut Ebpf) {
    let map = object.map_mut("PEER_ADDRESSES").unwrap();
    let mut addresses: LpmTrie<_, [u8; 20], [u32; 3]> = LpmTrie::try_from(map).unwrap();
    for number in 0..ADDRESSES {
        let mut key = [0; 20];
        key[3] = 1;
        key[4..8].copy_from_slice(&Ipv4Addr::from(FIRST_PEER + number).octets());
        addresses.insert(&Key::new(64, key), [FIRST_IDENTITY + number % PEER_IDENTITIES, 0, 0], 0).unwrap();
    }
    let map = object.map_mut("PEER_POLICY").unwrap();
    let mut policy: LpmTrie<_, [u8; 8], [u64; 3]> = LpmTrie::try_from(map).unwrap();
    for number in 0..PEER_IDENTITIES {
        let mut key = [0; 8];
        key[0..4].copy_from_slice(&(FIRST_IDENTITY + number).to_ne_bytes());
        key[4..8].copy_from_slice(&[EGRESS, protocol::TCP, 0, 64]);
        policy.insert(&Key::new(BITS, key), [0; 3], 0).unwrap();
    }
}
