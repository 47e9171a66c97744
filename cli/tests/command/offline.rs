//! `ringfence policy validate|explain|test|diff|selectors`: what policies say, without a server where files are given.

use std::{fs, path::Path};

use ringfence_policy::{
    identity::Identity,
    label::LabelSet,
    name::Name,
    object::parse_objects,
    record::{Endpoint, IdentityRecord, NamedPort, PolicyRecord, Record},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    ringfence::{Outcome, argument, run},
    server::TestMesh,
};

const API: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts:
    - ports: [{port: \"8080\", protocol: TCP}]
      rules: {http: [{method: GET, path: \"/orders/.*\"}]}
  ingressDeny:
  - fromEntities: [world]
";
const IDENTITIES: &str = "\
identities:
  web: [\"k8s:app=web\", \"k8s:io.kubernetes.pod.namespace=shop\"]
  api: [app=api, io.kubernetes.pod.namespace=shop]
  db: [app=db, io.kubernetes.pod.namespace=shop]
";
const CASES: &str = "\
policies: [api.yaml]
cases:
- {subject: api, peer: web, direction: ingress, port: 8080, expect: allow}
- {subject: api, peer: web, direction: ingress, port: 8080, http: {method: GET, path: /orders/1}, expect: redirect}
- {subject: api, peer: web, direction: ingress, port: 8080, http: {method: PUT, path: /orders/1}, expect: deny}
- {subject: api, peer: db, direction: ingress, port: 8080, expect: deny-default}
- {subject: api, peer: 192.0.2.7, direction: ingress, port: 8080, expect: deny-explicit}
- {subject: web, peer: api, direction: egress, port: 8080, expect: allow}
";
const API_LABELS: &str = "app=api,io.kubernetes.pod.namespace=shop";

struct Files(TempDir);

impl Files {
    /// With the policy, the identities and the cases from above.
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("api.yaml", API);
        files.write("identities.yaml", IDENTITIES);
        files.write("cases.yaml", &format!("{IDENTITIES}{CASES}"));
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Runs it where the files are.
    fn run(&self, arguments: &[&str]) -> Outcome {
        let path = |argument: &&str| {
            let path = self.0.path().join(argument);
            if path.is_file() { self::argument(&path).to_owned() } else { (*argument).to_owned() }
        };
        let arguments: Vec<String> = arguments.iter().map(path).collect();
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn place(&self, place: &str) -> String {
        format!("{}/{place}", Path::display(self.0.path()))
    }
}

#[track_caller]
fn shows(outcome: &Outcome, texts: &[&str]) {
    for text in texts {
        assert!(outcome.stdout.contains(text), "no {text:?} in {outcome:#?}");
    }
}

#[test]
fn validate_shows_all_findings_and_fails_on_errors() {
    let files = Files::new();
    let outcome = files.run(&["policy", "validate", "-f", "api.yaml"]).exits(0);
    shows(&outcome, &["1 object accepted, 0 errors", "warning[DENY-9]", "cannot be enforced by the nodes yet"]);

    files.write("bad.yaml", &API.replace("[world]", "[wrld]").replace("ingress:", "ingres:"));
    let outcome = files.run(&["policy", "validate", "-f", "api.yaml", "-f", "bad.yaml"]).exits(1);
    let (unknown, entity) = (files.place("bad.yaml:6:3: error"), files.place("bad.yaml:12:20: error[VAL-7]"));
    shows(&outcome, &[&unknown, &entity, "did you mean \"ingress\"?", "did you mean \"world\"?"]);
    let findings = files.run(&["-o", "json", "policy", "validate", "-f", "bad.yaml"]).exits(1).json();
    let errors = findings.as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
    let positions: Vec<_> = errors.map(|finding| finding["position"].clone()).collect();
    assert_eq!(positions, [json!({"line": 6, "column": 3}), json!({"line": 12, "column": 20})]);

    let outcome = files.run(&["policy", "validate", "-f", "api.yaml", "-f", "api.yaml"]).exits(1);
    shows(&outcome, &["CiliumNetworkPolicy shop/api is also in", "1 object accepted, 1 error,"]);
    files.write("null.yaml", &API.replace("fromEntities: [world]", "fromEntities:"));
    files.run(&["policy", "validate", "-f", "null.yaml"]).exits(1);
    files.run(&["policy", "validate", "--compat", "cilium", "-f", "null.yaml"]).exits(0);
}

#[test]
fn validate_shows_what_does_nothing_for_anybody() {
    let files = Files::new();
    let validate =
        |file: &str| files.run(&["policy", "validate", "-f", file, "--identities", "identities.yaml"]).exits(0).stdout;
    assert!(!validate("api.yaml").contains("identities"), "it is of use");
    files.write("typo.yaml", &API.replace("app: web", "app: wbe"));
    let place = files.place("typo.yaml:7:5: warning[SEM-23]: spec.ingress[0]: none of the identities is a peer of it");
    assert!(validate("typo.yaml").contains(&place));
    files.write("shadow.yaml", &API.replace("[world]", "[all]"));
    assert!(
        validate("shadow.yaml").contains("spec.ingress[0]: everything it allows is denied, by CiliumNetworkPolicy")
    );
}

const PEERS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop, labels: {tier: back}}
spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}], type: ClusterIP}
---
apiVersion: v1
kind: Service
metadata: {name: legacy, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: legacy-1, namespace: shop, labels: {kubernetes.io/service-name: legacy}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.10], conditions: {ready: true}}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: legacy, namespace: shop}
subsets: [{addresses: [{ip: 192.0.2.11}], ports: [{port: 80}]}]
---
apiVersion: cilium.io/v2alpha1
kind: CiliumCIDRGroup
metadata: {name: partners, labels: {zone: outside}}
spec: {externalCIDRs: [198.51.100.0/24]}
";
const TO_PEERS: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toServices: [{k8sService: {serviceName: orders, namespace: shop}}]
  - toServices: [{k8sService: {serviceName: legacy, namespace: shop}}]
    toPorts: [{ports: [{port: \"443\", protocol: TCP}]}]
  - toCIDRSet: [{cidrGroupSelector: {matchLabels: {zone: outside}}}]
";

#[test]
fn svc_1_to_3_and_grp_1_services_and_groups_are_read_from_files() {
    let files = Files::new();
    files.write("web.yaml", TO_PEERS);
    files.write("peers.yaml", PEERS);
    let verdict = |with: &[&str], peer: &str, port: &str| {
        let web = "app=web,io.kubernetes.pod.namespace=shop";
        let common =
            ["policy", "explain", "--subject", web, "--egress", "--peer", peer, "--port", port, "-f", "web.yaml"];
        let outcome = files.run(&[&common[..], with].concat()).exits(0);
        outcome.stdout.split(':').next().unwrap().to_owned()
    };
    let orders = "app=orders,io.kubernetes.pod.namespace=shop";
    let peers = [(orders, "8080"), ("192.0.2.10", "443"), ("192.0.2.11", "443"), ("198.51.100.7", "9")];
    for (peer, port) in peers {
        assert_eq!(verdict(&["-f", "peers.yaml"], peer, port), "allow", "{peer}");
        assert_eq!(verdict(&[], peer, port), "deny (default)", "{peer} without its object");
    }
    let others = [("app=orders,io.kubernetes.pod.namespace=dev", "8080"), ("192.0.2.10", "80"), ("192.0.2.12", "443")];
    for (peer, port) in others {
        assert_eq!(verdict(&["-f", "peers.yaml"], peer, port), "deny (default)", "{peer}");
    }

    files.write(
        "cases.yaml",
        &format!(
            "{IDENTITIES}policies: [web.yaml, peers.yaml]\ncases:\n\
         - {{subject: web, peer: 192.0.2.10, direction: egress, port: 443, expect: allow}}\n\
         - {{subject: web, peer: 198.51.100.7, direction: egress, port: 1, expect: allow}}\n"
        ),
    );
    files.run(&["policy", "test", "cases.yaml"]).exits(0);
    let validate = |of: &[&str]| files.run(&[&["policy", "validate", "-f"], of].concat()).exits(0);
    assert!(!validate(&["web.yaml", "-f", "peers.yaml"]).stdout.contains("SVC-"));
    files.write("peers.yaml", &PEERS.replace("name: orders", "name: order"));
    shows(
        &validate(&["web.yaml", "-f", "peers.yaml"]),
        &["7:5: warning[SVC-5]: there is no service orders, so nobody"],
    );
    // Without services nothing is known of them.
    assert!(!validate(&["web.yaml"]).stdout.contains("SVC-"));

    files.write("peers.yaml", &PEERS.replace("192.0.2.10", "192.0.2"));
    let outcome = files.run(&["policy", "validate", "-f", "peers.yaml"]).exits(1);
    shows(&outcome, &["15:26: error[SVC-2]: endpoints[0].addresses[0]: \"192.0.2\" is not an address"]);
}

#[test]
fn policies_under_audit_are_shown_beside_what_counts() {
    let files = Files::new();
    files.write(
        "watched.yaml",
        &API.replace("{name: api", "{annotations: {ringfence.io/audit: \"true\"}, name: watched"),
    );
    let db = "app=db,io.kubernetes.pod.namespace=shop";
    let explain = |more: &[&str]| {
        let common = ["policy", "explain", "--subject", API_LABELS, "--peer", db, "--ingress", "--port", "8080", "-f"];
        files.run(&[&common[..], more].concat()).exits(0)
    };
    let outcome = explain(&["watched.yaml"]);
    shows(&outcome, &["allow: ingress", "not enforced", "if the policies under audit counted:\n  deny (default)"]);
    let outcome = explain(&["api.yaml", "--audit"]);
    shows(&outcome, &["audit: passes instead of deny (default): ingress"]);
    assert!(!outcome.stdout.contains("under audit"), "{outcome:?}");

    let case = "subject: api, peer: db, direction: ingress, port: 8080";
    let test = |text: &str| {
        files.write("audit.yaml", &format!("{IDENTITIES}{text}"));
        files.run(&["policy", "test", "audit.yaml"])
    };
    let watched = |expected: &str| test(&format!("policies: [watched.yaml]\ncases:\n- {{{case}, {expected}}}\n"));
    watched("expect: audit, shadow: deny-default").exits(0);
    watched("expect: allow").exits(0);
    shows(&watched("expect: deny").exits(1), &["expected deny, found allow"]);
    shows(&watched("expect: allow, shadow: allow").exits(1), &["expected shadow allow, found shadow deny (default)"]);
    test(&format!("policies: [api.yaml]\ncases:\n- {{{case}, audit: true, expect: audit}}\n")).exits(0);
    test(&format!("policies: [api.yaml]\naudit: true\ncases:\n- {{{case}, expect: audit}}\n")).exits(0);
    test(&format!("policies: [api.yaml]\ncases:\n- {{{case}, expect: audit}}\n")).exits(1);
}

#[test]
fn explain_names_the_rule_that_decides_or_the_nearest() {
    let files = Files::new();
    let explain = |peer: &str, more: &[&str]| {
        let common = ["policy", "explain", "-f", "api.yaml", "--subject", API_LABELS, "--peer", peer, "--ingress"];
        files.run(&[&common[..], more].concat()).exits(0)
    };
    let web = "app=web,io.kubernetes.pod.namespace=shop";
    let outcome = explain(web, &["--port", "8080"]);
    let place = files.place("api.yaml:7:5  CiliumNetworkPolicy shop/api spec.ingress[0]");
    shows(&outcome, &["redirect (http): ingress 8080/TCP", &place, "<- decides"]);
    shows(&explain(web, &["--port", "8080", "--http", "GET /orders/1"]), &["the request passes"]);
    shows(&explain(web, &["--port", "8080", "--http", "GET /users"]), &["the request is refused"]);
    let outcome = explain(web, &["--port", "9"]);
    shows(&outcome, &["deny (default): ingress 9/TCP", "nearest", "spec.ingress[0] wants port 8080/TCP"]);
    let outcome = explain("app=db,io.kubernetes.pod.namespace=shop", &["--port", "8080"]);
    shows(&outcome, &["wants a peer with any:app=web"]);
    for peer in ["world", "world-ipv6", "192.0.2.1", "www.example.com"] {
        shows(&explain(peer, &["--port", "8080"]), &["deny (explicit)", "ingressDeny[0]"]);
    }
    shows(&explain("remote-node", &["--port", "8080", "--protocol", "sctp"]), &["deny (default): ingress 8080/SCTP"]);

    files.write("named.yaml", &API.replace("8080", "http"));
    let named = ["policy", "explain", "-f", "named.yaml", "--subject", API_LABELS, "--peer", web, "--ingress"];
    let named = |more: &[&str]| files.run(&[&named[..], more].concat());
    shows(&named(&["--port", "80"]).exits(0), &["deny (default)", "wants port http/TCP"]);
    shows(&named(&["--port", "80", "--named-port", "http=80"]).exits(0), &["redirect (http)"]);
    named(&["--port", "80", "--named-port", "http"]).exits(2).says(&["NAME=PORT"]);

    let view = explain(web, &["--port", "9", "-o", "json"]).json();
    assert_eq!((&view["verdict"], &view["matches"]), (&json!("deny (default)"), &json!([])));
    assert_eq!(view["nearest"]["location"], files.place("api.yaml:7:5"));
}

#[test]
fn explain_tells_what_it_does_not_understand() {
    let files = Files::new();
    let common = ["policy", "explain", "-f", "api.yaml", "--subject", API_LABELS, "--port", "1"];
    let explain = |more: &[&str]| files.run(&[&common[..], more].concat());
    explain(&["--peer", "wrld", "--ingress"]).exits(2).says(&["--peer", "neither an entity"]);
    explain(&["--peer", "all", "--ingress"]).exits(2).says(&["no single peer"]);
    explain(&["--peer", "world"]).exits(2).says(&["--ingress", "--egress"]);
    explain(&["--peer", "world", "--ingress", "--egress"]).exits(2).says(&["--egress"]);
    explain(&["--peer", "world", "--egress", "--protocol", "tpc"]).exits(2).says(&["not a protocol"]);
    explain(&["--peer", "world", "--egress", "--http", "GET"]).exits(2).says(&["METHOD /path"]);
    explain(&["--peer", "17", "--egress"]).exits(2).says(&["--server"]);
    explain(&["--peer", "world", "--egress", "--cluster", "No"]).exits(2).says(&["--cluster"]);
    files.write("bad.yaml", &API.replace("kind", "knd"));
    let bad = ["policy", "explain", "-f", "bad.yaml", "--subject", "a=b", "--peer", "world", "--egress", "--port", "1"];
    files.run(&bad).exits(1).says(&["bad.yaml:1:1: error", "1 error above"]);
}

#[test]
fn test_passes_or_shows_each_case_that_fails_with_the_explanation() {
    let files = Files::new();
    let outcome = files.run(&["policy", "test", "cases.yaml"]).exits(0);
    shows(&outcome, &["6 passed, 0 failed"]);

    let wrong = CASES.replace("port: 8080, expect: allow", "port: 80, expect: allow");
    files.write("wrong.yaml", &format!("{IDENTITIES}{wrong}- {{subject: api, peer: web, direction: ingress, port: 8080, http: {{method: PUT, path: /}}, expect: allow, name: web may write}}\n"));
    let outcome = files.run(&["policy", "test", "wrong.yaml"]).exits(1).says(&["2 cases failed"]);
    let first = files.place("wrong.yaml:7:3: FAILED ingress of api and web: expected allow, found deny (default)");
    let second =
        files.place("wrong.yaml:13:3: FAILED web may write: expected allow, found redirect (http), the request");
    shows(&outcome, &[&first, &second, "wants port 8080/TCP", "5 passed, 2 failed"]);
    let view = files.run(&["-o", "json", "policy", "test", "cases.yaml", "wrong.yaml"]).exits(1).json();
    assert_eq!((&view[0]["passed"], &view[1]["failed"][0]["expected"]), (&json!(6), &json!("allow")));
}

#[test]
fn test_tells_what_is_wrong_with_its_file() {
    let files = Files::new();
    let text = |text: &str| format!("{IDENTITIES}{}", text);
    let case = "subject: api, peer: web, direction: ingress, port: 1, expect: deny";
    let cases: [(&str, String, &[&str]); 8] = [
        ("typo", text(&CASES.replacen("peer:", "per:", 1)), &["typo.yaml:7:", "unknown field `per`"]),
        ("verdict", text(&CASES.replacen("expect: allow", "expect: alow", 1)), &["verdict.yaml:7:", "`alow`"]),
        ("peer", text(&CASES.replacen("peer: web", "peer: wob", 1)), &["peer.yaml:7:3: error", "peer", "\"wob\""]),
        ("none", IDENTITIES.to_owned(), &["has no cases"]),
        ("policies", text(&format!("cases: [{{{case}}}]\n")), &["names no policies"]),
        ("missing", text(&format!("policies: [no.yaml]\ncases: [{{{case}}}]\n")), &["cannot read", "no.yaml"]),
        (
            "twice",
            text(&format!("policies: [api.yaml]\ncases: []\ncases: [{{{case}}}]\n")),
            &["twice.yaml:7:1", "cases"],
        ),
        ("label", format!("identities: {{a: [\"=x\"]}}\n{CASES}"), &["identities.a", "has no key"]),
    ];
    for (name, text, expected) in cases {
        let name = format!("{name}.yaml");
        files.write(&name, &text);
        files.run(&["policy", "test", &name]).exits(1).says(expected);
    }
    files.run(&["policy", "test"]).exits(2).says(&["FILE"]);
}

#[test]
fn diff_shows_what_changes_and_nothing_else() {
    let files = Files::new();
    files.write("new.yaml", &API.replace("8080", "8081").replace("[world]", "[world-ipv6]"));
    let common = ["policy", "diff", "-f", "api.yaml", "--identities", "identities.yaml", "--to"];
    let rows = files.run(&[&common[..], &["new.yaml"]].concat()).exits(0).rows();
    let expected = [
        "ingress api web 8080/TCP redirect (http) deny (default)",
        "ingress api web 8081/TCP deny (default) redirect (http)",
        "ingress api world-ipv4 */TCP deny (explicit) deny (default)",
    ];
    assert!(expected.iter().all(|row| rows.contains(&(*row).to_owned())), "{rows:#?}");
    assert!(!rows.iter().any(|row| row.contains("world-ipv6") || row.contains("egress")), "{rows:#?}");
    let same = files.run(&[&common[..], &["api.yaml"]].concat()).exits(0);
    assert_eq!(same.stdout, "no verdict changes\n");
    files.run(&["policy", "diff", "-f", "api.yaml", "--to", "new.yaml"]).exits(2).says(&["--identities"]);
    files.run(&["policy", "diff", "-f", "api.yaml"]).exits(2).says(&["--to"]);
}

#[test]
fn selectors_counts_whom_each_selects() {
    let files = Files::new();
    let outcome = files.run(&["policy", "selectors", "-f", "api.yaml", "--identities", "identities.yaml"]).exits(0);
    let place = files.place("api.yaml:7:5");
    let row = format!("any:app=web,k8s:io.kubernetes.pod.namespace=shop 1 - {place}");
    assert!(outcome.rows().contains(&row), "{outcome:#?}");
    shows(&outcome, &["reserved:world "]);
}

#[test]
fn without_files_the_store_is_asked() {
    let (mesh, files) = (TestMesh::start(), Files::new());
    let object = parse_objects(API).objects.remove(0);
    let policy = Record::Policy(PolicyRecord { key: object.key, text: object.text });
    let identity = |bits, app: &str| {
        let labels = [&format!("k8s:app={app}"), "k8s:io.kubernetes.pod.namespace=shop"];
        let identity = Identity::from_bits(bits);
        Record::Identity(IdentityRecord { identity, labels: LabelSet::parse(labels).unwrap() })
    };
    mesh.put([policy, identity(0x10_0001, "web"), identity(0x10_0002, "api")]);
    let flow = ["--subject", "1048578", "--peer", "1048577", "--ingress", "--port", "9"];
    let outcome = mesh.run(&[&["policy", "explain"][..], &flow].concat()).exits(0);
    shows(&outcome, &["deny (default)", "store:7:5  CiliumNetworkPolicy shop/api spec.ingress[0] wants port 8080/TCP"]);
    mesh.run(&["policy", "explain", "--subject", "77", "--peer", "world", "--egress", "--port", "9"])
        .exits(1)
        .says(&["no identity 77"]);

    // The names of ports are those of its endpoints.
    let named = parse_objects(&API.replace("8080", "http").replace("name: api", "name: named")).objects.remove(0);
    let labels = ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=default"];
    let endpoint = Endpoint {
        cluster: Name::new("default").unwrap(),
        node: Name::new("n1").unwrap(),
        name: Name::new("api-1").unwrap(),
        addresses: Vec::new(),
        labels: LabelSet::parse(labels).unwrap(),
        identity: Identity::from_bits(0x10_0002),
        named_ports: vec![NamedPort { name: "http".to_owned(), protocol: 6, port: 9 }],
    };
    let policy = PolicyRecord { key: named.key, text: named.text };
    mesh.put([Record::Policy(policy), Record::Endpoint(endpoint.into())]);
    let outcome = mesh.run(&[&["policy", "explain"][..], &flow].concat()).exits(0);
    shows(&outcome, &["redirect (http)", "CiliumNetworkPolicy shop/named spec.ingress[0]"]);

    files.write("new.yaml", &API.replace("8080", "8081"));
    let new = files.0.path().join("new.yaml");
    let rows = mesh.run(&["policy", "diff", "--to", argument(&new)]).exits(0).rows();
    assert!(rows.contains(&"ingress 1048578 1048577 8081/TCP deny (default) redirect (http)".to_owned()), "{rows:#?}");
    files.write("typo.yaml", &API.replace("app: web", "app: wbe"));
    let typo = files.0.path().join("typo.yaml");
    let outcome = mesh.run(&["policy", "validate", "--against-store", "-f", argument(&typo)]).exits(0);
    shows(&outcome, &["warning[SEM-23]: spec.ingress[0]: none of the identities is a peer of it"]);
    assert!(!mesh.run(&["policy", "validate", "-f", argument(&typo)]).exits(0).stdout.contains("identities"));
    let outcome = mesh.run(&["policy", "selectors"]).exits(0);
    shows(&outcome, &["store:7:5"]);
}
