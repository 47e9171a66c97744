//! A probe's packet as an Ethernet frame.

use std::net::IpAddr;

use ringfence_ebpf_common::PacketKind;
use ringfence_policy::flow::protocol;

use crate::probe::ProbePacket;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Headers with the addresses, ports and flags of the packet; no payload, no checksums (nobody looks).
pub(super) fn frame(packet: &ProbePacket) -> Vec<u8> {
    let transport = transport(packet);
    let length = u16::try_from(transport.len()).unwrap_or(u16::MAX);
    let hop_limit = if packet.kind == PacketKind::NeighbourDiscovery { 255 } else { 64 };
    let mut frame = vec![0; 12];
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(ETHERTYPE_IPV4);
            frame.extend([0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 0, 0, 0, hop_limit, packet.protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            let octets = |ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            frame.extend(ETHERTYPE_IPV6);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([packet.protocol, hop_limit]);
            frame.extend(octets(source));
            frame.extend(octets(destination));
        }
    }
    frame.extend(transport);
    frame
}

fn transport(packet: &ProbePacket) -> Vec<u8> {
    let mut header = vec![0; 24];
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            header[0] = match (packet.protocol, packet.kind) {
                (protocol::ICMP, _) => 8,
                (_, PacketKind::NeighbourDiscovery) => 135,
                _ => 128,
            };
            header[4..6].copy_from_slice(&packet.source_port.to_be_bytes());
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
            PacketKind::Data | PacketKind::NeighbourDiscovery => 0x10,
        };
    }
    header
}
