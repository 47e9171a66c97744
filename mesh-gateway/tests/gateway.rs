//! The gateway between real stores and real followers, on loopback.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use ringfence_mesh_gateway::{Config, Gateway, StartError, cache::MeshCache, config::ClusterConfig};
use ringfence_policy::{
    command::{Command, SignOfLife},
    identity::ClusterId,
    name::Name,
    record::{Cluster, MeshSettings, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey, Snapshot},
    revision::Revision,
    store::StoreId,
};
use ringfence_proto::{
    connect::{Dialer, Expected},
    follow::{FollowEvent, Follower, Interest, Position, VIEW},
    v1::{self, mesh_client::MeshClient},
};
use ringfence_runtime::{
    tasks::Tasks,
    telemetry::LogFormat,
    tls::{Tls, TlsFiles},
};
use support::{Killable, TestStore, as_role, certificates, eventually, free_address, get, metric, node};
use tonic::{Code, transport::Channel};

/// A running gateway that can be killed.
struct Running {
    address: SocketAddr,
    cache: Arc<MeshCache>,
    runtime: Killable,
    tasks: Tasks,
}

fn config(tls: &TlsFiles, members: &[SocketAddr]) -> Config {
    Config {
        cluster: ClusterConfig {
            name: Name::new("east").unwrap(),
            id: ClusterId::new(1).unwrap(),
            pod_cidrs: vec!["10.101.0.0/16".parse().unwrap()],
        },
        listen: "127.0.0.1:0".parse().unwrap(),
        members: members.iter().map(ToString::to_string).collect(),
        tls: tls.clone(),
        cache_file: None,
        report_interval_ms: 100,
        history: 100,
        health_listen: None,
        log_format: LogFormat::Text,
        drain_timeout_ms: 1000,
    }
}

fn start(config: &Config) -> Running {
    let runtime = Killable::new();
    let mut tasks = Tasks::new();
    let gateway = runtime.run(Gateway::start(config, &mut tasks)).unwrap();
    Running { address: gateway.address, cache: gateway.cache, runtime, tasks }
}

impl Running {
    fn channel(&self, tls: &TlsFiles) -> Channel {
        self.channel_as("admin/test", tls)
    }

    fn channel_as(&self, role: &str, tls: &TlsFiles) -> Channel {
        let (tls, east) = (Tls::open(as_role(tls, role)).unwrap(), Expected::Gateway("east".parse().unwrap()));
        let dialer = Dialer::new(east, move || tls.client());
        self.runtime.run(async { dialer.channel(&self.address.to_string()).unwrap() })
    }

    fn client(&self, tls: &TlsFiles) -> MeshClient<Channel> {
        MeshClient::new(self.channel(tls))
    }

    /// Writes as somebody; the code of the answer.
    fn write_as(&self, role: &str, tls: &TlsFiles, command: Command) -> Code {
        let mut client = MeshClient::new(self.channel_as(role, tls));
        let answer = self.runtime.run(async move { client.execute(v1::Command::from(command)).await });
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

fn cluster(name: &str, id: u32) -> Record {
    Record::Cluster(Cluster { name: Name::new(name).unwrap(), id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] })
}

fn scratch() -> (tempfile::TempDir, TlsFiles) {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    (directory, tls)
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// The revisions that a follower learnt, up to `until`.
fn follow_until(running: &Running, tls: &TlsFiles, from: u64, until: Revision) -> Vec<u64> {
    let channel = running.channel(tls);
    running.runtime.run(async move {
        let mut follower = Follower::connect(channel, Revision(from), "test".into()).await.unwrap();
        let mut revisions = vec![];
        loop {
            let revision = match follower.next().await.unwrap() {
                FollowEvent::Snapshot(snapshot) => snapshot.revision,
                FollowEvent::Delta(delta) => delta.revision,
                FollowEvent::Progress { .. } => continue,
                FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
            };
            revisions.push(revision.0);
            if revision >= until {
                return revisions;
            }
        }
    })
}

#[test]
fn s13_fail_over_between_members_is_gap_free_for_a_follower() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (first, first_member) = store.serve("member/1", any(), &tls);
    let (second, _second_member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[first, second]));
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    assert_eq!(running.cache.upstream(), first.to_string(), "the first member is preferred");

    let channel = running.channel(&tls);
    let follower = running.runtime.run(Follower::connect(channel, Revision(1), "test".into())).unwrap();
    first_member.kill();
    for id in 2..=20 {
        store.put(cluster(&format!("c{id}"), id));
    }
    let revisions = running.runtime.run(async move {
        let (mut follower, mut revisions) = (follower, vec![]);
        while revisions.last() != Some(&20) {
            match follower.next().await.unwrap() {
                FollowEvent::Delta(delta) => revisions.push(delta.revision.0),
                FollowEvent::Snapshot(_) => panic!("a snapshot where deltas were there"),
                FollowEvent::Progress { .. } => {}
                FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
            }
        }
        revisions
    });
    assert_eq!(revisions, (2..=20).collect::<Vec<_>>());
    assert_eq!(running.cache.upstream(), second.to_string());
    assert_eq!(running.cache.history().read(|history| history.mesh().snapshot()), store.snapshot());
    assert_eq!(follow_until(&running, &tls, 5, Revision(20)), (6..=20).collect::<Vec<_>>(), "resume from the history");
    running.tasks.token().cancel();
}

#[test]
fn s11_without_the_store_the_state_stays_and_its_staleness_grows() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (address, member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    store.put(cluster("west", 2));
    eventually("the gateway has everything", || {
        running.cache.revision() == Revision(2) && running.cache.freshness().is_known()
    });
    store.set_staleness(Duration::from_secs(60));
    store.put(cluster("south", 3));
    eventually("revision 3 is here", || running.cache.revision() == Revision(3));
    assert!(running.cache.freshness().staleness() < Duration::from_secs(60), "what was fresh does not age faster");

    member.kill();
    eventually("the loss is noticed", || running.cache.upstream().is_empty());
    let before = running.cache.freshness().staleness();
    eventually("staleness grows", || running.cache.freshness().staleness() > before + Duration::from_millis(300));
    assert_eq!(follow_until(&running, &tls, 0, Revision(3)).last(), Some(&3), "followers are served from the cache");

    let mut client = running.client(&tls);
    let status = running.runtime.run(client.status(v1::StatusRequest {})).unwrap().into_inner();
    assert_eq!((status.responder.as_str(), status.revision), ("gateway east", 3));
    assert!(status.staleness_ms >= 300, "{status:?}");
    assert_eq!(status.members[0].state, "unreachable");
    let list = |consistency: v1::Consistency| {
        let request = v1::ListRequest { kind: v1::Kind::Cluster.into(), consistency: consistency.into() };
        let mut client = running.client(&tls);
        running.runtime.run(async move {
            let mut stream = client.list(request).await?.into_inner();
            Ok::<_, tonic::Status>(stream.message().await?.unwrap())
        })
    };
    let stale = list(v1::Consistency::Stale).unwrap();
    assert_eq!((stale.records.len(), stale.revision), (3, 3));
    assert!(stale.staleness_ms >= 300);
    assert_eq!(list(v1::Consistency::Linearizable).unwrap_err().code(), Code::Unavailable);
    let command = v1::Command::from(Command::PutNode(node("east", "n1", "10.40.1.1")));
    let refused = running.runtime.run(running.client(&tls).execute(command)).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&address.to_string()), "{refused}");
    running.tasks.token().cancel();
}

#[test]
fn s3_a_member_that_is_behind_is_not_followed_and_takes_nothing_away() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    store.put(cluster("west", 2));
    let behind = TestStore::at(store.snapshot());
    store.put(cluster("south", 3));
    let (ahead_address, ahead) = store.serve("member/1", any(), &tls);
    let (behind_address, _behind) = behind.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[ahead_address, behind_address]));
    eventually("the gateway has everything", || running.cache.revision() == Revision(3));
    ahead.kill();
    eventually("the loss is noticed", || running.cache.upstream().is_empty());
    let west = |store: &TestStore| store.snapshot().records.len();
    assert_eq!((west(&store), west(&behind)), (3, 1));
    assert_eq!(running.cache.revision(), Revision(3));
    // It catches up: revision 2 and 3 as the others have them.
    behind.put(cluster("south", 3));
    behind.put(cluster("east", 1));
    eventually("a member that has caught up is followed", || running.cache.upstream() == behind_address.to_string());
    assert_eq!(running.cache.revision(), Revision(3));
    running.tasks.token().cancel();
}

#[test]
fn s3_another_store_is_taken_as_a_whole_by_gateway_and_followers_and_only_if_it_is_ahead() {
    let (directory, tls) = scratch();
    let [old, new] = [1, 2].map(|byte| StoreId::new(byte.into(), [byte; 10]));
    let first = TestStore::new(100);
    first.found(old);
    let (address, member) = first.serve("member/1", any(), &tls);
    let with_cache = Config { cache_file: Some(directory.path().join("gateway.cache")), ..config(&tls, &[address]) };
    let running = start(&with_cache);
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    for id in 2..=5 {
        first.put(cluster(&format!("old{id}"), id));
    }
    eventually("all of the old store", || {
        running.cache.position() == Position { store: Some(old), revision: Revision(5) }
    });
    let channel = running.channel(&tls);
    let mut agent = running.runtime.run(Follower::connect(channel, Position::default(), "agent".into())).unwrap();
    while !matches!(running.runtime.run(agent.next()).unwrap(), FollowEvent::Progress { .. }) {}
    assert_eq!(agent.position(), running.cache.position());
    member.kill();

    // Restored from a backup of revision 1, and not as far as the old one was: it would take something back.
    let second = TestStore::at(Snapshot { revision: Revision(1), ..Snapshot::default() });
    second.found(new);
    for id in 11..=14 {
        second.put(cluster(&format!("new{id}"), id));
    }
    assert_eq!(second.revision(), Revision(5));
    let (_, _member) = second.serve("member/1", address, &tls);
    let refused = running.runtime.run(Follower::connect(running.channel(&tls), Revision(5), "x".into())).unwrap();
    assert_eq!(refused.position().revision, Revision(5), "the gateway serves on");
    let lost = || running.cache.upstream().is_empty() && running.cache.position().store == Some(old);
    eventually("a store that is not ahead is not followed", lost);

    second.put(cluster("new15", 15));
    let taken = Position { store: Some(new), revision: Revision(6) };
    eventually("all of the new store", || running.cache.position() == taken);
    let records = |snapshot: &Snapshot| snapshot.records.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        records(&running.cache.history().whole().1),
        records(&second.snapshot()),
        "nothing of the old one is left"
    );
    // An agent whose stream went on is told the whole state of the new store.
    let told = running.runtime.run(async {
        loop {
            if let FollowEvent::Snapshot(snapshot) = agent.next().await.unwrap() {
                return snapshot;
            }
        }
    });
    assert_eq!((records(&told), agent.position()), (records(&second.snapshot()), taken));
    // So is one that comes back with a revision of the old store, though there are deltas from there on.
    let before = Position { store: Some(old), revision: Revision(5) };
    let mut back = running.runtime.run(Follower::connect(running.channel(&tls), before, "agent".into())).unwrap();
    assert!(matches!(running.runtime.run(back.next()).unwrap(), FollowEvent::Snapshot(_)));
    // And the cache file says whose state it is.
    running.tasks.token().cancel();
    eventually("the new state is on disk", || {
        let restarted = start(&Config { members: vec![free_address().to_string()], ..with_cache.clone() });
        restarted.cache.position() == taken
    });
}

#[test]
fn writes_go_to_the_next_member_where_one_has_no_leader_and_refusals_come_back_as_they_are() {
    let (_directory, tls) = scratch();
    let (cut_off, store) = (TestStore::new(100), TestStore::new(100));
    cut_off.set_available(false);
    let (first, _first) = cut_off.serve("member/1", any(), &tls);
    let (second, _second) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[first, free_address(), second]));
    eventually("the cluster is registered", || store.revision() == Revision(1));
    let mut client = running.client(&tls);
    let command = |cluster: &str| v1::Command::from(Command::PutNode(node(cluster, "n1", "10.40.1.1")));
    let committed = running.runtime.run(client.execute(command("east"))).unwrap().into_inner();
    assert_eq!(committed, v1::Committed { revision: 2, changed: true, identity: 0 });
    let refused = running.runtime.run(client.execute(command("nowhere"))).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("cluster nowhere does not exist"), "{refused}");
    running.tasks.token().cancel();
}

#[test]
fn a_write_that_no_member_answers_comes_back_with_the_reason_before_its_caller_gives_up() {
    let (_directory, tls) = scratch();
    let silent = std::net::TcpListener::bind(any()).unwrap();
    let silent_address = silent.local_addr().unwrap();
    let running = start(&config(&tls, &[silent_address]));
    let ask = || {
        let mut request = tonic::Request::new(v1::Command::from(Command::PutNode(node("east", "n1", "10.40.1.1"))));
        request.set_timeout(Duration::from_secs(1));
        running.runtime.run(running.client(&tls).execute(request)).unwrap_err()
    };
    // A machine that stands still for a moment lets the caller's clock win: it counts that the gateway can be in time.
    let expected = format!("{silent_address}: no answer within");
    eventually("the reason comes in time", || {
        let refused = ask();
        refused.code() == Code::Unavailable && refused.message().contains(&expected)
    });
    running.tasks.token().cancel();
}

#[test]
fn a_removal_whose_answer_was_lost_is_settled_by_what_the_store_has() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (first, _first) = store.serve("member/1", any(), &tls);
    let (second, _second) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[first, second]));
    eventually("the cluster is registered", || store.revision() == Revision(1));
    let key = |name: &str| PolicyKey {
        kind: PolicyKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: Name::new(name).unwrap(),
    };
    let put = |name: &str| {
        store.execute(Command::PutPolicies(vec![PolicyRecord { key: key(name), text: "{}".to_owned() }])).unwrap()
    };
    let delete = |names: &[&str]| {
        let command = Command::DeletePolicies(names.iter().map(|name| key(name)).collect());
        running.runtime.run(running.client(&tls).execute(v1::Command::from(command)))
    };
    put("a");
    store.lose_answers(1);
    let removed = delete(&["a"]).unwrap().into_inner();
    assert!(removed.changed && removed.revision == store.revision().0, "{removed:?}");
    store.lose_answers(0);
    put("b");
    let refused = delete(&["b", "never"]).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(store.snapshot().records.contains_key(&RecordKey::Policy(key("b"))));
    running.tasks.token().cancel();
}

#[test]
fn reports_are_merged_and_reach_every_member() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let other = TestStore::new(100);
    let (first, _first) = store.serve("member/1", any(), &tls);
    let (second, _second) = other.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[first, second]));
    let mut client = running.client(&tls);
    let report = |cluster: &str, revision| v1::ReportRequest {
        gateway: None,
        nodes: vec![v1::NodeStatus {
            cluster: cluster.into(),
            name: "n1".into(),
            realised_revision: revision,
            reported: true,
            ..v1::NodeStatus::default()
        }],
    };
    eventually("the cluster is registered", || store.revision() == Revision(1));
    running.runtime.run(client.report(report("east", 1))).unwrap();
    let has = |store: &TestStore, revision| {
        let newest = store.reports().pop();
        newest.is_some_and(|report| {
            report.gateway.is_some_and(|gateway| gateway.cluster == "east")
                && report.nodes.iter().any(|node| node.realised_revision == revision)
        })
    };
    eventually("both members know", || has(&store, 1) && has(&other, 1));
    running.runtime.run(client.report(report("east", 2))).unwrap();
    eventually("both members know the news", || has(&store, 2) && has(&other, 2));

    let foreign = running.runtime.run(client.report(report("west", 1))).unwrap_err();
    assert_eq!(foreign.code(), Code::InvalidArgument);
    store.execute(Command::PutNode(node("east", "n1", "10.40.1.1"))).unwrap();
    let status = running.runtime.run(client.status(v1::StatusRequest {})).unwrap().into_inner();
    assert_eq!((status.nodes.len(), status.nodes[0].realised_revision), (1, 2), "{status:?}");
    assert_eq!(status.gateways[0].upstream, first.to_string());
    running.tasks.token().cancel();
}

#[test]
fn the_store_hears_of_all_nodes_that_report_in_one_command() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    store.put(Record::Settings(MeshSettings { node_lease_ms: 1000, ..MeshSettings::default() }));
    let (address, _member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    eventually("an empty list is told, too", || store.signs_of_life().contains(&vec![]));
    let mut client = running.client(&tls);
    let report = |name: &str, realised_revision| v1::NodeStatus {
        cluster: "east".into(),
        name: name.into(),
        realised_revision,
        reported: true,
        ..v1::NodeStatus::default()
    };
    let request = v1::ReportRequest { gateway: None, nodes: vec![report("n1", 1), report("n2", 2)] };
    running.runtime.run(client.report(request)).unwrap();
    let sign =
        |(name, revision): (&str, u64)| SignOfLife { node: Name::new(name).unwrap(), realised: Revision(revision) };
    let both: Vec<_> = [("n1", 1), ("n2", 2)].map(sign).to_vec();
    eventually("both are told of", || store.signs_of_life().contains(&both));
    eventually("who says nothing more is told of no more", || store.signs_of_life().last() == Some(&vec![]));
    running.tasks.token().cancel();
}

#[test]
fn a_view_is_for_the_agent_of_its_node_alone() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (address, _member) = store.serve("member/1", any(), &tls);
    let gateway = start(&config(&tls, &[address]));
    eventually("the cluster is registered", || gateway.cache.revision() == Revision(1));
    let follow = |role: &str, cluster: &str, node: &str| {
        let interests = Some(v1::Interests { cluster: cluster.into(), node: node.into(), ..v1::Interests::default() });
        let request = v1::FollowRequest { follower: "test".into(), interests, ..v1::FollowRequest::default() };
        let mut client = MeshClient::new(gateway.channel_as(role, &tls));
        let answer = gateway.runtime.run(async move { client.follow(request).await });
        answer.map(|answer| answer.metadata().get(VIEW).map(|view| view.to_str().unwrap().to_owned()))
    };
    assert_eq!(follow("agent/east/n1", "east", "n1").unwrap().as_deref(), Some("east/n1"));
    for (role, cluster) in [("agent/east/n2", "east"), ("agent/east/n1", "west"), ("admin/test", "east")] {
        let refused = follow(role, cluster, "n1").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}: {refused}");
        assert!(
            refused.message().contains(&format!("{role} may not follow the view of node {cluster}/n1")),
            "{refused}"
        );
    }
    let foreign = follow("agent/west/n1", "east", "n1").unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied, "{foreign}");
    gateway.tasks.token().cancel();
}

#[test]
fn s8_a_restarted_gateway_serves_from_its_cache_file_while_the_store_is_away() {
    let (directory, tls) = scratch();
    let store = TestStore::new(100);
    let (address, member) = store.serve("member/1", any(), &tls);
    let with_cache = Config { cache_file: Some(directory.path().join("gateway.cache")), ..config(&tls, &[address]) };
    let running = start(&with_cache);
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    eventually("the state is on disk", || directory.path().join("gateway.cache").exists());
    member.kill();
    running.runtime.kill();

    let restarted = start(&with_cache);
    assert_eq!(follow_until(&restarted, &tls, 0, Revision(1)), [1]);
    restarted.runtime.kill();
    let without = start(&config(&tls, &[address]));
    let mut client = without.client(&tls);
    let request = v1::FollowRequest { follower: "test".into(), ..v1::FollowRequest::default() };
    let refused = without.runtime.run(client.follow(request)).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("has not reached the store yet"), "{refused}");
}

#[test]
fn a_member_from_before_followers_had_links_is_followed_over_grpc() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    store.take_no_followers();
    let (address, _member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    assert_eq!(running.cache.upstream(), address.to_string());
}

#[test]
fn followers_are_let_go_when_the_gateway_stops() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (address, _member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    eventually("the gateway has a state", || running.cache.freshness().is_known());
    let channel = running.channel(&tls);
    let outside = Killable::new();
    let mut follower = outside.run(Follower::connect(channel, Revision(0), "test".into())).unwrap();
    running.tasks.token().cancel();
    let ended = outside.run(async {
        loop {
            if let Err(error) = follower.next().await {
                return error;
            }
        }
    });
    assert!(ended.to_string().contains("the gateway stops"), "{ended}");
}

#[test]
fn what_keeps_a_gateway_from_starting_is_said() {
    let (directory, tls) = scratch();
    let taken = std::net::TcpListener::bind(any()).unwrap();
    let runtime = Killable::new();
    let refused = |config: &Config| runtime.run(Gateway::start(config, &mut Tasks::new())).unwrap_err();
    let good = config(&tls, &[free_address()]);
    let in_use = refused(&Config { listen: taken.local_addr().unwrap(), ..good.clone() });
    assert!(matches!(in_use, StartError::Listen { .. }) && !in_use.is_configuration(), "{in_use}");
    let missing = TlsFiles { key: Path::new("missing.key").into(), ..tls };
    let no_key = refused(&Config { tls: missing, ..good });
    assert!(no_key.to_string().contains("missing.key") && no_key.is_configuration(), "{no_key}");

    let store = TestStore::new(10);
    store.put(cluster("west", 1));
    let tls = certificates(directory.path());
    let (address, _member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    let ended = running.runtime.run(running.tasks.run(Duration::from_secs(5))).unwrap_err();
    assert!(ended.to_string().contains("cluster id 1 belongs to cluster west"), "{ended}");
}

#[test]
fn every_role_writes_what_is_its_own_and_the_store_hears_for_whom() {
    let (_directory, tls) = scratch();
    let store = TestStore::new(100);
    let (address, _member) = store.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[address]));
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    let own = || Command::PutNode(node("east", "n1", "10.40.1.1"));
    let policy = || Command::PutPolicies(vec![]);
    let cases = [
        ("agent/east/n1", own(), Code::Ok),
        ("agent/east/n2", own(), Code::PermissionDenied),
        ("agent/west/n1", own(), Code::PermissionDenied),
        ("agent/east/n1", policy(), Code::PermissionDenied),
        ("reader/test", own(), Code::PermissionDenied),
        ("gateway/west", own(), Code::PermissionDenied),
        ("member/1", own(), Code::PermissionDenied),
        ("admin/test", policy(), Code::Ok),
    ];
    for (role, command, expected) in cases {
        assert_eq!(running.write_as(role, &tls, command.clone()), expected, "{role} {command:?}");
    }
    let askers = store.askers();
    assert_eq!(askers, [None, Some("agent/east/n1".to_owned()), Some("admin/test".to_owned())]);

    let report = |name: &str| {
        let node = v1::NodeStatus { cluster: "east".into(), name: name.into(), ..v1::NodeStatus::default() };
        v1::ReportRequest { gateway: None, nodes: vec![node] }
    };
    let mut agent = MeshClient::new(running.channel_as("agent/east/n1", &tls));
    running.runtime.run(agent.report(report("n1"))).unwrap();
    let refused = running.runtime.run(agent.report(report("n2"))).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("agent/east/n1 may not report about records of node east/n2"), "{refused}");
    let mut west = MeshClient::new(running.channel_as("agent/west/n1", &tls));
    let refused = running.runtime.run(west.status(v1::StatusRequest {})).unwrap_err();
    assert!(refused.message().contains("the gateway of its own cluster"), "{refused}");
}

#[test]
fn nobody_but_a_member_is_taken_for_the_store() {
    let (_directory, tls) = scratch();
    let (fake, real) = (TestStore::new(100), TestStore::new(100));
    let (fake_address, _fake) = fake.serve("agent/east/n1", any(), &tls);
    let (real_address, _real) = real.serve("member/1", any(), &tls);
    let running = start(&config(&tls, &[fake_address, real_address]));
    eventually("the cluster is registered", || running.cache.revision() == Revision(1));
    assert_eq!(fake.revision(), Revision(0), "the agent's certificate got it nothing");
}

#[test]
fn health_says_why_not_and_metrics_follow_what_happens() {
    let (_directory, tls) = scratch();
    let (member, health) = (free_address(), free_address());
    let running = start(&Config { health_listen: Some(health), ..config(&tls, &[member]) });
    assert_eq!(get(health, "/livez"), (200, "ok\n".to_owned()));
    let (code, reason) = get(health, "/readyz");
    assert_eq!(code, 503);
    assert!(reason.contains("the store has not been reached yet"), "{reason}");
    assert_eq!(get(health, "/other").0, 404);
    assert_eq!(metric(health, "ringfence_gateway_upstream_connected"), Some(0.0));

    let store = TestStore::new(100);
    let (_, first) = store.serve("member/1", member, &tls);
    eventually("the gateway is ready", || get(health, "/readyz").0 == 200);
    eventually("the revision is measured", || metric(health, "ringfence_gateway_revision") == Some(1.0));
    assert_eq!(running.write_as("reader/test", &tls, Command::PutPolicies(vec![])), Code::PermissionDenied);
    let interest = Interest::new("east".parse().unwrap(), "n1".parse().unwrap(), Arc::default());
    let channel = running.channel_as("reader/test", &tls);
    let refused = running.runtime.run(Follower::connect_to_view(channel, Revision(0), "test".to_owned(), interest));
    assert!(refused.unwrap_err().to_string().contains("reader/test may not follow the view of node east/n1"));
    let text = get(health, "/metrics").1;
    for expected in [
        "ringfence_refusals_total{role=\"reader\",request=\"write\"} 1",
        "ringfence_refusals_total{role=\"reader\",request=\"view\"} 1",
        "ringfence_requests_total{method=\"Mesh/Execute\",code=\"PERMISSION_DENIED\"} 1",
        "ringfence_build_info{process=\"mesh-gateway\"",
        "ringfence_tls_certificate_not_after_seconds{certificate=\"own\"",
        "# TYPE ringfence_requests_total counter",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    first.kill();
    eventually("the loss is counted", || {
        metric(health, "ringfence_gateway_upstream_lost_total").is_some_and(|count| count >= 1.0)
    });
    assert_eq!(get(health, "/readyz").0, 200, "a gateway that is cut off serves what it has");
}
