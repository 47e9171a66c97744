//! Rule by rule: what the specification says beyond what the tables can express. Numbers are those of the policy
//! engine's rules.

use ringfence_policy::{
    compat::Compat,
    evaluate::{Conflict, Decision, Redirect},
    flow::{Direction, protocol},
    l7::secret::SecretRef,
    rule::{Authentication, Parser},
    world::{Backends, Enforcement, Reach, TlsSecrets},
};

use crate::judge::{Judge, cnp};

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const SCTP: u8 = protocol::SCTP;
const ICMP: u8 = protocol::ICMP;
const ICMPV6: u8 = protocol::ICMPV6;

fn judge(content: &str) -> Judge {
    Judge::new(&cnp(content), Compat::Ringfence)
}

#[track_caller]
fn ingress(content: &str, flows: &[(&str, u8, u16)], expected: &str) {
    assert_eq!(judge(content).outcomes(Direction::Ingress, flows), expected, "{content}");
}

#[track_caller]
fn egress(content: &str, flows: &[(&str, u8, u16)], expected: &str) {
    assert_eq!(judge(content).outcomes(Direction::Egress, flows), expected, "{content}");
}

fn redirect(judge: &Judge, direction: Direction, peer: &str, protocol: u8, port: u16) -> Redirect {
    match judge.decide(direction, peer, protocol, port) {
        Decision::Redirect(redirect) => *redirect,
        decision => panic!("{decision:?}"),
    }
}

#[test]
fn sem_3_to_8_default_deny_can_be_switched_off() {
    let flows = [("api", TCP, 80), ("db", TCP, 80), ("world-ipv4", TCP, 1)];
    let off = "enableDefaultDeny: {ingress: false}";
    ingress(&format!("ingress: [{{fromEndpoints: [{{matchLabels: {{app: api}}}}]}}]\n  {off}"), &flows, "AAA");
    ingress(&format!("ingressDeny: [{{fromEndpoints: [{{matchLabels: {{app: api}}}}]}}]\n  {off}"), &flows, "XAA");
    // SEM-4: one rule that does not switch it off is enough.
    let mixed = format!(
        "ingress: [{{fromEndpoints: [{{matchLabels: {{app: api}}}}]}}]\n  {off}\n---\n{}",
        cnp("ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]").replace("name: p", "name: q")
    );
    ingress(&mixed, &flows, "AAD");
    // SEM-7.
    let ignored = judge(&format!("ingress: [{{fromEndpoints: [{{matchLabels: {{app: api}}}}]}}]\n  {off}"));
    let ignored = ignored.set(|settings| settings.optional_default_deny = false);
    assert_eq!(ignored.outcomes(Direction::Ingress, &flows), "ADD");
}

#[test]
fn sem_9_10_enforcement_modes() {
    let flows = [("api", TCP, 80), ("host", TCP, 80)];
    let deny = "ingressDeny: [{fromEntities: [cluster]}]";
    let mode = |content: &str, enforcement| judge(content).set(|settings| settings.enforcement = enforcement);
    assert_eq!(mode(deny, Enforcement::Never).outcomes(Direction::Ingress, &flows), "AA");
    assert_eq!(mode("egress: []", Enforcement::Always).outcomes(Direction::Ingress, &flows), "DA");
    let alone = mode("egress: []", Enforcement::Always).set(|settings| settings.allow_localhost = false);
    assert_eq!(alone.outcomes(Direction::Ingress, &flows), "DD");
    let open = mode("ingress: [{}]\n  enableDefaultDeny: {ingress: false}", Enforcement::Always);
    assert_eq!(open.outcomes(Direction::Ingress, &flows), "DA", "SEM-5 is not for this mode");
    let host = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: h}\n\
                spec: {nodeSelector: {}, ingress: [{fromEntities: [health]}]}\n";
    let host = |firewall| {
        let judge = Judge::new(host, Compat::Ringfence).subject("host");
        judge
            .set(|settings| settings.host_firewall = firewall)
            .outcomes(Direction::Ingress, &[("api", TCP, 1), ("health", TCP, 1)])
    };
    assert_eq!([host(false), host(true)], ["AA", "DA"]);
}

#[test]
fn sem_27_port_2_ports_and_ranges() {
    let any = |ports: &str| format!("ingress: [{{toPorts: [{{ports: [{ports}]}}]}}]");
    let flows = [("api", TCP, 9), ("api", UDP, 9), ("api", ICMP, 8)];
    ingress(&any("{port: \"0\", protocol: TCP}"), &flows, "ADD");
    ingress(&any("{port: \"0\"}"), &flows, "AAD");
    let flows = [1023, 1024, 1500, 2000, 2001].map(|port| ("api", TCP, port));
    ingress(&any("{port: \"1024\", endPort: 2000, protocol: TCP}"), &flows, "DAAAD");
    ingress(&any("{port: \"1024\", endPort: 1000, protocol: TCP}"), &flows, "DADDD");
    let flows = [("api", SCTP, 5), ("api", SCTP, 6)];
    ingress(&any("{port: \"5\", protocol: SCTP}"), &flows, "AD");
}

#[test]
fn deny_5_6_denies_cut_ranges() {
    let rules = |allow: &str, deny: &str| {
        let element = |ports: &str| {
            format!("{{fromEndpoints: [{{matchLabels: {{app: api}}}}], toPorts: [{{ports: [{ports}]}}]}}")
        };
        format!("ingress: [{}]\n  ingressDeny: [{}]", element(allow), element(deny))
    };
    let (range, one) = ("{port: \"80\", endPort: 90, protocol: TCP}", "{port: \"85\", protocol: TCP}");
    let flows = [80, 84, 85, 86, 91].map(|port| ("api", TCP, port));
    ingress(&rules(one, range), &flows, "XXXXD");
    ingress(&rules(range, one), &flows, "AAXAD");
}

#[test]
fn port_4_names_are_the_workloads() {
    let content = |list: &str| format!("{list}: [{{toPorts: [{{ports: [{{port: HTTP, protocol: TCP}}]}}]}}]");
    let flows = [("api", TCP, 8080), ("api", TCP, 80), ("api", UDP, 8080)];
    let own = judge(&content("ingress")).named_port(Direction::Ingress, "http", TCP, 8080);
    assert_eq!(own.outcomes(Direction::Ingress, &flows), "ADD");
    assert_eq!(judge(&content("ingress")).outcomes(Direction::Ingress, &flows), "DDD", "unresolved");
    let peers = judge(&content("egress")).named_port(Direction::Egress, "http", TCP, 8080);
    assert_eq!(peers.outcomes(Direction::Egress, &flows), "ADD");
    let disagreeing = peers.named_port(Direction::Egress, "http", TCP, 80);
    assert_eq!(disagreeing.outcomes(Direction::Egress, &flows), "DDD");
    let conditions = disagreeing.world.unresolved(disagreeing.rules());
    assert!(conditions[0].to_string().contains("warning[PORT-4]: peers call different ports http"), "{conditions:?}");
}

#[test]
fn icmp_1_3_message_types() {
    let flows = [("api", ICMP, 8), ("api", ICMP, 3), ("api", ICMPV6, 128), ("api", TCP, 8)];
    ingress("ingress: [{icmps: [{fields: [{type: EchoRequest}]}]}]", &flows, "ADDD");
    ingress("ingress: [{icmps: [{fields: [{type: 3}, {family: IPv6, type: \"128\"}]}]}]", &flows, "DAAD");
    ingress("ingress: [{toPorts: [{ports: [{port: \"8\"}]}]}]", &flows, "DDDA");
    ingress("ingress: [{fromEntities: [cluster]}]", &flows, "AAAA");
}

#[test]
fn id_20_to_25_addresses_and_ranges() {
    let flows = [("10.1.1.1", TCP, 1), ("10.2.1.1", TCP, 1), ("11.0.0.1", TCP, 1), ("api", TCP, 1)];
    egress("egress: [{toCIDR: [10.0.0.0/8]}]", &flows, "AADD");
    egress("egress: [{toCIDR: [10.1.1.1]}]", &flows, "ADDD");
    // DENY-1, DENY-2, DENY-9.
    egress("egress: [{toCIDR: [10.0.0.0/8]}]\n  egressDeny: [{toCIDR: [10.1.0.0/16]}]", &flows, "XADD");
    egress("egress: [{toCIDR: [10.1.0.0/16]}]\n  egressDeny: [{toCIDR: [10.0.0.0/8]}]", &flows, "XXDD");
    egress("egress: [{toCIDR: [10.0.0.0/8]}]\n  egressDeny: [{toEntities: [world]}]", &flows, "XXXD");
    // DENY-8: an exception narrows and denies nothing.
    let except = "{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}";
    egress(&format!("egress: [{except}]"), &flows, "DADD");
    egress(&format!("egress: [{except}, {{toCIDR: [10.1.1.0/24]}}]"), &flows, "AADD");
    egress("egress: [{toEntities: [world]}, {toCIDR: [10.1.0.0/16]}]", &flows, "AAAD");
}

#[test]
fn grp_1_to_3_groups_and_every_address() {
    let group = "---\n{apiVersion: cilium.io/v2alpha1, kind: CiliumCIDRGroup, metadata: {name: g, labels: {zone: a}}, \
                 spec: {externalCIDRs: [10.1.0.0/16]}}\n";
    let flows = [("10.1.1.1", TCP, 1), ("10.1.9.1", TCP, 1), ("11.0.0.1", TCP, 1), ("api", TCP, 1)];
    let with = |set: &str| egress_outcomes(&format!("egress: [{{toCIDRSet: [{set}]}}]\n{group}"), &flows);
    assert_eq!(with("{cidrGroupRef: g}"), "AADD");
    assert_eq!(with("{cidrGroupRef: other}"), "DDDD");
    assert_eq!(with("{cidrGroupSelector: {matchLabels: {zone: a}}}"), "AADD");
    assert_eq!(with("{cidrGroupSelector: {matchLabels: {zone: b}}}"), "DDDD");
    assert_eq!(with("{cidrGroupRef: g, except: [10.1.9.0/24]}"), "ADDD", "VAL-12");
    let flows = [("1.2.3.4", TCP, 1), ("2001:db8::1", TCP, 1), ("world", TCP, 1), ("api", TCP, 1)];
    egress("egress: [{toCIDR: [0.0.0.0/0]}]", &flows, "ADDD");
    egress("egress: [{toCIDR: [0.0.0.0/0, \"::/0\"]}]", &flows, "AAAD");
    egress("egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [1.0.0.0/8]}]}]", &flows, "DDDD");
}

fn egress_outcomes(content: &str, flows: &[(&str, u8, u16)]) -> String {
    judge(content).outcomes(Direction::Egress, flows)
}

#[test]
fn fqdn_1_to_7_names() {
    let flows = [("1.1.1.1", TCP, 443), ("1.1.1.2", TCP, 443), ("1.1.1.3", TCP, 443), ("api", TCP, 443)];
    let with = |content: &str| {
        let judge = judge(content).answer("a.example.com", "1.1.1.1").answer("a.b.example.com", "1.1.1.2");
        judge.outcomes(Direction::Egress, &flows)
    };
    assert_eq!(with("egress: [{toFQDNs: [{matchName: A.Example.com}]}]"), "ADDD");
    assert_eq!(with("egress: [{toFQDNs: [{matchPattern: '*.example.com'}]}]"), "ADDD");
    assert_eq!(with("egress: [{toFQDNs: [{matchPattern: '*.*.example.com'}]}]"), "DADD");
    // FQDN-4: ranges and the world hold them, too.
    assert_eq!(
        with("egress: [{toFQDNs: [{matchName: a.example.com}]}]\n  egressDeny: [{toCIDR: [1.1.1.0/30]}]"),
        "XXXD"
    );
    assert_eq!(egress_outcomes("egress: [{toFQDNs: [{matchName: a.example.com}]}]", &flows), "DDDD", "FQDN-7");
}

#[test]
fn svc_1_to_4_services() {
    let with = |reference: &str| {
        let pods = Backends::Pods(vec![("app".into(), "api".into())]);
        let addresses = Backends::Addresses(vec!["192.0.2.7".parse().unwrap()]);
        let content =
            format!("egress: [{{toServices: [{reference}], toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}]}}]}}]");
        let judge = judge(&content).service("pods", pods).service("machines", addresses);
        judge.outcomes(
            Direction::Egress,
            &[("api", TCP, 80), ("dev-api", TCP, 80), ("192.0.2.7", TCP, 80), ("api", TCP, 81)],
        )
    };
    assert_eq!(with("{k8sService: {serviceName: pods, namespace: shop}}"), "ADDD");
    assert_eq!(with("{k8sService: {serviceName: pods}}"), "ADDD");
    assert_eq!(with("{k8sService: {serviceName: pods, namespace: dev}}"), "DDDD");
    assert_eq!(with("{k8sService: {serviceName: machines}}"), "DDAD");
    assert_eq!(with("{k8sServiceSelector: {selector: {matchLabels: {tier: back}}}}"), "ADAD");
}

#[test]
fn req_1_2_requirements_restrict_selectors_of_endpoints_only() {
    let require = "{fromRequires: [{matchLabels: {app: api}}]}";
    let flows = [("api", TCP, 1), ("db", TCP, 1), ("world-ipv4", TCP, 1)];
    ingress(&format!("ingress: [{require}, {{fromEndpoints: [{{}}]}}]"), &flows, "ADD");
    ingress(&format!("ingress: [{require}, {{fromEntities: [cluster, world]}}]"), &flows, "AAA");
    let denied = format!("ingress: [{{fromEndpoints: [{{}}]}}]\n  ingressDeny: [{require}, {{fromEndpoints: [{{}}]}}]");
    ingress(&denied, &flows, "XAD");
}

#[test]
fn auth_1_to_6_authentication() {
    let api = "fromEndpoints: [{matchLabels: {app: api}}]";
    let port = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    let flows = [("api", TCP, 80), ("api", TCP, 81), ("db", TCP, 80)];
    ingress(&format!("ingress: [{{{api}, authentication: {{mode: required}}}}]"), &flows, "ppD");
    ingress(&format!("ingress: [{{{api}, authentication: {{mode: required}}}}, {{{api}, {port}}}]"), &flows, "ppD");
    let disabled = format!("{{{api}, {port}, authentication: {{mode: disabled}}}}");
    ingress(&format!("ingress: [{{{api}, authentication: {{mode: required}}}}, {disabled}]"), &flows, "ApD");
    let contradiction =
        format!("{{{api}, authentication: {{mode: required}}}}, {{{api}, authentication: {{mode: test-always-fail}}}}");
    assert_eq!(judge(&format!("ingress: [{contradiction}]")).policy().err(), Some(Conflict::Authentication));
    assert!(
        Authentication::Disabled < Authentication::Required
            && Authentication::Required < Authentication::TestAlwaysFail
    );
}

#[test]
fn auth_4_7_what_is_asked_for_stays_where_a_broader_redirect_is() {
    let peer = |peer: &str, ports: &str, rest: &str| {
        format!("{{{peer}toPorts: [{{ports: [{{{ports}, protocol: TCP}}]{rest}}}]")
    };
    let api = "fromEndpoints: [{matchLabels: {app: api}}], ";
    let http = ", rules: {http: [{method: GET}]}";
    let proved = "authentication: {mode: required}";
    let of = |first: String, second: String| {
        for elements in [[&first, &second], [&second, &first]].map(|both| both.map(String::as_str).join(", ")) {
            let redirect = redirect(&judge(&format!("ingress: [{elements}]")), Direction::Ingress, "api", TCP, 80);
            assert_eq!(redirect.parser, Parser::Http);
            if redirect.authentication != Authentication::Required {
                return redirect.authentication;
            }
        }
        Authentication::Required
    };
    let wide = "port: \"64\", endPort: 95";
    // The same peer: it goes through the proxy, and must prove who it is.
    let own = peer(api, wide, http) + "}";
    assert_eq!(of(own, peer(api, "port: \"80\"", "") + ", " + proved + "}"), Authentication::Required);
    // AUTH-7: another peer's redirect is not asked for what a plain element of this one asks for.
    let any = peer("", wide, http) + "}";
    assert_eq!(of(any.clone(), peer(api, "port: \"80\"", "") + ", " + proved + "}"), Authentication::Disabled);
    // Redirects of one priority are alike.
    assert_eq!(of(any, peer(api, "port: \"80\"", http) + ", " + proved + "}"), Authentication::Required);
}

#[test]
fn l7_1_to_5_rules_of_all_elements_meet() {
    let api = "fromEndpoints: [{matchLabels: {app: api}}]";
    let http =
        |rule: &str| format!("toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}], rules: {{http: [{rule}]}}}}]");
    let plain = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    let of = |elements: &[String]| {
        let judge = judge(&format!("ingress: [{}]", elements.join(", ")));
        let redirect = redirect(&judge, Direction::Ingress, "api", TCP, 80);
        assert_eq!(redirect.parser, Parser::Http);
        let methods: Vec<String> = redirect.rules.http.unwrap().into_iter().map(|rule| rule.method).collect();
        (methods.join(","), redirect.allow_all, redirect.l3_allow_all)
    };
    let get = format!("{{{api}, {}}}", http("{method: GET}"));
    let put = format!("{{{}}}", http("{method: PUT}"));
    assert_eq!(of(std::slice::from_ref(&get)), ("GET".into(), false, false));
    let (methods, ..) = of(&[get.clone(), put.clone()]);
    assert_eq!(methods.split(',').count(), 2, "{methods}");
    assert_eq!(of(&[get.clone(), format!("{{{plain}}}")]), ("GET".into(), true, false));
    assert_eq!(of(&[get.clone(), format!("{{{api}}}")]), ("GET".into(), false, true));
    assert_eq!(
        of(&[get.clone(), format!("{{{api}, {plain}}}")]),
        (",GET".into(), false, false),
        "a rule for everything"
    );
    // DENY-7.
    ingress(&format!("ingress: [{get}]\n  ingressDeny: [{{{plain}}}]"), &[("api", TCP, 80)], "X");
    // SEM-51: the node is not restricted by what the proxy would check.
    let for_all = judge(&format!("ingress: [{put}]"));
    assert!(redirect(&for_all, Direction::Ingress, "host", TCP, 80).allow_all);
    assert!(!redirect(&for_all, Direction::Ingress, "db", TCP, 80).allow_all);
}

#[test]
fn conf_1_to_5_elements_that_contradict_each_other() {
    let world = |rest: &str| {
        format!("{{toEntities: [world], toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], {rest}}}]}}")
    };
    let of =
        |first: &str, second: &str| judge(&format!("egress: [{}, {}]", world(first), world(second))).policy().err();
    let http = "rules: {http: [{method: GET}]}";
    let kafka = "rules: {kafka: [{topic: a}]}";
    let names = "serverNames: [a.example.com]";
    let listener = |name: &str, priority: u8| {
        format!(
            "listener: {{envoyConfig: {{kind: CiliumClusterwideEnvoyConfig, name: c}}, name: {name}, priority: {priority}}}"
        )
    };
    let tls = |name: &str| format!("originatingTLS: {{secret: {{namespace: shop, name: {name}}}}}");
    assert_eq!(of(http, kafka), Some(Conflict::Parsers));
    assert_eq!(of(http, &listener("a", 1)), Some(Conflict::Parsers));
    assert_eq!(of(&listener("a", 1), &listener("b", 1)), Some(Conflict::Listeners));
    assert_eq!(of(&listener("a", 1), &listener("b", 2)), None);
    assert_eq!(of(&tls("a"), &tls("b")), Some(Conflict::Tls));
    assert_eq!(of(&tls("a"), &tls("a")), None);
    assert_eq!(of(names, names), None);
    // CONF-5, whatever the order; with TLS termination the proxy can read what the rules are about.
    assert_eq!([of(http, names), of(names, http)], [Some(Conflict::ServerNames); 2]);
    let ended = format!("{http}, terminatingTLS: {{secret: {{namespace: shop, name: a}}}}");
    assert_eq!([of(&ended, names), of(names, &ended)], [None; 2]);
}

#[test]
fn conf_2_only_two_of_the_best_listeners_contradict_each_other() {
    let listener = |name: &str, priority: u8| {
        format!(
            "{{toEntities: [world], toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], listener: {{envoyConfig: \
             {{kind: CiliumClusterwideEnvoyConfig, name: c}}, name: {name}, priority: {priority}}}}}]}}"
        )
    };
    let of = |elements: [String; 3]| judge(&format!("egress: [{}]", elements.join(", "))).policy().err();
    let [a, b, best] = [listener("a", 5), listener("b", 5), listener("c", 3)];
    for order in [[&a, &b, &best], [&a, &best, &b], [&best, &a, &b]] {
        assert_eq!(of(order.map(Clone::clone)), None);
    }
    let tied = listener("d", 3);
    for order in [[&a, &tied, &best], [&tied, &best, &a], [&best, &a, &tied]] {
        assert_eq!(of(order.map(Clone::clone)), Some(Conflict::Listeners));
    }
}

#[test]
fn conf_6_a_tls_context_needs_its_secret() {
    let context = |field: &str, more: &str| {
        format!(
            "egress: [{{toEntities: [world], toPorts: [{{ports: [{{port: \"443\", protocol: TCP}}], \
             {field}: {{secret: {{namespace: shop, name: s}}{more}}}}}]}}]"
        )
    };
    let with = |content: &str, items: Option<&[&str]>| {
        let mut judge = judge(content);
        let mut secrets = TlsSecrets::default();
        let secret = SecretRef { namespace: "shop".into(), name: "s".into() };
        items.iter().for_each(|items| secrets.insert(secret.clone(), items.iter().map(|item| (*item).to_owned())));
        assert_eq!(judge.policy().err(), None, "without anybody who looked");
        judge.world.tls_secrets = Some(secrets);
        let told: Vec<String> = judge.world.unresolved(judge.rules()).iter().map(ToString::to_string).collect();
        assert_eq!(told.is_empty(), judge.policy().is_ok(), "{told:?}");
        (judge.policy().err(), told.join("\n"))
    };
    let (ends, starts) = (context("terminatingTLS", ""), context("originatingTLS", ""));
    let pair: &[&str] = &["tls.crt", "tls.key"];
    assert_eq!(with(&ends, Some(pair)).0, None);
    assert_eq!(with(&starts, Some(&["ca.crt"])).0, None);
    for (content, items, item) in [
        (&ends, None, "tls.crt"),
        (&ends, Some(&["tls.crt", "ca.crt"][..]), "tls.key"),
        (&starts, Some(pair), "ca.crt"),
        (&context("terminatingTLS", ", certificate: own"), Some(pair), "own"),
        (&context("originatingTLS", ", privateKey: own"), Some(&["ca.crt"][..]), "own"),
    ] {
        let (conflict, told) = with(content, items);
        assert_eq!(conflict, Some(Conflict::TlsSecret), "{content}");
        assert!(told.contains(&format!("warning[CONF-6]: secret shop/s has no item {item}")), "{told}");
    }
}

#[test]
fn cl_2_selectors_without_a_cluster_can_mean_the_local_one() {
    let judge = |content: &str| judge(content).set(|settings| settings.reach = Reach::LocalCluster);
    let flows = [("api", TCP, 80), ("west-api", TCP, 80)];
    let outcomes = |content: &str, expected| {
        assert_eq!(judge(content).outcomes(Direction::Ingress, &flows), expected, "{content}");
    };
    outcomes("ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]", "AD");
    outcomes("ingress: [{fromEndpoints: [{}]}]", "AD");
    outcomes("ingress: [{fromEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.policy.cluster': west}}]}]", "DA");
    let every = "matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: Exists}]";
    outcomes(&format!("ingress: [{{fromEndpoints: [{{{every}}}]}}]"), "AA");
    // What has no cluster, and what denies, is meant as before.
    outcomes("ingress: [{fromEntities: [all]}]", "AA");
    outcomes("ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}]}]", "XX");
    let node = judge("ingress: [{fromEndpoints: [{matchLabels: {'reserved:remote-node': ''}}]}]");
    assert_eq!(node.outcomes(Direction::Ingress, &[("remote-node", TCP, 80)]), "A");
}

#[test]
fn knp_1_to_13_network_policies() {
    let knp = |spec: &str| {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
        );
        Judge::new(&text, Compat::Ringfence)
    };
    let flows = [("api", TCP, 80), ("dev-api", TCP, 80), ("10.1.1.1", TCP, 80), ("vm", TCP, 80), ("api", UDP, 80)];
    let check =
        |spec: &str, expected: &str| assert_eq!(knp(spec).outcomes(Direction::Ingress, &flows), expected, "{spec}");
    check("ingress: [{from: [{podSelector: {matchLabels: {app: api}}}]}]", "ADDDA");
    check("ingress: [{from: [{namespaceSelector: {}}]}]", "AADDA");
    check("ingress: [{from: [{namespaceSelector: {matchLabels: {team: tools}}}]}]", "DADDD");
    check(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: tools}}, podSelector: {matchLabels: {app: web}}}]}]",
        "DDDDD",
    );
    check("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}}]}]", "DDADD");
    check("ingress: [{}]", "AAAAA");
    check("ingress: [{from: []}]", "AAAAA");
    check("ingress: [{ports: [{port: 80}]}]", "AAAAD");
    check("ingress: [{ports: [{protocol: UDP}]}]", "DDDDA");
    check("ingress: []", "DDDDD");
    check("policyTypes: [Egress]", "AAAAA");
    let isolated = |spec: &str| knp(spec).outcomes(Direction::Egress, &flows);
    assert_eq!(isolated("ingress: []"), "AAAAA", "KNP-9");
    assert_eq!(isolated("egress: [{to: [{podSelector: {}}]}]"), "ADDDA", "KNP-9");
    assert_eq!(isolated("policyTypes: [Ingress, Egress]"), "DDDDD", "KNP-11");
    assert_eq!(isolated("policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]"), "ADDDA", "KNP-10");
}
