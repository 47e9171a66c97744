//! What nobody should send: each refused with a reason of its own, and nothing of the state moves.

use std::{fs, path::PathBuf};

use prost::{Message as _, bytes::Bytes};
use ringfence_identityd::{
    Config, Member, StartError,
    codec::FORMAT_VERSION,
    restore::{NewStore, RestoreError, restore},
};
use ringfence_policy::{
    command::EndpointSpec,
    identity::ClusterId,
    label::{Label, LabelSet, MAX_LABELS},
    record::{Cluster, Node, PolicyKey, PolicyKind, PolicyRecord},
    store::StoreId,
};
use ringfence_proto::{
    connect::{Dialer, Expected, MAX_MESSAGE_BYTES},
    link::{Link, method},
    v1::{
        maintenance_client::MaintenanceClient, mesh_client::MeshClient, raft_client::RaftClient,
        store_client::StoreClient,
    },
};
use ringfence_runtime::tls::{Tls, TlsFiles};
use tokio::net::TcpListener;
use tonic::{Request, Status};

use super::*;
use crate::{
    operations::backup_of,
    support::{certificates, dial, labels, tls_of},
};

/// State, revision and length of the log of every running member: none of it may move.
async fn state(store: &Store) -> Vec<(u64, u64, Option<u64>)> {
    store.converge().await;
    let of = |member: &Member| {
        let revision = member.history().read(|history| history.mesh().revision().0);
        (member.state_digest().1, revision, member.raft().metrics().borrow().last_log_index)
    };
    store.running.values().map(of).collect()
}

#[track_caller]
fn says<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, code: Code, expected: &str) {
    let status = answer.map(|answer| panic!("{what} is taken: {answer:?}")).unwrap_err();
    assert_eq!(status.code(), code, "{what}: {status}");
    assert!(status.message().contains(expected), "{what}: {status} does not say {expected:?}");
}

/// A link with the certificate of member 2, on which it says from which directory it calls.
struct MemberLink(Link, &'static str);

impl MemberLink {
    fn new(store: &Store, address: &str, instance: &'static str) -> Self {
        let tls = Tls::open(tls_of(&store.configs[&1].tls, 2)).unwrap();
        let dialer = Dialer::new(Expected::Member, move || tls.client());
        Self(Link::new(dialer, address, MAX_MESSAGE_BYTES), instance)
    }

    async fn call(&self, method: u8, payload: &[u8]) -> Result<Bytes, Status> {
        // Of no store yet; then the directory, and what is said.
        let head = [&[0, u8::try_from(self.1.len()).unwrap()], self.1.as_bytes()].concat();
        self.0.call(method, [&head, payload].concat()).await
    }
}

/// A connection with the certificate of member 2.
fn as_member(store: &Store, address: &str) -> Channel {
    dial(&tls_of(&store.configs[&1].tls, 2), address)
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_messages_are_refused_and_change_nothing() {
    let store = Store::start(5000).await;
    store.register().await;
    let before = state(&store).await;
    let address = store.configs[&1].listen.to_string();
    let garbage = [FORMAT_VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 7, 7, 7];
    let mut raft = RaftClient::new(as_member(&store, &address)).max_encoding_message_size(64 << 20);
    let link = MemberLink::new(&store, &address, "");
    let bad = Code::InvalidArgument;
    says("entries", link.call(method::APPEND, &garbage).await, bad, "the content does not decode");
    says("a vote", link.call(method::VOTE, &garbage).await, bad, "the content does not decode");
    says("nothing", link.call(method::VOTE, &[]).await, bad, "0 bytes are too few");
    says("a newer format", link.call(method::APPEND, &[9, 0]).await, bad, "format version 9 is newer");
    says("commands", link.call(method::PROPOSE, &garbage).await, Code::Unavailable, "does not understand the commands");
    says("an unknown method", link.call(99, &[]).await, Code::Unimplemented, "no method 99");
    says("no sender", link.0.call(method::VOTE, vec![]).await, bad, "does not say whose member calls");
    let part = |head: Vec<u8>, data: Vec<u8>| tokio_stream::iter([v1::SnapshotPart { head, data }]);
    says(
        "a snapshot",
        raft.install_snapshot(part(vec![FORMAT_VERSION, 0xff], vec![7; 100])).await,
        bad,
        "does not decode",
    );
    let none = tokio_stream::iter(Vec::<v1::SnapshotPart>::new());
    says("no snapshot", raft.install_snapshot(none).await, bad, "the snapshot has no part");
    // A head that decodes, and bytes that are no snapshot.
    let vote = openraft::Vote::<u64>::new_committed(1, 2);
    let head = ringfence_identityd::codec::encode(&(vote, ringfence_identityd::raft::SnapshotMeta::default()));
    says(
        "another file",
        raft.install_snapshot(part(head, vec![7; 100])).await,
        Code::DataLoss,
        "not a file of the store",
    );
    // Nobody knows where the next call begins: the link is closed.
    let large = link.call(method::APPEND, &vec![0; 3 * MAX_MESSAGE_BYTES]).await;
    says("a large message", large, Code::Unavailable, "broke");

    let admin = store.client(1);
    let mut mesh = admin.max_encoding_message_size(64 << 20);
    let named = |text: &str| v1::command::Command::PutNode(v1::Node { cluster: text.into(), ..v1::Node::default() });
    let command = |command| v1::Command { command: Some(command) };
    says("no name", mesh.execute(command(named("East"))).await, bad, "Node.cluster: \"East\" is not a valid name");
    let policy = v1::Policy { text: "x".repeat(2 * MAX_MESSAGE_BYTES), ..v1::Policy::default() };
    let put = v1::command::Command::PutPolicies(v1::PutPolicies { policies: vec![policy] });
    says("a large command", mesh.execute(command(put)).await, Code::OutOfRange, "message length too large");
    let from = v1::FollowRequest { store_id: "mine".to_owned(), ..v1::FollowRequest::default() };
    says("no store", mesh.follow(from).await.map(drop), bad, "FollowRequest.store_id: \"mine\" is no id of a store");
    // Bytes that are no protobuf at all.
    let mut grpc = tonic::client::Grpc::new(store.channel(1));
    grpc.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/ringfence.v1.Mesh/Execute");
    // A message that claims a longer field than it has, under the name of another one.
    let codec = tonic_prost::ProstCodec::<v1::RaftMessage, v1::Committed>::default();
    let wrong = v1::RaftMessage { payload: vec![0xff; 40] };
    says(
        "other bytes",
        grpc.unary(Request::new(wrong), path, codec).await,
        Code::Internal,
        "failed to decode Protobuf",
    );
    assert_eq!(state(&store).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_cluster_ids_and_records_that_cannot_be_are_refused_and_change_nothing() {
    let store = Store::start(5000).await;
    store.register().await;
    // From now on the cluster has numbers, and with them its id for good.
    store.execute(1, &allocate("east", "web"), PATIENCE).await.unwrap();
    let before = state(&store).await;
    let allocate_with = |labels: LabelSet| Command::AllocateIdentity { cluster: name("east"), labels };
    let with = |label: Label| allocate_with([Label::new("k8s", "app", "a"), label].into_iter().collect());
    let many = (0..=MAX_LABELS).map(|number| Label::new("k8s", format!("l{number}"), "")).collect();
    let cluster =
        |name: &str, id| Cluster { name: self::name(name), id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] };
    let foreign_node = EndpointSpec {
        cluster: name("east"),
        node: name("n7"),
        name: name("web"),
        addresses: vec!["10.9.0.1".parse().unwrap()],
        labels: labels("web"),
        named_ports: vec![],
    };
    let key = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: Some(name("shop")), name: name("a") };
    let fat = PolicyRecord { key, text: "#".repeat(70_000) };
    let cluster_label = Label::new("k8s", ringfence_policy::label::CLUSTER_KEY, "west");
    let (invalid, state_of) = (Code::InvalidArgument, Code::FailedPrecondition);
    let cases = [
        ("a reserved label", with(Label::new("reserved", "host", "")), invalid, "reserved"),
        ("another cluster's label", with(cluster_label), invalid, "cluster"),
        ("too many labels", allocate_with(many), invalid, "labels"),
        ("a large policy", Command::PutPolicies(vec![fat]), invalid, "at most"),
        ("an id in use", Command::PutCluster(cluster("north", 1)), Code::AlreadyExists, "east"),
        ("another id", Command::PutCluster(cluster("east", 9)), state_of, "1"),
        ("no such node", Command::PutEndpoint(foreign_node), state_of, "n7"),
        (
            "no such cluster",
            Command::PutNode(Node {
                cluster: name("north"),
                name: name("n1"),
                addresses: vec![],
                labels: LabelSet::default(),
            }),
            state_of,
            "cluster north does not exist",
        ),
    ];
    let mut reasons = BTreeSet::new();
    for (what, command, code, expected) in cases {
        let status = store.execute(1, &command, PATIENCE).await.unwrap_err();
        println!("{what}: {}", status.message());
        reasons.insert(status.message().to_owned());
        says(what, Err::<(), _>(status), code, expected);
    }
    assert_eq!(reasons.len(), 8, "each has a reason of its own");
    let numbered = |id| v1::Command {
        command: Some(v1::command::Command::PutCluster(v1::Cluster {
            name: "north".into(),
            id,
            ..v1::Cluster::default()
        })),
    };
    for id in [0, 1024, u32::MAX] {
        says("no cluster id", store.client(1).execute(numbered(id)).await, Code::InvalidArgument, "Cluster.id");
    }
    // What only the state can refuse has an entry in the log, and does nothing there.
    let without_log = |state: Vec<_>| state.into_iter().map(|(digest, at, _)| (digest, at)).collect::<Vec<_>>();
    assert_eq!(without_log(state(&store).await), without_log(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_with_one_id_and_an_id_that_is_taken_are_refused_and_change_nothing() {
    let store = Store::start(5000).await;
    store.register().await;
    let before = state(&store).await;
    let leader = store.leader().await;
    let twin_of = leader % 3 + 1;
    // The same file and certificates on another machine, with a directory of its own.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let data_dir = store.directory.path().join("twin");
    let config = Config { listen, data_dir, ..store.configs[&twin_of].clone() };
    let twin = Member::start_on(config, listener).await.unwrap();
    until("a twin that is refused", || async { twin.members().describe_quorum().starts_with("1 of 3").then_some(()) })
        .await;
    let other = [1, 2, 3].into_iter().find(|id| ![leader, twin_of].contains(id)).unwrap();
    let ping = |from| v1::PingRequest { from }.encode_to_vec();
    let address = |id: &u64| store.configs[id].listen.to_string();
    if other != 2 {
        let link = MemberLink::new(&store, &address(&other), "somewhere-else");
        let twin = link.call(method::MEMBER_PING, &ping(2)).await;
        says("a twin", twin, Code::FailedPrecondition, "two processes with different data directories");
    }
    let itself = MemberLink::new(&store, &address(&2), "").call(method::MEMBER_PING, &ping(2)).await;
    says("itself", itself, Code::FailedPrecondition, "every member has its own id");
    let mut through = StoreClient::new(store.channel(leader));
    let added = through.add_member(v1::AddMemberRequest { address: listen.to_string() }).await;
    says("an id that is taken", added, Code::AlreadyExists, "is a member already");
    assert!(twin.leader().is_none(), "it takes part in nothing");
    twin.kill().await;
    assert_eq!(store.leader().await, leader, "and unseats nobody");
    assert_eq!(state(&store).await, before);
    store.execute(twin_of, &allocate("east", "after"), PATIENCE).await.unwrap();
}

/// Every file below a directory, with its content.
fn contents(directory: &std::path::Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_a_newer_version_and_files_of_another_mesh_are_refused_and_stay_as_they_are() {
    let mut store = Store::start(20).await;
    store.register().await;
    for number in 0..30 {
        store.execute(1, &allocate("east", &format!("a{number}")), PATIENCE).await.unwrap();
    }
    store.converge().await;
    let file = store.directory.path().join("backup");
    fs::write(&file, backup_of(&store, 1).await).unwrap();
    let stopped = store.running.remove(&3).unwrap();
    stopped.shutdown(Duration::from_secs(2)).await.unwrap();
    let config = store.configs[&3].clone();
    let log = config.data_dir.join("wal");
    let segment = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|ending| ending == "segment")).min().unwrap();
    let snapshot = config.data_dir.join("snapshot");
    let expected = format!("format version {} is newer than {FORMAT_VERSION}", FORMAT_VERSION + 1);
    for path in [segment, snapshot] {
        let whole = fs::read(&path).unwrap();
        let mut newer = whole.clone();
        // Both begin with eight bytes of magic, then the version.
        newer[8] = FORMAT_VERSION + 1;
        fs::write(&path, newer).unwrap();
        // Only where the state is in doubt, too, the snapshot is needed.
        let state = config.data_dir.join("state");
        let aside = config.data_dir.with_extension("state");
        if path.ends_with("snapshot") {
            fs::rename(&state, &aside).unwrap();
        }
        let kept = || {
            let mut kept = contents(&config.data_dir);
            kept.retain(|file, _| !path.ends_with("snapshot") || !file.starts_with(&state));
            kept
        };
        let before = kept();
        let error = Member::start(config.clone()).await.map(|_| "it starts").unwrap_err();
        assert!(matches!(error, StartError::Storage(_)), "{error}");
        let text = error.to_string();
        println!("{text}");
        assert!(text.contains(&expected) && text.contains("upgrade identityd"), "{text}");
        assert!(!text.contains("Replace the member"), "nothing is lost: {text}");
        assert_eq!(kept(), before);
        fs::write(&path, whole).unwrap();
        if path.ends_with("snapshot") {
            fs::remove_dir_all(&state).unwrap();
            fs::rename(&aside, &state).unwrap();
        }
    }
    store.restart(3).await;
    store.converge().await;

    // A member of a mesh with another authority.
    let other = tempfile::tempdir().unwrap();
    let ca = certificates(other.path());
    let data_dir = other.path().join("data");
    let config = Config { tls: ca, data_dir: data_dir.clone(), ..config };
    let new = NewStore { id: StoreId::new(1, [1; 10]), bump_revision: 1, other_mesh: false };
    let refused = restore(&config, &file, new).await.unwrap_err();
    println!("{refused}");
    assert!(matches!(refused, RestoreError::OtherMesh { .. }), "{refused}");
    assert!(!data_dir.exists(), "nothing is begun");
    restore(&config, &file, NewStore { other_mesh: true, ..new }).await.unwrap();
    // And whoever comes with that mesh's certificates does not get in at all.
    let stranger: TlsFiles = config.tls.clone();
    let channel = dial(&stranger, &store.configs[&1].listen.to_string());
    let report = MaintenanceClient::new(channel.clone()).member_report(v1::MemberReportRequest {}).await;
    assert_eq!(report.unwrap_err().code(), Code::Unavailable);
    assert!(MeshClient::new(channel).status(v1::StatusRequest {}).await.is_err());
}
