//! A probe's packet as an Ethernet frame.

use std::net::IpAddr;

use ringfence_ebpf_common::PacketKind;
use ringfence_policy::flow::protocol;

use crate::probe::ProbePacket;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Headers with the addresses, ports and flags of the packet; no payload, no checksums (nobody looks).
pub(super) fn frame(packet: &ProbePacket) -> Vec<u8> {
    let is_ipv4 = packet.source.is_ipv4();
    let (protocol, payload) = match packet.kind {
        PacketKind::Error => {
            let about = ProbePacket {
                source: packet.destination,
                destination: packet.source,
                source_port: packet.destination_port,
                destination_port: packet.source_port,
                kind: PacketKind::Data,
                ..*packet
            };
            // Destination unreachable, four unused bytes, and the packet that it is about.
            let mut error = vec![if is_ipv4 { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0];
            error.extend(network(&about, about.protocol, &transport(&about)));
            (if is_ipv4 { protocol::ICMP } else { protocol::ICMPV6 }, error)
        }
        _ => (packet.protocol, transport(packet)),
    };
    let mut frame = vec![0; 12];
    frame.extend(if is_ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
    frame.extend(network(packet, protocol, &payload));
    frame
}

/// The network header and what it carries.
fn network(packet: &ProbePacket, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let hop_limit = if packet.kind == PacketKind::NeighbourDiscovery { 255 } else { 64 };
    let mut bytes = Vec::new();
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x45, 0]);
            bytes.extend((20 + length).to_be_bytes());
            bytes.extend([0, 0, 0, 0, hop_limit, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (source, destination) => {
            let octets = |ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([protocol, hop_limit]);
            bytes.extend(octets(source));
            bytes.extend(octets(destination));
        }
    }
    bytes.extend(payload);
    bytes
}

fn transport(packet: &ProbePacket) -> Vec<u8> {
    let mut header = vec![0; 24];
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            // What no message is was refused before.
            let (message, identifier) = match packet.kind {
                PacketKind::NeighbourDiscovery => (135, 0),
                _ => message(packet),
            };
            header[0] = message;
            header[4..6].copy_from_slice(&identifier.to_be_bytes());
        }
        _ => {
            header[0..2].copy_from_slice(&packet.source_port.to_be_bytes());
            header[2..4].copy_from_slice(&packet.destination_port.to_be_bytes());
        }
    }
    if packet.protocol == protocol::TCP {
        header[12] = 0x50;
        header[13] = match packet.kind {
            PacketKind::Open => 0x02,
            PacketKind::Close => 0x11,
            PacketKind::Data | PacketKind::Error | PacketKind::NeighbourDiscovery => 0x10,
        };
    }
    header
}

/// Type and identifier. A packet inside an error may be a query although its kind does not say so.
fn message(packet: &ProbePacket) -> (u8, u16) {
    let query = ProbePacket { kind: PacketKind::Open, ..*packet };
    packet.icmp().or_else(|| query.icmp()).unwrap_or_default()
}
