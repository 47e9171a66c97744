//! Servers that hang, cannot, or go away: the next one is asked, and the exit code tells what was in the way.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_policy::{
    name::Name,
    record::{Node, Record},
};
use ringfence_proto::{
    follow::{FollowResponseStream, ListResponseStream},
    v1::{
        self,
        mesh_server::{Mesh, MeshServer},
    },
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use crate::{
    ringfence::{Outcome, argument, run},
    server::TestMesh,
};

const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: base}
spec:
  endpointSelector: {}
  ingress: [{}]
";

/// A server with the certificates of a `TestMesh` that does what a test wants.
struct Scripted {
    address: SocketAddr,
    _runtime: Runtime,
}

struct Script {
    status: v1::StatusResponse,
    execute: Execute,
}

#[derive(Clone, Copy)]
enum Execute {
    Hangs,
    Unavailable,
    Commits(u64),
}

impl Scripted {
    fn start(tls: &Path, execute: Execute, status: v1::StatusResponse) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let read = |name: &str| std::fs::read(tls.join(name)).unwrap();
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(read("member-1.crt"), read("member-1.key")))
            .client_ca_root(Certificate::from_pem(read("ca.crt")));
        let service = MeshServer::from_arc(Arc::new(Script { status, execute }));
        let server = Server::builder().tls_config(config).unwrap().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, _runtime: runtime }
    }
}

#[tonic::async_trait]
impl Mesh for Script {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, _request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn execute(&self, _request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        match self.execute {
            Execute::Hangs => std::future::pending().await,
            Execute::Unavailable => Err(Status::unavailable("no leader is known")),
            Execute::Commits(revision) => Ok(Response::new(v1::Committed { revision, changed: true, identity: 0 })),
        }
    }

    async fn list(&self, _request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unavailable("no leader is known"))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.status.clone()))
    }

    async fn report(&self, _request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

fn status(revision: u64, realised_revision: u64) -> v1::StatusResponse {
    let node = v1::NodeStatus {
        cluster: "east".to_owned(),
        name: "n1".to_owned(),
        realised_revision,
        reported: true,
        ..v1::NodeStatus::default()
    };
    v1::StatusResponse { responder: "gateway south".to_owned(), revision, nodes: vec![node], ..Default::default() }
}

fn policy_file(mesh: &TestMesh) -> PathBuf {
    let path = mesh.tls.path().join("base.yaml");
    std::fs::write(&path, POLICY).unwrap();
    path
}

/// Runs the binary against several servers.
fn run_with(mesh: &TestMesh, servers: &[SocketAddr], arguments: &[&str]) -> Outcome {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    run(&[&["--tls-dir", argument(mesh.tls.path()), "--server", &servers.join(",")], arguments].concat())
}

#[test]
fn a_server_that_hangs_leaves_the_others_their_share_of_the_time() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    // One that does not even speak TLS, and one that takes the command and never answers.
    let mute = StdListener::bind("127.0.0.1:0").unwrap();
    let hanging = Scripted::start(mesh.tls.path(), Execute::Hangs, status(0, 0));
    let servers = [mute.local_addr().unwrap(), hanging.address, mesh.address];
    let started = Instant::now();
    let apply = ["--timeout", "3", "-o", "json", "policy", "apply", "-f", argument(&file)];
    let outcome = run_with(&mesh, &servers, &apply).exits(0);
    assert_eq!(outcome.json()["changed"], true);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_write_without_an_answer_says_that_it_may_have_been_carried_out() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    let hanging = Scripted::start(mesh.tls.path(), Execute::Hangs, status(0, 0));
    let apply = ["--timeout", "0.5", "-o", "json", "policy", "apply", "-f", argument(&file)];
    let address = hanging.address.to_string();
    run_with(&mesh, &[hanging.address], &apply).exits(4).says(&[&address, "may have carried it out"]);
    // A server that was never reached has done nothing.
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let outcome = run_with(&mesh, &[nobody], &apply).exits(3);
    assert!(!outcome.stderr.contains("may have"), "{outcome:#?}");
}

#[test]
fn exit_code_1_with_the_reason_when_every_server_says_that_it_cannot() {
    let mesh = TestMesh::start();
    let minority = Scripted::start(mesh.tls.path(), Execute::Unavailable, status(0, 0));
    let address = minority.address.to_string();
    let reasons = [address.as_str(), "no leader is known"];
    run_with(&mesh, &[minority.address], &["policy", "get"]).exits(1).says(&reasons);
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    run_with(&mesh, &[nobody, minority.address], &["cluster", "list"]).exits(1).says(&reasons).says(&["127.0.0.1:1"]);
    run_with(&mesh, &[minority.address, mesh.address], &["policy", "get"]).exits(0);
}

#[test]
fn l4_wait_passes_over_a_server_that_does_not_have_the_revision() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    let behind = Scripted::start(mesh.tls.path(), Execute::Commits(2), status(1, 9));
    let apply = ["-o", "json", "policy", "apply", "-f", argument(&file), "--wait", "--wait-timeout"];
    let outcome = run_with(&mesh, &[behind.address], &[&apply[..], &["0.5"]].concat());
    let outcome = outcome.exits(4).says(&["gateway south is itself only at revision 1"]);
    assert_eq!(outcome.json()["waited"]["complete"], false, "its nodes are not all nodes, perhaps");

    for name in ["n1", "n2"] {
        let name = Name::new(name).unwrap();
        mesh.put([Record::Node(Node {
            cluster: Name::new("east").unwrap(),
            name,
            addresses: vec![],
            labels: ringfence_policy::label::LabelSet::default(),
        })]);
    }
    *mesh.store.nodes.lock().unwrap() = status(2, 2).nodes;
    let outcome = run_with(&mesh, &[behind.address, mesh.address], &[&apply[..], &["20"]].concat()).exits(0);
    assert_eq!(outcome.json()["waited"]["realised"][0]["realised_revision"], 2);
}

#[test]
fn l4_wait_goes_on_with_the_next_server_when_one_goes_away() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    let next = Scripted::start(mesh.tls.path(), Execute::Unavailable, status(9, 9));
    *mesh.store.nodes.lock().unwrap() = status(1, 0).nodes;
    let servers = format!("{},{}", mesh.address, next.address);
    let tls = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        std::fs::copy(mesh.tls.path().join(name), tls.path().join(name)).unwrap();
    }
    let mut waiting = crate::ringfence::command()
        .args(["--tls-dir", argument(tls.path()), "--server", &servers, "-o", "json"])
        .args(["policy", "apply", "-f", argument(&file), "--wait", "--wait-timeout", "30"])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while mesh.requests() < 2 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(waiting.try_wait().unwrap().is_none(), "it waits for n1");
    drop(mesh);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_kind_may_stand_before_the_names() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    mesh.run(&["policy", "apply", "-f", argument(&file)]).exits(0);
    assert_eq!(mesh.run(&["policy", "get", "ccnp"]).exits(0).rows().len(), 2);
    assert_eq!(mesh.run(&["policy", "get", "cnp"]).exits(0).rows().len(), 1, "the header only");
    assert_eq!(mesh.run(&["policy", "get", "ccnp", "base"]).exits(0).rows().len(), 2);
    mesh.run(&["policy", "get", "cnp", "base"]).exits(1).says(&["\"base\" does not exist"]);
    mesh.run(&["policy", "delete", "ccnp"]).exits(2).says(&["which ccnp?"]);
    mesh.run(&["policy", "delete", "cnp", "ccnp/base"]).exits(2).says(&["names a kind"]);
    let twice = mesh.run(&["policy", "delete", "ccnp", "base", "base"]).exits(0);
    assert_eq!(twice.stdout, "ciliumclusterwidenetworkpolicy/base deleted (revision 2)\n");
}

#[test]
fn a_dry_run_answers_in_the_format_that_was_asked_for() {
    let mesh = TestMesh::start();
    let file = policy_file(&mesh);
    let outcome = mesh.run(&["-o", "json", "policy", "apply", "--dry-run", "-f", argument(&file)]).exits(0).json();
    let object = serde_json::json!({"kind": "CiliumClusterwideNetworkPolicy", "namespace": null, "name": "base"});
    let expected = serde_json::json!({"revision": null, "changed": false, "objects": [object], "waited": null});
    assert_eq!(outcome, expected);
    assert_eq!(mesh.requests(), 0);
}
