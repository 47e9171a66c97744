//! From bytes to `Packet`: the network layer.
//!
//! Whatever is not understood is dropped and counted.

use aya_ebpf::programs::TcContext;
use ringfence_ebpf_common::{Address, Fragment, Hook, MARK_JUDGED, MARK_PASSED, Packet, Reason};

use crate::{
    headers::{At, Ipv4, Ipv6, copy, in_place, read},
    transport::{self, TCP},
};

const ETHERNET_BYTES: usize = 14;
pub(crate) const IPV4_BYTES: usize = 20;
pub(crate) const IPV6_BYTES: usize = 40;

/// EtherTypes as they stand in `skb->protocol` (network byte order).
const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const ETHERTYPE_ARP: u32 = 0x0806_u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_AUTHENTICATION: u8 = 51;
const IPV6_DESTINATION: u8 = 60;

/// More extension headers than this are nobody's honest packet.
const MAX_EXTENSION_HEADERS: usize = 5;

/// Parses an Ethernet frame.
///
/// # Errors
/// The reason why packets need no policy (ARP passes), or why policy cannot be asked about them (dropped).
#[inline(always)]
pub fn parse(context: &TcContext, hook: Hook, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the context is valid while the program runs.
    let (protocol, tagged, mark) =
        unsafe { ((*context.skb.skb).protocol, (*context.skb.skb).vlan_present, (*context.skb.skb).mark) };
    packet.judged = mark & MARK_JUDGED != 0;
    packet.passed = mark & MARK_PASSED != 0;
    // At an uplink, policies speak of IP alone; what is tagged is seen again at its own device.
    let other = if hook.is_uplink() { Reason::Passing } else { Reason::Unparsable };
    match protocol {
        _ if tagged != 0 => Err(other),
        ETHERTYPE_IPV4 => parse_ipv4(context, hook, packet),
        ETHERTYPE_IPV6 => parse_ipv6(context, hook, packet),
        ETHERTYPE_ARP => Err(Reason::NeighbourDiscovery),
        _ => Err(other),
    }
}

/// Parses the frames that most are, in place: no options, no extension headers, no fragments, ports. False for the
/// others, and those that are not as they should be: `parse` says what they are.
#[inline(always)]
pub fn parse_plain(context: &TcContext, packet: &mut Packet) -> bool {
    // SAFETY: the context is valid while the program runs.
    let (protocol, tagged, mark) =
        unsafe { ((*context.skb.skb).protocol, (*context.skb.skb).vlan_present, (*context.skb.skb).mark) };
    packet.judged = mark & MARK_JUDGED != 0;
    packet.passed = mark & MARK_PASSED != 0;
    if tagged != 0 {
        return false;
    }
    if protocol == ETHERTYPE_IPV4 {
        let Some(header) = in_place::<Ipv4>(context, ETHERNET_BYTES) else { return false };
        if header.version_and_length != 0x45
            || u16::from_be(header.fragment) & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS) != 0
        {
            return false;
        }
        packet.source = Address::from_ipv4(header.source);
        packet.destination = Address::from_ipv4(header.destination);
        packet.protocol = header.protocol;
        transport::parse_plain(packet, context, ETHERNET_BYTES + IPV4_BYTES)
    } else if protocol == ETHERTYPE_IPV6 {
        let Some(header) = in_place::<Ipv6>(context, ETHERNET_BYTES) else { return false };
        packet.source = Address { words: header.source };
        packet.destination = Address { words: header.destination };
        if header.version_class_flow[0] >> 4 != 6 || packet.source.is_ipv4() || packet.destination.is_ipv4() {
            return false;
        }
        packet.protocol = header.next_header;
        transport::parse_plain(packet, context, ETHERNET_BYTES + IPV6_BYTES)
    } else {
        false
    }
}

#[inline(always)]
fn parse_ipv4(context: &TcContext, hook: Hook, packet: &mut Packet) -> Result<(), Reason> {
    let header: Ipv4 = read(context, ETHERNET_BYTES)?;
    let header_bytes = ipv4_header_bytes(&header)?;
    packet.source = Address::from_ipv4(header.source);
    packet.destination = Address::from_ipv4(header.destination);
    packet.protocol = header.protocol;
    let fragment = u16::from_be(header.fragment);
    if fragment & (IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS) != 0 {
        packet.identification = u32::from(header.identification);
        if note_fragment(packet, fragment & IPV4_FRAGMENT_OFFSET)? {
            return Ok(());
        }
    }
    if header_bytes == IPV4_BYTES {
        transport::parse(packet, hook, 0, At { context, offset: ETHERNET_BYTES + IPV4_BYTES, fixed: true })
    } else {
        transport::parse(packet, hook, 0, At { context, offset: ETHERNET_BYTES + header_bytes, fixed: false })
    }
}

/// The length of a header that is one.
#[inline(always)]
pub(crate) fn ipv4_header_bytes(header: &Ipv4) -> Result<usize, Reason> {
    let header_bytes = ((header.version_and_length & 0x0f) as usize) * 4;
    if header.version_and_length >> 4 != 4 || header_bytes < IPV4_BYTES {
        return Err(Reason::Unparsable);
    }
    Ok(header_bytes)
}

#[inline(always)]
fn parse_ipv6(context: &TcContext, hook: Hook, packet: &mut Packet) -> Result<(), Reason> {
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
    let start = ETHERNET_BYTES + IPV6_BYTES;
    if is_extension(header.next_header) {
        let start = skip_extensions(context, packet, start)?;
        if let Fragment::Later = packet.fragment {
            return Ok(());
        }
        transport::parse(packet, hook, header.hop_limit, At { context, offset: start, fixed: false })
    } else {
        transport::parse(packet, hook, header.hop_limit, At { context, offset: start, fixed: true })
    }
}

#[inline(always)]
pub(crate) const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_AUTHENTICATION | IPV6_DESTINATION)
}

/// Walks the extension headers (RFC 8200 §4); answers the offset of the transport header, if this packet has it.
#[inline(always)]
pub(crate) fn skip_extensions(context: &TcContext, packet: &mut Packet, start: usize) -> Result<usize, Reason> {
    let mut offset = start;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header: [u8; 4] = copy(context, offset)?;
        let kind = packet.protocol;
        packet.protocol = header[0];
        match kind {
            IPV6_FRAGMENT => {
                let position = u16::from_be_bytes([header[2], header[3]]);
                // All but the two reserved bits: a whole packet may carry the header, too (RFC 6946).
                if position & 0xfff9 != 0 {
                    let identification: [u8; 4] = copy(context, offset + 4)?;
                    packet.identification = u32::from_ne_bytes(identification);
                    if note_fragment(packet, position >> 3)? {
                        return Ok(offset);
                    }
                }
                offset += 8;
            }
            // RFC 4302 §2.2: the one that counts in other units.
            IPV6_AUTHENTICATION => offset += (header[1] as usize + 2) * 4,
            _ => offset += (header[1] as usize + 1) * 8,
        }
        if !is_extension(packet.protocol) {
            return Ok(offset);
        }
    }
    Err(Reason::Unparsable)
}

/// Notes which part this is, by its offset in units of eight bytes; true if it has no transport header.
#[inline(always)]
fn note_fragment(packet: &mut Packet, offset: u16) -> Result<bool, Reason> {
    if offset == 0 {
        packet.fragment = Fragment::First;
        return Ok(false);
    }
    // It would write over the flags of the first one's TCP header (RFC 3128).
    if offset == 1 && packet.protocol == TCP {
        return Err(Reason::Fragment);
    }
    packet.fragment = Fragment::Later;
    Ok(true)
}
