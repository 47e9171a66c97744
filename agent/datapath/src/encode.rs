//! Between the meaning of an entry (`ringfence-policy`) and its bytes in a map (`ringfence-ebpf-common`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_ebpf_common as bytes;
use ringfence_policy::{
    cidr::Cidr,
    flow::{Direction, Verdict},
    identity::Identity,
    tables::{AddressEntry, EndpointEntry, EndpointId, RuleEntry, RuleKey},
};

/// How many bits stand before the address in a `RangeKey`.
const FAMILY_BITS: u8 = 32;
/// How many bits stand before an IPv4 address in an `Address`.
const MAPPED_BITS: u8 = 96;

/// A range as the kernel's longest-prefix map keys it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PrefixedRange {
    /// Counted from the first bit of the family.
    pub(crate) prefix_bits: u32,
    pub(crate) key: bytes::RangeKey,
}

pub(crate) fn address(ip: IpAddr) -> bytes::Address {
    match ip {
        IpAddr::V4(v4) => bytes::Address::from_ipv4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let word = |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
            bytes::Address { words: [word(0), word(4), word(8), word(12)] }
        }
    }
}

pub(crate) fn ip(address: &bytes::Address) -> IpAddr {
    if address.is_ipv4() {
        return IpAddr::V4(Ipv4Addr::from(address.words[3].to_ne_bytes()));
    }
    let mut octets = [0; 16];
    for (word, chunk) in address.words.iter().zip(octets.chunks_exact_mut(4)) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

pub(crate) fn range(cidr: &Cidr) -> PrefixedRange {
    let inside = if cidr.address().is_ipv4() { MAPPED_BITS } else { 0 };
    PrefixedRange {
        prefix_bits: u32::from(FAMILY_BITS) + u32::from(inside) + u32::from(cidr.prefix_length()),
        key: bytes::RangeKey {
            family: if cidr.address().is_ipv4() { bytes::FAMILY_IPV4 } else { bytes::FAMILY_IPV6 },
            address: address(cidr.address()),
        },
    }
}

/// None if the key stands for no range.
pub(crate) fn cidr(range: &PrefixedRange) -> Option<Cidr> {
    let before = match range.key.family {
        bytes::FAMILY_IPV4 => FAMILY_BITS + MAPPED_BITS,
        bytes::FAMILY_IPV6 => FAMILY_BITS,
        _ => return None,
    };
    let length = u8::try_from(range.prefix_bits).ok()?.checked_sub(before)?;
    let address = match range.key.family {
        bytes::FAMILY_IPV4 => IpAddr::V4(Ipv4Addr::from(range.key.address.words[3].to_ne_bytes())),
        _ => v6(&range.key.address),
    };
    Cidr::new(address, length)
}

/// Even where the words look like an IPv4-mapped address.
fn v6(address: &bytes::Address) -> IpAddr {
    match ip(address) {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    }
}

pub(crate) fn address_value(entry: &AddressEntry) -> bytes::AddressValue {
    bytes::AddressValue { identity: entry.identity.bits(), endpoint: entry.endpoint.map_or(0, |id| id.0) }
}

pub(crate) fn address_entry(value: &bytes::AddressValue) -> AddressEntry {
    AddressEntry {
        identity: Identity::from_bits(value.identity),
        endpoint: (value.endpoint != 0).then_some(EndpointId(value.endpoint)),
    }
}

pub(crate) fn endpoint_value(entry: &EndpointEntry) -> bytes::EndpointValue {
    bytes::EndpointValue {
        identity: entry.identity.bits(),
        ingress: verdict_bits(entry.ingress),
        egress: verdict_bits(entry.egress),
    }
}

pub(crate) fn endpoint_entry(value: &bytes::EndpointValue) -> Option<EndpointEntry> {
    Some(EndpointEntry {
        identity: Identity::from_bits(value.identity),
        ingress: verdict(value.ingress)?,
        egress: verdict(value.egress)?,
    })
}

pub(crate) fn rule_key(key: &RuleKey) -> bytes::RuleKey {
    bytes::RuleKey {
        subject: key.subject.bits(),
        peer: key.peer.bits(),
        port: key.port,
        protocol: key.protocol,
        direction: match key.direction {
            Direction::Ingress => bytes::INGRESS,
            Direction::Egress => bytes::EGRESS,
        },
    }
}

pub(crate) fn rule_from_key(key: &bytes::RuleKey) -> Option<RuleKey> {
    let direction = match key.direction {
        bytes::INGRESS => Direction::Ingress,
        bytes::EGRESS => Direction::Egress,
        _ => return None,
    };
    let (subject, peer) = (Identity::from_bits(key.subject), Identity::from_bits(key.peer));
    Some(RuleKey { subject, direction, peer, protocol: key.protocol, port: key.port })
}

pub(crate) fn rule_value(entry: &RuleEntry) -> bytes::RuleValue {
    bytes::RuleValue { verdict: u32::from(verdict_bits(entry.verdict)) }
}

pub(crate) fn rule_entry(value: &bytes::RuleValue) -> Option<RuleEntry> {
    Some(RuleEntry { verdict: verdict(u16::try_from(value.verdict).ok()?)? })
}

const fn verdict_bits(verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Allow => bytes::VERDICT_ALLOW,
        Verdict::DenyDefault => bytes::VERDICT_DENY_DEFAULT,
        Verdict::DenyExplicit => bytes::VERDICT_DENY_EXPLICIT,
    }
}

const fn verdict(bits: u16) -> Option<Verdict> {
    match bits {
        bytes::VERDICT_ALLOW => Some(Verdict::Allow),
        bytes::VERDICT_DENY_DEFAULT => Some(Verdict::DenyDefault),
        bytes::VERDICT_DENY_EXPLICIT => Some(Verdict::DenyExplicit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_come_back() {
        for text in ["10.1.2.3", "255.255.255.255", "fd00:1::2", "::1", "::"] {
            let address_in: IpAddr = text.parse().unwrap();
            assert_eq!(ip(&address(address_in)), address_in);
        }
        for text in ["10.1.0.0/16", "0.0.0.0/0", "1.2.3.4/32", "fd00:1::/64", "::/0", "::/96", "::ffff:0:0/96"] {
            let range_in: Cidr = text.parse().unwrap();
            assert_eq!(cidr(&range(&range_in)), Some(range_in), "{text}");
        }
        assert_eq!(range(&"10.0.0.0/8".parse().unwrap()).prefix_bits, 32 + 96 + 8);
    }

    #[test]
    fn what_was_never_written_is_no_entry() {
        let key = range(&"10.0.0.0/8".parse().unwrap());
        assert_eq!(cidr(&PrefixedRange { prefix_bits: 31, ..key }), None);
        assert_eq!(cidr(&PrefixedRange { prefix_bits: 161, ..key }), None);
        assert_eq!(rule_entry(&bytes::RuleValue { verdict: 0 }), None);
        assert_eq!(rule_entry(&bytes::RuleValue { verdict: 0x1_0001 }), None);
    }
}
