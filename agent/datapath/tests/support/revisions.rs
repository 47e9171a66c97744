//! Two revisions of which every mixture treats some packet wrongly.

use ringfence_policy::{
    flow::{Direction, protocol},
    identity::Identity,
    tables::{
        AddressEntry, Class, EndpointEntry, EndpointId, Interval, PolicyId, PortsKey, PortsOfProtocol, RowKey, Tables,
    },
};

/// Of endpoints a and b, by family.
pub(crate) const ADDRESSES: [(&str, &str); 2] = [("10.0.0.1", "10.0.1.2"), ("fd00:0:0:a::1", "fd00:0:0:b::2")];
/// Both revisions allow this port,
pub(crate) const ALLOWED: u16 = 7;
/// and neither allows this one.
pub(crate) const FORBIDDEN: u16 = 9;

/// In revision `which`, endpoint a has identity 0xa0 + which, and b 0xb0 + which; port 7 is allowed between those two,
/// port 9 between the identities of different revisions.
pub(crate) fn tables([a, b]: [EndpointId; 2], which: u32) -> Tables {
    let identity = |base: u32, which: u32| Identity::from_bits(0x0010_0000 + base + which);
    let mut tables = Tables::default();
    for (address_a, address_b) in ADDRESSES {
        for (address, base, endpoint) in [(address_a, 0xa0, a), (address_b, 0xb0, b)] {
            let entry = AddressEntry { identity: identity(base, which), endpoint: Some(endpoint) };
            tables.addresses.insert(address.parse().expect("it is right"), entry);
        }
    }
    let policy = |base: u32| PolicyId(base + which);
    for (endpoint, base) in [(a, 0xa0), (b, 0xb0)] {
        let entry = EndpointEntry { identity: identity(base, which), policy: policy(base), shadow: None, audit: false };
        tables.endpoints.insert(endpoint, entry);
    }
    for (base, direction, peer) in [(0xa0, Direction::Egress, 0xb0), (0xb0, Direction::Ingress, 0xa0)] {
        let policy = policy(base);
        let bands = [(0, 0), (ALLOWED, 1), (ALLOWED + 1, 0), (FORBIDDEN, 2), (FORBIDDEN + 1, 0)];
        let ports = PortsOfProtocol::new(bands.map(|(first, band)| Interval { first, band })).expect("it is right");
        tables.ports.insert(PortsKey { policy, direction, protocol: protocol::UDP }, ports);
        for (band, other) in [(1, which), (2, 1 - which)] {
            let row = RowKey::of(policy, direction, identity(peer, other), band);
            tables.rows.entry(row).or_default().set(band, Class::Allow);
        }
    }
    tables
}

/// The same, but what is refused is refused by a rule: what is refused because nothing allows it has met a mixture, and
/// nothing else has.
pub(crate) fn explicit(endpoints: [EndpointId; 2], which: u32) -> Tables {
    let mut tables = tables(endpoints, which);
    let identity = |base: u32| Identity::from_bits(0x0010_0000 + base + which);
    for (base, direction, peer) in [(0xa0, Direction::Egress, 0xb0), (0xb0, Direction::Ingress, 0xa0)] {
        let row = RowKey::of(PolicyId(base + which), direction, identity(peer), 2);
        tables.rows.entry(row).or_default().set(2, Class::Deny);
    }
    tables
}
