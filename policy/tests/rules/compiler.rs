//! What compilation does besides verdicts: addresses and ranges, refusals, whole revisions.

use std::sync::Arc;

use ringfence_policy::{
    cidr::Cidr,
    compile::{Compiler, LocalHost, LocalNode, Problem},
    flow::{Direction, Flow, Verdict, protocol},
    identity::{ClusterId, Identity},
    label::LabelSet,
    mesh::Mesh,
    object::parse_objects,
    record::{Change, Cluster, Endpoint, NamedPort, Node, PolicyRecord, Record},
    tables::{AddressEntry, EndpointEntry, EndpointId, Row, RowKey, Tables},
    world::Enforcement,
};

use crate::scene::{Scene, change, compiled, identity_record, local_node, mesh, name};

fn endpoint(cluster: &str, node: &str, pod: &str, number: u32, addresses: &[&str]) -> Record {
    Record::Endpoint(Arc::new(Endpoint {
        cluster: name(cluster),
        node: name(node),
        name: name(pod),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        labels: LabelSet::parse([format!("k8s:app={pod}")]).unwrap(),
        identity: Identity::from_bits(number),
        named_ports: vec![],
    }))
}

fn node(cluster: &str, node: &str, address: &str) -> Record {
    labelled_node(cluster, node, address, &[])
}

fn labelled_node(cluster: &str, node: &str, address: &str, labels: &[&str]) -> Record {
    let (addresses, labels) = (vec![address.parse().unwrap()], LabelSet::parse(labels).unwrap());
    Record::Node(Node { cluster: name(cluster), name: name(node), addresses, labels })
}

fn mesh_of(records: Vec<Record>) -> Mesh {
    let mut mesh = Mesh::default();
    let identity = |record: &Record| match record {
        Record::Endpoint(endpoint) => Some(identity_record(endpoint.identity.bits(), &[&endpoint.labels.to_string()])),
        _ => None,
    };
    let identities: Vec<Record> = records.iter().filter_map(identity).collect();
    change(&mut mesh, records.into_iter().chain(identities).map(Change::Put));
    mesh
}

fn node_1(endpoints: &[(&str, u32)]) -> LocalNode {
    let endpoints = endpoints.iter().map(|(pod, id)| (name(pod), EndpointId(*id))).collect();
    LocalNode { endpoints, ..LocalNode::new(name("east"), name("node-1")) }
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
    let (tables, problems) = compiled(&mut Compiler::default(), &mesh, &node_1(&[("web", 7), ("new", 8)]));
    let address = |text: &str| tables.addresses[&text.parse().unwrap()];
    assert_eq!(address("10.1.0.1"), entry(0x10_0001, Some(7)));
    assert_eq!(address("fd00::1"), entry(0x10_0001, Some(7)));
    assert_eq!(address("10.1.0.2"), entry(0x10_0002, None), "not attached here");
    assert_eq!(address("10.2.0.1"), entry(0x20_0001, None), "the same names in another cluster");
    assert_eq!(address("192.0.2.1"), entry(1, None));
    assert_eq!(address("192.0.2.2"), entry(6, None));
    assert_eq!(tables.ranges[&range], Identity::UNKNOWN, "S12");
    assert_eq!(tables.endpoints.keys().collect::<Vec<_>>(), [&EndpointId(7)], "S9: without a record there is no entry");
    assert_eq!(problems, [Problem::UnknownEndpoint { endpoint: name("new") }]);
}

#[test]
fn an_address_of_two_owners_is_unknown() {
    let mesh = mesh_of(vec![
        node("east", "node-1", "10.1.0.1"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
        endpoint("east", "node-1", "api", 0x10_0001, &["10.1.0.2", "10.1.0.2"]),
    ]);
    let (tables, problems) = compiled(&mut Compiler::default(), &mesh, &node_1(&[("web", 7)]));
    assert_eq!(tables.addresses[&"10.1.0.1".parse().unwrap()], entry(0, None));
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(
        problem.to_string(),
        "address 10.1.0.1 belongs to node east/node-1 and to endpoint east/node-1/web: it is treated as unknown"
    );
}

#[test]
fn s9_an_endpoint_without_an_entry_is_refused() {
    let scene = Scene::new("");
    let subject = Identity::from_bits(9999);
    let flow = Flow { subject, peer: Identity::HOST, direction: Direction::Ingress, protocol: protocol::TCP, port: 80 };
    assert_eq!(scene.tables().lookup(EndpointId(9999), &flow), Verdict::DenyDefault);
}

/// What the tables say of a connection from an address to a TCP port of an endpoint.
fn verdict(tables: &Tables, endpoint: EndpointId, from: &str, port: u16) -> Verdict {
    let (subject, peer) = (tables.endpoints[&endpoint].identity, tables.addresses[&from.parse().unwrap()].identity);
    let flow = Flow { subject, peer, direction: Direction::Ingress, protocol: protocol::TCP, port };
    tables.lookup(endpoint, &flow)
}

#[test]
fn val_6_nodes_are_peers_by_their_labels_while_somebody_asks() {
    let text = |peers: &str| ALLOW_80.replace("fromEntities: [all]", peers);
    let mut mesh = mesh_of(vec![
        node("east", "node-1", "192.0.2.1"),
        labelled_node("east", "node-2", "192.0.2.2", &["k8s:role=edge", "k8s:zone=a"]),
        labelled_node("west", "node-3", "192.0.2.3", &["k8s:role=edge", "k8s:remote-node=forged"]),
        labelled_node("west", "node-4", "192.0.2.4", &["k8s:role=core"]),
        node("west", "node-5", "192.0.2.5"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
    ]);
    change(
        &mut mesh,
        [Change::Put(identity_record(0x10_0001, &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]))],
    );
    let local = node_1(&[("web", 7)]);
    let mut compiler = Compiler::default();
    let remote = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
    let mut verdicts = |text: &str, mesh: &mut Mesh| {
        change(mesh, [Change::Put(policy(text))]);
        let (tables, problems) = compiled(&mut compiler, mesh, &local);
        assert_eq!(problems, []);
        let allowed = remote.map(|from| verdict(&tables, EndpointId(7), from, 80) == Verdict::Allow);
        (allowed, remote.map(|address| tables.addresses[&address.parse().unwrap()].identity))
    };
    let (allowed, identities) = verdicts(&text("fromNodes: [{matchLabels: {role: edge}}]"), &mut mesh);
    assert_eq!(allowed, [true, true, false, false]);
    assert!(identities[..3].iter().all(|identity| identity.is_local()));
    assert_eq!(identities[3], Identity::REMOTE_NODE, "it has no labels");
    let none = "fromNodes: [{matchExpressions: [{key: role, operator: NotIn, values: [edge]}]}]";
    assert_eq!(verdicts(&text(none), &mut mesh).0, [false, false, true, true]);
    assert_eq!(verdicts(&text("fromNodes: [{}]"), &mut mesh).0, [true; 4]);
    assert_eq!(verdicts(&text("fromEntities: [remote-node]"), &mut mesh), ([true; 4], [Identity::REMOTE_NODE; 4]));
    let other_list = text("fromNodes: [{matchLabels: {role: edge}}]").replace("ingress:", "ingressDeny:");
    assert_eq!(verdicts(&other_list, &mut mesh).0, [false; 4], "a deny closes, and isolates");
}

const HOST_POLICY: &str = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: h},
  spec: {nodeSelector: {matchLabels: {role: edge}}, ingress: [{fromEntities: [remote-node], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]}}";

fn with_host(host: LocalHost) -> LocalNode {
    LocalNode { host: Some(host), ..node_1(&[("web", 7)]) }
}

#[test]
fn host_1_the_node_is_a_subject_by_its_labels_and_its_addresses_are_an_endpoints() {
    let records = |labels: &[&str]| {
        vec![
            labelled_node("east", "node-1", "192.0.2.1", labels),
            node("west", "node-1", "192.0.2.9"),
            endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
            policy(HOST_POLICY),
        ]
    };
    let host = LocalHost { addresses: ["192.0.2.77".parse().unwrap()].into(), ..LocalHost::default() };
    let enforced =
        |labels: &[&str]| compiled(&mut Compiler::default(), &mesh_of(records(labels)), &with_host(host.clone()));
    let (tables, problems) = enforced(&["k8s:role=edge"]);
    assert_eq!(problems, []);
    let address = |text: &str| tables.addresses[&text.parse().unwrap()];
    for own in ["192.0.2.1", "192.0.2.77"] {
        assert_eq!(address(own), AddressEntry { identity: Identity::HOST, endpoint: Some(EndpointId::HOST) });
    }
    assert_eq!(tables.endpoints[&EndpointId::HOST].identity, Identity::HOST);
    let verdicts = |tables: &Tables| {
        [("192.0.2.9", 80), ("192.0.2.9", 81), ("10.1.0.1", 80)]
            .map(|(from, port)| verdict(tables, EndpointId::HOST, from, port) == Verdict::Allow)
    };
    assert_eq!(verdicts(&tables), [true, false, false]);
    let (other, _) = enforced(&["k8s:role=core"]);
    assert_eq!(verdicts(&other), [true; 3], "it is not selected");
    let bare = compiled(&mut Compiler::default(), &mesh_of(records(&["k8s:role=edge"])), &node_1(&[("web", 7)]));
    assert_eq!(bare.0.addresses[&"192.0.2.1".parse().unwrap()], entry(1, None));
    assert!(!bare.0.endpoints.contains_key(&EndpointId::HOST));
    let [problem] = &bare.1[..] else { panic!("{:?}", bare.1) };
    assert_eq!(
        problem.to_string(),
        "CiliumClusterwideNetworkPolicy h selects this node, which has no uplinks in its agent's configuration: it is not \
         enforced here"
    );
}

#[test]
fn failsafe_ports_of_the_node_stay_open_whatever_policies_deny() {
    let text = HOST_POLICY.replace("ingress:", "ingressDeny: [{fromEntities: [all]}], ingress:");
    let mesh = mesh_of(vec![
        labelled_node("east", "node-1", "192.0.2.1", &["k8s:role=edge"]),
        node("west", "node-1", "192.0.2.9"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
        policy(&text),
    ]);
    let open = |failsafe: &[(u8, u16)]| {
        let host = LocalHost { failsafe: failsafe.iter().copied().collect(), ..LocalHost::default() };
        let (tables, _) = compiled(&mut Compiler::default(), &mesh, &with_host(host));
        [21, 22, 80].map(|port| verdict(&tables, EndpointId::HOST, "192.0.2.9", port) == Verdict::Allow)
    };
    assert_eq!(open(&[]), [false; 3]);
    assert_eq!(open(&[(protocol::TCP, 22)]), [false, true, false]);
    assert_eq!(open(&[(protocol::UDP, 22)]), [false; 3], "of that protocol");
}

#[test]
fn enforcement_modes_hold_for_endpoints_and_for_the_node() {
    let mesh = mesh_of(vec![
        labelled_node("east", "node-1", "192.0.2.1", &["k8s:role=edge"]),
        node("west", "node-1", "192.0.2.9"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
        policy(HOST_POLICY),
    ]);
    let open = |enforcement| {
        let local = LocalNode { enforcement, ..with_host(LocalHost::default()) };
        let (tables, _) = compiled(&mut Compiler::default(), &mesh, &local);
        [EndpointId(7), EndpointId::HOST].map(|of| verdict(&tables, of, "192.0.2.9", 81) == Verdict::Allow)
    };
    assert_eq!(open(Enforcement::Default), [true, false]);
    assert_eq!(open(Enforcement::Always), [false, false]);
    assert_eq!(open(Enforcement::Never), [true, true]);
}

const ALLOW_80: &str = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop},
  spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [all], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]}}";

fn policy(text: &str) -> Record {
    let object = parse_objects(text).objects.remove(0);
    Record::Policy(PolicyRecord { key: object.key, text: object.text })
}

#[test]
fn a_text_of_a_newer_version_refuses_the_whole_revision() {
    let object = parse_objects(ALLOW_80).objects.remove(0);
    let mut mesh = mesh(std::slice::from_ref(&object));
    let mut compiler = Compiler::default();
    let (before, _) = compiled(&mut compiler, &mesh, &local_node());
    compiler.realised();
    let text = object.text.replace("ingress:", "ingressV3:");
    change(&mut mesh, [Change::Put(Record::Policy(PolicyRecord { key: object.key.clone(), text }))]);
    let incomplete = compiler.compile(&mesh, &local_node(), &before).unwrap_err();
    assert_eq!(
        incomplete.to_string(),
        "the revision cannot be compiled: CiliumNetworkPolicy shop/p cannot be read by this version, so no newer revision is \
         enforced here: 2:55: error: spec.ingressV3: unknown field \"ingressV3\" (help: did you mean \"ingress\"?)"
    );
    // What changes meanwhile is not lost.
    change(&mut mesh, [Change::Put(node("east", "node-9", "192.0.2.9"))]);
    compiler.compile(&mesh, &local_node(), &before).unwrap_err();
    change(&mut mesh, [Change::Put(Record::Policy(PolicyRecord { key: object.key, text: object.text }))]);
    let diff = compiler.compile(&mesh, &local_node(), &before).unwrap().diff;
    assert_eq!((diff.len(), diff.addresses.len()), (1, 1), "{diff:?}");
}

#[test]
fn what_nodes_cannot_enforce_refuses_the_whole_revision() {
    let text = ALLOW_80.replace("fromEntities: [all]", "fromGroups: [{}]");
    let objects = parse_objects(&text).objects;
    let incomplete = Compiler::default().compile(&mesh(&objects), &local_node(), &Tables::default()).unwrap_err();
    assert_eq!(
        incomplete.to_string(),
        "the revision cannot be compiled: CiliumNetworkPolicy shop/p cannot be enforced here, so no newer revision is: \
         2:65: error: fromGroups or toGroups cannot be enforced by the nodes yet (help: it is refused because leaving it out \
         would change what the policy does)"
    );
}

#[test]
fn an_identity_without_a_record_refuses_the_whole_revision() {
    let mut mesh = mesh(&[]);
    change(&mut mesh, [Change::Delete(identity_record(0x10_0002, &[]).key())]);
    let mut compiler = Compiler::default();
    let incomplete = compiler.compile(&mesh, &local_node(), &Tables::default()).unwrap_err();
    let identity = Identity::from_bits(0x10_0002);
    assert_eq!(incomplete.problems, [Problem::UnknownIdentity { identity }]);
    change(&mut mesh, [Change::Put(identity_record(0x10_0002, &["k8s:app=api"]))]);
    let (tables, _) = compiled(&mut compiler, &mesh, &local_node());
    assert_eq!(tables.resolved(), compiled(&mut Compiler::default(), &mesh, &local_node()).0.resolved());
}

#[test]
fn rows_hold_only_what_is_not_said_of_anyone() {
    let scene = Scene::new(ALLOW_80);
    let policy = scene.tables().endpoints[&EndpointId(0x10_0001)].policy;
    let rows: Vec<(RowKey, Row)> =
        scene.tables().rows.iter().map(|(key, row)| (*key, *row)).filter(|(key, _)| key.policy == policy).collect();
    let key = |direction, peer| RowKey { policy, direction, peer, chunk: 0 };
    let expected = [
        (key(Direction::Ingress, Identity::UNKNOWN), Row { low: 0b10, high: 0 }),
        // SEM-50 gives the local node every port; port 80 it has already.
        (key(Direction::Ingress, Identity::HOST), Row { low: 0b01, high: 0 }),
        (key(Direction::Egress, Identity::UNKNOWN), Row { low: 0b01, high: 0 }),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn texts_of_records_are_parsed_as_records() {
    let key = policy(ALLOW_80).key();
    let mut mesh = mesh_of(vec![endpoint("east", "node-1", "web", 0x10_0001, &[])]);
    let Record::Policy(mut record) = policy(ALLOW_80) else { panic!("it is a policy") };
    record.text = "# nothing".to_owned();
    change(&mut mesh, [Change::Put(Record::Policy(record))]);
    let incomplete = Compiler::default().compile(&mesh, &node_1(&[]), &Tables::default()).unwrap_err();
    let [Problem::UnreadablePolicy { key: named, .. }] = &incomplete.problems[..] else { panic!("{incomplete:?}") };
    assert_eq!(ringfence_policy::record::RecordKey::Policy(named.clone()), key);
}

const TO_RANGES: &str = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: p},
  spec: {endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}]}, {toCIDR: [10.1.2.0/24, \"2001:db8::/32\", \"::/0\"]}]}}";

#[test]
fn id_20_s12_ranges_of_policies_have_identities_but_not_among_pods() {
    let range = |text: &str| text.parse::<Cidr>().unwrap();
    let cluster = |pods: &[&str]| {
        let pod_cidrs = pods.iter().map(|pods| range(pods)).collect();
        Record::Cluster(Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs })
    };
    let web = endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]);
    let mut mesh = mesh_of(vec![web, cluster(&["10.1.0.0/16"]), policy(TO_RANGES)]);
    let (mut compiler, local) = (Compiler::default(), node_1(&[("web", 7)]));
    let (mut tables, _) = compiled(&mut compiler, &mesh, &local);
    compiler.realised();
    let verdict = |tables: &Tables, address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        let covering = tables.ranges.iter().filter(|(range, _)| range.contains(address));
        let longest = covering.max_by_key(|(range, _)| range.prefix_length()).map(|(_, identity)| *identity);
        let world = if address.is_ipv4() { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
        let (subject, peer) = (Identity::UNKNOWN, longest.unwrap_or(world));
        tables.lookup(EndpointId(7), &Flow { subject, peer, direction: Direction::Egress, protocol: 6, port: 80 })
    };
    let addresses = ["10.0.0.1", "10.9.0.1", "10.1.2.1", "10.1.3.1", "192.0.2.1", "2001:db8::1"];
    let verdicts = |tables: &Tables| addresses.map(|address| verdict(tables, address) == Verdict::Allow);
    assert_eq!(tables.ranges[&range("10.1.0.0/16")], Identity::UNKNOWN);
    assert_eq!(tables.ranges.get(&range("10.1.2.0/24")), None, "it is among the pods");
    assert_eq!(verdicts(&tables), [true, false, false, false, false, true]);
    change(&mut mesh, [Change::Put(cluster(&["10.9.0.0/16"]))]);
    let diff = compiler.compile(&mesh, &local, &tables).unwrap().diff;
    tables.apply(&diff);
    compiler.realised();
    assert_eq!(verdicts(&tables), [true, false, true, true, false, true]);
    // The exception is among the pods now, which CIDR rules never select.
    assert_eq!(tables.ranges[&range("10.9.0.0/16")], Identity::UNKNOWN);
    let fresh = compiled(&mut Compiler::default(), &mesh, &local).0;
    assert_eq!(tables.resolved(), fresh.resolved());
    change(&mut mesh, [Change::Delete(policy(TO_RANGES).key())]);
    tables.apply(&compiler.compile(&mesh, &local, &tables).unwrap().diff);
    assert_eq!(tables.ranges, [(range("10.9.0.0/16"), Identity::UNKNOWN)].into());
}

#[test]
fn port_4_two_endpoints_of_one_identity_have_names_of_their_own() {
    let text = ALLOW_80.replace("port: 80", "port: http");
    let with = |pod: &str, port: u16| {
        let Record::Endpoint(mut shared) = endpoint("east", "node-1", pod, 0x10_0001, &[]) else { panic!("it is one") };
        let record = Arc::make_mut(&mut shared);
        record.labels = LabelSet::parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]).unwrap();
        record.named_ports = vec![NamedPort { name: "http".into(), protocol: protocol::TCP, port }];
        Record::Endpoint(shared)
    };
    let labels = identity_record(0x10_0001, &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]);
    let mut mesh = Mesh::default();
    change(&mut mesh, [with("one", 80), with("other", 81), labels, policy(&text)].map(Change::Put));
    let (tables, _) = compiled(&mut Compiler::default(), &mesh, &node_1(&[("one", 7), ("other", 8)]));
    let passes = |endpoint, port| {
        let (subject, peer) = (Identity::UNKNOWN, Identity::WORLD);
        let flow = Flow { subject, peer, direction: Direction::Ingress, protocol: protocol::TCP, port };
        tables.lookup(EndpointId(endpoint), &flow) == Verdict::Allow
    };
    assert_eq!([passes(7, 80), passes(7, 81), passes(8, 80), passes(8, 81)], [true, false, false, true]);
}

#[test]
fn aud_2_an_endpoint_under_audit_is_marked() {
    let mesh = mesh(&[]);
    let mut local = local_node();
    let mut compiler = Compiler::default();
    let (tables, _) = compiled(&mut compiler, &mesh, &local);
    compiler.realised();
    local.audited.insert(name("web"));
    let diff = compiler.compile(&mesh, &local, &tables).unwrap().diff;
    let web = EndpointId(0x10_0001);
    let after = EndpointEntry { audit: true, ..tables.endpoints[&web] };
    assert_eq!((diff.len(), diff.endpoints[0].key, diff.endpoints[0].after), (1, web, Some(after)));
}

#[test]
fn aud_5_an_object_under_audit_is_only_a_shadow() {
    let isolated = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p, namespace: shop, \
        annotations: {ringfence.io/audit: \"true\"}}, spec: {endpointSelector: {}, ingress: []}}";
    let labels = &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"];
    let Record::Endpoint(web) = endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]) else { unreachable!() };
    let web = Endpoint { labels: LabelSet::parse(labels).unwrap(), ..Arc::unwrap_or_clone(web) };
    let mut mesh = Mesh::default();
    let records = [Record::Endpoint(web.into()), identity_record(0x10_0001, labels), policy(isolated)];
    change(&mut mesh, records.map(Change::Put));
    let (tables, problems) = compiled(&mut Compiler::default(), &mesh, &node_1(&[("web", 7)]));
    assert_eq!(problems, []);
    let entry = tables.endpoints[&EndpointId(7)];
    let lookup = |policy| {
        let mut tables = tables.clone();
        tables.endpoints.insert(EndpointId(7), EndpointEntry { policy, ..entry });
        let (subject, peer) = (Identity::UNKNOWN, Identity::WORLD);
        let flow = Flow { subject, peer, direction: Direction::Ingress, protocol: protocol::TCP, port: 80 };
        tables.lookup(EndpointId(7), &flow)
    };
    assert_eq!(lookup(entry.policy), Verdict::Allow);
    assert_eq!(lookup(entry.shadow.unwrap()), Verdict::DenyDefault);
}

/// A proxy's or health check's record (docs/decisions/0011).
fn reserved(cluster: &str, node: &str, identity: Identity, addresses: &[&str]) -> Record {
    let label = format!("reserved:{}", identity.reserved_name().unwrap());
    let Record::Endpoint(record) = endpoint(cluster, node, &label.replace(':', "-"), identity.bits(), addresses) else {
        unreachable!()
    };
    let labels = LabelSet::parse([label]).unwrap();
    Record::Endpoint(Arc::new(Endpoint { labels, ..Arc::unwrap_or_clone(record) }))
}

#[test]
fn proxies_and_health_checks_are_judged_as_such_everywhere() {
    let range = "10.1.0.0/16".parse().unwrap();
    let labels = ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"];
    let mut mesh = mesh_of(vec![
        Record::Cluster(Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: vec![range] }),
        node("east", "node-1", "192.0.2.1"),
        node("west", "node-2", "192.0.2.2"),
        endpoint("east", "node-1", "web", 0x10_0001, &["10.1.0.1"]),
    ]);
    let here = reserved("east", "node-1", Identity::INGRESS, &["10.1.0.8", "192.0.2.8"]);
    let there = reserved("west", "node-2", Identity::INGRESS, &["192.0.2.18", "fd00::18"]);
    let health = reserved("west", "node-2", Identity::HEALTH, &["192.0.2.14"]);
    let records = [identity_record(0x10_0001, &labels), here, there.clone(), health];
    change(&mut mesh, records.map(Change::Put));
    let local = node_1(&[("web", 7)]);
    let mut compiler = Compiler::default();
    let mut allowed = |mesh: &mut Mesh, text: &str| {
        change(mesh, [Change::Put(policy(text))]);
        let (tables, problems) = compiled(&mut compiler, mesh, &local);
        assert_eq!(problems, []);
        let peers = ["10.1.0.8", "192.0.2.8", "192.0.2.18", "fd00::18", "192.0.2.14", "192.0.2.1", "192.0.2.2"];
        let proxies = ["10.1.0.8", "192.0.2.18"].map(|peer| tables.addresses[&peer.parse().unwrap()]);
        assert_eq!(proxies, [entry(8, None); 2], "an identity that all nodes know, and no endpoint");
        peers.map(|from| verdict(&tables, EndpointId(7), from, 80) == Verdict::Allow)
    };
    let [yes, no] = [true, false];
    let from = |entity: &str| ALLOW_80.replace("[all]", &format!("[{entity}]"));
    // The node itself may always begin (SEM-50).
    assert_eq!(allowed(&mut mesh, &from("ingress")), [yes, yes, yes, yes, no, yes, no]);
    assert_eq!(allowed(&mut mesh, &from("health")), [no, no, no, no, yes, yes, no]);
    assert_eq!(allowed(&mut mesh, &from("remote-node")), [no, no, no, no, no, yes, yes]);
    assert_eq!(allowed(&mut mesh, &from("cluster")), [yes; 7]);
    assert_eq!(allowed(&mut mesh, &from("world")), [no, no, no, no, no, yes, no]);
    let deny = from("ingress").replace("ingress:", "ingressDeny:");
    assert_eq!(allowed(&mut mesh, &deny), [no, no, no, no, no, yes, no], "it isolates, and the node is not the proxy");
    change(&mut mesh, [Change::Delete(there.key())]);
    let (tables, _) = compiled(&mut compiler, &mesh, &local);
    assert!(!tables.addresses.contains_key(&"192.0.2.18".parse().unwrap()), "gone with its record");
}

#[test]
fn an_address_of_a_device_is_the_proxys_where_the_node_says_so() {
    let addresses: [std::net::IpAddr; 3] = ["192.0.2.1", "192.0.2.8", "192.0.2.9"].map(|text| text.parse().unwrap());
    let host = |unsure: &[std::net::IpAddr]| LocalHost {
        addresses: addresses.into(),
        unsure: unsure.iter().copied().collect(),
        ..LocalHost::default()
    };
    let mut mesh = mesh_of(vec![node("east", "node-1", "192.0.2.1")]);
    let mut compiler = Compiler::default();
    let mut identities = |mesh: &Mesh, unsure: &[std::net::IpAddr]| {
        let local = LocalNode { host: Some(host(unsure)), ..node_1(&[]) };
        let (tables, problems) = compiled(&mut compiler, mesh, &local);
        (addresses.map(|address| tables.addresses[&address]), problems)
    };
    let own = entry(1, Some(1));
    assert_eq!(identities(&mesh, &[]), ([own; 3], vec![]), "control: without a record they are the node's");
    let proxy = reserved("east", "node-1", Identity::INGRESS, &["192.0.2.8"]);
    change(&mut mesh, [Change::Put(proxy.clone())]);
    assert_eq!(identities(&mesh, &[]), ([own, entry(8, None), own], vec![]));
    assert_eq!(identities(&mesh, &addresses[1..]), ([own, entry(8, None), entry(0, None)], vec![]), "it is sure");
    change(&mut mesh, [Change::Delete(proxy.key())]);
    assert_eq!(identities(&mesh, &[]), ([own; 3], vec![]), "and the node's again without it");
    change(&mut mesh, [Change::Put(reserved("west", "node-2", Identity::INGRESS, &["192.0.2.8"]))]);
    let (entries, problems) = identities(&mesh, &[]);
    assert_eq!(entries, [own, entry(0, None), own], "another node's proxy cannot take it: nobody knows whose it is");
    assert!(matches!(&problems[..], [Problem::AddressConflict { .. }]), "{problems:?}");
}

/// SEM-30: of clusterwide objects' empty selector, if it is declared with a device.
#[test]
fn a_health_check_with_a_device_is_a_subject() {
    let mut mesh = mesh_of(vec![
        node("east", "node-1", "192.0.2.1"),
        node("west", "node-2", "192.0.2.2"),
        reserved("east", "node-1", Identity::HEALTH, &["192.0.2.4"]),
    ]);
    let clusterwide = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: own}\n\
                       spec: {endpointSelector: {matchLabels: {'reserved:health': ''}}, ingress: [{fromEntities: [remote-node]}]}\n";
    change(&mut mesh, [Change::Put(policy(clusterwide))]);
    let (tables, problems) = compiled(&mut Compiler::default(), &mesh, &node_1(&[("reserved-health", 9)]));
    assert_eq!(problems, []);
    assert_eq!(tables.addresses[&"192.0.2.4".parse().unwrap()], entry(4, Some(9)));
    assert_eq!(verdict(&tables, EndpointId(9), "192.0.2.2", 80), Verdict::Allow);
    let world = Flow {
        subject: Identity::HEALTH,
        peer: Identity::WORLD,
        direction: Direction::Ingress,
        protocol: protocol::TCP,
        port: 80,
    };
    assert_eq!(tables.lookup(EndpointId(9), &world), Verdict::DenyDefault);
}
