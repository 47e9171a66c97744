//! What is legal and probably wrong: each warning with its rule, its place and what would be right; and what looks alike
//! and is meant.

use ringfence_policy::{compat::Compat, object::parse_documents};

use crate::judge::cnp;

/// The warnings of an object with this content, in `shop` for `app=web`.
fn told(content: &str) -> Vec<String> {
    of(&cnp(content))
}

fn of(text: &str) -> Vec<String> {
    let parsed = parse_documents(text, Compat::Ringfence);
    assert!(!parsed.has_errors(), "{:#?}\n{text}", parsed.diagnostics);
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

/// Whether a warning of the rule is told.
fn warns(content: &str, rule: &str) -> bool {
    told(content).iter().any(|finding| finding.contains(&format!("warning[{rule}]")))
}

#[track_caller]
fn only(content: &str, expected: &str) {
    assert_eq!(told(content), [expected], "{content}");
}

#[track_caller]
fn quiet(content: &str, rule: &str) {
    assert!(!warns(content, rule), "{content}: {:#?}", told(content));
}

fn port(rest: &str) -> String {
    format!("toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}]{rest}}}]")
}

const API: &str = "fromEndpoints: [{matchLabels: {app: api}}]";
const HTTP: &str = ", rules: {http: [{method: GET}]}";

#[test]
fn sem_43_an_allow_that_is_denied_whole() {
    let denied = |allow: &str, deny: &str| format!("ingress: [{{{allow}}}]\n  ingressDeny: [{{{deny}}}]");
    only(
        &denied(&format!("{API}, {}", port("")), API),
        "6:13: warning[SEM-43]: all that it allows is denied at 7:17, so it allows nothing (help: deny only the peers \
         and ports that are meant)",
    );
    for (allow, deny) in [
        ("fromEndpoints: [{matchLabels: {app: api, tier: front}}]", API),
        (API, "fromEntities: [all]"),
        (&format!("{API}, {}", port("")), "toPorts: [{ports: [{port: \"80\"}]}]"),
        (&format!("{API}, {}", port("")), "toPorts: [{ports: [{port: \"70\", endPort: 90, protocol: TCP}]}]"),
        ("fromCIDR: [10.1.0.0/16]", "fromCIDRSet: [{cidr: 10.0.0.0/8}]"),
        ("fromCIDRSet: [{cidr: 10.1.0.0/16, except: [10.1.1.0/24]}]", "fromEntities: [world]"),
    ] {
        assert!(warns(&denied(allow, deny), "SEM-43"), "{allow} under {deny}");
    }
    for (allow, deny) in [
        (API, "fromEndpoints: [{matchLabels: {app: api, tier: front}}]"),
        (API, &format!("{API}, {}", port(""))),
        ("toPorts: [{ports: [{port: \"80\"}]}]", &port("")),
        ("fromCIDR: [10.0.0.0/8]", "fromCIDR: [10.1.0.0/16]"),
        ("fromCIDR: [10.1.0.0/16]", "fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.2.0/24]}]"),
        (API, &format!("{API}, fromRequires: [{{matchLabels: {{tier: front}}}}]")),
    ] {
        quiet(&denied(allow, deny), "SEM-43");
    }
}

#[test]
fn sem_43_counts_over_the_rules_for_one_subject() {
    let object = |second: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: shop}}, specs: [\
             {{endpointSelector: {{matchLabels: {{app: web}}}}, ingress: [{{{API}}}]}}, \
             {{endpointSelector: {{matchLabels: {{app: {second}}}}}, ingressDeny: [{{{API}}}], ingress: [{{fromEntities: [host]}}]}}]}}"
        )
    };
    assert!(of(&object("web")).iter().any(|finding| finding.contains("SEM-43")));
    assert!(!of(&object("db")).iter().any(|finding| finding.contains("SEM-43")));
}

#[test]
fn l7_3_rules_that_an_element_without_rules_lifts() {
    let with = |other: &str| format!("ingress: [{{{API}, {}}}, {{{other}}}]", port(HTTP));
    only(
        &with("fromEndpoints: [{}]"),
        "6:68: warning[L7-3]: the element at 6:142 allows the same without rules, so these refuse nothing (help: remove \
         the other element, or give it rules as well)",
    );
    for other in [&*port(""), API, "fromEntities: [all]", "toPorts: [{ports: [{port: \"1\", endPort: 1024}]}]"] {
        assert!(warns(&with(other), "L7-3"), "{other}");
    }
    for other in [
        "fromEndpoints: [{matchLabels: {app: db}}]",
        "fromEndpoints: [{matchLabels: {app: api, tier: front}}]",
        "toPorts: [{ports: [{port: \"81\", protocol: TCP}]}]",
        &*port(", rules: {http: [{method: PUT}]}"),
    ] {
        quiet(&with(other), "L7-3");
    }
    // L7-5: names are lifted by exactly the same ports only.
    let dns = |other: &str| {
        let read = "toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchName: a.b}]}}]";
        format!("egress: [{{toEntities: [world], {read}}}, {{toEntities: [world]{other}}}]")
    };
    assert!(warns(&dns(", toPorts: [{ports: [{port: \"53\", protocol: ANY}]}]"), "L7-3"));
    for other in ["", ", toPorts: [{ports: [{port: \"53\", endPort: 54, protocol: ANY}]}]"] {
        quiet(&dns(other), "L7-3");
    }
}

#[test]
fn ns_4_labels_of_namespaces_reach_out_of_the_namespace() {
    let by = |labels: &str| format!("ingress: [{{fromEndpoints: [{{matchLabels: {{{labels}}}}}]}}]");
    only(
        &by("io.cilium.k8s.namespace.labels.team: web"),
        "6:30: warning[NS-4]: spec.ingress[0].fromEndpoints[0]: by labels of namespaces it selects in every namespace \
         that has them, not only in shop (help: to stay in one, add k8s:io.kubernetes.pod.namespace: shop)",
    );
    quiet(&by("io.cilium.k8s.namespace.labels.team: web, k8s:io.kubernetes.pod.namespace: dev"), "NS-4");
    let clusterwide = cnp(&by("io.cilium.k8s.namespace.labels.team: web"))
        .replace("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
        .replace(", namespace: shop", "");
    assert_eq!(of(&clusterwide), [""; 0]);
}

#[test]
fn lbl_12_what_peers_are_not_is_true_of_the_world() {
    let by = |expressions: &str| format!("ingress: [{{fromEndpoints: [{{matchExpressions: [{expressions}]}}]}}]");
    let not_dev = "{key: k8s:io.kubernetes.pod.namespace, operator: NotIn, values: [dev]}";
    only(
        &by(not_dev),
        "6:30: warning[LBL-12]: spec.ingress[0].fromEndpoints[0]: it only says what peers are not, which is also true of \
         nodes and of the world (help: for pods only, add {key: k8s:io.kubernetes.pod.namespace, operator: Exists})",
    );
    let exists = "{key: k8s:io.kubernetes.pod.namespace, operator: Exists}";
    assert_eq!(told(&by(&format!("{not_dev}, {exists}"))), [""; 0]);
    assert_eq!(told(&by("{key: app, operator: NotIn, values: [db]}")), [""; 0], "in the namespace");
}

#[test]
fn lbl_12_requirements_that_exclude_each_other() {
    let by = |selector: &str| format!("ingress: [{{fromEndpoints: [{{{selector}}}]}}]");
    only(
        &by("matchLabels: {app: api}, matchExpressions: [{key: app, operator: In, values: [db, web]}]"),
        "6:30: warning[LBL-12]: spec.ingress[0].fromEndpoints[0]: nobody meets both requirements of any:app, so it \
         selects nobody (help: requirements must all be met: write one selector for each alternative)",
    );
    for selector in [
        "matchLabels: {k8s:app: api, app: db}",
        "matchExpressions: [{key: app, operator: Exists}, {key: app, operator: DoesNotExist}]",
        "matchExpressions: [{key: app, operator: In, values: [a]}, {key: app, operator: NotIn, values: [a, b]}]",
    ] {
        assert!(warns(&by(selector), "LBL-12"), "{selector}");
    }
    for selector in [
        "matchLabels: {app: api}, matchExpressions: [{key: app, operator: In, values: [api, web]}]",
        "matchExpressions: [{key: app, operator: In, values: [a, b]}, {key: app, operator: NotIn, values: [a]}]",
        "matchLabels: {app: api, tier: front}",
    ] {
        quiet(&by(selector), "LBL-12");
    }
    let subject = cnp("ingress: [{}]").replace("{app: web}", "{app: web, io.kubernetes.pod.namespace: dev}");
    assert!(of(&subject)[0].starts_with("5:3: warning[LBL-12]: spec.endpointSelector"), "{:?}", of(&subject));
}

#[test]
fn val_26_dns_is_read_where_servers_are() {
    let read = |ports: &str| {
        format!(
            "egress: [{{toEntities: [world], toPorts: [{{ports: [{ports}], rules: {{dns: [{{matchName: a.b}}]}}}}]}}]"
        )
    };
    assert!(warns(&read("{port: \"8053\", protocol: UDP}"), "VAL-26"));
    assert!(warns(&read("{port: \"53\", protocol: TCP}"), "VAL-26"));
    for ports in [
        "{port: \"53\"}",
        "{port: \"5353\", protocol: UDP}",
        "{port: dns, protocol: UDP}",
        "{port: \"8053\"}, {port: \"53\"}",
    ] {
        quiet(&read(ports), "VAL-26");
    }
}

#[test]
fn conf_1_to_5_contradictions_within_an_object() {
    let two = |first: &str, second: &str| {
        format!("egress: [{{toEntities: [world], {first}}}, {{toEntities: [world], {second}}}]")
    };
    let http = port(HTTP);
    assert!(
        told(&two(&http, &port(", rules: {kafka: [{topic: a}]}"))).contains(
            &"5:3: warning[CONF-1]: its egress rules contradict each other: CONF-1: two different parsers for one port \
              (help: no policy can be worked out for whom it selects, and nodes keep what they have: change one)"
                .to_owned()
        )
    );
    assert!(warns(&two(&http, &port(", serverNames: [a.example.com]")), "CONF-5"));
    let proved = |mode: &str| format!("authentication: {{mode: {mode}}}");
    assert!(warns(&two(&proved("required"), &proved("disabled")), "CONF-3"));
    assert!(
        !told(&two(&http, &port(", rules: {http: [{method: PUT}]}"))).iter().any(|finding| finding.contains("CONF"))
    );
}

#[test]
fn sem_6_default_deny_without_rules_is_told() {
    only(
        "ingress: [{fromEntities: [world]}]\n  enableDefaultDeny: {egress: true}",
        "5:3: warning[SEM-6]: enableDefaultDeny without rules isolates the direction here, and does nothing in Cilium \
         (help: write [{}] as its list to isolate it everywhere)",
    );
    quiet("ingress: [{fromEntities: [world]}]\n  enableDefaultDeny: {ingress: true, egress: false}", "SEM-6");
}

#[test]
fn deny_8_an_exception_is_no_deny() {
    let set = "toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]";
    assert!(warns(&format!("egress: [{{{set}}}, {{toEntities: [world]}}]"), "DENY-8"));
    assert!(warns(&format!("egress: [{{{set}}}, {{toCIDR: [10.1.0.0/16]}}]"), "DENY-8"));
    quiet(&format!("egress: [{{{set}}}, {{toCIDR: [192.0.2.0/24]}}]"), "DENY-8");
}

#[test]
fn fqdn_6_names_without_a_rule_that_reads_queries() {
    let names = "toFQDNs: [{matchName: a.example.com}]";
    assert!(warns(&format!("egress: [{{{names}}}]"), "FQDN-6"));
    let read = "toEntities: [cluster], toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]";
    quiet(&format!("egress: [{{{names}}}, {{{read}}}]"), "FQDN-6");
}

#[test]
fn req_2_and_deny_9_say_more_than_their_words() {
    assert!(warns("ingress: [{fromEntities: [world], fromRequires: [{matchLabels: {a: b}}]}]", "REQ-2"));
    assert!(warns("ingressDeny: [{fromEntities: [world]}]\n  ingress: [{}]", "DENY-9"));
}
