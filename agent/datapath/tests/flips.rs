//! Real packets between two endpoints of one node while revisions flip, and while the process that flips is killed.
//!
//! ```text
//! netns a ── ep0 ─┐ this network namespace ┌─ ep1 ── netns b
//!   client        └──── forwards packets ──┘         server
//! ```
//!
//! The same is asked of an upgrade from layout v3. And a control: somebody who writes the maps that packets read, one
//! after the other, is caught by the same client and server.
//!
//! The client's connection to port 7 is allowed by both revisions, that to port 9 by neither; but every mixture of their
//! tables treats one of the two wrongly. So one lost answer, or one packet at port 9, shows a broken promise (S1, S2).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/cells.rs"]
mod cells;
#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/revisions.rs"]
mod revisions;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, NlOptions, TcAttachOptions, TcHandle},
    },
};
use cells::Cells;
use namespaces::{BPFFS, in_own_namespaces, ip};
use revisions::{ADDRESSES, ALLOWED, FORBIDDEN, explicit, tables};
use ringfence_datapath::{
    Capacity, Datapath, KernelDatapath, KernelOptions, PacketCounters, Reason, kernel::pin_directory,
};
use ringfence_policy::{
    flow::Direction,
    name::Name,
    revision::Revision,
    tables::{EndpointId, Tables},
};

const FLIPS: &str = "s1_s8_packets_meet_one_whole_revision_while_revisions_flip_and_processes_die";
const NAIVE: &str = "control_packets_meet_mixtures_while_somebody_writes_the_maps_they_read";
const FLOOD: &str = "s1_s2_a_flood_between_namespaces_meets_whole_revisions_only";
const UNPINNED: &str = "s8_control_programs_without_pins_end_with_their_process";
const SPOOFED: &str = "a_sender_with_a_foreign_address_is_dropped_at_its_veth_and_counted";
const FIRST: &str = "s9_the_first_packets_of_an_endpoint_are_refused_until_it_is_realised";
const UPGRADE: &str = "s8_an_upgrade_from_layout_v3_changes_no_verdict";
const FLIPS_WITH_CLSACT: &str = "s1_s8_packets_meet_one_whole_revision_while_processes_die_with_clsact";
const UPGRADE_WITH_CLSACT: &str = "s8_an_upgrade_from_layout_v3_changes_no_verdict_with_clsact";
/// The same as on a kernel without TCX.
const WITH_CLSACT: &str = "_with_clsact";
/// Programs of layout v3, as they were released.
static LAYOUT_V3: &[u8] = aya::include_bytes_aligned!("fixtures/ringfence-v3.o");
/// What a child process of the test is to do.
const ROLE: &str = "RINGFENCE_TEST_ROLE";
const SOCKETS: usize = 16;
const KNOCKS: u64 = 20;
/// As `ADDRESSES`, but the first ones belong to nobody.
const FOREIGN: [(&str, &str); 2] = [("10.0.0.77", "10.0.1.2"), ("fd00:0:0:a::77", "fd00:0:0:b::2")];
const FLOOD_TIME: Duration = Duration::from_secs(8);
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));
const KILLS: usize = 4;

#[test]
fn s1_s8_packets_meet_one_whole_revision_while_revisions_flip_and_processes_die() {
    play(FLIPS, || run(FLIPS));
}

#[test]
fn s1_s8_packets_meet_one_whole_revision_while_processes_die_with_clsact() {
    play(FLIPS_WITH_CLSACT, || run(FLIPS_WITH_CLSACT));
}

#[test]
fn control_packets_meet_mixtures_while_somebody_writes_the_maps_they_read() {
    play(NAIVE, run_naive);
}

#[test]
fn s8_an_upgrade_from_layout_v3_changes_no_verdict() {
    play(UPGRADE, || run_upgrade(UPGRADE));
}

#[test]
fn s1_s2_a_flood_between_namespaces_meets_whole_revisions_only() {
    play(FLOOD, run_flood);
}

#[test]
fn s8_control_programs_without_pins_end_with_their_process() {
    play(UNPINNED, run_unpinned);
}

#[test]
fn a_sender_with_a_foreign_address_is_dropped_at_its_veth_and_counted() {
    play(SPOOFED, run_spoofed);
}

#[test]
fn s9_the_first_packets_of_an_endpoint_are_refused_until_it_is_realised() {
    play(FIRST, run_first);
}

#[test]
fn s8_an_upgrade_from_layout_v3_changes_no_verdict_with_clsact() {
    play(UPGRADE_WITH_CLSACT, || run_upgrade(UPGRADE_WITH_CLSACT));
}

/// Whether the test, and what it runs, may use TCX: its name says so.
fn tcx() -> bool {
    !std::env::args().any(|argument| argument.ends_with(WITH_CLSACT))
}

fn play(test: &str, run: impl FnOnce()) {
    match std::env::var(ROLE).as_deref() {
        Ok("client") => client(),
        Ok("server") => server(),
        Ok("flipper") => flipper(),
        Ok("naive") => naive(),
        Ok("flooder") => flooder(),
        Ok("unpinned") => unpinned(),
        Ok("asks") => knock(ADDRESSES, true),
        Ok("knocks") => knock(ADDRESSES, false),
        Ok("spoofs") => knock(FOREIGN, false),
        _ => in_own_namespaces(test, run),
    }
}

fn run(test: &str) {
    build_network();
    await_addresses();
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    datapath.apply(Revision(1), &Tables::default().diff(&tables(endpoints, 0))).unwrap();
    // Until here the kernel's own multicast reports were rightly refused; from here on no packet may be.
    let refused = |packets: PacketCounters| packets.get(Reason::NotRealised) + packets.get(Reason::Internal);
    let refused_before = refused(datapath.observe().unwrap().packets);
    drop(datapath);
    let mut server = spawn(test, "server", Some("b"));
    expect_line(&mut server, "ready");
    let mut client = spawn(test, "client", Some("a"));
    expect_line(&mut client, "ready");
    for _ in 0..KILLS {
        let mut flipper = spawn(test, "flipper", None);
        for _ in 0..8 {
            expect_line(&mut flipper, "flipped 2000");
        }
        // At whatever it is doing just now.
        flipper.kill().unwrap();
        flipper.wait().unwrap();
        let mut datapath = open();
        let observed = datapath.observe().unwrap();
        assert!((0..2).any(|which| observed.tables == tables(endpoints, which)), "half a revision: {observed:?}");
        let here = observed.revision.next();
        datapath.apply(here, &observed.tables.diff(&tables(endpoints, 0))).unwrap();
    }
    let sent = finish(client);
    let received = finish(server);
    println!("{KILLS} kills; client: {sent}; server: {received}; refused before the first revision: {refused_before}");
    assert_eq!(number(&sent, "lost"), 0, "both revisions allow port {ALLOWED}: {sent}");
    assert_eq!(number(&received, "forbidden"), 0, "both revisions forbid port {FORBIDDEN}: {received}");
    assert!(number(&sent, "answered") > 10_000, "too few packets to prove anything: {sent}");
    let packets = open().observe().unwrap().packets;
    assert!(packets.get(Reason::DenyDefault) >= number(&sent, "forbidden"), "they were sent, and refused: {packets:?}");
    assert_eq!(refused(packets), refused_before, "{packets:?}");
}

/// A figure in what a client or a server reports.
fn number(text: &str, name: &str) -> u64 {
    text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap().parse().unwrap()
}

fn run_naive() {
    build_network();
    await_addresses();
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    // The rows of both revisions: only addresses and endpoints change.
    let (mut both, other) = (tables(endpoints, 0), tables(endpoints, 1));
    both.rows.extend(other.rows);
    both.ports.extend(other.ports);
    datapath.apply(Revision(1), &Tables::default().diff(&both)).unwrap();
    let mut server = spawn(NAIVE, "server", Some("b"));
    expect_line(&mut server, "ready");
    let mut client = spawn(NAIVE, "client", Some("a"));
    expect_line(&mut client, "ready");
    let mut naive = spawn(NAIVE, "naive", None);
    for _ in 0..20 {
        expect_line(&mut naive, "flipped 2000");
    }
    naive.kill().unwrap();
    naive.wait().unwrap();
    let (sent, received) = (finish(client), finish(server));
    println!("naive; client: {sent}; server: {received}");
    let caught = number(&sent, "lost") + number(&received, "forbidden");
    assert!(caught > 0, "this test cannot see a mixture of revisions: {sent}; {received}");
}

/// Writes addresses and then endpoints of the set that packets read, one by one.
fn naive() {
    fn pinned(name: &str) -> MapData {
        let directory = pin_directory(Path::new(BPFFS), &Name::new("node").unwrap());
        MapData::from_pin(directory.join("v4").join(name)).unwrap()
    }
    let endpoints = ["ep0", "ep1"].map(interface);
    let mut active: Array<_, u32> = Array::try_from(Map::Array(pinned("ACTIVE"))).unwrap();
    let parity = active.get(&0, 0).unwrap() & 1;
    let hash = |name: &str| Map::HashMap(pinned(&format!("{name}_{parity}")));
    let directory = pin_directory(Path::new(BPFFS), &Name::new("node").unwrap());
    let mut addresses = Cells::open(&directory.join(format!("v4/ADDRESSES_{parity}")));
    let mut entries: HashMap<_, u32, [u32; 4]> = HashMap::try_from(hash("ENDPOINTS")).unwrap();
    println!();
    loop {
        for flip in 0..2000 {
            let tables = tables(endpoints, flip % 2);
            for (address, entry) in &tables.addresses {
                addresses.set_address(*address, entry.identity.bits(), entry.endpoint.unwrap().0);
            }
            for (endpoint, entry) in &tables.endpoints {
                entries.insert(endpoint.0, [entry.identity.bits(), entry.policy.0, 0, 0], 0).unwrap();
            }
            // Connections are judged again, by the same set.
            let generation = active.get(&0, 0).unwrap();
            active.set(0, generation.wrapping_add(2), 0).unwrap();
        }
        println!("flipped 2000");
    }
}

/// Datagrams one after the other, as fast as they go, while revisions flip. What both revisions refuse, they refuse by a
/// rule: what is refused because nothing allows it, and what comes to the forbidden port, met a mixture.
fn run_flood() {
    const TOO_FEW: u64 = 100_000;
    build_network();
    await_addresses();
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    let both = [explicit(endpoints, 0), explicit(endpoints, 1)];
    datapath.apply(Revision(1), &Tables::default().diff(&both[0])).unwrap();
    let mut server = spawn(FLOOD, "server", Some("b"));
    expect_line(&mut server, "ready");
    let mut client = spawn(FLOOD, "flooder", Some("a"));
    expect_line(&mut client, "ready");
    let before = datapath.counters().unwrap().0;
    let diffs = [both[0].diff(&both[1]), both[1].diff(&both[0])];
    let (started, mut flips) = (Instant::now(), 0);
    while started.elapsed() < FLOOD_TIME {
        flips += 1;
        datapath.apply(Revision(1 + flips), &diffs[usize::from(flips % 2 == 0)]).unwrap();
    }
    let sent = finish(client);
    let received = finish(server);
    let packets = datapath.counters().unwrap().0;
    let refused = |reason| packets.get(reason) - before.get(reason);
    let all: u64 = packets.iter().map(|(reason, count)| count - before.get(reason)).sum();
    println!("flood of {all} packets, {flips} flips; client: {sent}; server: {received}");
    for mixed in [Reason::DenyDefault, Reason::NotRealised, Reason::Spoofed, Reason::Internal] {
        assert_eq!(refused(mixed), 0, "{mixed:?}: {packets:?}");
    }
    assert_eq!(number(&received, "forbidden"), 0, "{received}");
    assert!(refused(Reason::DenyExplicit) <= number(&sent, "forbidden"), "{packets:?}");
    assert!(refused(Reason::DenyExplicit) > TOO_FEW && number(&received, "allowed") > 1000, "{packets:?} {received}");
    assert!(flips > 1000, "too few flips to prove anything: {flips}");
}

/// Knocks at port 9 as fast as it goes, and now and then sends something to port 7.
fn flooder() {
    let end = told_to_end();
    println!("\nready");
    let families = ADDRESSES.map(|(local, remote)| {
        let end = Arc::clone(&end);
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        thread::spawn(move || {
            let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| UdpSocket::bind((local, 0)).unwrap()).collect();
            let mut sent = (0_u64, 0_u64);
            while !end.load(Ordering::Relaxed) {
                for (socket, port) in sockets.iter().flat_map(|socket| [(socket, ALLOWED), (socket, FORBIDDEN)]) {
                    let times = if port == ALLOWED { 1 } else { 15 };
                    for _ in 0..times {
                        // A full queue is no failure: what is not sent is not counted.
                        if socket.send_to(b"?", SocketAddr::new(remote, port)).is_ok() {
                            let count = if port == ALLOWED { &mut sent.0 } else { &mut sent.1 };
                            *count += 1;
                        }
                    }
                }
            }
            sent
        })
    });
    let results = families.map(|family| family.join().unwrap());
    println!("result: allowed={} forbidden={}", results[0].0 + results[1].0, results[0].1 + results[1].1);
}

/// S8 needs the pins: without them a killed process leaves a node that refuses nothing.
fn run_unpinned() {
    build_network();
    await_addresses();
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    datapath.apply(Revision(1), &Tables::default().diff(&tables(endpoints, 0))).unwrap();
    let mut unpinned = spawn(UNPINNED, "unpinned", None);
    expect_line(&mut unpinned, "attached");
    for name in ["a", "b"] {
        datapath.detach(&Name::new(name).unwrap()).unwrap();
    }
    let mut server = spawn(UNPINNED, "server", Some("b"));
    expect_line(&mut server, "ready");
    let mut client = spawn(UNPINNED, "client", Some("a"));
    expect_line(&mut client, "ready");
    client_makes_progress();
    let refused = |datapath: &KernelDatapath| datapath.counters().unwrap().0.get(Reason::DenyDefault);
    assert!(refused(&datapath) > 0, "while the process lives, its programs refuse");
    unpinned.kill().unwrap();
    unpinned.wait().unwrap();
    let then = refused(&datapath);
    client_makes_progress();
    assert_eq!(refused(&datapath), then, "nobody judges any more");
    let (sent, received) = (finish(client), finish(server));
    assert!(number(&received, "forbidden") > 0, "{sent}; {received}");
}

/// The same programs on the same maps, with links that nothing but this process holds.
fn unpinned() {
    let pins = pin_directory(Path::new(BPFFS), &Name::new("node").unwrap()).join("v4");
    let mut ebpf = EbpfLoader::new().default_map_pin_directory(pins).load(OBJECT).unwrap();
    for (hook, place) in [("from_endpoint", TcAttachType::Ingress), ("to_endpoint", TcAttachType::Egress)] {
        let program: &mut SchedClassifier = ebpf.program_mut(hook).unwrap().try_into().unwrap();
        program.load().unwrap();
        for device in ["ep0", "ep1"] {
            let options = TcAttachOptions::TcxOrder(LinkOrder::last());
            program.attach_with_options(device, place, options).unwrap();
        }
    }
    println!("\nattached");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Some datagrams to the allowed port, over both families; `answered`: each one is.
fn knock(addresses: [(&str, &str); 2], answered: bool) {
    let (mut sent, mut answers) = (0, 0);
    for (local, remote) in addresses {
        let socket = UdpSocket::bind((local.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..KNOCKS {
            socket.send_to(b"?", SocketAddr::new(remote.parse().unwrap(), ALLOWED)).unwrap();
            sent += 1;
            answers += u64::from(answered && socket.recv_from(&mut [0; 16]).is_ok());
        }
    }
    println!("\nresult: sent={sent} answers={answers}");
}

fn run_spoofed() {
    build_network();
    // Addresses that its neighbour would believe, but that are not the endpoint's.
    for (address, bits) in [(FOREIGN[0].0, 24), (FOREIGN[1].0, 64)] {
        let nodad = if bits == 64 { " nodad" } else { "" };
        ip(&format!("-n a addr add {address}/{bits} dev eth0{nodad}"));
    }
    await_addresses();
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    datapath.apply(Revision(1), &Tables::default().diff(&tables(endpoints, 0))).unwrap();
    let mut server = spawn(SPOOFED, "server", Some("b"));
    expect_line(&mut server, "ready");
    let spoofed = || datapath.counters().unwrap().0.get(Reason::Spoofed);
    let before = spoofed();
    let sent = finish(spawn(SPOOFED, "spoofs", Some("a")));
    assert_eq!(spoofed() - before, number(&sent, "sent"), "each one is dropped, and counted");
    let sent = finish(spawn(SPOOFED, "asks", Some("a")));
    let received = finish(server);
    // Control: the same packets pass with the endpoint's own address, and only those.
    assert_eq!(number(&sent, "answers"), 2 * KNOCKS, "{sent}");
    assert_eq!(number(&received, "allowed"), 2 * KNOCKS, "{received}");
}

fn run_first() {
    build_network();
    await_addresses();
    let mut server = spawn(FIRST, "server", Some("b"));
    expect_line(&mut server, "ready");
    let sent = finish(spawn(FIRST, "asks", Some("a")));
    assert_eq!(number(&sent, "answers"), 2 * KNOCKS, "control: without programs everything passes: {sent}");
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    let unrealised = || datapath.counters().unwrap().0.get(Reason::NotRealised);
    let before = unrealised();
    let refused = finish(spawn(FIRST, "knocks", Some("a")));
    // The node's own multicast may be refused, too.
    assert!(unrealised() - before >= number(&refused, "sent"), "{refused}");
    datapath.apply(Revision(1), &Tables::default().diff(&tables(endpoints, 0))).unwrap();
    let sent = finish(spawn(FIRST, "asks", Some("a")));
    assert_eq!(number(&sent, "answers"), 2 * KNOCKS, "{sent}");
    let received = finish(server);
    assert_eq!(number(&received, "allowed"), 4 * KNOCKS, "none while the endpoint was not realised: {received}");
}

fn run_upgrade(test: &str) {
    build_network();
    await_addresses();
    let directory = pin_directory(Path::new(BPFFS), &Name::new("node").unwrap());
    let endpoints = install_layout_v3(&directory.join("v3"));
    let mut server = spawn(test, "server", Some("b"));
    expect_line(&mut server, "ready");
    let mut client = spawn(test, "client", Some("a"));
    expect_line(&mut client, "ready");
    client_makes_progress();
    let mut datapath = open();
    assert_eq!(attach(&mut datapath), endpoints, "they are known, and their old programs stay");
    assert!(is_pinned(&directory.join("v3/links/a/from_endpoint")));
    drop(datapath);
    // A second process finds the same: an upgrade may be interrupted.
    let mut datapath = open();
    assert_eq!(datapath.attached().len(), 2);
    client_makes_progress();
    datapath.apply(Revision(6), &Tables::default().diff(&tables(endpoints, 0))).unwrap();
    assert!(!directory.join("v3").exists());
    for pin in ["a/from_endpoint", "a/to_endpoint", "b/from_endpoint", "b/to_endpoint"] {
        assert!(is_pinned(&directory.join("v4/links").join(pin)), "{pin}");
    }
    let packets = datapath.observe().unwrap().packets;
    client_makes_progress();
    let now = datapath.observe().unwrap().packets;
    assert!(now.get(Reason::Established) > packets.get(Reason::Established), "the new programs judge");
    assert!(now.get(Reason::Reevaluated) > 0, "connections of the older layout are known: {now:?}");
    drop(datapath);
    assert_eq!(open().attached().into_values().collect::<Vec<_>>(), endpoints);
    let (sent, received) = (finish(client), finish(server));
    println!("upgrade; client: {sent}; server: {received}");
    assert_eq!(number(&sent, "lost"), 0, "{sent}");
    assert_eq!(number(&received, "forbidden"), 0, "{received}");
    assert!(number(&sent, "answered") > 100, "too few packets to prove anything: {sent}");
}

/// A filter's record is a symbolic link that leads nowhere.
fn is_pinned(pin: &Path) -> bool {
    pin.symlink_metadata().is_ok()
}

/// Returns once some packets have come through.
fn client_makes_progress() {
    // After the name: bytes, packets, …
    let received = || -> u64 {
        let text = fs::read_to_string("/proc/net/dev").unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("ep0:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (before, deadline) = (received(), Instant::now() + Duration::from_secs(30));
    while received() < before + 500 {
        assert!(Instant::now() < deadline, "the client stands still");
        thread::yield_now();
    }
}

/// The index of a device in this network namespace.
fn interface(device: &str) -> EndpointId {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", device]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    EndpointId(text.split(':').next().unwrap().parse().unwrap())
}

/// What an agent of the last version leaves behind at revision 5: see `tables(_, 0)`.
fn install_layout_v3(directory: &Path) -> [EndpointId; 2] {
    fs::create_dir_all(directory).unwrap();
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(directory);
    for map in ["ADDRESSES_0", "ADDRESSES_1", "ROWS_0", "ROWS_1", "FLOWS"] {
        loader.map_max_entries(map, 1024);
    }
    let mut ebpf = loader.load(LAYOUT_V3).unwrap();
    let mut endpoints = [EndpointId(0); 2];
    for (hook, place) in [("from_endpoint", TcAttachType::Ingress), ("to_endpoint", TcAttachType::Egress)] {
        let program: &mut SchedClassifier = ebpf.program_mut(hook).unwrap().try_into().unwrap();
        program.load().unwrap();
        for (name, device, endpoint) in [("a", "ep0", 0), ("b", "ep1", 1)] {
            let pins = directory.join("links").join(name);
            fs::create_dir_all(&pins).unwrap();
            endpoints[endpoint] = interface(device);
            if tcx() {
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                let link = program.attach_with_options(device, place, options).unwrap();
                let link = FdLink::try_from(program.take_link(link).unwrap()).unwrap();
                drop(link.pin(pins.join(hook)).unwrap());
            } else {
                let _ = tc::qdisc_add_clsact(device);
                let options = NlOptions { priority: 1, handle: TcHandle::new(0, 0x7266), classid: None };
                let link = program.attach_with_options(device, place, TcAttachOptions::Netlink(options)).unwrap();
                std::mem::forget(program.take_link(link).unwrap());
                symlink(format!("clsact:{}", endpoints[endpoint]), pins.join(hook)).unwrap();
            }
        }
    }
    fill_layout_v3(&mut ebpf, &tables(endpoints, 0));
    endpoints
}

fn fill_layout_v3(ebpf: &mut Ebpf, tables: &Tables) {
    let mut addresses: HashMap<_, [u8; 16], [u32; 2]> =
        HashMap::try_from(ebpf.take_map("ADDRESSES_0").unwrap()).unwrap();
    for (address, entry) in &tables.addresses {
        let key = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        addresses.insert(key, [entry.identity.bits(), entry.endpoint.unwrap().0], 0).unwrap();
    }
    let mut entries: HashMap<_, u32, [u32; 4]> = HashMap::try_from(ebpf.take_map("ENDPOINTS_0").unwrap()).unwrap();
    for (endpoint, entry) in &tables.endpoints {
        entries.insert(endpoint.0, [entry.identity.bits(), entry.policy.0, 0, 0], 0).unwrap();
    }
    // Page 1 has the bands of ports 0 to 255, for both policies.
    let ports = tables.ports.values().next().unwrap();
    let mut page = [0_u8; 512];
    for port in 0..256_u16 {
        let at = usize::from(port) * 2;
        page[at..at + 2].copy_from_slice(&ports.band(port).to_ne_bytes());
    }
    let mut pages: Array<_, [u8; 512]> = Array::try_from(ebpf.take_map("PAGES").unwrap()).unwrap();
    pages.set(1, page, 0).unwrap();
    let direction = |direction: Direction| u32::from(direction == Direction::Egress);
    let mut directories: HashMap<_, [u32; 2], [u8; 512]> =
        HashMap::try_from(ebpf.take_map("DIRECTORIES_0").unwrap()).unwrap();
    for key in tables.ports.keys() {
        let mut directory = [0_u8; 512];
        directory[0..2].copy_from_slice(&1_u16.to_ne_bytes());
        let key = [key.policy.0, direction(key.direction) | u32::from(key.protocol) << 8];
        directories.insert(key, directory, 0).unwrap();
    }
    let mut rows: HashMap<_, [u32; 3], [u64; 2]> = HashMap::try_from(ebpf.take_map("ROWS_0").unwrap()).unwrap();
    for (key, row) in &tables.rows {
        let rest = u32::from(key.chunk) | direction(key.direction) << 16;
        rows.insert([key.policy.0, key.peer.bits(), rest], [row.low, row.high], 0).unwrap();
    }
    // The key of the hash, and the mask.
    let mut table: Array<_, [u64; 6]> = Array::try_from(ebpf.take_map("FLOW_TABLE").unwrap()).unwrap();
    table.set(0, [2, 3, 5, 7, 11, 1023], 0).unwrap();
    let mut revision: Array<_, u64> = Array::try_from(ebpf.take_map("REVISION").unwrap()).unwrap();
    revision.set(0, 5, 0).unwrap();
}

fn build_network() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(Path::new("/proc/sys/net").join(setting), "1").unwrap();
    }
    for (index, (namespace, (gateway4, gateway6))) in
        [("a", ("10.0.0.254", "fd00:0:0:a::fe")), ("b", ("10.0.1.254", "fd00:0:0:b::fe"))].into_iter().enumerate()
    {
        let addresses = ADDRESSES.map(|(a, b)| if index == 0 { a } else { b });
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add ep{index} type veth peer name eth0 netns {namespace}"));
        ip(&format!("addr add {gateway4}/24 dev ep{index}"));
        ip(&format!("addr add {gateway6}/64 dev ep{index} nodad"));
        ip(&format!("link set ep{index} up"));
        ip(&format!("-n {namespace} addr add {}/24 dev eth0", addresses[0]));
        ip(&format!("-n {namespace} addr add {}/64 dev eth0 nodad", addresses[1]));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} route add default via {gateway4}"));
        ip(&format!("-n {namespace} -6 route add default via {gateway6}"));
    }
}

/// Waits until no IPv6 address is tentative any more (RFC 4862 §5.4): before that, the node cannot ask for its
/// neighbours, and holds the first packets back for up to two seconds.
fn await_addresses() {
    let deadline = Instant::now() + Duration::from_secs(30);
    for namespace in [None, Some("a"), Some("b")] {
        loop {
            let mut command = Command::new("ip");
            command.args(namespace.iter().flat_map(|namespace| ["-n", namespace]));
            let output = command.args(["-6", "-o", "addr", "show", "tentative"]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            if output.stdout.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "tentative: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

fn open() -> KernelDatapath {
    let directory = pin_directory(Path::new(BPFFS), &Name::new("node").unwrap());
    let capacity = Capacity { addresses: 64, ranges: 8, endpoints: 8, ports: 8, rows: 64, flows: 1024 };
    KernelDatapath::open(&KernelOptions { directory, capacity, tcx: tcx() }).unwrap()
}

fn attach(datapath: &mut KernelDatapath) -> [EndpointId; 2] {
    [("a", "ep0"), ("b", "ep1")].map(|(name, device)| datapath.attach(&Name::new(name).unwrap(), device).unwrap())
}

/// Runs this test again as a child with a role.
fn spawn(test: &str, role: &str, namespace: Option<&str>) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args([test, "--exact", "--nocapture"]).env(ROLE, role);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Reads lines until one says `line`.
fn expect_line(child: &mut Child, line: &str) {
    let reader = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    assert!(reader.lines().map(Result::unwrap).any(|read| read.ends_with(line)), "the child ended without {line:?}");
}

/// Tells a child to end; answers what it reports.
fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    output.lines().find_map(|line| line.strip_prefix("result: ")).expect("a result").to_owned()
}

/// True once the parent has closed our input.
fn told_to_end() -> Arc<AtomicBool> {
    let end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&end);
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    end
}

fn flipper() {
    let mut datapath = open();
    let endpoints = attach(&mut datapath);
    let both = [tables(endpoints, 0), tables(endpoints, 1)];
    let diffs = [both[0].diff(&both[1]), both[1].diff(&both[0])];
    let mut revision = datapath.observe().unwrap().revision;
    println!();
    loop {
        for flip in 0..2000 {
            revision = revision.next();
            datapath.apply(revision, &diffs[flip % 2]).unwrap();
        }
        println!("flipped 2000");
    }
}

/// Asks for an answer on port 7 and knocks at port 9, over both families, from several ports.
fn client() {
    let end = told_to_end();
    println!("\nready");
    let families = ADDRESSES.map(|(local, remote)| {
        let end = Arc::clone(&end);
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        thread::spawn(move || {
            let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| UdpSocket::bind((local, 0)).unwrap()).collect();
            for socket in &sockets {
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            }
            let (mut answered, mut lost, mut forbidden) = (0_u64, 0_u64, 0_u64);
            for socket in sockets.iter().cycle() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                socket.send_to(b"?", SocketAddr::new(remote, FORBIDDEN)).unwrap();
                forbidden += 1;
                socket.send_to(b"?", SocketAddr::new(remote, ALLOWED)).unwrap();
                match socket.recv_from(&mut [0; 16]) {
                    Ok(_) => answered += 1,
                    Err(_) => lost += 1,
                }
            }
            (answered, lost, forbidden)
        })
    });
    let results = families.map(|family| family.join().unwrap());
    let sum = results.iter().fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    println!("result: answered={} lost={} forbidden={}", sum.0, sum.1, sum.2);
}

/// Answers on port 7, counts on port 9.
fn server() {
    let end = told_to_end();
    let listen = |address: &str, port: u16| {
        let socket = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket
    };
    let mut threads = Vec::new();
    for (_, address) in ADDRESSES {
        for port in [ALLOWED, FORBIDDEN] {
            let (socket, end) = (listen(address, port), Arc::clone(&end));
            threads.push(thread::spawn(move || {
                let mut received = 0_u64;
                while !end.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                        received += 1;
                        if port == ALLOWED {
                            socket.send_to(b"!", from).unwrap();
                        }
                    }
                }
                (port, received)
            }));
        }
    }
    println!("\nready");
    let counts: Vec<(u16, u64)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let sum = |port: u16| counts.iter().filter(|(of, _)| *of == port).map(|(_, count)| count).sum::<u64>();
    println!("result: allowed={} forbidden={}", sum(ALLOWED), sum(FORBIDDEN));
}
