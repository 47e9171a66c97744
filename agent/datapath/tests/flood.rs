//! Ten million packets through the programs (BPF_PROG_TEST_RUN on every CPU, both families) while revisions flip. With
//! RINGFENCE_FLOOD_PACKETS any other number, a hundred million for example.
//!
//! Every mixture of the two revisions treats some packet wrongly, and how packets are counted tells which: what both
//! revisions refuse, they refuse by a rule (`deny-explicit`), and nothing of what they allow can ever be refused so. So a
//! packet met a mixture iff it was refused because nothing allows it, or was to be refused and was not. The control, somebody
//! who writes the maps that packets read, is caught by the same flood.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/cells.rs"]
mod cells;
#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/revisions.rs"]
mod revisions;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use aya::{
    EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, HashMap, Map, MapData},
    programs::SchedClassifier,
};
use cells::Cells;
use namespaces::{BPFFS, in_own_namespaces, ip};
use revisions::{ADDRESSES, ALLOWED, FORBIDDEN, explicit};
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions, PacketCounters, Reason};
use ringfence_policy::{
    flow::protocol,
    name::Name,
    revision::Revision,
    tables::{EndpointId, Tables},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));
const PACKETS: u64 = 10_000_000;
/// How often one frame is run by one system call.
const REPEAT: u32 = 2_000;
/// Frames of what is allowed: a connection each, so that many are new.
const CONNECTIONS: u16 = 512;

/// What was sent.
#[derive(Default)]
struct Sent {
    allowed: AtomicU64,
    forbidden: AtomicU64,
    enough: AtomicBool,
}

/// Packets that met neither revision as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Mixed {
    refused_by_nothing: u64,
    let_through: u64,
    other: u64,
}

#[test]
fn s1_s2_ten_million_packets_meet_whole_revisions_only() {
    in_own_namespaces("s1_s2_ten_million_packets_meet_whole_revisions_only", || {
        let wanted = std::env::var("RINGFENCE_FLOOD_PACKETS").map_or(PACKETS, |text| text.parse().unwrap());
        let (mut datapath, endpoints) = bed();
        let both = [explicit(endpoints, 0), explicit(endpoints, 1)];
        let diffs = [both[0].diff(&both[1]), both[1].diff(&both[0])];
        let (started, mut flips) = (Instant::now(), 0_u64);
        let (mixed, sent) = flood(&mut datapath, endpoints[0], wanted, |datapath| {
            flips += 1;
            datapath.apply(Revision(1 + flips), &diffs[usize::from(flips % 2 == 0)]).unwrap();
            true
        });
        println!("{sent} packets in {:?}, {flips} flips: {mixed:?}", started.elapsed());
        assert_eq!(mixed, Mixed { refused_by_nothing: 0, let_through: 0, other: 0 });
        assert!(sent >= wanted && flips > 1000, "too little to prove anything: {sent} packets, {flips} flips");
    });
}

/// The rows of both revisions, so that only addresses and endpoints change between them.
fn apply_rows_of_both(datapath: &mut KernelDatapath, endpoints: [EndpointId; 2]) -> [Tables; 2] {
    let revisions = [explicit(endpoints, 0), explicit(endpoints, 1)];
    let mut both = revisions[0].clone();
    both.rows.extend(revisions[1].rows.clone());
    both.ports.extend(revisions[1].ports.clone());
    datapath.apply(Revision(2), &revisions[0].diff(&both)).unwrap();
    revisions
}

#[test]
fn s1_s2_control_the_flood_sees_maps_that_are_written_while_packets_read_them() {
    in_own_namespaces("s1_s2_control_the_flood_sees_maps_that_are_written_while_packets_read_them", || {
        let (mut datapath, endpoints) = bed();
        let revisions = apply_rows_of_both(&mut datapath, endpoints);
        let mut writer = Careless::open();
        let mut writes = 0_usize;
        let (mixed, sent) = flood(&mut datapath, endpoints[0], PACKETS / 10, |_| {
            writes += 1;
            let generation = writer.active.get(&0, 0).unwrap();
            writer.write(generation, &revisions[writes % 2]);
            // Connections are judged again, by the same set.
            writer.active.set(0, generation.wrapping_add(2), 0).unwrap();
            true
        });
        println!("{sent} packets, {writes} times written in place: {mixed:?}");
        assert!(mixed.refused_by_nothing > 0 && mixed.let_through > 0, "this flood cannot see mixtures: {mixed:?}");
    });
}

#[test]
fn s1_s2_control_the_flood_sees_a_set_that_is_written_before_its_last_packet_has_left() {
    in_own_namespaces("s1_s2_control_the_flood_sees_a_set_that_is_written_before_its_last_packet_has_left", || {
        let (mut datapath, endpoints) = bed();
        let revisions = apply_rows_of_both(&mut datapath, endpoints);
        let mut writer = Careless::open();
        let mut flips = 0_usize;
        let before = datapath.counters().unwrap().0.get(Reason::DenyDefault);
        // As the datapath does, but for the grace period. One packet in a million is caught, so it ends with the first.
        let (mixed, sent) = flood(&mut datapath, endpoints[0], 10 * PACKETS, |datapath| {
            flips += 1;
            let generation = writer.active.get(&0, 0).unwrap();
            writer.write(generation + 1, &revisions[flips % 2]);
            writer.active.set(0, generation.wrapping_add(1), 0).unwrap();
            writer.write(generation, &revisions[flips % 2]);
            !flips.is_multiple_of(100) || datapath.counters().unwrap().0.get(Reason::DenyDefault) == before
        });
        println!("{sent} packets, {flips} flips without a grace period: {mixed:?}");
        assert!(mixed.refused_by_nothing > 0, "this flood cannot see that the grace period is missing: {mixed:?}");
    });
}

fn bed() -> (KernelDatapath, [EndpointId; 2]) {
    let capacity = Capacity { addresses: 64, ranges: 8, endpoints: 8, ports: 8, rows: 64, flows: 65_536 };
    let mut datapath = KernelDatapath::open(&KernelOptions { directory: directory(), capacity, tcx: true }).unwrap();
    let endpoints = [("a", "ep0"), ("b", "ep1")].map(|(name, device)| {
        ip(&format!("link add {device} type veth peer name peer-{device}"));
        datapath.attach(&Name::new(name).unwrap(), device).unwrap()
    });
    datapath.apply(Revision(1), &Tables::default().diff(&explicit(endpoints, 0))).unwrap();
    (datapath, endpoints)
}

fn directory() -> PathBuf {
    Path::new(BPFFS).join("flood")
}

/// Runs packets on all CPUs until there were enough, and `change` again and again meanwhile, as long as it wants to.
fn flood(
    datapath: &mut KernelDatapath,
    endpoint: EndpointId,
    wanted: u64,
    mut change: impl FnMut(&mut KernelDatapath) -> bool,
) -> (Mixed, u64) {
    let sent = Sent::default();
    let before = datapath.counters().unwrap().0;
    thread::scope(|scope| {
        let cpus = thread::available_parallelism().unwrap().get().max(2);
        for number in 0..cpus {
            let sent = &sent;
            scope.spawn(move || send(sent, endpoint, u16::try_from(number).unwrap(), wanted));
        }
        while !sent.enough.load(Ordering::Relaxed) {
            if !change(datapath) {
                sent.enough.store(true, Ordering::Relaxed);
            }
        }
    });
    let after = datapath.counters().unwrap().0;
    let (allowed, forbidden) = (sent.allowed.into_inner(), sent.forbidden.into_inner());
    (mixed(&before, &after, forbidden), allowed + forbidden)
}

fn mixed(before: &PacketCounters, after: &PacketCounters, forbidden: u64) -> Mixed {
    let count = |reason| after.get(reason) - before.get(reason);
    let known = [Reason::New, Reason::Established, Reason::Reevaluated, Reason::DenyExplicit, Reason::DenyDefault];
    Mixed {
        refused_by_nothing: count(Reason::DenyDefault),
        let_through: forbidden - count(Reason::DenyExplicit),
        other: after.iter().map(|(reason, _)| reason).filter(|reason| !known.contains(reason)).map(count).sum(),
    }
}

/// One thread: its own copy of the programs, on the same maps.
fn send(sent: &Sent, endpoint: EndpointId, number: u16, wanted: u64) {
    let mut ebpf = EbpfLoader::new().default_map_pin_directory(directory().join("v4")).load(OBJECT).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("from_endpoint").unwrap().try_into().unwrap();
    program.load().unwrap();
    let mut context = [0_u8; 192];
    // __sk_buff.ifindex
    context[40..44].copy_from_slice(&endpoint.0.to_ne_bytes());
    let run = |frame: &[u8], repeat: u32, count: &AtomicU64| {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        program.test_run(options).unwrap();
        count.fetch_add(repeat.into(), Ordering::Relaxed);
    };
    for round in 0_u16.. {
        for family in ADDRESSES {
            run(&frame(family, 40_000 + number, FORBIDDEN), REPEAT, &sent.forbidden);
            for connection in 0..32 {
                let port = 1000 * (number + 1) + (round.wrapping_mul(32).wrapping_add(connection)) % CONNECTIONS;
                run(&frame(family, port, ALLOWED), 8, &sent.allowed);
            }
        }
        if sent.enough.load(Ordering::Relaxed) {
            return;
        }
        if sent.allowed.load(Ordering::Relaxed) + sent.forbidden.load(Ordering::Relaxed) >= wanted {
            sent.enough.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// Ethernet, IP, UDP, from endpoint a to endpoint b.
fn frame((source, destination): (&str, &str), source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut udp = [source_port.to_be_bytes(), destination_port.to_be_bytes(), 8_u16.to_be_bytes(), [0; 2]].concat();
    udp.resize(26, 0);
    let length = u16::try_from(udp.len()).unwrap();
    let mut frame = vec![0; 12];
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol::UDP, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol::UDP, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => unreachable!("families are not mixed"),
    }
    frame.extend(udp);
    frame
}

/// Somebody who writes addresses and then endpoints of a set, one by one, whoever reads it.
struct Careless {
    addresses: [Cells; 2],
    endpoints: [HashMap<MapData, u32, [u32; 4]>; 2],
    active: Array<MapData, u32>,
}

impl Careless {
    fn open() -> Self {
        let pinned = |name: &str| MapData::from_pin(directory().join("v4").join(name)).unwrap();
        let hash = |name: &str, parity: usize| Map::HashMap(pinned(&format!("{name}_{parity}")));
        Self {
            addresses: [0, 1].map(|parity| Cells::open(&directory().join(format!("v4/ADDRESSES_{parity}")))),
            endpoints: [0, 1].map(|parity| HashMap::try_from(hash("ENDPOINTS", parity)).unwrap()),
            active: Array::try_from(Map::Array(pinned("ACTIVE"))).unwrap(),
        }
    }

    fn write(&mut self, generation: u32, tables: &Tables) {
        let parity = (generation & 1) as usize;
        for (address, entry) in &tables.addresses {
            self.addresses[parity].set_address(*address, entry.identity.bits(), entry.endpoint.unwrap().0);
        }
        for (endpoint, entry) in &tables.endpoints {
            let value = [entry.identity.bits(), entry.policy.0, 0, 0];
            self.endpoints[parity].insert(endpoint.0, value, 0).unwrap();
        }
    }
}
