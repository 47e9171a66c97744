//! Labels and selectors: each line is a label, a `key=value` of `matchLabels` and, with two more words, a
//! `key operator value,value` of `matchExpressions`.

use std::collections::BTreeSet;

use ringfence_policy::{
    identity::Identity,
    label::{Label, LabelSet, MAX_LABEL_BYTES},
    object::parse_objects,
    rule::Subject,
    selector::{Condition, Requirement, Selector},
};
use serde_json::{Map, Value, json};

const MOST_LINES: usize = 256;
/// Of so many lines selectors are made: each is an object of its own.
const MOST_SELECTORS: usize = 9;
const KINDS: [&str; 3] = ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy"];
/// The longest source that parsing adds by itself: `reserved:`.
const LONGEST_ADDED_SOURCE: usize = 9;

/// Reads every line as a label and as a requirement, and asks every selector for every label set.
pub(crate) fn exercise(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').take(MOST_LINES).collect();
    lines.iter().for_each(|line| label(line));
    let sets = [label_set(&lines), lines.iter().filter_map(|line| Label::parse(line).ok()).collect()];
    let selectors: Vec<Selector> = lines
        .iter()
        .take(MOST_SELECTORS)
        .zip(KINDS.iter().cycle())
        .flat_map(|(line, kind)| selectors(line, kind))
        .collect();
    for set in sets.iter().chain([&LabelSet::default()]) {
        for selector in &selectors {
            selects(selector, set);
        }
    }
}

/// LBL-1 … LBL-5: what is accepted prints as a text that is the same label.
fn label(line: &str) {
    let Ok(label) = Label::parse(line) else { return };
    assert!(!label.key.is_empty() && !label.key.contains('='), "{label:?}");
    assert!(!label.source.is_empty() && !label.source.contains(':'), "{label:?}");
    if line.len() + LONGEST_ADDED_SOURCE <= MAX_LABEL_BYTES {
        assert_eq!(Label::parse(&label.to_string()).as_ref(), Ok(&label), "{line:?}");
    }
}

/// LBL-7: the canonical text holds the whole set, so different sets have different texts.
fn label_set(lines: &[&str]) -> LabelSet {
    let Ok(set) = LabelSet::parse(lines) else { return LabelSet::default() };
    assert_eq!(set.len(), lines.len());
    let short = |line: &&str| line.len() + LONGEST_ADDED_SOURCE < MAX_LABEL_BYTES;
    if lines.iter().all(short) {
        let canonical = set.canonical();
        let again = LabelSet::parse(canonical.split_terminator(';'));
        assert_eq!(again.as_ref(), Ok(&set), "{canonical}");
        assert_eq!(again.map(|set| set.canonical()), Ok(canonical));
    }
    set
}

/// The selectors of objects of a kind that have the line in each place where selectors stand.
fn selectors(line: &str, kind: &str) -> Vec<Selector> {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let labels: Map<String, Value> = Map::from_iter([(key.to_owned(), json!(value))]);
    let mut words = line.split(' ');
    let (key, operator) = (words.next(), words.next());
    let values: Vec<&str> = words.next().map(|values| values.split(',').collect()).unwrap_or_default();
    let expression = json!({"key": key, "operator": operator, "values": values});
    let mut found = Vec::new();
    for written in [json!({"matchLabels": labels}), json!({"matchExpressions": [expression]})] {
        for rule in parse_objects(&object(kind, &written)).objects.into_iter().flat_map(|object| object.rules) {
            let peers = rule.elements().filter_map(|(_, _, element)| element.peers.as_ref());
            found.extend(peers.flat_map(|peers| peers.endpoints.iter().cloned()));
            let (Subject::Endpoints(subject) | Subject::Nodes(subject)) = rule.subject;
            found.push(subject);
        }
    }
    found
}

fn object(kind: &str, selector: &Value) -> String {
    let (version, spec) = match kind {
        "NetworkPolicy" => (
            "networking.k8s.io/v1",
            json!({"podSelector": selector, "ingress": [{"from": [
                {"podSelector": selector, "namespaceSelector": selector}, {"namespaceSelector": selector},
            ]}]}),
        ),
        _ => ("cilium.io/v2", json!({"endpointSelector": selector, "ingress": [{"fromEndpoints": [selector]}]})),
    };
    let mut metadata = json!({"name": "a"});
    if kind != "CiliumClusterwideNetworkPolicy" {
        metadata["namespace"] = json!("b");
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
}

/// LBL-12, LBL-15, S12: each requirement is the opposite of its negation, all of them count, and only the wildcard
/// selects who has no labels.
fn selects(selector: &Selector, set: &LabelSet) {
    let each = |requirement: &Requirement| {
        let matches = requirement.matches(set);
        let opposite = Requirement { key: requirement.key.clone(), condition: negated(&requirement.condition) };
        assert_ne!(opposite.matches(set), matches, "{requirement:?} {set}");
        matches
    };
    let each: Vec<bool> = selector.requirements().map(each).collect();
    assert_eq!(selector.matches(set), !each.contains(&false), "{selector:?} {set}");
    let unknown = selector.selects(Identity::UNKNOWN, &LabelSet::default());
    assert_eq!(unknown, selector.is_wildcard(), "{selector:?}");
}

fn negated(condition: &Condition) -> Condition {
    match condition {
        Condition::Is(value) => Condition::NotIn(BTreeSet::from([value.clone()])),
        Condition::In(values) => Condition::NotIn(values.clone()),
        Condition::NotIn(values) => Condition::In(values.clone()),
        Condition::Exists => Condition::DoesNotExist,
        Condition::DoesNotExist => Condition::Exists,
    }
}
