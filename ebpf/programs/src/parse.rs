//! From bytes to `Packet`.
//!
//! Whatever is not understood is dropped and counted. Headers at fixed offsets are read in place; where a header lies
//! at a variable offset, or outside the packet's linear part, the kernel copies it.

use aya_ebpf::programs::TcContext;
use ringfence_ebpf_common::{Address, Decision, MARK_JUDGED, Packet, PacketKind, Reason};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;

/// EtherTypes as they stand in `skb->protocol` (network byte order).
const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const ETHERTYPE_ARP: u32 = 0x0806_u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const IPV6_DESTINATION: u8 = 60;
const SCTP: u8 = 132;

/// More extension headers than this are nobody's honest packet.
const MAX_EXTENSION_HEADERS: usize = 5;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// RFC 791 §3.1; fields in network byte order. Two bytes of alignment: it begins 14 bytes into a frame.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Ipv4 {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// RFC 8200 §3; fields in network byte order.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Ipv6 {
    version_class_flow: [u8; 4],
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// The first 14 bytes of a TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Tcp {
    source: u16,
    destination: u16,
    sequence: [u16; 2],
    acknowledgement: [u16; 2],
    data_offset: u8,
    flags: u8,
}

/// The ports of UDP and SCTP.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Ports {
    source: u16,
    destination: u16,
}

/// ICMP and ICMPv6; `identifier` means something in echo messages only.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: u16,
    identifier: u16,
}

/// Parses an Ethernet frame.
///
/// # Errors
/// The decision about packets that need no policy (ARP passes) or that policy cannot be asked about (dropped).
#[inline(always)]
pub fn parse(context: &TcContext) -> Result<Packet, Decision> {
    // SAFETY: the context is valid while the program runs.
    let (protocol, tagged, mark) =
        unsafe { ((*context.skb.skb).protocol, (*context.skb.skb).vlan_present, (*context.skb.skb).mark) };
    let mut packet = Packet {
        source: Address { words: [0; 4] },
        destination: Address { words: [0; 4] },
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        kind: PacketKind::Data,
        judged: mark & MARK_JUDGED != 0,
    };
    let parsed = match protocol {
        _ if tagged != 0 => Err(Reason::Unparsable),
        ETHERTYPE_IPV4 => parse_ipv4(context, &mut packet),
        ETHERTYPE_IPV6 => parse_ipv6(context, &mut packet),
        ETHERTYPE_ARP => return Err(Decision::allow(Reason::NeighbourDiscovery)),
        _ => Err(Reason::Unparsable),
    };
    match parsed {
        Ok(()) => Ok(packet),
        Err(reason) => Err(Decision::deny(reason)),
    }
}

#[inline(always)]
fn parse_ipv4(context: &TcContext, packet: &mut Packet) -> Result<(), Reason> {
    let header: Ipv4 = read(context, ETHERNET_BYTES)?;
    let header_bytes = ((header.version_and_length & 0x0f) as usize) * 4;
    if header.version_and_length >> 4 != 4 || header_bytes < IPV4_BYTES {
        return Err(Reason::Unparsable);
    }
    if u16::from_be(header.fragment) & 0x1fff != 0 {
        return Err(Reason::Fragment);
    }
    packet.source = Address::from_ipv4(header.source);
    packet.destination = Address::from_ipv4(header.destination);
    packet.protocol = header.protocol;
    if header_bytes == IPV4_BYTES {
        parse_transport(packet, 0, |offset| At { context, offset: ETHERNET_BYTES + IPV4_BYTES + offset, direct: true })
    } else {
        let start = ETHERNET_BYTES + header_bytes;
        parse_transport(packet, 0, |offset| At { context, offset: start + offset, direct: false })
    }
}

#[inline(always)]
fn parse_ipv6(context: &TcContext, packet: &mut Packet) -> Result<(), Reason> {
    let header: Ipv6 = read(context, ETHERNET_BYTES)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Reason::Unparsable);
    }
    packet.source = Address { words: header.source };
    packet.destination = Address { words: header.destination };
    // An IPv4-mapped address never stands on the wire honestly (RFC 4291 §2.5.5.2); here it would mean IPv4.
    if packet.source.is_ipv4() || packet.destination.is_ipv4() {
        return Err(Reason::Unparsable);
    }
    packet.protocol = header.next_header;
    if is_extension(header.next_header) {
        let start = skip_extensions(context, packet)?;
        parse_transport(packet, header.hop_limit, |offset| At { context, offset: start + offset, direct: false })
    } else {
        let start = ETHERNET_BYTES + IPV6_BYTES;
        parse_transport(packet, header.hop_limit, |offset| At { context, offset: start + offset, direct: true })
    }
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION)
}

/// Walks the extension headers (RFC 8200 §4); answers the offset of the transport header.
#[inline(always)]
fn skip_extensions(context: &TcContext, packet: &mut Packet) -> Result<usize, Reason> {
    let mut offset = ETHERNET_BYTES + IPV6_BYTES;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header: [u8; 4] = copy(context, offset)?;
        if packet.protocol == IPV6_FRAGMENT {
            if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                return Err(Reason::Fragment);
            }
            offset += 8;
        } else {
            offset += (header[1] as usize + 1) * 8;
        }
        packet.protocol = header[0];
        if !is_extension(packet.protocol) {
            return Ok(offset);
        }
    }
    Err(Reason::Unparsable)
}

/// Where a header lies and how it is read.
struct At<'a> {
    context: &'a TcContext,
    offset: usize,
    direct: bool,
}

/// Reads what the transport says about the flow. `hop_limit` is 0 for IPv4.
#[inline(always)]
fn parse_transport<'a>(packet: &mut Packet, hop_limit: u8, at: impl Fn(usize) -> At<'a>) -> Result<(), Reason> {
    match packet.protocol {
        TCP => {
            let header: Tcp = at(0).get()?;
            packet.source_port = u16::from_be(header.source);
            packet.destination_port = u16::from_be(header.destination);
            packet.kind = tcp_kind(header.flags);
        }
        UDP | SCTP => {
            let header: Ports = at(0).get()?;
            packet.source_port = u16::from_be(header.source);
            packet.destination_port = u16::from_be(header.destination);
        }
        ICMP | ICMPV6 => {
            let header: Icmp = at(0).get()?;
            let echo =
                if packet.protocol == ICMP { matches!(header.kind, 0 | 8) } else { matches!(header.kind, 128 | 129) };
            if echo {
                packet.source_port = u16::from_be(header.identifier);
                packet.destination_port = packet.source_port;
            }
            // Receivers accept neighbour discovery only with a hop limit that no router has lowered (RFC 4861 §6.1, §7.1).
            if packet.protocol == ICMPV6 && hop_limit == 255 && matches!(header.kind, 133..=137) {
                packet.kind = PacketKind::NeighbourDiscovery;
            }
        }
        _ => {}
    }
    Ok(())
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

impl At<'_> {
    #[inline(always)]
    fn get<T: Copy>(self) -> Result<T, Reason> {
        if self.direct { read(self.context, self.offset) } else { copy(self.context, self.offset) }
    }
}

/// Reads in place, or copies if the bytes are not in the linear part.
#[inline(always)]
fn read<T: Copy>(context: &TcContext, offset: usize) -> Result<T, Reason> {
    let start = context.data() + offset;
    if start + size_of::<T>() <= context.data_end() {
        // SAFETY: the verifier has seen the bound check; `T` is plain bytes with an alignment of at most two, and
        // headers lie at even offsets.
        Ok(unsafe { *(start as *const T) })
    } else {
        copy(context, offset)
    }
}

#[inline(always)]
fn copy<T: Copy>(context: &TcContext, offset: usize) -> Result<T, Reason> {
    context.load(offset).map_err(|_| Reason::Unparsable)
}
