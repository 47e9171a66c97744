//! Lists and status: tables for people, JSON and YAML for programs.

use ringfence_policy::{
    identity::{ClusterId, Identity},
    label::LabelSet,
    name::Name,
    record::{Cluster, Endpoint, IdentityRecord, Node, Record},
};
use ringfence_proto::v1;
use serde_json::{Value, json};

use crate::{policies::Files, ringfence::argument, server::TestMesh};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn identity() -> Identity {
    Identity::global(ClusterId::new(2).unwrap(), 5).unwrap()
}

fn labels() -> LabelSet {
    LabelSet::parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]).unwrap()
}

/// Of node n2: a proxy or a health check.
fn reserved(identity: Identity, addresses: &[&str]) -> Record {
    let label = identity.reserved_name().unwrap();
    Record::Endpoint(std::sync::Arc::new(Endpoint {
        cluster: name("west"),
        node: name("n2"),
        name: name(&format!("reserved-{label}")),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        labels: LabelSet::parse([format!("reserved:{label}")]).unwrap(),
        identity,
        named_ports: vec![],
    }))
}

/// Two nodes of which one has reported, at revision 1.
fn mesh() -> TestMesh {
    let mesh = TestMesh::start();
    let node = |node: &str, address: &str| {
        Record::Node(Node {
            cluster: name("west"),
            name: name(node),
            addresses: vec![address.parse().unwrap()],
            labels: LabelSet::default(),
        })
    };
    let pod_cidrs = vec!["10.102.0.0/16".parse().unwrap(), "fd10:2::/32".parse().unwrap()];
    mesh.put([
        Record::Cluster(Cluster { name: name("west"), id: ClusterId::new(2).unwrap(), pod_cidrs }),
        node("n1", "10.40.2.1"),
        node("n2", "fd40::2:2"),
        Record::Identity(IdentityRecord { identity: identity(), labels: labels() }),
        Record::Endpoint(std::sync::Arc::new(Endpoint {
            cluster: name("west"),
            node: name("n1"),
            name: name("web-1"),
            addresses: vec!["10.102.1.10".parse().unwrap(), "fd10:2:1::10".parse().unwrap()],
            labels: labels(),
            identity: identity(),
            named_ports: vec![],
        })),
    ]);
    *mesh.store.nodes.lock().unwrap() = vec![
        v1::NodeStatus {
            cluster: "west".to_owned(),
            name: "n1".to_owned(),
            realised_revision: 1,
            report_age_ms: 250,
            reported: true,
            problems: vec![],
            datapath: "kernel".to_owned(),
            gone: false,
        },
        v1::NodeStatus { cluster: "west".to_owned(), name: "n2".to_owned(), ..v1::NodeStatus::default() },
    ];
    mesh
}

#[test]
fn lists_as_tables() {
    let mesh = mesh();
    let cases: [(&str, &[&str]); 4] = [
        ("cluster", &["NAME ID POD CIDRS", "west 2 10.102.0.0/16,fd10:2::/32"]),
        (
            "identity",
            &["IDENTITY CLUSTER ID NUMBER LABELS", "2097157 2 5 k8s:app=web,k8s:io.kubernetes.pod.namespace=shop"],
        ),
        (
            "endpoint",
            &[
                "CLUSTER NODE NAME IDENTITY ADDRESSES LABELS",
                "west n1 web-1 2097157 10.102.1.10,fd10:2:1::10 k8s:app=web,k8s:io.kubernetes.pod.namespace=shop",
            ],
        ),
        (
            "node",
            &[
                "CLUSTER NAME ADDRESSES INGRESS HEALTH REALISED REPORT AGE STATE",
                "west n1 10.40.2.1 - - 1 0.2 s ok",
                "west n2 fd40::2:2 - - - - no report",
            ],
        ),
    ];
    for (kind, rows) in cases {
        assert_eq!(mesh.run(&[kind, "list"]).exits(0).rows(), rows, "{kind}");
    }
}

#[test]
fn lists_as_json_and_yaml_say_the_same() {
    let mesh = mesh();
    let labels = json!(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]);
    let addresses = json!(["10.102.1.10", "fd10:2:1::10"]);
    let status = json!({
        "cluster": "west", "name": "n1", "realised_revision": 1, "report_age_ms": 250, "reported": true,
        "problems": [], "datapath": "kernel", "gone": false,
    });
    let cases = [
        ("cluster", json!([{"name": "west", "id": 2, "pod_cidrs": ["10.102.0.0/16", "fd10:2::/32"], "revision": 1}])),
        ("identity", json!([{"identity": 2_097_157, "cluster_id": 2, "number": 5, "labels": labels, "revision": 1}])),
        (
            "endpoint",
            json!([{
                "cluster": "west", "node": "n1", "name": "web-1", "identity": 2_097_157, "addresses": addresses,
                "labels": labels, "revision": 1,
            }]),
        ),
        (
            "node",
            json!([
                {
                    "cluster": "west", "name": "n1", "addresses": ["10.40.2.1"], "ingress_addresses": [],
                    "health_addresses": [], "revision": 1, "status": status,
                },
                {
                    "cluster": "west", "name": "n2", "addresses": ["fd40::2:2"], "ingress_addresses": [],
                    "health_addresses": [], "revision": 1, "status": null,
                },
            ]),
        ),
    ];
    for (kind, expected) in cases {
        assert_eq!(mesh.run(&["-o", "json", kind, "list"]).exits(0).json(), expected, "{kind}");
        let yaml = mesh.run(&[kind, "list", "-o", "yaml"]).exits(0).stdout;
        assert_eq!(yaml_serde::from_str::<Value>(&yaml).unwrap(), expected, "{kind}");
    }
}

#[test]
fn a_nodes_proxy_and_health_check_are_listed_with_it() {
    let mesh = mesh();
    let health = reserved(Identity::HEALTH, &["10.102.2.4"]);
    mesh.put([reserved(Identity::INGRESS, &["10.102.2.8", "fd10:2:2::8"]), health]);
    let rows = mesh.run(&["node", "list"]).exits(0).rows();
    assert_eq!(
        rows[1..],
        ["west n1 10.40.2.1 - - 1 0.2 s behind", "west n2 fd40::2:2 10.102.2.8,fd10:2:2::8 10.102.2.4 - - no report",]
    );
    let nodes = mesh.run(&["-o", "json", "node", "list"]).exits(0).json();
    assert_eq!(nodes[1]["ingress_addresses"], json!(["10.102.2.8", "fd10:2:2::8"]));
    assert_eq!(nodes[1]["health_addresses"], json!(["10.102.2.4"]));
    assert_eq!(nodes[0]["ingress_addresses"], json!([]), "each has its own");
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: proxies}\n\
                  spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [ingress]}]}\n";
    let files = Files::new();
    let file = files.write("proxies.yaml", policy);
    let explain = |peer: &str| {
        let common = ["policy", "explain", "-f", argument(&file), "--subject", "app=web", "--ingress", "--port", "80"];
        mesh.run(&[&common[..], &["--peer", peer]].concat()).stdout
    };
    assert!(
        explain("10.102.2.8").starts_with("allow"),
        "an address of the store is whose it is: {}",
        explain("10.102.2.8")
    );
    assert!(explain("10.102.2.4").starts_with("deny (default)"), "{}", explain("10.102.2.4"));
    assert!(explain("10.102.2.9").starts_with("deny (default)"), "control: nobody's");
    let endpoints = mesh.run(&["endpoint", "list"]).exits(0).rows();
    assert!(endpoints.contains(&"west n2 reserved-health 4 10.102.2.4 reserved:health".to_owned()), "{endpoints:?}");
}

#[test]
fn empty_lists_are_lists() {
    let mesh = TestMesh::start();
    for kind in ["cluster", "identity", "endpoint", "node"] {
        assert_eq!(mesh.run(&["-o", "json", kind, "list"]).exits(0).json(), json!([]), "{kind}");
        assert_eq!(mesh.run(&[kind, "list"]).exits(0).rows().len(), 1, "{kind}: the header");
    }
}

#[test]
fn a_stale_read_says_how_old_it_is() {
    let mesh = mesh();
    let outcome = mesh.run(&["-o", "json", "cluster", "list", "--consistency", "stale"]).exits(0);
    assert_eq!(outcome.json()[0]["name"], "west");
    outcome.says(&["revision 1", "42 s"]);
    assert_eq!(mesh.run(&["cluster", "list"]).exits(0).stderr, "");
}

#[test]
fn status_says_who_answered_and_what_every_part_does() {
    let mesh = mesh();
    let rows = mesh.run(&["status"]).exits(0).rows();
    for expected in [
        "member 1 (east) at revision 1",
        "1 east 127.0.0.1:7400 leader 3 8/9 7",
        "east 7 none 0.4 s stale for 61 s",
        "west/n1 1 0.2 s kernel ok",
    ] {
        assert!(rows.iter().any(|row| row == expected), "no {expected:?} in {rows:#?}");
    }
    assert!(rows.iter().any(|row| row.starts_with("west/n2 ") && row.ends_with("no report")), "{rows:#?}");

    let status = mesh.run(&["-o", "json", "status"]).exits(0).json();
    let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 7, "{keys:?}");
    assert_eq!((&status["responder"], &status["revision"]), (&json!("member 1 (east)"), &json!(1)));
    assert_eq!((&status["staleness_ms"], &status["members"][0]["state"]), (&json!(120), &json!("leader")));
    assert_eq!(status["members"][0]["applied_index"], 8);
    assert_eq!(status["gateways"][0]["upstream"], "");
    assert_eq!(status["nodes"][0]["datapath"], "kernel");
    assert_eq!(status["nodes"][1]["reported"], false);
}
