//! One element of `ingress`, `egress`, `ingressDeny` or `egressDeny`: peers and ports.

use super::{
    fields::nearest,
    located::{Findings, Located, Mapping},
    namespace, ports, selector,
    spec::{ElementKind, SpecContext},
};
use crate::{
    diagnostic::quoted,
    entity::Entity,
    rule::{Element, Peers},
    selector::Selector,
};

pub(super) fn decode(
    at: &Located<'_>,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Element> {
    let errors_before = findings.errors();
    let element = at.mapping(kind.fields, findings)?;
    check_exclusive(&element, kind, findings);
    let endpoints = element.get(kind.endpoints);
    let entities = element.get(kind.entities);
    let peers = (endpoints.is_some() || entities.is_some()).then(|| Peers {
        endpoints: endpoints.map(|at| selectors(&at, context, findings)).unwrap_or_default(),
        entities: entities.map(|at| words(&at, findings)).unwrap_or_default(),
    });
    let ports = element.get("toPorts").and_then(|at| ports::decode(&at, kind.denies, findings));
    let element = Element { position: at.node.position, peers, ports };
    if findings.errors() == errors_before {
        warn_of_nothing(&element, at, kind, findings);
    }
    Some(element)
}

/// VAL-4, VAL-5: one element has one kind of peers.
fn check_exclusive(element: &Mapping<'_>, kind: &ElementKind, findings: &mut Findings) {
    let (exclusive, rule) = kind.exclusive;
    let filled = element.filled(exclusive);
    if filled.len() > 1 {
        let finding = element.at.error(format!("combines {}", filled.join(" and "))).rule(rule);
        findings.add(finding.help("write one element for each: elements are alternatives"));
    }
}

fn selectors(at: &Located<'_>, context: &SpecContext<'_>, findings: &mut Findings) -> Vec<Selector> {
    let items = at.items(findings).unwrap_or_default();
    let decoded = items.iter().filter_map(|item| selector::decode(item, findings));
    decoded.map(|written| namespace::peer_selector(written, context)).collect()
}

/// VAL-7: words of §2.4.
fn words(at: &Located<'_>, findings: &mut Findings) -> Vec<Entity> {
    let mut entities = Vec::new();
    for item in at.items(findings).unwrap_or_default() {
        let Some(word) = item.text(findings) else { continue };
        match Entity::from_word(word) {
            Some(entity) => entities.push(entity),
            None if Entity::PLANNED.contains(&word) => {
                findings.add(item.error(format!("entity {} is not supported yet", quoted(word))));
            }
            None => {
                let known = Entity::ALL.map(Entity::word);
                let help = match nearest(word, known.into_iter().chain(Entity::PLANNED)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known entities: {}", known.join(", ")),
                };
                findings.add(item.error(format!("unknown entity {}", quoted(word))).rule("VAL-7").help(help));
            }
        }
    }
    entities
}

/// An element that speaks of nobody is legal. Where that is probably not meant, say so.
fn warn_of_nothing(element: &Element, at: &Located<'_>, kind: &ElementKind, findings: &mut Findings) {
    let verb = if kind.denies { "denies" } else { "allows" };
    let nobody = element.peers.as_ref().is_some_and(|peers| peers.endpoints.is_empty() && peers.entities.is_empty());
    if nobody && (kind.denies || element.ports.is_some()) {
        let finding = at.warning(format!("its list of peers is empty, so it {verb} nothing")).rule("SEM-23");
        findings.add(finding.help(format!("for everyone, write {}: [all]", kind.entities)));
    } else if element.peers.is_none() && element.ports.is_none() && kind.denies {
        let finding = at.warning("it has neither peers nor ports, so it denies nothing").rule("SEM-20");
        findings.add(finding.help(format!("to deny everyone, write {}: [all]", kind.entities)));
    } else if element.ports.as_ref().is_some_and(Vec::is_empty) {
        let finding = at.warning(format!("toPorts names no port, so it {verb} nothing")).rule("SEM-26");
        findings.add(finding.help("for every port, remove toPorts"));
    }
}
