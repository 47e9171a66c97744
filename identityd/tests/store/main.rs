//! The store as its clients see it: three real members over mutual TLS on loopback.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bad_input;
mod clients;
mod clock;
mod followers;
mod leases;
mod membership;
mod operations;
mod process;
mod restored;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use followers::FollowedMember;
use ringfence_policy::{
    command::{Command, EndpointSpec},
    identity::Identity,
    mesh::Mesh,
    record::{PolicyKey, PolicyKind, PolicyRecord, RecordKey},
};
use ringfence_proto::{
    follow::{FollowEvent, Follower},
    v1,
};
use support::{PATIENCE, Store, allocate, allocate_fat, dial, name, tls_of, until};
use tonic::{Code, transport::Channel};

/// Follows through whichever member serves, resuming from what it has, until its mesh equals `done`.
async fn follow(members: Vec<FollowedMember>, done: Arc<AtomicBool>) -> (Mesh, u32) {
    let (mut mesh, mut snapshots) = (Mesh::default(), 0);
    for member in members.iter().cycle() {
        let Ok(mut follower) = member.follow(mesh.revision()).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            match follower.next().await {
                // `apply` refuses anything but the next revision: S13.
                Ok(FollowEvent::Delta(delta)) => mesh.apply(&delta).unwrap(),
                Ok(FollowEvent::Snapshot(snapshot)) => {
                    assert!(snapshot.revision >= mesh.revision(), "revisions never go back");
                    mesh = Mesh::from_snapshot(snapshot);
                    snapshots += 1;
                }
                Ok(FollowEvent::Progress { .. }) if done.load(Ordering::SeqCst) => return (mesh, snapshots),
                Ok(FollowEvent::Progress { .. }) => {}
                Ok(FollowEvent::Quiet { .. }) => unreachable!("everything is followed"),
                Err(_gone) => break,
            }
        }
    }
    unreachable!("the members are asked in turn for ever")
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_followers_see_every_revision_once_across_a_leader_kill() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let done = Arc::new(AtomicBool::new(false));
    let members = [1, 2, 3].map(|id| FollowedMember::of(&store, id)).to_vec();
    let following = tokio::spawn(follow(members, done.clone()));
    let mut latencies = Vec::new();
    for number in 0..60_u64 {
        let started = Instant::now();
        let committed = store.execute(number % 3 + 1, &allocate("east", &format!("a{number}")), PATIENCE).await;
        assert!(committed.unwrap().changed, "every member takes writes");
        latencies.push(started.elapsed());
    }
    latencies.sort();
    println!("put through any of three members: p50 {:?}, p90 {:?}", latencies[30], latencies[54]);

    let leader = store.leader().await;
    store.kill(leader).await;
    let killed = Instant::now();
    let survivors: Vec<_> = store.running.keys().copied().collect();
    for number in 0..20_usize {
        let command = allocate("west", &format!("b{number}"));
        store.execute(survivors[number % 2], &command, PATIENCE).await.unwrap();
        if number == 0 {
            println!("first write after the leader was killed: {:?}", killed.elapsed());
        }
    }
    store.restart(leader).await;
    store.converge().await;
    let expected = store.running[&leader].history().read(|history| history.mesh().clone());
    assert_eq!(expected.identities().count(), 80);
    done.store(true, Ordering::SeqCst);
    let (mesh, snapshots) = tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap();
    assert_eq!(mesh, expected);
    assert!(snapshots <= 1, "after the first snapshot, resuming needs deltas only");
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_concurrent_allocations_of_one_label_set_get_one_number() {
    let store = Arc::new(Store::start(5000).await);
    store.register().await;
    let mut allocators = tokio::task::JoinSet::new();
    for id in 1..=3 {
        let store = store.clone();
        allocators.spawn(async move {
            let mut numbers = BTreeMap::new();
            for app in 0..30 {
                let committed = store.execute(id, &allocate("east", &format!("app-{app}")), PATIENCE).await.unwrap();
                numbers.insert(app, committed.identity.unwrap());
            }
            numbers
        });
    }
    let all = allocators.join_all().await;
    assert!(all.iter().all(|numbers| *numbers == all[0]), "one label set, one number: {all:?}");
    assert_eq!(all[0].values().collect::<BTreeSet<_>>().len(), 30, "one number, one label set");
}

/// Staleness and number of the identities that a member lists.
async fn list(
    store: &Store,
    id: u64,
    consistency: v1::Consistency,
    timeout: Duration,
) -> Result<(u64, usize), tonic::Status> {
    let kind = v1::Kind::Identity.into();
    let mut request = tonic::Request::new(v1::ListRequest { kind, consistency: consistency.into() });
    request.set_timeout(timeout);
    let mut stream = store.client(id).list(request).await?.into_inner();
    let (mut staleness, mut count) = (0, 0);
    while let Some(chunk) = stream.message().await? {
        staleness = chunk.staleness_ms;
        count += chunk.records.len();
    }
    Ok((staleness, count))
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_minority_refuses_writes_and_shows_its_staleness() {
    let mut store = Store::start(5000).await;
    store.register().await;
    store.execute(1, &allocate("east", "before"), PATIENCE).await.unwrap();
    for id in 1..=3 {
        assert_eq!(
            list(&store, id, v1::Consistency::Linearizable, PATIENCE).await.unwrap(),
            (0, 1),
            "through member {id}"
        );
    }
    // The leader stays: it would take entries into its log if nothing stopped it.
    let alone = store.leader().await;
    let killed: Vec<_> = store.running.keys().copied().filter(|id| *id != alone).collect();
    for id in &killed {
        store.kill(*id).await;
    }
    let mut quorum = store.running[&alone].members().quorum();
    tokio::time::timeout(PATIENCE, quorum.wait_for(|quorum| !quorum)).await.unwrap().unwrap();
    let last_log = store.running[&alone].raft().metrics().borrow().last_log_index;
    let refused = store.execute(alone, &allocate("east", "during"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("1 of 3 members answer, 2 are needed"), "{refused}");
    assert!(refused.message().contains(&format!("member {} (", killed[0])), "{refused}");
    assert_eq!(store.running[&alone].raft().metrics().borrow().last_log_index, last_log, "nothing was proposed");
    let refused = list(&store, alone, v1::Consistency::Linearizable, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    let stale = until("staleness over 1.5 s", || async {
        let (staleness, count) = list(&store, alone, v1::Consistency::Stale, PATIENCE).await.unwrap();
        (staleness > 1500 && count == 1).then_some(staleness)
    });
    stale.await;
    let status = store.client(alone).status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.staleness_ms > 1500);
    let states: Vec<_> = status.members.iter().filter(|member| member.id != alone).map(|m| m.state.as_str()).collect();
    assert_eq!(states, ["unreachable", "unreachable"]);

    store.restart(killed[0]).await;
    assert!(store.execute(alone, &allocate("east", "after"), PATIENCE).await.unwrap().changed);
    store.converge().await;
    assert_eq!(
        list(&store, killed[0], v1::Consistency::Linearizable, PATIENCE).await.unwrap(),
        (0, 2),
        "'during' never was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_member_that_lost_everything_gets_a_snapshot() {
    let mut store = Store::start(20).await;
    store.register().await;
    let lost = store.leader().await % 3 + 1;
    store.kill(lost).await;
    std::fs::remove_dir_all(&store.configs[&lost].data_dir).unwrap();
    let through = *store.running.keys().next().unwrap();
    // More than fits into one part of a snapshot, or into one message of Raft.
    for number in 0..80 {
        store.execute(through, &allocate_fat("south", &format!("a{number}")), PATIENCE).await.unwrap();
    }
    let purged = until("purged log", || async { store.running[&through].raft().metrics().borrow().purged });
    assert!(purged.await.index > 0, "the log alone cannot bring the member back");
    store.restart(lost).await;
    store.converge().await;
    let snapshot = std::fs::metadata(store.configs[&lost].data_dir.join("snapshot")).unwrap();
    assert!(snapshot.len() > 1 << 20, "{} bytes are one part only", snapshot.len());
    store.execute(lost, &allocate("south", "last"), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_a_stop_and_a_crash_of_all() {
    let mut store = Store::start(30).await;
    store.register().await;
    for (round, orderly) in [true, false].into_iter().enumerate() {
        for number in 0..40 {
            store.execute(1, &allocate("east", &format!("r{round}-{number}")), PATIENCE).await.unwrap();
        }
        store.converge().await;
        let before = store.running[&1].history().read(|history| history.mesh().clone());
        for id in 1..=3 {
            let member = store.running.remove(&id).unwrap();
            if orderly {
                member.shutdown(Duration::from_secs(2)).await.unwrap();
            } else {
                member.kill().await;
            }
        }
        for id in 1..=3 {
            store.restart(id).await;
        }
        store.leader().await;
        until("state from before", || async {
            let same = |id| store.running[&id].history().read(|history| *history.mesh() == before);
            [1, 2, 3].into_iter().all(same).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_its_reason() {
    let store = Store::start(5000).await;
    store.register().await;
    let revision = || store.running[&1].history().read(|history| history.mesh().revision());
    store.converge().await;
    let before = revision();
    let key = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: Some(name("shop")), name: name("a") };
    let text =
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: shop}\nspec: {nope: 1}\n";
    let policy = PolicyRecord { key: key.clone(), text: text.to_owned() };
    let cases = [
        (Command::PutPolicies(vec![policy]), Code::InvalidArgument, "4:8"),
        (Command::DeletePolicies(vec![key]), Code::NotFound, "CiliumNetworkPolicy shop/a does not exist"),
        (allocate("north", "a"), Code::FailedPrecondition, "cluster north does not exist"),
        (Command::Delete(RecordKey::Cluster(name("east"))), Code::FailedPrecondition, "in use by node east/n1"),
    ];
    for (command, code, expected) in cases {
        for id in 1..=3 {
            let status = store.execute(id, &command, PATIENCE).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(expected), "{status}");
        }
    }
    let empty = store.client(1).execute(v1::Command { command: None }).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty}");
    let kind = store.client(1).list(v1::ListRequest::default()).await.unwrap_err();
    assert_eq!(kind.code(), Code::InvalidArgument, "{kind}");
    let ahead =
        v1::FollowRequest { from_revision: 1_000_000, follower: "test".to_owned(), ..v1::FollowRequest::default() };
    let ahead = store.client(1).follow(ahead).await.unwrap_err();
    assert_eq!(ahead.code(), Code::Unavailable, "{ahead}");
    let config = &store.configs[&1];
    let anonymous = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(std::fs::read(&config.tls.ca).unwrap()))
        .domain_name(ringfence_proto::connect::SERVER_NAME);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", config.listen)).unwrap();
    let channel = endpoint.tls_config(anonymous).unwrap().connect_lazy();
    let mut client = v1::mesh_client::MeshClient::new(channel);
    assert!(client.status(v1::StatusRequest {}).await.is_err(), "nobody without a certificate gets in");
    assert_eq!(revision(), before, "nothing changed");
}

/// What an older member cannot apply does not get as far as the log (docs/decisions/0011); the rest does.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_address_waits_until_every_member_understands_it() {
    let mut store = Store::start(5000).await;
    store.register().await;
    store.kill(3).await;
    store.leader().await;
    // Member 3 comes with an older software: it calls, with its certificate and what it understands.
    for id in [1, 2] {
        let older = dial(&tls_of(&store.configs[&1].tls, 3), &store.configs[&id].listen.to_string());
        let mut request = tonic::Request::new(v1::StatusRequest {});
        request.metadata_mut().insert("user-agent", "ringfence/0.0.9 features/2".parse().unwrap());
        v1::mesh_client::MeshClient::new(older).status(request).await.unwrap();
    }
    let endpoint = |endpoint: &str, label: &str, address: &str| {
        Command::PutEndpoint(EndpointSpec {
            cluster: name("east"),
            node: name("n1"),
            name: name(endpoint),
            addresses: vec![address.parse().unwrap()],
            labels: ringfence_policy::label::LabelSet::parse([label]).unwrap(),
            named_ports: vec![],
        })
    };
    let proxy = endpoint("reserved-ingress", "reserved:ingress", "10.101.1.8");
    for id in [1, 2] {
        let refused = store.execute(id, &proxy, PATIENCE).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let reason =
            "needs feature level 3, and member 3 (0.0.9) understands 2: upgrade every member and gateway first";
        assert!(refused.message().contains(reason), "{refused}");
    }
    assert!(store.execute(1, &allocate("east", "other"), PATIENCE).await.unwrap().changed);
    let web = endpoint("web", "k8s:app=web", "10.101.1.1");
    assert!(store.execute(1, &web, PATIENCE).await.unwrap().changed, "everything else goes on");
    store.restart(3).await;
    let identity = until("all members of this version", || async {
        Some(store.execute(1, &proxy, PATIENCE).await.ok()?.identity)
    })
    .await;
    assert_eq!(identity, Some(Identity::INGRESS));
    // A gateway that could not follow any more has a say, too.
    let files = |suffix: &str| store.configs[&1].tls.ca.with_file_name(format!("gateway.{suffix}"));
    let tls = ringfence_runtime::tls::TlsFiles {
        ca: store.configs[&1].tls.ca.clone(),
        certificate: files("crt"),
        key: files("key"),
    };
    let mut request = tonic::Request::new(v1::StatusRequest {});
    request.metadata_mut().insert("user-agent", "ringfence/0.0.9 features/2".parse().unwrap());
    let gateway = dial(&tls, &store.configs[&1].listen.to_string());
    v1::mesh_client::MeshClient::new(gateway).status(request).await.unwrap();
    let health = endpoint("reserved-health", "reserved:health", "10.101.1.4");
    let refused = store.execute(1, &health, PATIENCE).await.unwrap_err();
    assert!(refused.message().contains("a gateway of cluster east (0.0.9) understands 2"), "{refused}");
    assert!(store.execute(2, &health, PATIENCE).await.unwrap().changed, "control: member 2 was not called by it");
    store.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_joins_members_nodes_and_reports() {
    let store = Store::start(5000).await;
    store.register().await;
    let report = |name: &str| v1::NodeStatus {
        cluster: "east".to_owned(),
        name: name.to_owned(),
        realised_revision: 4,
        report_age_ms: 700,
        ..v1::NodeStatus::default()
    };
    let gateway = v1::GatewayStatus { cluster: "east".to_owned(), revision: 5, ..v1::GatewayStatus::default() };
    let request = v1::ReportRequest { gateway: Some(gateway), nodes: vec![report("n1"), report("unregistered")] };
    store.converge().await;
    store.client(1).report(request).await.unwrap();
    let status = until("status of all members", || async {
        let status = store.client(1).status(v1::StatusRequest {}).await.unwrap().into_inner();
        let leaders = status.members.iter().filter(|member| member.state == "leader").count();
        let reached = status.members.iter().all(|member| member.state != "unreachable");
        (reached && leaders == 1).then_some(status)
    })
    .await;
    assert_eq!(status.responder, "member 1 (east)");
    assert_eq!(status.members.iter().map(|member| member.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(status.gateways.len(), 1);
    let nodes: Vec<_> = status.nodes.iter().map(|node| (node.cluster.as_str(), node.reported)).collect();
    assert_eq!(nodes, [("east", true), ("south", false), ("west", false)]);
    assert!(status.nodes[0].report_age_ms >= 700);
}
