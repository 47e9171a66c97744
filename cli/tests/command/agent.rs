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
    map_entry::Entry,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
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
            records: 120,
            scope: "view".to_owned(),
            gateway: "10.40.1.10:7401".to_owned(),
            staleness_ms: 1500,
            datapath_features: "Linux 6.1, attaching with clsact".to_owned(),
            tallies: HashMap::from([("events-lost".to_owned(), 2)]),
            verification: Some(v1::Verification {
                interval_ms: 30_000,
                runs: 9,
                age_ms: 12_000,
                repaired_served: 3,
                repaired_unserved: 1,
                repair_age_ms: 180_000,
                problem: String::new(),
            }),
            policy_enforcement: "always".to_owned(),
            policy_audit_mode: false,
            packets: HashMap::from([
                ("allowed".to_owned(), 12),
                ("default-deny".to_owned(), 3),
                ("spoofed".to_owned(), 0),
            ]),
        }))
    }

    async fn put_endpoint(&self, request: Request<v1::LocalEndpoint>) -> Result<Response<v1::Committed>, Status> {
        let endpoint = request.into_inner();
        let port = |name: &str, protocol, port| v1::NamedPort { name: name.to_owned(), protocol, port };
        let expected = v1::LocalEndpoint {
            name: "web-2".to_owned(),
            interface: "veth-web-2".to_owned(),
            addresses: vec!["10.101.1.12".to_owned(), "fd00::12".to_owned()],
            labels: vec!["k8s:app=web".to_owned(), "k8s:zone=a".to_owned()],
            named_ports: vec![port("http", 6, 8080), port("dns", 17, 53)],
            policy_audit_mode: true,
        };
        if endpoint.interface != expected.interface {
            return Err(Status::failed_precondition(format!("there is no device {}", endpoint.interface)));
        }
        assert_eq!(endpoint, expected);
        Ok(Response::new(v1::Committed { revision: 9, changed: true, identity: 1_049_577 }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteLocalEndpoint>,
    ) -> Result<Response<v1::Committed>, Status> {
        match request.into_inner().name.as_str() {
            "web-1" => Ok(Response::new(v1::Committed { revision: 8, changed: true, identity: 0 })),
            "web-2" => Ok(Response::new(v1::Committed::default())),
            name => Err(Status::not_found(format!("endpoint {name} is not known on this node"))),
        }
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
            policy_audit_mode: true,
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

    type MonitorStream = ReceiverStream<Result<v1::MonitorResponse, Status>>;

    /// Two events, of which the filter's types are the reasons; then nothing more, or the end of the agent.
    async fn monitor(&self, request: Request<v1::MonitorRequest>) -> Result<Response<Self::MonitorStream>, Status> {
        let request = request.into_inner();
        if request.reasons == ["because"] {
            return Err(Status::invalid_argument("reason: \"because\" is no reason: give one of new, spoofed"));
        }
        let (sender, receiver) = mpsc::channel(8);
        let started = v1::MonitorStarted {
            cluster: "east".to_owned(),
            node: "n1".to_owned(),
            revision: 7,
            datapath: "memory".to_owned(),
        };
        let lost = v1::LostEvents { ring: 5, slow_reader: 2, ..v1::LostEvents::default() };
        let messages = [
            v1::MonitorResponse { started: Some(started), ..v1::MonitorResponse::default() },
            v1::MonitorResponse { events: vec![event(true)], ..v1::MonitorResponse::default() },
            v1::MonitorResponse { lost: Some(lost), events: vec![event(false)], ..v1::MonitorResponse::default() },
        ];
        for message in messages {
            sender.try_send(Ok(message)).unwrap();
        }
        if request.ports == [9] {
            drop(sender);
        } else {
            // For as long as the reader is there.
            tokio::spawn(async move { sender.closed().await });
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ReadMapsStream = ReceiverStream<Result<v1::ReadMapsResponse, Status>>;

    /// Two pieces of one entry each; of endpoint `cut`, the end is missing, and of `none` there is nothing.
    async fn read_maps(&self, request: Request<v1::ReadMapsRequest>) -> Result<Response<Self::ReadMapsStream>, Status> {
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let entries = if request.endpoint == "none" { vec![] } else { entries(request.map()) };
        for entry in entries {
            let entries = vec![v1::MapEntry { entry: Some(entry) }];
            sender.try_send(Ok(v1::ReadMapsResponse { entries, end: None })).unwrap();
        }
        if request.endpoint != "cut" {
            let end = v1::ReadMapsEnd { revision: 7, revision_after: 8, generation: 3, strays: 2 };
            sender.try_send(Ok(v1::ReadMapsResponse { entries: vec![], end: Some(end) })).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn set_endpoint_audit(
        &self,
        request: Request<v1::SetEndpointAuditRequest>,
    ) -> Result<Response<v1::SetEndpointAuditResponse>, Status> {
        let request = request.into_inner();
        if request.name != "web-1" {
            return Err(Status::not_found(format!("endpoint {} is not declared on this node", request.name)));
        }
        Ok(Response::new(v1::SetEndpointAuditResponse {}))
    }
}

fn event(allowed: bool) -> v1::FlowEvent {
    let party = |address: &str, port, endpoint: &str| v1::FlowParty {
        address: address.to_owned(),
        port,
        identity: 1_049_576,
        labels: vec!["k8s:app=web".to_owned()],
        endpoint: endpoint.to_owned(),
    };
    let rule = v1::RuleReference {
        object: "CiliumNetworkPolicy shop/api".to_owned(),
        path: "spec".to_owned(),
        verdict: "default-deny".to_owned(),
        audit: false,
        log: String::new(),
    };
    v1::FlowEvent {
        time_unix_ns: 1_700_000_000_123_456_789,
        allowed,
        reason: if allowed { "new" } else { "deny-default" }.to_owned(),
        revision: 7,
        source: Some(party("10.101.1.10", 40_000, "web-1")),
        destination: Some(party("fd00::1", 80, "")),
        protocol: 6,
        direction: "egress".to_owned(),
        connection: "egress".to_owned(),
        endpoint: "web-1".to_owned(),
        policy: 3,
        band: 1,
        port: 80,
        shadow_differs: false,
        cut: !allowed,
        rules: if allowed { vec![] } else { vec![rule] },
    }
}

fn entries(map: v1::DatapathMap) -> Vec<Entry> {
    let text = str::to_owned;
    let labels = vec![text("k8s:app=web")];
    match map {
        v1::DatapathMap::Ipcache => ["10.101.1.10", "10.101.0.0/16"]
            .map(|prefix| {
                let (identity, endpoint) = if prefix.ends_with("16") { (0, "") } else { (1_049_576, "web-1") };
                let (prefix, endpoint, labels) = (text(prefix), text(endpoint), labels.clone());
                Entry::Ipcache(v1::IpcacheEntry { prefix, identity, labels, endpoint })
            })
            .into(),
        v1::DatapathMap::Policy => vec![Entry::Policy(v1::PolicyEntry {
            policy: 3,
            endpoints: vec![text("web-1")],
            shadow_of: vec![text("api-1")],
            direction: text("ingress"),
            peer: 0,
            labels: vec![],
            verdict: text("allow"),
            band: 1,
            ports: vec![
                v1::PortRange { protocol: 6, first: 80, last: 80 },
                v1::PortRange { protocol: 17, first: 1000, last: 2000 },
            ],
            packets: Some(v1::BandPackets { allowed_packets: 4, ..v1::BandPackets::default() }),
        })],
        v1::DatapathMap::Connections => vec![Entry::Connection(v1::ConnectionEntry {
            endpoint: text("web-1"),
            local_address: text("fd00::10"),
            local_port: 40_000,
            remote_address: text("fd00::1"),
            remote_port: 80,
            protocol: 6,
            direction: text("egress"),
            phase: text("established"),
            idle_ms: 1500,
            current: true,
            peer_endpoint: String::new(),
            generation: 3,
        })],
        v1::DatapathMap::Endpoints | v1::DatapathMap::Unspecified => {
            vec![Entry::Endpoint(v1::EndpointMapEntry {
                id: 4,
                name: text("web-1"),
                identity: 1_049_576,
                labels,
                policy: 3,
                shadow: 0,
                audit: true,
            })]
        }
    }
}

#[test]
fn events_are_printed_as_they_come_with_a_line_for_lost_ones() {
    let agent = start();
    let monitor = ["monitor", "--socket", argument(&agent.socket), "--count", "2"];
    let outcome = run(&monitor).exits(0);
    let rows = outcome.rows();
    assert_eq!(rows.len(), 4, "{rows:#?}");
    assert_eq!(rows[0], "TIME VERDICT REASON DIRECTION FLOW WHAT ELSE");
    let flow = "10.101.1.10:40000 (web-1 1049576 k8s:app=web) → [fd00::1]:80 (1049576 k8s:app=web) TCP";
    assert_eq!(rows[1], format!("22:13:20.123456 allow new egress {flow} (revision 7; policy 3 band 1 of web-1)"));
    assert_eq!(rows[2], "--- 7 events lost (5: the datapath's ring was full; 2: this output was read too slowly)");
    assert!(
        rows[3].ends_with("cut: it was allowed before; default-deny by CiliumNetworkPolicy shop/api spec)"),
        "{rows:#?}"
    );
    outcome.says(&["watching node east/n1 (memory datapath) at revision 7; Ctrl-C ends"]);
    let json = run(&[&monitor[..], &["-o", "json"]].concat()).exits(0);
    let lines: Vec<Value> = json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[0]["time"]), (&json!("allow"), &json!("2023-11-14T22:13:20.123456Z")));
    assert_eq!(lines[1]["lost"], json!({"ring": 5, "rate_limit": 0, "undecodable": 0, "slow_reader": 2}));
    assert_eq!((&lines[2]["verdict"], &lines[2]["cut"]), (&json!("deny"), &json!(true)));
    assert_eq!(lines[2]["rules"][0]["object"], "CiliumNetworkPolicy shop/api");
    run(&[&monitor[..4], &["5", "--port", "9"]].concat()).exits(1).says(&["the agent has ended the stream"]);
    run(&[&monitor[..], &["--reason", "because"]].concat()).exits(1).says(&["\"because\" is no reason"]);
}

#[test]
fn a_watcher_ends_well_when_it_is_told_to() {
    let agent = start();
    let mut command = command();
    command.args(["monitor", "--socket", argument(&agent.socket)]);
    let mut told = command.spawn().unwrap();
    let mut lines = BufReader::new(told.stdout.take().unwrap());
    for _ in 0..4 {
        lines.read_line(&mut String::new()).unwrap();
    }
    // What Ctrl-C sends.
    let kill = std::process::Command::new("kill").args(["-INT", &told.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(told.wait().unwrap().code(), Some(0));
}

#[test]
fn maps_are_listed_with_columns_for_each_and_as_one_document() {
    let agent = start();
    let list = |map: &str, more: &[&str]| {
        run(&[&["bpf", map, "list", "--socket", argument(&agent.socket)][..], more].concat())
    };
    for (map, header, row) in [
        ("ipcache", "PREFIX IDENTITY ENDPOINT LABELS", "10.101.1.10 1049576 web-1 k8s:app=web"),
        (
            "policy",
            "POLICY DIRECTION VERDICT PEER PORTS BAND ALLOWED REFUSED ENDPOINTS LABELS",
            "3 ingress allow ANY 80/TCP,1000-2000/UDP 1 4 0 web-1,api-1 (shadow)",
        ),
        (
            "ct",
            "ENDPOINT PROTOCOL BEGAN LOCAL REMOTE PHASE IDLE JUDGED PEER",
            "web-1 TCP egress [fd00::10]:40000 [fd00::1]:80 established 1.5 s now",
        ),
        ("endpoint", "INTERFACE ENDPOINT IDENTITY POLICY SHADOW AUDIT LABELS", "4 web-1 1049576 3 - yes k8s:app=web"),
    ] {
        let outcome = list(map, &[]).exits(0);
        assert_eq!(outcome.rows()[..2], [header, row], "{map}");
        outcome.says(&["from revision 7 to 8 while the map was read", "2 entries that Ringfence never wrote"]);
        let json = list(map, &["-o", "json"]).exits(0).json();
        let yaml: Value = yaml_serde::from_str(&list(map, &["-o", "yaml"]).exits(0).stdout).unwrap();
        assert_eq!(json, yaml, "{map}");
        assert_eq!(json.as_array().unwrap().len(), outcome_rows(map), "{map}");
        let none = list(map, &["--endpoint", "none", "-o", "json"]).exits(0).json();
        assert_eq!(none, json!([]), "{map}");
        assert_eq!(list(map, &["--endpoint", "none"]).exits(0).rows(), [header], "{map}");
        list(map, &["--endpoint", "cut"]).exits(1).says(&["entries are missing"]);
    }
    assert_eq!(list("ipcache", &[]).rows()[2], "10.101.0.0/16 unknown - k8s:app=web");
}

/// How many entries the test's agent has in a map.
fn outcome_rows(map: &str) -> usize {
    if map == "ipcache" { 2 } else { 1 }
}

#[test]
fn an_endpoint_is_put_under_audit() {
    let agent = start();
    let audit =
        |endpoint: &str, state: &str| run(&["agent", "audit", endpoint, state, "--socket", argument(&agent.socket)]);
    assert_eq!(audit("web-1", "on").exits(0).rows(), ["endpoint web-1 is under audit"]);
    assert_eq!(audit("web-1", "off").exits(0).rows(), ["endpoint web-1 is enforced"]);
    audit("web-9", "on").exits(1).says(&["web-9 is not declared on this node"]);
}

#[test]
fn endpoints_are_added_and_deleted_through_the_agent() {
    let agent = start();
    let socket = ["--socket", argument(&agent.socket)];
    let add = |interface: &str| {
        let address = ["--address", "10.101.1.12", "--address", "fd00::12"];
        let label = ["--label", "k8s:app=web", "--label", "k8s:zone=a"];
        let more = ["--named-port", "http=8080", "--named-port", "dns=53/UDP", "--audit"];
        let begin = ["endpoint", "add", "web-2", "--interface", interface];
        run(&[&begin[..], &address, &label, &more, &socket].concat())
    };
    assert_eq!(add("veth-web-2").exits(0).rows(), ["endpoint web-2 added (identity 1049577, revision 9)"]);
    add("veth9").exits(1).says(&["there is no device veth9"]);
    let delete = |name| run(&[&["endpoint", "delete", name], &socket[..]].concat());
    assert_eq!(delete("web-1").exits(0).rows(), ["endpoint web-1 deleted (revision 8)"]);
    assert_eq!(delete("web-2").exits(0).rows(), ["endpoint web-2 deleted"], "the store never had it");
    delete("web-9").exits(1).says(&["web-9 is not known on this node"]);
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
        "records 120 (what this node needs of the mesh)",
        "staleness 1.5 s",
        "problem revision 8 does not fit",
        "policy enforcement always",
        "maps read back 12 s ago; 4 entries that others had changed were repaired (3 of them in force), last 3 m ago",
        "endpoint web-1 waiting-for-interface (audit) (no device of that name), identity 0, veth-web-1, 10.101.1.10",
        "packets default-deny 3",
    ] {
        assert!(rows.iter().any(|row| row == expected), "no {expected:?} in {rows:#?}");
    }
    assert!(!rows.iter().any(|row| row.contains("spoofed")), "what never happened is no row: {rows:#?}");
    let view = run(&[&status[..], &["-o", "json"]].concat()).exits(0).json();
    assert_eq!(view["packets"]["spoofed"], 0);
    assert_eq!((&view["tallies"]["events-lost"], &view["verification"]["runs"]), (&json!(2), &json!(9)));
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
