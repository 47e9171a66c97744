//! The agent follows its node's view of the mesh (decision 0010), from a real `Mesh` service on loopback.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../mesh-gateway/tests/support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod mesh;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use mesh::{TestStore, certificates, eventually, free_address, get, metric, node};
use ringfence_agent::Config;
use ringfence_datapath::Capacity;
use ringfence_policy::{
    command::Command,
    identity::{ClusterId, Identity},
    record::{Cluster, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey},
    revision::Revision,
    store::StoreId,
    tables::AddressEntry,
};
use ringfence_proto::v1;
use ringfence_runtime::tls::TlsFiles;
use support::{Running, config, declared, name, spy::Spy, start, with_endpoints};

const STRANGERS: u8 = 20;
const WEB: (&str, &str, &str, &str) =
    ("web-1", "veth1", "10.101.1.10", "k8s:app=web,k8s:io.kubernetes.pod.namespace=shop");
const ONLY_API: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: web}\n\
                        spec: {endpointSelector: {matchLabels: {app: web}}, \
                        ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]}\n";

fn elsewhere(store: &TestStore, endpoint: &str, address: &str, app: &str) -> Revision {
    let labels = format!("k8s:app={app},k8s:io.kubernetes.pod.namespace=shop");
    let spec = declared(endpoint, "veth", address, &labels).spec(&name("east"), &name("n9"));
    store.execute(Command::PutEndpoint(spec)).unwrap();
    store.revision()
}

/// A mesh where web on n1 speaks with api on n9 alone, and twenty others of n9 do not matter to it.
fn store() -> TestStore {
    let store = TestStore::new(100);
    store.found(StoreId::new(1, [1; 10]));
    store.put(Record::Cluster(Cluster {
        name: name("east"),
        id: ClusterId::new(1).unwrap(),
        pod_cidrs: vec!["10.101.0.0/16".parse().unwrap()],
    }));
    let key = PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name: name("web") };
    store.execute(Command::PutPolicies(vec![PolicyRecord { key, text: ONLY_API.to_owned() }])).unwrap();
    store.put(Record::Node(node("east", "n9", "10.40.1.9")));
    elsewhere(&store, "api-1", "10.101.9.1", "api");
    for number in 0..STRANGERS {
        elsewhere(&store, &format!("db-{number}"), &format!("10.101.9.{}", 100 + number), "db");
    }
    store
}

fn web(directory: &Path, tls: &TlsFiles, gateways: &[SocketAddr]) -> Config {
    with_endpoints(config(directory, tls, gateways), directory, &[WEB])
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn held(running: &Running) -> usize {
    running.agent.feed.followed().mesh.records().len()
}

/// Those that do not matter, and their identity.
fn hidden() -> usize {
    usize::from(STRANGERS) + 1
}

fn is_at_head(running: &Running, spy: &Spy, store: &TestStore) -> bool {
    spy.observed().1.endpoints.len() == 1 && running.revision() == store.revision().0
}

#[test]
fn s12_an_agent_holds_what_its_node_needs_and_realises_every_revision() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let health = free_address();
    let config = Config { health_listen: Some(health), ..web(directory.path(), &tls, &[gateway]) };
    let spy = Spy::new(Capacity::default());
    let running = start(&config, &spy);
    eventually("the head is realised", || is_at_head(&running, &spy, &store));
    let all = || store.snapshot().records.len();
    assert_eq!(held(&running), all() - hidden(), "of {}", all());
    let asked = store.followed();
    assert_eq!((asked.len(), asked[0].interests.as_ref().map(|view| view.node.as_str())), (1, Some("n1")));

    let before = all();
    let quiet = elsewhere(&store, "db-more", "10.101.9.200", "db");
    eventually("a revision without interest is realised, too", || running.revision() == quiet.0);
    assert_eq!((all(), held(&running)), (before + 1, before - hidden()));
    eventually("and reported", || {
        store.reports().iter().flat_map(|report| &report.nodes).any(|node| node.realised_revision == quiet.0)
    });
    elsewhere(&store, "api-2", "10.101.9.2", "api");
    eventually("one of interest is realised", || is_at_head(&running, &spy, &store));
    assert_eq!(held(&running), all() - hidden() - 1);
    let api: Vec<_> = ["10.101.9.1", "10.101.9.2"].map(|address| address.parse().unwrap()).to_vec();
    let tables = spy.observed().1;
    assert!(api.iter().all(|address| tables.addresses[address].identity.reserved_name().is_none()), "{tables:?}");

    assert_eq!(metric(health, "ringfence_agent_records"), Some(f64::from(u32::try_from(held(&running)).unwrap())));
    assert_eq!(metric(health, "ringfence_agent_view"), Some(1.0));
    let request = v1::AgentStatusRequest {};
    let status = running.runtime.run(running.client(&config).status(request)).unwrap().into_inner();
    assert_eq!((status.records, status.scope.as_str()), (held(&running) as u64, "view"));
    assert_eq!(get(health, "/readyz").0, 200);
    running.tasks.token().cancel();
}

#[test]
fn s13_a_view_resumes_where_its_steps_are_known_and_comes_as_a_whole_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, serving) = store.serve("gateway/east", any(), &tls);
    let spy = Spy::new(Capacity::default());
    let running = start(&web(directory.path(), &tls, &[gateway]), &spy);
    eventually("the head is realised", || is_at_head(&running, &spy, &store));
    let before = running.agent.feed.followed().mesh.revision();
    let comes_back = |store: &TestStore, app: &str, address: &str| {
        eventually("the loss is noticed", || running.agent.feed.gateway().is_empty());
        elsewhere(store, &format!("{app}-late"), address, app);
        let serving = store.serve("gateway/east", gateway, &tls).1;
        eventually("the head is realised again", || is_at_head(&running, &spy, store));
        serving
    };
    serving.kill();
    let serving = comes_back(&store, "api", "10.101.9.3");
    let asked = store.followed().last().unwrap().from_revision;
    assert_eq!(asked, before.0, "it says what it has");
    let journal = |since| running.agent.feed.followed().mesh.changed_since(since).map(|changed| changed.len());
    assert_eq!(journal(before), Some(1), "steps, and no snapshot");

    let other = TestStore::at(store.snapshot());
    other.found(StoreId::new(1, [1; 10]));
    serving.kill();
    let _serving = comes_back(&other, "api", "10.101.9.4");
    assert_eq!(journal(before), None, "nobody had followed this view there");
    assert_eq!(held(&running), other.snapshot().records.len() - hidden());
    running.tasks.token().cancel();
}

#[test]
fn s12_a_gateway_of_an_older_version_is_followed_as_a_whole_and_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    let (gateway, mut serving) = store.serve("gateway/east", any(), &tls);
    let spy = Spy::new(Capacity::default());
    let config = web(directory.path(), &tls, &[gateway]);
    let running = start(&config, &spy);
    eventually("the head is realised", || is_at_head(&running, &spy, &store));
    for (views, scope, address) in [(false, "mesh", "10.101.9.50"), (true, "view", "10.101.9.51")] {
        serving.kill();
        eventually("the loss is noticed", || running.agent.feed.gateway().is_empty());
        store.serve_views(views);
        elsewhere(&store, &format!("api-{scope}"), address, "api");
        serving = store.serve("gateway/east", gateway, &tls).1;
        eventually("the head is realised again", || is_at_head(&running, &spy, &store));
        let request = v1::AgentStatusRequest {};
        let status = running.runtime.run(running.client(&config).status(request)).unwrap().into_inner();
        let left_out = if views { hidden() } else { 0 };
        assert_eq!((status.scope.as_str(), held(&running)), (scope, store.snapshot().records.len() - left_out));
        if !views {
            assert_eq!(running.agent.feed.followed().mesh.snapshot(), store.snapshot());
        }
    }
    running.tasks.token().cancel();
}

#[test]
fn s12_who_has_an_address_of_the_hosts_devices_is_never_taken_for_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let store = store();
    elsewhere(&store, "squatter", "10.101.1.1", "db");
    let (gateway, _gateway) = store.serve("gateway/east", any(), &tls);
    let config = Config { uplinks: vec!["eth0".to_owned()], ..web(directory.path(), &tls, &[gateway]) };
    let spy = Spy::new(Capacity::default());
    spy.set_host_addresses(&["10.101.1.1", "192.0.2.7"]);
    let running = start(&config, &spy);
    let identity = |address: &str| -> Option<Identity> {
        let address = address.parse().unwrap();
        spy.observed().1.addresses.get(&address).map(|entry: &AddressEntry| entry.identity)
    };
    eventually("the host is enforced", || identity("192.0.2.7") == Some(Identity::HOST));
    assert_eq!(identity("10.101.1.1"), Some(Identity::UNKNOWN), "an endpoint has it, too");
    let squatter = RecordKey::Endpoint(name("east"), name("n9"), name("squatter"));
    assert!(running.agent.feed.followed().mesh.get(&squatter).is_some());

    // One of pods, and one that lies elsewhere: nobody need be asked about that.
    spy.set_host_addresses(&["10.101.1.1", "10.101.1.2", "192.0.2.7", "192.0.2.8"]);
    let moved = elsewhere(&store, "api-2", "10.101.9.2", "api");
    eventually("a new address is the host's", || identity("10.101.1.2") == Some(Identity::HOST));
    let asked = |index: usize| store.followed()[index].interests.clone().unwrap().addresses;
    assert_eq!(asked(store.followed().len() - 1), ["10.101.1.1", "10.101.1.2", "192.0.2.7", "192.0.2.8"]);
    let new = "10.101.1.2".parse().unwrap();
    let was: Vec<Identity> =
        spy.applied().iter().filter_map(|(_, tables)| Some(tables.addresses.get(&new)?.identity)).collect();
    assert_eq!(was[0], Identity::UNKNOWN, "until the gateway told that nobody else has it");
    assert!(running.revision() >= moved.0);
    eventually("nothing is left to say of it", || {
        !running.problems().iter().any(|problem| problem.contains("10.101.1.2"))
    });

    let asked = store.followed().len();
    spy.set_host_addresses(&["10.101.1.1", "10.101.1.2", "192.0.2.7", "192.0.2.8", "192.0.2.9"]);
    elsewhere(&store, "api-3", "10.101.9.3", "api");
    eventually("an address outside the ranges of pods is the host's", || identity("192.0.2.9") == Some(Identity::HOST));
    elsewhere(&store, "thief", "10.101.1.2", "db");
    eventually("an address that somebody claims is nobody's", || identity("10.101.1.2") == Some(Identity::UNKNOWN));
    assert_eq!(store.followed().len(), asked, "nobody was asked again");
    let steps: BTreeSet<Revision> = spy.applied().iter().map(|(revision, _)| *revision).collect();
    assert!(steps.contains(&store.revision()));
    running.tasks.token().cancel();
}
