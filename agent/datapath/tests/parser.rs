//! How the programs read frames: the real program on crafted bytes (BPF_PROG_TEST_RUN).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/worlds.rs"]
#[expect(dead_code, reason = "the suite uses the rest")]
mod worlds;

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{HashMap, Map, MapData, PerCpuArray},
    programs::SchedClassifier,
};
use namespaces::{BPFFS, in_own_namespaces, ip};
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions, Reason, Tally};
use ringfence_policy::{
    flow::Direction,
    tables::{Class, EndpointId},
};
use worlds::{LOCAL, REMOTE, apply, name, rule, world};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The programs on the datapath's maps, at one endpoint that may reach port 80 of a remote one.
struct Bed {
    ebpf: Ebpf,
    endpoint: EndpointId,
}

impl Bed {
    fn new() -> Self {
        ip("link add ep0 type veth peer name peer0");
        let directory = Path::new(BPFFS).join("parser");
        let options = KernelOptions {
            directory: directory.clone(),
            capacity: Capacity { flows: 1024, ..Capacity::default() },
            tcx: true,
        };
        let mut datapath = KernelDatapath::open(&options).unwrap();
        let endpoint = datapath.attach(&name("local"), "ep0").unwrap();
        let mut tables = world(endpoint, EndpointId(9999));
        rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
        apply(&mut datapath, &tables);
        let mut ebpf = EbpfLoader::new().default_map_pin_directory(directory.join("v4")).load(OBJECT).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut("from_endpoint").unwrap().try_into().unwrap();
        program.load().unwrap();
        Self { ebpf, endpoint }
    }

    /// What became of a frame: passed or not, and why. The kernel itself refuses to run one shorter than its IP header.
    fn run(&mut self, frame: &[u8]) -> (bool, Reason) {
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&self.endpoint.0.to_ne_bytes());
        let mut answer = [0_u8; 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut answer);
        let program: &mut SchedClassifier = self.ebpf.program_mut("from_endpoint").unwrap().try_into().unwrap();
        let passed = program.test_run(options).unwrap().return_value == u32::MAX;
        let reason = u32::from_ne_bytes(answer[48..52].try_into().unwrap());
        (passed, Reason::ALL[reason as usize])
    }
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[0; 12], &kind.to_be_bytes()[..], payload].concat()
}

/// A TCP segment from `port` to port 80; only an open connection's port is known, so each case takes its own.
fn tcp(port: u16) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&port.to_be_bytes());
    header[2..4].copy_from_slice(&80_u16.to_be_bytes());
    header[12..14].copy_from_slice(&[0x50, 0x02]);
    header
}

/// `words`: length of the header in 32-bit words; `fragment`: flags and offset.
fn ipv4(version: u8, words: u8, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; usize::from(words.max(5)) * 4];
    header[0] = version << 4 | words;
    let length = u16::try_from(header.len() + payload.len()).unwrap();
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[8..10].copy_from_slice(&[64, protocol]);
    header[12..16].copy_from_slice(&[10, 0, 0, 1]);
    header[16..20].copy_from_slice(&[10, 1, 0, 9]);
    ethernet(IPV4, &[header, payload.to_vec()].concat())
}

fn ipv6(source: &str, hop_limit: u8, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend([next_header, hop_limit]);
    header.extend(source.parse::<std::net::Ipv6Addr>().unwrap().octets());
    header.extend("fd00:1::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    ethernet(IPV6, &[header, payload.to_vec()].concat())
}

/// Extension headers (kind, length in eight bytes after the first eight) before a TCP segment.
fn extended(kinds: &[(u8, u8)], port: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, (_, length)) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).map_or(TCP, |(kind, _)| *kind);
        let mut header = vec![0; (usize::from(*length) + 1) * 8];
        header[0..2].copy_from_slice(&[next, *length]);
        payload.extend(header);
    }
    payload.extend(tcp(port));
    ipv6("fd00::1", 64, kinds[0].0, &payload)
}

/// A message behind a hop-by-hop header, as multicast listener messages come.
fn extended_icmp(kind: u8, hop_limit: u8) -> Vec<u8> {
    let mut payload = vec![58, 0, 5, 2, 0, 0, 0, 0, kind];
    payload.resize(32, 0);
    ipv6("fd00::1", hop_limit, 0, &payload)
}

/// Behind an authentication header, whose length counts in units of four bytes, less two.
fn authenticated(port: u16) -> Vec<u8> {
    let mut payload = vec![TCP, 4];
    payload.resize(24, 0);
    payload.extend(tcp(port));
    ipv6("fd00::1", 64, 51, &payload)
}

fn fragment(offset_and_more: u16, port: u16) -> Vec<u8> {
    let mut payload = vec![TCP, 0];
    payload.extend(offset_and_more.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(tcp(port));
    ipv6("fd00::1", 64, 44, &payload)
}

#[test]
fn frames_are_read_as_their_standards_say_or_dropped() {
    in_own_namespaces("frames_are_read_as_their_standards_say_or_dropped", || {
        let mut bed = Bed::new();
        let dropped = |reason| (false, reason);
        let (new, broken) = ((true, Reason::New), dropped(Reason::Unparsable));
        let mut neighbour = vec![135, 0, 0, 0];
        neighbour.resize(24, 0);
        let five: [(u8, u8); 5] = [(0, 0), (60, 3), (43, 2), (60, 0), (60, 30)];
        let six: [(u8, u8); 6] = [(0, 0), (60, 0), (43, 2), (60, 0), (60, 0), (60, 0)];
        let echo = [8, 0, 0, 0, 0, 1, 0, 0];
        let cases: Vec<(&str, Vec<u8>, (bool, Reason))> = vec![
            ("IPv4", ipv4(4, 5, 0, TCP, &tcp(1)), new),
            ("IPv4 with one word of options", ipv4(4, 6, 0, TCP, &tcp(2)), new),
            ("IPv4 with the longest options", ipv4(4, 15, 0, TCP, &tcp(3)), new),
            ("IPv4, header too short", ipv4(4, 4, 0, TCP, &tcp(4)), broken),
            ("IPv4, wrong version", ipv4(6, 5, 0, TCP, &tcp(5)), broken),
            ("IPv4, don't fragment", ipv4(4, 5, 0x4000, TCP, &tcp(6)), new),
            ("IPv4, first fragment", ipv4(4, 5, 0x2000, TCP, &tcp(7)), new),
            ("IPv4, later fragment", ipv4(4, 5, 0x2001, TCP, &tcp(8)), dropped(Reason::Fragment)),
            ("IPv4, last fragment of nothing known", ipv4(4, 5, 0x0010, UDP, &tcp(8)), dropped(Reason::Fragment)),
            ("IPv4, TCP cut off before its flags", ipv4(4, 5, 0, TCP, &tcp(9)[..13]), broken),
            ("IPv4, UDP cut off", ipv4(4, 5, 0, 17, &[0; 3]), broken),
            ("IPv4, nothing after the header", ipv4(4, 5, 0, TCP, &[]), broken),
            ("IPv4, ICMPv6 inside", ipv4(4, 5, 0, 58, &neighbour), dropped(Reason::DenyDefault)),
            ("IPv4, echo", ipv4(4, 5, 0, 1, &echo), dropped(Reason::DenyDefault)),
            ("IPv4, a protocol without ports", ipv4(4, 5, 0, 47, &[]), dropped(Reason::DenyDefault)),
            ("IPv6", ipv6("fd00::1", 64, TCP, &tcp(1)), new),
            ("IPv6, TCP cut off", ipv6("fd00::1", 64, TCP, &tcp(2)[..13]), broken),
            ("IPv6, hop-by-hop options", extended(&[(0, 0)], 3), new),
            ("IPv6, five extension headers", extended(&five, 4), new),
            ("IPv6, six extension headers", extended(&six, 5), broken),
            ("IPv6, extension header cut off", ipv6("fd00::1", 64, 0, &[TCP, 0]), broken),
            ("IPv6, extension header past the end", ipv6("fd00::1", 64, 0, &[TCP, 255, 0, 0, 0, 0, 0, 0]), broken),
            ("IPv6, whole packet with a fragment header", fragment(0, 6), new),
            ("IPv6, first fragment", fragment(1, 7), new),
            ("IPv6, later fragment", fragment(8, 8), dropped(Reason::Fragment)),
            ("IPv6, neighbour solicitation", ipv6("fe80::1", 255, 58, &neighbour), (true, Reason::NeighbourDiscovery)),
            ("IPv6, forwarded solicitation", ipv6("fe80::1", 254, 58, &neighbour), dropped(Reason::Spoofed)),
            ("IPv6, listener report", extended_icmp(143, 1), (true, Reason::NeighbourDiscovery)),
            ("IPv6, forwarded listener report", extended_icmp(143, 64), dropped(Reason::DenyDefault)),
            ("IPv6, authentication header", authenticated(10), new),
            ("IPv6 with an IPv4-mapped source", ipv6("::ffff:10.0.0.1", 64, TCP, &tcp(9)), broken),
            ("ARP", ethernet(0x0806, &[0; 28]), (true, Reason::NeighbourDiscovery)),
            ("VLAN", ethernet(0x8100, &[0; 60]), broken),
            ("LLDP", ethernet(0x88cc, &[0; 60]), broken),
            ("IEEE 802.3 length", ethernet(0x0040, &[0; 64]), broken),
        ];
        for (what, frame, expected) in cases {
            assert_eq!(bed.run(&frame), expected, "{what}");
        }
    });
}

/// A fragment of a datagram; `payload` is what is at its offset (in units of eight bytes).
fn fragment4(identification: u16, offset: u16, more: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ipv4(4, 5, offset | if more { 0x2000 } else { 0 }, protocol, payload);
    frame[18..20].copy_from_slice(&identification.to_be_bytes());
    frame
}

fn fragment6(identification: u32, offset: u16, more: bool, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next_header, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend(identification.to_be_bytes());
    header.extend(payload);
    ipv6("fd00::1", 64, 44, &header)
}

#[test]
fn later_fragments_share_the_fate_of_their_first_one() {
    in_own_namespaces("later_fragments_share_the_fate_of_their_first_one", || {
        let mut bed = Bed::new();
        let (new, known, lost) = ((true, Reason::New), (true, Reason::Established), (false, Reason::Fragment));
        let denied = (false, Reason::DenyDefault);
        let mut to_81 = tcp(30);
        to_81[2..4].copy_from_slice(&81_u16.to_be_bytes());
        // Behind the fragment header may be another one: the first fragment alone knows the protocol.
        let behind_options = [vec![TCP, 0, 0, 0, 0, 0, 0, 0], tcp(31)].concat();
        let cases: Vec<(&str, Vec<u8>, (bool, Reason))> = vec![
            ("IPv4, later before first", fragment4(1, 3, true, TCP, &[0; 16]), lost),
            ("IPv4, first", fragment4(1, 0, true, TCP, &tcp(20)), new),
            ("IPv4, middle", fragment4(1, 3, true, TCP, &[0; 16]), known),
            ("IPv4, last", fragment4(1, 5, false, TCP, &[0; 3]), known),
            ("IPv4, of another datagram", fragment4(2, 3, true, TCP, &[0; 16]), lost),
            ("IPv4, of another protocol", fragment4(1, 3, true, UDP, &[0; 16]), lost),
            ("IPv4, over the first one's flags (RFC 3128)", fragment4(1, 1, true, TCP, &[0; 16]), lost),
            ("IPv4, first to a port that is denied", fragment4(3, 0, true, TCP, &to_81), denied),
            ("IPv4, after one that was denied", fragment4(3, 3, false, TCP, &[0; 16]), lost),
            (
                "IPv4, first that is too short for its flags",
                fragment4(4, 0, true, TCP, &tcp(21)[..8]),
                (false, Reason::Unparsable),
            ),
            ("IPv6, later before first", fragment6(1, 3, true, TCP, &[0; 16]), lost),
            ("IPv6, first", fragment6(1, 0, true, TCP, &tcp(20)), new),
            ("IPv6, last", fragment6(1, 3, false, TCP, &[0; 16]), known),
            ("IPv6, of another datagram", fragment6(2, 3, false, TCP, &[0; 16]), lost),
            ("IPv6, first with options behind", fragment6(3, 0, true, 60, &behind_options), new),
            ("IPv6, after it", fragment6(3, 4, false, 60, &[0; 16]), known),
        ];
        for (what, frame, expected) in cases {
            assert_eq!(bed.run(&frame), expected, "{what}");
        }
    });
}

#[test]
fn ports_of_a_datagram_whose_element_went_to_another_one_are_not_believed() {
    in_own_namespaces("ports_of_a_datagram_whose_element_went_to_another_one_are_not_believed", || {
        let mut bed = Bed::new();
        assert_eq!(bed.run(&fragment4(1, 0, true, TCP, &tcp(20))), (true, Reason::New));
        let later = fragment4(1, 3, true, TCP, &[0; 16]);
        assert_eq!(bed.run(&later), (true, Reason::Established));
        let pinned = |name: &str| MapData::from_pin(Path::new(BPFFS).join("parser/v4").join(name)).unwrap();
        let elements = Map::LruHashMap(pinned("FRAGMENTS"));
        let mut elements: HashMap<_, [u64; 5], [u64; 7]> = HashMap::try_from(elements).unwrap();
        let key = elements.keys().next().unwrap().unwrap();
        let mut value = elements.get(&key, 0).unwrap();
        assert_eq!(value[..5], key, "the value repeats its key");
        // As if the kernel had given the element to another datagram, of which it has copied the key only.
        value[4] ^= 2;
        elements.insert(key, value, 0).unwrap();
        assert_eq!(bed.run(&later), (false, Reason::Fragment));
        let tallies: PerCpuArray<_, u64> = PerCpuArray::try_from(Map::PerCpuArray(pinned("TALLIES"))).unwrap();
        assert_eq!(tallies.get(&(Tally::Reused as u32), 0).unwrap().iter().sum::<u64>(), 1);
    });
}

/// An ICMP error from a router about a packet from port 80 of the remote one to `port` of the endpoint, or as `change`
/// has it. The endpoint sends it: it says that it could not take the packet.
fn error4(kind: u8, port: u16, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut segment = tcp(80);
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    let mut about = ipv4(4, 5, 0, TCP, &segment)[14..].to_vec();
    let (source, destination) = about[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    change(&mut about);
    ipv4(4, 5, 0, 1, &[&[kind, 0, 0, 0, 0, 0, 0, 0], &about[..28]].concat())
}

fn error6(kind: u8, port: u16) -> Vec<u8> {
    let mut segment = tcp(80);
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    let mut about = ipv6("fd00::1", 64, TCP, &segment)[14..].to_vec();
    let (source, destination) = about[8..40].split_at_mut(16);
    source.swap_with_slice(destination);
    ipv6("fd00::1", 64, 58, &[&[kind, 0, 0, 0, 0, 0, 0, 0], &about[..]].concat())
}

#[test]
fn an_icmp_error_is_about_the_packet_inside() {
    in_own_namespaces("an_icmp_error_is_about_the_packet_inside", || {
        let mut bed = Bed::new();
        assert_eq!(bed.run(&ipv4(4, 5, 0, TCP, &tcp(40))), (true, Reason::New));
        assert_eq!(bed.run(&ipv6("fd00::1", 64, TCP, &tcp(40))), (true, Reason::New));
        let (related, unrelated) = ((true, Reason::Related), (false, Reason::Unrelated));
        let (denied, broken) = ((false, Reason::DenyDefault), (false, Reason::Unparsable));
        let same = |_: &mut [u8]| {};
        let mut in_options = error4(3, 40, same);
        in_options.truncate(14 + 20 + 8 + 10);
        // The packet inside is as it should be, and of a known connection; one address outside is not.
        let outside = |mut frame: Vec<u8>, at: usize| {
            frame[at] ^= 0x40;
            frame
        };
        let cases: Vec<(&str, Vec<u8>, (bool, Reason))> = vec![
            ("destination unreachable", error4(3, 40, same), related),
            ("from somebody else than the packet's receiver", outside(error4(3, 40, same), 14 + 15), unrelated),
            ("to somebody else, of a known connection", outside(error4(3, 40, same), 14 + 19), unrelated),
            ("IPv6, from somebody else than the packet's receiver", outside(error6(2, 40), 14 + 23), unrelated),
            ("IPv6, to somebody else, of a known connection", outside(error6(2, 40), 14 + 39), unrelated),
            ("time exceeded", error4(11, 40, same), related),
            ("parameter problem", error4(12, 40, same), related),
            ("source quench is judged by its type", error4(4, 40, same), denied),
            ("redirect is judged by its type", error4(5, 40, same), denied),
            ("of an unknown connection", error4(3, 41, same), unrelated),
            ("about a packet to somebody else", error4(3, 40, |about| about[19] = 9), unrelated),
            ("to somebody else than the packet's sender", error4(3, 40, |about| about[15] = 77), unrelated),
            ("about a later fragment", error4(3, 40, |about| about[7] = 1), unrelated),
            ("about another error", error4(3, 40, |about| (about[9], about[20]) = (1, 3)), unrelated),
            ("about no IPv4", error4(3, 40, |about| about[0] = 0x65), broken),
            ("with half a packet inside", in_options, broken),
            ("IPv6, destination unreachable", error6(1, 40), related),
            ("IPv6, packet too big", error6(2, 40), related),
            ("IPv6, time exceeded", error6(3, 40), related),
            ("IPv6, parameter problem", error6(4, 40), related),
            ("IPv6, of an unknown connection", error6(2, 41), unrelated),
            ("IPv6, a type that is no error", error6(5, 40), denied),
        ];
        for (what, frame, expected) in cases {
            assert_eq!(bed.run(&frame), expected, "{what}");
        }
    });
}
