//! One node as its operator has it, on the kernel datapath: every process is the real one, every packet too.
//!
//! ```text
//! this network namespace: identityd ◄─ mesh-gateway ◄─ ringfence-agent ─ programs ─ ep-web ── netns web: workload
//!                         ringfence (CLI) ─► gateway, agent's socket          └─── ep-api ── netns api: workload
//! or:                     ringfence-agent ─ programs ─ up0 ── netns far: identityd, mesh-gateway, CLI
//! ```

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringfence_chaos::workload::protocol::{Count, Outcome, Protocol, Request, Response};
use serde_json::{Value, json};

use crate::namespaces::{BPFFS, ip};
use crate::support::binaries;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an attempt waits for an answer; what is refused is waited for as long.
const ATTEMPT_MS: u64 = 1500;
/// Endpoints: name, its addresses, and the node's addresses on its link.
const ENDPOINTS: [(&str, [&str; 2], [&str; 2]); 2] = [
    ("web", ["10.101.1.10", "fd01:0:0:1::10"], ["10.101.1.254", "fd01:0:0:1::fe"]),
    ("api", ["10.101.2.11", "fd01:0:0:2::11"], ["10.101.2.254", "fd01:0:0:2::fe"]),
];

/// Of the node and of the machine at the other end of its uplink.
const UPLINK: [&str; 2] = ["10.40.9.1", "10.40.9.3"];

/// The node and the mesh around it.
pub(crate) struct Node {
    directory: PathBuf,
    tcx: bool,
    /// The mesh is at the other end of the uplink.
    far: bool,
    agent: Option<Child>,
    mesh: Vec<Child>,
    pub(crate) web: Workload,
    pub(crate) api: Workload,
}

/// The node's own address on its uplink, at a port.
pub(crate) fn node(port: u16) -> Vec<SocketAddr> {
    vec![SocketAddr::new(UPLINK[0].parse().expect("an address"), port)]
}

/// The addresses of the endpoint `api` at a port.
pub(crate) fn api(port: u16) -> Vec<SocketAddr> {
    ENDPOINTS[1].1.iter().map(|address| SocketAddr::new(address.parse().expect("an address"), port)).collect()
}

impl Node {
    /// Inside namespaces of the test's own. Endpoints are there, and not declared.
    pub(crate) fn start(tcx: bool) -> Self {
        Self::start_with(tcx, false, &json!({}))
    }

    /// The same with store, gateway and operator behind the node's uplink.
    pub(crate) fn start_far(more: &Value) -> Self {
        Self::start_with(true, true, more)
    }

    fn start_with(tcx: bool, far: bool, more: &Value) -> Self {
        build_network();
        let directory = std::env::temp_dir().join(format!("ringfence-node-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let [web, api] = ["web", "api"].map(|namespace| Workload::start(Some(namespace)));
        let mut node = Self { directory, tcx, far, agent: None, mesh: Vec::new(), web, api };
        let subjects = ["member/1", "gateway/east", "agent/east/n1", "agent/east/n2", "admin/demo"];
        node.ringfence(&[&["ca", "init", "--dir", &node.path("tls")], &subjects[..]].concat());
        for suffix in ["crt", "key"] {
            let from = node.path(&format!("tls/admin-demo.{suffix}"));
            fs::copy(from, node.path(&format!("tls/tls.{suffix}"))).expect("the operator's own files");
        }
        let [member, gateway] = [7400, 7401].map(|port| node.mesh_at(port));
        let store = json!({
            "id": 1, "cluster": "east", "listen": member, "data_dir": node.path("store"),
            "members": [{"id": 1, "cluster": "east", "address": member}], "tls": node.tls("member-1"),
        });
        let gateway = json!({
            "cluster": {"name": "east", "id": 1, "pod_cidrs": ["10.101.0.0/16", "fd01::/32"]},
            "listen": gateway, "members": [member], "tls": node.tls("gateway-east"),
        });
        for (program, config) in [("identityd", store), ("mesh-gateway", gateway)] {
            let child = node.spawn(program, &config, far.then_some("far"));
            node.mesh.push(child);
        }
        node.start_agent(more);
        eventually("the gateway knows the node", || {
            node.try_ringfence(&["node", "list"]).is_ok_and(|nodes| nodes.contains("n1"))
        });
        node
    }

    /// Starts the agent; `more` goes into its configuration. Returns when it answers.
    pub(crate) fn start_agent(&mut self, more: &Value) {
        let mut config = json!({
            "cluster": "east", "node": "n1", "addresses": ["10.40.1.1"], "gateways": [self.mesh_at(7401)],
            "tls": self.tls("agent-east-n1"), "socket": self.path("agent.sock"), "report_interval_ms": 100,
            "datapath": {"kind": "kernel", "bpffs": BPFFS, "tcx": self.tcx},
        });
        let more = more.as_object().expect("an object").clone();
        config.as_object_mut().expect("an object").extend(more);
        let agent = self.spawn("ringfence-agent", &config, None);
        assert!(self.agent.replace(agent).is_none(), "it runs already");
        eventually("the agent answers", || self.try_ringfence(&["agent", "status"]).is_ok());
    }

    /// The machine at the other end of the uplink is node n2, where nothing is judged; `more` goes into its agent's
    /// configuration. Returns when the store knows it.
    pub(crate) fn start_second_node(&mut self, more: &Value) {
        let mut config = json!({
            "cluster": "east", "node": "n2", "addresses": [UPLINK[1]], "gateways": [self.mesh_at(7401)],
            "tls": self.tls("agent-east-n2"), "socket": self.path("n2.sock"), "report_interval_ms": 100,
            "datapath": {"kind": "memory"},
        });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let agent = self.spawn("ringfence-agent", &config, self.far.then_some("far"));
        self.mesh.push(agent);
        eventually("the store knows the second node", || {
            self.try_ringfence(&["node", "list"]).is_ok_and(|nodes| nodes.contains("n2"))
        });
    }

    /// As `kill -9`.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("it runs");
        agent.kill().and_then(|()| agent.wait()).expect("a child of ours");
    }

    /// As a service manager does.
    pub(crate) fn stop_agent(&mut self) {
        let mut agent = self.agent.take().expect("it runs");
        let told = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().expect("kill runs");
        assert!(told.success() && agent.wait().expect("a child of ours").success(), "{}", self.log("ringfence-agent"));
    }

    /// `ringfence-agent uninstall`.
    pub(crate) fn uninstall(&self) -> Result<String, String> {
        let config = self.path("ringfence-agent.yaml");
        run(Command::new(binaries().join("ringfence-agent")).args(["uninstall", "--config", &config]))
    }

    /// Declares both endpoints, as an operator does, and waits until they are enforced.
    pub(crate) fn add_endpoints(&self) {
        for (name, [four, six], _) in ENDPOINTS {
            let (device, label) = (format!("ep-{name}"), format!("k8s:app={name}"));
            let namespace = "k8s:io.kubernetes.pod.namespace=shop";
            let labels = ["--label", &label, "--label", namespace];
            let place = ["--interface", &device, "--address", four, "--address", six];
            let told = self.ringfence(&[&["endpoint", "add", name], &place[..], &labels].concat());
            assert!(told.starts_with(&format!("endpoint {name} added (identity ")), "{told}");
        }
        eventually("both endpoints are ready", || {
            let status = self.json(&["agent", "status"]);
            let endpoints = status["endpoints"].as_array().expect("a list");
            endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint["state"] == "ready")
        });
    }

    /// Applies policies and waits for nobody.
    pub(crate) fn apply_and_go(&self, policies: &str) {
        fs::write(self.path("policy.yaml"), policies).expect("a file");
        self.ringfence(&["policy", "apply", "-f", &self.path("policy.yaml")]);
    }

    /// Applies policies and waits for the node; answers the revision.
    pub(crate) fn apply(&self, policies: &str) -> u64 {
        fs::write(self.path("policy.yaml"), policies).expect("a file");
        let applied = self.json(&["policy", "apply", "--wait", "-f", &self.path("policy.yaml")]);
        assert_eq!(applied["waited"]["complete"], true, "{applied}");
        applied["revision"].as_u64().expect("a number")
    }

    /// Runs the CLI; it must succeed.
    pub(crate) fn ringfence(&self, arguments: &[&str]) -> String {
        self.try_ringfence(arguments).unwrap_or_else(|error| panic!("ringfence {arguments:?}: {error}"))
    }

    /// Runs the CLI; its answer is JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ringfence(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    pub(crate) fn try_ringfence(&self, arguments: &[&str]) -> Result<String, String> {
        run(&mut self.command(arguments))
    }

    /// `ringfence monitor` with filters, until it has printed one event; it watches when this returns.
    pub(crate) fn watch(&self, filters: &[&str]) -> Watcher {
        let mut command = self.command(&[&["monitor", "--count", "1", "-o", "json"], filters].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the CLI starts");
        let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("text");
        assert!(line.starts_with("watching node east/n1 (kernel datapath)"), "{line}");
        Watcher(child)
    }

    /// What the CLI says on the node itself, wherever the mesh is.
    pub(crate) fn try_ringfence_here(&self, arguments: &[&str]) -> Result<String, String> {
        run(&mut self.arguments(Command::new(binaries().join("ringfence")), arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.arguments(program("ringfence", self.far.then_some("far")), arguments)
    }

    fn mesh_at(&self, port: u16) -> String {
        format!("{}:{port}", if self.far { UPLINK[1] } else { "127.0.0.1" })
    }

    fn arguments(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(["--server", &self.mesh_at(7401), "--tls-dir", &self.path("tls")]).args(arguments);
        let local = ["agent", "monitor", "bpf"].contains(&arguments[0])
            || matches!(arguments, ["endpoint", "add" | "delete", ..]);
        command.args(local.then(|| format!("--socket={}", self.path("agent.sock"))));
        command
    }

    fn spawn(&self, name: &str, config: &Value, namespace: Option<&str>) -> Child {
        let path = self.path(&format!("{name}.yaml"));
        fs::write(&path, config.to_string()).expect("a file");
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log")));
        let mut command = program(name, namespace);
        command.args(["--config", &path]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        command.spawn().expect("setpriv is installed")
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn tls(&self, name: &str) -> Value {
        let file = |name: &str| self.path(&format!("tls/{name}"));
        json!({"ca": file("ca.crt"), "certificate": file(&format!("{name}.crt")), "key": file(&format!("{name}.key"))})
    }

    fn log(&self, program: &str) -> String {
        let log = fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        tail.into_iter().rev().map(|line| format!("  {line}\n")).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("the agent's log ends with:\n{}", self.log("ringfence-agent"));
        }
        for child in self.agent.iter_mut().chain(&mut self.mesh) {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// A `ringfence monitor` that runs.
pub(crate) struct Watcher(Child);

impl Watcher {
    /// The event that it waited for.
    pub(crate) fn event(mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("a child of ours").is_none() {
            if Instant::now() > deadline {
                drop(self.0.kill());
                panic!("no such event within a minute");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = self.0.wait_with_output().expect("it was just there");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// The demo's workload in an endpoint's namespace: serves ports 8080 and 9090, and sends what it is told to.
pub(crate) struct Workload {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workload {
    /// None for the node's own namespace.
    pub(crate) fn start(namespace: Option<&str>) -> Self {
        let mut command = program("ringfence-demo", namespace);
        command.arg("workload").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("setpriv is installed");
        let (input, output) = child.stdin.take().zip(child.stdout.take()).expect("they are piped");
        let mut workload = Self { child, input, output: BufReader::new(output) };
        assert!(matches!(workload.answer(), Response::Ready));
        workload
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        let line = serde_json::to_string(request).expect("JSON");
        writeln!(self.input, "{line}").expect("the workload runs");
        self.answer()
    }

    fn answer(&mut self) -> Response {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Whether connections to all targets come about; none may differ from the others.
    pub(crate) fn reaches(&mut self, targets: Vec<SocketAddr>) -> bool {
        let Response::Probed { outcomes } = self.ask(&Request::Probe { targets, timeout_ms: ATTEMPT_MS }) else {
            panic!("no outcomes")
        };
        let [first, rest @ ..] = &outcomes[..] else { panic!("no outcome") };
        let known = matches!(first, Outcome::Connected | Outcome::TimedOut);
        assert!(known && rest.iter().all(|one| one == first), "{outcomes:?}");
        *first == Outcome::Connected
    }

    /// Connections and datagrams that came to a port.
    pub(crate) fn arrived(&mut self, port: u16) -> u64 {
        let Response::Counted { counts } = self.ask(&Request::Counters) else { panic!("no counts") };
        let here = |count: &&Count| count.port == port && matches!(count.protocol, Protocol::Tcp | Protocol::Udp);
        counts.iter().filter(here).map(|count| count.count).sum()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// One of the mesh's programs, in a network namespace. Whoever ends this test ends it, too.
fn program(name: &str, namespace: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.args(namespace.iter().flat_map(|namespace| ["ip", "netns", "exec", namespace]));
    command.arg(binaries().join(name));
    command
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn build_network() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(Path::new("/proc/sys/net").join(setting), "1").expect("a setting");
    }
    for (name, [four, six], [gateway_four, gateway_six]) in ENDPOINTS {
        ip(&format!("netns add {name}"));
        ip(&format!("link add ep-{name} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {gateway_four}/24 dev ep-{name}"));
        ip(&format!("addr add {gateway_six}/64 dev ep-{name} nodad"));
        ip(&format!("link set ep-{name} up"));
        ip(&format!("-n {name} addr add {four}/24 dev eth0"));
        ip(&format!("-n {name} addr add {six}/64 dev eth0 nodad"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} route add default via {gateway_four}"));
        ip(&format!("-n {name} -6 route add default via {gateway_six}"));
    }
    ip("netns add far");
    ip("link add up0 type veth peer name eth0 netns far");
    ip(&format!("addr add {}/24 dev up0", UPLINK[0]));
    ip(&format!("-n far addr add {}/24 dev eth0", UPLINK[1]));
    ip("link set up0 up");
    ip("-n far link set eth0 up");
    ip("-n far link set lo up");
    // Before that, the node cannot ask for its neighbours and holds first packets back (RFC 4862 §5.4).
    eventually("no address is tentative", || {
        [&[][..], &["-n", "web"], &["-n", "api"]].into_iter().all(|namespace| {
            let mut command = Command::new("ip");
            command.args(namespace).args(["-6", "-o", "addr", "show", "tentative"]);
            run(&mut command).is_ok_and(|text| text.is_empty())
        })
    });
}
