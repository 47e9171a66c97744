//! What every datapath does. Each case runs against memory, and against the real programs in the kernel
//! (BPF_PROG_TEST_RUN in a network namespace and a bpffs of the test's own).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[cfg(feature = "kernel")]
#[path = "support/cells.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod cells;
#[cfg(feature = "kernel")]
#[path = "support/namespaces.rs"]
mod namespaces;
#[path = "support/worlds.rs"]
mod worlds;

use std::ops::ControlFlow;

use ringfence_datapath::{
    ApplyError, AttachError, Capacity, Connection, Datapath, FlowEvent, Hook, PacketKind, Phase, ProbeOutcome,
    ProbePacket, Reading, Reason, Table, Tally, Verified,
};
use ringfence_policy::{
    flow::{Direction, protocol},
    identity::Identity,
    revision::Revision,
    tables::{Class, EndpointId, PolicyId, Tables},
};
use worlds::{LOCAL, OTHER, REMOTE, apply, families, name, next, open, policy, reply, rule, say, world};

/// A datapath with two endpoints.
struct Bed {
    datapath: Box<dyn Datapath>,
    local: EndpointId,
    other: EndpointId,
}

impl Bed {
    fn new(mut datapath: Box<dyn Datapath>) -> Self {
        let local = datapath.attach(&name("local"), "ep0").unwrap();
        let other = datapath.attach(&name("other.with-dot"), "ep1").unwrap();
        Self { datapath, local, other }
    }

    fn world(&self) -> Tables {
        world(self.local, self.other)
    }

    fn apply(&mut self, tables: &Tables) {
        apply(&mut *self.datapath, tables);
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: ProbePacket) -> ProbeOutcome {
        self.datapath.probe(hook, endpoint, &packet).unwrap()
    }

    /// The reason at the hook of the local endpoint that the packet leaves through.
    fn sent(&mut self, packet: ProbePacket) -> Reason {
        self.outcome(Hook::FromEndpoint, packet)
    }

    /// The reason at the hook of the local endpoint that the packet comes to.
    fn received(&mut self, packet: ProbePacket) -> Reason {
        self.outcome(Hook::ToEndpoint, packet)
    }

    fn events(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        self.datapath.events(&mut |event| events.push(event)).unwrap();
        events
    }

    fn outcome(&mut self, hook: Hook, packet: ProbePacket) -> Reason {
        let outcome = self.probe(hook, self.local, packet);
        assert_eq!(outcome.allowed, outcome.reason.passes(), "{outcome:?}");
        outcome.reason
    }
}

fn default_deny(bed: &mut Bed) {
    let tables = bed.world();
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::DenyDefault);
        assert_eq!(bed.received(open(family.remote, family.local, 80)), Reason::DenyDefault);
    }
    let packets = bed.datapath.observe().unwrap().packets;
    assert_eq!(packets.get(Reason::DenyDefault), 4);
    assert_eq!(packets.iter().map(|(_, count)| count).sum::<u64>(), 4);
}

fn exact_rule_allows_its_port_only(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        let packet = open(family.local, family.remote, 80);
        assert_eq!(bed.sent(packet), Reason::New);
        assert_eq!(bed.sent(next(packet)), Reason::Established);
        assert_eq!(bed.sent(open(family.local, family.remote, 81)), Reason::DenyDefault);
        assert_eq!(bed.sent(open(family.local, family.world, 80)), Reason::DenyDefault);
        assert_eq!(bed.received(open(family.remote, family.local, 80)), Reason::DenyDefault);
        let udp = ProbePacket { protocol: protocol::UDP, kind: PacketKind::Data, ..packet };
        assert_eq!(bed.sent(udp), Reason::DenyDefault);
    }
}

fn any_peer_and_peer_only_rules(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, None, 443, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Ingress, Some(REMOTE), 0, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.world, 443)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.unknown, 443)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.world, 80)), Reason::DenyDefault);
        assert_eq!(bed.received(open(family.remote, family.local, 9)), Reason::New);
        assert_eq!(bed.received(open(family.world, family.local, 9)), Reason::DenyDefault);
        let echo = ProbePacket {
            protocol: if family.local.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 },
            ..open(family.remote, family.local, 0)
        };
        assert_eq!(bed.received(echo), Reason::New, "no port, no protocol: everything");
    }
}

fn deny_4_explicit_deny_wins_over_a_wider_allow(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, None, 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Deny);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::DenyExplicit);
        assert_eq!(bed.sent(open(family.local, family.world, 80)), Reason::New);
    }
}

fn s9_an_endpoint_without_a_realised_revision_is_refused(bed: &mut Bed) {
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::NotRealised);
        assert_eq!(bed.received(open(family.remote, family.local, 80)), Reason::NotRealised);
    }
    let mut tables = bed.world();
    tables.endpoints.remove(&bed.local);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::NotRealised);
    }
}

fn s1_both_ends_on_one_node_are_judged_at_once(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(OTHER), 80, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        let packet = open(family.local, family.other, 80);
        assert_eq!(bed.sent(packet), Reason::DenyDefault, "the receiver refuses it");
    }
    rule(&mut tables, OTHER, Direction::Ingress, Some(LOCAL), 80, Class::Allow);
    bed.apply(&tables);
    let (local, other) = (bed.local, bed.other);
    for family in families() {
        let packet = open(family.local, family.other, 80);
        let sent = bed.probe(Hook::FromEndpoint, local, packet);
        assert_eq!(sent, ProbeOutcome { allowed: true, reason: Reason::New, judged_both: true });
        let marked = ProbePacket { judged: true, ..packet };
        let received = bed.probe(Hook::ToEndpoint, other, marked);
        assert_eq!(received, ProbeOutcome { allowed: true, reason: Reason::Judged, judged_both: false });
        let answered = bed.probe(Hook::FromEndpoint, other, reply(packet));
        assert_eq!(answered, ProbeOutcome { allowed: true, reason: Reason::Established, judged_both: true });
        // An endpoint's own mark buys nothing: what leaves it is judged, and marked anew.
        let forged = ProbePacket { judged: true, ..open(family.local, family.remote, 80) };
        assert_eq!(bed.sent(forged), Reason::DenyDefault);
    }
}

fn replies_of_a_known_connection_pass(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        let packet = open(family.local, family.remote, 80);
        assert_eq!(bed.received(reply(packet)), Reason::DenyDefault, "nobody asked");
        assert_eq!(bed.sent(packet), Reason::New);
        assert_eq!(bed.received(reply(packet)), Reason::Established);
        let backwards = ProbePacket { kind: PacketKind::Open, ..reply(packet) };
        assert_eq!(bed.received(backwards), Reason::DenyDefault, "a SYN from the other side is another connection");
    }
}

fn a_flip_cuts_revoked_connections_and_keeps_the_others(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 81, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.remote, 81)), Reason::New);
    }
    let mut revoked = bed.world();
    rule(&mut revoked, LOCAL, Direction::Egress, Some(REMOTE), 81, Class::Allow);
    bed.apply(&revoked);
    for family in families() {
        let (cut, kept) = (open(family.local, family.remote, 80), open(family.local, family.remote, 81));
        assert_eq!(bed.received(reply(cut)), Reason::DenyDefault);
        assert_eq!(bed.sent(next(cut)), Reason::DenyDefault);
        assert_eq!(bed.received(reply(kept)), Reason::Reevaluated);
        assert_eq!(bed.sent(next(kept)), Reason::Established);
    }
}

fn senders_must_own_their_address(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, None, 80, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        for stolen in [family.other, family.remote, family.unknown, family.world] {
            assert_eq!(bed.sent(open(stolen, family.remote, 80)), Reason::Spoofed);
        }
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
    }
    // The address goes to the other endpoint: a connection that is open must not go on in its name.
    for family in families() {
        let entry = tables.addresses[&family.other];
        tables.addresses.insert(family.local, entry);
    }
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(next(open(family.local, family.remote, 80))), Reason::Spoofed);
    }
}

fn s12_an_unknown_address_of_the_mesh_is_not_world(bed: &mut Bed) {
    let mut tables = bed.world();
    for family in families() {
        rule(&mut tables, LOCAL, Direction::Egress, Some(family.world_identity), 80, Class::Allow);
    }
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.world, 80)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.unknown, 80)), Reason::DenyDefault);
    }
    // Control: without the range, a pod that nobody knows yet is world, and passes.
    let mut without = tables.clone();
    without.ranges.clear();
    bed.apply(&without);
    for family in families() {
        assert_eq!(bed.sent(ProbePacket { source_port: 7, ..open(family.local, family.unknown, 80) }), Reason::New);
    }
    bed.apply(&tables);
    // A range of one family says nothing about the other one.
    tables.ranges.insert("::/0".parse().unwrap(), REMOTE);
    bed.apply(&tables);
    let [v4, v6] = families();
    assert_eq!(bed.sent(open(v4.local, v4.world, 80)), Reason::Reevaluated);
    assert_eq!(bed.sent(open(v6.local, v6.world, 80)), Reason::DenyDefault);
    assert_eq!(bed.sent(open(v6.local, v6.unknown, 80)), Reason::DenyDefault, "the longer prefix wins");
}

/// Tables in which the local endpoint may reach `count` identities from `first` on, in a row each.
fn many_rows(bed: &Bed, first: u32, count: u32) -> Tables {
    let mut tables = bed.world();
    for peer in first..first + count {
        rule(&mut tables, LOCAL, Direction::Egress, Some(Identity::from_bits(peer)), 80, Class::Allow);
    }
    tables
}

fn s10_overflow_keeps_the_old_revision_whole(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    let before = bed.datapath.observe().unwrap();
    let mut too_many_ports = tables.clone();
    for protocol in 10..10 + u8::try_from(SMALL.ports).unwrap() {
        say(&mut too_many_ports, policy(LOCAL), Direction::Ingress, None, Some((protocol, 1)), Class::Allow);
    }
    for (too_many, table, most) in
        [(many_rows(bed, 5000, SMALL.rows + 1), Table::Rows, SMALL.rows), (too_many_ports, Table::Ports, SMALL.ports)]
    {
        let refused = bed.datapath.apply(Revision(9), &tables.diff(&too_many));
        assert!(
            matches!(refused, Err(ApplyError::Full { table: full, capacity, .. }) if (full, capacity) == (table, most)),
            "{refused:?}"
        );
        assert_eq!(bed.datapath.observe().unwrap(), before);
    }
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.remote, 1000)), Reason::DenyDefault);
    }
    // A full table can be exchanged for another full one.
    for first in [6000, 7000] {
        let full = many_rows(bed, first, SMALL.rows);
        bed.apply(&full);
    }
}

fn s3_revisions_never_go_back(bed: &mut Bed) {
    let tables = bed.world();
    bed.datapath.apply(Revision(5), &Tables::default().diff(&tables)).unwrap();
    let generation = bed.datapath.observe().unwrap().generation;
    let applied = bed.datapath.apply(Revision(6), &tables.diff(&tables)).unwrap();
    assert_eq!((applied.generation, applied.entries), (generation, 0), "the same tables need no flip");
    let back = bed.datapath.apply(Revision(5), &tables.diff(&Tables::default()));
    assert!(matches!(back, Err(ApplyError::Backwards { current: Revision(6), .. })), "{back:?}");
    let observed = bed.datapath.observe().unwrap();
    assert_eq!((observed.revision, observed.tables), (Revision(6), tables));
}

fn neighbour_discovery_and_echo(bed: &mut Bed) {
    let mut tables = bed.world();
    for (protocol, query) in [(protocol::ICMP, 8), (protocol::ICMPV6, 128)] {
        say(&mut tables, policy(LOCAL), Direction::Egress, Some(REMOTE), Some((protocol, query)), Class::Allow);
    }
    bed.apply(&tables);
    let [v4, v6] = families();
    let packet = open(v6.local, v6.unknown, 0);
    let solicitation = ProbePacket { protocol: protocol::ICMPV6, kind: PacketKind::NeighbourDiscovery, ..packet };
    assert_eq!(bed.sent(solicitation), Reason::NeighbourDiscovery);
    let echo = ProbePacket { protocol: protocol::ICMPV6, ..open(v6.unknown, v6.local, 128) };
    assert_eq!(bed.received(echo), Reason::DenyDefault, "an echo request is not one");
    for (family, protocol, query) in [(v4, protocol::ICMP, 8), (v6, protocol::ICMPV6, 128)] {
        let echo = ProbePacket { protocol, ..open(family.local, family.remote, query) };
        assert_eq!(bed.received(reply(echo)), Reason::DenyDefault, "6.5/13: nobody asked");
        assert_eq!(bed.sent(echo), Reason::New);
        assert_eq!(bed.received(reply(echo)), Reason::Established);
        assert_eq!(
            bed.received(reply(ProbePacket { source_port: 1, ..echo })),
            Reason::DenyDefault,
            "another identifier"
        );
        let asked = ProbePacket { source: family.remote, destination: family.local, ..echo };
        assert_eq!(bed.received(asked), Reason::DenyDefault, "a query of the other side is no answer");
        let other = ProbePacket { destination_port: 13, ..echo };
        assert_eq!(bed.sent(other), Reason::DenyDefault, "another type");
    }
}

fn icmp_errors_pass_with_the_connection_they_are_about(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Ingress, Some(REMOTE), 53, Class::Allow);
    bed.apply(&tables);
    let about = |packet| ProbePacket { kind: PacketKind::Error, ..reply(packet) };
    for family in families() {
        let packet = open(family.local, family.remote, 80);
        assert_eq!(bed.received(about(packet)), Reason::Unrelated, "nothing is known of it");
        assert_eq!(bed.sent(packet), Reason::New);
        assert_eq!(bed.received(about(packet)), Reason::Related);
        let other = ProbePacket { source_port: 1, ..packet };
        assert_eq!(bed.received(about(other)), Reason::Unrelated);
        assert_eq!(bed.received(reply(next(packet))), Reason::Established, "an error closes nothing");
        let asked = open(family.remote, family.local, 53);
        assert_eq!(bed.sent(about(asked)), Reason::Unrelated);
        assert_eq!(bed.received(asked), Reason::New);
        assert_eq!(bed.sent(about(asked)), Reason::Related);
    }
    let refused = bed.world();
    bed.apply(&refused);
    for family in families() {
        let packet = open(family.local, family.remote, 80);
        assert_eq!(bed.received(about(packet)), Reason::DenyDefault, "the connection is not allowed any more");
        assert_eq!(bed.received(about(packet)), Reason::Unrelated);
    }
}

fn ct_4_an_endpoint_reaches_itself(bed: &mut Bed) {
    let tables = bed.world();
    bed.apply(&tables);
    for family in families() {
        let packet = open(family.local, family.local, 80);
        let sent = bed.probe(Hook::FromEndpoint, bed.local, packet);
        assert_eq!(sent, ProbeOutcome { allowed: true, reason: Reason::Hairpin, judged_both: true });
        assert_eq!(bed.received(packet), Reason::DenyDefault, "without the sender's mark it came from elsewhere");
        assert_eq!(bed.sent(open(family.local, family.other, 80)), Reason::DenyDefault);
    }
}

fn aud_2_what_is_refused_under_audit_passes_and_is_counted(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Deny);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 81, Class::Redirect);
    bed.apply(&tables);
    let cases = [
        (79, Reason::DenyDefault, Reason::AuditDefault),
        (80, Reason::DenyExplicit, Reason::AuditExplicit),
        (81, Reason::NoProxy, Reason::AuditNoProxy),
    ];
    for family in families() {
        for (port, refused, _) in cases {
            assert_eq!(bed.sent(open(family.local, family.remote, port)), refused);
        }
    }
    tables.endpoints.get_mut(&bed.local).unwrap().audit = true;
    bed.apply(&tables);
    for family in families() {
        for (port, _, audited) in cases {
            let packet = open(family.local, family.remote, port);
            assert_eq!(bed.sent(packet), audited);
            assert_eq!(bed.received(reply(packet)), Reason::Established, "its answers are not refusals");
        }
        assert_eq!(bed.sent(open(family.local, family.other, 80)), Reason::DenyDefault, "the receiver is not audited");
        assert_eq!(bed.sent(open(family.unknown, family.remote, 80)), Reason::Spoofed, "policy alone is audited");
    }
    let packets = bed.datapath.observe().unwrap().packets;
    assert_eq!(
        cases.map(|(_, refused, audited)| (packets.get(refused), packets.get(audited))),
        [(4, 2), (2, 2), (2, 2)]
    );
}

fn aud_1_a_shadow_policy_is_only_reported(bed: &mut Bed) {
    let mut tables = bed.world();
    let shadow = PolicyId(77);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    say(&mut tables, shadow, Direction::Egress, Some(REMOTE), Some((protocol::TCP, 81)), Class::Allow);
    tables.endpoints.get_mut(&bed.local).unwrap().shadow = Some(shadow);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.sent(open(family.local, family.remote, 81)), Reason::DenyDefault);
        assert_eq!(bed.sent(open(family.local, family.remote, 82)), Reason::DenyDefault);
    }
    let tallies = bed.datapath.observe().unwrap().tallies;
    assert_eq!((tallies.get(Tally::ShadowRefuses), tallies.get(Tally::ShadowAllows)), (2, 2));
    let differs: Vec<bool> = bed.events().iter().map(|event| event.shadow_differs).collect();
    assert_eq!(differs, [true, true, false, true, true, false]);
}

fn s16_events_say_what_began_what_was_cut_and_what_was_dropped(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    assert_eq!(bed.events(), []);
    let revision = bed.datapath.observe().unwrap().revision;
    for family in families() {
        let packet = open(family.local, family.remote, 80);
        assert_eq!(bed.sent(packet), Reason::New);
        assert_eq!(bed.sent(next(packet)), Reason::Established);
        assert_eq!(bed.received(reply(packet)), Reason::Established);
        assert_eq!(bed.received(open(family.remote, family.local, 7)), Reason::DenyDefault);
        let [began, dropped] = bed.events()[..] else { panic!("one began, one was dropped") };
        let expected = FlowEvent {
            time_ns: began.time_ns,
            revision,
            reason: Reason::New,
            endpoint: bed.local,
            identity: LOCAL,
            peer: REMOTE,
            local: (family.local, 40_000),
            remote: (family.remote, 80),
            protocol: protocol::TCP,
            packet: Direction::Egress,
            direction: Direction::Egress,
            policy: Some(policy(LOCAL)),
            port: 80,
            band: 1,
            shadow_differs: false,
            cut: false,
        };
        assert_eq!(began, expected);
        let expected = FlowEvent {
            time_ns: dropped.time_ns,
            reason: Reason::DenyDefault,
            local: (family.local, 7),
            remote: (family.remote, 40_000),
            packet: Direction::Ingress,
            direction: Direction::Ingress,
            port: 7,
            band: 0,
            ..expected
        };
        assert_eq!(dropped, expected);
    }
    let revoked = bed.world();
    bed.apply(&revoked);
    for family in families() {
        assert_eq!(bed.received(reply(open(family.local, family.remote, 80))), Reason::DenyDefault);
        let [cut] = bed.events()[..] else { panic!("one was cut") };
        assert!(cut.cut && cut.revision == revision.next(), "{cut:?}");
        assert_eq!((cut.direction, cut.packet), (Direction::Egress, Direction::Ingress));
    }
    for family in families() {
        // The receiver's policy refuses what the sender's lets through: it is the receiver who is named.
        let mut tables = bed.world();
        rule(&mut tables, LOCAL, Direction::Egress, Some(OTHER), 80, Class::Allow);
        bed.apply(&tables);
        assert_eq!(bed.sent(open(family.local, family.other, 80)), Reason::DenyDefault);
        let [refused] = bed.events()[..] else { panic!("one was dropped") };
        assert_eq!((refused.endpoint, refused.identity, refused.peer), (bed.other, OTHER, LOCAL));
        bed.apply(&revoked);
    }
}

fn s16_what_is_not_delivered_is_counted(bed: &mut Bed) {
    let tables = bed.world();
    bed.apply(&tables);
    let [v4, _] = families();
    let told = 25_000;
    for _ in 0..told {
        assert_eq!(bed.sent(open(v4.local, v4.remote, 80)), Reason::DenyDefault);
    }
    let delivered = bed.events().len() as u64;
    let tallies = bed.datapath.observe().unwrap().tallies;
    let count = |tally| tallies.get(tally);
    assert_eq!(count(Tally::EventsWritten), delivered);
    assert_eq!(delivered + count(Tally::EventsSuppressed) + count(Tally::EventsLost), told, "{tallies:?}");
    assert_eq!(bed.events(), [], "each is handed over once");
}

fn bands_count_their_packets(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(OTHER), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, Some(OTHER), 81, Class::Allow);
    rule(&mut tables, OTHER, Direction::Ingress, Some(LOCAL), 80, Class::Allow);
    bed.apply(&tables);
    for family in families() {
        let packet = open(family.local, family.other, 80);
        for packet in [packet, next(packet), next(packet), next(packet)] {
            assert!(bed.probe(Hook::FromEndpoint, bed.local, packet).allowed);
        }
        assert!(bed.probe(Hook::FromEndpoint, bed.other, reply(packet)).allowed);
        assert_eq!(bed.sent(open(family.local, family.other, 81)), Reason::DenyDefault);
        assert_eq!(bed.sent(open(family.local, family.other, 82)), Reason::DenyDefault);
    }
    let bands = |bed: &Bed| -> Vec<_> {
        let bands = bed.datapath.bands().unwrap();
        let mut bands: Vec<_> = bands.into_iter().filter_map(|report| Some((report.band?, report.counter))).collect();
        bands.sort_by_key(|(band, _)| *band);
        bands.into_iter().map(|(band, count)| (band, count.allowed_packets, count.refused_packets)).collect()
    };
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let expected = [
        ((policy(LOCAL), egress, 0), 0, 2),
        ((policy(LOCAL), egress, 1), 10, 0),
        // Refused by the receiver, in the band of the ports that its policy does not name.
        ((policy(OTHER), ingress, 0), 0, 2),
        ((policy(OTHER), ingress, 1), 10, 0),
    ];
    let counted = bands(bed);
    let named: Vec<_> = counted.into_iter().filter(|(_, allowed, refused)| allowed + refused != 0).collect();
    assert_eq!(named, expected);
    let mut moved = tables.clone();
    moved.endpoints.get_mut(&bed.other).unwrap().policy = PolicyId(78);
    bed.apply(&moved);
    assert!(bands(bed).iter().all(|((policy, ..), ..)| *policy != worlds::policy(OTHER)), "gone with the policy");
    assert!(bands(bed).contains(&((policy(LOCAL), egress, 1), 10, 0)));
}

fn verify_finds_nothing_where_nothing_was_changed(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    let before = bed.datapath.observe().unwrap();
    assert_eq!(bed.datapath.verify(&tables).unwrap(), Verified { served: 0, unserved: 0 });
    assert_eq!(bed.datapath.observe().unwrap(), before);
    // The same in parts, with a revision before each of them.
    let mut reading = Reading::default();
    for part in 0.. {
        if let Some(verified) = bed.datapath.verify_part(&tables, &mut reading).unwrap() {
            assert_eq!(verified, Verified { served: 0, unserved: 0 });
            assert!(part > 6, "two sets, each with what is few, addresses and rows: {part}");
            return;
        }
        let port = if part % 2 == 0 { 443 } else { 8443 };
        rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), port, Class::Allow);
        bed.apply(&tables);
    }
}

fn a_reader_finds_what_was_applied_and_what_is_open(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 81, Class::Deny);
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.sent(next(open(family.local, family.remote, 80))), Reason::Established);
    }
    let reader = bed.datapath.reader().unwrap();
    let observed = bed.datapath.observe().unwrap();
    let head = reader.head().unwrap();
    assert_eq!((head.generation, head.revision), (observed.generation, observed.revision));
    let mut read = Tables::default();
    let go_on = ControlFlow::Continue(());
    let strays = [
        reader.addresses(&mut |(key, entry)| {
            assert_eq!(read.addresses.insert(key, entry), None);
            go_on
        }),
        reader.ranges(&mut |(key, entry)| {
            assert_eq!(read.ranges.insert(key, entry), None);
            go_on
        }),
        reader.endpoints(&mut |(key, entry)| {
            assert_eq!(read.endpoints.insert(key, entry), None);
            go_on
        }),
        reader.ports(&mut |(key, entry)| {
            assert_eq!(read.ports.insert(key, entry), None);
            go_on
        }),
        reader.rows(&mut |(key, entry)| {
            assert_eq!(read.rows.insert(key, entry), None);
            go_on
        }),
    ];
    assert!(strays.into_iter().all(|strays| strays.unwrap() == 0));
    assert_eq!(read, tables);
    assert_eq!(reader.bands().unwrap(), bed.datapath.bands().unwrap());
    let mut connections = Vec::new();
    let all = &mut |connection| {
        connections.push(connection);
        go_on
    };
    reader.connections(all).unwrap();
    connections.sort_by_key(|connection: &Connection| connection.local);
    for (connection, family) in connections.iter().zip(families()) {
        let expected = Connection {
            endpoint: bed.local,
            peer_is_local: false,
            local: (family.local, 40_000),
            remote: (family.remote, 80),
            protocol: protocol::TCP,
            direction: Direction::Egress,
            phase: Phase::Established,
            port: 80,
            generation: head.generation,
            last_seen_ns: connection.last_seen_ns,
        };
        assert_eq!(*connection, expected);
        assert!(head.now_ns.saturating_sub(connection.last_seen_ns) < 60_000_000_000, "{connection:?} {head:?}");
    }
    assert_eq!(connections.len(), 2);
    let mut count = 0;
    let first_only = &mut |_| {
        count += 1;
        ControlFlow::Break(())
    };
    reader.addresses(first_only).unwrap();
    assert_eq!(count, 1, "whoever has enough gets no more");
}

fn attach_is_idempotent_and_says_what_is_wrong(bed: &mut Bed) {
    let (local, other) = (name("local"), name("other.with-dot"));
    assert_eq!(bed.datapath.attach(&local, "ep0").unwrap(), bed.local);
    let expected = [(local.clone(), bed.local), (other.clone(), bed.other)].into();
    assert_eq!(bed.datapath.attached(), expected);
    assert!(matches!(
        bed.datapath.attach(&local, "ep1"),
        Err(AttachError::Taken { .. } | AttachError::Elsewhere { .. })
    ));
    assert!(matches!(bed.datapath.attach(&name("third"), "ep0"), Err(AttachError::Taken { .. })));
    assert!(matches!(bed.datapath.detach(&name("third")), Err(AttachError::NotAttached { .. })));
    assert_eq!(bed.datapath.attached(), expected);
    bed.datapath.detach(&local).unwrap();
    assert_eq!(bed.datapath.attached(), [(other, bed.other)].into());
    bed.datapath.attach(&local, "ep0").unwrap();
}

fn a_probe_that_cannot_be_is_refused(bed: &mut Bed) {
    let [v4, v6] = families();
    let local = bed.local;
    let mixed = open(v4.local, v6.remote, 80);
    let wrong = ProbePacket { protocol: protocol::UDP, ..open(v4.local, v4.remote, 80) };
    for packet in [mixed, wrong] {
        assert!(bed.datapath.probe(Hook::FromEndpoint, local, &packet).is_err());
    }
}

/// An address that another endpoint gets, or that comes back later, means its new owner from the first packet on.
fn a_reused_address_never_has_the_old_identity(bed: &mut Bed) {
    let mut tables = bed.world();
    rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
    rule(&mut tables, LOCAL, Direction::Ingress, Some(REMOTE), 80, Class::Allow);
    bed.apply(&tables);
    let from_remote = |family: worlds::Family| open(family.remote, family.local, 80);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.received(from_remote(family)), Reason::New);
    }
    // Gone: neither its connections nor new ones are those of the old identity, and it is not world either.
    let mut gone = tables.clone();
    for family in families() {
        gone.addresses.remove(&family.remote).expect("it was there");
    }
    bed.apply(&gone);
    for family in families() {
        assert_eq!(bed.sent(next(open(family.local, family.remote, 80))), Reason::DenyDefault);
        assert_eq!(bed.received(next(from_remote(family))), Reason::DenyDefault);
    }
    // Somebody else's.
    let mut reused = tables.clone();
    for family in families() {
        reused.addresses.get_mut(&family.remote).unwrap().identity = Identity::from_bits(0x0020_0999);
    }
    for before in [&gone, &tables] {
        bed.apply(before);
        bed.apply(&reused);
        for family in families() {
            for packet in [open(family.local, family.remote, 80), next(open(family.local, family.remote, 80))] {
                assert_eq!(bed.sent(packet), Reason::DenyDefault);
            }
            assert_eq!(bed.received(from_remote(family)), Reason::DenyDefault);
        }
    }
    // Control: the same packets pass under the old identity.
    bed.apply(&tables);
    for family in families() {
        assert_eq!(bed.sent(open(family.local, family.remote, 80)), Reason::New);
        assert_eq!(bed.received(from_remote(family)), Reason::New);
    }
}

/// Small enough to overflow, large enough for every other case.
const SMALL: Capacity = Capacity { addresses: 64, ranges: 8, endpoints: 4, ports: 8, rows: 8, flows: 1024 };

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $case() {
                super::$case(&mut super::Bed::new(Box::new(ringfence_datapath::MemoryDatapath::new(super::SMALL))));
            })*
        }
        #[cfg(feature = "kernel")]
        mod kernel {
            $(#[test] fn $case() {
                super::namespaces::in_own_namespaces(concat!("kernel::", stringify!($case)), || {
                    super::$case(&mut super::Bed::new(Box::new(super::in_kernel::open(true))));
                });
            })*
        }
        /// As on a kernel without TCX.
        #[cfg(feature = "kernel")]
        mod clsact {
            $(#[test] fn $case() {
                super::namespaces::in_own_namespaces(concat!("clsact::", stringify!($case)), || {
                    super::$case(&mut super::Bed::new(Box::new(super::in_kernel::open(false))));
                });
            })*
        }
    };
}

cases!(
    default_deny,
    exact_rule_allows_its_port_only,
    any_peer_and_peer_only_rules,
    deny_4_explicit_deny_wins_over_a_wider_allow,
    s9_an_endpoint_without_a_realised_revision_is_refused,
    s1_both_ends_on_one_node_are_judged_at_once,
    replies_of_a_known_connection_pass,
    a_flip_cuts_revoked_connections_and_keeps_the_others,
    senders_must_own_their_address,
    a_reused_address_never_has_the_old_identity,
    s12_an_unknown_address_of_the_mesh_is_not_world,
    s10_overflow_keeps_the_old_revision_whole,
    s3_revisions_never_go_back,
    neighbour_discovery_and_echo,
    icmp_errors_pass_with_the_connection_they_are_about,
    ct_4_an_endpoint_reaches_itself,
    aud_2_what_is_refused_under_audit_passes_and_is_counted,
    aud_1_a_shadow_policy_is_only_reported,
    s16_events_say_what_began_what_was_cut_and_what_was_dropped,
    s16_what_is_not_delivered_is_counted,
    bands_count_their_packets,
    verify_finds_nothing_where_nothing_was_changed,
    a_reader_finds_what_was_applied_and_what_is_open,
    attach_is_idempotent_and_says_what_is_wrong,
    a_probe_that_cannot_be_is_refused,
);

/// What only the kernel can do: outlive the process that opened it.
#[cfg(feature = "kernel")]
mod in_kernel {
    use std::{
        net::IpAddr,
        path::{Path, PathBuf},
        process::Command,
        time::{Duration, Instant},
    };

    use aya::{
        maps::{Array, Map, MapData},
        programs::{SchedClassifier, TcAttachType},
    };
    use ringfence_datapath::{
        AttachError, Capacity, Datapath, Hook, KernelDatapath, KernelOptions, ProbePacket, Reading, Reason, Tally,
        Verified,
        kernel::{OpenError, pin_directory, uninstall},
    };
    use ringfence_policy::{
        flow::Direction,
        identity::Identity,
        tables::{AddressEntry, Class, EndpointId, Tables},
    };

    use super::{
        LOCAL, REMOTE, SMALL,
        cells::Cells,
        families,
        namespaces::{BPFFS, in_own_namespaces, ip},
        worlds::{apply, name, next, open as open_connection, reply, rule, world},
    };

    fn options(tcx: bool) -> KernelOptions {
        KernelOptions { directory: pin_directory(Path::new(BPFFS), &name("node-1.east")), capacity: SMALL, tcx }
    }

    pub(super) fn open(tcx: bool) -> KernelDatapath {
        for endpoint in 0..2 {
            ip(&format!("link add ep{endpoint} type veth peer name peer{endpoint}"));
        }
        KernelDatapath::open(&options(tcx)).unwrap()
    }

    /// Each with TCX, and as on a kernel without.
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {
            mod with_tcx {
                $(#[test] fn $case() {
                    super::in_own_namespaces(concat!("in_kernel::with_tcx::", stringify!($case)), || super::$case(true));
                })*
            }
            mod with_clsact {
                $(#[test] fn $case() {
                    let name = concat!("in_kernel::with_clsact::", stringify!($case));
                    super::in_own_namespaces(name, || super::$case(false));
                })*
            }
        };
    }

    cases!(
        s8_a_restart_changes_nothing,
        a_device_that_was_made_anew_is_attached_anew,
        what_somebody_else_changed_is_found_and_repaired,
        uninstall_leaves_nothing,
        detaching_takes_both_programs_off,
        what_was_not_attached_whole_is_not_adopted_and_can_be_attached,
    );

    fn s8_a_restart_changes_nothing(tcx: bool) {
        let mut datapath = open(tcx);
        let local = datapath.attach(&name("local"), "ep0").unwrap();
        let other = datapath.attach(&name("other"), "ep1").unwrap();
        let mut tables = world(local, other);
        rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
        apply(&mut datapath, &tables);
        let packets = families().map(|family| open_connection(family.local, family.remote, 80));
        for packet in packets {
            assert_eq!(datapath.probe(Hook::FromEndpoint, local, &packet).unwrap().reason, Reason::New);
        }
        let (observed, attached) = (datapath.observe().unwrap(), datapath.attached());
        assert!(matches!(KernelDatapath::open(&options(tcx)), Err(OpenError::InUse { .. })), "one writer at a time");
        drop(datapath);
        let mut datapath = KernelDatapath::open(&options(tcx)).unwrap();
        assert_eq!((datapath.observe().unwrap(), datapath.attached()), (observed, attached));
        for packet in packets {
            let reason = datapath.probe(Hook::FromEndpoint, local, &next(packet)).unwrap().reason;
            assert_eq!(reason, Reason::Established, "connections outlive the process");
        }
        assert_eq!(datapath.attach(&name("local"), "ep0").unwrap(), local);
    }

    fn a_device_that_was_made_anew_is_attached_anew(tcx: bool) {
        let mut datapath = open(tcx);
        let first = datapath.attach(&name("local"), "ep0").unwrap();
        ip("link del ep0");
        ip("link add ep0 type veth peer name peer0");
        let second = datapath.attach(&name("local"), "ep0").unwrap();
        assert_ne!(first, second);
        ip("link del ep0");
        drop(datapath);
        let mut datapath = KernelDatapath::open(&options(tcx)).unwrap();
        assert!(datapath.attached().is_empty(), "its device is gone");
        assert!(matches!(datapath.attach(&name("local"), "ep0"), Err(AttachError::NoInterface { .. })));
        assert!(matches!(datapath.attach(&name("loop"), "lo"), Err(AttachError::NotEthernet { .. })));
    }

    fn rows(set: usize) -> Cells {
        Cells::open(&options(true).directory.join(format!("v4/ROWS_{set}")))
    }

    fn what_somebody_else_changed_is_found_and_repaired(tcx: bool) {
        let mut datapath = open(tcx);
        let local = datapath.attach(&name("local"), "ep0").unwrap();
        let mut tables = world(local, EndpointId(9999));
        rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
        apply(&mut datapath, &tables);
        let [v4, _] = families();
        let probe = |datapath: &mut KernelDatapath, source_port, port| {
            let packet = ProbePacket { source_port, ..open_connection(v4.local, v4.remote, port) };
            datapath.probe(Hook::FromEndpoint, local, &packet).unwrap().reason
        };
        assert_eq!(probe(&mut datapath, 1, 81), Reason::DenyDefault);
        // Every row of the set that packets read allows everything; the other one gets a row that no packet finds.
        let active = (datapath.observe().unwrap().generation & 1) as usize;
        let is_row = |words: &[u64; 4]| words[2] | words[3] != 0;
        let there: Vec<_> = rows(active).all().into_iter().filter(|(_, words)| is_row(words)).collect();
        for (index, [first, second, ..]) in &there {
            rows(active).set(*index, [*first, *second, u64::MAX, 0]);
        }
        let (free, [_, second, ..]) = rows(1 - active).all().into_iter().find(|(_, words)| !is_row(words)).unwrap();
        rows(1 - active).set(free, [u64::MAX, second, u64::MAX, 0]);
        // And page 1, which has port 80.
        let pages = MapData::from_pin(options(tcx).directory.join("v4/PAGES")).unwrap();
        let mut pages: Array<_, [u8; 512]> = Array::try_from(Map::Array(pages)).unwrap();
        pages.set(1, [7; 512], 0).unwrap();
        assert_eq!(probe(&mut datapath, 2, 300), Reason::New, "the tampering has an effect");
        assert!(datapath.observe().is_err() || datapath.observe().unwrap().tables != tables);
        let verified = in_parts(&mut datapath, &tables);
        assert_eq!((verified.served, verified.unserved), (1 + there.len(), 1));
        assert_eq!(datapath.observe().unwrap().tables, tables);
        assert_eq!(probe(&mut datapath, 2, 300), Reason::DenyDefault, "judged again");
        assert_eq!(probe(&mut datapath, 3, 80), Reason::New);
        assert_eq!(datapath.verify(&tables).unwrap(), Verified { served: 0, unserved: 0 });
        // An entry that is gone is found, too: where it should be, and by the home that points there.
        let active = (datapath.observe().unwrap().generation & 1) as usize;
        let (index, [first, second, ..]) = rows(1 - active).all().into_iter().find(|(_, words)| is_row(words)).unwrap();
        rows(1 - active).set(index, [first, second, 0, 0]);
        assert_eq!(in_parts(&mut datapath, &tables), Verified { served: 0, unserved: 2 });
        assert_eq!(in_parts(&mut datapath, &tables), Verified { served: 0, unserved: 0 });
        // How addresses and rows are found.
        let index = MapData::from_pin(options(tcx).directory.join("v4/INDEX")).unwrap();
        let mut index: Array<_, [u64; 8]> = Array::try_from(Map::Array(index)).unwrap();
        let there = index.get(&0, 0).unwrap();
        let spoilt = (40_u16..48).find(|bit| {
            // With another key an address may be looked for where it is, by chance.
            index.set(0, there.map(|word| word ^ 1 << bit), 0).unwrap();
            // A port that nobody asked about: what a CPU remembers of this generation it says again.
            probe(&mut datapath, 4, 42 + bit) == Reason::Spoofed
        });
        assert!(spoilt.is_some(), "the tampering has an effect: nobody's address is known");
        assert_eq!(datapath.verify(&tables).unwrap(), Verified { served: 1, unserved: 0 });
        assert_eq!(index.get(&0, 0).unwrap(), there);
        assert_eq!(probe(&mut datapath, 5, 80), Reason::New);
    }

    fn in_parts(datapath: &mut KernelDatapath, tables: &Tables) -> Verified {
        let mut reading = Reading::default();
        loop {
            if let Some(verified) = datapath.verify_part(tables, &mut reading).unwrap() {
                return verified;
            }
        }
    }

    /// And a process that dies while it spreads entries over more cells leaves a set that the next one puts in order.
    #[test]
    fn tables_of_addresses_and_rows_grow_as_they_fill() {
        in_own_namespaces("in_kernel::tables_of_addresses_and_rows_grow_as_they_fill", || {
            ip("link add ep0 type veth peer name peer0");
            let options = KernelOptions {
                capacity: Capacity { addresses: 4096, rows: 4096, flows: 65_536, ..SMALL },
                ..options(true)
            };
            let mut datapath = KernelDatapath::open(&options).unwrap();
            let local = datapath.attach(&name("local"), "ep0").unwrap();
            let pin = options.directory.join("v4/INDEX");
            let mut index: Array<_, [u64; 8]> = Array::try_from(Map::Array(MapData::from_pin(pin).unwrap())).unwrap();
            let mut tables = world(local, EndpointId(9999));
            // A row for each second address.
            let peer = |number: u16| (IpAddr::from([10, 2, number.to_be_bytes()[0], number.to_be_bytes()[1]]), number);
            let identity = |number: u16| Identity::from_bits(0x0030_0000 + u32::from(number));
            let judged = |datapath: &mut KernelDatapath, up_to: u16, port: u16| {
                for (address, number) in (0..up_to).step_by(7).map(peer) {
                    let packet = open_connection(families()[0].local, address, 80);
                    let packet = ProbePacket { source_port: port + number, ..packet };
                    let expected = if number % 2 == 0 { Reason::New } else { Reason::DenyDefault };
                    let reason = datapath.probe(Hook::FromEndpoint, local, &packet).unwrap().reason;
                    assert_eq!(reason, expected, "{number} of {up_to}");
                }
            };
            let mut words = Vec::new();
            for (round, up_to) in (0..).zip([20, 200, 1000, 4000]) {
                for (address, number) in (0..up_to).map(peer) {
                    tables.addresses.insert(address, AddressEntry { identity: identity(number), endpoint: None });
                    if number % 2 == 0 {
                        rule(&mut tables, LOCAL, Direction::Egress, Some(identity(number)), 80, Class::Allow);
                    }
                }
                apply(&mut datapath, &tables);
                assert_eq!(datapath.observe().unwrap().tables, tables);
                judged(&mut datapath, up_to, round * 5000);
                words.push(index.get(&0, 0).unwrap()[4..6].to_vec());
            }
            words.dedup();
            assert_eq!(words.len(), 4, "they grew each time: {words:?}");
            // `INDEX` says what it said before the last time, and some of the cells are not written yet.
            let idle = 1 - (datapath.observe().unwrap().generation & 1) as usize;
            drop(datapath);
            let mut there = index.get(&0, 0).unwrap();
            let mask = 0xffff_ffff << (32 * idle);
            there[5] = there[5] & !mask | words[2][1] & mask;
            index.set(0, there, 0).unwrap();
            let mut cells = rows(idle);
            (0..4096).step_by(3).for_each(|index| cells.set(index, [0; 4]));
            let mut datapath = KernelDatapath::open(&options).unwrap();
            assert_eq!(datapath.observe().unwrap().tables, tables);
            assert_eq!(
                datapath.verify(&tables).unwrap(),
                Verified { served: 0, unserved: 0 },
                "put in order when opened"
            );
            // Packets read the set that was broken.
            tables.addresses.remove(&peer(1).0);
            apply(&mut datapath, &tables);
            assert_eq!((datapath.observe().unwrap().generation & 1) as usize, idle);
            judged(&mut datapath, 4000, 25_000);
        });
    }

    fn uninstall_leaves_nothing(tcx: bool) {
        let mut datapath = open(tcx);
        assert_ne!(datapath.attach(&name("local"), "ep0").unwrap(), EndpointId(0));
        drop(datapath);
        let directory = options(tcx).directory;
        assert!(directory.join("v4/links/local/from_endpoint").symlink_metadata().is_ok());
        assert_eq!(programs("ep0", tcx), 2, "they outlive the process");
        uninstall(&directory).unwrap();
        assert!(!directory.exists());
        await_programs("ep0", tcx, 0);
        uninstall(&directory).unwrap();
    }

    fn detaching_takes_both_programs_off(tcx: bool) {
        let mut datapath = open(tcx);
        datapath.attach(&name("local"), "ep0").unwrap();
        datapath.attach(&name("other"), "ep1").unwrap();
        datapath.detach(&name("local")).unwrap();
        await_programs("ep0", tcx, 0);
        assert_eq!(programs("ep1", tcx), 2);
        drop(datapath);
        let adopted = KernelDatapath::open(&options(tcx)).unwrap();
        assert_eq!(adopted.attached().keys().collect::<Vec<_>>(), [&name("other")]);
        assert_eq!(programs("ep1", tcx), 2, "replaced, not added to");
    }

    /// A record without a filter is what a process leaves that dies between the two.
    fn what_was_not_attached_whole_is_not_adopted_and_can_be_attached(tcx: bool) {
        let mut datapath = open(tcx);
        let local = datapath.attach(&name("local"), "ep0").unwrap();
        drop(datapath);
        let pins = options(tcx).directory.join("v4/links/local");
        let hooks = ["from_endpoint", "to_endpoint"];
        if tcx {
            hooks.iter().for_each(|hook| std::fs::remove_file(pins.join(hook)).unwrap());
        } else {
            tc("qdisc del dev ep0 clsact");
        }
        let mut datapath = KernelDatapath::open(&options(tcx)).unwrap();
        assert!(datapath.attached().is_empty());
        assert_eq!(datapath.attach(&name("local"), "ep0").unwrap(), local);
        await_programs("ep0", tcx, 2);
    }

    #[test]
    fn a_filter_that_somebody_removed_is_put_back() {
        in_own_namespaces("in_kernel::a_filter_that_somebody_removed_is_put_back", || {
            let mut datapath = open(false);
            let local = datapath.attach(&name("local"), "ep0").unwrap();
            let tables = world(local, EndpointId(9999));
            apply(&mut datapath, &tables);
            for removal in ["filter del dev ep0 ingress", "qdisc del dev ep0 clsact"] {
                tc(removal);
                assert_ne!(programs("ep0", false), 2, "the removal has an effect");
                datapath.verify(&tables).unwrap();
                assert_eq!(programs("ep0", false), 2);
            }
        });
    }

    /// Cells of connections, as somebody else with the right to do so sees them.
    fn flows() -> Array<MapData, [u64; 8]> {
        let pin = options(true).directory.join("v4/FLOWS");
        Array::try_from(Map::Array(MapData::from_pin(pin).unwrap())).unwrap()
    }

    #[test]
    fn a_cell_that_goes_to_another_connection_is_not_believed() {
        in_own_namespaces("in_kernel::a_cell_that_goes_to_another_connection_is_not_believed", || {
            let mut datapath = open(true);
            let local = datapath.attach(&name("local"), "ep0").unwrap();
            let mut tables = world(local, EndpointId(9999));
            rule(&mut tables, LOCAL, Direction::Egress, Some(REMOTE), 80, Class::Allow);
            apply(&mut datapath, &tables);
            for family in families() {
                let packet = open_connection(family.local, family.remote, 80);
                assert_eq!(datapath.probe(Hook::FromEndpoint, local, &packet).unwrap().reason, Reason::New);
                let answer = |datapath: &mut KernelDatapath| {
                    datapath.probe(Hook::ToEndpoint, local, &reply(packet)).unwrap().reason
                };
                assert_eq!(answer(&mut datapath), Reason::Established);
                let mut flows = flows();
                let (index, cell) = (0..2 * SMALL.flows)
                    .map(|index| (index, flows.get(&index, 0).unwrap()))
                    .find(|(_, cell)| cell[6] & 0xffff_ffff != 0)
                    .unwrap();
                let mut with = |word: usize, bits: u64| {
                    let mut changed = cell;
                    changed[word] ^= bits;
                    flows.set(index, changed, 0).unwrap();
                };
                let reused = |datapath: &KernelDatapath| datapath.observe().unwrap().tallies.get(Tally::Reused);
                let before = reused(&datapath);
                // Its version says that it is being moved; each word of its key is another one's.
                with(7, 3);
                assert_eq!(answer(&mut datapath), Reason::DenyDefault);
                assert_eq!(reused(&datapath), before + 1);
                for word in 0..5 {
                    with(word, 1);
                    assert_eq!(answer(&mut datapath), Reason::DenyDefault, "word {word}");
                }
                assert_eq!(reused(&datapath), before + 1);
                with(7, 1);
                assert_eq!(answer(&mut datapath), Reason::Established, "a writer that only updates it hides nothing");
                flows.set(index, [0; 8], 0).unwrap();
            }
        });
    }

    #[test]
    fn what_the_kernel_offers_is_said() {
        in_own_namespaces("in_kernel::what_the_kernel_offers_is_said", || {
            let features = open(false).features();
            assert!(features.starts_with("Linux ") && features.contains("clsact"), "{features}");
            // Whether this kernel has it, is its own to say.
            let features = KernelDatapath::open(&options(true)).unwrap().features();
            let has_tcx = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
            assert!(features.ends_with(if has_tcx { "with TCX" } else { "Linux 6.6 has it)" }), "{features}");
        });
    }

    /// The test runs itself again without a single capability.
    #[test]
    fn without_the_right_to_load_programs_the_message_says_which_are_needed() {
        let test = "in_kernel::without_the_right_to_load_programs_the_message_says_which_are_needed";
        if std::env::var_os("RINGFENCE_TEST_WITHOUT_CAPABILITIES").is_some() {
            let refused = KernelDatapath::open(&options(true)).err().expect("nothing is permitted").to_string();
            assert!(refused.contains("the kernel does not permit BPF: run as root, or with CAP_BPF"), "{refused}");
            return;
        }
        in_own_namespaces(test, || {
            let status = Command::new("setpriv")
                .args(["--bounding-set=-all", "--inh-caps=-all", "--"])
                .arg(std::env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture"])
                .env("RINGFENCE_TEST_WITHOUT_CAPABILITIES", "1")
                .status()
                .unwrap();
            assert!(status.success());
        });
    }

    fn tc(arguments: &str) -> String {
        let output = Command::new("tc").args(arguments.split_whitespace()).output().expect("tc comes with ip");
        assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The kernel takes a link off a moment after its last descriptor and its pin are gone.
    fn await_programs(device: &str, tcx: bool, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while programs(device, tcx) != count {
            assert!(Instant::now() < deadline, "{} programs instead of {count}", programs(device, tcx));
            std::thread::yield_now();
        }
    }

    /// How many programs are on a device.
    fn programs(device: &str, tcx: bool) -> usize {
        if tcx {
            let places = [TcAttachType::Ingress, TcAttachType::Egress];
            return places.iter().map(|place| SchedClassifier::query_tcx(device, *place).unwrap().1.len()).sum();
        }
        if !tc(&format!("qdisc show dev {device}")).contains("clsact") {
            return 0;
        }
        let places = ["ingress", "egress"].map(|place| tc(&format!("filter show dev {device} {place}")));
        places.iter().map(|filters| filters.matches("direct-action").count()).sum()
    }

    #[test]
    fn pins_need_a_bpffs() {
        let folder = tempfile::tempdir().unwrap();
        let directory = PathBuf::from(folder.path()).join("not/there/yet");
        let refused = KernelDatapath::open(&KernelOptions { directory: directory.clone(), capacity: SMALL, tcx: true });
        let message = refused.err().unwrap().to_string();
        assert!(message.contains("mount -t bpf"), "{message}");
        assert!(!directory.exists());
        std::fs::write(folder.path().join("precious"), "").unwrap();
        assert!(uninstall(folder.path()).is_err());
        assert!(folder.path().join("precious").exists());
    }
}
