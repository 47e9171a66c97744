use proptest::{collection::btree_map, prelude::*};

use super::*;
use crate::flow::protocol;

fn tables() -> impl Strategy<Value = Tables> {
    let small = || btree_map(0u8..6, 0u32..3, 0..6);
    let ports = btree_map((1u32..3, 0u16..100), 1u16..70, 0..4);
    let rows = btree_map((1u32..3, 0u32..3, 0u16..2), (0u64..4, 0u64..4), 0..6);
    (small(), small(), small(), ports, rows).prop_map(|(ranges, addresses, endpoints, ports, rows)| {
        let mut tables = Tables::default();
        for (network, identity) in ranges {
            tables.ranges.insert(Cidr::new([10, network, 0, 0].into(), 16).unwrap(), Identity::from_bits(identity));
        }
        for (host, identity) in addresses {
            let entry = AddressEntry { identity: Identity::from_bits(identity), endpoint: None };
            tables.addresses.insert([10, 0, 0, host].into(), entry);
        }
        for (id, policy) in endpoints {
            let shadow = (policy == 2).then_some(PolicyId(1));
            let policy = PolicyId(policy + 1);
            let entry = EndpointEntry { identity: Identity::from_bits(256), policy, shadow, audit: id > 3 };
            tables.endpoints.insert(EndpointId(u32::from(id) + 1), entry);
        }
        for ((policy, first), band) in ports {
            let key = PortsKey { policy: PolicyId(policy), direction: Direction::Ingress, protocol: protocol::TCP };
            let from_zero = (first > 0).then_some(Interval { first: 0, band: 0 });
            let ports = from_zero.into_iter().chain([Interval { first, band }]);
            tables.ports.insert(key, PortsOfProtocol::new(ports).unwrap());
        }
        for ((policy, peer, chunk), (low, high)) in rows {
            let key = RowKey {
                policy: PolicyId(policy),
                direction: Direction::Ingress,
                peer: Identity::from_bits(peer),
                chunk,
            };
            let row = Row { low, high };
            if !row.is_empty() {
                tables.rows.insert(key, row);
            }
        }
        tables
    })
}

proptest! {
    #[test]
    fn a_diff_leads_there_and_its_inverse_back(old in tables(), new in tables()) {
        let diff = old.diff(&new);
        let mut walked = old.clone();
        walked.apply(&diff);
        prop_assert_eq!(&walked, &new);
        walked.apply(&diff.inverse());
        prop_assert_eq!(&walked, &old);
        prop_assert_eq!(diff.is_empty(), old == new);
        prop_assert_eq!(diff.inverse(), new.diff(&old));
    }

    #[test]
    fn two_diffs_joined_are_the_diff_of_the_ends(old in tables(), between in tables(), new in tables()) {
        prop_assert_eq!(old.diff(&between).then(between.diff(&new)), old.diff(&new));
        prop_assert!(old.diff(&between).then(between.diff(&old)).is_empty());
    }

    #[test]
    fn numbers_of_policies_mean_nothing(tables in tables()) {
        let other = |policy: PolicyId| PolicyId(7 - policy.0);
        let mut renumbered = Tables { addresses: tables.addresses.clone(), ranges: tables.ranges.clone(), ..Tables::default() };
        for (id, entry) in &tables.endpoints {
            let entry = EndpointEntry { policy: other(entry.policy), shadow: entry.shadow.map(other), ..*entry };
            renumbered.endpoints.insert(*id, entry);
        }
        renumbered.ports.extend(tables.ports.iter().map(|(key, ports)| (PortsKey { policy: other(key.policy), ..*key }, ports.clone())));
        renumbered.rows.extend(tables.rows.iter().map(|(key, row)| (RowKey { policy: other(key.policy), ..*key }, *row)));
        prop_assert_eq!(tables.resolved(), renumbered.resolved());
        let mut changed = tables.clone();
        if let Some(entry) = changed.endpoints.values_mut().next() {
            entry.audit = !entry.audit;
            prop_assert_ne!(tables.resolved(), changed.resolved());
        }
    }
}

const WEB: EndpointId = EndpointId(7);
const PEER: Identity = Identity::from_bits(300);

fn flow(direction: Direction, peer: Identity, protocol: u8, port: u16) -> Flow {
    Flow { subject: Identity::UNKNOWN, peer, direction, protocol, port }
}

#[test]
fn the_greater_class_of_the_peer_and_of_anyone_counts() {
    let policy = PolicyId(3);
    let mut tables = Tables::default();
    let entry = EndpointEntry { identity: Identity::from_bits(400), policy, shadow: None, audit: false };
    tables.endpoints.insert(WEB, entry);
    let (http, far) = (Interval { first: 80, band: 1 }, Interval { first: 90, band: 70 });
    let ports = PortsOfProtocol::new([Interval { first: 0, band: 0 }, http, far]).unwrap();
    tables.ports.insert(PortsKey { policy, direction: Direction::Ingress, protocol: protocol::TCP }, ports);
    let mut say = |direction, peer, band, class| {
        tables.rows.entry(RowKey::of(policy, direction, peer, band)).or_default().set(band, class);
    };
    say(Direction::Ingress, PEER, 0, Class::Allow);
    say(Direction::Ingress, PEER, 1, Class::Deny);
    say(Direction::Ingress, Identity::UNKNOWN, 1, Class::Allow);
    say(Direction::Ingress, PEER, 70, Class::Redirect);
    say(Direction::Egress, Identity::UNKNOWN, 0, Class::Allow);
    let verdict = |direction, peer, protocol, port| tables.lookup(WEB, &flow(direction, peer, protocol, port));
    let ingress = |peer, protocol, port| verdict(Direction::Ingress, peer, protocol, port);
    assert_eq!(ingress(PEER, protocol::TCP, 79), Verdict::Allow);
    assert_eq!(ingress(PEER, protocol::TCP, 80), Verdict::DenyExplicit);
    assert_eq!(ingress(Identity::WORLD, protocol::TCP, 89), Verdict::Allow);
    assert_eq!(ingress(Identity::UNKNOWN, protocol::TCP, 80), Verdict::Allow, "it reads the row for anyone");
    assert_eq!(ingress(PEER, protocol::TCP, 90), Verdict::DenyDefault, "there is no proxy yet");
    let proxied = tables.class(WEB, &flow(Direction::Ingress, PEER, protocol::TCP, u16::MAX));
    assert_eq!(proxied, Some(Class::Redirect));
    assert_eq!(ingress(PEER, protocol::UDP, 80), Verdict::Allow, "a protocol without an entry is in band 0");
    assert_eq!(ingress(Identity::WORLD, protocol::UDP, 80), Verdict::DenyDefault);
    assert_eq!(verdict(Direction::Egress, PEER, 47, 0), Verdict::Allow);
    let nobody = tables.lookup(EndpointId(8), &flow(Direction::Egress, PEER, 47, 0));
    assert_eq!(nobody, Verdict::DenyDefault, "S9");
}
