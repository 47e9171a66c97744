//! One test for each row of `docs/deviations.md`: what Ringfence does, and what Cilium does.

use std::path::Path;

use ringfence_policy::{
    compat::Compat,
    evaluate::Conflict,
    flow::{Direction, protocol},
    object::parse_documents,
    world::Backends,
};

use crate::judge::{Judge, cnp};

const TCP: u8 = protocol::TCP;
const ICMP: u8 = protocol::ICMP;

/// The outcomes of flows here and in Cilium.
#[track_caller]
fn differ(content: &str, direction: Direction, flows: &[(&str, u8, u16)], expected: [&str; 2]) {
    let outcomes =
        [Compat::Ringfence, Compat::Cilium].map(|compat| Judge::new(&cnp(content), compat).outcomes(direction, flows));
    assert_eq!(outcomes, expected, "{content}");
}

/// Whether an object is accepted here and in Cilium.
#[track_caller]
fn refused_here_only(text: &str, rule: &str) {
    let parsed = [Compat::Ringfence, Compat::Cilium].map(|compat| parse_documents(text, compat));
    assert!(parsed[0].diagnostics.iter().any(|finding| finding.is_error() && finding.rule == Some(rule)), "{text}");
    assert!(!parsed[1].has_errors(), "{:?}", parsed[1].diagnostics);
}

/// A decision without a test is none.
#[test]
fn every_test_that_is_documented_exists() {
    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = String::new();
    ["policy/src", "policy/tests", "agent/tests", "agent/datapath/tests"]
        .iter()
        .for_each(|folder| sources(&root.join(folder), &mut all));
    let documented = std::fs::read_to_string(root.join("docs/deviations.md")).unwrap();
    let rows = documented.lines().filter(|line| line.starts_with("| ") && !line.contains("---"));
    let last = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    let tests: Vec<&str> = last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(tests.len() > 50, "{tests:?}");
    let missing: Vec<_> = tests.iter().filter(|test| !all.contains(&format!("fn {test}("))).collect();
    assert_eq!(missing, [""; 0].iter().collect::<Vec<_>>());
}

#[test]
fn sem_24_empty_lists_of_names_services_and_groups_select_nobody() {
    let flows = [("api", TCP, 80), ("world-ipv4", TCP, 80)];
    for list in ["toFQDNs: []", "toServices: []", "toGroups: []"] {
        let content = format!("egress: [{{{list}, toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}]}}]}}]");
        differ(&content, Direction::Egress, &flows, ["DD", "AA"]);
        if list != "toFQDNs: []" {
            refused_here_only(&cnp(&content.replace("egress:", "egressDeny:")), "SEM-23");
        }
    }
}

#[test]
fn svc_5_a_service_that_does_not_exist_selects_nobody() {
    let ports = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    let content =
        format!("egress: [{{toServices: [{{k8sService: {{serviceName: none, namespace: shop}}}}], {ports}}}]");
    differ(&content, Direction::Egress, &[("api", TCP, 80), ("8.8.8.8", TCP, 80)], ["DD", "AA"]);
    let judge = Judge::new(&cnp(&content), Compat::Ringfence);
    let conditions: Vec<String> = judge.world.unresolved(judge.rules()).iter().map(ToString::to_string).collect();
    assert_eq!(conditions.len(), 1);
    assert!(conditions[0].starts_with("6:12: warning[SVC-5]: there is no service none"), "{conditions:?}");
}

#[test]
fn svc_2_services_count_in_deny_rules() {
    let content = "egressDeny: [{toServices: [{k8sService: {serviceName: back}}]}]";
    let outcomes = [Compat::Ringfence, Compat::Cilium].map(|compat| {
        let api = Backends::Pods(vec![("app".into(), "api".into())]);
        Judge::new(&cnp(content), compat).service("back", api).outcomes(Direction::Egress, &[("api", TCP, 80)])
    });
    assert_eq!(outcomes, ["X", "D"]);
}

#[test]
fn req_3_requirements_alone_are_required() {
    let content =
        "ingress: [{fromRequires: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}]";
    differ(content, Direction::Ingress, &[("api", TCP, 80), ("db", TCP, 80), ("world-ipv4", TCP, 80)], ["ADD", "AAA"]);
}

#[test]
fn icmp_2_message_type_0_is_just_that_one() {
    let content = "ingress: [{fromEndpoints: [{}], icmps: [{fields: [{type: EchoReply}]}]}]";
    differ(content, Direction::Ingress, &[("api", ICMP, 0), ("api", ICMP, 8)], ["AD", "AA"]);
}

#[test]
fn sem_23_an_empty_list_closes_allows_and_opens_no_deny() {
    let flows = [("1.2.3.4", TCP, 80), ("8.8.8.8", TCP, 80)];
    differ("egress: [{toCIDR: [], toEntities: [world]}]", Direction::Egress, &flows, ["DD", "DD"]);
    differ("egressDeny: [{toCIDR: [], toEntities: [world]}]", Direction::Egress, &flows, ["XX", "DD"]);
    let names = "egress: [{toCIDR: [], toFQDNs: [{matchName: a.example.com}]}]";
    let outcomes = [Compat::Ringfence, Compat::Cilium].map(|compat| {
        let judge = Judge::new(&cnp(names), compat).answer("a.example.com", "1.2.3.4");
        judge.outcomes(Direction::Egress, &flows)
    });
    assert_eq!(outcomes, ["DD", "AD"]);
}

#[test]
fn port_4_a_name_for_several_ports_denies_all_of_them() {
    let ports = "toPorts: [{ports: [{port: web, protocol: TCP}]}]";
    let flows = [("api", TCP, 80), ("api", TCP, 8080), ("api", TCP, 81)];
    let judge = |content: &str, compat| {
        let judge = Judge::new(&cnp(content), compat).named_port(Direction::Egress, "web", TCP, 80);
        judge.named_port(Direction::Egress, "web", TCP, 8080).outcomes(Direction::Egress, &flows)
    };
    for (content, expected) in
        [(format!("egress: [{{{ports}}}]"), ["DDD", "DDD"]), (format!("egressDeny: [{{{ports}}}]"), ["XXD", "DDD"])]
    {
        assert_eq!([Compat::Ringfence, Compat::Cilium].map(|compat| judge(&content, compat)), expected, "{content}");
    }
}

#[test]
fn svc_5_a_deny_of_what_is_not_known_stays_closed_on_its_ports() {
    let ports = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    let flows = [("api", TCP, 80), ("8.8.8.8", TCP, 80), ("api", TCP, 81)];
    let missing = "toServices: [{k8sService: {serviceName: none, namespace: shop}}]";
    let all = "egress: [{toEntities: [all]}]\n  egressDeny";
    differ(&format!("{all}: [{{{missing}, {ports}}}]"), Direction::Egress, &flows, ["XXA", "XXA"]);
    differ(&format!("{all}: [{{{missing}}}]"), Direction::Egress, &flows, ["AAA", "AAA"]);
    let groups = "toGroups: [{aws: {securityGroupsIds: [sg-1]}}]";
    differ(&format!("{all}: [{{{groups}, {ports}}}]"), Direction::Egress, &flows, ["XXA", "AAA"]);
    let judge = Judge::new(&cnp(&format!("{all}: [{{{missing}, {ports}}}]")), Compat::Ringfence);
    let told = judge.world.unresolved(judge.rules());
    assert!(told[0].to_string().contains("so everyone is denied on these ports"), "{told:?}");
    // One that is there is denied by itself, as its author means it.
    let there = |compat| {
        let judge = Judge::new(&cnp(&format!("{all}: [{{{missing}, {ports}}}]")), compat);
        let judge = judge.service("none", Backends::Pods(vec![("app".into(), "api".into())]));
        judge.outcomes(Direction::Egress, &flows)
    };
    assert_eq!([Compat::Ringfence, Compat::Cilium].map(there), ["XAA", "XXA"]);
}

#[test]
fn sem_6_default_deny_that_is_asked_for_isolates() {
    let flows = [("api", TCP, 80), ("world-ipv4", TCP, 1)];
    let content = "enableDefaultDeny: {ingress: true}";
    differ(content, Direction::Ingress, &flows, ["DD", "AA"]);
    differ(content, Direction::Egress, &flows, ["AA", "AA"]);
    differ("enableDefaultDeny: {ingress: false}", Direction::Ingress, &flows, ["AA", "AA"]);
}

#[test]
fn knp_3_namespaces_by_what_they_are_not_are_namespaces() {
    let flows = [("dev-api", TCP, 80), ("api", TCP, 80), ("world-ipv4", TCP, 80), ("remote-node", TCP, 80)];
    for (expression, expected) in [
        ("{key: team, operator: NotIn, values: [retail]}", ["ADDD", "ADAA"]),
        ("{key: gone, operator: DoesNotExist}", ["AADD", "AAAA"]),
    ] {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: \
             {{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{{namespaceSelector: {{matchExpressions: \
             [{expression}]}}}}]}}]}}}}"
        );
        let outcomes = [Compat::Ringfence, Compat::Cilium]
            .map(|compat| Judge::new(&text, compat).outcomes(Direction::Ingress, &flows));
        assert_eq!(outcomes, expected, "{expression}");
    }
}

#[test]
fn conf_5_server_names_beside_rules_contradict_them_in_either_order() {
    let element = |rest: &str| {
        format!("{{toEntities: [world], toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], {rest}}}]}}")
    };
    let (names, http) = (element("serverNames: [a.example.com]"), element("rules: {http: [{method: GET}]}"));
    for (first, second, expected) in [(&names, &http, [true, false]), (&http, &names, [true, true])] {
        let content = cnp(&format!("egress: [{first}, {second}]"));
        let conflicts =
            [Compat::Ringfence, Compat::Cilium].map(|compat| Judge::new(&content, compat).policy().is_err());
        assert_eq!(conflicts, expected, "{content}");
    }
}

#[test]
fn groups_of_a_cloud_select_nobody_and_isolate() {
    let content = "egress: [{toGroups: [{aws: {securityGroupsIds: [sg-1]}}]}]";
    differ(content, Direction::Egress, &[("api", TCP, 80)], ["D", "A"]);
}

#[test]
fn what_cilium_accepts_and_ringfence_does_not() {
    let ingress = |element: &str| cnp(&format!("ingress: [{{{element}}}]"));
    let egress = |element: &str| cnp(&format!("egress: [{{{element}}}]"));
    refused_here_only(&ingress("fromCIDRSet: [{cidrGroupSelector: {}}]"), "GRP-2");
    refused_here_only(&ingress("toPorts: [{ports: [{port: http, endPort: 90, protocol: TCP}]}]"), "PORT-5");
    refused_here_only(&ingress("authentication: {mode: always}"), "VAL-34");
    refused_here_only(&egress("toFQDNs: [{}]"), "VAL-30");
    refused_here_only(
        &ingress("toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{host: \"a[\"}]}}]"),
        "HTTP-5",
    );
    let listener = "listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: a}, name: b, priority: 101}";
    refused_here_only(
        &egress(&format!("toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}], {listener}}}]")),
        "VAL-34",
    );
    let knp = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, \
               spec: {podSelector: {}, ingress: [{from: [{}], ports: [{port: 80}]}]}}";
    refused_here_only(knp, "KNP-12");
    let group =
        "{apiVersion: cilium.io/v2alpha1, kind: CiliumCIDRGroup, metadata: {name: g}, spec: {externalCIDRs: [x]}}";
    refused_here_only(group, "GRP-2");
}

#[test]
fn val_6_nodes_are_selected_by_their_labels() {
    let text = cnp("ingress: [{fromNodes: [{matchLabels: {role: edge}}]}]");
    assert!(!parse_documents(&text, Compat::Ringfence).has_errors());
    assert!(parse_documents(&text, Compat::Cilium).has_errors());
}

#[test]
fn val_29_a_listener_out_of_reach_is_refused_or_a_conflict() {
    let listener = "listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: a}, name: b}";
    let text = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: p}}, spec: {{endpointSelector: {{}}, \
         egress: [{{toEntities: [world], toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], {listener}}}]}}]}}}}"
    );
    refused_here_only(&text, "VAL-29");
    assert_eq!(Judge::new(&text, Compat::Cilium).policy().err(), Some(Conflict::ListenerOutOfReach));
}
