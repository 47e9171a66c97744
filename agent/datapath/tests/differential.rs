//! The same packets through `Tables::class`, the memory datapath and the programs in the kernel, in worlds made up at
//! random (S15). Without permission for BPF the kernel is left out, and says so.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/namespaces.rs"]
mod namespaces;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use namespaces::{BPFFS, in_own_namespaces, inside, ip};
use ringfence_datapath::{
    Capacity, Datapath, Hook, KernelDatapath, KernelOptions, MemoryDatapath, PacketKind, ProbePacket, Reason,
};
use ringfence_policy::{
    cidr::Cidr,
    flow::{Direction, Flow, protocol},
    identity::Identity,
    name::Name,
    revision::Revision,
    tables::{
        AddressEntry, Class, EndpointEntry, EndpointId, Interval, PolicyId, PortsKey, PortsOfProtocol, RowKey, Tables,
    },
};

const WORLDS: u64 = 16;
const PACKETS: u32 = 400;
const PROTOCOLS: [u8; 6] = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP, protocol::ICMPV6, 47];
/// Types that the parser takes for queries or one-way messages, never for answers or errors.
const TYPES: [[u16; 3]; 2] = [[8, 13, 5], [128, 100, 200]];

/// xorshift64*: a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(high % u64::from(end)).unwrap()
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    fn port(&mut self) -> u16 {
        // Ports meet interval ends often.
        let near = [0, 79, 80, 81, 255, 256, 443, 1023, 30_000, 65_535][self.below(10) as usize];
        if self.one_in(4) { u16::try_from(self.below(65_536)).unwrap() } else { near }
    }
}

/// Which of the peers is the node itself.
const HOST: u32 = 2;

/// Which of them is a proxy: of this node or of another, it is no endpoint.
const PROXY: u32 = 7;

/// One of twelve peers, two of them endpoints of this node; some addresses are known by their range only.
fn address(number: u32, v6: bool) -> IpAddr {
    let low = u8::try_from(number).unwrap();
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, u16::from(low / 6), 0, 0, 0, u16::from(low)))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, low / 6, low))
    }
}

fn identity(number: u32) -> Identity {
    Identity::from_bits(0x0010_0100 + number)
}

fn tables(random: &mut Random, endpoints: [EndpointId; 2]) -> Tables {
    let mut tables = Tables::default();
    for v6 in [false, true] {
        for number in 0..8 {
            let endpoint = endpoints.get(number as usize).copied();
            if endpoint.is_some() || !random.one_in(4) {
                // Several addresses share an identity.
                let identity = if number == PROXY { Identity::INGRESS } else { identity(number % 5) };
                let entry = AddressEntry { identity, endpoint };
                tables.addresses.insert(address(number, v6), entry);
            }
        }
    }
    for (range, number) in
        [("10.0.1.0/24", 9), ("10.0.0.0/16", 0), ("fd00:0:0:1::/64", 3), ("::/0", 4), ("10.0.1.8/30", 2)]
    {
        if random.one_in(2) {
            let identity = if number == 0 { Identity::UNKNOWN } else { identity(number) };
            tables.ranges.insert(range.parse().unwrap(), identity);
        }
    }
    for (number, endpoint) in (0..).zip(endpoints) {
        if !random.one_in(10) {
            let policy = PolicyId(1 + random.below(2));
            let shadow = random.one_in(3).then_some(PolicyId(3));
            let audit = random.one_in(5);
            tables.endpoints.insert(endpoint, EndpointEntry { identity: identity(number), policy, shadow, audit });
        }
    }
    // The node itself, which some revisions say nothing of.
    let host = !random.one_in(4);
    for v6 in [false, true] {
        let entry = AddressEntry { identity: Identity::HOST, endpoint: host.then_some(EndpointId::HOST) };
        tables.addresses.insert(address(HOST, v6), entry);
    }
    if host {
        let (policy, audit) = (PolicyId(1 + random.below(2)), random.one_in(5));
        let entry = EndpointEntry { identity: Identity::HOST, policy, shadow: None, audit };
        tables.endpoints.insert(EndpointId::HOST, entry);
    }
    for policy in 1..=3 {
        for direction in [Direction::Ingress, Direction::Egress] {
            policy_of(random, &mut tables, PolicyId(policy), direction);
        }
    }
    tables
}

fn policy_of(random: &mut Random, tables: &mut Tables, policy: PolicyId, direction: Direction) {
    let bands = [1, 2, 70, 200];
    for protocol in PROTOCOLS {
        let firsts: BTreeMap<u16, u16> = (0..random.below(6))
            .map(|_| (random.port(), if random.one_in(3) { 0 } else { bands[random.below(4) as usize] }))
            .chain([(0, 0)])
            .collect();
        let ports = PortsOfProtocol::new(firsts.into_iter().map(|(first, band)| Interval { first, band }));
        if let Some(ports) = ports {
            tables.ports.insert(PortsKey { policy, direction, protocol }, ports);
        }
    }
    for _ in 0..random.below(40) {
        let peer = match random.below(13) {
            number @ 0..=8 => identity(number),
            9 => Identity::WORLD_IPV4,
            10 => Identity::HOST,
            11 => Identity::INGRESS,
            _ => Identity::UNKNOWN,
        };
        let band = if random.one_in(3) { 0 } else { bands[random.below(4) as usize] };
        let class = Class::ALL[random.below(3) as usize];
        tables.rows.entry(RowKey::of(policy, direction, peer, band)).or_default().set(band, class);
    }
}

fn packet(random: &mut Random, number: u32) -> ProbePacket {
    let v6 = random.one_in(2);
    let protocol = PROTOCOLS[random.below(6) as usize];
    // Each connection is new.
    let source_port = 1000 + u16::try_from(number).unwrap();
    let (destination_port, kind) = match protocol {
        protocol::TCP => (random.port(), PacketKind::Open),
        protocol::ICMP => (TYPES[0][random.below(3) as usize], PacketKind::Open),
        protocol::ICMPV6 => (TYPES[1][random.below(3) as usize], PacketKind::Open),
        _ => (random.port(), PacketKind::Data),
    };
    ProbePacket {
        source: address(random.below(12), v6),
        destination: address(random.below(12), v6),
        protocol,
        source_port,
        destination_port,
        kind,
        judged: false,
    }
}

/// What one end should say: its refusal, or none if it lets the packet pass. `UNKNOWN` peers read the row for anyone.
fn refusal(tables: &Tables, endpoint: EndpointId, direction: Direction, packet: &ProbePacket) -> Option<Reason> {
    let Some(entry) = tables.endpoints.get(&endpoint) else { return Some(Reason::NotRealised) };
    let remote = if direction == Direction::Egress { packet.destination } else { packet.source };
    let peer = match tables.addresses.get(&remote) {
        Some(entry) => entry.identity,
        None => {
            let inside = tables.ranges.iter().filter(|(range, _)| range.contains(remote));
            let longest = inside.max_by_key(|(range, _)| range.prefix_length()).map(|(_, identity)| *identity);
            longest.unwrap_or(if remote.is_ipv4() { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 })
        }
    };
    let port = if packet.protocol == 47 { 0 } else { packet.destination_port };
    let flow = Flow { subject: entry.identity, peer, direction, protocol: packet.protocol, port };
    let refusal = match tables.class_in(entry.policy, &flow) {
        Some(Class::Allow) => return None,
        Some(Class::Redirect) => Reason::NoProxy,
        Some(Class::Deny) => Reason::DenyExplicit,
        None => Reason::DenyDefault,
    };
    (!entry.audit).then_some(refusal)
}

fn expected(tables: &Tables, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Option<Reason> {
    let local = |address: &IpAddr| tables.addresses.get(address).and_then(|entry| entry.endpoint);
    match hook {
        Hook::ToEndpoint => refusal(tables, endpoint, Direction::Ingress, packet).or_else(|| {
            let host = local(&packet.source).filter(|sender| *sender == EndpointId::HOST);
            host.and_then(|host| refusal(tables, host, Direction::Egress, packet))
        }),
        Hook::FromHost | Hook::ToHost => {
            let (own, direction) = match hook {
                Hook::FromHost => (packet.source, Direction::Egress),
                _ => (packet.destination, Direction::Ingress),
            };
            let pods = |range: &&Cidr| tables.ranges[*range] == Identity::UNKNOWN;
            let longest =
                tables.ranges.keys().filter(|range| range.contains(own)).max_by_key(|range| range.prefix_length());
            // What is known to be somebody else's passes; any other address may be the node's.
            let passes = match tables.addresses.get(&own) {
                Some(entry) => entry.endpoint != Some(EndpointId::HOST),
                None => longest.filter(pods).is_some(),
            };
            // To itself, as with endpoints.
            let hairpin = hook == Hook::FromHost && local(&packet.destination) == Some(EndpointId::HOST);
            let enforced = tables.endpoints.contains_key(&EndpointId::HOST) && !passes && !hairpin;
            if enforced { refusal(tables, EndpointId::HOST, direction, packet) } else { None }
        }
        Hook::FromEndpoint if !tables.endpoints.contains_key(&endpoint) => Some(Reason::NotRealised),
        Hook::FromEndpoint if local(&packet.source) != Some(endpoint) => Some(Reason::Spoofed),
        Hook::FromEndpoint if local(&packet.destination) == Some(endpoint) => None,
        Hook::FromEndpoint => refusal(tables, endpoint, Direction::Egress, packet)
            .or_else(|| local(&packet.destination).and_then(|peer| refusal(tables, peer, Direction::Ingress, packet))),
    }
}

/// Runs every world through a datapath; answers the reasons, so that two datapaths can be compared in all of them.
fn run(datapath: &mut dyn Datapath) -> (Vec<Reason>, [EndpointId; 2]) {
    let endpoints = ["one", "other"].into_iter().zip(["ep0", "ep1"]);
    let endpoints: Vec<_> =
        endpoints.map(|(name, at)| datapath.attach(&Name::new(name).unwrap(), at).unwrap()).collect();
    let endpoints: [EndpointId; 2] = endpoints.try_into().unwrap();
    let (mut reasons, mut before, mut used) = (Vec::new(), Tables::default(), BTreeSet::new());
    for seed in 1..=WORLDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let tables = tables(&mut random, endpoints);
        datapath.apply(Revision(seed), &before.diff(&tables)).unwrap();
        assert_eq!(datapath.observe().unwrap().tables, tables, "seed {seed}");
        for number in 0..PACKETS {
            let packet = packet(&mut random, number);
            let hook = [Hook::FromEndpoint, Hook::ToEndpoint, Hook::FromHost, Hook::ToHost][random.below(4) as usize];
            let endpoint = if hook.is_uplink() { EndpointId::HOST } else { endpoints[random.below(2) as usize] };
            // A packet for somebody else does not come to an endpoint's device.
            let packet = match hook {
                Hook::ToEndpoint => ProbePacket {
                    destination: address(u32::from(endpoint == endpoints[1]), packet.source.is_ipv6()),
                    ..packet
                },
                Hook::FromEndpoint | Hook::FromHost | Hook::ToHost => packet,
            };
            // Without ports, two addresses have one connection: its direction is that of its first packet.
            let (low, high) = (packet.source.min(packet.destination), packet.source.max(packet.destination));
            let again = packet.protocol == 47 && !used.insert((low, high));
            let packet = if again { ProbePacket { protocol: protocol::UDP, ..packet } } else { packet };
            let outcome = datapath.probe(hook, endpoint, &packet).unwrap();
            let expected = expected(&tables, hook, endpoint, &packet);
            let refused = (!outcome.allowed).then_some(outcome.reason);
            assert_eq!(refused, expected, "{} seed {seed}: {hook:?} {endpoint} {packet:?}", datapath.kind());
            reasons.push(outcome.reason);
        }
        before = tables;
    }
    (reasons, endpoints)
}

/// A datapath that got one row of a revision wrong.
#[test]
fn s15_control_one_wrong_row_is_found() {
    let mut found = 0;
    for seed in 1..=WORLDS {
        let mut datapath = MemoryDatapath::default();
        let endpoints = ["one", "other"].into_iter().zip(["ep0", "ep1"]);
        let endpoints = endpoints.map(|(name, at)| datapath.attach(&Name::new(name).unwrap(), at).unwrap());
        let endpoints: [EndpointId; 2] = endpoints.collect::<Vec<_>>().try_into().unwrap();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let tables = tables(&mut random, endpoints);
        let mut wrong = tables.clone();
        for row in wrong.rows.values_mut() {
            // What is allowed is denied, and the other way round.
            row.high ^= row.low;
        }
        datapath.apply(Revision(seed), &Tables::default().diff(&wrong)).unwrap();
        for number in 0..PACKETS {
            let packet = packet(&mut random, number);
            let outcome = datapath.probe(Hook::FromEndpoint, endpoints[0], &packet).unwrap();
            let refused = (!outcome.allowed).then_some(outcome.reason);
            found += u32::from(refused != expected(&tables, Hook::FromEndpoint, endpoints[0], &packet));
        }
    }
    assert!(found > 50, "packets must tell wrong tables from right ones: {found}");
}

fn in_memory() -> Vec<Reason> {
    run(&mut MemoryDatapath::default()).0
}

#[test]
fn s15_memory_says_what_the_tables_say() {
    let reasons = in_memory();
    for reason in [
        Reason::New,
        Reason::DenyDefault,
        Reason::DenyExplicit,
        Reason::NoProxy,
        Reason::NotRealised,
        Reason::Spoofed,
        Reason::Hairpin,
        Reason::AuditDefault,
        Reason::AuditExplicit,
        Reason::AuditNoProxy,
        Reason::Passing,
    ] {
        let count = reasons.iter().filter(|one| **one == reason).count();
        assert!(count >= 10, "the worlds say too little of {reason:?}: {count}");
    }
}

#[test]
fn s15_the_kernel_says_what_the_tables_and_memory_say() {
    in_own_namespaces("s15_the_kernel_says_what_the_tables_and_memory_say", || {
        assert!(inside());
        for endpoint in 0..2 {
            ip(&format!("link add ep{endpoint} type veth peer name peer{endpoint}"));
        }
        let capacity = Capacity { flows: 65_536, ..Capacity::default() };
        let options = KernelOptions { directory: Path::new(BPFFS).join("differential"), capacity, tcx: true };
        let (in_kernel, _) = run(&mut KernelDatapath::open(&options).unwrap());
        assert_eq!(in_kernel, in_memory(), "the same reasons, not only the same verdicts");
    });
}
