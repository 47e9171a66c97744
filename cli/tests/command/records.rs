//! CIDR groups, services, DNS names and settings.

use ringfence_policy::{
    l7::dns_name::DnsName,
    name::Name,
    record::{BoundAddress, FqdnRecord, Record, ServicePort, ServiceRecord},
};
use serde_json::json;

use crate::{policies::Files, ringfence::argument, server::TestMesh};

const GROUP: &str = "apiVersion: cilium.io/v2alpha1
kind: CiliumCIDRGroup
metadata: {name: partners, labels: {team: a}}
spec: {externalCIDRs: [192.0.2.0/24, 2001:db8::/32]}
";
const POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: base}
spec: {endpointSelector: {}, ingress: [{}]}
";

#[test]
fn groups_are_applied_with_policies_as_one_revision_and_removed_with_their_files() {
    let mesh = TestMesh::start();
    let files = Files::new();
    let both = files.write("both.yaml", &format!("{GROUP}---\n{POLICY}"));
    let dry = mesh.run(&["policy", "apply", "--dry-run", "-f", argument(&both)]).exits(0);
    assert!(dry.stdout.contains("ciliumcidrgroup/partners valid (dry run)"), "{dry:#?}");
    let applied = mesh.run(&["policy", "apply", "-f", argument(&both)]).exits(0);
    for expected in ["/base created (revision 1)", "ciliumcidrgroup/partners created (revision 1)"] {
        assert!(applied.stdout.contains(expected), "{applied:#?}");
    }
    let again = mesh.run(&["policy", "apply", "-f", argument(&both)]).exits(0);
    assert!(again.stdout.contains("ciliumcidrgroup/partners unchanged (revision 1)"), "{again:#?}");
    let other = files.write("other.yaml", &GROUP.replace("192.0.2.0/24", "198.51.100.0/24"));
    let changed = mesh.run(&["policy", "apply", "-f", argument(&other)]).exits(0);
    assert!(changed.stdout.contains("ciliumcidrgroup/partners configured (revision 2)"), "{changed:#?}");
    let listed = mesh.run(&["-o", "json", "get", "cidrgroups"]).exits(0).json();
    let expected = json!([{
        "name": "partners", "labels": {"team": "a"}, "ranges": ["198.51.100.0/24", "2001:db8::/32"], "revision": 2
    }]);
    assert_eq!(listed, expected);
    let wrong = files.write("wrong.yaml", &GROUP.replace("/24", "/33"));
    mesh.run(&["policy", "apply", "-f", argument(&wrong)]).exits(1).says(&["wrong.yaml:4:", "is not a range"]);
    let deleted = mesh.run(&["policy", "delete", "-f", argument(&both)]).exits(0);
    assert!(deleted.stdout.contains("ciliumcidrgroup/partners deleted (revision 4)"), "{deleted:#?}");
    assert_eq!(mesh.run(&["-o", "json", "get", "ccg"]).exits(0).json(), json!([]));
}

#[test]
fn services_and_dns_names_are_listed() {
    let mesh = TestMesh::start();
    let name = |text: &str| Name::new(text).unwrap();
    let service = ServiceRecord {
        cluster: name("east"),
        namespace: name("shop"),
        name: name("web"),
        labels: ringfence_policy::label::LabelSet::default(),
        cluster_addresses: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePort { name: String::new(), protocol: 6, port: 80, target_port: 8080 }],
        selector: [("app".to_owned(), "web".to_owned())].into(),
        backends: vec![],
    };
    let bound = BoundAddress { address: "192.0.2.1".parse().unwrap(), expires_ms: 60_000 };
    let fqdn = FqdnRecord { cluster: name("east"), name: DnsName::new("api.example.com"), addresses: vec![bound] };
    mesh.put([Record::Service(service.into()), Record::Fqdn(fqdn)]);
    let services = mesh.run(&["get", "services"]).exits(0);
    for expected in ["10.96.0.1", "80:8080/6", "pods with app=web"] {
        assert!(services.stdout.contains(expected), "{services:#?}");
    }
    let fqdns = mesh.run(&["-o", "json", "get", "fqdns"]).exits(0).json();
    assert_eq!(fqdns[0]["addresses"], json!([{"address": "192.0.2.1", "expires_ms": 60_000}]));
    assert_eq!(fqdns[0]["name"], "api.example.com.");
}

#[test]
fn settings_are_shown_and_changed_one_by_one() {
    let mesh = TestMesh::start();
    let defaults = mesh.run(&["-o", "json", "get", "settings"]).exits(0).json();
    assert_eq!((&defaults["revision"], &defaults["node_lease_ms"]), (&json!(0), &json!(40_000)));
    mesh.run(&["settings", "set", "--label-filter", "!team", "--label-filter", "!zone"]).exits(0);
    mesh.run(&["settings", "set", "--quarantine-ms", "1000"]).exits(0);
    let settings = mesh.run(&["-o", "json", "get", "settings"]).exits(0).json();
    assert_eq!((&settings["label_filter"], &settings["quarantine_ms"]), (&json!(["!team", "!zone"]), &json!(1000)));
    mesh.run(&["settings", "set", "--label-filter", "("]).exits(2).says(&["\"(\"", "a group is not closed"]);
    mesh.run(&["settings", "set"]).exits(2);
    assert_eq!(mesh.run(&["-o", "json", "get", "settings"]).exits(0).json(), settings);
}
