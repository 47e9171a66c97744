//! What may pass, worked out without the programs' code: read straight from the standards with checked slices, judged by
//! the tables' own lookup. It knows a little more connections than there are (it forgets none), and so says "may" a little
//! too often, never too seldom.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ringfence_datapath::Hook;
use ringfence_policy::{
    flow::{Direction, Flow},
    identity::Identity,
    tables::{Class, EndpointId, Tables},
};

const NO_UPLINK: &str = "frames are seen at the hooks of an endpoint only";

/// A connection as the endpoint sees it: its address and port, the other side's, the protocol.
type Known = (IpAddr, u16, IpAddr, u16, u8);

pub(super) struct Spec {
    tables: Tables,
    endpoint: EndpointId,
    known: BTreeSet<Known>,
    /// Datagrams whose first fragment may have passed: ends, identification, protocol.
    begun: BTreeSet<(IpAddr, IpAddr, u32, u8)>,
}

/// A packet as its headers say.
struct Read<'f> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hop_limit: u8,
    fragment: Option<(u16, u32)>,
    payload: &'f [u8],
}

/// What a transport header says.
enum Said {
    Ports(u16, u16, u16),
    Error,
    StaysOnLink,
}

impl Spec {
    pub(super) fn new(tables: Tables, endpoint: EndpointId) -> Self {
        Self { tables, endpoint, known: BTreeSet::new(), begun: BTreeSet::new() }
    }

    /// Whether anything allows a frame to pass.
    pub(super) fn may_pass(&mut self, frame: &[u8], hook: Hook, tagged: bool) -> bool {
        if tagged {
            return false;
        }
        match frame.get(12..14) {
            Some([0x08, 0x06]) => true,
            Some([0x08, 0x00]) => ipv4(&frame[14..]).is_some_and(|read| self.packet(&read, hook)),
            Some([0x86, 0xdd]) => ipv6(&frame[14..]).is_some_and(|read| self.packet(&read, hook)),
            _ => false,
        }
    }

    fn packet(&mut self, read: &Read<'_>, hook: Hook) -> bool {
        let ends = (read.source, read.destination);
        let key = |identification| {
            // Of an IPv6 fragment only the first one knows the protocol (RFC 8200 §4.5).
            let protocol = if read.source.is_ipv4() { read.protocol } else { 0 };
            (read.source, read.destination, identification, protocol)
        };
        if let Some((offset, identification)) = read.fragment
            && offset > 0
        {
            // RFC 3128: over the flags of the first one.
            return !(offset == 1 && read.protocol == 6) && self.begun.contains(&key(identification));
        }
        let Some(said) = said(read, read.fragment.is_none()) else { return false };
        let passes = match said {
            Said::StaysOnLink => return true,
            Said::Error => self.error(read, hook),
            Said::Ports(source, destination, port) => {
                self.connection(ends, (source, destination), port, read.protocol, hook)
            }
        };
        if let Some((_, identification)) = read.fragment
            && passes
        {
            self.begun.insert(key(identification));
        }
        passes
    }

    fn connection(
        &mut self,
        (from, to): (IpAddr, IpAddr),
        (source_port, destination_port): (u16, u16),
        port: u16,
        protocol: u8,
        hook: Hook,
    ) -> bool {
        let (known, direction, peer) = match hook {
            Hook::FromEndpoint => ((from, source_port, to, destination_port, protocol), Direction::Egress, to),
            Hook::ToEndpoint => ((to, destination_port, from, source_port, protocol), Direction::Ingress, from),
            Hook::FromHost | Hook::ToHost => unreachable!("{NO_UPLINK}"),
        };
        let owner = |address: &IpAddr| self.tables.addresses.get(address).and_then(|entry| entry.endpoint);
        if direction == Direction::Egress && owner(&from) != Some(self.endpoint) {
            return false;
        }
        let hairpin = direction == Direction::Egress && owner(&to) == Some(self.endpoint);
        let allowed = self.known.contains(&known) || hairpin || {
            let own = self.allows(self.endpoint, direction, peer, protocol, port);
            let receiver = owner(&to).filter(|_| direction == Direction::Egress);
            own && receiver.is_none_or(|id| self.allows(id, Direction::Ingress, from, protocol, port))
        };
        if allowed {
            self.known.insert(known);
        }
        allowed
    }

    fn allows(&self, endpoint: EndpointId, direction: Direction, peer: IpAddr, protocol: u8, port: u16) -> bool {
        let Some(entry) = self.tables.endpoints.get(&endpoint) else { return false };
        let exact = self.tables.addresses.get(&peer).map(|entry| entry.identity);
        let identity = exact.unwrap_or_else(|| {
            let around = self.tables.ranges.iter().filter(|(range, _)| range.contains(peer));
            let longest = around.max_by_key(|(range, _)| range.prefix_length()).map(|(_, identity)| *identity);
            longest.unwrap_or(if peer.is_ipv4() { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 })
        });
        let flow = Flow { subject: entry.identity, peer: identity, direction, protocol, port };
        self.tables.class_in(entry.policy, &flow) == Some(Class::Allow)
    }

    /// An error passes with the connection that the packet inside belongs to.
    fn error(&self, outer: &Read<'_>, hook: Hook) -> bool {
        let Some(inside) = outer.payload.get(8..) else { return false };
        let read = if outer.source.is_ipv4() { ipv4(inside) } else { ipv6(inside) };
        let Some(inner) = read.filter(|inner| inner.fragment.is_none_or(|(offset, _)| offset == 0)) else {
            return false;
        };
        if inner.source != outer.destination {
            return false;
        }
        let (source_port, destination_port) = match inner.protocol {
            6 | 17 | 132 => match inner.payload.get(..4) {
                Some(&[a, b, c, d]) => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
                _ => return false,
            },
            1 | 58 => match said(&Read { hop_limit: 0, ..inner }, false) {
                Some(Said::Ports(source, destination, _)) => (source, destination),
                _ => return false,
            },
            _ => (0, 0),
        };
        let Read { source, destination, protocol, .. } = inner;
        self.known.contains(&match hook {
            // The endpoint speaks of a packet that came to it.
            Hook::FromEndpoint => (destination, destination_port, source, source_port, protocol),
            Hook::ToEndpoint => (source, source_port, destination, destination_port, protocol),
            Hook::FromHost | Hook::ToHost => unreachable!("{NO_UPLINK}"),
        })
    }
}

fn ipv4(bytes: &[u8]) -> Option<Read<'_>> {
    let header = bytes.get(..20)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let identification = u32::from(u16::from_be_bytes([header[4], header[5]]));
    Some(Read {
        source: address(12),
        destination: address(16),
        protocol: header[9],
        hop_limit: 0,
        fragment: (flags & 0x3fff != 0).then_some((flags & 0x1fff, identification)),
        payload: bytes.get(length..).unwrap_or_default(),
    })
}

fn ipv6(bytes: &[u8]) -> Option<Read<'_>> {
    let header = bytes.get(..40)?;
    let address = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).ok().map(Ipv6Addr::from);
    let (source, destination) = (address(8)?, address(24)?);
    if header[0] >> 4 != 6 || source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    let (mut protocol, mut at, mut fragment, mut headers) = (header[6], 40, None, 0);
    while matches!(protocol, 0 | 43 | 44 | 51 | 60) {
        headers += 1;
        let extension = bytes.get(at..at + 4).filter(|_| headers <= 5)?;
        let kind = std::mem::replace(&mut protocol, extension[0]);
        at += match kind {
            44 => {
                let position = u16::from_be_bytes([extension[2], extension[3]]);
                if position & 0xfff9 != 0 {
                    let identification = bytes.get(at + 4..at + 8)?;
                    let identification = u32::from_be_bytes(identification.try_into().ok()?);
                    fragment = Some((position >> 3, identification));
                    if position >> 3 > 0 {
                        break;
                    }
                }
                8
            }
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
    }
    let (source, destination) = (source.into(), destination.into());
    let payload = bytes.get(at..).unwrap_or_default();
    Some(Read { source, destination, protocol, hop_limit: header[7], fragment, payload })
}

/// What stands in the place of ports; none if the header is cut off.
fn said(read: &Read<'_>, whole: bool) -> Option<Said> {
    let word = |at: usize| Some(u16::from_be_bytes(read.payload.get(at..at + 2)?.try_into().ok()?));
    Some(match read.protocol {
        6 | 17 | 132 => {
            read.payload.get(..if read.protocol == 6 { 14 } else { 4 })?;
            Said::Ports(word(0)?, word(2)?, word(2)?)
        }
        1 | 58 => {
            read.payload.get(..6)?;
            let (kind, identifier) = (read.payload[0], word(4)?);
            let named = u16::from(kind);
            match (read.protocol, kind) {
                (58, 133..=137) if whole && read.hop_limit == 255 => Said::StaysOnLink,
                (58, 130..=132 | 143) if whole && read.hop_limit == 1 => Said::StaysOnLink,
                (1, 8 | 13 | 15 | 17) | (58, 128) => Said::Ports(identifier, named, named),
                (1, 0) => Said::Ports(8, identifier, named),
                (1, 14 | 16 | 18) | (58, 129) => Said::Ports(named - 1, identifier, named),
                (1, 3 | 11 | 12) | (58, 1..=4) => Said::Error,
                _ => Said::Ports(0xff00 | named, named, named),
            }
        }
        _ => Said::Ports(0, 0, 0),
    })
}
