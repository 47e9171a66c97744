//! SEM, DENY, NS, CL and entity rules as tables of cases.

use ringfence_policy::{
    compat::Compat,
    flow::{Direction, Verdict, protocol},
    identity::Identity,
    tables::EndpointId,
};

use crate::scene::{PODS, Scene, identity};

const A: Verdict = Verdict::Allow;
const D: Verdict = Verdict::DenyDefault;
const X: Verdict = Verdict::DenyExplicit;

/// A namespaced object for `app: web` of namespace shop with this content.
fn cnp(content: &str) -> String {
    object("CiliumNetworkPolicy", "{name: p, namespace: shop}", "{matchLabels: {app: web}}", content)
}

/// A clusterwide object for `app: web` with this content.
fn ccnp(content: &str) -> String {
    object("CiliumClusterwideNetworkPolicy", "{name: p}", "{matchLabels: {app: web}}", content)
}

fn object(kind: &str, metadata: &str, subject: &str, content: &str) -> String {
    let content = content.trim().lines().map(|line| format!("  {}\n", line.trim_end())).collect::<String>();
    format!(
        "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {metadata}\nspec:\n  endpointSelector: {subject}\n{content}"
    )
}

/// Asks for the verdicts of flows between web and its peers.
#[track_caller]
fn check(yaml: &str, direction: Direction, cases: &[(&str, u8, u16, Verdict)]) {
    check_with(yaml, Compat::Ringfence, direction, cases);
}

#[track_caller]
fn check_with(yaml: &str, compat: Compat, direction: Direction, cases: &[(&str, u8, u16, Verdict)]) {
    let scene = Scene::with(yaml, compat);
    for (peer, protocol, port, expected) in cases {
        let verdict = scene.verdict("web", direction, peer, *protocol, *port);
        assert_eq!(verdict, *expected, "{direction} {peer} {protocol}/{port} under\n{yaml}");
    }
}

#[track_caller]
fn ingress(yaml: &str, cases: &[(&str, u8, u16, Verdict)]) {
    check(yaml, Direction::Ingress, cases);
}

#[track_caller]
fn egress(yaml: &str, cases: &[(&str, u8, u16, Verdict)]) {
    check(yaml, Direction::Egress, cases);
}

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const SCTP: u8 = protocol::SCTP;
const ICMP: u8 = protocol::ICMP;

#[test]
fn sem_1_a_direction_without_content_is_open() {
    let yaml = cnp("ingress: [{fromEndpoints: [{}]}]");
    egress(&yaml, &[("api", TCP, 80, A), ("world-ipv4", ICMP, 8, A), ("unknown", TCP, 80, A)]);
    let unselected = Scene::new(&yaml);
    assert_eq!(unselected.verdict("api", Direction::Ingress, "world-ipv4", TCP, 80), A);
}

#[test]
fn sem_2_a_list_that_is_written_and_empty_isolates_and_in_compat_mode_does_not() {
    for content in ["ingress: []", "ingressDeny: []"] {
        ingress(&cnp(content), &[("api", TCP, 80, D), ("world-ipv4", TCP, 80, D), ("host", TCP, 80, A)]);
        check_with(&cnp(content), Compat::Cilium, Direction::Ingress, &[("api", TCP, 80, A)]);
        egress(&cnp(content), &[("api", TCP, 80, A)]);
    }
}

#[test]
fn sem_4_and_20_an_empty_element_allows_nothing_and_isolates() {
    ingress(&cnp("ingress: [{}]"), &[("api", TCP, 80, D), ("world-ipv6", ICMP, 0, D), ("unknown", TCP, 80, D)]);
    egress(&cnp("egress: [{}]"), &[("api", TCP, 80, D), ("host", TCP, 80, D)]);
}

#[test]
fn sem_8_a_deny_rule_alone_isolates() {
    let yaml = cnp("ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    ingress(&yaml, &[("db", TCP, 80, X), ("api", TCP, 80, D), ("world-ipv4", TCP, 80, D)]);
    let with_allow =
        cnp("ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]\ningress: [{fromEntities: [all]}]");
    ingress(&with_allow, &[("db", TCP, 80, X), ("api", TCP, 80, A), ("unknown", TCP, 80, A)]);
}

#[test]
fn sem_9_an_endpoint_without_labels_yet_is_enforced() {
    let scene = Scene::new(&cnp("ingress: [{}]"));
    for direction in [Direction::Ingress, Direction::Egress] {
        assert_eq!(scene.verdict("init", direction, "api", TCP, 80), D);
    }
    assert_eq!(scene.verdict("init", Direction::Ingress, "host", TCP, 80), A);
}

#[test]
fn sem_10_the_node_itself_is_never_enforced() {
    let everyone = object("CiliumClusterwideNetworkPolicy", "{name: p}", "{}", "ingressDeny: [{fromEntities: [all]}]");
    assert_eq!(Scene::new(&everyone).verdict("host", Direction::Ingress, "api", TCP, 80), A);
}

#[test]
fn sem_21_no_peer_and_ports_is_everyone_on_those_ports() {
    let yaml = cnp("ingress: [{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]");
    let open =
        ["api", "west-api", "vm", "world-ipv4", "world-ipv6", "remote-node", "unknown"].map(|peer| (peer, TCP, 80, A));
    ingress(&yaml, &open);
    ingress(&yaml, &[("api", TCP, 81, D), ("api", UDP, 80, D), ("unknown", ICMP, 80, D)]);
}

#[test]
fn sem_22_peers_without_ports_are_allowed_every_protocol() {
    let yaml = cnp("ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]");
    ingress(
        &yaml,
        &[("api", TCP, 1, A), ("api", ICMP, 8, A), ("api", SCTP, 9, A), ("api", 47, 0, A), ("db", TCP, 1, D)],
    );
}

#[test]
fn sem_23_an_empty_list_of_peers_selects_nobody() {
    for list in ["fromEndpoints: []", "fromEntities: []", "fromEndpoints: [], toPorts: [{ports: [{port: 80}]}]"] {
        ingress(&cnp(&format!("ingress: [{{{list}}}]")), &[("api", TCP, 80, D), ("world-ipv4", TCP, 80, D)]);
    }
    // It closes the lists beside it; beside the lists of a deny it does not, which would open what they close.
    let beside = |list: &str| cnp(&format!("{list}: [{{fromEndpoints: [], fromEntities: [world]}}]"));
    ingress(&beside("ingress"), &[("world-ipv4", TCP, 1, D), ("api", TCP, 1, D)]);
    ingress(&beside("ingressDeny"), &[("world-ipv4", TCP, 1, X), ("api", TCP, 1, D)]);
}

#[test]
fn sem_25_empty_to_ports_is_as_absent() {
    let yaml = cnp("ingress: [{fromEndpoints: [{matchLabels: {app: api}}], toPorts: []}]");
    ingress(&yaml, &[("api", ICMP, 8, A), ("db", TCP, 80, D)]);
    ingress(&cnp("ingress: [{toPorts: []}]"), &[("api", TCP, 80, D)]);
}

#[test]
fn sem_26_an_entry_without_ports_allows_nothing() {
    for ports in ["[{}]", "[{ports: []}]"] {
        ingress(&cnp(&format!("ingress: [{{fromEntities: [all], toPorts: {ports}}}]")), &[("api", TCP, 80, D)]);
    }
}

#[test]
fn sem_28_ns_5_an_empty_peer_selector_is_the_namespace_or_every_pod() {
    let cases = [
        ("api", A, A),
        ("west-api", A, A),
        ("dev-api", D, A),
        ("west-dev", D, A),
        ("vm", D, D),
        ("world-ipv4", D, D),
        ("remote-node", D, D),
        ("unknown", D, D),
    ];
    for (peer, namespaced, clusterwide) in cases {
        ingress(&cnp("ingress: [{fromEndpoints: [{}]}]"), &[(peer, TCP, 80, namespaced)]);
        ingress(&ccnp("ingress: [{fromEndpoints: [{}]}]"), &[(peer, TCP, 80, clusterwide)]);
    }
}

#[test]
fn sem_29_entity_all_is_everyone() {
    let yaml = cnp("ingress: [{fromEntities: [all]}]");
    for (peer, ..) in PODS {
        ingress(&yaml, &[(peer, TCP, 80, A)]);
    }
    ingress(&yaml, &[("unknown", ICMP, 8, A), ("world", TCP, 80, A), ("remote-node", TCP, 80, A)]);
}

#[test]
fn sem_30_an_empty_subject_is_the_namespace_or_every_endpoint() {
    let namespaced = Scene::new(&object("CiliumNetworkPolicy", "{name: p, namespace: shop}", "{}", "ingress: [{}]"));
    let clusterwide = Scene::new(&object("CiliumClusterwideNetworkPolicy", "{name: p}", "{}", "ingress: [{}]"));
    for (subject, in_namespace) in [("web", D), ("west-api", D), ("dev-api", A), ("vm", A)] {
        assert_eq!(namespaced.verdict(subject, Direction::Ingress, "db", TCP, 1), in_namespace, "{subject}");
        assert_eq!(clusterwide.verdict(subject, Direction::Ingress, "db", TCP, 1), D, "{subject}");
    }
}

#[test]
fn sem_40_elements_rules_and_objects_are_alternatives() {
    let api_80 = "fromEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: 80}]}]";
    let db_90 = "fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: 90}]}]";
    let expected = [("api", TCP, 80, A), ("db", TCP, 90, A), ("api", TCP, 90, D), ("db", TCP, 80, D)];
    ingress(&cnp(&format!("ingress: [{{{api_80}}}, {{{db_90}}}]")), &expected);
    let selector = "endpointSelector: {matchLabels: {app: web}}";
    let envelope =
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: NAME, namespace: shop}, CONTENT}";
    let two_specs = format!("specs: [{{{selector}, ingress: [{{{api_80}}}]}}, {{{selector}, ingress: [{{{db_90}}}]}}]");
    ingress(&envelope.replace("NAME", "p").replace("CONTENT", &two_specs), &expected);
    let one = |name, element| {
        envelope.replace("NAME", name).replace("CONTENT", &format!("spec: {{{selector}, ingress: [{{{element}}}]}}"))
    };
    for (first, second) in [(api_80, db_90), (db_90, api_80)] {
        ingress(&format!("{}\n---\n{}", one("a", first), one("b", second)), &expected);
    }
}

#[test]
fn sem_41_any_is_tcp_udp_and_sctp_and_lists_are_unions() {
    let any = "[{ports: [{port: 80}, {port: 81, protocol: ANY}]}, {ports: [{port: 82, protocol: udp}]}]";
    let yaml = cnp(&format!("ingress: [{{fromEndpoints: [{{}}], toPorts: {any}}}]"));
    ingress(
        &yaml,
        &[
            ("api", TCP, 80, A),
            ("api", UDP, 81, A),
            ("api", SCTP, 80, A),
            ("api", ICMP, 80, D),
            ("api", UDP, 82, A),
            ("api", TCP, 82, D),
        ],
    );
}

#[test]
fn sem_42_namespaced_objects_are_applied_in_their_namespace_of_every_cluster() {
    let yaml = object("CiliumNetworkPolicy", "{name: p}", "{}", "ingress: [{}]");
    ingress(&yaml, &[("api", TCP, 80, A)]);
    let dev = Scene::new(&object("CiliumNetworkPolicy", "{name: p, namespace: dev}", "{}", "ingress: [{}]"));
    assert_eq!(dev.verdict("west-dev", Direction::Ingress, "api", TCP, 80), D);
    assert_eq!(dev.verdict("web", Direction::Ingress, "api", TCP, 80), A);
}

#[test]
fn sem_50_the_local_node_is_allowed_unless_denied() {
    ingress(&cnp("ingress: [{}]"), &[("host", TCP, 80, A), ("host", ICMP, 8, A), ("remote-node", TCP, 80, D)]);
    egress(&cnp("egress: [{}]"), &[("host", TCP, 80, D)]);
    let deny_80 = cnp("ingressDeny: [{fromEntities: [host], toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]");
    ingress(&deny_80, &[("host", TCP, 80, X), ("host", TCP, 81, A)]);
    let deny_all = cnp("ingressDeny: [{fromEntities: [all]}]");
    ingress(&deny_all, &[("host", TCP, 80, X)]);
}

#[test]
fn deny_3_deny_on_a_port_beats_allow_of_a_peer() {
    let yaml =
        cnp("ingress: [{fromEndpoints: [{}]}]\ningressDeny: [{toPorts: [{ports: [{port: 80, protocol: TCP}]}]}]");
    ingress(&yaml, &[("api", TCP, 80, X), ("api", TCP, 81, A), ("api", UDP, 80, A), ("dev-api", TCP, 80, X)]);
}

#[test]
fn deny_4_deny_of_a_peer_beats_allow_on_a_port() {
    let content = "ingress: [{toPorts: [{ports: [{port: 8080, protocol: TCP}]}]}]
ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}]}]";
    ingress(&cnp(content), &[("api", TCP, 8080, X), ("api", TCP, 1, X), ("db", TCP, 8080, A), ("db", TCP, 1, D)]);
}

#[test]
fn deny_8_10_deny_cluster_covers_nodes_and_the_local_host() {
    let yaml = cnp("ingress: [{fromEntities: [all]}]\ningressDeny: [{fromEntities: [cluster]}]");
    let cases =
        [("host", X), ("remote-node", X), ("api", X), ("vm", X), ("west-api", A), ("world-ipv4", A), ("unknown", A)];
    ingress(&yaml, &cases.map(|(peer, verdict)| (peer, TCP, 80, verdict)));
}

#[test]
fn deny_11_43_denies_win_wherever_they_overlap() {
    let deny = "ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: 80}]}]}, {fromEntities: [world]}]";
    let allow = "ingress: [{fromEntities: [all]}, {fromEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: 80}]}]}]";
    let expected = [("api", TCP, 80, X), ("api", TCP, 81, A), ("world-ipv6", TCP, 80, X), ("db", TCP, 80, A)];
    ingress(&cnp(&format!("{allow}\n{deny}")), &expected);
    ingress(&cnp(&format!("{deny}\n{allow}")), &expected);
    let everything =
        cnp("ingress: [{fromEntities: [all]}, {fromEndpoints: [{}]}]\ningressDeny: [{fromEntities: [all]}]");
    ingress(&everything, &[("api", TCP, 80, X), ("unknown", ICMP, 1, X)]);
    let scene = Scene::new(&everything);
    let policy = scene.tables().endpoints[&EndpointId(identity("web").bits())].policy;
    let rows = scene.tables().rows.keys().filter(|key| key.policy == policy);
    assert!(rows.clone().count() == 2 && rows.clone().all(|key| key.peer == Identity::UNKNOWN), "it says it all");
}

#[test]
fn ns_1_a_subject_stays_in_its_namespace() {
    let subject = |subject: &str| {
        let scene = Scene::new(&object("CiliumNetworkPolicy", "{name: p, namespace: shop}", subject, "ingress: [{}]"));
        ["web", "west-dev"].map(|pod| scene.verdict(pod, Direction::Ingress, "api", TCP, 80))
    };
    assert_eq!(subject("{matchLabels: {app: web}}"), [D, A]);
    assert_eq!(subject("{matchLabels: {app: web, 'k8s:io.kubernetes.pod.namespace': dev}}"), [D, A], "overwritten");
    assert_eq!(subject("{matchLabels: {app: web, 'io.kubernetes.pod.namespace': dev}}"), [A, A], "both must hold");
    let expression = "{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: In, values: [dev]}]}";
    assert_eq!(subject(expression), [A, A], "both must hold");
}

#[test]
fn ns_2_to_5_peers_of_a_namespaced_object() {
    let cases = [
        ("matchLabels: {app: api}", ["api", "west-api"].as_slice()),
        ("matchLabels: {'reserved:remote-node': ''}", &["remote-node"]),
        ("matchLabels: {'k8s:io.kubernetes.pod.namespace': dev}", &["dev-api", "west-dev"]),
        ("matchLabels: {io.kubernetes.pod.namespace: dev, app: api}", &["dev-api"]),
        ("matchLabels: {'any:io.kubernetes.pod.namespace': dev, app: api}", &["dev-api"]),
        (
            "matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]",
            &["web", "api", "db", "dev-api", "west-api", "west-dev"],
        ),
        ("matchLabels: {io.cilium.k8s.namespace.labels.team: tools}", &["dev-api", "west-dev"]),
        ("matchLabels: {'k8s:io.cilium.k8s.policy.cluster': west}", &["west-api"]),
        ("matchExpressions: [{key: app, operator: NotIn, values: [web, db]}]", &["api", "west-api"]),
    ];
    for (selector, expected) in cases {
        let scene = Scene::new(&cnp(&format!("ingress: [{{fromEndpoints: [{{{selector}}}]}}]")));
        let peers = PODS.iter().map(|(pod, ..)| *pod).chain(["remote-node", "world-ipv4", "unknown"]);
        // SEM-50 allows the local node whatever the selector.
        let allowed =
            peers.filter(|peer| *peer != "host" && scene.verdict("web", Direction::Ingress, peer, TCP, 80) == A);
        assert_eq!(allowed.collect::<Vec<_>>(), expected, "{selector}");
    }
}

#[test]
fn ns_clusterwide_peers_are_pods_unless_the_subject_is_init() {
    let negative = "ingress: [{fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}]}]";
    ingress(
        &ccnp(negative),
        &[("dev-api", TCP, 1, A), ("db", TCP, 1, D), ("vm", TCP, 1, D), ("world-ipv4", TCP, 1, D)],
    );
    let by_team = "ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: tools}}]}]";
    ingress(&ccnp(by_team), &[("dev-api", TCP, 1, A), ("api", TCP, 1, D)]);
    let init = "{matchLabels: {'reserved:init': ''}}";
    let scene =
        Scene::new(&object("CiliumClusterwideNetworkPolicy", "{name: p}", init, "ingress: [{fromEndpoints: [{}]}]"));
    for peer in ["api", "world-ipv4", "unknown"] {
        assert_eq!(scene.verdict("init", Direction::Ingress, peer, TCP, 1), A, "the wildcard stays one: {peer}");
    }
}

#[test]
fn cl_1_selectors_without_a_cluster_select_in_every_cluster() {
    ingress(
        &ccnp("ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]"),
        &[("west-api", TCP, 1, A), ("api", TCP, 1, A)],
    );
}

#[test]
fn s12_an_unknown_peer_is_selected_by_wildcards_only() {
    let negative = "matchExpressions: [{key: 'reserved:none', operator: DoesNotExist}]";
    let yaml = cnp(&format!("ingress: [{{fromEndpoints: [{{{negative}}}]}}, {{fromEntities: [world, cluster]}}]"));
    ingress(&yaml, &[("unknown", TCP, 80, D), ("world-ipv4", TCP, 80, A), ("vm", TCP, 80, A)]);
}
