//! How the programs read frames: the real program on crafted bytes (BPF_PROG_TEST_RUN).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/worlds.rs"]
#[expect(dead_code, reason = "the suite uses the rest")]
mod worlds;

use std::path::Path;

use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, programs::SchedClassifier};
use namespaces::{BPFFS, in_own_namespaces, ip};
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions, Reason};
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
        let options = KernelOptions { directory: directory.clone(), capacity: Capacity { flows: 1024, ..Capacity::default() } };
        let mut datapath = KernelDatapath::open(&options).unwrap();
        let endpoint = datapath.attach(&name("local"), "ep0").unwrap();
        let mut tables = world(endpoint, EndpointId(9999));
        rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
        apply(&mut datapath, &tables);
        let mut ebpf = EbpfLoader::new().default_map_pin_directory(directory.join("v2")).load(OBJECT).unwrap();
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
