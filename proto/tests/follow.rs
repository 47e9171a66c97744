//! `Follow` over a real server on loopback (S13): what a follower gets, and what it does not accept.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ringfence_policy::{
    identity::{ClusterId, Identity},
    label::LabelSet,
    mesh::{History, Mesh},
    name::Name,
    object::parse_objects,
    record::{
        Change, Cluster, Delta, IdentityRecord, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey, Snapshot,
    },
    revision::Revision,
};
use ringfence_proto::{
    follow::{
        FollowError, FollowEvent, FollowResponseStream, Follower, Interest, ListResponseStream, MAX_ADDRESSES,
        SharedHistory, answer, list, serve,
    },
    v1::{self, follow_event::Event, mesh_client::MeshClient, mesh_server},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::StreamExt;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

/// Serves a history, or says word for word what it is told to say.
#[derive(Clone)]
enum TestServer {
    History { history: Arc<SharedHistory>, staleness_ms: Arc<AtomicU64> },
    Script { events: Vec<v1::FollowEvent>, then_closes: bool },
}

#[tonic::async_trait]
impl mesh_server::Mesh for TestServer {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Ok(Response::new(match self.clone() {
            Self::History { history, staleness_ms } => {
                let staleness = move || Duration::from_millis(staleness_ms.load(Ordering::Relaxed));
                let request = request.into_inner();
                let interest = request.interests.map(Interest::try_from).transpose()?;
                let from = Revision(request.from_revision);
                return Ok(answer(serve(history, from, interest.clone(), Arc::new(staleness)), interest.as_ref()));
            }
            Self::Script { events, then_closes: true } => Box::pin(tokio_stream::iter(events).map(Ok)),
            Self::Script { events, then_closes: false } => {
                Box::pin(tokio_stream::iter(events).map(Ok).chain(tokio_stream::pending()))
            }
        }))
    }

    async fn list(&self, _request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let Self::History { history, .. } = self else { return Err(Status::unimplemented("no history")) };
        let snapshot = history.read(|history| history.mesh().snapshot());
        Ok(Response::new(list(snapshot.revision, Duration::from_millis(7), snapshot.records.into_values())))
    }

    async fn execute(&self, _request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        Err(Status::unimplemented("follow only"))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Err(Status::unimplemented("follow only"))
    }

    async fn report(&self, _request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(Status::unimplemented("follow only"))
    }
}

/// A server on a runtime of its own, so that it can go away with its connections.
struct Running {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Running {
    fn start(server: TestServer) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            let service = mesh_server::MeshServer::new(server);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, runtime: Some(runtime) }
    }

    fn says(events: Vec<Event>) -> Self {
        Self::start(TestServer::Script { events: events.into_iter().map(wrap).collect(), then_closes: false })
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn follow(&self, from: u64) -> Follower {
        Follower::connect(self.channel().await, Revision(from), "test".to_owned()).await.unwrap()
    }

    /// Follows until something is wrong.
    async fn error(&self, from: u64) -> FollowError {
        let mut follower = self.follow(from).await;
        loop {
            if let Err(error) = follower.next().await {
                return error;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn wrap(event: Event) -> v1::FollowEvent {
    v1::FollowEvent { event: Some(event) }
}

fn history(capacity: usize, deltas: u64) -> Arc<SharedHistory> {
    let history = SharedHistory::new(History::new(Mesh::default(), capacity));
    for revision in 1..=deltas {
        history.push(put(revision, 10)).unwrap();
    }
    Arc::new(history)
}

fn served(history: &Arc<SharedHistory>) -> Running {
    Running::start(TestServer::History { history: Arc::clone(history), staleness_ms: Arc::default() })
}

fn policy(revision: u64, length: usize) -> Record {
    let name = Name::new(format!("p{revision}")).unwrap();
    let key = PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name };
    Record::Policy(PolicyRecord { key, text: "x".repeat(length) })
}

fn put(revision: u64, length: usize) -> Delta {
    Delta { revision: Revision(revision), changes: vec![Change::Put(policy(revision, length))] }
}

fn delta(revision: u64) -> Event {
    Event::Delta(put(revision, 1).into())
}

fn progress(revision: u64) -> Event {
    Event::Progress(v1::Progress { revision, staleness_ms: 0 })
}

fn chunk(revision: u64, record: u64, last: bool) -> Event {
    let record = v1::Versioned { revision: record, record: Some(policy(record, 1).into()) };
    Event::Snapshot(v1::SnapshotChunk { revision, records: vec![record], last, ..Default::default() })
}

/// The next event that is no progress mark.
async fn change(follower: &mut Follower) -> FollowEvent {
    loop {
        match follower.next().await.unwrap() {
            FollowEvent::Progress { .. } => {}
            event => return event,
        }
    }
}

async fn snapshot(follower: &mut Follower) -> Snapshot {
    match change(follower).await {
        FollowEvent::Snapshot(snapshot) => snapshot,
        other => panic!("{other:?} instead of a snapshot"),
    }
}

async fn deltas(follower: &mut Follower, count: usize) -> Vec<u64> {
    let mut revisions = Vec::new();
    while revisions.len() < count {
        match change(follower).await {
            FollowEvent::Delta(delta) => revisions.push(delta.revision.0),
            other => panic!("{other:?} instead of a delta"),
        }
    }
    revisions
}

fn head(history: &SharedHistory) -> Snapshot {
    history.read(|history| history.mesh().snapshot())
}

#[tokio::test]
async fn s13_a_snapshot_in_several_chunks_comes_as_one_then_every_delta_in_order() {
    let history = history(0, 0);
    for revision in 1..=50 {
        history.push(put(revision, 60_000)).unwrap();
    }
    let before = head(&history);
    let deep = Arc::new(SharedHistory::new(History::new(Mesh::from_snapshot(before.clone()), 100)));
    let server = served(&deep);

    let mut raw = MeshClient::new(server.channel().await);
    let mut stream = raw.follow(v1::FollowRequest::default()).await.unwrap().into_inner();
    let mut chunks = 0;
    while let Some(Event::Snapshot(chunk)) = stream.message().await.unwrap().unwrap().event {
        chunks += 1;
        if chunk.last {
            break;
        }
    }
    assert!(chunks >= 3, "{chunks} chunks for 3 MB");

    let mut follower = server.follow(0).await;
    assert_eq!(
        follower.next().await.unwrap(),
        FollowEvent::Snapshot(before),
        "nothing comes before the whole snapshot"
    );
    for revision in 51..=55 {
        deep.push(put(revision, 10)).unwrap();
    }
    assert_eq!(deltas(&mut follower, 5).await, [51, 52, 53, 54, 55]);
}

#[tokio::test]
async fn s13_resume_from_the_middle_of_the_history_gives_the_rest_without_a_snapshot() {
    let history = history(100, 9);
    let server = served(&history);
    assert_eq!(deltas(&mut server.follow(0).await, 9).await, (1..=9).collect::<Vec<_>>());
    let mut follower = server.follow(6).await;
    assert_eq!(deltas(&mut follower, 3).await, [7, 8, 9]);
    history.push(put(10, 1)).unwrap();
    assert_eq!(deltas(&mut follower, 1).await, [10]);
}

#[tokio::test]
async fn s13_resume_behind_the_history_replaces_everything() {
    let history = history(3, 9);
    let server = served(&history);
    let mut follower = server.follow(5).await;
    assert_eq!(snapshot(&mut follower).await, head(&history));
    history.push(put(10, 1)).unwrap();
    assert_eq!(deltas(&mut follower, 1).await, [10]);
}

#[tokio::test]
async fn s13_a_follower_that_was_cut_off_resumes_with_another_server_without_gap_or_repetition() {
    let history = history(100, 3);
    let first = served(&history);
    let mut follower = first.follow(0).await;
    let mut seen = deltas(&mut follower, 3).await;
    drop(first);
    let error = loop {
        match follower.next().await {
            Ok(event) => assert!(matches!(event, FollowEvent::Progress { .. }), "{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FollowError::Call { .. } | FollowError::Closed), "{error}");
    for revision in 4..=6 {
        history.push(put(revision, 1)).unwrap();
    }
    let second = served(&history);
    seen.extend(deltas(&mut second.follow(3).await, 3).await);
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn s13_a_history_that_was_replaced_gives_a_new_snapshot_that_holds_nothing_old() {
    let history = history(100, 2);
    let server = served(&history);
    let mut follower = server.follow(0).await;
    assert_eq!(deltas(&mut follower, 2).await, [1, 2]);
    let mut replaced = Snapshot { revision: Revision(40), ..Snapshot::default() };
    let record = policy(40, 5);
    replaced.records.insert(record.key(), ringfence_policy::record::Versioned { revision: Revision(40), record });
    history.reset(Mesh::from_snapshot(replaced.clone()));
    assert_eq!(snapshot(&mut follower).await, replaced);
    history.push(put(41, 1)).unwrap();
    assert_eq!(deltas(&mut follower, 1).await, [41]);
}

#[tokio::test]
async fn progress_comes_at_once_when_caught_up_then_every_second_with_the_staleness_of_that_moment() {
    let (history, staleness_ms) = (history(100, 1), Arc::new(AtomicU64::new(1_234)));
    let server = Running::start(TestServer::History { history, staleness_ms: Arc::clone(&staleness_ms) });
    let mut follower = server.follow(1).await;
    let staleness = async |follower: &mut Follower| match follower.next().await.unwrap() {
        FollowEvent::Progress { revision: Revision(1), staleness } => staleness,
        other => panic!("{other:?}"),
    };
    assert_eq!(staleness(&mut follower).await, Duration::from_millis(1_234));
    staleness_ms.store(u64::MAX, Ordering::Relaxed);
    let marks = async {
        while staleness(&mut follower).await == Duration::from_millis(1_234) {}
        staleness(&mut follower).await
    };
    let last = tokio::time::timeout(Duration::from_secs(4), marks).await.expect("a mark each second");
    assert_eq!(last, Duration::from_millis(u64::MAX));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_followers_of_a_short_history_reach_the_state_of_the_writer() {
    const REVISIONS: u64 = 400;
    let history = history(5, 0);
    let server = served(&history);
    let mut followers = Vec::new();
    for _ in 0..4 {
        let mut follower = server.follow(0).await;
        followers.push(tokio::spawn(async move {
            let mut mesh = Mesh::default();
            while mesh.revision() < Revision(REVISIONS) {
                match follower.next().await.unwrap() {
                    FollowEvent::Snapshot(snapshot) => mesh = Mesh::from_snapshot(snapshot),
                    FollowEvent::Delta(delta) => mesh.apply(&delta).unwrap(),
                    FollowEvent::Progress { revision, .. } => assert_eq!(revision, mesh.revision()),
                    FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
                }
            }
            mesh.snapshot()
        }));
    }
    for revision in 1..=REVISIONS {
        let mut delta = put(revision, 5_000);
        if revision % 3 == 0 {
            delta.changes.push(Change::Delete(policy(revision / 3, 1).key()));
        }
        history.push(delta).unwrap();
        tokio::task::yield_now().await;
    }
    for follower in followers {
        assert_eq!(follower.await.unwrap(), head(&history));
    }
}

#[tokio::test]
async fn s13_a_revision_that_is_skipped_or_repeated_ends_following() {
    for (events, at, got) in [
        (vec![delta(4), delta(6)], 4, 6),
        (vec![delta(4), delta(4)], 4, 4),
        (vec![delta(3)], 3, 3),
        (vec![delta(4), progress(5)], 4, 5),
        (vec![chunk(8, 1, true), delta(10)], 8, 10),
    ] {
        let error = Running::says(events).error(3).await;
        let FollowError::Gap { at: Revision(a), got: Revision(g) } = error else { panic!("{error}") };
        assert_eq!((a, g), (at, got));
    }
}

#[tokio::test]
async fn s13_a_server_that_is_behind_is_refused_and_revisions_never_go_back() {
    let server = served(&history(100, 2));
    let error = server.error(5).await;
    assert!(matches!(error, FollowError::Behind { at: Revision(5), got: Revision(2) }), "{error}");
}

#[tokio::test]
async fn s13_a_snapshot_that_breaks_off_is_not_given_out() {
    for events in [
        vec![chunk(8, 1, false), delta(9)],
        vec![chunk(8, 1, false), progress(8)],
        vec![chunk(8, 1, false), chunk(9, 2, true)],
    ] {
        let server = Running::says(events);
        let mut follower = server.follow(0).await;
        let error = follower.next().await.unwrap_err();
        assert!(matches!(error, FollowError::BrokenSnapshot { revision: Revision(8) }), "{error}");
    }
    let events = vec![wrap(chunk(8, 1, false))];
    let server = Running::start(TestServer::Script { events, then_closes: true });
    let error = server.follow(0).await.next().await.unwrap_err();
    assert!(matches!(error, FollowError::Closed), "{error}");
}

#[tokio::test]
async fn messages_without_meaning_end_following_and_name_the_field() {
    let bad_record = v1::Versioned { revision: 1, record: Some(v1::Record { record: None }) };
    let bad_chunk = v1::SnapshotChunk { revision: 1, records: vec![bad_record], last: true, ..Default::default() };
    let bad_delta = v1::Delta { revision: 1, changes: vec![v1::Change { change: None }], ..Default::default() };
    for (event, field) in [
        (None, "FollowEvent.event"),
        (Some(Event::Snapshot(bad_chunk)), "Record.record"),
        (Some(Event::Delta(bad_delta)), "Change.change"),
    ] {
        let events = vec![v1::FollowEvent { event }];
        let error = Running::start(TestServer::Script { events, then_closes: false }).error(0).await;
        assert!(matches!(error, FollowError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_for_five_seconds_is_given_up() {
    let started = std::time::Instant::now();
    let error = Running::says(vec![progress(0)]).error(0).await;
    assert!(matches!(error, FollowError::Silent), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn a_list_tells_revision_and_staleness_also_where_there_is_no_record() {
    for (deltas, records) in [(0, 0), (3, 3)] {
        let server = served(&history(100, deltas));
        let mut client = MeshClient::new(server.channel().await);
        let stream = client.list(v1::ListRequest::default()).await.unwrap().into_inner();
        let chunks: Vec<v1::ListChunk> = stream.map(Result::unwrap).collect().await;
        assert_eq!(chunks.len(), 1);
        assert_eq!((chunks[0].revision, chunks[0].staleness_ms, chunks[0].records.len()), (deltas, 7, records));
    }
}

#[test]
fn s13_a_delta_that_does_not_follow_changes_nothing_for_followers() {
    let history = history(10, 2);
    let marks = history.head();
    assert!(history.push(put(4, 1)).is_err());
    assert!(!marks.has_changed().unwrap());
    assert_eq!(*marks.borrow(), Revision(2));
    let missing = RecordKey::Policy(PolicyKey {
        kind: PolicyKind::CiliumClusterwideNetworkPolicy,
        namespace: None,
        name: Name::new("p4").unwrap(),
    });
    assert!(history.read(|history| history.mesh().get(&missing).is_none()));
}

/// One pod of identity 0x10_0000 + `number`, whose labels are `app=<app>`, on a node of east; and the identity.
fn pod(node: &str, number: u32, app: &str) -> Vec<Change> {
    let name = |text: &str| Name::new(text).unwrap();
    let identity = Identity::from_bits(0x10_0000 + number);
    let labels =
        LabelSet::parse([format!("k8s:app={app}"), "k8s:io.kubernetes.pod.namespace=shop".to_owned()]).unwrap();
    let endpoint = ringfence_policy::record::Endpoint {
        cluster: name("east"),
        node: name(node),
        name: name(&format!("{app}-{number}")),
        addresses: vec![[10, 0, 0, u8::try_from(number).unwrap()].into()],
        labels: labels.clone(),
        identity,
        named_ports: vec![],
    };
    let identity = Record::Identity(IdentityRecord { identity, labels });
    vec![Change::Put(identity), Change::Put(Record::Endpoint(Arc::new(endpoint)))]
}

/// `app` may be reached from `peer` alone.
fn allow(app: &str, peer: &str) -> Change {
    let text = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {app}-{peer}, namespace: shop}}, spec: \
         {{endpointSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: {peer}}}}}]}}]}}}}"
    );
    let key = parse_objects(&text).objects.remove(0).key;
    Change::Put(Record::Policy(PolicyRecord { key, text }))
}

fn shop() -> Arc<SharedHistory> {
    let east = Cluster {
        name: Name::new("east").unwrap(),
        id: ClusterId::new(1).unwrap(),
        pod_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let mut changes = vec![Change::Put(Record::Cluster(east)), allow("web", "proxy")];
    for (node, number, app) in
        [("n1", 1, "web"), ("n2", 2, "proxy"), ("n2", 3, "db"), ("n3", 4, "proxy"), ("n3", 5, "web")]
    {
        changes.extend(pod(node, number, app));
    }
    let history = SharedHistory::new(History::new(Mesh::default(), 100));
    history.push(Delta { revision: Revision(1), changes }).unwrap();
    Arc::new(history)
}

fn step(history: &SharedHistory, changes: Vec<Change>) {
    let revision = history.read(|history| history.mesh().revision().next());
    history.push(Delta { revision, changes }).unwrap();
}

/// A follower of what a node needs, with what it has.
struct Viewer {
    follower: Follower,
    mesh: Mesh,
    snapshots: usize,
}

impl Viewer {
    async fn follow(server: &Running, node: &str, mesh: Mesh) -> Self {
        Self::follow_with(server, node, &[], mesh).await
    }

    /// For a node whose devices have addresses.
    async fn follow_with(server: &Running, node: &str, addresses: &[IpAddr], mesh: Mesh) -> Self {
        let (east, node) = (Name::new("east").unwrap(), Name::new(node).unwrap());
        let interest = Interest::new(east, node, Arc::new(addresses.iter().copied().collect()));
        let follower = Follower::connect_to_view(server.channel().await, mesh.revision(), "test".to_owned(), interest);
        Self { follower: follower.await.unwrap(), mesh, snapshots: 0 }
    }

    /// Takes events until a mark tells that all up to a revision are here; the deltas.
    async fn until(&mut self, revision: u64) -> Vec<Delta> {
        let mut deltas = Vec::new();
        loop {
            match self.follower.next().await.unwrap() {
                FollowEvent::Snapshot(snapshot) => {
                    self.mesh = Mesh::from_snapshot(snapshot);
                    self.snapshots += 1;
                }
                FollowEvent::Delta(delta) => {
                    self.mesh.apply(&delta).unwrap();
                    deltas.push(delta);
                }
                FollowEvent::Quiet { revision } => {
                    assert!(revision > self.mesh.revision());
                    self.mesh.skip_to(revision);
                }
                FollowEvent::Progress { revision: Revision(at), .. } => {
                    assert_eq!(Revision(at), self.mesh.revision());
                    if at == revision {
                        return deltas;
                    }
                }
            }
        }
    }

    fn pods(&self) -> Vec<String> {
        assert_eq!(
            self.mesh.identities().count(),
            self.mesh.endpoints().count(),
            "each pod has an identity of its own"
        );
        self.mesh.endpoints().map(|endpoint| endpoint.name.to_string()).collect()
    }
}

#[tokio::test]
async fn s12_a_node_is_told_what_it_needs_and_of_the_rest_that_it_has_it_all() {
    let history = shop();
    let server = served(&history);
    let mut viewer = Viewer::follow(&server, "n1", Mesh::default()).await;
    assert!(viewer.until(1).await.is_empty());
    assert_eq!(viewer.pods(), ["web-1", "proxy-2", "proxy-4"], "its own, and whom its rules speak of");

    step(&history, pod("n3", 6, "db"));
    assert!(viewer.until(2).await.is_empty(), "nothing of interest");
    step(&history, pod("n3", 7, "proxy"));
    assert_eq!(viewer.until(3).await.len(), 1);
    assert_eq!(viewer.pods(), ["web-1", "proxy-2", "proxy-4", "proxy-7"]);

    step(&history, vec![allow("web", "db")]);
    let deltas = viewer.until(4).await;
    let [Delta { revision: Revision(4), changes }] = deltas.as_slice() else { panic!("{deltas:?}") };
    assert_eq!(changes.len(), 5, "the rule and everybody that it speaks of, in one revision: {changes:?}");
    assert_eq!(viewer.pods(), ["web-1", "db-3", "proxy-2", "db-6", "proxy-4", "proxy-7"]);

    let Change::Put(rule) = allow("web", "proxy") else { panic!() };
    step(&history, vec![Change::Delete(rule.key())]);
    step(&history, pod("n1", 8, "db"));
    viewer.until(6).await;
    assert_eq!(viewer.pods(), ["db-8", "web-1", "db-3", "db-6"]);
    assert_eq!(viewer.snapshots, 1);
    assert_eq!(viewer.mesh.policies().count(), 1);
}

#[tokio::test]
async fn s13_followers_of_a_view_resume_where_the_server_knows_the_steps_and_begin_anew_elsewhere() {
    let history = shop();
    let server = served(&history);
    let mut first = Viewer::follow(&server, "n1", Mesh::default()).await;
    first.until(1).await;
    let mut second = Viewer::follow(&server, "n1", Mesh::default()).await;
    step(&history, pod("n3", 9, "proxy"));
    first.until(2).await;
    second.until(2).await;
    for number in 10..20 {
        step(&history, pod("n3", number, if number % 2 == 0 { "proxy" } else { "db" }));
    }
    first.until(12).await;
    let mut second = Viewer::follow(&server, "n1", second.mesh).await;
    step(&history, pod("n3", 20, "proxy"));
    second.until(13).await;
    first.until(13).await;
    assert_eq!(
        (first.mesh.records().keys().collect::<Vec<_>>(), second.snapshots),
        (second.mesh.records().keys().collect(), 0)
    );

    let elsewhere = served(&shop());
    let mut third = Viewer::follow(&elsewhere, "n1", Mesh::default()).await;
    third.until(1).await;
    let mut third = Viewer::follow(&elsewhere, "n2", third.mesh).await;
    third.until(1).await;
    assert_eq!(third.snapshots, 1, "nobody had followed this view here");
    assert_eq!(third.pods(), ["db-3", "proxy-2"]);
}

#[tokio::test]
async fn s12_who_claims_an_address_of_the_host_is_in_its_view() {
    let history = shop();
    let server = served(&history);
    let mut plain = Viewer::follow(&server, "n1", Mesh::default()).await;
    plain.until(1).await;
    assert_eq!(plain.pods(), ["web-1", "proxy-2", "proxy-4"]);
    let claimed = [[10, 0, 0, 3].into(), [10, 0, 0, 9].into()];
    // The same node with other addresses does not resume: what it has is of another view.
    let mut host = Viewer::follow_with(&server, "n1", &claimed, plain.mesh.clone()).await;
    host.until(1).await;
    assert_eq!((host.snapshots, host.pods()), (1, ["web-1", "db-3", "proxy-2", "proxy-4"].map(String::from).to_vec()));
    step(&history, pod("n3", 9, "db"));
    assert_eq!((host.until(2).await.len(), plain.until(2).await.len()), (1, 0), "one claims it, one does not");
    let Change::Put(gone) = pod("n3", 9, "db").remove(1) else { panic!() };
    step(&history, vec![Change::Delete(gone.key())]);
    let deltas = host.until(3).await;
    assert_eq!((deltas.len(), deltas[0].changes.len()), (1, 2), "with its identity: {deltas:?}");
    let mut back = Viewer::follow_with(&server, "n1", &claimed, host.mesh.clone()).await;
    step(&history, pod("n3", 9, "db"));
    back.until(4).await;
    assert_eq!(back.snapshots, 0, "with the same addresses it resumes");

    let many = (0..=MAX_ADDRESSES).map(|number| std::net::Ipv4Addr::from_bits(number).into()).collect::<Vec<IpAddr>>();
    let (east, node) = (Name::new("east").unwrap(), Name::new("n1").unwrap());
    let interest = Interest::new(east, node, Arc::new(many.into_iter().collect()));
    let follower = Follower::connect_to_view(server.channel().await, Revision(0), "test".to_owned(), interest);
    let refused = follower.await.unwrap_err().to_string();
    assert!(refused.contains("Interests.addresses: 4097 is out of range: 0 to 4096"), "{refused}");
}

#[tokio::test]
async fn s12_a_server_that_knows_no_views_is_not_taken_for_one_that_does() {
    let server = Running::says(vec![progress(7)]);
    let interest = Interest::new(Name::new("east").unwrap(), Name::new("n1").unwrap(), Arc::default());
    let follower = Follower::connect_to_view(server.channel().await, Revision(7), "test".to_owned(), interest);
    let error = follower.await.unwrap_err();
    assert!(matches!(error, FollowError::NoViews), "{error}");
}

#[tokio::test]
async fn s13_a_view_whose_changes_are_not_remembered_comes_as_a_whole() {
    let history = shop();
    let server = served(&history);
    let mut viewer = Viewer::follow(&server, "n1", Mesh::default()).await;
    viewer.until(1).await;
    let mut other = history.read(|history| history.mesh().clone());
    let Change::Put(identity) = pod("n2", 2, "proxy").remove(0) else { panic!() };
    let Change::Put(endpoint) = pod("n2", 2, "proxy").remove(1) else { panic!() };
    let changes = vec![Change::Delete(identity.key()), Change::Delete(endpoint.key())];
    other.apply(&Delta { revision: Revision(2), changes }).unwrap();
    history.reset(Mesh::from_snapshot(other.snapshot()));
    viewer.until(2).await;
    assert_eq!((viewer.pods(), viewer.snapshots), (vec!["web-1".to_owned(), "proxy-4".to_owned()], 2));
    step(&history, pod("n2", 9, "proxy"));
    assert_eq!(viewer.until(3).await.len(), 1);
}
