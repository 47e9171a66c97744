//! The lists of peers of an element (VAL-3 … VAL-11).

use super::{
    advice, cidrs,
    fields::{AWS_GROUP, GROUP, nearest},
    located::{Findings, Located, Mapping},
    names, namespace,
    selector::{self, Keys},
    spec::{ElementKind, SpecContext},
};
use crate::{
    diagnostic::quoted,
    entity::Entity,
    label::{SOURCE_NODE, SOURCE_RESERVED},
    rule::Peers,
    selector::{Condition, LabelKey, Requirement, Selector},
};

/// None if no list of peers is written.
pub(super) fn decode(
    element: &Mapping<'_>,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Peers> {
    let endpoints = element.list(kind.endpoints, findings);
    let entities = element.list(kind.entities, findings);
    let ranges = element.list(kind.cidrs, findings);
    let sets = element.list(kind.cidr_sets, findings);
    let nodes = element.list(kind.nodes, findings);
    let is_empty = |list: &Option<Vec<_>>| list.as_ref().is_some_and(Vec::is_empty);
    let mut written = [&endpoints, &entities, &ranges, &sets, &nodes].iter().any(|list| list.is_some());
    let mut peers = Peers {
        empty_selectors: [&endpoints, &nodes].into_iter().any(is_empty),
        empty_ranges: [&entities, &ranges, &sets].into_iter().any(is_empty),
        ..Peers::default()
    };
    let endpoints = endpoints.unwrap_or_default();
    peers.endpoints = endpoints.iter().filter_map(|item| endpoint(item, context, findings)).collect();
    peers.entities = words(&entities.unwrap_or_default(), findings);
    peers.cidrs = ranges.unwrap_or_default().iter().filter_map(|item| cidrs::range(item, findings)).collect();
    peers.cidr_sets = sets.unwrap_or_default().iter().filter_map(|item| cidrs::set(item, findings)).collect();
    peers.nodes = node_selectors(&nodes.unwrap_or_default(), findings);
    for (name, list) in ["toFQDNs", "toServices", kind.groups].map(|name| (name, element.list(name, findings))) {
        let Some(items) = list else { continue };
        written = true;
        match name {
            "toFQDNs" => peers.fqdns = items.iter().filter_map(|item| names::fqdn(item, findings)).collect(),
            "toServices" => peers.services = items.iter().filter_map(|item| names::service(item, findings)).collect(),
            _ => peers.groups = items.iter().filter_map(|item| group(item, findings)).count(),
        }
    }
    written.then_some(peers)
}

/// A selector of endpoints with its namespace (§4.6).
fn endpoint(at: &Located<'_>, context: &SpecContext<'_>, findings: &mut Findings) -> Option<Selector> {
    let written = selector::decode(at, Keys::Written, findings)?;
    let selector = namespace::peer_selector(&written, context);
    advice::on_selector(&written, &selector, context.scope, at, findings);
    Some(selector)
}

/// VAL-7: words of §2.4.
fn words(items: &[Located<'_>], findings: &mut Findings) -> Vec<Entity> {
    let mut entities = Vec::new();
    for item in items {
        let Some(word) = item.text(findings) else { continue };
        if let Some(entity) = Entity::from_word(word) {
            entities.push(entity);
            continue;
        }
        let known = Entity::ALL.map(Entity::word);
        let help = match nearest(word, known.into_iter()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known entities: {}", known.join(", ")),
        };
        findings.add(item.error(format!("unknown entity {}", quoted(word))).rule("VAL-7").help(help));
    }
    entities
}

/// NS-7: labels of nodes, and of nothing else. Cilium refuses them unless an option is set (VAL-6).
fn node_selectors(items: &[Located<'_>], findings: &mut Findings) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for item in items {
        if findings.as_cilium() {
            findings.add(item.error("selectors of nodes are switched off").rule("VAL-6"));
        }
        let Some(written) = selector::decode(item, Keys::Of(SOURCE_NODE), findings) else { continue };
        let node = Requirement { key: LabelKey::new(SOURCE_RESERVED, "remote-node"), condition: Condition::Exists };
        selectors.push(written.labels.into_iter().chain(written.expressions).chain([node]).collect());
    }
    selectors
}

/// A group of a cloud provider: checked, and counted only.
fn group(at: &Located<'_>, findings: &mut Findings) -> Option<()> {
    let group = at.mapping(GROUP, findings)?;
    if let Some(aws) = group.get("aws") {
        let aws = aws.mapping(AWS_GROUP, findings)?;
        for name in ["securityGroupsIds", "securityGroupsNames"] {
            aws.texts(name, findings);
        }
        aws.text("region", findings);
        if let Some(labels) = aws.get("labels") {
            for (_, value) in labels.pairs(findings)? {
                value.text(findings);
            }
        }
    }
    Some(())
}
