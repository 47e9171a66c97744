//! Between the meaning of an entry (`ringfence-policy`) and its bytes in a map (`ringfence-ebpf-common`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_ebpf_common as bytes;
use ringfence_policy::{
    cidr::Cidr,
    flow::Direction,
    identity::Identity,
    tables::{AddressEntry, EndpointEntry, EndpointId, PolicyId, PortsKey, Row, RowKey},
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
            let bits = v6.to_bits();
            let word = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits are left").to_be();
            bytes::Address { words: [word(bits >> 64), word(bits)] }
        }
    }
}

pub(crate) fn ip(address: &bytes::Address) -> IpAddr {
    if address.is_ipv4() {
        return IpAddr::V4(ipv4(&address.range_key()));
    }
    IpAddr::V6(Ipv6Addr::from_bits(bits(address.words.map(u64::from_be))))
}

fn bits([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn ipv4(key: &bytes::RangeKey) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be(key.words[3]))
}

pub(crate) fn range(cidr: &Cidr) -> PrefixedRange {
    let inside = if cidr.address().is_ipv4() { MAPPED_BITS } else { 0 };
    PrefixedRange {
        prefix_bits: u32::from(FAMILY_BITS) + u32::from(inside) + u32::from(cidr.prefix_length()),
        key: bytes::RangeKey {
            family: if cidr.address().is_ipv4() { bytes::FAMILY_IPV4 } else { bytes::FAMILY_IPV6 },
            words: address(cidr.address()).range_key().words,
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
        bytes::FAMILY_IPV4 => IpAddr::V4(ipv4(&range.key)),
        // Even where the words look like an IPv4-mapped address.
        _ => {
            let [a, b, c, d] = range.key.words.map(|word| u64::from(u32::from_be(word)));
            IpAddr::V6(Ipv6Addr::from_bits(bits([a << 32 | b, c << 32 | d])))
        }
    };
    Cidr::new(address, length)
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
        policy: entry.policy.0,
        shadow: entry.shadow.map_or(0, |shadow| shadow.0),
        flags: if entry.audit { bytes::ENDPOINT_AUDIT } else { 0 },
    }
}

/// None if it was never written: a policy is not 0.
pub(crate) fn endpoint_entry(value: &bytes::EndpointValue) -> Option<EndpointEntry> {
    let known = value.policy != 0 && value.flags & !bytes::ENDPOINT_AUDIT == 0;
    known.then_some(EndpointEntry {
        identity: Identity::from_bits(value.identity),
        policy: PolicyId(value.policy),
        shadow: (value.shadow != 0).then_some(PolicyId(value.shadow)),
        audit: value.flags & bytes::ENDPOINT_AUDIT != 0,
    })
}

pub(crate) const fn ports_key(key: &PortsKey) -> bytes::PortsKey {
    let direction = direction_byte(key.direction);
    bytes::PortsKey { policy: key.policy.0, direction, protocol: key.protocol, padding: 0 }
}

pub(crate) fn ports_from_key(key: &bytes::PortsKey) -> Option<PortsKey> {
    let direction = direction(key.direction).filter(|_| key.policy != 0 && key.padding == 0)?;
    Some(PortsKey { policy: PolicyId(key.policy), direction, protocol: key.protocol })
}

pub(crate) const fn row_key(key: &RowKey) -> bytes::RowKey {
    let (policy, peer, direction) = (key.policy.0, key.peer.bits(), direction_byte(key.direction));
    bytes::RowKey { policy, peer, chunk: key.chunk, direction, padding: 0 }
}

pub(crate) fn row_from_key(key: &bytes::RowKey) -> Option<RowKey> {
    let direction = direction(key.direction).filter(|_| key.policy != 0 && key.padding == 0)?;
    Some(RowKey { policy: PolicyId(key.policy), direction, peer: Identity::from_bits(key.peer), chunk: key.chunk })
}

pub(crate) const fn row_value(row: &Row) -> bytes::RowValue {
    bytes::RowValue { low: row.low, high: row.high }
}

pub(crate) fn row(value: &bytes::RowValue) -> Option<Row> {
    let row = Row { low: value.low, high: value.high };
    (!row.is_empty()).then_some(row)
}

const fn direction_byte(direction: Direction) -> u8 {
    match direction {
        Direction::Ingress => bytes::INGRESS,
        Direction::Egress => bytes::EGRESS,
    }
}

pub(crate) const fn direction(byte: u8) -> Option<Direction> {
    match byte {
        bytes::INGRESS => Some(Direction::Ingress),
        bytes::EGRESS => Some(Direction::Egress),
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
        assert_eq!(row(&bytes::RowValue { low: 0, high: 0 }), None);
        let endpoint = bytes::EndpointValue { identity: 1, policy: 1, shadow: 0, flags: 0 };
        assert!(endpoint_entry(&endpoint).is_some());
        assert_eq!(endpoint_entry(&bytes::EndpointValue { policy: 0, ..endpoint }), None);
        assert_eq!(endpoint_entry(&bytes::EndpointValue { flags: 2, ..endpoint }), None);
        let row = bytes::RowKey { policy: 1, peer: 0, chunk: 0, direction: 1, padding: 0 };
        assert!(row_from_key(&row).is_some());
        for wrong in [bytes::RowKey { direction: 2, ..row }, bytes::RowKey { padding: 1, ..row }] {
            assert_eq!(row_from_key(&wrong), None);
        }
    }
}
