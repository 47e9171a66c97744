//! Small worlds of tables, and packets in them.

use std::net::IpAddr;

use ringfence_datapath::{Datapath, PacketKind, ProbePacket};
use ringfence_policy::{
    flow::{Direction, protocol},
    identity::Identity,
    name::Name,
    revision::Revision,
    tables::{
        AddressEntry, Class, EndpointEntry, EndpointId, Interval, PolicyId, PortsKey, PortsOfProtocol, RowKey, Tables,
    },
};

pub(crate) const LOCAL: Identity = Identity::from_bits(0x0010_03e9);
pub(crate) const OTHER: Identity = Identity::from_bits(0x0010_03ea);
pub(crate) const REMOTE: Identity = Identity::from_bits(0x0020_07d1);

/// The addresses of one family: two endpoints of this node, one of another, one inside the mesh that nobody knows, one
/// outside.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) local: IpAddr,
    pub(crate) other: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) unknown: IpAddr,
    pub(crate) world: IpAddr,
    pub(crate) world_identity: Identity,
}

pub(crate) fn families() -> [Family; 2] {
    let ip = |text: &str| text.parse().expect("an address");
    [
        Family {
            local: ip("10.0.0.1"),
            other: ip("10.0.0.2"),
            remote: ip("10.1.0.9"),
            unknown: ip("10.9.9.9"),
            world: ip("192.0.2.1"),
            world_identity: Identity::WORLD_IPV4,
        },
        Family {
            local: ip("fd00::1"),
            other: ip("fd00::2"),
            remote: ip("fd00:1::9"),
            unknown: ip("fd00:9::9"),
            world: ip("2001:db8::1"),
            world_identity: Identity::WORLD_IPV6,
        },
    ]
}

/// Two endpoints that nothing allows to talk, and the rest of the mesh.
pub(crate) fn world(local: EndpointId, other: EndpointId) -> Tables {
    let mut tables = Tables::default();
    for family in families() {
        for (address, identity, endpoint) in
            [(family.local, LOCAL, Some(local)), (family.other, OTHER, Some(other)), (family.remote, REMOTE, None)]
        {
            tables.addresses.insert(address, AddressEntry { identity, endpoint });
        }
    }
    for range in ["10.0.0.0/8", "fd00::/8"] {
        tables.ranges.insert(range.parse().expect("a range"), Identity::UNKNOWN);
    }
    for (endpoint, identity) in [(local, LOCAL), (other, OTHER)] {
        let entry = EndpointEntry { identity, policy: policy(identity), shadow: None, audit: false };
        tables.endpoints.insert(endpoint, entry);
    }
    tables
}

/// The policy of a subject of this world.
pub(crate) const fn policy(subject: Identity) -> PolicyId {
    PolicyId(subject.bits() & 0xffff)
}

/// Adds a rule. `peer` none: any; `port` 0: any port and protocol, else TCP.
pub(crate) fn rule(
    tables: &mut Tables,
    subject: Identity,
    direction: Direction,
    peer: Option<Identity>,
    port: u16,
    class: Class,
) {
    say(tables, policy(subject), direction, peer, (port != 0).then_some((protocol::TCP, port)), class);
}

/// Says a class of a port of a protocol, or of all; what was said of a wider range before stays said.
pub(crate) fn say(
    tables: &mut Tables,
    policy: PolicyId,
    direction: Direction,
    peer: Option<Identity>,
    port: Option<(u8, u16)>,
    class: Class,
) {
    let peer = peer.unwrap_or(Identity::UNKNOWN);
    let bands = match port {
        Some((protocol, port)) => vec![band(tables, PortsKey { policy, direction, protocol }, port)],
        None => (0..=last_band(tables, policy, direction)).collect(),
    };
    for band in bands {
        let row = tables.rows.entry(RowKey::of(policy, direction, peer, band)).or_default();
        row.set(band, row.class(band).max(Some(class)).expect("a class is said"));
    }
}

/// The band of a single port: one of its own, that says what band 0 says until it is changed.
fn band(tables: &mut Tables, key: PortsKey, port: u16) -> u16 {
    let there = tables.ports.get(&key).map_or(0, |ports| ports.band(port));
    if there != 0 {
        return there;
    }
    let new = last_band(tables, key.policy, key.direction) + 1;
    let of = |port: u16| tables.ports.get(&key).map_or(0, |ports| ports.band(port));
    let band = |one: u16| if one == port { new } else { of(one) };
    let all = (0..=u16::MAX).map(|first| Interval { first, band: band(first) });
    let ports = PortsOfProtocol::new(all).expect("a band other than 0");
    tables.ports.insert(key, ports);
    let zeros = tables.rows.iter().filter(|(row, _)| row.policy == key.policy && row.direction == key.direction);
    let zeros: Vec<_> =
        zeros.filter(|(row, _)| row.chunk == 0).filter_map(|(row, said)| Some((*row, said.class(0)?))).collect();
    for (row, class) in zeros {
        tables.rows.entry(RowKey::of(row.policy, row.direction, row.peer, new)).or_default().set(new, class);
    }
    new
}

fn last_band(tables: &Tables, policy: PolicyId, direction: Direction) -> u16 {
    let ports = tables.ports.iter().filter(|(key, _)| key.policy == policy && key.direction == direction);
    ports.flat_map(|(_, ports)| ports.intervals()).map(|interval| interval.band).max().unwrap_or(0)
}

/// A TCP packet from port 40000 that opens a connection.
pub(crate) fn open(source: IpAddr, destination: IpAddr, port: u16) -> ProbePacket {
    ProbePacket {
        source,
        destination,
        protocol: protocol::TCP,
        source_port: 40_000,
        destination_port: port,
        kind: PacketKind::Open,
        judged: false,
    }
}

/// The packet of an open connection that follows `packet` in the same direction.
pub(crate) fn next(packet: ProbePacket) -> ProbePacket {
    ProbePacket { kind: PacketKind::Data, ..packet }
}

/// The answer to `packet`.
pub(crate) fn reply(packet: ProbePacket) -> ProbePacket {
    ProbePacket {
        source: packet.destination,
        destination: packet.source,
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        kind: PacketKind::Data,
        ..packet
    }
}

/// Moves a datapath to tables at the next revision.
pub(crate) fn apply(datapath: &mut dyn Datapath, tables: &Tables) {
    let now = datapath.observe().expect("readable");
    let applied = datapath.apply(Revision(now.revision.0 + 1), &now.tables.diff(tables)).expect("fits");
    let then = datapath.observe().expect("readable");
    assert_eq!((&then.tables, then.revision.0), (tables, now.revision.0 + 1));
    assert_eq!(then.generation, applied.generation);
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}
