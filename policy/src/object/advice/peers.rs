//! Selectors of peers that select others than their author probably means.

use crate::{
    label::SOURCE_RESERVED,
    object::{
        envelope::Scope,
        located::{Findings, Located},
        namespace::is_namespace_label,
        selector::WrittenSelector,
    },
    selector::{Condition, LabelKey, Requirement, Selector},
};

/// What to say about a selector of peers: as it is written, and with its namespace.
pub(in crate::object) fn on_selector(
    written: &WrittenSelector,
    selector: &Selector,
    scope: &Scope,
    at: &Located<'_>,
    findings: &mut Findings,
) {
    contradictory(selector, at, findings);
    let negative =
        |requirement: &Requirement| matches!(requirement.condition, Condition::NotIn(_) | Condition::DoesNotExist);
    if !selector.is_wildcard() && selector.requirements().all(negative) {
        let message = "it only says what peers are not, which is also true of nodes and of the world";
        let finding = at.warning(message).rule("LBL-12");
        findings.add(finding.help("for pods only, add {key: k8s:io.kubernetes.pod.namespace, operator: Exists}"));
    }
    if let Scope::Namespace(namespace) = scope
        && written.keys().any(is_namespace_label)
        && !written.keys().any(|key| key.is_namespace() || key.is_reserved())
    {
        let message =
            format!("by labels of namespaces it selects in every namespace that has them, not only in {namespace}");
        let finding = at.warning(message).rule("NS-4");
        findings.add(finding.help(format!("to stay in one, add k8s:io.kubernetes.pod.namespace: {namespace}")));
    }
}

/// LBL-12: all requirements must be met, so two that exclude each other select nobody.
pub(in crate::object) fn contradictory(selector: &Selector, at: &Located<'_>, findings: &mut Findings) {
    let all: Vec<&Requirement> = selector.requirements().collect();
    let pairs = all.iter().enumerate().flat_map(|(index, one)| all[index + 1..].iter().map(move |other| (one, other)));
    let excluded = pairs.into_iter().find(|(one, other)| same(&one.key, &other.key) && exclude(one, other));
    if let Some((one, other)) = excluded {
        let finding = at.warning(format!("nobody meets both requirements of {}, so it selects nobody", one.key));
        let help = if one.key.is_namespace() || other.key.is_namespace() {
            "an object adds its own namespace to its subjects: remove the other one"
        } else {
            "requirements must all be met: write one selector for each alternative"
        };
        findings.add(finding.rule("LBL-12").help(help));
    }
}

/// Whether two keys are of one label: there is one for each key (LBL-6).
fn same(one: &LabelKey, other: &LabelKey) -> bool {
    one.key == other.key && one.source != SOURCE_RESERVED && other.source != SOURCE_RESERVED
}

fn exclude(one: &Requirement, other: &Requirement) -> bool {
    use Condition::{DoesNotExist, Exists, In, Is, NotIn};
    let written = one.key.source == other.key.source;
    match (&one.condition, &other.condition) {
        (Is(one), Is(other)) => one != other,
        (Is(value), In(values)) | (In(values), Is(value)) => !values.contains(value),
        (In(one), In(other)) => one.is_disjoint(other),
        // Behind another source the label may be a third one's.
        (Is(value), NotIn(values)) | (NotIn(values), Is(value)) => written && values.contains(value),
        (In(values), NotIn(not)) | (NotIn(not), In(values)) => written && values.is_subset(not),
        (Is(_) | In(_) | Exists, DoesNotExist) | (DoesNotExist, Is(_) | In(_) | Exists) => written,
        _ => false,
    }
}
