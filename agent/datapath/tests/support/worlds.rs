//! Small worlds of tables, and packets in them.

use std::net::IpAddr;

use ringfence_datapath::{Datapath, PacketKind, ProbePacket};
use ringfence_policy::{
    flow::{Direction, Verdict, protocol},
    identity::Identity,
    name::Name,
    revision::Revision,
    tables::{AddressEntry, EndpointEntry, EndpointId, RuleEntry, RuleKey, Tables},
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
        let entry = EndpointEntry { identity, ingress: Verdict::DenyDefault, egress: Verdict::DenyDefault };
        tables.endpoints.insert(endpoint, entry);
    }
    tables
}

/// Adds a rule. `peer` none: any; `port` 0: any port and protocol, else TCP.
pub(crate) fn rule(
    tables: &mut Tables,
    subject: Identity,
    direction: Direction,
    peer: Option<Identity>,
    port: u16,
    verdict: Verdict,
) {
    let protocol = if port == 0 { 0 } else { protocol::TCP };
    let key = RuleKey { subject, direction, peer: peer.unwrap_or(Identity::UNKNOWN), protocol, port };
    tables.rules.insert(key, RuleEntry { verdict });
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
