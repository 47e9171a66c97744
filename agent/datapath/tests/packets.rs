//! Real packets of every kind through the hooks of two endpoints and their node.
//!
//! ```text
//! netns a ── ep0 ─┐ this network namespace ┌─ ep1 ── netns b
//!                 └──── forwards packets ──┘
//!                            up0 ── netns c, another machine
//! ```
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/stations.rs"]
mod stations;
#[path = "support/worlds.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod worlds;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use namespaces::{BPFFS, in_own_namespaces, ip};
use ringfence_datapath::{Capacity, Datapath, KernelDatapath, KernelOptions, Reason};
use ringfence_policy::{
    flow::{Direction, protocol},
    identity::Identity,
    tables::{AddressEntry, Class, EndpointEntry, EndpointId, Tables},
};
use stations::{Station, checksum, hexadecimal};
use worlds::{LOCAL, OTHER, apply, name, policy, say};

/// Of a, of b, and of the node towards a and towards b.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.0.0.1", "10.0.1.2", "10.0.0.254", "10.0.1.254"],
    ["fd00:0:0:a::1", "fd00:0:0:b::2", "fd00:0:0:a::fe", "fd00:0:0:b::fe"],
];
/// Of c, of the node towards c, and another one of the node that no table knows.
const UPLINK: [[&str; 3]; 2] =
    [["10.0.9.3", "10.0.9.1", "10.0.9.99"], ["fd00:0:0:9::3", "fd00:0:0:9::1", "fd00:0:0:9::99"]];
const EGRESS: Direction = Direction::Egress;
const INGRESS: Direction = Direction::Ingress;

/// A network of two endpoints, and its datapath.
struct Bed {
    datapath: KernelDatapath,
    endpoints: [EndpointId; 2],
    a: Station,
    b: Station,
    node: Station,
}

/// Runs a case, or serves as one of its stations.
fn play(test: &str, case: fn(&mut Bed)) {
    if stations::serve() {
        return;
    }
    in_own_namespaces(test, || {
        build_network();
        let directory = Path::new(BPFFS).join("packets");
        let capacity = Capacity { addresses: 64, ranges: 8, endpoints: 8, ports: 64, rows: 64, flows: 1024 };
        let mut datapath = KernelDatapath::open(&KernelOptions { directory, capacity, tcx: true }).unwrap();
        let endpoints = [("a", "ep0"), ("b", "ep1")].map(|(is, device)| datapath.attach(&name(is), device).unwrap());
        let [a, b] = ["a", "b"].map(|namespace| Station::start(test, Some(namespace)));
        case(&mut Bed { datapath, endpoints, a, b, node: Station::start(test, None) });
    });
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        $(#[test] fn $case() { play(stringify!($case), cases::$case); })*
    };
}

cases!(
    fragments_are_judged_like_the_datagram_they_are_of,
    fragments_out_of_order_wait_for_their_first_one,
    path_mtu_discovery_works_where_icmp_itself_is_denied,
    icmp_types_are_judged_one_by_one,
    sem_50_the_node_reaches_its_endpoints_and_they_reach_it_as_policies_say,
    ct_4_an_endpoint_reaches_itself_through_the_node,
    host_1_the_nodes_own_packets_are_judged_on_its_uplink,
    host_1_packets_of_endpoints_pass_the_uplink_unjudged,
    host_1_the_node_and_its_endpoints_are_judged_at_both_ends,
    what_must_not_be_cut_passes_the_uplink,
    answers_of_a_borrowed_connection_pass_whatever_revisions_say,
    a_borrowed_answer_does_not_keep_open_what_was_judged,
    a_borrowed_connection_to_an_endpoint_is_judged_there_only,
    membership_reports_pass_the_uplink,
);

impl Bed {
    /// Nothing is allowed yet.
    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        let [a, b] = self.endpoints;
        for [of_a, of_b, node_a, node_b] in FAMILIES {
            let entries = [
                (of_a, LOCAL, Some(a)),
                (of_b, OTHER, Some(b)),
                (node_a, Identity::HOST, None),
                (node_b, Identity::HOST, None),
            ];
            for (address, identity, endpoint) in entries {
                tables.addresses.insert(address.parse().unwrap(), AddressEntry { identity, endpoint });
            }
        }
        for (endpoint, identity) in [(a, LOCAL), (b, OTHER)] {
            let entry = EndpointEntry { identity, policy: policy(identity), shadow: None, audit: false };
            tables.endpoints.insert(endpoint, entry);
        }
        tables
    }

    /// Tables in which a may send to b.
    fn tables_from_a_to_b(&self, protocol: u8, port: u16) -> Tables {
        let mut tables = self.tables();
        allow(&mut tables, LOCAL, EGRESS, OTHER, protocol, port);
        allow(&mut tables, OTHER, INGRESS, LOCAL, protocol, port);
        tables
    }

    fn packets(&self, reason: Reason) -> u64 {
        self.datapath.observe().unwrap().packets.get(reason)
    }
}

fn allow(tables: &mut Tables, subject: Identity, direction: Direction, peer: Identity, protocol: u8, port: u16) {
    say(tables, policy(subject), direction, Some(peer), Some((protocol, port)), Class::Allow);
}

fn at(address: &str, port: u16) -> String {
    let address: IpAddr = address.parse().unwrap();
    std::net::SocketAddr::new(address, port).to_string()
}

mod cases {
    use super::*;

    pub(super) fn fragments_are_judged_like_the_datagram_they_are_of(bed: &mut Bed) {
        let tables = bed.tables_from_a_to_b(protocol::UDP, 7);
        apply(&mut bed.datapath, &tables);
        for [of_a, of_b, ..] in FAMILIES {
            let (from, allowed, denied) = (at(of_a, 5000), at(of_b, 7), at(of_b, 9));
            assert_eq!(bed.a.ask(&format!("udp {from}")), "ok");
            [&allowed, &denied].iter().for_each(|address| assert_eq!(bed.b.ask(&format!("udp {address}")), "ok"));
            for bytes in [100, 4000, 20_000] {
                assert_eq!(bed.a.ask(&format!("send {from} {denied} {bytes}")), "ok");
                assert_eq!(bed.a.ask(&format!("send {from} {allowed} {bytes}")), "ok");
                assert_eq!(bed.b.ask(&format!("receive {allowed}")), format!("{bytes} {from}"));
                assert_eq!(bed.b.ask(&format!("receive {denied}")), "nothing");
                // Answers of the same size, in fragments as well.
                assert_eq!(bed.b.ask(&format!("send {allowed} {from} {bytes}")), "ok");
                assert_eq!(bed.a.ask(&format!("receive {from}")), format!("{bytes} {allowed}"));
            }
        }
        // Of 4,000 and 20,000 bytes: 2 and 13 later fragments, in each family, of what the first one was refused.
        assert_eq!(bed.packets(Reason::Fragment), 2 * (2 + 13));
    }

    /// The parts of a UDP datagram of 3 × 1,000 bytes, as IP packets.
    fn parts(from: IpAddr, to: IpAddr, port: u16, identification: u16) -> Vec<Vec<u8>> {
        let mut datagram = [5000_u16, port, 3000, 0].map(u16::to_be_bytes).concat();
        datagram.resize(3000, 7);
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let pseudo =
            [octets(from), octets(to), vec![0, 17], 3000_u16.to_be_bytes().to_vec(), datagram.clone()].concat();
        datagram[6..8].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        let part = |(number, bytes): (usize, &[u8])| {
            let (offset, more) = (u16::try_from(number).unwrap() * 125, number < 2);
            let header = if from.is_ipv4() {
                let flags = if more { 0x2000 } else { 0 } | offset;
                let mut header = vec![0x45, 0];
                header.extend([1020, identification, flags].map(u16::to_be_bytes).concat());
                header.extend([64, 17, 0, 0]);
                header.extend([octets(from), octets(to)].concat());
                header
            } else {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(1008_u16.to_be_bytes());
                header.extend([44, 64]);
                header.extend([octets(from), octets(to), vec![17, 0]].concat());
                header.extend((offset << 3 | u16::from(more)).to_be_bytes());
                header.extend(u32::from(identification).to_be_bytes());
                header
            };
            [header, bytes.to_vec()].concat()
        };
        datagram.chunks(1000).enumerate().map(part).collect()
    }

    pub(super) fn fragments_out_of_order_wait_for_their_first_one(bed: &mut Bed) {
        let tables = bed.tables_from_a_to_b(protocol::UDP, 7);
        apply(&mut bed.datapath, &tables);
        for [of_a, of_b, ..] in FAMILIES {
            let allowed = at(of_b, 7);
            assert_eq!(bed.b.ask(&format!("udp {allowed}")), "ok");
            let whole = format!("2992 {}", at(of_a, 5000));
            let dropped = bed.packets(Reason::Fragment);
            // Which parts are sent in which order, what arrives, and how many parts are refused until then.
            let orders: [(&[usize], &str, u64); 4] =
                [(&[0, 1, 2], &whole, 0), (&[0, 2, 1], &whole, 0), (&[1, 0, 2], "nothing", 1), (&[2, 1], "nothing", 3)];
            for ((order, arrives, refused), identification) in orders.into_iter().zip(100..) {
                let parts = parts(of_a.parse().unwrap(), of_b.parse().unwrap(), 7, identification);
                for part in order {
                    assert_eq!(bed.a.ask(&format!("raw {of_b} {}", hexadecimal(&parts[*part]))), "ok");
                }
                assert_eq!(bed.b.ask(&format!("receive {allowed}")), arrives, "{order:?}");
                assert_eq!(bed.packets(Reason::Fragment) - dropped, refused, "{order:?}");
            }
            // What was refused can be sent again.
            for part in parts(of_a.parse().unwrap(), of_b.parse().unwrap(), 7, 102) {
                assert_eq!(bed.a.ask(&format!("raw {of_b} {}", hexadecimal(&part))), "ok");
            }
            assert_eq!(bed.b.ask(&format!("receive {allowed}")), whole);
        }
    }

    /// The node's link to b is narrow, and only the node's messages say so.
    pub(super) fn path_mtu_discovery_works_where_icmp_itself_is_denied(bed: &mut Bed) {
        ip("link set ep1 mtu 1300");
        let tables = bed.tables_from_a_to_b(protocol::TCP, 7);
        apply(&mut bed.datapath, &tables);
        for [of_a, of_b, ..] in FAMILIES {
            assert_eq!(bed.b.ask(&format!("listen {}", at(of_b, 7))), "ok");
            let before = bed.packets(Reason::Related);
            assert_eq!(bed.a.ask(&format!("transfer {} 300000", at(of_b, 7))), "300000");
            assert!(bed.packets(Reason::Related) > before, "somebody was told of the narrow link");
            let learnt = Command::new("ip").args(["-n", "a", "route", "get", of_b, "from", of_a]).output().unwrap();
            let learnt = String::from_utf8(learnt.stdout).unwrap();
            assert!(learnt.contains("mtu 1300"), "{learnt}");
        }
    }

    pub(super) fn icmp_types_are_judged_one_by_one(bed: &mut Bed) {
        let mut tables = bed.tables_from_a_to_b(protocol::ICMP, 8);
        for (subject, direction, peer) in [(LOCAL, EGRESS, OTHER), (OTHER, INGRESS, LOCAL)] {
            allow(&mut tables, subject, direction, peer, protocol::ICMPV6, 128);
        }
        apply(&mut bed.datapath, &tables);
        let [v4, v6] = FAMILIES;
        let message = |station: &mut Station, from, to, kind| station.ask(&format!("message {from} {to} {kind}"));
        assert_eq!(message(&mut bed.a, v4[0], v4[1], 8), "0");
        assert_eq!(message(&mut bed.a, v6[0], v6[1], 128), "129");
        assert_eq!(message(&mut bed.a, v4[0], v4[1], 13), "nothing", "a timestamp is another type");
        assert_eq!(message(&mut bed.b, v4[1], v4[0], 8), "nothing", "the other direction");
        assert_eq!(message(&mut bed.b, v6[1], v6[0], 128), "nothing");
        let mut other = bed.tables_from_a_to_b(protocol::ICMP, 13);
        allow(&mut other, LOCAL, EGRESS, OTHER, protocol::ICMPV6, 1);
        apply(&mut bed.datapath, &other);
        assert_eq!(message(&mut bed.a, v4[0], v4[1], 13), "14");
        assert_eq!(message(&mut bed.a, v4[0], v4[1], 8), "nothing");
        assert_eq!(message(&mut bed.a, v6[0], v6[1], 128), "nothing");
    }

    pub(super) fn sem_50_the_node_reaches_its_endpoints_and_they_reach_it_as_policies_say(bed: &mut Bed) {
        let nothing = bed.tables();
        let mut tables = bed.tables();
        for transport in [protocol::TCP, protocol::UDP] {
            allow(&mut tables, LOCAL, INGRESS, Identity::HOST, transport, 7);
            allow(&mut tables, LOCAL, EGRESS, Identity::HOST, transport, 8);
        }
        apply(&mut bed.datapath, &tables);
        for [of_a, _, of_node, _] in FAMILIES {
            for (address, port) in [(of_a, 7), (of_a, 9), (of_node, 8)] {
                let station = if address == of_a { &mut bed.a } else { &mut bed.node };
                assert_eq!(station.ask(&format!("listen {}", at(address, port))), "ok");
                assert_eq!(station.ask(&format!("udp {}", at(address, port))), "ok");
            }
            assert_eq!(bed.node.ask(&format!("listen {}", at(of_node, 9))), "ok");
            let transfer = |station: &mut Station, to, port| station.ask(&format!("transfer {} 100000", at(to, port)));
            assert_eq!(transfer(&mut bed.node, of_a, 7), "100000");
            assert_eq!(transfer(&mut bed.a, of_node, 8), "100000");
            assert!(transfer(&mut bed.node, of_a, 9).starts_with("error"));
            assert!(transfer(&mut bed.a, of_node, 9).starts_with("error"));
            let (here, there) = (at(of_node, 8), at(of_a, 7));
            assert_eq!(bed.node.ask(&format!("send {here} {there} 5000")), "ok");
            assert_eq!(bed.a.ask(&format!("receive {there}")), format!("5000 {here}"));
            apply(&mut bed.datapath, &nothing);
            assert!(transfer(&mut bed.node, of_a, 7).starts_with("error"), "it is the policy that lets it pass");
            assert!(transfer(&mut bed.a, of_node, 8).starts_with("error"));
            apply(&mut bed.datapath, &tables);
        }
    }

    const REMOTE_NODE: Identity = Identity::REMOTE_NODE;
    const HOST: Identity = Identity::HOST;

    /// The node is under enforcement, and nothing is allowed.
    fn tables_of_host(bed: &Bed) -> Tables {
        let mut tables = bed.tables();
        for [of_c, of_node, _] in UPLINK {
            tables.addresses.insert(of_c.parse().unwrap(), AddressEntry { identity: REMOTE_NODE, endpoint: None });
            tables.addresses.insert(of_node.parse().unwrap(), AddressEntry { identity: HOST, endpoint: None });
        }
        for entry in tables.addresses.values_mut().filter(|entry| entry.identity == HOST) {
            entry.endpoint = Some(EndpointId::HOST);
        }
        let entry = EndpointEntry { identity: HOST, policy: policy(HOST), shadow: None, audit: false };
        tables.endpoints.insert(EndpointId::HOST, entry);
        tables
    }

    /// Policy first, then the hooks.
    fn enforce(bed: &mut Bed, tables: &Tables) -> Station {
        build_uplink();
        apply(&mut bed.datapath, tables);
        bed.datapath.set_uplinks(&["up0".to_owned()]).unwrap();
        Station::start("host_1_the_nodes_own_packets_are_judged_on_its_uplink", Some("c"))
    }

    fn listen(station: &mut Station, address: &str, ports: &[u16]) {
        for port in ports {
            assert_eq!(station.ask(&format!("listen {}", at(address, *port))), "ok");
        }
    }

    /// Whether something comes through.
    fn reaches(station: &mut Station, to: &str, port: u16) -> bool {
        let answer = station.ask(&format!("transfer {} 5000", at(to, port)));
        assert!(answer == "5000" || answer.starts_with("error"), "{answer}");
        answer == "5000"
    }

    pub(super) fn host_1_the_nodes_own_packets_are_judged_on_its_uplink(bed: &mut Bed) {
        let mut tables = tables_of_host(bed);
        allow(&mut tables, HOST, INGRESS, REMOTE_NODE, protocol::TCP, 22);
        allow(&mut tables, HOST, EGRESS, REMOTE_NODE, protocol::TCP, 80);
        allow(&mut tables, HOST, EGRESS, REMOTE_NODE, protocol::UDP, 53);
        let mut c = enforce(bed, &tables);
        for [of_c, of_node, unlisted] in UPLINK {
            [of_node, unlisted].iter().for_each(|address| listen(&mut bed.node, address, &[22, 23]));
            listen(&mut c, of_c, &[80, 81]);
            let ports = |station: &mut Station, to, ports: [u16; 2]| ports.map(|port| reaches(station, to, port));
            assert_eq!(ports(&mut c, of_node, [22, 23]), [true, false]);
            assert_eq!(ports(&mut c, unlisted, [22, 23]), [true, false], "an address that no table knows is no way in");
            assert_eq!(ports(&mut bed.node, of_c, [80, 81]), [true, false]);
            let (here, there) = (at(of_node, 4000), at(of_c, 53));
            assert_eq!(bed.node.ask(&format!("udp {here}")), "ok");
            assert_eq!(c.ask(&format!("udp {there}")), "ok");
            assert_eq!(bed.node.ask(&format!("send {here} {there} 5000")), "ok");
            assert_eq!(c.ask(&format!("receive {there}")), format!("5000 {here}"), "in fragments");
            assert_eq!(c.ask(&format!("send {there} {here} 5000")), "ok");
            assert_eq!(bed.node.ask(&format!("receive {here}")), format!("5000 {there}"));
        }
        // A denial cuts what lives, and a node that no revision speaks of is not judged.
        let mut open = tables.clone();
        open.endpoints.remove(&EndpointId::HOST);
        apply(&mut bed.datapath, &open);
        for [of_c, of_node, _] in UPLINK {
            assert!(reaches(&mut c, of_node, 23) && reaches(&mut bed.node, of_c, 81));
        }
        apply(&mut bed.datapath, &tables);
        bed.datapath.set_uplinks(&[]).unwrap();
        assert!(reaches(&mut c, UPLINK[0][1], 23), "no uplink, no hook");
    }

    pub(super) fn host_1_packets_of_endpoints_pass_the_uplink_unjudged(bed: &mut Bed) {
        let mut tables = tables_of_host(bed);
        allow(&mut tables, LOCAL, EGRESS, REMOTE_NODE, protocol::TCP, 80);
        allow(&mut tables, LOCAL, INGRESS, REMOTE_NODE, protocol::TCP, 7);
        let mut c = enforce(bed, &tables);
        for ([of_a, ..], [of_c, of_node, _]) in FAMILIES.into_iter().zip(UPLINK) {
            listen(&mut c, of_c, &[80, 81]);
            listen(&mut bed.a, of_a, &[7, 8]);
            listen(&mut bed.node, of_node, &[7]);
            assert_eq!([80, 81].map(|port| reaches(&mut bed.a, of_c, port)), [true, false]);
            assert_eq!([7, 8].map(|port| reaches(&mut c, of_a, port)), [true, false]);
            assert!(!reaches(&mut c, of_node, 7), "the node itself is judged");
        }
        assert!(bed.packets(Reason::Passing) > 20);
    }

    pub(super) fn host_1_the_node_and_its_endpoints_are_judged_at_both_ends(bed: &mut Bed) {
        let mut tables = tables_of_host(bed);
        for port in [7, 8] {
            allow(&mut tables, LOCAL, INGRESS, HOST, protocol::TCP, port);
            allow(&mut tables, LOCAL, EGRESS, HOST, protocol::TCP, 10 + port);
        }
        allow(&mut tables, HOST, EGRESS, LOCAL, protocol::TCP, 7);
        allow(&mut tables, HOST, EGRESS, LOCAL, protocol::TCP, 9);
        allow(&mut tables, HOST, INGRESS, LOCAL, protocol::TCP, 17);
        allow(&mut tables, HOST, INGRESS, LOCAL, protocol::TCP, 19);
        apply(&mut bed.datapath, &tables);
        for [of_a, _, of_node, _] in FAMILIES {
            listen(&mut bed.a, of_a, &[7, 8, 9]);
            listen(&mut bed.node, of_node, &[17, 18, 19]);
            // Both allow the first one, the endpoint alone the second, the node alone the third.
            assert_eq!([7, 8, 9].map(|port| reaches(&mut bed.node, of_a, port)), [true, false, false]);
            assert_eq!([17, 18, 19].map(|port| reaches(&mut bed.a, of_node, port)), [true, false, false]);
        }
    }

    pub(super) fn what_must_not_be_cut_passes_the_uplink(bed: &mut Bed) {
        let tables = tables_of_host(bed);
        let mut c = enforce(bed, &tables);
        for [of_c, of_node, _] in UPLINK {
            listen(&mut c, of_c, &[7401]);
            assert!(!reaches(&mut bed.node, of_c, 7401), "nothing is allowed");
            let connect = format!("transfer-with-mark {} 5000 {}", at(of_c, 7401), ringfence_ebpf_common::MARK_PASSED);
            assert_eq!(bed.node.ask(&connect), "5000", "what the agent says to its gateway");
            let (server, client) = if of_c.contains(':') { (547, 546) } else { (67, 68) };
            let (here, there) = (at(of_node, client), at(of_c, server));
            assert_eq!(bed.node.ask(&format!("udp {here}")), "ok");
            assert_eq!(c.ask(&format!("udp {there}")), "ok");
            assert_eq!(bed.node.ask(&format!("send {here} {there} 300")), "ok");
            assert_eq!(c.ask(&format!("receive {there}")), format!("300 {here}"), "DHCP");
            assert_eq!(c.ask(&format!("send {there} {here} 300")), "ok");
            assert_eq!(bed.node.ask(&format!("receive {here}")), format!("300 {there}"));
            // The other way round it is no DHCP client that is asked.
            let (here, there) = (at(of_node, server), at(of_c, client));
            assert_eq!(bed.node.ask(&format!("udp {here}")), "ok");
            assert_eq!(c.ask(&format!("udp {there}")), "ok");
            assert_eq!(c.ask(&format!("send {there} {here} 300")), "ok");
            assert_eq!(bed.node.ask(&format!("receive {here}")), "nothing");
        }
    }

    /// A socket of the node whose packets carry the mark that exempts them, and one of c.
    fn marked(bed: &mut Bed, c: &mut Station, here: &str, there: &str) {
        assert_eq!(bed.node.ask(&format!("udp-with-mark {here} {}", ringfence_ebpf_common::MARK_PASSED)), "ok");
        assert_eq!(c.ask(&format!("udp {there}")), "ok");
    }

    fn comes(from: &mut Station, to: &mut Station, here: &str, there: &str) -> bool {
        assert_eq!(from.ask(&format!("send {here} {there} 100")), "ok");
        to.ask(&format!("receive {there}")) == format!("100 {here}")
    }

    pub(super) fn answers_of_a_borrowed_connection_pass_whatever_revisions_say(bed: &mut Bed) {
        let tables = tables_of_host(bed);
        let mut c = enforce(bed, &tables);
        for [of_c, of_node, _] in UPLINK {
            let (here, there) = (at(of_node, 4000), at(of_c, 7401));
            marked(bed, &mut c, &here, &there);
            assert!(!comes(&mut c, &mut bed.node, &there, &here), "control: nothing is allowed");
            assert!(comes(&mut bed.node, &mut c, &here, &there) && comes(&mut c, &mut bed.node, &there, &here));
            // The next revision comes before the next answer, and nothing of the node between them.
            let mut other = tables.clone();
            allow(&mut other, HOST, INGRESS, REMOTE_NODE, protocol::TCP, 22);
            for tables in [&other, &tables] {
                apply(&mut bed.datapath, tables);
                assert!(comes(&mut c, &mut bed.node, &there, &here), "an answer after a revision");
            }
        }
    }

    pub(super) fn a_borrowed_answer_does_not_keep_open_what_was_judged(bed: &mut Bed) {
        let tables = tables_of_host(bed);
        let mut open = tables.clone();
        allow(&mut open, HOST, INGRESS, REMOTE_NODE, protocol::UDP, 4000);
        let mut c = enforce(bed, &open);
        for [of_c, of_node, _] in UPLINK {
            apply(&mut bed.datapath, &open);
            let (here, there) = (at(of_node, 4000), at(of_c, 5000));
            marked(bed, &mut c, &here, &there);
            assert!(comes(&mut c, &mut bed.node, &there, &here), "c may ask");
            assert!(comes(&mut bed.node, &mut c, &here, &there), "and is answered");
            apply(&mut bed.datapath, &tables);
            // For longer than a second: the time of a connection is noted that often.
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(1200) {
                assert!(comes(&mut bed.node, &mut c, &here, &there), "what has the mark goes out");
            }
            assert!(!comes(&mut c, &mut bed.node, &there, &here), "that was judged, and is no more allowed");
        }
    }

    pub(super) fn a_borrowed_connection_to_an_endpoint_is_judged_there_only(bed: &mut Bed) {
        let mut tables = tables_of_host(bed);
        allow(&mut tables, LOCAL, INGRESS, HOST, protocol::TCP, 7);
        apply(&mut bed.datapath, &tables);
        for [of_a, ..] in FAMILIES {
            listen(&mut bed.a, of_a, &[7, 8]);
            assert!(!reaches(&mut bed.node, of_a, 7), "control: the node's own egress is refused");
            let mut connect = |port| {
                let mark = ringfence_ebpf_common::MARK_PASSED;
                bed.node.ask(&format!("transfer-with-mark {} 5000 {mark}", at(of_a, port)))
            };
            assert_eq!(connect(7), "5000");
            assert!(connect(8).starts_with("error"), "the endpoint's own policy counts");
        }
    }

    pub(super) fn membership_reports_pass_the_uplink(bed: &mut Bed) {
        const IGMP: u8 = 2;
        let tables = tables_of_host(bed);
        let mut c = enforce(bed, &tables);
        let packet = |protocol: u8| {
            let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 9, 3, 10, 0, 9, 1];
            let sum = checksum(&packet).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            packet.extend([0x11, 0, 0xee, 0xff, 0, 0, 0, 0]);
            packet
        };
        let [exempt, refused] = [Reason::Exempt, Reason::DenyDefault].map(|reason| bed.packets(reason));
        assert_eq!(c.ask(&format!("raw 10.0.9.1 {}", hexadecimal(&packet(IGMP)))), "ok");
        assert_eq!(c.ask(&format!("raw 10.0.9.1 {}", hexadecimal(&packet(3)))), "ok");
        // They come one after the other, and perhaps a moment later.
        let deadline = Instant::now() + Duration::from_secs(30);
        while bed.packets(Reason::DenyDefault) == refused && Instant::now() < deadline {}
        assert_eq!(bed.packets(Reason::DenyDefault), refused + 1, "control: another protocol is refused");
        assert_eq!(bed.packets(Reason::Exempt), exempt + 1, "a query of the groups that the node listens to");
    }

    /// Endpoint a has a second address, one namespace further, and sends to it through the node.
    pub(super) fn ct_4_an_endpoint_reaches_itself_through_the_node(bed: &mut Bed) {
        ip("netns add inner");
        ip("-n a link add sub0 type veth peer name eth0 netns inner");
        let mut tables = bed.tables();
        for ([of_a, _, of_node, _], (inner, up)) in
            FAMILIES.into_iter().zip([("10.0.0.77", "10.0.2.1"), ("fd00:0:0:a::77", "fd00:0:0:c::1")])
        {
            let (family, bits, link) = if of_a.contains(':') { ("-6", 128, 64) } else { ("-4", 32, 24) };
            let nodad = if link == 64 { "nodad" } else { "" };
            ip(&format!("-n a addr add {up}/{link} dev sub0 {nodad}"));
            ip(&format!("-n inner addr add {inner}/{bits} dev eth0 {nodad}"));
            ip("-n a link set sub0 up");
            ip("-n inner link set eth0 up");
            ip(&format!("-n inner {family} route add {up} dev eth0"));
            ip(&format!("-n inner {family} route add default via {up}"));
            ip(&format!("-n a {family} route add {inner} dev sub0"));
            // What a itself sends there takes the way through the node.
            ip(&format!("-n a {family} rule add iif lo to {inner} lookup 100"));
            ip(&format!("-n a {family} route add default via {of_node} table 100"));
            ip(&format!("{family} route add {inner} via {of_a} dev ep0"));
            let entry = AddressEntry { identity: LOCAL, endpoint: Some(bed.endpoints[0]) };
            tables.addresses.insert(inner.parse().unwrap(), entry);
        }
        // The kernel takes a packet with its own address from a link for forged, unless it is told to.
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/eth0/accept_local"] {
            let write = format!("echo 1 > /proc/sys/net/{setting}");
            assert!(Command::new("ip").args(["netns", "exec", "a", "sh", "-c", &write]).status().unwrap().success());
        }
        await_addresses();
        apply(&mut bed.datapath, &tables);
        let mut inner = Station::start("ct_4_an_endpoint_reaches_itself_through_the_node", Some("inner"));
        for (of_a, of_inner) in [("10.0.0.1", "10.0.0.77"), ("fd00:0:0:a::1", "fd00:0:0:a::77")] {
            let (from, to) = (at(of_a, 5000), at(of_inner, 7));
            assert_eq!(bed.a.ask(&format!("udp {from}")), "ok");
            assert_eq!(inner.ask(&format!("udp {to}")), "ok");
            let before = bed.packets(Reason::Hairpin);
            assert_eq!(bed.a.ask(&format!("send {from} {to} 100")), "ok");
            assert_eq!(
                inner.ask(&format!("receive {to}")),
                format!("100 {from}"),
                "nothing allows it, and nothing need"
            );
            assert_eq!(bed.packets(Reason::Hairpin), before + 1);
            // Another endpoint's address is not its own.
            assert_eq!(bed.a.ask(&format!("send {from} {} 100", at(&of_inner.replace("77", "78"), 7))), "ok");
            assert_eq!(bed.packets(Reason::Hairpin), before + 1);
        }
    }
}

/// Another machine, and the uplink that leads to it.
fn build_uplink() {
    ip("netns add c");
    ip("link add up0 type veth peer name eth0 netns c");
    for [of_c, of_node, unlisted] in UPLINK {
        let (family, rest) = if of_c.contains(':') { ("-6", "64 dev up0 nodad") } else { ("-4", "24 dev up0") };
        ip(&format!("addr add {of_node}/{rest}"));
        ip(&format!("addr add {unlisted}/{rest}"));
        ip(&format!("-n c addr add {of_c}/{}", rest.replace("up0", "eth0")));
        ip("link set up0 up");
        ip("-n c link set eth0 up");
        ip(&format!("-n c {family} route add default via {of_node}"));
    }
    await_addresses();
}

fn build_network() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(Path::new("/proc/sys/net").join(setting), "1").unwrap();
    }
    for (index, namespace) in ["a", "b"].into_iter().enumerate() {
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add ep{index} type veth peer name eth0 netns {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        for addresses in FAMILIES {
            let (own, gateway) = (addresses[index], addresses[index + 2]);
            let (family, rest) = if own.contains(':') { ("-6", "64 nodad") } else { ("-4", "24") };
            let (own, rest) = (format!("{own}/"), rest.replacen(' ', " dev eth0 ", 1));
            let rest = if rest.contains("dev") { rest } else { format!("{rest} dev eth0") };
            ip(&format!("-n {namespace} addr add {own}{rest}"));
            ip(&format!("addr add {gateway}/{}", rest.replace("eth0", &format!("ep{index}"))));
            ip(&format!("link set ep{index} up"));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} {family} route add default via {gateway}"));
        }
    }
    await_addresses();
}

/// Waits until no IPv6 address is tentative any more (RFC 4862 §5.4).
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
