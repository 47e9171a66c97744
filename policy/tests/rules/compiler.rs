//! What compilation does besides verdicts: addresses, refusals, minimal and equal tables.

use ringfence_policy::{
    compile::{Compiler, LocalNode, Problem},
    flow::{Direction, Flow, Verdict, protocol},
    identity::{ClusterId, Identity},
    label::LabelSet,
    mesh::Mesh,
    object::parse_objects,
    record::{Change, Cluster, Delta, Endpoint, Node, PolicyRecord, Record},
    revision::Revision,
    tables::{AddressEntry, EndpointId, RuleKey},
};

use crate::scene::{Scene, local_node, mesh, name};

fn endpoint(cluster: &str, node: &str, pod: &str, number: u32, addresses: &[&str]) -> Record {
    Record::Endpoint(Endpoint {
        cluster: name(cluster),
        node: name(node),
        name: name(pod),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        labels: LabelSet::parse([format!("k8s:app={pod}")]).unwrap(),
        identity: Identity::from_bits(number),
        named_ports: vec![],
    })
}

fn node(cluster: &str, node: &str, address: &str) -> Record {
    Record::Node(Node { cluster: name(cluster), name: name(node), addresses: vec![address.parse().unwrap()] })
}

fn mesh_of(records: Vec<Record>) -> Mesh {
    let mut mesh = Mesh::default();
    mesh.apply(&Delta { revision: Revision(1), changes: records.into_iter().map(Change::Put).collect() }).unwrap();
    mesh
}

fn node_1(endpoints: &[(&str, u32)]) -> LocalNode {
    let endpoints = endpoints.iter().map(|(pod, id)| (name(pod), EndpointId(*id))).collect();
    LocalNode { cluster: name("east"), node: name("node-1"), endpoints }
}

fn entry(identity: u32, endpoint: Option<u32>) -> AddressEntry {
    AddressEntry { identity: Identity::from_bits(identity), endpoint: endpoint.map(EndpointId) }
}

#[test]
fn addresses_say_who_and_whether_it_is_here() {
    let range = "10.1.0.0/16".parse().unwrap();
    let mesh = mesh_of(vec![
        Record::Cluster(Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: vec![range] }),
        node("east", "node-1", "192.0.2.1"),
        node("west", "node-1", "192.0.2.2"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1", "fd00::1"]),
        endpoint("east", "node-1", "detached", 0x10_0002, &["10.1.0.2"]),
        endpoint("west", "node-1", "web", 0x20_0001, &["10.2.0.1"]),
    ]);
    let compilation = Compiler::default().compile(&mesh, &node_1(&[("web", 7), ("new", 8)])).unwrap();
    let tables = compilation.tables;
    let address = |text: &str| tables.addresses[&text.parse().unwrap()];
    assert_eq!(address("10.1.0.1"), entry(0x10_0001, Some(7)));
    assert_eq!(address("fd00::1"), entry(0x10_0001, Some(7)));
    assert_eq!(address("10.1.0.2"), entry(0x10_0002, None), "not attached here");
    assert_eq!(address("10.2.0.1"), entry(0x20_0001, None), "the same names in another cluster");
    assert_eq!(address("192.0.2.1"), entry(1, None));
    assert_eq!(address("192.0.2.2"), entry(6, None));
    assert_eq!(tables.ranges[&range], Identity::UNKNOWN, "S12");
    assert_eq!(tables.endpoints.keys().collect::<Vec<_>>(), [&EndpointId(7)], "S9: without a record there is no entry");
    assert_eq!(compilation.problems, [Problem::UnknownEndpoint { endpoint: name("new") }]);
}

#[test]
fn an_address_of_two_owners_is_unknown() {
    let mesh = mesh_of(vec![
        node("east", "node-1", "10.1.0.1"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
        endpoint("east", "node-1", "api", 0x10_0001, &["10.1.0.2", "10.1.0.2"]),
    ]);
    let compilation = Compiler::default().compile(&mesh, &node_1(&[("web", 7)])).unwrap();
    assert_eq!(compilation.tables.addresses[&"10.1.0.1".parse().unwrap()], entry(0, None));
    let [problem] = &compilation.problems[..] else { panic!("{:?}", compilation.problems) };
    assert_eq!(
        problem.to_string(),
        "address 10.1.0.1 belongs to endpoint east/node-1/web and to node east/node-1: it is treated as unknown"
    );
}

#[test]
fn s9_an_endpoint_without_an_entry_is_refused() {
    let scene = Scene::new("");
    let subject = Identity::from_bits(9999);
    let flow = Flow { subject, peer: Identity::HOST, direction: Direction::Ingress, protocol: protocol::TCP, port: 80 };
    assert_eq!(scene.compilation().tables.lookup(EndpointId(9999), &flow), Verdict::DenyDefault);
}

const ALLOW_80: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop},
  spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [all], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]}}";

#[test]
fn a_text_of_a_newer_version_refuses_the_whole_revision() {
    let mut object = parse_objects(ALLOW_80).objects.remove(0);
    let mut compiler = Compiler::default();
    let before = compiler.compile(&mesh(&[object.clone()]), &local_node()).unwrap();
    let good = object.text.clone();
    object.text = object.text.replace("ingress:", "ingressV3:");
    let incomplete = compiler.compile(&mesh(&[object.clone()]), &local_node()).unwrap_err();
    assert_eq!(
        incomplete.to_string(),
        "the revision cannot be compiled: CiliumNetworkPolicy shop/p cannot be read by this version, so no newer revision is \
         enforced here: 2:55: error: spec.ingressV3: unknown field \"ingressV3\" (help: did you mean \"ingress\"?)"
    );
    object.text = good;
    assert_eq!(compiler.compile(&mesh(&[object]), &local_node()).unwrap(), before);
}

#[test]
fn what_the_tables_cannot_say_refuses_the_whole_revision() {
    let text = ALLOW_80.replace("fromEntities: [all]", "fromCIDR: [10.0.0.0/8]");
    let objects = parse_objects(&text).objects;
    let incomplete = Compiler::default().compile(&mesh(&objects), &local_node()).unwrap_err();
    assert_eq!(
        incomplete.to_string(),
        "the revision cannot be compiled: CiliumNetworkPolicy shop/p cannot be enforced here, so no newer revision is: \
         2:65: error: fromCIDR or toCIDR cannot be enforced by the nodes yet (help: it is refused because leaving it out \
         would change what the policy does)"
    );
}

#[test]
fn a_compiler_that_has_compiled_before_gives_the_same_tables() {
    let mut compiler = Compiler::default();
    let texts = [
        ALLOW_80.to_owned(),
        ALLOW_80.replace("port: 80", "port: 81"),
        ALLOW_80.replace("name: p", "name: q"),
        String::new(),
    ];
    for text in [0, 1, 2, 3, 0, 2, 1].map(|index: usize| &texts[index]) {
        let mesh = mesh(&parse_objects(text).objects);
        assert_eq!(compiler.compile(&mesh, &local_node()), Compiler::default().compile(&mesh, &local_node()), "{text}");
    }
}

#[test]
fn tables_hold_only_what_the_next_probe_does_not_say() {
    let scene = Scene::new(ALLOW_80);
    let subject = Identity::from_bits(0x10_0001);
    let keys: Vec<RuleKey> =
        scene.compilation().tables.rules.keys().copied().filter(|key| key.subject == subject).collect();
    let key = |peer, protocol, port| RuleKey { subject, direction: Direction::Ingress, peer, protocol, port };
    // SEM-50 gives the local node every port, so it needs nothing beside the entry for everyone.
    assert_eq!(keys, [key(Identity::UNKNOWN, protocol::TCP, 80), key(Identity::HOST, 0, 0)]);
}

#[test]
fn texts_of_records_are_parsed_as_records() {
    let objects = parse_objects(ALLOW_80).objects;
    let key = objects[0].key.clone();
    let mut records = vec![Record::Policy(PolicyRecord { key: key.clone(), text: "# nothing".into() })];
    records.push(endpoint("east", "node-1", "web", 0x10_0001, &[]));
    let incomplete = Compiler::default().compile(&mesh_of(records), &node_1(&[])).unwrap_err();
    assert!(matches!(&incomplete.problems[..], [Problem::UnreadablePolicy { key: named, .. }] if *named == key));
}
