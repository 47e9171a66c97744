//! What must hold for every object and every world, whatever it says. `RINGFENCE_WORLDS` sets how many are generated.

use proptest::prelude::*;
use ringfence_policy::{
    compat::Compat,
    evaluate::{Decision, SubjectPolicy},
    flow::{Direction, Flow, protocol},
    label::LabelSet,
    object::{Object, not_enforceable, parse_documents, parse_objects, parse_record},
    record::PolicyRecord,
    rule::Rule,
    world::{Settings, World},
};

pub(crate) use crate::worlds::worlds;

use crate::scene::{PODS, identity, labels, name};

/// The peers of an element; FROM stands for from or to.
fn peers() -> impl Strategy<Value = String> {
    let selector = prop_oneof![
        Just("{}"),
        Just("{matchLabels: {app: api}}"),
        Just("{matchLabels: {tier: front}}"),
        Just("{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}"),
        Just("{matchLabels: {'k8s:io.kubernetes.pod.namespace': dev}}"),
    ];
    let entity = prop_oneof![
        Just("all"),
        Just("world"),
        Just("cluster"),
        Just("host"),
        Just("health"),
        Just("ingress"),
        Just("none")
    ];
    let set = prop_oneof![
        Just("{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}"),
        Just("{cidr: 0.0.0.0/0}"),
        Just("{cidrGroupRef: g}")
    ];
    prop_oneof![
        2 => Just(String::new()),
        4 => proptest::collection::vec(selector, 1..3).prop_map(|list| format!("FROMEndpoints: [{}], ", list.join(", "))),
        3 => proptest::collection::vec(entity, 1..3).prop_map(|list| format!("FROMEntities: [{}], ", list.join(", "))),
        1 => Just("FROMCIDR: [10.1.0.0/16, 192.0.2.1], ".to_owned()),
        1 => set.prop_map(|set| format!("FROMCIDRSet: [{set}], ")),
        1 => Just("FROMEndpoints: [{matchLabels: {app: api}}], FROMRequires: [{matchLabels: {tier: front}}], ".to_owned()),
    ]
}

/// The ports of an element that allows.
fn ports() -> impl Strategy<Value = String> {
    let port = prop_oneof![
        Just("{port: '80', protocol: TCP}"),
        Just("{port: '53', protocol: ANY}"),
        Just("{port: '70', endPort: 90, protocol: TCP}"),
        Just("{port: '0', protocol: UDP}"),
        Just("{port: web, protocol: TCP}"),
    ];
    prop_oneof![
        3 => Just(String::new()),
        4 => proptest::collection::vec(port, 1..3).prop_map(|list| format!("toPorts: [{{ports: [{}]}}]", list.join(", "))),
        1 => Just("icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: 128}]}]".to_owned()),
    ]
}

/// What only an element that allows can have.
fn extras() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just(""),
        1 => Just(", authentication: {mode: required}"),
        1 => Just(", authentication: {mode: disabled}"),
    ]
}

fn list(name: &'static str, weight: f64) -> impl Strategy<Value = String> {
    let from = if name.starts_with("ingress") { "from" } else { "to" };
    let denies = name.ends_with("Deny");
    let http = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]";
    let ports =
        (ports(), 0u8..5).prop_map(move |(ports, http_too)| if http_too == 0 && !denies { http.into() } else { ports });
    let element = (peers(), ports, extras()).prop_map(move |(peers, ports, extras)| {
        let (peers, extras) = (peers.replace("FROM", from), if denies { "" } else { extras });
        format!("{{{peers}{ports}{extras}}}").replace(", ,", ",").replace("{, ", "{")
    });
    proptest::option::weighted(weight, proptest::collection::vec(element, 1..4))
        .prop_map(move |list| list.map_or_else(String::new, |list| format!(", {name}: [{}]", list.join(", "))))
}

fn object() -> impl Strategy<Value = String> {
    let default = prop_oneof![3 => Just(""), 1 => Just(", enableDefaultDeny: {ingress: false}"), 1 => Just(", enableDefaultDeny: {egress: false}")];
    let lists = (list("ingress", 0.8), list("ingressDeny", 0.4), list("egress", 0.6), list("egressDeny", 0.3));
    (default, lists).prop_map(|(default, (a, b, c, d))| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{namespace: shop, name: NAME}}, \
             spec: {{endpointSelector: {{matchLabels: {{app: web}}}}{default}{a}{b}{c}{d}}}}}"
        )
    })
}

fn objects() -> impl Strategy<Value = Vec<Object>> {
    proptest::collection::vec(object(), 1..5).prop_map(|texts| {
        let named = texts.iter().enumerate().map(|(index, text)| text.replace("NAME", &format!("p{index}")));
        let text = named.collect::<Vec<_>>().join("\n---\n");
        let parsed = parse_objects(&text);
        assert!(!parsed.has_errors(), "{:#?}\n{text}", parsed.diagnostics);
        parsed.objects
    })
}

fn flows() -> Vec<(Flow, LabelSet)> {
    let subject = identity("web");
    let ports =
        [(protocol::TCP, 80), (protocol::TCP, 75), (protocol::UDP, 53), (protocol::ICMP, 8), (protocol::TCP, 9)];
    let mut peers: Vec<_> = PODS.iter().map(|(pod, ..)| (identity(pod), labels(identity(pod)))).collect();
    peers.extend(["world-ipv4", "ingress", "health"].map(|peer| (identity(peer), labels(identity(peer)))));
    let range = LabelSet::parse(["cidr:10.1.0.0/16", "reserved:world-ipv4"]).unwrap();
    peers.push((ringfence_policy::address::AddressBook::LOCAL, range));
    let each = |(peer, labels): (_, LabelSet)| {
        let flow = move |direction| move |(protocol, port)| Flow { subject, peer, direction, protocol, port };
        let both = [Direction::Ingress, Direction::Egress].into_iter().flat_map(move |d| ports.map(flow(d)));
        both.map(move |flow| (flow, labels.clone()))
    };
    peers.into_iter().flat_map(each).collect()
}

/// What may pass: a redirect is neither more nor less open than an allow here.
fn open(decision: &Decision) -> bool {
    !matches!(decision, Decision::DenyDefault | Decision::DenyExplicit)
}

fn decisions<'r>(compat: Compat, rules: impl IntoIterator<Item = &'r Rule>) -> Option<Vec<Decision>> {
    let (settings, world) = (Settings::new(name("east"), compat), World::default());
    let web = identity("web");
    let policy = SubjectPolicy::resolve(&settings, &world, rules, web, &labels(web)).ok()?;
    Some(flows().iter().map(|(flow, peer)| policy.decide(flow, peer)).collect())
}

fn both() -> impl Strategy<Value = Compat> {
    prop_oneof![Just(Compat::Ringfence), Just(Compat::Cilium)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: worlds(), ..ProptestConfig::default() })]

    #[test]
    fn sem_40_the_order_of_objects_never_matters(objects in objects(), compat in both()) {
        let forward = decisions(compat, objects.iter().flat_map(|object| &object.rules));
        let backward = decisions(compat, objects.iter().rev().flat_map(|object| &object.rules));
        let outcomes = |all: Option<Vec<Decision>>| all.map(|all| all.iter().map(std::mem::discriminant).collect::<Vec<_>>());
        prop_assert_eq!(outcomes(forward), outcomes(backward));
    }

    #[test]
    fn sem_43_one_more_deny_opens_nothing(objects in objects(), compat in both()) {
        let mut all: Vec<Rule> = objects.iter().flat_map(|object| object.rules.clone()).collect();
        for element in all.iter_mut().flat_map(|rule| [&mut rule.ingress.deny, &mut rule.egress.deny]).flatten().flatten() {
            // REQ-1: requirements of one deny narrow the others, so one deny more may deny less.
            element.requires.clear();
        }
        let mut fewer = all.clone();
        for rule in &mut fewer {
            for section in [&mut rule.ingress, &mut rule.egress] {
                // A section without any element would not isolate any more.
                if section.allow.as_ref().is_some_and(|list| !list.is_empty()) {
                    section.deny = None;
                }
            }
        }
        let (Some(with), Some(without)) = (decisions(compat, &all), decisions(compat, &fewer)) else { return Ok(()) };
        for ((with, without), (flow, _)) in with.iter().zip(&without).zip(flows()) {
            prop_assert!(!open(with) || open(without), "{:?}: {:?} without denies, {:?} with them", flow, without, with);
        }
    }

    #[test]
    fn section_11_ringfence_is_never_more_open(objects in objects()) {
        let rules = || objects.iter().flat_map(|object| &object.rules);
        let (Some(here), Some(there)) = (decisions(Compat::Ringfence, rules()), decisions(Compat::Cilium, rules())) else {
            return Ok(());
        };
        for ((here, there), (flow, _)) in here.iter().zip(&there).zip(flows()) {
            prop_assert!(!open(here) || open(there), "{:?}: {:?} here, {:?} in Cilium", flow, here, there);
        }
    }

    /// A valid object with all kinds of fields, a few characters changed: no panic, neither in reading nor in what comes
    /// after; what is accepted is accepted again.
    #[test]
    fn no_object_panics(changes in proptest::collection::vec((0usize..1600, "[a-z0-9:{}\\[\\],&'\"\n \\-]{0,2}", 0usize..3), 0..4), compat in both()) {
        let mut text = RICH.to_owned();
        for (at, insert, remove) in changes {
            let at = at.min(text.len());
            let end = (at + remove).min(text.len());
            text.replace_range(at..end, &insert);
        }
        let parsed = parse_documents(&text, compat);
        let rules = parsed.objects.iter().flat_map(|object| &object.rules);
        decisions(compat, rules.clone());
        prop_assert!(World::default().unresolved(rules).iter().all(|finding| !finding.is_error()));
        for object in &parsed.objects {
            prop_assert!(not_enforceable(object).iter().all(ringfence_policy::diagnostic::Diagnostic::is_error));
            if compat == Compat::Ringfence {
                let record = PolicyRecord { key: object.key.clone(), text: object.text.clone() };
                prop_assert!(parse_record(&record).is_ok(), "{}", object.text);
            }
        }
    }
}

#[test]
fn the_rich_object_is_accepted() {
    let parsed = parse_documents(RICH, Compat::Ringfence);
    assert!(!parsed.has_errors(), "{:#?}", parsed.diagnostics);
    assert_eq!((parsed.objects.len(), parsed.groups.len()), (2, 1));
}

const RICH: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: true, egress: false}
  labels: [{key: a, value: b, source: k8s}]
  ingress:
  - fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidrGroupRef: g}]
    toPorts:
    - ports: [{port: \"80\", endPort: 90, protocol: TCP}, {port: http, protocol: TCP}]
      rules: {http: [{method: GET, path: \"/a.*\", headers: [\"X: y\"], headerMatches: [{name: Z, mismatch: LOG, value: v}]}]}
    authentication: {mode: required}
  - fromRequires: [{matchLabels: {tier: front}}]
    icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: 128}]}]
  egress:
  - toFQDNs: [{matchName: a.example.com}, {matchPattern: \"*.example.org\"}]
    toPorts: [{ports: [{port: \"443\", protocol: TCP}], serverNames: [a.example.com]}]
  - toServices: [{k8sService: {serviceName: s, namespace: shop}}]
    toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]
  - toEntities: [world]
    toPorts:
    - ports: [{port: \"8443\", protocol: TCP}]
      terminatingTLS: {secret: {namespace: shop, name: t}}
      originatingTLS: {secret: {namespace: shop, name: o}}
      listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: c}, name: l, priority: 3}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: k, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {}, podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]
---
apiVersion: cilium.io/v2alpha1
kind: CiliumCIDRGroup
metadata: {name: g, labels: {zone: a}}
spec: {externalCIDRs: [10.2.0.0/16]}
";
