//! Nodes that live, nodes that are gone, and what becomes of what they had.

use std::sync::atomic::AtomicBool;

use ringfence_policy::{
    command::{EndpointSpec, SignOfLife},
    record::{Endpoint, MeshSettings, Node},
    revision::Revision,
};
use tokio::task::JoinHandle;

use super::*;
use support::labels;

pub(crate) fn endpoint(cluster: &str, node: &str, address: &str) -> Command {
    Command::PutEndpoint(EndpointSpec {
        cluster: name(cluster),
        node: name(node),
        name: name("web"),
        addresses: vec![address.parse().unwrap()],
        labels: labels(&format!("web-{node}")),
        named_ports: vec![],
    })
}

/// East's gateway, which hears of n1, and of n2 until `silent`.
pub(crate) fn gateway(channels: Vec<Channel>, silent: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for channel in channels.iter().cycle() {
            let n2 = if silent.load(Ordering::SeqCst) { None } else { Some("n2") };
            let nodes = std::iter::once("n1").chain(n2);
            let nodes = nodes.map(|node| SignOfLife { node: name(node), realised: Revision(u64::MAX) }).collect();
            let command = v1::Command::from(Command::KeepAlive { cluster: name("east"), nodes });
            let mut request = tonic::Request::new(command);
            request.set_timeout(Duration::from_millis(500));
            let _next_member = v1::mesh_client::MeshClient::new(channel.clone()).execute(request).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

fn endpoints(store: &Store, id: u64) -> Vec<String> {
    let node = |endpoint: &Endpoint| format!("{}/{}", endpoint.cluster, endpoint.node);
    store.running[&id].history().read(|history| history.mesh().endpoints().map(node).collect())
}

async fn gone(store: &Store, id: u64) -> Vec<String> {
    let status = store.client(id).status(v1::StatusRequest {}).await.unwrap().into_inner();
    let gone = status.nodes.into_iter().filter(|node| node.gone);
    gone.map(|node| format!("{}/{}", node.cluster, node.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_silent_loses_its_endpoints_and_numbers_whoever_leads() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let settings = MeshSettings {
        node_lease_ms: 2000,
        node_grace_ms: 0,
        identity_grace_ms: 0,
        quarantine_ms: 0,
        ..MeshSettings::default()
    };
    let n2 = Node {
        cluster: name("east"),
        name: name("n2"),
        addresses: vec![],
        labels: ringfence_policy::label::LabelSet::default(),
    };
    for command in [
        Command::PutSettings(settings),
        Command::PutNode(n2),
        endpoint("east", "n1", "10.1.0.1"),
        endpoint("east", "n2", "10.1.0.2"),
        endpoint("west", "n1", "10.2.0.1"),
    ] {
        store.execute(1, &command, PATIENCE).await.unwrap();
    }
    let silent = Arc::new(AtomicBool::new(false));
    let telling = gateway([1, 2, 3].map(|id| store.channel(id)).to_vec(), silent.clone());

    // A leader that dies takes its knowledge of the leases with it, and nobody is ended for that.
    let leader = store.leader().await;
    store.kill(leader).await;
    store.leader().await;
    store.restart(leader).await;
    store.converge().await;
    assert_eq!(endpoints(&store, leader), ["east/n1", "east/n2", "west/n1"]);
    let identities = |id: u64| store.running[&id].history().read(|history| history.mesh().identities().count());
    assert_eq!(identities(leader), 3);

    silent.store(true, Ordering::SeqCst);
    until("the end of n2", || async { (endpoints(&store, leader) == ["east/n1", "west/n1"]).then_some(()) }).await;
    until("its mark", || async { (gone(&store, leader).await == ["east/n2"]).then_some(()) }).await;
    until("the end of its number", || async { (identities(leader) == 2).then_some(()) }).await;
    assert_eq!(endpoints(&store, leader), ["east/n1", "west/n1"], "west is not heard of at all, and keeps what it has");

    silent.store(false, Ordering::SeqCst);
    until("n2's return", || async { gone(&store, leader).await.is_empty().then_some(()) }).await;
    store.execute(1, &endpoint("east", "n2", "10.1.0.2"), PATIENCE).await.unwrap();
    telling.abort();
    store.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_what_is_remembered_beside_the_mesh_survives_snapshots_and_restarts() {
    let mut store = Store::start(20).await;
    store.register().await;
    let lost = store.leader().await % 3 + 1;
    store.kill(lost).await;
    std::fs::remove_dir_all(&store.configs[&lost].data_dir).unwrap();
    let through = *store.running.keys().next().unwrap();
    for number in 0..60 {
        let committed = store.execute(through, &allocate("south", &format!("a{number}")), PATIENCE).await.unwrap();
        let release = Command::ReleaseIdentity(committed.identity.unwrap());
        store.execute(through, &release, PATIENCE).await.unwrap();
    }
    let grant = Command::GrantBlock { cluster: name("south"), holder: name("gateway"), count: 100 };
    store.execute(through, &grant, PATIENCE).await.unwrap();
    store.restart(lost).await;
    store.converge().await;
    let ledger = |id: u64| store.running[&id].applier().read_book(|book| book.ledger().clone());
    assert_eq!(ledger(lost), ledger(through));
    assert_eq!(ledger(lost).numbers().len(), 60, "released, and not realised anywhere");
    let status = store.client(lost).status(v1::StatusRequest {}).await.unwrap().into_inner();
    let south = status.identities.iter().find(|usage| usage.cluster == "south").unwrap();
    assert_eq!((south.in_use, south.quarantined, south.granted, south.limit), (0, 60, 100, 1_048_575));
    let next = store.execute(lost, &allocate("south", "next"), PATIENCE).await.unwrap();
    assert_eq!(next.identity.unwrap().number(), 161);
}
