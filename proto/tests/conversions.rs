//! Conversions between messages and meaning: round trips through bytes, and messages that have no meaning.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Debug;

use prost::Message;
use ringfence_policy::{
    command::{Command, Committed, EndpointSpec, FqdnSpec, Housekeeping, IdentityUsage, Refusal, SignOfLife},
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::LabelSet,
    label_filter::LabelFilterText,
    name::Name,
    record::{
        BoundAddress, Change, CidrGroupRecord, Cluster, Delta, Endpoint, FqdnRecord, IdentityBlock, IdentityRecord,
        Kind, MeshSettings, NamedPort, Node, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey, ServicePort,
        ServiceRecord, Versioned,
    },
    revision::Revision,
};
use ringfence_proto::{
    convert::{InvalidMessage, refusal_status},
    v1,
};
use tonic::{Code, Status};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn labels() -> LabelSet {
    LabelSet::parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", "container:empty", "k8s:eq=a=b:c"]).unwrap()
}

fn identity() -> Identity {
    Identity::global(ClusterId::new(1023).unwrap(), Identity::MAX_NUMBER).unwrap()
}

fn named_ports() -> Vec<NamedPort> {
    vec![
        NamedPort { name: "http".to_owned(), protocol: 6, port: 1 },
        NamedPort { name: "dns".to_owned(), protocol: 255, port: u16::MAX },
    ]
}

fn policy_keys() -> Vec<PolicyKey> {
    let key = |kind, namespace: Option<&str>| PolicyKey { kind, namespace: namespace.map(name), name: name("a.b-1") };
    vec![
        key(PolicyKind::CiliumNetworkPolicy, Some("shop")),
        key(PolicyKind::CiliumClusterwideNetworkPolicy, None),
        key(PolicyKind::NetworkPolicy, Some("dev")),
    ]
}

fn cluster() -> Cluster {
    let pod_cidrs =
        vec!["10.101.0.0/16".parse().unwrap(), "fd10:1::/32".parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
    Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs }
}

fn node() -> Node {
    let addresses = vec!["10.40.1.1".parse().unwrap(), "fd40::1:1".parse().unwrap()];
    Node { cluster: name("east"), name: name("n1"), addresses, labels: LabelSet::parse(["k8s:role=edge"]).unwrap() }
}

fn spec() -> EndpointSpec {
    EndpointSpec {
        cluster: name("east"),
        node: name("n1"),
        name: name("web-1"),
        addresses: vec!["10.101.1.10".parse().unwrap(), "::".parse().unwrap()],
        labels: labels(),
        named_ports: named_ports(),
    }
}

fn endpoint() -> Endpoint {
    let EndpointSpec { cluster, node, name, addresses, labels, named_ports } = spec();
    Endpoint { cluster, node, name, addresses, labels, identity: identity(), named_ports }
}

fn group() -> CidrGroupRecord {
    let ranges = vec!["192.0.2.0/24".parse().unwrap(), "::/0".parse().unwrap()];
    CidrGroupRecord { name: name("partners"), labels: [("team".to_owned(), String::new())].into(), ranges }
}

fn service() -> ServiceRecord {
    ServiceRecord {
        cluster: name("east"),
        namespace: name("shop"),
        name: name("web"),
        labels: labels(),
        cluster_addresses: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePort { name: "http".to_owned(), protocol: 6, port: 80, target_port: 8080 }],
        selector: [("app".to_owned(), "web".to_owned())].into(),
        backends: vec!["fd00::1".parse().unwrap()],
    }
}

fn settings() -> MeshSettings {
    let label_filter = LabelFilterText { replaces_defaults: true, entries: vec!["k8s:!a.*".to_owned()] };
    MeshSettings { label_filter, node_lease_ms: 5000, ..MeshSettings::default() }
}

/// One of every kind, and every kind of policy.
fn records() -> Vec<Record> {
    let mut records = vec![
        Record::Cluster(cluster()),
        Record::Cluster(Cluster { name: name("bare"), id: ClusterId::new(1023).unwrap(), pod_cidrs: vec![] }),
        Record::Node(node()),
        Record::Identity(IdentityRecord { identity: identity(), labels: labels() }),
        Record::Endpoint(endpoint().into()),
    ];
    for (identity, label) in [(Identity::INGRESS, "reserved:ingress"), (Identity::HEALTH, "reserved:health")] {
        let labels = LabelSet::parse([label]).unwrap();
        records.push(Record::Endpoint(Endpoint { identity, labels, ..endpoint() }.into()));
    }
    let policy = |key| Record::Policy(PolicyRecord { key, text: "# übrig\nkind: …\n".to_owned() });
    records.extend(policy_keys().into_iter().map(policy));
    let fqdn = FqdnRecord {
        cluster: name("east"),
        name: DnsName::new(r"a\.b.Example.com"),
        addresses: vec![BoundAddress { address: "192.0.2.1".parse().unwrap(), expires_ms: u64::MAX }],
    };
    let block = IdentityBlock { cluster: name("east"), holder: name("g1"), first: identity(), count: 1, spent: 1 };
    records.extend([
        Record::CidrGroup(group()),
        Record::Service(service().into()),
        Record::Fqdn(fqdn),
        Record::Block(block),
        Record::Settings(settings()),
    ]);
    records
}

fn delta() -> Delta {
    let puts = records().into_iter().map(Change::Put);
    let deletes = records().into_iter().map(|record| Change::Delete(record.key()));
    Delta { revision: Revision(u64::MAX), changes: puts.chain(deletes).collect() }
}

/// Meaning → message → bytes → message → meaning gives the same.
#[track_caller]
fn round_trip<T, M>(value: &T)
where
    T: Clone + Debug + PartialEq + TryFrom<M, Error: Debug>,
    M: From<T> + Message + Default,
{
    let bytes = M::from(value.clone()).encode_to_vec();
    assert_eq!(T::try_from(M::decode(bytes.as_slice()).unwrap()).unwrap(), *value);
}

#[test]
fn every_record_key_and_change_survives_the_wire() {
    for record in records() {
        round_trip::<_, v1::RecordKey>(&record.key());
        round_trip::<_, v1::Versioned>(&Versioned { revision: Revision(7), record: record.clone() });
        round_trip::<_, v1::Record>(&record);
    }
    round_trip::<_, v1::Delta>(&delta());
    round_trip::<_, v1::Delta>(&Delta { revision: Revision(1), changes: vec![] });
    for kind in [
        Kind::Cluster,
        Kind::Node,
        Kind::Identity,
        Kind::Endpoint,
        Kind::Policy,
        Kind::CidrGroup,
        Kind::Service,
        Kind::Fqdn,
        Kind::Block,
        Kind::Settings,
    ] {
        assert_eq!(Kind::try_from(v1::Kind::from(kind)), Ok(kind));
    }
}

#[test]
fn every_command_and_answer_survives_the_wire() {
    let policies = policy_keys().into_iter().map(|key| PolicyRecord { key, text: "x".to_owned() }).collect();
    let commands = [
        Command::PutCluster(cluster()),
        Command::PutNode(node()),
        Command::PutEndpoint(spec()),
        Command::AllocateIdentity { cluster: name("east"), labels: labels() },
        Command::PutPolicies(policies),
        Command::PutPolicies(vec![]),
        Command::DeletePolicies(policy_keys()),
        Command::Delete(RecordKey::Endpoint(name("east"), name("n1"), name("web-1"))),
        Command::PutObjects {
            policies: policy_keys().into_iter().map(|key| PolicyRecord { key, text: "x".to_owned() }).collect(),
            groups: vec![group()],
        },
        Command::PutServices(vec![service()]),
        Command::PutFqdns(vec![FqdnSpec {
            cluster: name("east"),
            name: DnsName::new("api.example.com"),
            addresses: vec![("192.0.2.1".parse().unwrap(), 30_000)],
        }]),
        Command::PutSettings(settings()),
        Command::ReleaseIdentity(identity()),
        Command::KeepAlive {
            cluster: name("east"),
            nodes: vec![SignOfLife { node: name("n1"), realised: Revision(7) }],
        },
        Command::GrantBlock { cluster: name("east"), holder: name("g1"), count: 4096 },
        Command::ReturnBlock { cluster: name("east"), holder: name("g1") },
        Command::AdoptFromBlock { cluster: name("east"), holder: name("g1"), identity: identity(), labels: labels() },
    ];
    for command in &commands {
        round_trip::<_, v1::Command>(command);
    }
    for identity in [None, Some(identity())] {
        let committed = Committed { revision: Revision(9), changed: identity.is_some(), identity };
        assert_eq!(Committed::from(v1::Committed::from(committed.clone())), committed);
    }
}

#[test]
fn what_only_the_leader_proposes_has_no_form_on_the_wire() {
    let tick = Command::Housekeeping(Housekeeping::Tick { now_ms: 1 });
    refused::<Command, _>(v1::Command::from(tick), "Command.command is missing");
}

#[test]
fn blocks_and_settings_that_cannot_be_are_refused() {
    let block = |first: u32, count, spent| v1::IdentityBlock {
        cluster: "east".to_owned(),
        holder: "g1".to_owned(),
        first,
        count,
        spent,
    };
    let last = identity().bits();
    for (message, expected) in [
        (block(last, 2, 0), "IdentityBlock.count: 2 is out of range: 1 to 1 "),
        (block(last - 10, 0, 0), "IdentityBlock.count: 0"),
        (block(last - 10, 5, 6), "IdentityBlock.spent: 6 is out of range: 0 to 5"),
        (block(1, 1, 0), "IdentityBlock.first"),
    ] {
        refused::<IdentityBlock, _>(message, expected);
    }
    let message = v1::MeshSettings { quarantine_ms: u64::MAX, ..settings().into() };
    refused::<MeshSettings, _>(message, "MeshSettings: quarantine_ms");
    refused::<MeshSettings, _>(v1::MeshSettings { label_filter: None, ..settings().into() }, "label_filter is missing");
}

#[test]
fn a_number_that_a_client_sends_with_an_endpoint_is_not_looked_at() {
    let message = v1::Endpoint { identity: 1, ..spec().into() };
    assert_eq!(EndpointSpec::try_from(message), Ok(spec()));
}

/// The message is refused, and the text names the field and what is wrong with it.
#[track_caller]
fn refused<T: TryFrom<M, Error = InvalidMessage> + Debug, M>(message: M, expected: &str) {
    let error = T::try_from(message).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(Status::from(error).code(), Code::InvalidArgument);
}

#[test]
fn bad_names_and_addresses_are_refused_with_their_field() {
    let cluster = || v1::Cluster::from(cluster());
    let long = "a".repeat(254);
    for bad in ["", "East", "a/b", "a b", "-a", "ü", "a\0", &long] {
        refused::<Cluster, _>(v1::Cluster { name: bad.to_owned(), ..cluster() }, "Cluster.name: ");
        refused::<Node, _>(v1::Node { cluster: bad.to_owned(), ..node().into() }, "Node.cluster: ");
        refused::<Node, _>(v1::Node { name: bad.to_owned(), ..node().into() }, "Node.name: ");
        refused::<Endpoint, _>(v1::Endpoint { cluster: bad.to_owned(), ..endpoint().into() }, "Endpoint.cluster: ");
        refused::<EndpointSpec, _>(v1::Endpoint { node: bad.to_owned(), ..spec().into() }, "Endpoint.node: ");
        refused::<EndpointSpec, _>(v1::Endpoint { name: bad.to_owned(), ..spec().into() }, "Endpoint.name: ");
    }
    for bad in ["", "10.0.0.1", "10.0.0.0/33", "fd00::/129", "x/8"] {
        refused::<Cluster, _>(v1::Cluster { pod_cidrs: vec![bad.to_owned()], ..cluster() }, "Cluster.pod_cidrs: ");
    }
    for bad in ["", "10.0.0", "10.0.0.1/32", "10.0.0.1:80", "web"] {
        let addresses = vec!["10.0.0.1".to_owned(), bad.to_owned()];
        let expected = format!(": {bad:?} is not an IP address");
        refused::<Node, _>(v1::Node { addresses: addresses.clone(), ..node().into() }, &expected);
        refused::<Endpoint, _>(v1::Endpoint { addresses: addresses.clone(), ..endpoint().into() }, &expected);
        refused::<EndpointSpec, _>(v1::Endpoint { addresses, ..spec().into() }, &expected);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for id in [0, 1024, u32::MAX] {
        refused::<Cluster, _>(v1::Cluster { id, ..cluster().into() }, "Cluster.id: cluster id");
    }
    // No cluster (reserved numbers), no number within the cluster, and bits of another scope.
    for (bits, expected) in [
        (0, "cluster id 0"),
        (1, "cluster id 0"),
        (1 << 20, "number 0"),
        ((1 << 30) | (1 << 20) | 1, "cluster id 1025"),
    ] {
        refused::<Endpoint, _>(v1::Endpoint { identity: bits, ..endpoint().into() }, expected);
        refused::<IdentityRecord, _>(v1::Identity { identity: bits, labels: vec![] }, expected);
        refused::<RecordKey, _>(v1::RecordKey { key: Some(v1::record_key::Key::Identity(bits)) }, "RecordKey.identity");
    }
    // A reserved number goes with its one label.
    let proxy = |bits, labels: &[&str]| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        v1::Endpoint { identity: bits, labels, ..endpoint().into() }
    };
    refused::<Endpoint, _>(proxy(8, &["reserved:health"]), "Endpoint.identity: cluster id 0");
    refused::<Endpoint, _>(proxy(8, &["reserved:ingress", "k8s:app=web"]), "Endpoint.identity: cluster id 0");
    refused::<Endpoint, _>(proxy(1, &["reserved:host"]), "Endpoint.identity: cluster id 0");
    let port = |protocol, port| vec![v1::NamedPort { name: "http".to_owned(), protocol, port }];
    for (named_ports, expected) in [
        (port(6, 65_536), "NamedPort.port: 65536 is out of range: 1 to 65535"),
        (port(6, 0), "NamedPort.port: 0 is out of range"),
        (port(256, 80), "NamedPort.protocol: 256 is out of range: 0 to 255"),
    ] {
        refused::<Endpoint, _>(v1::Endpoint { named_ports: named_ports.clone(), ..endpoint().into() }, expected);
        refused::<EndpointSpec, _>(v1::Endpoint { named_ports, ..spec().into() }, expected);
    }
}

#[test]
fn bad_label_sets_are_refused() {
    let many: Vec<String> = (0..=128).map(|number| format!("k8s:l{number}=")).collect();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (labels, expected) in [
        (texts(&["k8s:=web"]), "has no key"),
        (texts(&["k8s:app=web", "any:app=api"]), "\"app\" is given twice"),
        (texts(&["k8s:app=we;b"]), "';'"),
        (texts(&["k8s:app=a\nb"]), "control characters"),
        (many, "at most 128"),
    ] {
        refused::<EndpointSpec, _>(v1::Endpoint { labels: labels.clone(), ..spec().into() }, expected);
        refused::<Endpoint, _>(v1::Endpoint { labels: labels.clone(), ..endpoint().into() }, expected);
        refused::<IdentityRecord, _>(v1::Identity { identity: identity().bits(), labels: labels.clone() }, expected);
        let allocate = v1::AllocateIdentity { cluster: "east".to_owned(), labels };
        let command = v1::command::Command::AllocateIdentity(allocate);
        refused::<Command, _>(v1::Command { command: Some(command) }, expected);
    }
}

#[test]
fn parts_that_are_missing_are_named() {
    refused::<Record, _>(v1::Record { record: None }, "Record.record is missing");
    refused::<RecordKey, _>(v1::RecordKey { key: None }, "RecordKey.key is missing");
    refused::<Versioned, _>(v1::Versioned { revision: 1, record: None }, "Versioned.record is missing");
    refused::<Change, _>(v1::Change { change: None }, "Change.change is missing");
    refused::<Delta, _>(
        v1::Delta { revision: 1, changes: vec![v1::Change { change: None }], ..Default::default() },
        "Change.change is missing",
    );
    refused::<PolicyRecord, _>(v1::Policy { key: None, text: String::new() }, "Policy.key is missing");
    refused::<Command, _>(v1::Command { command: None }, "Command.command is missing");
    // An oneof field of a newer version arrives as nothing.
    let unknown = v1::Command::decode([0xfa, 0x01, 0x00].as_slice()).unwrap();
    refused::<Command, _>(unknown, "Command.command is missing");
}

#[test]
fn policy_keys_have_a_namespace_exactly_where_their_kind_has_one() {
    let key =
        |kind: i32, namespace: &str| v1::PolicyKey { kind, namespace: namespace.to_owned(), name: "a".to_owned() };
    refused::<PolicyKey, _>(key(1, ""), "CiliumNetworkPolicy needs a namespace");
    refused::<PolicyKey, _>(key(3, ""), "NetworkPolicy needs a namespace");
    refused::<PolicyKey, _>(key(2, "shop"), "CiliumClusterwideNetworkPolicy has no namespace");
    refused::<PolicyKey, _>(key(1, "Shop"), "PolicyKey.namespace: ");
    refused::<PolicyKey, _>(v1::PolicyKey { name: String::new(), ..key(1, "shop") }, "PolicyKey.name: ");
    refused::<PolicyKey, _>(key(0, "shop"), "PolicyKey.kind: 0");
    refused::<PolicyKey, _>(key(99, "shop"), "PolicyKey.kind: 99");
    assert!(Kind::try_from(v1::Kind::Unspecified).is_err());
}

#[test]
fn bytes_that_were_changed_are_refused_or_mean_something_that_survives_the_wire() {
    let bytes = v1::Delta::from(delta()).encode_to_vec();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[position] ^= 1 << bit;
            let Ok(message) = v1::Delta::decode(changed.as_slice()) else { continue };
            let Ok(meaning) = Delta::try_from(message) else { continue };
            round_trip::<_, v1::Delta>(&meaning);
        }
    }
}

#[test]
fn refusals_travel_with_a_code_for_programs_and_their_own_words_for_people() {
    let east = || name("east");
    let key = || RecordKey::Cluster(east());
    for (refusal, code) in [
        (Refusal::NotFound { key: key() }, Code::NotFound),
        (Refusal::ClusterIdInUse { id: ClusterId::new(1).unwrap(), owner: east() }, Code::AlreadyExists),
        (Refusal::AddressInUse { address: "10.0.0.1".parse().unwrap(), owner: key() }, Code::AlreadyExists),
        (Refusal::IdentitiesExhausted { cluster: east(), usage: IdentityUsage::default() }, Code::ResourceExhausted),
        (Refusal::NoAddress { endpoint: east() }, Code::InvalidArgument),
        (Refusal::UnknownNode { cluster: east(), node: name("n1") }, Code::FailedPrecondition),
        (Refusal::InUse { key: key(), user: RecordKey::Node(east(), name("n1")) }, Code::FailedPrecondition),
    ] {
        let status = refusal_status(&refusal);
        assert_eq!((status.code(), status.message()), (code, refusal.to_string().as_str()));
    }
}
