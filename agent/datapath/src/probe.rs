//! One packet for `Datapath::probe`, and its fate.

use std::net::IpAddr;

use ringfence_ebpf_common::{Fragment, Packet, PacketKind, Reason};
use ringfence_policy::flow::protocol;

use crate::{encode, error::ProbeError};

/// A packet as the parser would find it.
///
/// A query of ICMP or ICMPv6 has its identifier as the source port and its type as the destination port; an answer
/// (`reply`) the other way round, with the type of the query. The destination port 0 asks for an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePacket {
    /// Sender.
    pub source: IpAddr,
    /// Receiver; of the same family.
    pub destination: IpAddr,
    /// IP protocol number; of the packet it is about, for an error.
    pub protocol: u8,
    /// For an error, the destination port of the packet it is about.
    pub source_port: u16,
    /// For an error, the source port of the packet it is about.
    pub destination_port: u16,
    /// `Open`: TCP SYN, or an ICMP message that is no answer. `Close`: TCP only. `NeighbourDiscovery`: ICMPv6 only.
    /// `Error`: an ICMP error from `source` about a packet of the connection, of any protocol.
    pub kind: PacketKind,
    /// It was judged where it left another endpoint of this node.
    pub judged: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// It would pass.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// Both ends were judged.
    pub judged_both: bool,
}

impl ProbePacket {
    /// Checks it and brings it into the form the decision reads.
    pub(crate) fn packet(&self) -> Result<Packet, ProbeError> {
        if self.source.is_ipv4() != self.destination.is_ipv4() {
            return Err(ProbeError::MixedFamilies { from: self.source, to: self.destination });
        }
        let is_icmp = matches!(self.protocol, protocol::ICMP | protocol::ICMPV6);
        let fits = match self.kind {
            PacketKind::Open => self.protocol == protocol::TCP || is_icmp,
            PacketKind::Close => self.protocol == protocol::TCP,
            PacketKind::NeighbourDiscovery => self.protocol == protocol::ICMPV6 && self.source.is_ipv6(),
            PacketKind::Data | PacketKind::Error => true,
        };
        let wrong = ProbeError::Kind { kind: self.kind, protocol: self.protocol };
        if !fits {
            return Err(wrong);
        }
        let packet = Packet {
            source: encode::address(self.source),
            destination: encode::address(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            port: self.destination_port,
            protocol: self.protocol,
            kind: self.kind,
            fragment: Fragment::Whole,
            identification: 0,
            judged: self.judged,
            passed: self.judged,
        };
        Ok(match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => packet,
            protocol::ICMP | protocol::ICMPV6 if self.kind == PacketKind::Error => packet,
            protocol::ICMP | protocol::ICMPV6 if self.kind != PacketKind::NeighbourDiscovery => {
                let (message, identifier) = self.icmp().ok_or(wrong)?;
                icmp(packet, message, identifier)
            }
            _ => Packet { source_port: 0, destination_port: 0, port: 0, ..packet },
        })
    }

    /// Type and identifier of an ICMP message; none if there is no such answer.
    pub(crate) fn icmp(&self) -> Option<(u8, u16)> {
        let v4 = self.protocol == protocol::ICMP;
        match (self.kind, self.destination_port) {
            (_, 0) => Some((if v4 { 8 } else { 128 }, self.source_port)),
            // Errors speak about a packet: `PacketKind::Error`.
            (PacketKind::Open, 3 | 11 | 12) if v4 => None,
            (PacketKind::Open, 1..=4) if !v4 => None,
            (PacketKind::Open, kind) => Some((u8::try_from(kind).ok()?, self.source_port)),
            (_, identifier) => match (v4, self.source_port) {
                (true, 8) => Some((0, identifier)),
                (true, query @ (13 | 15 | 17)) => Some((u8::try_from(query).ok()? + 1, identifier)),
                (false, 128) => Some((129, identifier)),
                _ => None,
            },
        }
    }
}

/// As the parser does: see `Packet`.
fn icmp(packet: Packet, message: u8, identifier: u16) -> Packet {
    let kind = u16::from(message);
    let (source_port, destination_port, packet_kind) = match (packet.protocol, message) {
        (protocol::ICMP, 8 | 13 | 15 | 17) | (protocol::ICMPV6, 128) => (identifier, kind, PacketKind::Open),
        (protocol::ICMP, 0) => (8, identifier, PacketKind::Data),
        (protocol::ICMP, 14 | 16 | 18) | (protocol::ICMPV6, 129) => (kind - 1, identifier, PacketKind::Data),
        _ => (0xff00 | kind, kind, PacketKind::Open),
    };
    Packet { source_port, destination_port, port: kind, kind: packet_kind, ..packet }
}
