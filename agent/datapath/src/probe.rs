//! One packet for `Datapath::probe`, and its fate.

use std::net::IpAddr;

use ringfence_ebpf_common::{Packet, PacketKind, Reason};
use ringfence_policy::flow::protocol;

use crate::{encode, error::ProbeError};

/// A packet as the parser would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePacket {
    /// Sender.
    pub source: IpAddr,
    /// Receiver; of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The identifier for ICMP and ICMPv6, which are sent as echo requests.
    pub source_port: u16,
    /// Ignored for ICMP and ICMPv6.
    pub destination_port: u16,
    /// `Open` and `Close` mean something for TCP only; `NeighbourDiscovery` for ICMPv6 only.
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
        let fits = match self.kind {
            PacketKind::Data => true,
            PacketKind::Open | PacketKind::Close => self.protocol == protocol::TCP,
            PacketKind::NeighbourDiscovery => self.protocol == protocol::ICMPV6 && self.source.is_ipv6(),
        };
        if !fits {
            return Err(ProbeError::Kind { kind: self.kind, protocol: self.protocol });
        }
        let (source_port, destination_port) = match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => (self.source_port, self.destination_port),
            protocol::ICMP | protocol::ICMPV6 if self.kind == PacketKind::Data => (self.source_port, self.source_port),
            _ => (0, 0),
        };
        Ok(Packet {
            source: encode::address(self.source),
            destination: encode::address(self.destination),
            source_port,
            destination_port,
            protocol: self.protocol,
            kind: self.kind,
            judged: self.judged,
        })
    }
}
