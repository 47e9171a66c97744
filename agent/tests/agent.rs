//! The agent between a real `Mesh` service and the memory datapath, on loopback.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../mesh-gateway/tests/support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod mesh;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{net::SocketAddr, time::Duration};

use mesh::{TestStore, certificates, eventually, free_address, get, metric, node};
use ringfence_agent::{
    realise::Realised,
    registry::{Attachment, Registration},
};
use ringfence_datapath::Capacity;
use ringfence_policy::{
    command::Command,
    identity::ClusterId,
    record::{Change, Cluster, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey, Snapshot},
    revision::Revision,
    store::StoreId,
    tables::{EndpointId, TableDiff},
};
use ringfence_proto::v1;
use support::{config, declared, name, spy::Spy, start, try_start, with_endpoints};

const WEB: (&str, &str, &str, &str) = ("web-1", "veth1", "10.101.1.10", "k8s:app=web");
const API: (&str, &str, &str, &str) = ("api-1", "veth2", "10.101.1.11", "k8s:app=api");

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn cluster(cluster: &str, id: u32) -> Record {
    Record::Cluster(Cluster {
        name: name(cluster),
        id: ClusterId::new(id).unwrap(),
        pod_cidrs: vec![format!("10.{}.0.0/16", 100 + id).parse().unwrap()],
    })
}

/// A store that knows the cluster, as after its gateway has registered it.
fn store() -> TestStore {
    let store = TestStore::new(100);
    store.found(StoreId::new(1, [1; 10]));
    store.put(cluster("east", 1));
    store
}

fn policy(policy: &str, text: &str) -> Command {
    let key = PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name: name(policy) };
    Command::PutPolicies(vec![PolicyRecord { key, text: text.to_owned() }])
}

const CLOSE_ALL: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: close}\n\
                         spec: {endpointSelector: {}, ingress: [{fromEntities: [host]}]}\n";

fn own_reports(store: &TestStore) -> Vec<v1::NodeStatus> {
    store.reports().into_iter().flat_map(|report| report.nodes).collect()
}

#[test]
fn s3_realised_revisions_only_grow_and_are_told_after_the_datapath_serves_them() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB, API]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    for index in 2..30 {
        store.execute(Command::PutNode(node("east", &format!("x{index}"), &format!("10.40.1.{index}")))).unwrap();
    }
    eventually("both endpoints are enforced at the head", || {
        running.revision() == store.revision().0 && spy.observed().1.endpoints.len() == 2
    });
    eventually("the head is reported", || {
        own_reports(&store).last().map(|node| node.realised_revision) == Some(store.revision().0)
    });
    assert!(!spy.told_early(), "a revision was told before the datapath served it");
    let told: Vec<u64> = own_reports(&store).iter().map(|node| node.realised_revision).collect();
    assert!(told.is_sorted(), "{told:?}");
    assert!(own_reports(&store).iter().all(|node| node.reported && node.datapath == "memory"));
    assert!(store.askers().iter().all(Option::is_none), "an agent speaks for nobody but itself");
    assert!(store.signs_of_life().is_empty(), "its gateway tells of it, not the agent itself");
    running.tasks.token().cancel();
}

#[test]
fn s3_control_a_revision_that_is_told_before_it_is_served_is_seen() {
    let mut spy = Spy::new(Capacity::default());
    let (teller, told) = tokio::sync::watch::channel(Realised::default());
    spy.watch(told);
    let nothing = TableDiff::default();
    ringfence_datapath::Datapath::apply(&mut spy, Revision(4), &nothing).unwrap();
    teller.send_replace(Realised { revision: Revision(4), problems: vec![] });
    ringfence_datapath::Datapath::apply(&mut spy, Revision(5), &nothing).unwrap();
    assert!(!spy.told_early());
    // An agent that tells first, and then lets the datapath serve it.
    teller.send_replace(Realised { revision: Revision(6), problems: vec![] });
    ringfence_datapath::Datapath::apply(&mut spy, Revision(6), &nothing).unwrap();
    assert!(spy.told_early());
}

#[test]
fn s10_a_revision_that_does_not_fit_leaves_the_old_one_whole_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB]);
    // The node, its endpoint and one more address.
    let spy = Spy::new(Capacity { addresses: 3, ..Capacity::default() });
    let running = start(&config, &spy);
    eventually("the endpoint is enforced", || spy.observed().1.endpoints.len() == 1);
    let fits = store.put(Record::Node(node("east", "n2", "10.40.1.2")));
    eventually("what fits is realised", || running.revision() == fits.0);
    let before = spy.observed();
    let overflow = store.put(Record::Node(node("east", "n3", "10.40.1.3")));
    eventually("the problem is reported", || {
        own_reports(&store)
            .last()
            .is_some_and(|node| node.problems.iter().any(|problem| problem.contains("does not fit")))
    });
    assert_eq!(spy.observed(), before);
    assert_eq!(running.revision(), fits.0);
    let told = running.problems().join("\n");
    assert!(told.contains(&format!("revision {overflow}")) && told.contains("addresses"), "{told}");
    store.execute(policy("close", CLOSE_ALL)).unwrap();
    let gone = store.push(vec![Change::Delete(RecordKey::Node(name("east"), name("n3")))]);
    eventually("a revision that fits again is realised", || running.revision() == gone.0);
    let after = spy.observed().1;
    assert_eq!(after.addresses, before.1.addresses);
    assert_ne!(after.resolved(), before.1.resolved(), "what changed while nothing fitted is not lost");
    eventually("the problem is gone", || own_reports(&store).last().is_some_and(|node| node.problems.is_empty()));
    running.tasks.token().cancel();
}

const HOST_POLICY: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: host}\n\
                           spec: {nodeSelector: {matchLabels: {role: edge}}, ingress: [{fromEntities: [health]}]}\n";

#[test]
fn host_1_the_node_is_enforced_where_it_has_uplinks_and_says_so_where_not() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let plain = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB]);
    let plain = ringfence_agent::Config { labels: vec!["role=edge".to_owned()], ..plain };
    let spy = Spy::new(Capacity::default());
    store.execute(policy("host", HOST_POLICY)).unwrap();
    let running = start(&plain, &spy);
    eventually("the node says what is not enforced", || {
        running.problems().iter().any(|problem| problem.contains("host selects this node, which has no uplinks"))
    });
    assert!(!spy.observed().1.endpoints.contains_key(&EndpointId::HOST));
    assert!(spy.uplinks().iter().all(|(_, uplinks)| uplinks.is_empty()));
    running.kill();
    let before = spy.uplinks().len();
    spy.set_missing("eth0", true);
    let enforced = ringfence_agent::Config { uplinks: vec!["eth0".to_owned()], ..plain };
    let running = start(&enforced, &spy);
    eventually("the node is a subject", || spy.observed().1.endpoints.contains_key(&EndpointId::HOST));
    eventually("a missing uplink is reported", || running.problems().iter().any(|problem| problem.contains("eth0")));
    spy.set_missing("eth0", false);
    eventually("its uplink is attached once it is there", || spy.uplinks().len() > before);
    let (revision, uplinks) = spy.uplinks()[before].clone();
    assert_eq!(uplinks, ["eth0"]);
    let applied = spy.applied();
    let with_host = applied.iter().find(|(_, tables)| tables.endpoints.contains_key(&EndpointId::HOST)).unwrap();
    assert!(with_host.0 <= revision, "policy first, then the hooks");
    eventually("nothing is missing", || running.problems().is_empty());
    running.tasks.token().cancel();
}

/// Addresses of a record of this node; none if there is no such record.
fn addresses_of(store: &TestStore, endpoint: &str) -> Option<Vec<String>> {
    match &store.snapshot().records.get(&RecordKey::Endpoint(name("east"), name("n1"), name(endpoint)))?.record {
        Record::Endpoint(record) => Some(record.addresses.iter().map(ToString::to_string).collect()),
        _ => None,
    }
}

#[test]
fn a_nodes_proxy_is_known_to_the_mesh_and_the_status_says_where_not() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let plain = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB]);
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let with = ringfence_agent::Config {
        ingress_addresses: addresses(&["10.101.1.8", "fd10:1:1::8"]),
        health_addresses: addresses(&["10.101.1.4"]),
        ..plain.clone()
    };
    let spy = Spy::new(Capacity::default());
    store.know_proxies(false);
    let running = start(&with, &spy);
    let told = || own_reports(&store).last().map(|node| node.problems.join("\n")).unwrap_or_default();
    eventually("the refusal is reported", || {
        told().contains(
            "the store refuses ingress_addresses (10.101.1.8, fd10:1:1::8; every member and gateway must understand",
        ) && told().contains("the store refuses health_addresses (10.101.1.4;")
    });
    eventually("the rest is registered all the same", || spy.observed().1.endpoints.len() == 1);
    assert_eq!(addresses_of(&store, "reserved-ingress"), None);
    store.know_proxies(true);
    let identity = |address: &str| spy.observed().1.addresses.get(&address.parse().unwrap()).map(|e| e.identity.bits());
    eventually("both are judged as what they are", || {
        ["10.101.1.8", "fd10:1:1::8", "10.101.1.4"].map(identity) == [Some(8), Some(8), Some(4)]
    });
    eventually("and nothing is left to say", || told().is_empty());
    store.push(vec![Change::Delete(RecordKey::Endpoint(name("east"), name("n1"), name("reserved-ingress")))]);
    eventually("what the mesh loses is registered again", || addresses_of(&store, "reserved-ingress").is_some());
    running.kill();

    // One address is the node's now, one is another, and the proxy is gone.
    let moved = ringfence_agent::Config {
        addresses: addresses(&["10.40.1.1", "10.101.1.8"]),
        health_addresses: addresses(&["10.101.1.5"]),
        ..plain.clone()
    };
    let running = start(&moved, &spy);
    eventually("addresses move", || {
        ["10.101.1.8", "fd10:1:1::8", "10.101.1.4", "10.101.1.5"].map(identity) == [Some(1), None, None, Some(4)]
    });
    assert_eq!(addresses_of(&store, "reserved-ingress"), None);
    eventually("and nothing is left to say", || told().is_empty());
    running.kill();
    let running = start(&plain, &spy);
    eventually("without the lines nothing is left", || addresses_of(&store, "reserved-health").is_none());
    running.kill();

    let shared = ringfence_agent::Config { health_addresses: addresses(&["10.101.1.10"]), ..plain };
    let error = try_start(&shared, &spy).err().unwrap();
    assert!(error.is_configuration(), "{error}");
    let text = error.to_string();
    assert!(text.contains("health_addresses: 10.101.1.10 is the address of endpoint web-1, too"), "{text}");
}

#[test]
fn aud_2_in_audit_mode_endpoints_are_marked_and_without_it_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB, API]);
    let spy = Spy::new(Capacity::default());
    let audited = || spy.observed().1.endpoints.values().map(|entry| entry.audit).collect::<Vec<_>>();
    let running = start(&ringfence_agent::Config { policy_audit_mode: true, ..config.clone() }, &spy);
    eventually("both endpoints are under audit", || audited() == [true, true]);
    running.kill();
    let running = start(&config, &spy);
    eventually("both endpoints are enforced", || audited() == [false, false]);
    running.tasks.token().cancel();
}

#[test]
fn s10_a_policy_that_cannot_be_read_keeps_the_last_whole_revision() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    store.execute(policy("close", CLOSE_ALL)).unwrap();
    eventually("the head is realised", || {
        running.revision() == store.revision().0 && spy.observed().1.endpoints.len() == 1
    });
    let before = spy.observed();
    store
        .execute(policy(
            "newer",
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nspec: {fromTheFuture: 1}\n",
        ))
        .unwrap();
    eventually("the problem is told", || running.problems().iter().any(|problem| problem.contains("newer")));
    assert_eq!(spy.observed(), before);
    running.tasks.token().cancel();
}

#[test]
fn s13_without_a_gateway_the_tables_stay_and_the_next_gateway_resumes() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (first, first_gateway) = store.serve("gateway/east", any(), &tls);
    let second = free_address();
    let config = with_endpoints(config(directory.path(), &tls, &[first, second]), directory.path(), &[WEB]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    eventually("the endpoint is enforced", || {
        spy.observed().1.endpoints.len() == 1 && running.revision() == store.revision().0
    });
    eventually("following the first gateway", || running.agent.feed.gateway() == first.to_string());
    let before = spy.observed();

    first_gateway.kill();
    eventually("the loss is noticed", || running.agent.feed.gateway().is_empty());
    let staleness = running.agent.feed.freshness().staleness();
    eventually("staleness grows", || {
        running.agent.feed.freshness().staleness() > staleness + Duration::from_millis(300)
    });
    assert_eq!(spy.observed(), before);

    for id in 2..10 {
        store.put(cluster(&format!("c{id}"), id));
    }
    store.set_staleness(Duration::from_secs(30));
    let (_, _second_gateway) = store.serve("gateway/east", second, &tls);
    eventually("the second gateway is followed to the head", || running.revision() == store.revision().0);
    assert_eq!(running.agent.feed.gateway(), second.to_string());
    assert!(running.agent.feed.freshness().staleness() < Duration::from_secs(30), "what was known fresher stays so");
    // A view tells several revisions as one step, and its records then have that step's revision.
    let (followed, whole) = (running.agent.feed.followed().mesh.snapshot(), store.snapshot());
    let records = |snapshot: &Snapshot| -> Vec<Record> {
        snapshot.records.values().map(|versioned| versioned.record.clone()).collect()
    };
    assert_eq!((followed.revision, records(&followed)), (whole.revision, records(&whole)));
    running.tasks.token().cancel();
}

#[test]
fn s8_a_killed_agent_changes_nothing_and_its_successor_moves_only_to_whole_newer_revisions() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let good = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB, API]);
    let spy = Spy::new(Capacity::default());
    let running = start(&good, &spy);
    store.execute(policy("close", CLOSE_ALL)).unwrap();
    eventually("both endpoints are enforced", || {
        spy.observed().1.endpoints.len() == 2 && running.revision() == store.revision().0
    });
    let before = spy.observed();
    running.kill();
    assert_eq!(spy.observed(), before);

    // Only a gateway that is behind: its state must not be realised.
    let old = TestStore::at(self::store().snapshot());
    old.set_available(false);
    let (behind, _behind) = old.serve("gateway/east", any(), &tls);
    let restarted = start(&ringfence_agent::Config { gateways: vec![behind.to_string()], ..good.clone() }, &spy);
    eventually("the older state is told as a problem", || {
        restarted.problems().iter().any(|problem| problem.contains("older than"))
    });
    assert_eq!(restarted.revision(), before.0.0, "adopted, and told as what it is");
    assert_eq!(spy.observed(), before);
    let first_new = spy.applied().len();
    restarted.kill();

    store.put(cluster("west", 2));
    let restarted = start(&good, &spy);
    eventually("the head is realised", || restarted.revision() == store.revision().0);
    for (revision, tables) in &spy.applied()[first_new..] {
        assert!(*revision > before.0 && tables.endpoints.len() == 2, "{revision}: an enforced endpoint vanished");
        assert_eq!((&tables.rows, &tables.ports), (&before.1.rows, &before.1.ports), "{revision}");
        assert_eq!(tables.endpoints, before.1.endpoints, "{revision}: numbers of policies stay");
    }
    restarted.tasks.token().cancel();
}

#[test]
fn endpoints_say_what_they_wait_for_and_why_they_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = TestStore::new(100);
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB, API]);
    let spy = Spy::new(Capacity::default());
    spy.set_missing("veth2", true);
    let running = start(&config, &spy);
    let entry = |endpoint: &str| running.agent.registry.get(&name(endpoint)).unwrap();
    eventually("the missing cluster is reported", || {
        own_reports(&store)
            .last()
            .is_some_and(|node| node.problems.iter().any(|problem| problem.contains("cluster east does not exist")))
    });
    assert!(matches!(entry("web-1").registration, Registration::Waiting { .. }));
    store.put(cluster("east", 1));
    store.put(Record::Node(node("east", "n9", "10.40.1.9")));
    let mut squatter = declared("squatter", "veth", "10.101.1.11", "k8s:app=squatter").spec(&name("east"), &name("n9"));
    store.execute(Command::PutEndpoint(squatter.clone())).unwrap();
    eventually("web is registered", || matches!(entry("web-1").registration, Registration::Registered { .. }));
    assert!(matches!(entry("api-1").attachment, Attachment::Waiting { .. }));

    let list = || {
        let request = v1::ListLocalEndpointsRequest {};
        running.runtime.run(running.client(&config).list_endpoints(request)).unwrap().into_inner().endpoints
    };
    let state = |endpoint: &str| {
        let entry = list().into_iter().find(|entry| entry.endpoint.as_ref().is_some_and(|e| e.name == endpoint));
        entry.map(|entry| (entry.state, entry.detail)).unwrap()
    };
    eventually("web is ready", || state("web-1").0 == "ready");
    let (waiting, detail) = state("api-1");
    assert!(waiting == "waiting-for-interface" && detail.contains("veth2"), "{waiting}: {detail}");
    spy.set_missing("veth2", false);
    eventually("the refusal is shown", || state("api-1").0 == "refused");
    assert!(state("api-1").1.contains("10.101.1.11 belongs to endpoint east/n9/squatter"), "{}", state("api-1").1);
    eventually("the refusal is reported", || {
        own_reports(&store)
            .last()
            .is_some_and(|node| node.problems.iter().any(|problem| problem.contains("api-1 is refused")))
    });
    squatter.addresses = vec!["10.101.1.99".parse().unwrap()];
    store.execute(Command::PutEndpoint(squatter)).unwrap();
    eventually("once nothing stands in the way, it is ready", || state("api-1").0 == "ready");
    running.tasks.token().cancel();
}

#[test]
fn records_that_the_mesh_loses_are_put_again() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    eventually("the endpoint is enforced", || spy.observed().1.endpoints.len() == 1);
    let key = RecordKey::Endpoint(name("east"), name("n1"), name("web-1"));
    let lost = store.push(vec![Change::Delete(key.clone())]);
    eventually("it is there again", || store.revision() > lost && store.snapshot().records.contains_key(&key));
    eventually("and enforced again", || {
        running.revision() == store.revision().0 && spy.observed().1.endpoints.len() == 1
    });
    assert!(Revision(running.revision()) > lost);
    running.tasks.token().cancel();
}

#[test]
fn an_endpoint_of_the_local_api_is_declared_as_a_whole_and_outlives_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = config(directory.path(), &tls, &[gateway]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    eventually("the node is registered", || store.revision() == Revision(2));
    let put = |endpoint: &str, interface: &str, address: &str| {
        let message = v1::LocalEndpoint::from(declared(endpoint, interface, address, "k8s:app=web"));
        running.runtime.run(running.client(&config).put_endpoint(message))
    };
    let committed = put("web-1", "veth1", "10.101.1.10").unwrap().into_inner();
    assert!(committed.changed && committed.revision == 3 && committed.identity != 0, "{committed:?}");
    assert_eq!(
        put("web-1", "veth1", "10.101.1.10").unwrap().into_inner().revision,
        3,
        "the same again changes nothing"
    );
    eventually("it is enforced", || spy.observed().1.endpoints.len() == 1);

    store.put(Record::Node(node("east", "n9", "10.40.1.9")));
    let squatter = declared("squatter", "veth", "10.101.1.11", "k8s:app=squatter").spec(&name("east"), &name("n9"));
    store.execute(Command::PutEndpoint(squatter)).unwrap();
    spy.set_missing("veth8", true);
    let kept = || std::fs::read_to_string(directory.path().join("agent.sock.endpoints.yaml")).unwrap();
    let before = (kept(), ringfence_datapath::Datapath::attached(&spy));
    for (endpoint, interface, address, message) in [
        ("api-1", "veth2", "10.101.1.11", "belongs to endpoint east/n9/squatter"),
        ("api-1", "veth8", "10.101.1.12", "no network interface"),
        ("api-1", "veth1", "10.101.1.12", "repeats interface veth1"),
        ("web-1", "veth1", "10.101.1.11", "belongs to endpoint east/n9/squatter"),
    ] {
        let refused = put(endpoint, interface, address).unwrap_err();
        assert!(refused.message().contains(message), "{refused}");
        assert_eq!((kept(), ringfence_datapath::Datapath::attached(&spy)), before, "{message}");
    }
    store.set_available(false);
    assert_eq!(put("api-1", "veth2", "10.101.1.12").unwrap_err().code(), tonic::Code::Unavailable);
    assert_eq!((kept(), ringfence_datapath::Datapath::attached(&spy)), before);
    store.set_available(true);

    running.kill();
    let restarted = start(&config, &spy);
    let entry = || restarted.agent.registry.get(&name("web-1")).unwrap();
    eventually("it is registered again", || matches!(entry().registration, Registration::Registered { .. }));
    let request = v1::DeleteLocalEndpoint { name: "web-1".to_owned() };
    let delete = || restarted.runtime.run(restarted.client(&config).delete_endpoint(request.clone()));
    store.lose_answers(1);
    assert_eq!(delete().unwrap_err().code(), tonic::Code::Unavailable);
    assert!(restarted.agent.registry.get(&name("web-1")).is_some(), "still declared, still enforced");
    assert_eq!(ringfence_datapath::Datapath::attached(&spy).len(), 1);
    delete().unwrap();
    assert!(!store.snapshot().records.contains_key(&RecordKey::Endpoint(name("east"), name("n1"), name("web-1"))));
    assert!(ringfence_datapath::Datapath::attached(&spy).is_empty());
    let gone = delete().unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound);
    restarted.tasks.token().cancel();
}

#[test]
fn s9_probes_are_answered_by_what_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = with_endpoints(config(directory.path(), &tls, &[gateway]), directory.path(), &[WEB, API]);
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    let probe = |source: &str, destination: &str| {
        let request = v1::ProbeRequest {
            source: source.to_owned(),
            destination: destination.to_owned(),
            protocol: 6,
            source_port: 0,
            destination_port: 8080,
        };
        running.runtime.run(running.client(&config).probe(request)).map(tonic::Response::into_inner)
    };
    let (web, api, elsewhere) = ("10.101.1.10", "10.101.1.11", "192.0.2.1");
    eventually("the endpoints are enforced", || spy.observed().1.endpoints.len() == 2);
    assert!(probe(web, api).unwrap().allow && probe(elsewhere, api).unwrap().allow);
    store.execute(policy("close", CLOSE_ALL)).unwrap();
    eventually("the policy is in force", || running.revision() == store.revision().0);
    let denied = probe(web, api).unwrap();
    assert!(!denied.allow && denied.revision == store.revision().0, "{denied:?}");
    assert!(!probe(elsewhere, api).unwrap().allow);
    assert!(probe(web, elsewhere).unwrap().allow, "egress is not closed");
    assert_eq!(probe(elsewhere, "192.0.2.2").unwrap_err().code(), tonic::Code::NotFound);
    assert!(probe("web", api).unwrap_err().message().contains("source"));

    let request = v1::AgentStatusRequest {};
    let status = running.runtime.run(running.client(&config).status(request)).unwrap().into_inner();
    assert_eq!(status.followed_revision, store.revision().0);
    assert_eq!(status.gateway, gateway.to_string());
    assert!(status.packets.values().sum::<u64>() >= 5, "{status:?}");
    running.tasks.token().cancel();
}

#[test]
fn two_agents_never_share_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let config = config(directory.path(), &tls, &[free_address()]);
    let running = start(&config, &Spy::new(Capacity::default()));
    let second = try_start(&config, &Spy::new(Capacity::default())).err().unwrap();
    assert!(second.to_string().contains("another agent already listens"), "{second}");
    running.tasks.token().cancel();
}

#[cfg(feature = "kernel")]
#[test]
fn a_kernel_datapath_that_cannot_be_opened_says_what_is_missing_and_what_would_do() {
    use ringfence_agent::config::{DatapathConfig, DatapathKind};
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let datapath = DatapathConfig { kind: DatapathKind::Kernel, bpffs: directory.path().to_owned(), tcx: true };
    let config = ringfence_agent::Config { datapath, ..config(directory.path(), &tls, &[free_address()]) };
    let runtime = mesh::Killable::new();
    let mut tasks = ringfence_runtime::tasks::Tasks::new();
    let refused = runtime.run(async { ringfence_agent::Agent::start(&config, &mut tasks) }).unwrap_err().to_string();
    assert!(refused.contains("mount -t bpf") && refused.contains("kind: memory"), "{refused}");
    assert!(!config.socket.exists(), "nothing is left behind");
}

#[test]
fn an_agent_is_ready_once_it_enforces_and_stays_so_without_its_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let (gateway, health) = (free_address(), free_address());
    let mut config = config(directory.path(), &tls, &[gateway]);
    config.health_listen = Some(health);
    let spy = Spy::new(Capacity::default());
    let _running = start(&config, &spy);
    let (code, reason) = get(health, "/readyz");
    assert_eq!((code, reason.contains("no gateway has been reached")), (503, true), "{reason}");

    let store = TestStore::new(100);
    store.put(cluster("east", 1));
    let (_, serving) = store.serve("gateway/east", gateway, &tls);
    eventually("the agent is ready", || get(health, "/readyz").0 == 200);
    eventually("what is realised is measured", || {
        metric(health, "ringfence_agent_realised_revision").is_some_and(|revision| revision >= 1.0)
    });
    serving.kill();
    eventually("the loss is measured", || metric(health, "ringfence_agent_gateway_connected") == Some(0.0));
    assert_eq!(get(health, "/readyz").0, 200);
}
