//! One `spec`: a subject, and what is said about it.

use super::{
    element,
    envelope::Scope,
    fields::{DEFAULT_DENY, EGRESS, EGRESS_DENY, EGRESS_PEERS, INGRESS, INGRESS_DENY, INGRESS_PEERS, LABEL, LOG, SPEC},
    located::{Findings, Located, Mapping},
    namespace,
    selector::{self, Keys},
};
use crate::{
    flow::Direction,
    rule::{Element, Rule, Section, Subject},
};

/// How the elements of one of the four lists are read.
pub(super) struct ElementKind {
    pub(super) fields: &'static [&'static str],
    pub(super) direction: Direction,
    pub(super) endpoints: &'static str,
    pub(super) entities: &'static str,
    pub(super) requires: &'static str,
    pub(super) cidrs: &'static str,
    pub(super) cidr_sets: &'static str,
    pub(super) nodes: &'static str,
    pub(super) groups: &'static str,
    /// The lists of peers that exclude each other, and the rule that says so.
    pub(super) exclusive: (&'static [&'static str], &'static str),
    pub(super) denies: bool,
}

const INGRESS_KIND: ElementKind = ElementKind {
    fields: INGRESS,
    direction: Direction::Ingress,
    endpoints: "fromEndpoints",
    entities: "fromEntities",
    requires: "fromRequires",
    cidrs: "fromCIDR",
    cidr_sets: "fromCIDRSet",
    nodes: "fromNodes",
    groups: "fromGroups",
    exclusive: (INGRESS_PEERS, "VAL-4"),
    denies: false,
};
const INGRESS_DENY_KIND: ElementKind = ElementKind { fields: INGRESS_DENY, denies: true, ..INGRESS_KIND };
const EGRESS_KIND: ElementKind = ElementKind {
    fields: EGRESS,
    direction: Direction::Egress,
    endpoints: "toEndpoints",
    entities: "toEntities",
    requires: "toRequires",
    cidrs: "toCIDR",
    cidr_sets: "toCIDRSet",
    nodes: "toNodes",
    groups: "toGroups",
    exclusive: (EGRESS_PEERS, "VAL-5"),
    denies: false,
};
const EGRESS_DENY_KIND: ElementKind = ElementKind { fields: EGRESS_DENY, denies: true, ..EGRESS_KIND };

/// What the elements of a spec need to know about it.
pub(super) struct SpecContext<'a> {
    pub(super) scope: &'a Scope,
    /// The subject names `reserved:init`: clusterwide peers are then not limited to pods (§4.6).
    pub(super) selects_init: bool,
    /// The subject is a node (VAL-21).
    pub(super) selects_nodes: bool,
}

/// `in_list` is whether the spec is an element of `specs`: Cilium checks less there (OBJ-7).
pub(super) fn decode(at: &Located<'_>, in_list: bool, scope: &Scope, findings: &mut Findings) -> Option<Rule> {
    let spec = at.mapping(SPEC, findings)?;
    let log = check_descriptions(&spec, findings);
    let subject = subject(&spec, in_list, scope, findings);
    let selects_nodes = spec.get("nodeSelector").is_some();
    let selects_init = matches!(&subject, Some(Subject::Endpoints(selector)) if namespace::names_init(selector));
    let context = SpecContext { scope, selects_init, selects_nodes };
    let [ingress_default, egress_default] = default_deny(&spec, findings);
    let mut list = |name: &str, kind: &ElementKind| elements(&spec, name, kind, &context, findings);
    let ingress = Section {
        allow: list("ingress", &INGRESS_KIND),
        deny: list("ingressDeny", &INGRESS_DENY_KIND),
        default_deny: ingress_default,
    };
    let egress = Section {
        allow: list("egress", &EGRESS_KIND),
        deny: list("egressDeny", &EGRESS_DENY_KIND),
        default_deny: egress_default,
    };
    // A namespaced rule never reaches a node, so in Cilium it does nothing.
    let inert = selects_nodes && matches!(scope, Scope::Namespace(_));
    let rule = Rule { position: spec.at.node.position, audit: false, log, subject: subject?, ingress, egress };
    (!inert).then_some(rule)
}

/// Exactly one of `endpointSelector` and `nodeSelector` (VAL-1, VAL-2, OBJ-7).
fn subject(spec: &Mapping<'_>, in_list: bool, scope: &Scope, findings: &mut Findings) -> Option<Subject> {
    let help = || match scope {
        Scope::Namespace(namespace) => {
            format!("write endpointSelector: {{}} for every endpoint of namespace {namespace}")
        }
        Scope::Clusterwide => "write endpointSelector: {} for every endpoint".to_owned(),
    };
    match (spec.get("endpointSelector"), spec.get("nodeSelector")) {
        (None, None) => {
            findings.add(spec.at.error("has no endpointSelector").rule("VAL-1").help(help()));
            None
        }
        (Some(at), None) | (None, Some(at)) if at.node.is_null() => {
            findings.add(at.error("has no value").rule("VAL-1").help(help()));
            None
        }
        (Some(at), None) => {
            let written = selector::decode(&at, Keys::Written, findings)?;
            Some(Subject::Endpoints(namespace::subject_selector(written, scope, &at, findings)))
        }
        (None, Some(at)) => {
            if matches!(scope, Scope::Namespace(_)) && !(in_list && findings.as_cilium()) {
                let finding = at.error("a namespaced object cannot select nodes").rule("OBJ-7");
                findings.add(finding.help("use kind CiliumClusterwideNetworkPolicy"));
            }
            let written = selector::decode(&at, Keys::Written, findings)?;
            Some(Subject::Nodes(written.labels.into_iter().chain(written.expressions).collect()))
        }
        (Some(_), Some(at)) => {
            let finding = at.error("endpointSelector and nodeSelector are both given").rule("VAL-2");
            findings.add(finding.help("write one rule in specs for each"));
            None
        }
    }
}

/// SEM-3: for ingress and egress, where it is written.
fn default_deny(spec: &Mapping<'_>, findings: &mut Findings) -> [Option<bool>; 2] {
    let written = spec.get("enableDefaultDeny").and_then(|at| at.mapping(DEFAULT_DENY, findings));
    ["ingress", "egress"].map(|name| written.as_ref()?.get(name)?.boolean(findings))
}

/// Fields that only describe. The value of `log` is what records of flows are marked with.
fn check_descriptions(spec: &Mapping<'_>, findings: &mut Findings) -> Option<String> {
    spec.text("description", findings);
    let log = spec.get("log").and_then(|at| at.mapping(LOG, findings)).map(|log| log.text("value", findings));
    for label in spec.list("labels", findings).unwrap_or_default() {
        // OBJ: a text `source:key=value`, or a mapping.
        if matches!(label.node.value, crate::document::Value::Scalar(_)) {
            label.text(findings);
        } else if let Some(parts) = label.mapping(LABEL, findings) {
            LABEL.iter().for_each(|part| drop(parts.text(part, findings)));
        }
    }
    log.filter(|log| !log.is_empty())
}

fn elements(
    spec: &Mapping<'_>,
    name: &str,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Vec<Element>> {
    let items = spec.list(name, findings)?;
    Some(items.iter().filter_map(|item| element::decode(item, kind, context, findings)).collect())
}
