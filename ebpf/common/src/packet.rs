//! A packet as the parser found it.

use crate::layout::{Address, EGRESS, FlowKey, FragmentKey, INGRESS};

/// Where a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// It leaves an endpoint.
    FromEndpoint,
    /// It goes to an endpoint.
    ToEndpoint,
    /// It leaves the node through an uplink: the node's own packets are judged here.
    FromHost,
    /// It comes to the node through an uplink.
    ToHost,
}

/// What the parser found.
///
/// ICMP and ICMPv6 have no ports; what stands in their place makes a connection of a query and its answers, and of
/// nothing else. A query has its identifier as the source port and its type as the destination port; an answer the
/// other way round, with the type of the query. Of other messages both depend on the type alone, and nothing answers
/// them. An error (`PacketKind::Error`) has the addresses and ports of an answer to the packet it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// What policy is asked about if this packet begins a connection: the destination port; the type for ICMP.
    pub port: u16,
    /// IP protocol number; of the packet it is about, for an error.
    pub protocol: u8,
    /// What else matters.
    pub kind: PacketKind,
    /// Whether it is a part of a datagram.
    pub fragment: Fragment,
    /// Which datagram, if it is a part of one.
    pub identification: u32,
    /// It carries `MARK_JUDGED`.
    pub judged: bool,
    /// It carries `MARK_PASSED`.
    pub passed: bool,
}

/// What a packet is to the connection it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// Nothing special.
    Data,
    /// TCP SYN without ACK, an ICMP query, an ICMP message that nothing answers: never an answer itself.
    Open,
    /// TCP FIN or RST.
    Close,
    /// An ICMP error about a packet of a connection: it passes if that does (RFC 792, RFC 4443 §2.4).
    Error,
    /// IPv6 neighbour discovery (ICMPv6 133–137, RFC 4861) and multicast listener reports and queries (130–132, 143,
    /// RFC 2710, RFC 3810), neither of which leaves the link: they pass before any policy, or nobody could be reached.
    NeighbourDiscovery,
}

/// Whether a packet is a part of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// It is a whole one.
    Whole,
    /// The part with the transport header.
    First,
    /// A part without; its ports are those that the first one had.
    Later,
}

impl Hook {
    /// From what `number` says.
    #[must_use]
    #[inline(always)]
    pub const fn of(number: u64) -> Self {
        match number {
            0 => Self::FromEndpoint,
            1 => Self::ToEndpoint,
            2 => Self::FromHost,
            _ => Self::ToHost,
        }
    }

    /// For a call that takes numbers only.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// `EGRESS` where the endpoint sends.
    #[must_use]
    #[inline(always)]
    pub const fn side(self) -> u8 {
        match self {
            Self::FromEndpoint | Self::FromHost => EGRESS,
            Self::ToEndpoint | Self::ToHost => INGRESS,
        }
    }

    /// The other end's side.
    #[must_use]
    #[inline(always)]
    pub const fn other_side(self) -> u8 {
        if self.side() == EGRESS { INGRESS } else { EGRESS }
    }

    /// Whether it is at an uplink.
    #[must_use]
    #[inline(always)]
    pub const fn is_uplink(self) -> bool {
        matches!(self, Self::FromHost | Self::ToHost)
    }
}

impl Packet {
    /// The connection of this packet, as the sender (`EGRESS`) or the receiver sees it.
    #[must_use]
    #[inline(always)]
    pub const fn flow_key(&self, side: u8) -> FlowKey {
        if side == EGRESS {
            FlowKey::new(self.source, self.destination, self.source_port, self.destination_port, self.protocol)
        } else {
            FlowKey::new(self.destination, self.source, self.destination_port, self.source_port, self.protocol)
        }
    }

    /// The datagram this packet is a part of.
    #[must_use]
    #[inline(always)]
    pub const fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            identification: self.identification,
            // Of an IPv6 fragment only the first one knows the protocol (RFC 8200 §4.5).
            protocol: if self.source.is_ipv4() { self.protocol as u32 } else { 0 },
        }
    }
}
