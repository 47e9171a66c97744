//! `ringfence policy`: apply, get, delete, and waiting for the nodes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringfence_proto::v1;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    ringfence::{argument, run},
    server::TestMesh,
};

const ALLOW: &str = "\
# from the tutorial
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: allow-web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
";

const BASE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: base}
spec:
  endpointSelector: {}
  ingress: [{}]
";

pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn node(name: &str, realised_revision: u64) -> v1::NodeStatus {
    v1::NodeStatus {
        cluster: "east".to_owned(),
        name: name.to_owned(),
        realised_revision,
        report_age_ms: 300,
        reported: true,
        problems: Vec::new(),
        datapath: "memory".to_owned(),
        gone: false,
    }
}

#[test]
fn a_bad_file_is_told_with_its_place_and_nothing_is_sent() {
    let mesh = TestMesh::start();
    let files = Files::new();
    let good = files.write("good.yaml", ALLOW);
    let unknown = files.write("unknown.yaml", &ALLOW.replace("ingress:", "ingres:"));
    let port = files.write("port.yaml", &format!("{ALLOW}    toPorts: [{{ports: [{{port: \"70000\"}}]}}]\n"));
    let syntax = files.write("syntax.yaml", "apiVersion: [\n");
    let empty = files.write("empty.yaml", "# nothing\n");

    let apply = |path: &Path| mesh.run(&["policy", "apply", "-f", argument(&good), "-f", argument(path)]);
    for (path, place, words) in [(&unknown, "7:3: error", "ingres"), (&port, "9:", "70000"), (&syntax, "2:", "error")] {
        let place = format!("{}:{place}", path.display());
        let outcome = apply(path).exits(1).says(&[&place, words, "nothing was sent"]);
        assert_eq!(outcome.stdout, "");
    }
    mesh.run(&["policy", "apply", "-f", argument(&empty)]).exits(1).says(&["no policy object"]);
    mesh.run(&["policy", "apply", "-f", "/nonexistent.yaml"]).exits(1).says(&["/nonexistent.yaml"]);
    // The same object twice: which one is meant?
    let twice = files.write("twice.yaml", ALLOW);
    apply(&twice).exits(1).says(&["twice.yaml:", "good.yaml", "allow-web"]);
    // What nodes would leave out must not come into force.
    let proxy = ALLOW.replace("[{matchLabels: {app: web}}]", "[{}]\n    authentication: {mode: required}");
    let proxy = files.write("proxy.yaml", &proxy);
    apply(&proxy).exits(1).says(&["proxy.yaml:8:5: error", "authentication cannot be enforced by the nodes yet"]);
    assert_eq!(mesh.requests(), 0, "files are checked before anybody is asked");

    // Neither does it take a server to find out.
    run(&["policy", "apply", "-f", argument(&unknown)]).exits(1).says(&["unknown.yaml:7:3: error"]);
}

#[test]
fn apply_get_and_delete() {
    let mesh = TestMesh::start();
    let files = Files::new();
    files.write("10-base.yaml", BASE);
    files.write("20-allow.yaml", ALLOW);
    files.write("notes.txt", "not a policy");
    let directory = argument(files.0.path());

    let outcome = mesh.run(&["policy", "apply", "-f", directory]).exits(0);
    let created = [
        "ciliumnetworkpolicy/shop/allow-web created (revision 1)",
        "ciliumclusterwidenetworkpolicy/base created (revision 1)",
    ];
    assert!(created.iter().all(|line| outcome.stdout.contains(line)), "{outcome:#?}");
    let outcome = mesh.run(&["-o", "json", "policy", "apply", "-f", directory]).exits(0).json();
    assert_eq!(
        (&outcome["revision"], &outcome["changed"], &outcome["waited"]),
        (&json!(1), &json!(false), &json!(null))
    );
    assert_eq!(outcome["objects"].as_array().unwrap().len(), 2);

    let changed = ALLOW.replace("app: web", "app: shop");
    let outcome = mesh.run_with_input(&["policy", "apply", "-f", "-"], &changed).exits(0);
    assert_eq!(outcome.stdout, "ciliumnetworkpolicy/shop/allow-web configured (revision 2)\n");

    // As it was written, comments and all.
    let outcome = mesh.run(&["-o", "yaml", "policy", "get", "allow-web"]).exits(0);
    assert_eq!(outcome.stdout, changed);
    let rows = mesh.run(&["policy", "get"]).exits(0).rows();
    assert_eq!(rows[0], "KIND NAMESPACE NAME REVISION");
    assert!(rows.contains(&"CiliumNetworkPolicy shop allow-web 2".to_owned()), "{rows:#?}");
    assert!(rows.contains(&"CiliumClusterwideNetworkPolicy - base 1".to_owned()), "{rows:#?}");
    let views = mesh.run(&["-o", "json", "policy", "get", "ccnp/base"]).exits(0).json();
    assert_eq!(views[0]["text"], BASE, "{views:#}");

    mesh.run(&["policy", "delete", "base", "nothing"]).exits(1).says(&["nothing", "does not exist"]);
    assert_eq!(mesh.run(&["policy", "get"]).rows().len(), 3, "all or none");
    let outcome = mesh.run(&["policy", "delete", "base", "cnp/shop/allow-web"]).exits(0);
    assert!(outcome.stdout.contains("base deleted (revision 3)"), "{outcome:#?}");
    assert_eq!(mesh.run(&["-o", "json", "policy", "get"]).exits(0).json(), json!([]));
    mesh.run(&["policy", "delete", "-f", directory]).exits(1).says(&["does not exist"]);
}

#[test]
fn dry_run_asks_nobody() {
    let files = Files::new();
    let good = files.write("good.yaml", ALLOW);
    let outcome = run(&["policy", "apply", "--dry-run", "-f", argument(&good)]).exits(0);
    assert_eq!(outcome.stdout, "ciliumnetworkpolicy/shop/allow-web valid (dry run)\n");
}

#[test]
fn l4_wait_ends_when_every_node_has_the_revision_or_names_those_that_have_not() {
    let mesh = TestMesh::start();
    let files = Files::new();
    let good = files.write("good.yaml", ALLOW);
    let nodes = |nodes: &[v1::NodeStatus]| *mesh.store.nodes.lock().unwrap() = nodes.to_vec();
    let apply = |format: &str| {
        mesh.run(&["-o", format, "policy", "apply", "-f", argument(&good), "--wait", "--wait-timeout", "0.5"])
    };

    let silent = v1::NodeStatus { reported: false, realised_revision: 0, ..node("n3", 0) };
    let stuck = v1::NodeStatus { problems: vec!["the maps are full".to_owned()], ..node("n2", 0) };
    nodes(&[node("n1", 1), stuck, silent]);
    let outcome = apply("json").exits(4).says(&["east/n2: at revision 0", "the maps are full", "east/n3: no report"]);
    assert!(!outcome.stderr.contains("east/n1"), "{outcome:#?}");
    let view = outcome.json();
    assert_eq!((&view["revision"], &view["waited"]["complete"]), (&json!(1), &json!(false)));
    assert_eq!(view["waited"]["realised"][0]["name"], "n1");
    let lagging = view["waited"]["lagging"].as_array().unwrap();
    assert_eq!(lagging.iter().map(|node| node["name"].as_str().unwrap()).collect::<Vec<_>>(), ["n2", "n3"]);
    assert_eq!(lagging[0]["problems"], json!(["the maps are full"]));
    assert_eq!(lagging[1]["reported"], false);

    let outcome = apply("table").exits(4).says(&["revision 1 is not realised on", "east/n2", "east/n3"]);
    assert!(outcome.stdout.contains("unchanged (revision 1)"), "{outcome:#?}");

    let gone = v1::NodeStatus { gone: true, ..node("n4", 0) };
    nodes(&[node("n1", 1), gone]);
    let outcome = apply("json").exits(0).says(&["not counted, because they are gone: east/n4"]);
    assert_eq!(outcome.json()["waited"]["gone"][0]["name"], "n4");

    nodes(&[node("n1", 1), node("n2", 2)]);
    let view = apply("json").exits(0).json();
    assert_eq!((&view["waited"]["complete"], &view["waited"]["lagging"]), (&json!(true), &json!([])));
}

#[test]
fn l4_wait_sees_a_node_that_follows_while_it_waits() {
    let mesh = TestMesh::start();
    let files = Files::new();
    let good = files.write("good.yaml", ALLOW);
    *mesh.store.nodes.lock().unwrap() = vec![node("n1", 0)];
    let mut command = mesh.command(&["policy", "apply", "-f", argument(&good), "--wait", "--wait-timeout", "30"]);
    let mut waiting = command.spawn().unwrap();
    // List, write, and the first look at the nodes.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while mesh.requests() < 3 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(waiting.try_wait().unwrap().is_none(), "it waits for n1");
    *mesh.store.nodes.lock().unwrap() = vec![node("n1", 1)];
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}
