//! One `spec`: a subject, and what is said about it.

use super::{
    element,
    envelope::Scope,
    fields::{EGRESS, EGRESS_DENY, EGRESS_PEERS, Field, INGRESS, INGRESS_DENY, INGRESS_PEERS, SPEC},
    located::{Findings, Located, Mapping},
    namespace, selector,
};
use crate::{
    rule::{Element, Rule, Section},
    selector::Selector,
};

/// How the elements of one of the four lists are read.
pub(super) struct ElementKind {
    pub(super) fields: &'static [Field],
    pub(super) endpoints: &'static str,
    pub(super) entities: &'static str,
    /// The lists of peers that exclude each other, and the rule that says so.
    pub(super) exclusive: (&'static [&'static str], &'static str),
    pub(super) denies: bool,
}

const INGRESS_KIND: ElementKind = ElementKind {
    fields: INGRESS,
    endpoints: "fromEndpoints",
    entities: "fromEntities",
    exclusive: (INGRESS_PEERS, "VAL-4"),
    denies: false,
};
const INGRESS_DENY_KIND: ElementKind = ElementKind { fields: INGRESS_DENY, denies: true, ..INGRESS_KIND };
const EGRESS_KIND: ElementKind = ElementKind {
    fields: EGRESS,
    endpoints: "toEndpoints",
    entities: "toEntities",
    exclusive: (EGRESS_PEERS, "VAL-5"),
    denies: false,
};
const EGRESS_DENY_KIND: ElementKind = ElementKind { fields: EGRESS_DENY, denies: true, ..EGRESS_KIND };

/// What the elements of a spec need to know about it.
pub(super) struct SpecContext<'a> {
    pub(super) scope: &'a Scope,
    /// The subject names `reserved:init`: clusterwide peers are then not limited to pods (§4.6).
    pub(super) selects_init: bool,
}

pub(super) fn decode(at: &Located<'_>, scope: &Scope, findings: &mut Findings) -> Option<Rule> {
    let spec = at.mapping(SPEC, findings)?;
    if let Some(description) = spec.get("description") {
        description.text(findings);
    }
    let subject = subject(&spec, scope, findings);
    let selects_init = subject.as_ref().is_some_and(namespace::names_init);
    let context = SpecContext { scope, selects_init };
    let mut list = |name: &str, kind: &ElementKind| elements(&spec, name, kind, &context, findings);
    let ingress = Section { allow: list("ingress", &INGRESS_KIND), deny: list("ingressDeny", &INGRESS_DENY_KIND) };
    let egress = Section { allow: list("egress", &EGRESS_KIND), deny: list("egressDeny", &EGRESS_DENY_KIND) };
    Some(Rule { position: spec.at.node.position, subject: subject?, ingress, egress })
}

fn subject(spec: &Mapping<'_>, scope: &Scope, findings: &mut Findings) -> Option<Selector> {
    let everyone = match scope {
        Scope::Namespace(namespace) => format!("every endpoint of namespace {namespace}"),
        Scope::Clusterwide => "every endpoint".to_owned(),
    };
    let help = format!("write endpointSelector: {{}} for {everyone}");
    match spec.get("endpointSelector") {
        // A nodeSelector alone is a finding of its own: not supported yet.
        None if spec.get("nodeSelector").is_some() => None,
        None => {
            findings.add(spec.at.error("has no endpointSelector").rule("VAL-1").help(help));
            None
        }
        Some(at) if at.node.is_null() => {
            findings.add(at.error("has no value").rule("VAL-1").help(help));
            None
        }
        Some(at) => {
            let written = selector::decode(&at, findings)?;
            Some(namespace::subject_selector(written, scope, &at, findings))
        }
    }
}

fn elements(
    spec: &Mapping<'_>,
    name: &str,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Vec<Element>> {
    let items = spec.get(name)?.items(findings)?;
    Some(items.iter().filter_map(|item| element::decode(item, kind, context, findings)).collect())
}
