//! What enforcement costs real traffic between two namespaces of a node, beside no program, and beside nftables.
//!
//! ```text
//! netns a ── ep0 ─┐ this network namespace ┌─ ep1 ── netns b        variants: none, ours, nft chain, nft map
//!   client        └──── forwards packets ──┘         server
//! throughput [--quick] [--json FILE]
//! ```
//!
//! The variants take turns; figures are medians of each round's ratio to no program. Bulk transfers are iperf3's, with
//! packets of 64 kB, and with those that the wire would carry; exchanges are of one byte, on one TCP connection.
#![expect(clippy::unwrap_used, reason = "a panic is how a bench fails")]

#[path = "support/events.rs"]
mod events;
#[path = "support/figures.rs"]
#[expect(dead_code, reason = "the other bench uses the rest")]
mod figures;
#[path = "../tests/support/namespaces.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod namespaces;

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use figures::{Figure, Target, median, print, write_json};
use namespaces::{BPFFS, inside, ip, run_again};
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions, Reason};
use ringfence_policy::{
    flow::Direction,
    identity::Identity,
    name::Name,
    tables::{AddressEntry, Class, EndpointEntry, EndpointId, PolicyId, Row, RowKey, Tables},
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const IPERF_PORT: u16 = 5201;
const ECHO_PORT: u16 = 5300;
/// Nobody reads what it prints.
const SERVE: [&str; 5] = ["-s", "-p", "5201", "--logfile", "/dev/null"];
/// Rules that do not match, before the one that does.
const CHAIN: u32 = 1000;
/// Elements of the verdict map, and rows of our policy.
const ELEMENTS: u32 = 16_384;
const ADDRESSES: u32 = 100_000;
/// What a child process of the bench is to do.
const ROLE: &str = "RINGFENCE_BENCH_ROLE";

/// What judges packets.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    None,
    Ours,
    Chain,
    Map,
}

const VARIANTS: [Variant; 4] = [Variant::None, Variant::Ours, Variant::Chain, Variant::Map];
const WORKLOADS: [&str; 3] = ["64 kB packets", "wire-sized packets", "exchanges"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match std::env::var(ROLE).as_deref() {
        Ok("echo") => return echo(),
        Ok("exchange") => return println!("result: {}", exchange(Duration::from_secs(1))),
        Ok("connect") => return println!("result: {}", connect(Duration::from_secs(1))),
        Ok("unrest") => return events::unrest(),
        _ => {}
    }
    if !inside() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let success = run_again(&arguments).unwrap_or(true);
        std::process::exit(i32::from(!success));
    }
    for program in ["iperf3", "nft"] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
            return println!("skipped: {program} is not installed (Debian: iperf3, nftables)");
        }
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().skip_while(|argument| *argument != "--json").nth(1).map(PathBuf::from);
    let figures = measure(if quick { 3 } else { 11 });
    print(&figures);
    if let Some(path) = json {
        write_json(&path, &figures).unwrap();
    }
}

fn measure(rounds: usize) -> Vec<Figure> {
    build_network();
    let directory = Path::new(BPFFS).join("throughput");
    let options = KernelOptions { directory: directory.clone(), capacity: Capacity::default(), tcx: true };
    let mut datapath = KernelDatapath::open(&options).unwrap();
    let mut servers = [in_namespace("b", "iperf3", &SERVE, None), role("b", "echo")];
    await_server(IPERF_PORT);
    await_server(ECHO_PORT);
    // Indexed by workload and variant.
    let mut results = [const { [const { Vec::new() }; 4] }; 3];
    for _ in 0..rounds {
        for (number, variant) in VARIANTS.into_iter().enumerate() {
            install(variant, &mut datapath);
            for (workload, results) in results.iter_mut().enumerate() {
                results[number].push(run(workload));
            }
            remove(variant, &mut datapath);
        }
    }
    install(Variant::Ours, &mut datapath);
    let of_events = events::measure(rounds, &mut datapath, &directory);
    for server in &mut servers {
        server.kill().unwrap();
        server.wait().unwrap();
    }
    let of_variants = results.iter().enumerate().flat_map(|(workload, results)| figures_of(workload, results));
    of_variants.chain(of_events).collect()
}

fn figures_of(workload: usize, results: &[Vec<f64>; 4]) -> Vec<Figure> {
    let ratio = |over: Variant, under: Variant| {
        let pairs = results[over as usize].iter().zip(&results[under as usize]);
        median(&mut pairs.map(|(one, other)| one / other).collect::<Vec<f64>>())
    };
    let (none, ours) = (Variant::None, Variant::Ours);
    let at_least = |least| Some(Target::AtLeast(least));
    let name = |text: &str| named(format!("{}, {text}", WORKLOADS[workload]));
    let unit = if workload == 2 { "1/s" } else { "Gbit/s" };
    let mut absolute = results[none as usize].clone();
    vec![
        Figure::new(name("no program"), median(&mut absolute), unit, None),
        Figure::new(name("ours / no program"), ratio(ours, none), "", at_least(0.97)),
        Figure::new(name("chain of 1,000 rules / no program"), ratio(Variant::Chain, none), "", None),
        Figure::new(name("verdict map / no program"), ratio(Variant::Map, none), "", None),
        Figure::new(name("ours / chain"), ratio(ours, Variant::Chain), "", at_least(1.6)),
        Figure::new(name("ours / verdict map"), ratio(ours, Variant::Map), "", at_least(1.0)),
    ]
}

/// A name that is put together.
fn named(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Gbit/s, exchanges per second, or connections per second.
fn run(workload: usize) -> f64 {
    if workload >= 2 {
        let what = if workload == 2 { "exchange" } else { "connect" };
        let output = role("a", what).wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        return text.lines().find_map(|line| line.strip_prefix("result: ")).unwrap().parse().unwrap();
    }
    let segments = if workload == 0 { 65_535 } else { 1 };
    for (namespace, device) in [("a", "eth0"), ("b", "eth0")] {
        ip(&format!("-n {namespace} link set {device} gso_max_segs {segments}"));
    }
    let (server, port) = (SERVER.to_string(), IPERF_PORT.to_string());
    let arguments = ["-c", &server, "-p", &port, "-t", "1", "-J"];
    let output = in_namespace("a", "iperf3", &arguments, None).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let sum = text.split("\"sum_received\"").nth(1).unwrap_or_else(|| panic!("iperf3 says: {text}"));
    let bits = sum.split("\"bits_per_second\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    bits.trim().parse::<f64>().unwrap() / 1e9
}

fn install(variant: Variant, datapath: &mut KernelDatapath) {
    match variant {
        Variant::None => {}
        Variant::Ours => {
            let endpoints =
                [("a", "ep0"), ("b", "ep1")].map(|(name, at)| datapath.attach(&Name::new(name).unwrap(), at).unwrap());
            let observed = datapath.observe().unwrap();
            let tables = tables(endpoints);
            datapath.apply(observed.revision.next(), &observed.tables.diff(&tables)).unwrap();
        }
        Variant::Chain => nft(&chain()),
        Variant::Map => nft(&map()),
    }
}

fn remove(variant: Variant, datapath: &mut KernelDatapath) {
    match variant {
        Variant::None => {}
        Variant::Ours => {
            let judged = datapath.observe().unwrap().packets.get(Reason::Established);
            assert!(judged > 10_000, "packets went past the programs: {judged}");
            ["a", "b"].iter().for_each(|name| datapath.detach(&Name::new(*name).unwrap()).unwrap());
        }
        Variant::Chain | Variant::Map => nft("delete table inet bench\n"),
    }
}

/// Both ends may talk to everybody they know, in the last of many rows.
fn tables([a, b]: [EndpointId; 2]) -> Tables {
    let (mut tables, policy) = (Tables::default(), PolicyId(1));
    let identity = |number: u32| Identity::from_bits(0x0020_0001 + number % ELEMENTS);
    for number in 0..ADDRESSES {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + number));
        tables.addresses.insert(address, AddressEntry { identity: identity(number), endpoint: None });
    }
    let mut row = Row::default();
    row.set(0, Class::Allow);
    for number in 0..ELEMENTS {
        for direction in [Direction::Ingress, Direction::Egress] {
            tables.rows.insert(RowKey::of(policy, direction, identity(number), 0), row);
        }
    }
    for (address, endpoint, number) in [(CLIENT, a, 1), (SERVER, b, 2)] {
        let entry = AddressEntry { identity: identity(number), endpoint: Some(endpoint) };
        tables.addresses.insert(address.into(), entry);
        let entry = EndpointEntry { identity: identity(number), policy, shadow: None, audit: false };
        tables.endpoints.insert(endpoint, entry);
    }
    tables
}

const HEAD: &str = "table inet bench {\n";
const FORWARD: &str = "chain forward { type filter hook forward priority 0; policy drop;\n";

fn chain() -> String {
    let mut text = format!("{HEAD}{FORWARD}");
    for number in 0..CHAIN {
        let (from, to) = (Ipv4Addr::from(0x0a02_0000 + number), Ipv4Addr::from(0x0a03_0000 + number));
        writeln!(text, "ip saddr {from} ip daddr {to} tcp dport 80 accept").unwrap();
    }
    writeln!(text, "ip saddr {CLIENT} ip daddr {SERVER} accept\nip saddr {SERVER} ip daddr {CLIENT} accept\n}}\n}}")
        .unwrap();
    text
}

fn map() -> String {
    let mut text = format!("{HEAD}map pairs {{ type ipv4_addr . ipv4_addr : verdict; elements = {{\n");
    for number in 0..ELEMENTS {
        let (from, to) = (Ipv4Addr::from(0x0a02_0000 + number), Ipv4Addr::from(0x0a08_0000 + number));
        writeln!(text, "{from} . {to} : accept,").unwrap();
    }
    writeln!(text, "{CLIENT} . {SERVER} : accept, {SERVER} . {CLIENT} : accept }}\n}}").unwrap();
    writeln!(text, "{FORWARD}ip saddr . ip daddr vmap @pairs\n}}\n}}").unwrap();
    text
}

fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft refuses the rules");
}

fn build_network() {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    for (index, namespace, gateway, address) in [(0, "a", "10.0.0.254", CLIENT), (1, "b", "10.0.1.254", SERVER)] {
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add ep{index} type veth peer name eth0 netns {namespace}"));
        ip(&format!("addr add {gateway}/24 dev ep{index}"));
        ip(&format!("link set ep{index} up"));
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} route add default via {gateway}"));
    }
}

fn in_namespace(namespace: &str, program: &str, arguments: &[&str], role: Option<&str>) -> Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).args(arguments).stdout(Stdio::piped()).stdin(Stdio::null());
    role.map(|role| command.env(ROLE, role));
    command.spawn().unwrap()
}

/// Runs this bench again as a child with a role.
fn role(namespace: &str, role: &str) -> Child {
    in_namespace(namespace, std::env::current_exe().unwrap().to_str().unwrap(), &[], Some(role))
}

/// Returns once somebody listens.
fn await_server(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let address = SocketAddr::new(SERVER.into(), port);
    while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {address}");
        thread::yield_now();
    }
}

/// Answers each byte.
fn echo() {
    let listener = TcpListener::bind((SERVER, ECHO_PORT)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|read| read == 1) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

/// Exchanges per second of one byte each way.
fn exchange(time: Duration) -> f64 {
    let mut stream = TcpStream::connect((SERVER, ECHO_PORT)).unwrap();
    stream.set_nodelay(true).unwrap();
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < time {
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// Connections per second, one after the other, with one exchange each.
fn connect(time: Duration) -> f64 {
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < time {
        let mut stream = TcpStream::connect((SERVER, ECHO_PORT)).unwrap();
        // Reset at its end: no port waits to be used again.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}
