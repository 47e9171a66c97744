//! The kernel datapath as its operator meets it: the agent's process, the CLI, real packets between network namespaces.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../agent/datapath/tests/support/namespaces.rs"]
mod namespaces;
#[path = "support/node.rs"]
mod node;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringfence_chaos::workload::protocol::{HammerPlan, Request, Response};
use serde_json::{Value, json};

use namespaces::{BPFFS, in_own_namespaces, ip};
use node::{Node, Workload, api, eventually};
use support::binaries;

/// Set in the process that holds a connection.
const CONNECTION: &str = "RINGFENCE_TEST_CONNECTION";
/// How long an answer on an established connection may take.
const ANSWER: Duration = Duration::from_millis(1500);
const KILLS: usize = 3;
/// Port 8080 of the API is for web only, over TCP.
const WEB_TO_API: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: web-to-api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]
";
const DENY_WEB: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: deny-web}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingressDeny: [{fromEndpoints: [{matchLabels: {app: web}}]}]
";

/// Runs a test in namespaces of its own, once the programs are there.
fn play(name: &str, start: impl FnOnce() -> Node, test: impl FnOnce(Node)) {
    if let Ok(target) = std::env::var(CONNECTION) {
        return hold_connection(target.parse().unwrap());
    }
    binaries();
    in_own_namespaces(name, || test(start()));
}

#[test]
fn packets_meet_what_was_applied_and_every_command_says_so() {
    play(
        "packets_meet_what_was_applied_and_every_command_says_so",
        || Node::start(true),
        |mut node| {
            assert!(node.web.reaches(api(9090)), "control: without an endpoint under enforcement everything passes");
            node.add_endpoints();
            assert!(node.web.reaches(api(8080)) && node.web.reaches(api(9090)), "no policy selects anybody");
            let revision = node.apply(WEB_TO_API);
            let watcher = node.watch(&["--type", "drop", "--port", "9090"]);
            assert!(node.web.reaches(api(8080)), "allowed");
            assert!(!node.web.reaches(api(9090)), "denied");
            a_drop_names_rule_and_revision(&watcher.event(), revision);
            maps_hold_what_was_applied(&node, revision);
            a_deny_cuts_an_established_connection(&mut node);
            assert_eq!(node.ringfence(&["endpoint", "delete", "web"]).split(" (").next(), Some("endpoint web deleted"));
            let left = node.json(&["bpf", "endpoint", "list"]);
            assert_eq!(names(&left, "name"), ["api"], "{left}");
            assert_eq!(names(&node.json(&["endpoint", "list"]), "name"), ["api"]);
        },
    );
}

fn names<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap()).collect()
}

fn a_drop_names_rule_and_revision(event: &Value, revision: u64) {
    assert_eq!((&event["verdict"], &event["reason"]), (&json!("deny"), &json!("deny-default")), "{event}");
    assert_eq!((&event["revision"], &event["protocol"]), (&json!(revision), &json!("TCP")), "{event}");
    assert_eq!((&event["source"]["endpoint"], &event["destination"]["endpoint"]), (&json!("web"), &json!("api")));
    let rule = &event["rules"][0];
    let object = rule["object"].as_str().unwrap_or_default();
    assert!(object.contains("web-to-api") && rule["verdict"] == "default-deny", "{event}");
}

fn maps_hold_what_was_applied(node: &Node, revision: u64) {
    assert_eq!(node.json(&["agent", "status"])["node"]["realised_revision"], revision);
    let stored = node.json(&["endpoint", "list"]);
    let ipcache = node.json(&["bpf", "ipcache", "list"]);
    for endpoint in stored.as_array().unwrap() {
        for address in endpoint["addresses"].as_array().unwrap() {
            let entry = ipcache.as_array().unwrap().iter().find(|entry| entry["prefix"] == *address);
            let entry = entry.unwrap_or_else(|| panic!("no {address} in {ipcache}"));
            assert_eq!((&entry["identity"], &entry["endpoint"]), (&endpoint["identity"], &endpoint["name"]));
        }
    }
    let rows = node.json(&["bpf", "policy", "list", "--endpoint", "api", "--direction", "ingress"]);
    let row = |verdict: &str, label: &str| {
        let has = |row: &&Value| row["verdict"] == verdict && row["labels"].as_array().unwrap().contains(&json!(label));
        rows.as_array().unwrap().iter().find(has).unwrap_or_else(|| panic!("no {verdict} of {label}: {rows}"))
    };
    let allowed = row("allow", "k8s:app=web");
    assert_eq!(allowed["ports"], json!([{"protocol": "TCP", "first": 8080, "last": 8080}]));
    let packets = &allowed["band_packets"];
    assert!(packets["allowed_packets"].as_u64() > Some(0) && packets["refused_packets"] == 0, "{allowed}");
    let connections = node.json(&["bpf", "ct", "list", "--endpoint", "api"]);
    let remote_ports: Vec<u64> = connections
        .as_array()
        .unwrap()
        .iter()
        .filter(|connection| connection["direction"] == "ingress" && connection["protocol"] == "TCP")
        .map(|connection| connection["local"]["port"].as_u64().unwrap())
        .collect();
    assert!(remote_ports.contains(&8080), "{connections}");
    let endpoints = node.json(&["bpf", "endpoint", "list"]);
    let mut known = names(&endpoints, "name");
    known.sort_unstable();
    assert_eq!(known, ["api", "web"], "{endpoints}");
}

fn a_deny_cuts_an_established_connection(node: &mut Node) {
    let mut connections: Vec<Connection> = api(8080).into_iter().map(Connection::open).collect();
    assert!(connections.iter_mut().all(Connection::answers), "control: they go on while they are allowed");
    let watcher = node.watch(&["--type", "verdict", "--port", "8080", "--reason", "deny-explicit"]);
    let revision = node.apply(DENY_WEB);
    assert!(connections.iter_mut().all(|connection| !connection.answers()), "their next packets are refused");
    let event = watcher.event();
    assert_eq!((&event["cut"], &event["revision"]), (&json!(true), &json!(revision)), "{event}");
    assert!(event["rules"][0]["object"].as_str().is_some_and(|object| object.contains("deny-web")), "{event}");
    let left = node.json(&["bpf", "ct", "list", "--endpoint", "api"]);
    let local = |connection: &&Value| connection["local"]["port"] == 8080 && connection["current"] == true;
    assert_eq!(left.as_array().unwrap().iter().filter(local).count(), 0, "{left}");
    node.ringfence(&["policy", "delete", "--wait", "deny-web"]);
    assert!(node.web.reaches(api(8080)), "control: it was that policy");
}

#[test]
fn aud_1_under_audit_refusals_are_counted_and_told_and_pass() {
    play(
        "aud_1_under_audit_refusals_are_counted_and_told_and_pass",
        || Node::start(true),
        |mut node| {
            node.add_endpoints();
            node.apply(WEB_TO_API);
            assert!(!node.web.reaches(api(9090)), "control: it is refused");
            let counted = |node: &Node| node.json(&["agent", "status"])["packets"]["audit-default"].as_u64().unwrap();
            assert_eq!(counted(&node), 0);
            node.ringfence(&["agent", "audit", "api", "on"]);
            one_endpoint_passes_and_tells(&mut node);
            let of_endpoint = counted(&node);
            assert!(of_endpoint > 0);
            node.ringfence(&["agent", "audit", "api", "off"]);
            assert!(!node.web.reaches(api(9090)), "it is enforced again");
            assert_eq!(counted(&node), of_endpoint);
            node.stop_agent();
            node.start_agent(&json!({"policy_audit_mode": true}));
            eventually("the whole node is under audit", || {
                let endpoints = node.json(&["bpf", "endpoint", "list"]);
                endpoints.as_array().unwrap().iter().all(|endpoint| endpoint["audit"] == true)
            });
            one_endpoint_passes_and_tells(&mut node);
            assert!(counted(&node) > of_endpoint);
        },
    );
}

fn one_endpoint_passes_and_tells(node: &mut Node) {
    let watcher = node.watch(&["--type", "audit"]);
    assert!(node.web.reaches(api(9090)), "nothing is refused under audit");
    let event = watcher.event();
    assert_eq!((&event["verdict"], &event["reason"]), (&json!("audit"), &json!("audit-default")), "{event}");
    assert_eq!(event["rules"][0]["verdict"], "default-deny", "{event}");
}

#[test]
fn s8_a_killed_agent_cuts_nobody_off_and_lets_nobody_in() {
    play("s8_a_killed_agent_cuts_nobody_off_and_lets_nobody_in", || Node::start(true), killed_under_traffic);
}

#[test]
fn s8_a_killed_agent_cuts_nobody_off_and_lets_nobody_in_with_clsact() {
    play(
        "s8_a_killed_agent_cuts_nobody_off_and_lets_nobody_in_with_clsact",
        || Node::start(false),
        killed_under_traffic,
    );
}

fn killed_under_traffic(mut node: Node) {
    let targets = || [api(8080), api(9090)].concat();
    assert!(node.web.reaches(targets()) && node.api.arrived(9090) > 0, "control: who arrives is counted");
    node.add_endpoints();
    node.apply(WEB_TO_API);
    let before = node.api.arrived(9090);
    let plan = HammerPlan { allowed: api(8080), denied: api(9090) };
    let started = node.web.ask(&Request::Hammer(plan));
    assert!(matches!(started, Response::Hammering), "{started:?}");
    for kill in 0..KILLS {
        node.kill_agent();
        // The store moves on without it: the successor has something to realise while packets flow.
        let policy = WEB_TO_API.replace("name: web-to-api", &format!("name: again-{kill}"));
        node.apply_and_go(&policy);
        node.start_agent(&json!({}));
        node.apply(&policy.replace("again", "then"));
    }
    let Response::Hammered(report) = node.web.ask(&Request::Stop) else { panic!("no report") };
    println!("{report:?}");
    assert!(report.broken.is_empty() && report.failed.is_empty() && report.slow == 0, "{report:?}");
    assert!(report.exchanges > 100 && report.connected > 10, "too little to prove anything: {report:?}");
    assert!(report.denied_attempts > 100 && report.datagrams > 100, "too little to prove anything: {report:?}");
    assert_eq!((report.denied_connected, node.api.arrived(9090)), (0, before), "{report:?}");
    only_uninstall_detaches(&mut node);
}

fn only_uninstall_detaches(node: &mut Node) {
    let refused = node.uninstall().unwrap_err();
    assert!(refused.contains("while the agent runs"), "{refused}");
    node.stop_agent();
    assert!(node.web.reaches(api(8080)) && !node.web.reaches(api(9090)), "an orderly stop leaves it in place");
    let done = node.uninstall().unwrap();
    assert!(done.contains("enforces nothing any more"), "{done}");
    assert!(node.web.reaches(api(9090)), "nobody judges any more");
    let pins = std::fs::read_dir(Path::new(BPFFS).join("ringfence"));
    assert!(pins.map_or(true, |mut left| left.next().is_none()), "pins are left");
}

const CLOSED: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: closed}
spec:
  nodeSelector: {matchLabels: {role: edge}}
  ingress: []
  egress: []
";

fn edge() -> Value {
    json!({"labels": ["role=edge"], "uplinks": ["up0"], "failsafe_ports": ["tcp/8080"]})
}

/// The mesh is behind the node's uplink, which a policy closes: the agent still hears of the next one, also a new agent that has to
/// connect first.
#[test]
fn host_1_a_node_that_is_closed_still_hears_of_the_policy_that_opens_it() {
    let start = || Node::start_far(&edge());
    play("host_1_a_node_that_is_closed_still_hears_of_the_policy_that_opens_it", start, |mut node| {
        let _on_the_node = Workload::start(None);
        let mut far = Workload::start(Some("far"));
        let status = |node: &Node| node.try_ringfence_here(&["--timeout", "2", "status"]);
        assert!(far.reaches(node::node(8080)) && far.reaches(node::node(9090)), "control: no policy");
        status(&node).unwrap();
        node.apply(CLOSED);
        assert!(status(&node).is_err(), "what the node itself begins is refused");
        assert!(
            far.reaches(node::node(8080)) && !far.reaches(node::node(9090)),
            "but for failsafe ports, it is closed"
        );
        node.kill_agent();
        node.start_agent(&edge());
        node.ringfence(&["policy", "delete", "--wait", "closed"]);
        status(&node).unwrap();
        assert!(far.reaches(node::node(9090)), "it is open again");
    });
}

/// Of the proxies of this node and of the one at the other end of its uplink.
const PROXY: [&str; 2] = ["10.101.9.8", "fd01:0:0:9::8"];
const FAR_PROXY: &str = "10.40.9.8";

/// Who may send to the endpoint `api`, and who may not.
fn proxies(allowed: &str, denied: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: proxies}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: api}}}}\n  ingress: [{{fromEntities: [{allowed}]}}]\n  \
         ingressDeny: [{{fromEntities: [{denied}]}}]\n"
    )
}

/// From which addresses the node, and the machine behind its uplink, send to the endpoint `api`.
fn send_from(own: [&str; 2], far: &str) {
    ip(&format!("route replace 10.101.2.11 dev ep-api src {}", own[0]));
    ip(&format!("-6 route replace fd01:0:0:2::11 dev ep-api src {}", own[1]));
    ip(&format!("-n far route replace 10.101.2.11 via 10.40.9.1 src {far}"));
}

/// Issue 5: traffic of `reserved:ingress` is judged as such, here and from other nodes, and not as the node.
#[test]
fn a_proxys_packets_are_the_proxys_and_not_the_nodes() {
    let edge = || json!({"labels": ["role=edge"], "uplinks": ["up0"], "failsafe_ports": []});
    play(
        "a_proxys_packets_are_the_proxys_and_not_the_nodes",
        move || Node::start_far(&edge()),
        |mut node| {
            for address in PROXY {
                ip(&format!("addr add {address} dev lo"));
            }
            ip(&format!("-n far addr add {FAR_PROXY}/24 dev eth0"));
            ip(&format!("-n far route add {} via 10.40.9.1", PROXY[0]));
            node.start_second_node(&json!({"ingress_addresses": [FAR_PROXY]}));
            node.add_endpoints();
            let (mut here, mut far) = (Workload::start(None), Workload::start(Some("far")));
            // Over the uplink there is IPv4 only.
            let mut reach = |here: &mut Workload| (here.reaches(api(8080)), far.reaches(api(8080)[..1].to_vec()));
            let (as_proxies, as_nodes) = ((PROXY, FAR_PROXY), (["10.101.2.254", "fd01:0:0:2::fe"], "10.40.9.3"));
            node.apply(&proxies("ingress", "host"));
            send_from(as_proxies.0, as_proxies.1);
            assert_eq!(
                reach(&mut here),
                (false, true),
                "control: the address is a device's, and no line says whose else"
            );
            node.stop_agent();
            let mut with = edge();
            with["ingress_addresses"] = json!(PROXY);
            node.start_agent(&with);
            eventually("the node's proxy is known", || identity_of(&node, PROXY[0]) == 8);
            assert_eq!(reach(&mut here), (true, true), "both are proxies");
            send_from(as_nodes.0, as_nodes.1);
            assert_eq!(reach(&mut here), (false, false), "and neither is its node");
            everybody_is_told(&node);

            let revision = node.apply(&proxies("host, remote-node", "ingress"));
            assert_eq!(reach(&mut here), (true, true), "nodes pass");
            send_from(as_proxies.0, as_proxies.1);
            let watcher = node.watch(&["--type", "drop", "--port", "8080"]);
            assert_eq!(reach(&mut here), (false, false), "proxies are refused");
            let event = watcher.event();
            assert_eq!((&event["reason"], &event["revision"]), (&json!("deny-explicit"), &json!(revision)), "{event}");
            assert_eq!(event["source"]["labels"], json!(["reserved:ingress"]), "{event}");

            // What comes to the proxy from elsewhere is not the node's to judge.
            node.apply(CLOSED);
            let proxy = |port| vec![SocketAddr::new(PROXY[0].parse().unwrap(), port)];
            assert!(!far.reaches(node::node(9090)), "the node is closed");
            assert!(far.reaches(proxy(9090)), "its proxy is not");
        },
    );
}

fn identity_of(node: &Node, address: &str) -> u64 {
    let ipcache = node.json(&["bpf", "ipcache", "list"]);
    let entry = ipcache.as_array().unwrap().iter().find(|entry| entry["prefix"] == *address);
    entry.map_or(0, |entry| entry["identity"].as_u64().unwrap())
}

fn everybody_is_told(node: &Node) {
    let ipcache = node.json(&["bpf", "ipcache", "list"]);
    for address in [PROXY[0], PROXY[1], FAR_PROXY] {
        let entry = ipcache.as_array().unwrap().iter().find(|entry| entry["prefix"] == *address).unwrap();
        assert_eq!((&entry["identity"], &entry["labels"]), (&json!(8), &json!(["reserved:ingress"])), "{entry}");
    }
    let nodes = node.json(&["node", "list"]);
    let of = |index: usize| (&nodes[index]["name"], &nodes[index]["ingress_addresses"]);
    assert_eq!(of(0), (&json!("n1"), &json!(PROXY)), "{nodes}");
    assert_eq!(of(1), (&json!("n2"), &json!([FAR_PROXY])), "{nodes}");
}

/// A connection from the endpoint `web`, held by this test's executable in its namespace.
struct Connection {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Connection {
    fn open(target: SocketAddr) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "web"]).arg(std::env::current_exe().unwrap());
        command.args(["aud_1_under_audit_refusals_are_counted_and_told_and_pass", "--exact", "--nocapture"]);
        command.env(CONNECTION, target.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut connection = Self { child, answers };
        assert!(connection.says("connected"));
        connection
    }

    /// Sends a line; answers whether it comes back.
    fn answers(&mut self) -> bool {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        self.says("answered")
    }

    fn says(&mut self, expected: &str) -> bool {
        let mut line = String::new();
        while !line.contains("> ") {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the connection's process ended");
        }
        line.trim_end().ends_with(expected)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// One exchange for each line of input.
fn hold_connection(target: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&target, ANSWER).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    println!("\n> connected");
    for _ in std::io::stdin().lines() {
        let answered = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0]));
        println!("> {}", if answered.is_ok() { "answered" } else { "nothing" });
    }
}
