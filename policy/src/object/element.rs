//! One element of `ingress`, `egress`, `ingressDeny` or `egressDeny`: peers and ports.

use super::{
    fields::{AUTHENTICATION, nearest},
    icmp,
    located::{Findings, Located, Mapping},
    namespace, peers, ports,
    selector::{self, Keys},
    spec::{ElementKind, SpecContext},
};
use crate::{
    diagnostic::quoted,
    rule::{Authentication, Element, PortRule},
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
    let peers = peers::decode(&element, kind, context, findings);
    let requires = element.list(kind.requires, findings).unwrap_or_default();
    let requires = requires
        .iter()
        .filter_map(|item| selector::decode(item, Keys::Written, findings))
        .map(|written| namespace::required_selector(&written, context))
        .collect();
    let ports = ports_and_messages(&element, kind, context, findings);
    let authentication = element.get("authentication").filter(|_| !kind.denies);
    let authentication = authentication.and_then(|at| authentication_mode(&at, findings));
    let decoded = Element { position: at.node.position, peers, requires, ports, authentication };
    if findings.errors() == errors_before {
        warn_of_nothing(&decoded, at, kind, findings);
    }
    Some(decoded)
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

/// `toPorts` or `icmps` (VAL-17); none if both are absent or empty (SEM-25).
fn ports_and_messages(
    element: &Mapping<'_>,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Vec<PortRule>> {
    let ports = element.get("toPorts").and_then(|at| ports::decode(&at, kind, context, findings));
    let messages = element.get("icmps").and_then(|at| icmp::decode(&at, findings));
    if ports.is_some() && messages.is_some() {
        let finding = element.at.error("combines toPorts and icmps").rule("VAL-17");
        findings.add(finding.help("write one element for each: elements are alternatives"));
    }
    ports.or(messages)
}

/// AUTH-1.
fn authentication_mode(at: &Located<'_>, findings: &mut Findings) -> Option<Authentication> {
    let fields = at.mapping(AUTHENTICATION, findings)?;
    let Some(mode) = fields.get("mode") else {
        findings.add_strict(at.error("has no mode").rule("VAL-34").help("write mode: required"));
        return None;
    };
    let word = mode.text(findings)?;
    let known = Authentication::WORDS.into_iter().find(|(known, _)| *known == word);
    if known.is_none() {
        let words = Authentication::WORDS.map(|(word, _)| word);
        let help = match nearest(word, words.into_iter()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write {}", words.join(", ")),
        };
        findings.add_strict(mode.error(format!("unknown mode {}", quoted(word))).rule("VAL-34").help(help));
    }
    known.map(|(_, mode)| mode)
}

/// An element that speaks of nobody is legal. Where that is probably not meant, say so.
fn warn_of_nothing(element: &Element, at: &Located<'_>, kind: &ElementKind, findings: &mut Findings) {
    let verb = if kind.denies { "denies" } else { "allows" };
    let nobody = element.peers.as_ref().is_some_and(|peers| peers.is_empty());
    if nobody && kind.denies && !findings.as_cilium() {
        // Nobody writes a deny to deny nothing, and the one who did would not notice.
        let finding = at.error("its list of peers is empty, so it denies nothing").rule("SEM-23");
        findings.add(finding.help(format!("remove the element, or write {}: [all] for everyone", kind.entities)));
    } else if nobody && (kind.denies || element.ports.is_some()) {
        let finding = at.warning(format!("its list of peers is empty, so it {verb} nothing")).rule("SEM-23");
        findings.add(finding.help(format!("for everyone, write {}: [all]", kind.entities)));
    } else if element.peers.is_none() && element.ports.is_none() && element.requires.is_empty() && kind.denies {
        let finding = at.warning("it has neither peers nor ports, so it denies nothing").rule("SEM-20");
        findings.add(finding.help(format!("to deny everyone, write {}: [all]", kind.entities)));
    } else if element.ports.as_ref().is_some_and(|rules| rules.iter().all(|rule| rule.ports.is_empty())) {
        let finding = at.warning(format!("toPorts names no port, so it {verb} nothing")).rule("SEM-26");
        findings.add(finding.help("for every port, remove toPorts"));
    }
}
