//! What the programs cost per packet, and how fast revisions flip.
//!
//! ```text
//! packet_cost [--quick] [--json FILE]
//! ```
//!
//! Packets are run by the kernel (BPF_PROG_TEST_RUN) in a network namespace of the bench's own; figures are medians of
//! rounds in which all programs take turns, minus a program that does nothing (or only makes up the flow).
#![expect(clippy::unwrap_used, reason = "a panic is how a bench fails")]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/memory.rs"]
mod memory;
#[path = "../tests/support/namespaces.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod namespaces;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/scale.rs"]
mod scale;
#[path = "support/uplink.rs"]
mod uplink;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions, programs::SchedClassifier};
use figures::{Figure, Target, cpu_ms, median, print, write_json};
use namespaces::{BPFFS, inside, ip, run_again};
use ringfence_datapath::{Capacity, Datapath, Hook, KernelDatapath, KernelOptions, PacketKind, ProbePacket, Reason};
use ringfence_policy::{
    flow::{Direction, protocol},
    identity::Identity,
    name::Name,
    revision::Revision,
    tables::{
        AddressEntry, Class, EndpointEntry, EndpointId, Interval, PolicyId, PortsKey, PortsOfProtocol, Row, RowKey,
        Tables,
    },
};

const SUBJECT: Identity = Identity::from_bits(0x0010_0001);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Peers are 10.1.0.0 and the addresses after it.
const FIRST_PEER: u32 = 0x0a01_0000;
const ADDRESSES: u32 = 100_000;
/// One row each.
const PEER_IDENTITIES: u32 = 16_384;
const PORTS: u16 = 64;
const FIRST_PORT: u16 = 80;
const POLICY: PolicyId = PolicyId(1);

static RINGFENCE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));
static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !inside() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let success = run_again(&arguments).unwrap_or(true);
        std::process::exit(i32::from(!success));
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().skip_while(|argument| *argument != "--json").nth(1).map(PathBuf::from);
    let figures = measure(quick);
    print(&figures);
    if let Some(path) = json {
        write_json(&path, &figures).unwrap();
    }
}

fn measure(quick: bool) -> Vec<Figure> {
    ip("link add ep0 type veth peer name peer0");
    let directory = Path::new(BPFFS).join("bench");
    let options = KernelOptions { directory: directory.clone(), capacity: Capacity::default(), tcx: true };
    let mut datapath = KernelDatapath::open(&options).unwrap();
    let endpoint = datapath.attach(&Name::new("bench").unwrap(), "ep0").unwrap();
    let tables = tables(endpoint);
    let diff = Tables::default().diff(&tables);
    let started = cpu_ms();
    datapath.apply(Revision(1), &diff).unwrap();
    let fill_ms = cpu_ms() - started;
    let mut figures = packets(&mut datapath, endpoint, &directory.join("v4"), quick);
    figures.push(Figure::new("apply 116k entries to both empty sets, CPU time", fill_ms, "ms", None));
    figures.extend(flips(&mut datapath, &tables, quick));
    figures.push(visible(&mut datapath, &tables, endpoint, &directory.join("v4"), quick));
    figures.extend(events(&mut datapath, endpoint, &directory.join("v4"), quick));
    figures.extend(uplink::measure(&mut datapath, &tables, endpoint, &directory.join("v4")));
    drop(datapath);
    figures.extend(memory::measure(quick));
    figures
}

/// 100,000 addresses of 16,384 identities, and 64 allowed ports to each of them.
fn tables(endpoint: EndpointId) -> Tables {
    let mut tables = Tables::default();
    let peer = |number: u32| Identity::from_bits(0x0020_0001 + number % PEER_IDENTITIES);
    tables.addresses.insert(LOCAL.into(), AddressEntry { identity: SUBJECT, endpoint: Some(endpoint) });
    for number in 0..ADDRESSES {
        let address = IpAddr::V4(Ipv4Addr::from(FIRST_PEER + number));
        tables.addresses.insert(address, AddressEntry { identity: peer(number), endpoint: None });
    }
    let bands = [(0, 0), (FIRST_PORT, 1), (FIRST_PORT + PORTS, 0)].map(|(first, band)| Interval { first, band });
    let ports = PortsKey { policy: POLICY, direction: Direction::Egress, protocol: protocol::TCP };
    tables.ports.insert(ports, PortsOfProtocol::new(bands).unwrap());
    let mut row = Row::default();
    row.set(1, Class::Allow);
    for number in 0..PEER_IDENTITIES {
        tables.rows.insert(RowKey::of(POLICY, Direction::Egress, peer(number), 1), row);
    }
    let entry = EndpointEntry { identity: SUBJECT, policy: POLICY, shadow: None, audit: false };
    tables.endpoints.insert(endpoint, entry);
    tables
}

/// What the figures of packets stand beside: `ebpf/programs/src/bench/peer.rs`.
const PEER: &str = "peer's layout";
/// Programs that need every flow of 64k to be known.
const MANY: [&str; 2] = ["one_of_64k_flows", "peer_one_of_64k_flows"];

/// One program on one packet, again and again.
struct Case {
    program: &'static str,
    destination_port: u16,
    times: Vec<f64>,
}

fn packets(datapath: &mut KernelDatapath, endpoint: EndpointId, pins: &Path, quick: bool) -> Vec<Figure> {
    let (rounds, repeat) = if quick { (3, 20_000) } else { (15, 200_000) };
    let mut objects = [load(RINGFENCE, pins), load(BENCH, pins)];
    let case = |program, destination_port| Case { program, destination_port, times: Vec::new() };
    let denied = FIRST_PORT + PORTS;
    let mut cases = [
        case("empty", FIRST_PORT),
        case("random", FIRST_PORT),
        case("from_endpoint", FIRST_PORT),
        case("one_of_64k_flows", FIRST_PORT),
        case("new_flow", FIRST_PORT),
        case("new_flow_to_few", FIRST_PORT),
        case("new_flow", denied),
        case("from_endpoint", denied),
        case("peer_packet", FIRST_PORT),
        case("peer_one_of_64k_flows", FIRST_PORT),
        case("peer_new_flow", FIRST_PORT),
        case("peer_packet", denied),
    ];
    peer::fill(&mut objects[1]);
    // What is measured is what is meant.
    let packet = packet(FIRST_PORT);
    for (packet, expected) in [
        (packet, Reason::New),
        (ProbePacket { kind: PacketKind::Data, ..packet }, Reason::Established),
        (ProbePacket { destination_port: denied, ..packet }, Reason::DenyDefault),
    ] {
        assert_eq!(datapath.probe(Hook::FromEndpoint, endpoint, &packet).unwrap().reason, expected);
    }
    // Twice through every flow of 64k, so that what is measured is finding them.
    for many in MANY {
        run(&mut objects, many, FIRST_PORT, endpoint, 1_000_000);
    }
    for _ in 0..rounds {
        for case in &mut cases {
            // New flows push all others out: give them their place back.
            let warm_up = if MANY.contains(&case.program) { 600_000 } else { 1000 };
            run(&mut objects, case.program, case.destination_port, endpoint, warm_up);
            case.times.push(run(&mut objects, case.program, case.destination_port, endpoint, repeat));
        }
    }
    let [empty, random, hot, many, new, new_few, new_denied, deny, peer_hot, peer_many, peer_new, peer_deny] =
        cases.map(|mut case| median(&mut case.times));
    let most = |ns| Some(Target::AtMost(ns));
    vec![
        Figure::new("an empty program (baseline)", empty, "ns/packet", None),
        Figure::new("making up a random flow (baseline)", random, "ns/packet", None),
        Figure::new("established flow, hot, above empty", hot - empty, "ns/packet", most(40.0))
            .beside(PEER, peer_hot - empty),
        Figure::new("established flow, one of 64k, above random", many - random, "ns/packet", most(100.0))
            .beside(PEER, peer_many - random),
        Figure::new("new flow, 100k addresses, 16k rows, above random", new - random, "ns/packet", most(250.0))
            .beside(PEER, peer_new - random),
        Figure::new("  the same, 256 peers: one cold line instead of three", new_few - random, "ns/packet", None),
        Figure::new("  the same, denied: no connection is written", new_denied - random, "ns/packet", None),
        Figure::new("denied by default, above empty", deny - empty, "ns/packet", most(200.0))
            .beside(PEER, peer_deny - empty),
    ]
}

fn flips(datapath: &mut KernelDatapath, tables: &Tables, quick: bool) -> Vec<Figure> {
    let flips: u32 = if quick { 2_000 } else { 40_000 };
    let mut other = tables.clone();
    let mut row = Row::default();
    row.set(0, Class::Allow);
    other.rows.insert(RowKey::of(POLICY, Direction::Ingress, Identity::WORLD, 0), row);
    let there = tables.diff(&other);
    let back = there.inverse();
    let mut grace_us = Vec::new();
    let started = Instant::now();
    for flip in 0..flips {
        let diff = if flip % 2 == 0 { &there } else { &back };
        let applied = datapath.apply(Revision(2 + u64::from(flip)), diff).unwrap();
        grace_us.push(applied.grace.as_secs_f64() * 1e6);
    }
    let per_second = f64::from(flips) / started.elapsed().as_secs_f64();
    let middle = median(&mut grace_us);
    let p99 = grace_us[grace_us.len() * 99 / 100];
    let mut hundred = tables.clone();
    for number in 0..100 {
        let address = IpAddr::V4(Ipv4Addr::from(FIRST_PEER + number));
        hundred.addresses.insert(address, AddressEntry { identity: Identity::WORLD, endpoint: None });
    }
    let (diff, mut times) = (tables.diff(&hundred), Vec::new());
    for round in 0..100_u64 {
        let (diff, started) = (if round % 2 == 0 { diff.clone() } else { diff.inverse() }, Instant::now());
        datapath.apply(Revision(1_000_000 + round), &diff).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    vec![
        Figure::new("flips of one entry, one after the other", per_second, "1/s", Some(Target::AtLeast(20_000.0))),
        Figure::new("grace period, median", middle, "us", None),
        Figure::new("grace period, 99th percentile", p99, "us", None),
        Figure::new("apply 100 entries, both sets", median(&mut times), "ms", Some(Target::AtMost(1.0))),
    ]
}

/// How long after a change is asked for the first packet is judged by it: packets are run on another CPU meanwhile.
fn visible(datapath: &mut KernelDatapath, tables: &Tables, endpoint: EndpointId, pins: &Path, quick: bool) -> Figure {
    let mut denies = tables.clone();
    denies.rows.retain(|key, _| key.peer != Identity::from_bits(0x0020_0001));
    let (there, rounds) = (tables.diff(&denies), if quick { 300 } else { 3000 });
    let (end, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let (clock, mut objects) = (Instant::now(), [load(RINGFENCE, pins)]);
    let now = || u64::try_from(clock.elapsed().as_nanos()).unwrap();
    let mut times_us = Vec::new();
    thread::scope(|scope| {
        let (end, judged) = (&end, &judged);
        scope.spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let passes = verdict(&mut objects, FIRST_PORT, endpoint);
                // When, and in the lowest bit what was said.
                judged.store(now() << 1 | u64::from(passes), Ordering::SeqCst);
            }
        });
        for round in 0..rounds {
            let passes = u64::from(round % 2 == 1);
            let diff = if passes == 0 { there.clone() } else { there.inverse() };
            let asked = now();
            datapath.apply(Revision(2_000_000 + round), &diff).unwrap();
            loop {
                let seen = judged.load(Ordering::SeqCst);
                if seen & 1 == passes && seen >> 1 > asked {
                    times_us.push(f64::from(u32::try_from((seen >> 1) - asked).unwrap()) / 1e3);
                    break;
                }
            }
        }
        end.store(true, Ordering::Relaxed);
    });
    Figure::new(
        "from asking for a change to the first packet it judges",
        median(&mut times_us),
        "us",
        Some(Target::AtMost(10.0)),
    )
}

/// Events from a program that writes nothing else to this process, which takes them as the agent does.
fn events(datapath: &mut KernelDatapath, endpoint: EndpointId, pins: &Path, quick: bool) -> [Figure; 2] {
    let mut objects = [load(BENCH, pins)];
    let seconds = if quick { 1.0 } else { 4.0 };
    let end = AtomicBool::new(false);
    let (mut taken, started) = (0_u32, Instant::now());
    datapath.events(&mut |_| ()).unwrap();
    let mut written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut times = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let empty = run(&mut objects, "empty", FIRST_PORT, endpoint, 20_000);
                times.push(run(&mut objects, "event_per_packet", FIRST_PORT, endpoint, 20_000) - empty);
            }
            times
        });
        while started.elapsed().as_secs_f64() < seconds {
            datapath.events(&mut |_| taken += 1).unwrap();
        }
        end.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let rate = f64::from(taken) / started.elapsed().as_secs_f64();
    [
        Figure::new("an event written while another CPU takes them, above empty", median(&mut written), "ns", None),
        Figure::new("events taken", rate, "1/s", Some(Target::AtLeast(2_000_000.0))),
    ]
}

/// Whether a packet passes.
fn verdict(objects: &mut [Ebpf], destination_port: u16, endpoint: EndpointId) -> bool {
    run_once(objects, "from_endpoint", destination_port, endpoint, 1).0 == u32::MAX
}

/// Loads an object's programs onto the datapath's own maps.
fn load(object: &[u8], pins: &Path) -> Ebpf {
    let mut ebpf = EbpfLoader::new().default_map_pin_directory(pins).load(object).unwrap();
    for (_, program) in ebpf.programs_mut() {
        let program: &mut SchedClassifier = program.try_into().unwrap();
        program.load().unwrap();
    }
    ebpf
}

/// Nanoseconds per packet.
fn run(objects: &mut [Ebpf], program: &str, destination_port: u16, endpoint: EndpointId, repeat: u32) -> f64 {
    run_once(objects, program, destination_port, endpoint, repeat).1
}

/// What the program answered, and nanoseconds per packet.
fn run_once(
    objects: &mut [Ebpf],
    program: &str,
    destination_port: u16,
    endpoint: EndpointId,
    repeat: u32,
) -> (u32, f64) {
    let program = objects.iter_mut().find_map(|object| object.program_mut(program)).unwrap();
    let program: &mut SchedClassifier = program.try_into().unwrap();
    let frame = frame(destination_port);
    let mut context = [0_u8; 192];
    // __sk_buff.ifindex
    context[40..44].copy_from_slice(&endpoint.0.to_ne_bytes());
    let mut options = TestRunOptions::new();
    options.data_in = Some(&frame);
    options.ctx_in = Some(&context);
    options.repeat = repeat;
    let result = program.test_run(options).unwrap();
    (result.return_value, f64::from(u32::try_from(result.duration.as_nanos()).unwrap()))
}

fn packet(destination_port: u16) -> ProbePacket {
    ProbePacket {
        source: LOCAL.into(),
        destination: Ipv4Addr::from(FIRST_PEER).into(),
        protocol: protocol::TCP,
        source_port: 40_000,
        destination_port,
        kind: PacketKind::Open,
        judged: false,
    }
}

/// Ethernet, IPv4, TCP with ACK: a packet in the middle of a connection.
fn frame(destination_port: u16) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..18].copy_from_slice(&[0x45, 0, 0, 50]);
    frame[22..24].copy_from_slice(&[64, protocol::TCP]);
    frame[26..30].copy_from_slice(&LOCAL.octets());
    frame[30..34].copy_from_slice(&FIRST_PEER.to_be_bytes());
    frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
    frame[36..38].copy_from_slice(&destination_port.to_be_bytes());
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    frame
}
