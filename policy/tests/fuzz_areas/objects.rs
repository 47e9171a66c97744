//! Policy objects: the whole input is one text.

use std::collections::BTreeSet;

use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    evaluate::{Decision, SubjectPolicy},
    flow::{Direction, Flow, protocol},
    identity::Identity,
    l7::{
        dns_name::DnsName,
        dns_rule::DnsMatchers,
        http_matcher::{HttpMatchers, HttpRequest},
        secret::Secrets,
    },
    label::{Label, LabelSet, SOURCE_ANY, SOURCE_K8S},
    name::Name,
    object::{Object, not_enforceable, parse_documents, parse_objects, parse_record},
    record::PolicyRecord,
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::{PortNumber, Rule, Subject},
    selector::{Condition, Requirement, Selector},
    world::{Enforcement, Settings, World},
};

/// So many of the peers and ports that the rules name are asked for.
const MOST_ASKED: usize = 8;
const PROTOCOLS: [u8; 6] = [protocol::ICMP, protocol::TCP, protocol::UDP, protocol::ICMPV6, protocol::SCTP, u8::MAX];

/// Parses the text; what is accepted survives the store, and can be evaluated.
pub(crate) fn exercise(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parsed = parse_objects(&text);
    assert_eq!(parse_objects(&text), parsed, "equal texts, equal results");
    for finding in &parsed.diagnostics {
        assert!(finding.position.line > 0 && finding.position.column > 0, "{finding}");
        assert!(!finding.message.is_empty());
    }
    let read = !text.trim_matches(['\u{feff}', ' ', '\n', '\r', '\t']).is_empty();
    assert!(read || parsed.objects.is_empty());
    for object in &parsed.objects {
        stored(object);
        let _ = not_enforceable(object);
    }
    let rules: Vec<&Rule> = parsed.objects.iter().flat_map(|object| &object.rules).collect();
    evaluated(&rules, Compat::Ringfence);
    let parsed = parse_documents(&text, Compat::Cilium);
    let rules: Vec<&Rule> = parsed.objects.iter().flat_map(|object| &object.rules).collect();
    evaluated(&rules, Compat::Cilium);
}

/// The record of an object is read as the same object, again and again; only positions may move, and only once.
fn stored(object: &Object) {
    let record = PolicyRecord { key: object.key.clone(), text: object.text.clone() };
    let again = match parse_record(&record) {
        Ok(again) => again,
        Err(findings) => panic!("{} is not read again: {findings:?}\n{:?}", object.key, object.text),
    };
    assert_eq!(again.text, object.text);
    assert_eq!(without_positions(&again.rules), without_positions(&object.rules));
    let record = PolicyRecord { key: again.key.clone(), text: again.text.clone() };
    assert_eq!(parse_record(&record), Ok(again));
}

fn without_positions(rules: &[Rule]) -> String {
    let printed = format!("{rules:?}");
    let mut parts = printed.split("Position {");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.map(|part| part.split_once('}').map_or("", |(_, rest)| rest)).fold(first, |all, part| all + part)
}

/// Asks for every subject, peer and port that the rules bring up, and for some that they do not.
fn evaluated(rules: &[&Rule], compat: Compat) {
    let settings = Settings { host_firewall: true, ..Settings::new(Name::new("east").expect("a name"), compat) };
    let never = Settings { enforcement: Enforcement::Never, ..settings.clone() };
    let reversed = || rules.iter().rev().copied();
    let world = World::default();
    let (peers, ports) = (peers(rules), ports(rules));
    for (subject, labels) in subjects(rules) {
        let policy = SubjectPolicy::resolve(&settings, &world, rules.iter().copied(), subject, &labels);
        let backwards = SubjectPolicy::resolve(&settings, &world, reversed(), subject, &labels);
        assert_eq!(policy.is_err(), backwards.is_err(), "SEM-40: the order of rules never matters");
        let (Ok(policy), Ok(backwards)) = (policy, backwards) else { continue };
        let unenforced = SubjectPolicy::resolve(&never, &world, rules.iter().copied(), subject, &labels);
        for (peer, labels) in &peers {
            for direction in [Direction::Ingress, Direction::Egress] {
                for (protocol, port) in PROTOCOLS.iter().flat_map(|p| ports.iter().map(|port| (*p, *port))) {
                    let flow = Flow { subject, peer: *peer, direction, protocol, port };
                    let decision = policy.decide(&flow, labels);
                    let other = backwards.decide(&flow, labels);
                    assert_eq!(decision.verdict(), other.verdict(), "SEM-40: {flow:?} {labels}");
                    let unenforced = unenforced.as_ref().map(|policy| policy.decide(&flow, labels));
                    assert_eq!(unenforced, Ok(Decision::ALLOW), "enforcement never");
                    redirected(&decision);
                }
            }
        }
    }
}

/// What a proxy does with a redirect.
fn redirected(decision: &Decision) {
    let Decision::Redirect(redirect) = decision else { return };
    if let Some(http) = &redirect.rules.http {
        let matchers = HttpMatchers::compile(http, &Secrets::default());
        let _ = matchers.judge(&HttpRequest::new("GET", "/a?b", "shop")).allowed();
    }
    if let Some(dns) = &redirect.rules.dns {
        let _ = DnsMatchers::compile(dns).allows(&DnsName::new("api.example.com"));
    }
}

/// The node, a pod without a rule, and one subject for each of the first rules.
fn subjects(rules: &[&Rule]) -> Vec<(Identity, LabelSet)> {
    let of = |rule: &&Rule| match &rule.subject {
        Subject::Endpoints(selector) => (AddressBook::LOCAL, chosen(selector)),
        Subject::Nodes(selector) => (Identity::HOST, chosen(selector)),
    };
    let own = rules.iter().take(MOST_ASKED).map(of);
    let others = [(Identity::HOST, reserved_labels(Identity::HOST)), (AddressBook::LOCAL, chosen(&Selector::WILDCARD))];
    others.into_iter().chain(own).collect()
}

fn peers(rules: &[&Rule]) -> Vec<(Identity, LabelSet)> {
    let mut addresses = AddressBook::new(true, false);
    addresses.add_ranges(rules.iter().copied());
    let named = || rules.iter().flat_map(|rule| rule.elements()).filter_map(|(_, _, element)| element.peers.as_ref());
    let selectors = named().flat_map(|peers| &peers.endpoints).take(MOST_ASKED);
    let ranges = named().flat_map(|peers| peers.ranges()).take(MOST_ASKED);
    let in_ranges = ranges.map(|range| addresses.labels(range.address()));
    RESERVED_PEERS
        .into_iter()
        .map(|peer| (peer, reserved_labels(peer)))
        .chain([(Identity::UNKNOWN, LabelSet::default())])
        .chain(selectors.map(|selector| (AddressBook::LOCAL, chosen(selector))))
        .chain(in_ranges.map(|labels| (AddressBook::identity(&labels), labels)))
        .collect()
}

fn ports(rules: &[&Rule]) -> BTreeSet<u16> {
    let written = rules.iter().flat_map(|rule| rule.elements()).filter_map(|(_, _, element)| element.ports.as_ref());
    let ends = written.flatten().flat_map(|rule| &rule.ports).flat_map(|port| match &port.number {
        PortNumber::Range { first, last } => [*first, *last],
        PortNumber::Named { last, .. } => [*last, *last],
    });
    ends.take(2 * MOST_ASKED).chain([0, 80, u16::MAX]).collect()
}

/// Labels that meet the requirements of a selector, if they do not contradict each other.
fn chosen(selector: &Selector) -> LabelSet {
    let label = |requirement: &Requirement| {
        let value = match &requirement.condition {
            Condition::Is(value) => value.clone(),
            Condition::In(values) => values.first().cloned().unwrap_or_default(),
            Condition::Exists => String::new(),
            Condition::NotIn(_) | Condition::DoesNotExist => return None,
        };
        let source = if requirement.key.source == SOURCE_ANY { SOURCE_K8S } else { &requirement.key.source };
        Some(Label::new(source, requirement.key.key.clone(), value))
    };
    let own = Label::new(SOURCE_K8S, "io.cilium.k8s.policy.cluster", "east");
    [own].into_iter().chain(selector.requirements().filter_map(label)).collect()
}
