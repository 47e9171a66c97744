//! From bytes to `Packet`: the transport layer, and the packet inside an ICMP error.

use aya_ebpf::programs::TcContext;
use ringfence_ebpf_common::{Address, Fragment, Hook, Packet, PacketKind, Reason};

use crate::{
    headers::{At, Icmp, Ipv4, Ipv6, Ports, Tcp, in_place},
    parse::{IPV6_BYTES, ipv4_header_bytes, is_extension, skip_extensions},
};

const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// The header of an ICMP error, before the packet it is about (RFC 792, RFC 4443 §3).
const ICMP_ERROR_BYTES: usize = 8;
/// In place of an identifier, for messages that nothing answers; no type is as large.
const ICMP_ONE_WAY: u16 = 0xff00;

/// What an ICMP message is.
enum Message {
    Query,
    /// With the type of the query.
    Answer(u8),
    Error,
    OneWay,
}

/// Reads what the transport says about the connection. `hop_limit` is 0 for IPv4.
#[inline(always)]
pub(crate) fn parse(packet: &mut Packet, hook: Hook, hop_limit: u8, at: At<'_>) -> Result<(), Reason> {
    match packet.protocol {
        TCP => {
            let header: Tcp = at.get()?;
            packet.source_port = u16::from_be(header.source);
            packet.destination_port = u16::from_be(header.destination);
            packet.port = packet.destination_port;
            packet.kind = tcp_kind(header.flags);
        }
        UDP | SCTP => {
            let header: Ports = at.get()?;
            packet.source_port = u16::from_be(header.source);
            packet.destination_port = u16::from_be(header.destination);
            packet.port = packet.destination_port;
        }
        ICMP | ICMPV6 => {
            let header: Icmp = at.get()?;
            let whole = matches!(packet.fragment, Fragment::Whole);
            if packet.protocol == ICMPV6 && whole && stays_on_link(header.kind, hop_limit) {
                packet.kind = PacketKind::NeighbourDiscovery;
            } else if let Message::Error = note_icmp(packet, &header) {
                return parse_error(packet, hook, At { offset: at.offset + ICMP_ERROR_BYTES, fixed: false, ..at });
            }
        }
        _ => {}
    }
    Ok(())
}

/// As `parse`, for protocols with ports, in place: see `parse::parse_plain`.
#[inline(always)]
pub(crate) fn parse_plain(packet: &mut Packet, context: &TcContext, offset: usize) -> bool {
    let (source, destination) = match packet.protocol {
        TCP => {
            let Some(header) = in_place::<Tcp>(context, offset) else { return false };
            packet.kind = tcp_kind(header.flags);
            (header.source, header.destination)
        }
        UDP | SCTP => {
            let Some(header) = in_place::<Ports>(context, offset) else { return false };
            (header.source, header.destination)
        }
        _ => return false,
    };
    packet.source_port = u16::from_be(source);
    packet.destination_port = u16::from_be(destination);
    packet.port = packet.destination_port;
    true
}

/// Receivers accept neighbour discovery only with a hop limit that no router has lowered (RFC 4861 §6.1, §7.1), and
/// multicast listener messages are sent with 1, so that no router forwards them (RFC 2710 §3, RFC 3810 §5).
#[inline(always)]
const fn stays_on_link(kind: u8, hop_limit: u8) -> bool {
    match kind {
        133..=137 => hop_limit == 255,
        130..=132 | 143 => hop_limit == 1,
        _ => false,
    }
}

/// Gives an ICMP message what stands in the place of ports: see `Packet`.
#[inline(always)]
fn note_icmp(packet: &mut Packet, header: &Icmp) -> Message {
    let kind = header.kind;
    let message = match (packet.protocol == ICMP, kind) {
        (true, 8 | 13 | 15 | 17) | (false, 128) => Message::Query,
        (true, 0) => Message::Answer(8),
        (true, 14 | 16 | 18) | (false, 129) => Message::Answer(kind - 1),
        (true, 3 | 11 | 12) | (false, 1..=4) => Message::Error,
        _ => Message::OneWay,
    };
    let (identifier, kind) = (u16::from_be(header.identifier), u16::from(kind));
    packet.port = kind;
    (packet.source_port, packet.destination_port, packet.kind) = match message {
        Message::Query => (identifier, kind, PacketKind::Open),
        Message::Answer(query) => (u16::from(query), identifier, PacketKind::Data),
        Message::Error | Message::OneWay => (ICMP_ONE_WAY | kind, kind, PacketKind::Open),
    };
    message
}

/// Makes of an ICMP error an answer to the packet it is about: its sender must have the error's receiver's address, or
/// anybody could speak about anybody's connections.
#[inline(always)]
fn parse_error(packet: &mut Packet, hook: Hook, at: At<'_>) -> Result<(), Reason> {
    let (from, to) = (packet.source, packet.destination);
    if packet.protocol == ICMP {
        let header: Ipv4 = at.get()?;
        let header_bytes = ipv4_header_bytes(&header)?;
        if u16::from_be(header.fragment) & 0x1fff != 0 {
            return Err(Reason::Unrelated);
        }
        packet.source = Address::from_ipv4(header.destination);
        packet.destination = Address::from_ipv4(header.source);
        packet.protocol = header.protocol;
        inner_ports(packet, at.after(header_bytes))?;
    } else {
        let header: Ipv6 = at.get()?;
        if header.version_class_flow[0] >> 4 != 6 {
            return Err(Reason::Unparsable);
        }
        packet.source = Address { words: header.destination };
        packet.destination = Address { words: header.source };
        packet.protocol = header.next_header;
        let mut start = at.offset + IPV6_BYTES;
        if is_extension(header.next_header) {
            start = skip_extensions(at.context, packet, start)?;
            if let Fragment::Later = packet.fragment {
                return Err(Reason::Unrelated);
            }
        }
        inner_ports(packet, At { offset: start, ..at })?;
    }
    packet.fragment = Fragment::Whole;
    packet.kind = PacketKind::Error;
    // An endpoint speaks for itself only: of a packet that came to it.
    let honest = !matches!(hook, Hook::FromEndpoint) || same(&from, &packet.source);
    if honest && same(&to, &packet.destination) { Ok(()) } else { Err(Reason::Unrelated) }
}

/// Ports of the packet that an error is about, the other way round. Eight bytes of it are always there (RFC 792).
#[inline(always)]
fn inner_ports(packet: &mut Packet, at: At<'_>) -> Result<(), Reason> {
    let (source, destination) = match packet.protocol {
        TCP | UDP | SCTP => {
            let header: Ports = at.get()?;
            (u16::from_be(header.source), u16::from_be(header.destination))
        }
        ICMP | ICMPV6 => {
            let header: Icmp = at.get()?;
            if let Message::Error = note_icmp(packet, &header) {
                return Err(Reason::Unrelated);
            }
            (packet.source_port, packet.destination_port)
        }
        _ => (0, 0),
    };
    packet.source_port = destination;
    packet.destination_port = source;
    Ok(())
}

#[inline(always)]
const fn same(one: &Address, other: &Address) -> bool {
    one.words[0] == other.words[0] && one.words[1] == other.words[1]
}

#[inline(always)]
const fn tcp_kind(flags: u8) -> PacketKind {
    if flags & (TCP_FIN | TCP_RST) != 0 {
        PacketKind::Close
    } else if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        PacketKind::Open
    } else {
        PacketKind::Data
    }
}
