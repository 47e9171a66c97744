//! Explanations must agree with the specification, and name what made it so.

use std::collections::BTreeSet;

use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    evaluate::{Conflict, Decision, evaluate},
    explain::{Explanation, Idle, Party, Reason, describe_decision, differences, explain, idle, selector_uses},
    flow::{Direction, Flow, protocol},
    identity::Identity,
    name::Name,
    object::{Object, parse_documents},
    record::NamedPort,
    world::{Enforcement, Settings, World},
};

/// Contents of a spec, each of which has met a rule of its own somewhere.
const CONTENTS: [&str; 27] = [
    "ingress: []",
    "ingress: [{}]",
    "ingress: [{fromEndpoints: [{}]}]",
    "ingress: [{fromEndpoints: []}]",
    "ingress: [{fromEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: '8080', protocol: TCP}]}]}]",
    "ingress: [{toPorts: [{ports: [{port: '80'}, {port: '8000', endPort: 8090, protocol: TCP}]}]}]",
    "ingress: [{fromEntities: [all]}]",
    "ingress: [{fromEntities: [world], toPorts: [{ports: [{port: '0', protocol: UDP}]}]}]",
    "ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]",
    "ingress: [{icmps: [{fields: [{type: 8}, {type: 0}]}]}]",
    "ingress: [{fromEntities: [host, cluster], toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {http: [{path: /a}]}}]}]",
    "ingress: [{toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {kafka: [{topic: a}]}}]}]",
    "ingress: [{toPorts: [{ports: [{port: web, protocol: TCP}]}]}]",
    "ingress: [{fromRequires: [{matchLabels: {tier: front}}]}, {fromEndpoints: [{matchLabels: {app: api}}]}]",
    "ingress: [{fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [api]}]}]}]",
    "ingress: [{fromEntities: [all], authentication: {mode: required}}]",
    "ingress: [{fromEntities: [all], toPorts: [{}]}]",
    "ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}]}]",
    "ingressDeny: [{toPorts: [{ports: [{port: '8085', protocol: TCP}]}]}]",
    "ingressDeny: [{fromEntities: [host]}]",
    "ingressDeny: [{fromEntities: [world]}]\n  enableDefaultDeny: {ingress: false}",
    "ingressDeny: [{fromCIDR: [10.2.0.0/16]}]\n  ingress: [{fromCIDR: [10.0.0.0/8]}]",
    "egress: [{toFQDNs: [{matchPattern: '*.example.com'}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]",
    "egress: [{toEntities: [all], toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchName: a.b}]}}]}]",
    "egressDeny: [{toEntities: [world]}]\n  egress: [{toEntities: [all]}]",
    "egress: [{toEntities: [all], toPorts: [{ports: [{port: web, protocol: TCP}]}]}]",
    "egressDeny: [{toPorts: [{ports: [{port: web, protocol: TCP}]}]}]",
];
const PEERS: [&str; 12] = [
    "app=api,io.kubernetes.pod.namespace=shop",
    "app=db,io.kubernetes.pod.namespace=shop,tier=front",
    "app=api,io.kubernetes.pod.namespace=dev",
    "host",
    "remote-node",
    "world",
    "world-ipv6",
    "unknown",
    "10.1.2.3",
    "10.2.2.3",
    "a.example.com",
    "192.0.2.1",
];
const PORTS: [(u8, u16); 9] = [
    (protocol::TCP, 80),
    (protocol::TCP, 443),
    (protocol::TCP, 8080),
    (protocol::TCP, 8085),
    (protocol::TCP, 1234),
    (protocol::UDP, 53),
    (protocol::SCTP, 80),
    (protocol::ICMP, 8),
    (protocol::ICMP, 3),
];

fn objects(contents: &[&str], compat: Compat) -> Vec<Object> {
    let object = |(index, content): (usize, &&str)| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{index}, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: web}}}}\n  {content}\n---\n"
        )
    };
    let text: String = contents.iter().enumerate().map(object).collect();
    let parsed = parse_documents(&text, compat);
    assert!(!parsed.has_errors(), "{:#?}\n{text}", parsed.diagnostics);
    parsed.objects
}

fn settings(compat: Compat) -> Settings {
    Settings::new(Name::new("east").unwrap(), compat)
}

fn world() -> World {
    let web = NamedPort { name: "web".into(), protocol: protocol::TCP, port: 8080 };
    // Peers mean two numbers by the name (PORT-4).
    let other = NamedPort { port: 8085, ..web.clone() };
    World { own_ports: vec![web.clone()], peer_ports: vec![web, other], ..World::default() }
}

fn party(text: &str, objects: &[Object], settings: &Settings) -> Party {
    let mut addresses = AddressBook::new(true, false);
    let rules = || objects.iter().flat_map(|object| &object.rules);
    addresses.add_ranges(rules());
    Party::parse(text, rules(), &addresses, settings).unwrap()
}

fn flow(direction: Direction, (protocol, port): (u8, u16)) -> Flow {
    Flow { subject: Identity::UNKNOWN, peer: Identity::UNKNOWN, direction, protocol, port }
}

/// Matches are found by another way than verdicts, so each can show a mistake of the other.
fn check(explained: &Explanation, peer: &str, decision: &Result<Decision, Conflict>, what: &str) {
    let context = || format!("{explained:#?}\nfor {peer} under {what}");
    assert_eq!(explained.decision, *decision, "{}", context());
    let denying = explained.matches.iter().any(|found| found.denies);
    let allowing = explained.matches.iter().any(|found| !found.denies);
    match (&explained.reason, decision) {
        (Reason::NotEnforced, Ok(Decision::Allow { .. })) => assert!(explained.matches.is_empty(), "{}", context()),
        (Reason::Denied(_), Ok(Decision::DenyExplicit)) => assert!(denying, "{}", context()),
        (Reason::Allowed(index), Ok(Decision::Allow { .. })) => {
            assert!(!denying && !explained.matches[*index].denies, "{}", context());
        }
        (Reason::Allowed(index), Ok(Decision::Redirect(redirect))) => {
            let parser = explained.matches[*index].parser.as_ref();
            assert!(!denying && parser == Some(&redirect.parser), "{}", context());
        }
        (Reason::Localhost, Ok(Decision::Allow { .. })) => {
            assert!(peer == "host" && !denying && !allowing, "{}", context());
        }
        (Reason::NoDefaultDeny, Ok(Decision::Allow { .. })) => {
            assert!(!denying && !allowing && what.contains("enableDefaultDeny"), "{}", context());
        }
        (Reason::NothingMatches(_), Ok(Decision::DenyDefault)) => assert!(!denying && !allowing, "{}", context()),
        (Reason::Contradiction, Err(_)) => {}
        _ => panic!("reason and decision do not fit: {}", context()),
    }
}

#[test]
fn explanations_agree_with_the_specification() {
    let mut reasons = BTreeSet::new();
    for compat in [Compat::Ringfence, Compat::Cilium] {
        for (first, alone) in CONTENTS.iter().enumerate() {
            // Alone, and in one of four of the pairs.
            let sampled = |second: &usize| *second == first || (first * 7 + second) % 4 == 1;
            for second in (first..CONTENTS.len()).filter(sampled) {
                let contents = BTreeSet::from([*alone, CONTENTS[second]]);
                let contents: Vec<&str> = contents.into_iter().collect();
                let (objects, settings, world) = (objects(&contents, compat), settings(compat), world());
                let subject = party("app=web,io.kubernetes.pod.namespace=shop", &objects, &settings);
                for peer_text in PEERS {
                    let peer = party(peer_text, &objects, &settings);
                    for direction in [Direction::Ingress, Direction::Egress] {
                        for port in PORTS {
                            let asked = flow(direction, port);
                            let explained = explain(&settings, &world, &objects, &subject, &peer, asked);
                            let rules = objects.iter().flat_map(|object| &object.rules);
                            let flow = explained.flow;
                            let expected = evaluate(&settings, &world, rules, &subject.labels, &peer.labels, &flow);
                            reasons.insert(format!("{:?}", std::mem::discriminant(&explained.reason)));
                            check(&explained, peer_text, &expected, &contents.join("\n"));
                        }
                    }
                }
            }
        }
    }
    assert_eq!(reasons.len(), 7, "every reason was met: {reasons:?}");
}

fn told(contents: &[&str], peer: &str, direction: Direction, port: (u8, u16)) -> String {
    let (objects, settings) = (objects(contents, Compat::Ringfence), settings(Compat::Ringfence));
    let subject = party("app=web,io.kubernetes.pod.namespace=shop", &objects, &settings);
    let peer = party(peer, &objects, &settings);
    explain(&settings, &World::default(), &objects, &subject, &peer, flow(direction, port)).to_string()
}

#[test]
fn explanations_name_the_rule_or_the_nearest_miss() {
    let api = "app=api,io.kubernetes.pod.namespace=shop";
    let tcp = |port| (protocol::TCP, port);
    let told = |contents: &[&str], peer, port| told(contents, peer, Direction::Ingress, tcp(port));
    let web = CONTENTS[4];
    assert_eq!(told(&["ingress: [{}]", web], api, 8080), "allowed by CiliumNetworkPolicy shop/p1 spec.ingress[0]");
    assert_eq!(
        told(&[web], api, 9090),
        "default deny: selected by CiliumNetworkPolicy shop/p0 spec for ingress; nearest miss: CiliumNetworkPolicy \
         shop/p0 spec.ingress[0] wants port 8080/TCP"
    );
    assert_eq!(
        told(&["ingress: [{}]", web], "app=db,io.kubernetes.pod.namespace=shop", 8080),
        "default deny: selected by CiliumNetworkPolicy shop/p0 spec and 1 more for ingress; nearest miss: \
         CiliumNetworkPolicy shop/p1 spec.ingress[0] wants a peer with any:app=api"
    );
    assert_eq!(told(&[web, CONTENTS[17]], api, 8080), "denied by CiliumNetworkPolicy shop/p1 spec.ingressDeny[0]");
    assert_eq!(
        told(&["ingress: [{}]"], api, 80),
        "default deny: selected by CiliumNetworkPolicy shop/p0 spec for ingress; nothing is allowed"
    );
    assert_eq!(told(&["egress: [{}]"], api, 80), "not enforced: no rule selects the subject for ingress");
    let list = "ingress: [{fromEntities: [health]}, {fromEndpoints: [{matchLabels: {app: api}}]}]";
    assert_eq!(told(&[list], api, 1), "allowed by CiliumNetworkPolicy shop/p0 spec.ingress[1]");
}

#[test]
fn knp_12_places_count_what_is_written() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: n, namespace: shop}\nspec:\n  \
                podSelector: {}\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: a}}\n    - podSelector: \
                {matchLabels: {app: b}}\n  - from:\n    - podSelector: {matchLabels: {app: c}}\n";
    let parsed = parse_documents(text, Compat::Ringfence);
    let settings = settings(Compat::Ringfence);
    let subject = party("app=web,io.kubernetes.pod.namespace=shop", &parsed.objects, &settings);
    for (app, place) in [("b", "spec.ingress[0]"), ("c", "spec.ingress[1]")] {
        let peer = party(&format!("app={app},io.kubernetes.pod.namespace=shop"), &parsed.objects, &settings);
        let asked = flow(Direction::Ingress, (protocol::TCP, 1));
        let explained = explain(&settings, &World::default(), &parsed.objects, &subject, &peer, asked);
        assert_eq!(explained.decided_by().unwrap().place.path, place, "{app}");
    }
}

#[test]
fn always_enforcement_without_rules_says_so() {
    let settings = Settings { enforcement: Enforcement::Always, ..settings(Compat::Ringfence) };
    let subject = party("app=web", &[], &settings);
    let asked = flow(Direction::Egress, (protocol::TCP, 80));
    let explained = explain(&settings, &World::default(), &[], &subject, &party("world", &[], &settings), asked);
    assert_eq!(explained.to_string(), "default deny: no rule selects it for egress; nothing is allowed");
}

#[test]
fn differences_are_ranges_of_ports_and_nothing_else() {
    let settings = settings(Compat::Ringfence);
    let before =
        objects(&["ingress: [{toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]}]"], Compat::Ringfence);
    let after =
        objects(&["ingress: [{toPorts: [{ports: [{port: '85', endPort: 95, protocol: TCP}]}]}]"], Compat::Ringfence);
    // The third is another one like the first: no rule tells them apart.
    let names =
        ["app=web,", "app=api,", "app=web,version=2,"].map(|app| format!("{app}io.kubernetes.pod.namespace=shop"));
    let parties: Vec<Party> = names.iter().map(|text| party(text, &before, &settings)).collect();
    let found = differences(&settings, &World::default(), &before, &after, &parties, &[0, 1, 2]);
    let told: Vec<String> = found
        .iter()
        .map(|d| {
            let (before, after) = (describe_decision(&d.before), describe_decision(&d.after));
            format!("{:?}<-{:?} {} {}-{}: {before} -> {after}", d.subjects, d.peers, d.protocol, d.first, d.last)
        })
        .collect();
    assert_eq!(
        told,
        [
            "[0, 2]<-[0, 2] 6 80-84: allow -> deny (default)",
            "[0, 2]<-[0, 2] 6 91-95: deny (default) -> allow",
            "[0, 2]<-[1] 6 80-84: allow -> deny (default)",
            "[0, 2]<-[1] 6 91-95: deny (default) -> allow"
        ]
    );
    assert_eq!(differences(&settings, &World::default(), &after, &after, &parties, &[0, 1, 2]), []);
}

#[test]
fn selectors_are_listed_once_with_every_use() {
    let settings = settings(Compat::Ringfence);
    let objects = objects(&[CONTENTS[4], CONTENTS[17]], Compat::Ringfence);
    let uses = selector_uses(&settings, &World::default(), &objects);
    let counts: Vec<_> = uses.iter().map(|found| (found.subjects.len(), found.peers.len())).collect();
    assert_eq!(uses.len(), 2, "the subject and the peer: {uses:#?}");
    assert!(counts.contains(&(2, 0)) && counts.contains(&(0, 2)), "{counts:?}");
}

#[test]
fn what_names_no_party_is_refused_with_what_would() {
    let settings = settings(Compat::Ringfence);
    let parse = |text| Party::parse(text, [], &AddressBook::new(true, false), &settings);
    for many in ["all", "cluster", "none"] {
        assert!(parse(many).unwrap_err().to_string().contains("no single peer"), "{many}");
    }
    assert!(parse("wrld").unwrap_err().to_string().contains("neither an entity"));
    assert!(parse("app=a,app=b").unwrap_err().to_string().contains("twice"));
    assert_eq!(parse("app=web").unwrap().labels.to_string(), "k8s:app=web,k8s:io.cilium.k8s.policy.cluster=east");
    assert_eq!(parse("::1").unwrap().identity, Identity::WORLD_IPV6);
}

#[test]
fn what_does_nothing_for_anybody_is_found() {
    let settings = settings(Compat::Ringfence);
    let told = |contents: &[&str], parties: &[&str]| -> Vec<String> {
        let objects = objects(contents, Compat::Ringfence);
        let parties: Vec<Party> = parties.iter().map(|text| party(text, &objects, &settings)).collect();
        let found = idle(&settings, &World::default(), &objects, &parties);
        found.iter().map(|(place, why): &(_, Idle)| format!("{} {}: {why}", place.key.name, place.path)).collect()
    };
    let [web, api, db] = ["web", "api", "db"].map(|app| format!("app={app},io.kubernetes.pod.namespace=shop"));
    let allow = CONTENTS[4];
    assert_eq!(told(&[allow], &[&web, &api]), [""; 0]);
    assert_eq!(told(&[allow], &[&db]), ["p0 spec: it selects none of the identities"]);
    assert_eq!(told(&[allow], &[&web, &db]), ["p0 spec.ingress[0]: none of the identities is a peer of it"]);
    let denied = "p0 spec.ingress[0]: everything it allows is denied, by CiliumNetworkPolicy shop/p1 spec.ingressDeny[0] \
                  for one";
    assert_eq!(told(&[allow, CONTENTS[17]], &[&web, &api]), [denied]);
    // DENY-6: only one of many ports is denied, or another one.
    assert_eq!(told(&[CONTENTS[5], CONTENTS[18]], &[&web, &api, "world"]), [""; 0]);
    assert_eq!(told(&[allow, CONTENTS[18]], &[&web, &api]), [""; 0]);
    // CONF-1, of two objects that meet.
    let conflicts = told(&[CONTENTS[10], CONTENTS[11]], &[&web, &db]);
    assert!(
        conflicts[0].contains("p0 spec: the rules of somebody it selects contradict each other: CONF-1"),
        "{conflicts:?}"
    );
    assert!(conflicts[1].starts_with("p1 spec: the rules of somebody"), "{conflicts:?}");
    // An address is nobody of the mesh, and may come all the same.
    assert_eq!(told(&[CONTENTS[8]], &[&web]), [""; 0]);
}
