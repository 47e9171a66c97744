//! Frames made of the bytes of one fuzz input, and what must hold for each: the programs' own parser and `decide` let
//! nothing through that the specification refuses, whatever the frame looks like.
//!
//! ```text
//! bytes ─► frames (headers of every kind, with wrong lengths, cut off, in fragments, tagged)
//!            ├─ ebpf/programs' parse ─ MemoryDatapath ─► passes?
//!            └─ `Spec`: read again by other code, judged by `Tables::class_in` ─► may it?
//! ```

mod spec;

use std::{net::IpAddr, sync::OnceLock};

use ringfence_datapath::{Datapath as _, Hook, MemoryDatapath};
use ringfence_ebpf_common::{Address, Fragment, MARK_JUDGED, Packet, PacketKind};
use ringfence_policy::{
    flow::{Direction, protocol},
    revision::Revision,
    tables::{Class, EndpointId, Tables},
};

use crate::{
    parse::{parse, parse_plain},
    programs::TcContext,
    worlds::{LOCAL, OTHER, REMOTE, families, name, policy, rule, say, world},
};
use spec::Spec;

/// Frames of one input, at most.
const FRAMES: usize = 24;

/// To make them takes longer than to judge an input's frames.
static TABLES: OnceLock<Tables> = OnceLock::new();

/// What became of an input's frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) passed: usize,
    pub(crate) dropped: usize,
}

/// Bytes that decide, zeros once there are no more.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn often(&mut self) -> bool {
        !self.byte().is_multiple_of(8)
    }
}

/// Judges every frame of an input.
///
/// # Panics
/// If a frame passes that the specification refuses.
pub(crate) fn exercise(bytes: &[u8]) -> Seen {
    exercise_with(bytes, |_| {})
}

/// The same, with tables that the datapath got wrong.
pub(crate) fn exercise_with(bytes: &[u8], mistake: impl Fn(&mut Tables)) -> Seen {
    let mut datapath = MemoryDatapath::default();
    let endpoint = datapath.attach(&name("local"), "ep0").expect("it is the first");
    assert_eq!(endpoint, EndpointId(2), "the tables are made for it: the first one is the node");
    let tables = TABLES.get_or_init(|| tables(endpoint)).clone();
    let mut wrong = tables.clone();
    mistake(&mut wrong);
    datapath.apply(Revision(1), &Tables::default().diff(&wrong)).expect("it fits");
    let mut last: Option<Vec<u8>> = None;
    let (mut spec, mut input, mut seen) = (Spec::new(tables, endpoint), Input(bytes), Seen::default());
    for _ in 0..FRAMES {
        if input.0.is_empty() {
            break;
        }
        let how = input.byte();
        let hook = if how & 1 == 0 { Hook::FromEndpoint } else { Hook::ToEndpoint };
        let tagged = how & 0xf0 == 0xf0;
        // What follows a frame that passed is what state is for: often it is nearly the same.
        let frame = match &last {
            Some(last) if how & 0x0c != 0 => again(&mut input, last),
            _ => frame(&mut input),
        };
        let linear = if how & 2 == 0 { frame.len() } else { usize::from(input.byte()) };
        let context = TcContext::new(&frame, linear, tagged, 0);
        let mut packet = nothing();
        // As the programs do.
        let plain = parse_plain(&context, &mut packet);
        let passes = match if plain { Ok(()) } else { parse(&context, hook, &mut packet) } {
            Err(reason) => reason.passes(),
            Ok(()) => datapath.judge(hook, endpoint, packet).allowed,
        };
        let may = spec.may_pass(&frame, hook, tagged);
        assert!(may || !passes, "{hook:?}: passes, and must not: {frame:02x?}\n{packet:?}");
        if passes {
            last = Some(frame);
            seen.passed += 1;
        } else {
            seen.dropped += 1;
        }
    }
    // A mark is believed where a packet comes from the node only; the kernel clears it when a packet enters.
    let marked = TcContext::new(&[0; 60], 60, false, MARK_JUDGED);
    assert!(parse(&marked, Hook::ToEndpoint, &mut nothing()).is_err());
    seen
}

fn nothing() -> Packet {
    let nowhere = Address { words: [0; 2] };
    Packet {
        source: nowhere,
        destination: nowhere,
        source_port: 0,
        destination_port: 0,
        port: 0,
        protocol: 0,
        kind: PacketKind::Data,
        fragment: Fragment::Whole,
        identification: 0,
        judged: false,
        passed: false,
    }
}

/// An endpoint that may reach some ports of some peers, and may be reached at others.
fn tables(endpoint: EndpointId) -> Tables {
    let mut tables = world(endpoint, EndpointId(9999));
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, None, 443, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 444, Class::Deny);
    rule(&mut tables, LOCAL, Direction::Egress, Some(OTHER), 80, Class::Allow);
    rule(&mut tables, OTHER, Direction::Ingress, Some(LOCAL), 80, Class::Allow);
    for (protocol, port) in [(protocol::UDP, 53), (protocol::SCTP, 80), (protocol::ICMP, 8), (protocol::ICMPV6, 128)] {
        say(&mut tables, policy(LOCAL), Direction::Egress, Some(REMOTE), Some((protocol, port)), Class::Allow);
    }
    say(&mut tables, policy(LOCAL), Direction::Ingress, Some(REMOTE), Some((protocol::TCP, 22)), Class::Allow);
    tables
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte();
    let mut frame = vec![0; 12];
    match kind % 8 {
        0..=2 => {
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(input, true));
        }
        3..=5 => {
            frame.extend([0x86, 0xdd]);
            frame.extend(ipv6(input, true));
        }
        6 => {
            // ARP, a tag in the frame, or something else.
            let ethertype = input.one(&[0x0806, 0x8100, 0x88a8, 0x88cc, 0x0040]);
            frame.extend(u16::to_be_bytes(ethertype));
            if ethertype & 0xff00 == 0x8100 || ethertype == 0x88a8 {
                frame.extend([0, 1, 0x08, 0x00]);
                frame.extend(ipv4(input, true));
            }
        }
        _ => {
            frame.extend(input.one(&[[0x08, 0x00], [0x86, 0xdd]]));
            frame.extend((0..input.byte()).map(|_| input.byte()));
        }
    }
    if kind & 0x80 != 0 {
        frame.truncate(usize::from(input.byte()));
    }
    frame
}

/// A frame with something changed: which fragment of a datagram it is, a byte, or its length.
fn again(input: &mut Input<'_>, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match input.byte() % 4 {
        0 | 1 if frame.get(12..14) == Some(&[0x08, 0x00]) && frame.len() > 22 => {
            let fragment = input.one(&[0x2000, 0x2000, 0x0001, 0x2001, 0x0005, 0x0000]);
            frame[20..22].copy_from_slice(&u16::to_be_bytes(fragment));
        }
        2 => frame.truncate(usize::from(input.byte())),
        _ => {
            let place = usize::from(input.byte()) % frame.len().max(1);
            if let Some(byte) = frame.get_mut(place) {
                *byte = input.byte();
            }
        }
    }
    frame
}

fn address(input: &mut Input<'_>, v6: bool) -> IpAddr {
    let family = families()[usize::from(v6)];
    input.one(&[family.local, family.local, family.remote, family.other, family.unknown, family.world])
}

fn ends(input: &mut Input<'_>, v6: bool) -> [IpAddr; 2] {
    let family = families()[usize::from(v6)];
    match input.byte() % 4 {
        0 => [family.local, family.remote],
        1 => [family.remote, family.local],
        _ => [address(input, v6), address(input, v6)],
    }
}

fn ipv4(input: &mut Input<'_>, outer: bool) -> Vec<u8> {
    let words = if input.often() { 5 } else { input.byte() & 15 };
    let version = if input.often() { 4 } else { input.byte() & 15 };
    let kind = input.one(&[6, 6, 17, 132, 1, 1, 58, 47]);
    let fragment = if input.often() { 0 } else { input.one(&[0x2000, 0x2003, 0x0005, 0x2001, 0x4000, 0x0001]) };
    let identification = u16::from(input.byte() % 3);
    let mut header = vec![0; usize::from(words.max(5)) * 4];
    header[0] = version << 4 | words;
    header[2..4].copy_from_slice(&input.word().to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[6..8].copy_from_slice(&u16::to_be_bytes(fragment));
    header[8..10].copy_from_slice(&[64, kind]);
    for (place, end) in [12, 16].into_iter().zip(ends(input, false)) {
        if let IpAddr::V4(end) = end {
            header[place..place + 4].copy_from_slice(&end.octets());
        }
    }
    header.extend(transport(input, kind, outer, false));
    header
}

fn ipv6(input: &mut Input<'_>, outer: bool) -> Vec<u8> {
    let kind = input.one(&[6, 6, 17, 132, 58, 58, 1, 59]);
    let chain: Vec<u8> = if input.often() {
        vec![]
    } else {
        (0..input.byte() % 8).map(|_| input.one(&[0, 60, 43, 44, 44, 51])).collect()
    };
    let hop_limit = input.one(&[64, 255, 1, 254]);
    let version = if input.often() { 6 } else { input.byte() & 15 };
    let mut packet = vec![version << 4, 0, 0, 0];
    packet.extend(input.word().to_be_bytes());
    packet.extend([chain.first().copied().unwrap_or(kind), hop_limit]);
    for end in ends(input, true) {
        let octets = if let IpAddr::V6(end) = end { end.octets() } else { [0; 16] };
        packet.extend(octets);
    }
    for (index, header) in chain.iter().enumerate() {
        let next = chain.get(index + 1).copied().unwrap_or(kind);
        let length = if input.often() { input.byte() % 3 } else { input.byte() };
        match header {
            44 => {
                packet.extend([next, 0]);
                packet.extend(u16::to_be_bytes(input.one(&[0, 1, 0x18, 0x19, 8, 9])));
                packet.extend([0, 0, 0, input.byte() % 3]);
            }
            51 => {
                packet.extend([next, length]);
                packet.resize(packet.len() + (usize::from(length % 8) + 2) * 4 - 2, 0);
            }
            _ => {
                packet.extend([next, length]);
                packet.resize(packet.len() + (usize::from(length % 8) + 1) * 8 - 2, 0);
            }
        }
    }
    packet.extend(transport(input, kind, outer, true));
    packet
}

fn transport(input: &mut Input<'_>, kind: u8, outer: bool, v6: bool) -> Vec<u8> {
    let mut header = vec![0; 20];
    if matches!(kind, 1 | 58) {
        let message =
            if input.often() { input.one(&[8, 0, 3, 11, 128, 129, 1, 2, 135, 143, 13, 14]) } else { input.byte() };
        header[0] = message;
        header[4..6].copy_from_slice(&u16::from(input.byte() % 3).to_be_bytes());
        if outer && input.often() {
            header.truncate(8);
            header.extend(if v6 { ipv6(input, false) } else { ipv4(input, false) });
        }
        return header;
    }
    for place in [0, 2] {
        let port: u16 = if input.often() { input.one(&[80, 443, 444, 22, 53, 40_000]) } else { input.word() };
        header[place..place + 2].copy_from_slice(&port.to_be_bytes());
    }
    header[12..14].copy_from_slice(&[0x50, input.one(&[0x02, 0x02, 0x10, 0x12, 0x01, 0x04, 0x00])]);
    header
}
