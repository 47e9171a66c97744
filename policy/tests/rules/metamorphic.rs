//! Changes of objects that change no verdict: order, names, how rules are spread over objects, rules for nobody. The
//! whole outcome counts, with what the proxy is told and what is asked to be proved. `RINGFENCE_WORLDS` sets how many
//! worlds are generated.

use proptest::prelude::*;
use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    evaluate::{Conflict, Decision, Outcome, SubjectPolicy},
    flow::{Direction, Flow, protocol},
    label::LabelSet,
    object::parse_documents,
    record::NamedPort,
    rule::{Authentication, Element, Rule, Section, Subject},
    selector::{LabelKey, Requirement, Selector},
    world::{Settings, World},
};

use crate::{
    properties::worlds,
    scene::{PODS, identity, labels, name},
};

/// Elements that meet in many ways; FROM stands for from or to.
const PEERS: [&str; 12] = [
    "",
    "FROMEndpoints: [{}], ",
    "FROMEndpoints: [{matchLabels: {app: api}}], ",
    "FROMEndpoints: [{matchLabels: {app: api}}, {matchLabels: {tier: front}}], ",
    "FROMEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}], ",
    "FROMEntities: [all], ",
    "FROMEntities: [world, host], ",
    "FROMEntities: [cluster], ",
    "FROMCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}], ",
    "FROMCIDR: [10.1.0.0/16, 0.0.0.0/0], ",
    "FROMEndpoints: [{matchLabels: {app: api}}], FROMRequires: [{matchLabels: {tier: front}}], ",
    "FROMEndpoints: [], ",
];
const PORTS: [&str; 12] = [
    "",
    "{port: '80', protocol: TCP}",
    "{port: '80', protocol: ANY}",
    "{port: '70', endPort: 90, protocol: TCP}",
    "{port: '0', protocol: TCP}",
    "{port: web, protocol: TCP}",
    "{port: '80', protocol: TCP}], rules: {http: [{method: GET}]",
    "{port: '80', protocol: TCP}], rules: {http: [{method: PUT}, {path: /a}]",
    "{port: '64', endPort: 95, protocol: TCP}], rules: {http: [{method: GET}]",
    "{port: '80', protocol: TCP}], rules: {kafka: [{topic: a}]",
    "{port: '53', protocol: ANY}], rules: {dns: [{matchName: a.b}]",
    "{port: '80', protocol: TCP}], serverNames: [a.example.com",
];
const LISTENERS: [(&str, u8); 3] = [("a", 5), ("b", 5), ("c", 3)];
const PROOFS: [&str; 4] = ["", "", "authentication: {mode: required}", "authentication: {mode: disabled}"];

fn element(denies: bool, ingress: bool) -> impl Strategy<Value = String> {
    (0..PEERS.len(), 0..PORTS.len() + LISTENERS.len(), 0..PROOFS.len()).prop_map(move |(peers, ports, proof)| {
        // What a deny has no place for, and what is refused.
        let peers = PEERS[if denies && peers == PEERS.len() - 1 { 0 } else { peers }];
        let ports = match PORTS.get(ports) {
            Some(ports) if denies && ports.contains(']') => "{port: '80', protocol: TCP}".to_owned(),
            Some(ports) if ingress && ports.contains("dns") => String::new(),
            Some(ports) if ports.contains("serverNames") => format!("{ports}]"),
            Some(ports) if ports.contains("rules") => format!("{ports}}}"),
            Some(ports) => (*ports).to_owned(),
            None if ingress || denies => String::new(),
            None => {
                let (listener, priority) = LISTENERS[ports - PORTS.len()];
                format!(
                    "{{port: '80', protocol: TCP}}], listener: {{envoyConfig: {{kind: CiliumClusterwideEnvoyConfig, \
                     name: c}}, name: {listener}, priority: {priority}}}"
                )
            }
        };
        let ports = match ports.as_str() {
            "" => String::new(),
            ports if ports.contains(']') => format!("toPorts: [{{ports: [{ports}}}], "),
            ports => format!("toPorts: [{{ports: [{ports}]}}], "),
        };
        let proof = if denies { "" } else { PROOFS[proof] };
        let text = format!("{peers}{ports}{proof}").replace("FROM", if ingress { "from" } else { "to" });
        format!("{{{}}}", text.trim_end_matches(", "))
    })
}

fn list(name: &'static str, weight: f64) -> impl Strategy<Value = String> {
    let elements = proptest::collection::vec(element(name.ends_with("Deny"), name.starts_with("ingress")), 1..4);
    proptest::option::weighted(weight, elements)
        .prop_map(move |list| list.map_or_else(String::new, |list| format!(", {name}: [{}]", list.join(", "))))
}

fn rules() -> impl Strategy<Value = (Compat, Vec<Rule>)> {
    let default = prop_oneof![
        4 => Just(""), 1 => Just(", enableDefaultDeny: {ingress: false}"), 1 => Just(", enableDefaultDeny: {egress: false}")
    ];
    let kind = prop_oneof![
        3 => Just("kind: CiliumNetworkPolicy, metadata: {namespace: shop, "),
        1 => Just("kind: CiliumClusterwideNetworkPolicy, metadata: {"),
    ];
    let subject = prop_oneof![3 => Just("{matchLabels: {app: web}}"), 1 => Just("{}")];
    let lists = (list("ingress", 0.7), list("ingressDeny", 0.3), list("egress", 0.7), list("egressDeny", 0.2));
    let object = (kind, subject, default, lists).prop_map(|(kind, subject, default, (a, b, c, d))| {
        format!("{{apiVersion: cilium.io/v2, {kind}name: NAME}}, spec: {{endpointSelector: {subject}{default}{a}{b}{c}{d}}}}}")
    });
    let compat = prop_oneof![Just(Compat::Ringfence), Just(Compat::Cilium)];
    (compat, proptest::collection::vec(object, 1..5)).prop_map(|(compat, texts)| {
        let named = texts.iter().enumerate().map(|(index, text)| text.replace("NAME", &format!("p{index}")));
        let text = named.collect::<Vec<_>>().join("\n---\n");
        let parsed = parse_documents(&text, compat);
        assert!(!parsed.has_errors(), "{:#?}\n{text}", parsed.diagnostics);
        (compat, parsed.objects.into_iter().flat_map(|object| object.rules).collect())
    })
}

/// Who is asked about: labels of pods, and addresses.
fn peers() -> Vec<(ringfence_policy::identity::Identity, LabelSet)> {
    let mut peers: Vec<_> = PODS.iter().map(|(pod, ..)| (identity(pod), labels(identity(pod)))).collect();
    peers.push((identity("world-ipv4"), labels(identity("world-ipv4"))));
    for range in ["10.0.0.0/8", "10.1.0.0/16"] {
        let labels = LabelSet::parse([&format!("cidr:{range}"), "reserved:world-ipv4"]).unwrap();
        peers.push((AddressBook::LOCAL, labels));
    }
    peers
}

fn world() -> World {
    let web = |port| NamedPort { name: "web".into(), protocol: protocol::TCP, port };
    World { own_ports: vec![web(80)], peer_ports: vec![web(80), web(81)], ..World::default() }
}

type Outcomes = Result<Vec<Outcome>, ()>;

/// What becomes of every flow. Which contradiction is met first may depend on the order, and that there is one may not.
fn outcomes(compat: Compat, rules: &[Rule]) -> Outcomes {
    of_relabelled(compat, rules, &|labels| labels.clone(), &|direction| direction)
}

fn of_relabelled(
    compat: Compat,
    rules: &[Rule],
    relabel: &dyn Fn(&LabelSet) -> LabelSet,
    turn: &dyn Fn(Direction) -> Direction,
) -> Outcomes {
    // Without localhost both directions are alike (SEM-50).
    let settings = Settings { allow_localhost: false, ..Settings::new(name("east"), compat) };
    let web = identity("web");
    let world = world();
    let world = match turn(Direction::Ingress) {
        Direction::Ingress => world,
        Direction::Egress => World { own_ports: world.peer_ports, peer_ports: world.own_ports, ..World::default() },
    };
    let policy = SubjectPolicy::resolve(&settings, &world, rules, web, &relabel(&labels(web)));
    let policy = policy.map_err(|_: Conflict| ())?;
    let mut all = Vec::new();
    for (peer, labels) in peers() {
        for direction in [Direction::Ingress, Direction::Egress].map(turn) {
            for (protocol, port) in [
                (protocol::TCP, 80),
                (protocol::TCP, 75),
                (protocol::TCP, 81),
                (protocol::UDP, 53),
                (protocol::ICMP, 8),
            ] {
                let flow = Flow { subject: web, peer, direction, protocol, port };
                all.push(policy.judge(&flow, &relabel(&labels)));
            }
        }
    }
    Ok(all)
}

/// Cilium's CONF-5 depends on the order (`docs/deviations.md`).
fn is_ordered(compat: Compat, rules: &[Rule]) -> bool {
    let names = |rule: &Rule| {
        rule.elements()
            .any(|(_, _, element)| element.ports.iter().flatten().any(|rule| !rule.proxy.server_names.is_empty()))
    };
    compat == Compat::Cilium && rules.iter().any(names)
}

/// Each list turned round.
fn reversed(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.reverse();
    for section in rules.iter_mut().flat_map(|rule| [&mut rule.ingress, &mut rule.egress]) {
        for list in [&mut section.allow, &mut section.deny].into_iter().flatten() {
            list.reverse();
            for element in list {
                element.ports.iter_mut().for_each(|ports| ports.reverse());
                element.ports.iter_mut().flatten().for_each(|rule| rule.ports.reverse());
                element.peers.iter_mut().for_each(|peers| peers.endpoints.reverse());
                element.peers.iter_mut().for_each(|peers| peers.entities.reverse());
            }
        }
    }
    rules
}

/// One rule for each element; a section keeps what it says about the rest.
fn split(rules: &[Rule]) -> Vec<Rule> {
    let mut all = Vec::new();
    for rule in rules {
        let nothing = Rule { ingress: Section::default(), egress: Section::default(), ..rule.clone() };
        for direction in [Direction::Ingress, Direction::Egress] {
            let section = rule.section(direction);
            let with = |allow: Option<Vec<Element>>, deny: Option<Vec<Element>>| {
                let section = Section { allow, deny, default_deny: section.default_deny };
                match direction {
                    Direction::Ingress => Rule { ingress: section, ..nothing.clone() },
                    Direction::Egress => Rule { egress: section, ..nothing.clone() },
                }
            };
            all.extend(section.allow.iter().flatten().map(|element| with(Some(vec![element.clone()]), None)));
            all.extend(section.deny.iter().flatten().map(|element| with(None, Some(vec![element.clone()]))));
            if section.allow.is_none() && section.deny.is_none() {
                all.push(with(None, None));
            }
        }
    }
    all
}

/// Every selector with other keys and values of the labels that people choose.
fn renamed(rules: &[Rule]) -> Vec<Rule> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        if let Subject::Endpoints(selector) = &mut rule.subject {
            *selector = renamed_selector(selector);
        }
        for section in [&mut rule.ingress, &mut rule.egress] {
            for element in [&mut section.allow, &mut section.deny].into_iter().flatten().flatten() {
                element.requires.iter_mut().for_each(|selector| *selector = renamed_selector(selector));
                let endpoints = element.peers.iter_mut().flat_map(|peers| &mut peers.endpoints);
                endpoints.for_each(|selector| *selector = renamed_selector(selector));
            }
        }
    }
    rules
}

fn new_key(key: &str) -> String {
    // Before everything else in order, where the old ones were behind.
    if matches!(key, "app" | "tier") { format!("0-{}", key.chars().rev().collect::<String>()) } else { key.to_owned() }
}

fn new_value(value: &str) -> String {
    // Turns the order of values round.
    value
        .bytes()
        .map(|byte| if byte.is_ascii_lowercase() { char::from(b'z' - (byte - b'a')) } else { char::from(byte) })
        .collect()
}

fn renamed_selector(selector: &Selector) -> Selector {
    use ringfence_policy::selector::Condition::{DoesNotExist, Exists, In, Is, NotIn};
    let renamed = |requirement: &Requirement| {
        let key = &requirement.key;
        if new_key(&key.key) == key.key {
            return requirement.clone();
        }
        let values =
            |values: &std::collections::BTreeSet<String>| values.iter().map(|value| new_value(value)).collect();
        let condition = match &requirement.condition {
            Is(value) => Is(new_value(value)),
            In(of) => In(values(of)),
            NotIn(of) => NotIn(values(of)),
            Exists => Exists,
            DoesNotExist => DoesNotExist,
        };
        Requirement { key: LabelKey::new(&key.source, new_key(&key.key)), condition }
    };
    selector.requirements().map(renamed).collect()
}

fn renamed_labels(labels: &LabelSet) -> LabelSet {
    labels
        .iter()
        .map(|label| {
            let key = new_key(&label.key);
            let value = if key == label.key { label.value.to_string() } else { new_value(&label.value) };
            ringfence_policy::label::Label::new(&label.source, key, value)
        })
        .collect()
}

/// Ingress for egress.
fn turned(rules: &[Rule]) -> Vec<Rule> {
    let turned = |rule: &Rule| Rule { ingress: rule.egress.clone(), egress: rule.ingress.clone(), ..rule.clone() };
    rules.iter().map(turned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: worlds(), ..ProptestConfig::default() })]

    #[test]
    fn sem_40_no_order_matters((compat, rules) in rules()) {
        prop_assume!(!is_ordered(compat, &rules));
        prop_assert_eq!(outcomes(compat, &rules), outcomes(compat, &reversed(rules)));
    }

    /// REQ-1 counts over all rules, so this does not change when they are spread.
    #[test]
    fn sem_42_how_elements_are_spread_over_rules_does_not_matter((compat, rules) in rules()) {
        prop_assume!(!is_ordered(compat, &rules));
        // SEM-5: a rule that does not deny by default says so for each of its elements.
        prop_assert_eq!(outcomes(compat, &rules), outcomes(compat, &split(&rules)));
    }

    #[test]
    fn sem_40_saying_it_twice_says_no_more((compat, rules) in rules()) {
        let twice: Vec<Rule> = rules.iter().chain(&rules).cloned().collect();
        prop_assume!(!is_ordered(compat, &rules));
        prop_assert_eq!(outcomes(compat, &rules), outcomes(compat, &twice));
    }

    #[test]
    fn sem_42_rules_for_nobody_here_do_not_matter((compat, rules) in rules(), others in rules()) {
        let nobody = Selector::label("k8s", "of-nobody");
        let others = others.1.into_iter().map(|rule| Rule { subject: Subject::Endpoints(nobody.clone()), ..rule });
        let more: Vec<Rule> = others.chain(rules.iter().cloned()).collect();
        prop_assert_eq!(outcomes(compat, &rules), outcomes(compat, &more));
    }

    #[test]
    fn aud_5_rules_under_audit_do_not_matter((compat, rules) in rules(), others in rules()) {
        let watched = others.1.into_iter().map(|rule| Rule { audit: true, ..rule });
        let more: Vec<Rule> = watched.chain(rules.iter().cloned()).collect();
        let decisions = |rules: &[Rule]| {
            outcomes(compat, rules).map(|all| all.into_iter().map(|outcome| outcome.decision).collect::<Vec<_>>())
        };
        prop_assert_eq!(decisions(&rules), decisions(&more));
        // And the shadow is what would be without audit.
        let counted: Vec<Rule> = more.iter().map(|rule| Rule { audit: false, ..rule.clone() }).collect();
        if let (Ok(shadows), Ok(counted)) = (outcomes(compat, &more), outcomes(compat, &counted)) {
            for (outcome, counted) in shadows.into_iter().zip(counted) {
                prop_assert_eq!(outcome.shadow.unwrap_or(Ok(outcome.decision)), Ok(counted.decision));
            }
        }
    }

    #[test]
    fn lbl_names_of_labels_do_not_matter((compat, rules) in rules()) {
        prop_assume!(!is_ordered(compat, &rules));
        let after = of_relabelled(compat, &renamed(&rules), &renamed_labels, &|direction| direction);
        prop_assert_eq!(outcomes(compat, &rules), after);
    }

    #[test]
    fn both_directions_are_alike((compat, rules) in rules()) {
        // REQ-1 and all else alike: only what names mean differs (PORT-4), and is turned, too.
        let turn = |direction| match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let after = of_relabelled(compat, &turned(&rules), &Clone::clone, &turn);
        prop_assert_eq!(outcomes(compat, &rules), after);
    }

    /// A pod that no selector tells from another meets the same (S12 aside).
    #[test]
    fn lbl_labels_that_nobody_names_do_not_matter((compat, rules) in rules()) {
        let more = |labels: &LabelSet| {
            let mut labels = labels.clone();
            if labels.iter().any(|label| label.source == "k8s") {
                labels.insert(ringfence_policy::label::Label::new("k8s", "build", "7"));
            }
            labels
        };
        prop_assert_eq!(outcomes(compat, &rules), of_relabelled(compat, &rules, &more, &|direction| direction));
    }
}

/// Contradictions are alike too easily: most worlds must have outcomes, of every kind.
#[test]
fn the_worlds_are_worth_asking() {
    use proptest::{
        strategy::{Strategy as _, ValueTree as _},
        test_runner::TestRunner,
    };
    let mut runner = TestRunner::deterministic();
    let worlds: Vec<_> = (0..200).map(|_| rules().new_tree(&mut runner).unwrap().current()).collect();
    let resolved: Vec<Outcome> =
        worlds.iter().filter_map(|(compat, rules)| outcomes(*compat, rules).ok()).flatten().collect();
    let each = outcomes(Compat::Ringfence, &[]).unwrap().len();
    assert!(resolved.len() / each > 100, "{} of 200 worlds resolve", resolved.len() / each);
    let share = |is: &dyn Fn(&Decision) -> bool| {
        resolved.iter().filter(|outcome| is(&outcome.decision)).count() * 100 / resolved.len()
    };
    let redirected = share(&|decision| matches!(decision, Decision::Redirect(_)));
    let refused = share(&|decision| *decision == Decision::DenyDefault);
    let denied = share(&|decision| *decision == Decision::DenyExplicit);
    let proved = share(
        &|decision| matches!(decision, Decision::Allow { authentication } if *authentication != Authentication::Disabled),
    );
    assert!(redirected > 2 && refused > 10 && denied > 5 && proved > 1, "{redirected} {refused} {denied} {proved}");
}
