//! Namespaces that objects add to their selectors (§4.6, NS-1 … NS-5).

use super::{
    advice,
    envelope::Scope,
    located::{Findings, Located},
    selector::WrittenSelector,
    spec::SpecContext,
};
use crate::{
    label::{NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, SOURCE_ANY, SOURCE_K8S, SOURCE_RESERVED},
    selector::{Condition, LabelKey, Requirement, Selector},
};

fn namespace_key() -> LabelKey {
    LabelKey::new(SOURCE_K8S, NAMESPACE_KEY)
}

/// NS-1: a namespaced object is applied to endpoints of its namespace only, whatever `matchLabels` says about it. An
/// expression about the namespace stays, and both must hold.
pub(super) fn subject_selector(
    written: WrittenSelector,
    scope: &Scope,
    at: &Located<'_>,
    findings: &mut Findings,
) -> Selector {
    let Scope::Namespace(namespace) = scope else {
        let selector = written.labels.into_iter().chain(written.expressions).collect();
        advice::contradictory(&selector, at, findings);
        return selector;
    };
    let own = Requirement::equals(namespace_key(), namespace.as_str());
    let (forced, mut labels): (Vec<_>, Vec<_>) =
        written.labels.into_iter().partition(|requirement| requirement.key == own.key);
    if forced.iter().any(|requirement| *requirement != own) {
        let finding = at.warning(format!("names another namespace, but is applied in {namespace} only")).rule("NS-1");
        findings.add(finding.help("a CiliumNetworkPolicy selects in its own namespace: remove the label"));
    }
    labels.push(own);
    let selector = labels.into_iter().chain(written.expressions).collect();
    advice::contradictory(&selector, at, findings);
    selector
}

/// What every selector of endpoints must meet, too: as peers, but labels of built-in identities do not lift the
/// namespace of a namespaced object (NS-6).
pub(super) fn required_selector(written: &WrittenSelector, context: &SpecContext<'_>) -> Selector {
    let reserved = written.keys().any(LabelKey::is_reserved);
    let own = match context.scope {
        Scope::Namespace(namespace) if reserved && !written.keys().any(says_namespace) => {
            Some(Requirement::equals(namespace_key(), namespace.as_str()))
        }
        _ => None,
    };
    let mut selector = peer_selector(written, context);
    own.into_iter().for_each(|own| selector.require(own));
    selector
}

fn says_namespace(key: &LabelKey) -> bool {
    key.is_namespace() || is_namespace_label(key)
}

/// NS-2 … NS-5 for namespaced objects; clusterwide ones mean every pod of every namespace, so not nodes and not the
/// world, unless the subject is `reserved:init`, which has no namespace itself.
///
/// CL-1: no cluster is added, so peers are selected in every cluster of the mesh.
pub(super) fn peer_selector(written: &WrittenSelector, context: &SpecContext<'_>) -> Selector {
    let says_where = written.keys().any(|key| key.is_reserved() || key.is_namespace());
    let by_namespace_labels = written.keys().any(is_namespace_label);
    let added = match context.scope {
        _ if says_where => None,
        Scope::Namespace(_) if by_namespace_labels => None,
        Scope::Namespace(namespace) => Some(Requirement::equals(namespace_key(), namespace.as_str())),
        Scope::Clusterwide if context.selects_init => None,
        Scope::Clusterwide => Some(Requirement { key: namespace_key(), condition: Condition::Exists }),
    };
    written.labels.iter().chain(&written.expressions).cloned().chain(added).collect()
}

/// NS-4: a key that carries a label of the namespace.
pub(super) fn is_namespace_label(key: &LabelKey) -> bool {
    let source = key.source == SOURCE_K8S || key.source == SOURCE_ANY;
    source && key.key.starts_with(NAMESPACE_LABELS_PREFIX)
}

/// Whether a subject names endpoints without labels yet.
pub(super) fn names_init(subject: &Selector) -> bool {
    subject.requirements().any(|requirement| requirement.key.source == SOURCE_RESERVED && requirement.key.key == "init")
}
