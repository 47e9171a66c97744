//! `ringfence agent` against an `Agent` service on a Unix socket.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::IpAddr,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use ringfence_proto::v1::{
    self,
    agent_server::{Agent, AgentServer},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::ringfence::{argument, command, run, run_with_input};

/// Allows TCP to even ports, and knows senders in 10.0.0.0/8 only.
struct TestAgent;

struct Running {
    socket: PathBuf,
    _directory: TempDir,
    _runtime: Runtime,
}

fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = Server::builder().add_service(AgentServer::new(TestAgent));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    drop(guard);
    Running { socket, _directory: directory, _runtime: runtime }
}

#[tonic::async_trait]
impl Agent for TestAgent {
    async fn status(&self, _request: Request<v1::AgentStatusRequest>) -> Result<Response<v1::AgentStatus>, Status> {
        let node = v1::NodeStatus {
            cluster: "east".to_owned(),
            name: "n1".to_owned(),
            realised_revision: 7,
            reported: true,
            problems: vec!["revision 8 does not fit".to_owned()],
            datapath: "memory".to_owned(),
            gone: false,
            report_age_ms: 0,
        };
        Ok(Response::new(v1::AgentStatus {
            node: Some(node),
            followed_revision: 8,
            gateway: "10.40.1.10:7401".to_owned(),
            staleness_ms: 1500,
            datapath_features: "Linux 6.1, attaching with clsact".to_owned(),
            packets: HashMap::from([
                ("allowed".to_owned(), 12),
                ("default-deny".to_owned(), 3),
                ("spoofed".to_owned(), 0),
            ]),
        }))
    }

    async fn put_endpoint(&self, _request: Request<v1::LocalEndpoint>) -> Result<Response<v1::Committed>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn delete_endpoint(
        &self,
        _request: Request<v1::DeleteLocalEndpoint>,
    ) -> Result<Response<v1::Committed>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_endpoints(
        &self,
        _request: Request<v1::ListLocalEndpointsRequest>,
    ) -> Result<Response<v1::ListLocalEndpointsResponse>, Status> {
        let endpoint = v1::LocalEndpoint {
            name: "web-1".to_owned(),
            interface: "veth-web-1".to_owned(),
            addresses: vec!["10.101.1.10".to_owned()],
            labels: vec!["k8s:app=web".to_owned()],
            named_ports: vec![],
        };
        let entry = v1::list_local_endpoints_response::Entry {
            endpoint: Some(endpoint),
            identity: 0,
            state: "waiting-for-interface".to_owned(),
            detail: "no device of that name".to_owned(),
        };
        Ok(Response::new(v1::ListLocalEndpointsResponse { endpoints: vec![entry] }))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        let packet = request.into_inner();
        let source: IpAddr = packet.source.parse().unwrap();
        if !matches!(source, IpAddr::V4(source) if source.octets()[0] == 10) {
            return Err(Status::not_found(format!("{source} is no endpoint of this node")));
        }
        let allow = packet.protocol == 6 && packet.destination_port.is_multiple_of(2);
        let reason = if allow { "allowed" } else { "default-deny" };
        Ok(Response::new(v1::ProbeResponse { allow, reason: reason.to_owned(), revision: 7 }))
    }
}

#[test]
fn status_as_table_and_json() {
    let agent = start();
    let status = ["agent", "status", "--socket", argument(&agent.socket)];
    let rows = run(&status).exits(0).rows();
    for expected in [
        "node east/n1",
        "datapath memory (Linux 6.1, attaching with clsact)",
        "realised revision 7",
        "followed revision 8",
        "staleness 1.5 s",
        "problem revision 8 does not fit",
        "endpoint web-1 waiting-for-interface (no device of that name), identity 0, veth-web-1, 10.101.1.10",
        "packets default-deny 3",
    ] {
        assert!(rows.iter().any(|row| row == expected), "no {expected:?} in {rows:#?}");
    }
    assert!(!rows.iter().any(|row| row.contains("spoofed")), "what never happened is no row: {rows:#?}");
    let view = run(&[&status[..], &["-o", "json"]].concat()).exits(0).json();
    assert_eq!(view["packets"]["spoofed"], 0);
    assert_eq!((&view["node"]["realised_revision"], &view["packets"]["allowed"]), (&json!(7), &json!(12)));
    assert_eq!((&view["gateway"], &view["staleness_ms"]), (&json!("10.40.1.10:7401"), &json!(1500)));
    assert_eq!(view["endpoints"][0]["state"], "waiting-for-interface");
}

#[test]
fn a_probe_answers_with_verdict_reason_and_revision() {
    let agent = start();
    let probe = |port: &str, more: &[&str]| {
        let flags = ["agent", "probe", "--socket", argument(&agent.socket), "--from", "10.0.0.1", "--to", "10.0.0.2"];
        run(&[&flags[..], &["--port", port], more].concat())
    };
    assert_eq!(probe("80", &[]).exits(0).rows(), ["VERDICT REASON REVISION", "allow allowed 7"]);
    let view = probe("81", &["-o", "json"]).exits(0).json();
    assert_eq!(view, json!({"allow": false, "reason": "default-deny", "revision": 7}));
    let view = probe("80", &["--protocol", "udp", "--source-port", "53", "-o", "json"]).exits(0).json();
    assert_eq!(view["allow"], false);
}

#[test]
fn a_batch_answers_every_line_at_once_and_in_order() {
    let agent = start();
    let mut command = command();
    command.args(["agent", "probe", "--batch", "--socket", argument(&agent.socket)]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut questions, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for port in 1..200_u32 {
        let question = json!({"from": "10.0.0.1", "to": "10.0.0.2", "protocol": "tcp", "port": port});
        writeln!(questions, "{question}").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["allow"], port.is_multiple_of(2), "{port}: {answer}");
    }
    drop(questions);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_batch_ends_at_the_first_line_that_cannot_be_answered() {
    let agent = start();
    let good = r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 80}"#;
    for (bad, expected) in [
        ("", "line 2: column 0"),
        ("port 80", "line 2: column"),
        (r#"{"from": "10.0.0.1", "to": "10.0.0.2"}"#, "missing field `port`"),
        (r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 65536}"#, "65536"),
        (r#"{"from": "11.0.0.1", "to": "10.0.0.2", "port": 80}"#, "line 2: 11.0.0.1 is no endpoint of this node"),
    ] {
        let input = format!("{good}\n{bad}\n{good}\n");
        let outcome = run_with_input(&["agent", "probe", "--batch", "--socket", argument(&agent.socket)], &input);
        assert_eq!(outcome.stdout.lines().count(), 1, "{bad}");
        outcome.exits(1).says(&["standard input, line 2: ", expected]);
    }
}

#[test]
fn a_socket_without_an_agent_is_told_with_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    drop(UnixListener::bind(path("dead.sock")).unwrap());
    fs::write(path("file"), "").unwrap();
    for (name, expected) in [
        ("missing.sock", "does not exist: is the agent running"),
        ("dead.sock", "nobody listens on"),
        ("file", "nobody listens on"),
        (&"x".repeat(200), "cannot open"),
    ] {
        for what in [&["status"][..], &["probe", "--batch"]] {
            let socket = path(name);
            run(&[&["agent"], what, &["--socket", argument(&socket)]].concat()).exits(3).says(&[name, expected]);
        }
    }
}

#[test]
fn an_agent_that_says_nothing_is_told_with_exit_code_4() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("silent.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let flags = ["--timeout", "0.3", "agent", "status", "--socket", argument(&socket)];
    run(&flags).exits(4).says(&["the agent did not answer"]);
    assert!(started.elapsed() < Duration::from_secs(5), "--timeout holds");
}

#[test]
fn something_else_than_an_agent_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("other.sock");
    let other = UnixListener::bind(&socket).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        // It may be gone already.
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let outcome = run(&["agent", "status", "--socket", argument(&socket)]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:#?}");
    assert!(outcome.stderr.starts_with("error: ") && !outcome.stderr.contains("panicked"), "{outcome:#?}");
    serving.join().unwrap();
}
