//! Groups, services and DNS names.

use ringfence_policy::{
    command::FqdnSpec,
    l7::dns_name::DnsName,
    record::{CidrGroupRecord, FqdnRecord, MAX_FQDN_ADDRESSES, ServiceRecord},
};

use super::*;

const MINUTE_MS: u64 = 60_000;

fn group(group: &str, ranges: &[&str]) -> CidrGroupRecord {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    CidrGroupRecord { name: name(group), labels: [("team".to_owned(), "a".to_owned())].into(), ranges }
}

fn service(cluster: &str, service: &str) -> ServiceRecord {
    ServiceRecord {
        cluster: name(cluster),
        namespace: name("shop"),
        name: name(service),
        labels: labels(&["k8s:app=web"]),
        cluster_addresses: vec![],
        ports: vec![],
        selector: [].into(),
        backends: vec!["10.9.0.1".parse().unwrap()],
    }
}

fn bind(name_text: &str, addresses: &[(&str, u64)]) -> Command {
    let addresses = addresses.iter().map(|(address, valid_ms)| (address.parse().unwrap(), *valid_ms)).collect();
    Command::PutFqdns(vec![FqdnSpec { cluster: name("east"), name: DnsName::new(name_text), addresses }])
}

fn bound(scene: &Scene, name_text: &str) -> Option<FqdnRecord> {
    match scene.mesh.get(&RecordKey::Fqdn(name("east"), DnsName::new(name_text))) {
        Some(Record::Fqdn(fqdn)) => Some(fqdn.clone()),
        _ => None,
    }
}

fn addresses(scene: &Scene, name_text: &str) -> Vec<String> {
    let bound = bound(scene, name_text).map_or_else(Vec::new, |fqdn| fqdn.addresses);
    bound.iter().map(|bound| bound.address.to_string()).collect()
}

#[test]
fn policies_and_groups_come_in_one_revision_and_go_one_by_one() {
    let mut scene = Scene::new();
    let before = scene.mesh.revision();
    let groups = vec![group("partners", &["10.0.0.0/8"]), group("partners", &["192.0.2.0/24"])];
    let put = Command::PutObjects { policies: vec![policy("a", "1")], groups };
    assert_eq!(scene.run(&put).unwrap().0, 2);
    assert_eq!(scene.run(&put).unwrap().0, 0);
    assert_eq!(scene.mesh.revision(), before.next());
    let groups: Vec<_> = scene.mesh.cidr_groups().cloned().collect();
    assert_eq!(groups, [group("partners", &["192.0.2.0/24"])], "the last one given counts");
    let key = RecordKey::CidrGroup(name("partners"));
    scene.run(&Command::Delete(key.clone())).unwrap();
    assert_eq!(scene.refused(&Command::Delete(key.clone())), Refusal::NotFound { key });
}

#[test]
fn services_belong_to_their_cluster() {
    let mut scene = Scene::new();
    let put = Command::PutServices(vec![service("east", "web"), service("west", "web"), service("east", "api")]);
    assert_eq!(scene.run(&put).unwrap().0, 3);
    assert_eq!(scene.run(&put).unwrap().0, 0);
    let lost = Command::PutServices(vec![service("east", "new"), service("south", "new")]);
    assert_eq!(scene.refused(&lost), Refusal::UnknownCluster { cluster: name("south") });
    scene.run(&Command::Delete(RecordKey::Node(name("east"), name("n1")))).unwrap();
    let key = RecordKey::Cluster(name("east"));
    let user = RecordKey::Service(name("east"), name("shop"), name("api"));
    assert_eq!(scene.refused(&Command::Delete(key.clone())), Refusal::InUse { key, user: user.clone() });
    scene.run(&Command::Delete(user)).unwrap();
    assert_eq!(scene.mesh.services().count(), 2);
}

#[test]
fn a_dns_name_keeps_an_address_until_its_last_time_is_over() {
    let mut scene = Scene::new();
    scene.run(&bind("API.example.com", &[("192.0.2.1", 1000), ("192.0.2.2", 5 * MINUTE_MS)])).unwrap();
    assert_eq!(addresses(&scene, "api.example.com."), ["192.0.2.1", "192.0.2.2"]);
    let revision = scene.mesh.revision();
    for _ in 0..20 {
        scene.run(&bind("api.example.com", &[("192.0.2.1", 1000)])).unwrap();
    }
    assert_eq!(scene.mesh.revision(), revision, "a chatty name makes no revisions");
    scene.pass(MINUTE_MS - 1);
    assert_eq!(addresses(&scene, "api.example.com").len(), 2, "never early");
    scene.pass(1);
    assert_eq!(addresses(&scene, "api.example.com"), ["192.0.2.2"]);
    // A shorter time takes nothing away.
    scene.run(&bind("api.example.com", &[("192.0.2.2", 1)])).unwrap();
    scene.pass(4 * MINUTE_MS);
    assert_eq!(addresses(&scene, "api.example.com"), ["192.0.2.2"]);
    scene.pass(2 * MINUTE_MS);
    assert_eq!(bound(&scene, "api.example.com"), None);
    assert!(!scene.book.needs_ticks());
    let empty = bind("api.example.com", &[]);
    assert_eq!(scene.refused(&empty), Refusal::NoFqdnAddress { name: DnsName::new("api.example.com") });
}

#[test]
fn a_dns_name_keeps_the_addresses_that_last_longest_when_there_are_too_many() {
    let mut scene = Scene::new();
    let count = u32::try_from(MAX_FQDN_ADDRESSES).unwrap();
    let texts: Vec<String> = (0..count).map(|number| IpAddr::from(number.to_be_bytes()).to_string()).collect();
    let first: Vec<_> = texts.iter().map(|text| (text.as_str(), MINUTE_MS)).collect();
    scene.run(&bind("cdn.example.com", &first)).unwrap();
    scene.run(&bind("cdn.example.com", &[("192.0.2.1", 10 * MINUTE_MS), ("0.0.0.5", 10 * MINUTE_MS)])).unwrap();
    let kept = addresses(&scene, "cdn.example.com");
    assert_eq!(kept.len(), MAX_FQDN_ADDRESSES);
    assert!(kept.contains(&"192.0.2.1".to_owned()) && kept.contains(&"0.0.0.5".to_owned()));
}
