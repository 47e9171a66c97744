//! What members hold those to who come with a certificate: their own name, their share, and that it is still trusted.

use std::fs;

use openraft::{
    Vote,
    raft::{AppendEntriesRequest, VoteRequest},
};
use prost::Message as _;
use ringfence_identityd::{Config, Member, StartError, codec, raft::TypeConfig};
use ringfence_proto::{
    connect::{Dialer, Expected, MAX_MESSAGE_BYTES, SERVER_NAME},
    link::{self, Asking, Link, method},
    v1::{mesh_client::MeshClient, raft_client::RaftClient},
};
use ringfence_runtime::tls::{Tls, TlsFiles};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tonic::Status;

use super::*;
use crate::support::{dial, dialer, tls_of};

/// The files of one of `OTHERS`.
pub(crate) fn files_of(store: &Store, name: &str) -> TlsFiles {
    let ca = &store.configs[&1].tls.ca;
    let file = |suffix: &str| ca.with_file_name(format!("{name}.{suffix}"));
    TlsFiles { ca: ca.clone(), certificate: file("crt"), key: file("key") }
}

fn link_with(files: TlsFiles, address: &str) -> Link {
    let tls = Tls::open(files).unwrap();
    Link::new(Dialer::new(Expected::Member, move || tls.client()), address, MAX_MESSAGE_BYTES)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let status = answer.map(|answer| panic!("{what} is taken: {answer:?}")).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
    let expected = "member/2 may not take part in consensus as member 3";
    assert!(status.message().contains(expected), "{what}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_speaks_in_the_name_that_its_certificate_has() {
    let store = Store::start(5000).await;
    store.register().await;
    let leader = store.leader().await;
    let term = |id: u64| store.running[&id].raft().metrics().borrow().current_term;
    let before = term(1);
    let (files, address) = (tls_of(&store.configs[&1].tls, 2), store.configs[&1].listen.to_string());
    let link = link_with(files.clone(), &address);
    // Of no store and no directory yet.
    let call = |method, payload: Vec<u8>| link.call(method, [vec![0, 0], payload].concat());
    let vote = VoteRequest { vote: Vote::new(before + 100, 3_u64), last_log_id: None };
    refused("a vote", call(method::VOTE, codec::encode(&vote)).await);
    let (vote, prev_log_id, leader_commit) = (Vote::new_committed(before + 100, 3), None, None);
    let entries: AppendEntriesRequest<TypeConfig> =
        AppendEntriesRequest { vote, prev_log_id, entries: vec![], leader_commit };
    refused("a heartbeat", call(method::APPEND, codec::encode(&(Duration::ZERO, entries))).await);
    let ping = |from| v1::PingRequest { from }.encode_to_vec();
    refused("a ping", call(method::MEMBER_PING, ping(3)).await);
    let mut raft = RaftClient::new(dial(&files, &address));
    refused("a campaign", raft.campaign(v1::CampaignRequest { from: 3 }).await);
    assert_eq!(term(1), before, "nobody listened");
    assert_eq!(store.leader().await, leader);
    call(method::MEMBER_PING, ping(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_does_not_start_with_the_certificate_of_another_one() {
    let mut store = Store::start(5000).await;
    store.kill(2).await;
    let own = store.configs[&2].clone();
    for (tls, expected) in [
        (tls_of(&own.tls, 3), "it is of member/3, and id says that this is member 2"),
        (files_of(&store, "gateway"), "it is of gateway/east, and id says that this is member 2"),
        (files_of(&store, "nameless"), "the certificate must have exactly one name"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config { tls, ..own.clone() };
        let error = Member::start_on(config, listener).await.map(|_| "it starts").unwrap_err();
        assert!(matches!(error, StartError::Certificate { .. } | StartError::Role(_)), "{error}");
        assert!(error.is_configuration() && error.to_string().contains(expected), "{error}");
    }
    store.restart(2).await;
    store.converge().await;
}

/// How many of as many calls at once there was no place for; all others must be carried out.
async fn overloaded<F>(calls: Vec<F>, client: &str, limit: &str) -> usize
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let mut under_way: JoinSet<_> = calls.into_iter().collect();
    let mut count = 0;
    while let Some(answer) = under_way.join_next().await {
        let Err(status) = answer.unwrap() else { continue };
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let expected = format!("of {client} under way at this member: the limit of {limit} for one certificate");
        assert!(status.message().contains(&expected), "{status}");
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_more_than_its_share_is_told_so_over_links_and_over_grpc() {
    let store = Store::start(50_000).await;
    store.register().await;
    let leader = store.leader().await;
    let address = store.configs[&leader].listen.to_string();
    let link = link_with(files_of(&store, "gateway"), &address);
    let over_link = |command: Command| {
        let call = v1::CommandCall { command: Some(v1::Command::from(command)), ..v1::CommandCall::default() };
        let (link, call) = (link.clone(), call.encode_to_vec());
        async move { link.call(method::COMMAND, call).await.map(drop) }
    };
    // The store may be quicker than this client: then there are never that many under way, and more of them are tried.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut round = 0_usize;
    let mut some = |calls: usize| {
        assert!(Instant::now() < deadline, "the store has had a place for all calls of {round} rounds");
        round += 1;
        let this = round;
        (0..calls * this.min(8)).map(move |call| format!("{this}-{call}"))
    };
    // More commands than one client may have under way.
    let small = |app: String| over_link(allocate("east", &app));
    while overloaded(some(1500).map(small).collect(), "gateway/east", "1024").await == 0 {}
    over_link(allocate("east", "one alone")).await.unwrap();
    // More bytes: 20 KB each.
    let fat = |app: String| over_link(allocate_fat("east", &app));
    while overloaded(some(600).map(fat).collect(), "gateway/east", "8388608").await == 0 {}
    over_link(allocate("east", "one more alone")).await.unwrap();

    // The streams of one connection are bounded, so that it takes several.
    let files = files_of(&store, "admin");
    let clients: Vec<_> = (0..20).map(|_| MeshClient::new(dial(&files, &address))).collect();
    let over_grpc = |number: usize, command: Command| {
        let mut client = clients[number % clients.len()].clone();
        async move { client.execute(v1::Command::from(command)).await.map(drop) }
    };
    let fat = |(number, app): (usize, String)| over_grpc(number, allocate_fat("east", &app));
    while overloaded(some(600).enumerate().map(fat).collect(), "admin/me", "8388608").await == 0 {}
    over_grpc(0, allocate("east", "alone again")).await.unwrap();
}

/// A connection that speaks links and says nothing.
async fn silent(files: TlsFiles, address: &str) -> TlsStream<TcpStream> {
    let mut tls = tokio_rustls::rustls::ClientConfig::clone(&Tls::open(files).unwrap().client());
    tls.alpn_protocols = vec![link::PROTOCOL.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_cut_when_its_certificate_is_revoked_and_others_are_not() {
    let store = Store::start(5000).await;
    store.register().await;
    let address = store.configs[&1].listen.to_string();
    let [mut revoked, mut kept] =
        [silent(files_of(&store, "gateway"), &address).await, silent(files_of(&store, "admin"), &address).await];
    let request = v1::FollowRequest { from_revision: 1, ..v1::FollowRequest::default() };
    let mut followers = Vec::new();
    for name in ["gateway", "admin"] {
        followers.push(Asking::connect(&dialer(&files_of(&store, name)), &address, &request).await.unwrap());
    }
    let mut byte = [0];
    let is_open = |read: Result<std::io::Result<usize>, _>| read.is_err();
    assert!(is_open(tokio::time::timeout(Duration::from_millis(50), revoked.read(&mut byte)).await));
    let ca = &store.configs[&1].tls.ca;
    let bundle = fs::read_to_string(ca).unwrap() + &fs::read_to_string(ca.with_file_name("gateway.revoked")).unwrap();
    // As `ringfence ca revoke` does: the file is the old one or the new one.
    let new = ca.with_extension("new");
    fs::write(&new, bundle).unwrap();
    fs::rename(&new, ca).unwrap();
    // Members look every five seconds; a silent caller would be let go after fifteen.
    let ended = tokio::time::timeout(Duration::from_secs(12), revoked.read(&mut byte)).await.unwrap();
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    let after = tokio::time::Instant::now();
    let [revoked, followed] = &mut followers[..] else { unreachable!("there are two") };
    let ended = async { while let Ok(Some(_)) = revoked.message().await {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its follower is cut off, too");
    let mark = async {
        while let Some(event) = followed.message().await.unwrap() {
            // Field 3 is a progress mark: the other one is told until now.
            if event[0] == 3 << 3 | 2 && tokio::time::Instant::now() > after {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), mark).await.expect("the other one is told on");
    assert!(is_open(tokio::time::timeout(Duration::from_millis(50), kept.read(&mut byte)).await));
    let call = v1::CommandCall { command: Some(v1::Command::from(allocate("east", "x"))), ..Default::default() };
    let ask = async |name: &str| {
        link_with(files_of(&store, name), &address).call(method::COMMAND, call.encode_to_vec()).await
    };
    assert_eq!(ask("gateway").await.unwrap_err().code(), Code::Unavailable, "it does not come in again");
    ask("admin").await.unwrap();
}
