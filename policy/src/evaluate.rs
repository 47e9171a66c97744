//! The specification: short, slow, obviously right. Everything else is measured against it.

use crate::{
    compat::Compat,
    flow::{Direction, Flow, Verdict},
    identity::Identity,
    label::{LabelSet, SOURCE_RESERVED},
    name::Name,
    rule::{Element, Rule, Section},
};

/// What verdicts depend on besides rules and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster that entity `cluster` means.
    pub local_cluster: Name,
    /// Whose reading counts where Ringfence and Cilium differ.
    pub compat: Compat,
}

/// The verdict for a flow under all rules of all objects; kind, name, order and age of objects never matter (SEM-40,
/// SEM-42).
///
/// `subject` and `peer` are the label sets of `flow.subject` and `flow.peer`. A peer without labels is `unknown`.
#[must_use]
pub fn evaluate<'a>(
    settings: &Settings,
    rules: impl IntoIterator<Item = &'a Rule>,
    subject: &LabelSet,
    peer: &LabelSet,
    flow: &Flow,
) -> Verdict {
    // SEM-10: without a host firewall the node itself is never enforced.
    if flow.subject == Identity::HOST {
        return Verdict::Allow;
    }
    let sections: Vec<&Section> = rules
        .into_iter()
        .filter(|rule| rule.subject.matches(subject))
        .map(|rule| rule.section(flow.direction))
        .filter(|section| section.isolates(settings.compat))
        .collect();
    if sections.is_empty() && !always_enforced(subject) {
        return Verdict::Allow; // SEM-1
    }
    let matches = |element: &Element| {
        element.selects(flow.peer, peer, &settings.local_cluster) && element.covers(flow.protocol, flow.port)
    };
    if sections.iter().flat_map(|section| section.deny.iter().flatten()).any(matches) {
        return Verdict::DenyExplicit; // SEM-43
    }
    if sections.iter().flat_map(|section| section.allow.iter().flatten()).any(matches) || is_local_host(flow) {
        return Verdict::Allow;
    }
    Verdict::DenyDefault // SEM-4
}

/// SEM-9: an endpoint without labels yet is enforced in both directions, selected or not.
#[must_use]
pub(crate) fn always_enforced(subject: &LabelSet) -> bool {
    subject.get("init").is_some_and(|label| label.source == SOURCE_RESERVED)
}

/// SEM-50: the local node reaches its endpoints (health checks) unless a deny rule says otherwise.
fn is_local_host(flow: &Flow) -> bool {
    flow.direction == Direction::Ingress && flow.peer == Identity::HOST
}
