//! Which fields objects have (§3.1, §3.2), and which of them this version supports.

/// One field of a mapping.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) support: Support,
}

/// What happens with a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// It is decoded, or describes only and may be left aside.
    Used,
    /// It exists in Cilium; an object that has it is refused until Ringfence enforces it.
    Planned,
}

const fn used(name: &'static str) -> Field {
    Field { name, support: Support::Used }
}

const fn planned(name: &'static str) -> Field {
    Field { name, support: Support::Planned }
}

/// The object itself. `status` is the server's.
pub(super) const OBJECT: &[Field] =
    &[used("apiVersion"), used("kind"), used("metadata"), used("spec"), used("specs"), used("status")];

/// `metadata`: what a person writes, then what a server adds.
pub(super) const METADATA: &[Field] = &[
    used("name"),
    used("namespace"),
    used("labels"),
    used("annotations"),
    used("uid"),
    used("resourceVersion"),
    used("generation"),
    used("generateName"),
    used("creationTimestamp"),
    used("deletionTimestamp"),
    used("deletionGracePeriodSeconds"),
    used("finalizers"),
    used("managedFields"),
    used("ownerReferences"),
    used("selfLink"),
];

/// `spec`, and an element of `specs`.
pub(super) const SPEC: &[Field] = &[
    used("description"),
    used("endpointSelector"),
    used("ingress"),
    used("ingressDeny"),
    used("egress"),
    used("egressDeny"),
    planned("nodeSelector"),
    planned("enableDefaultDeny"),
    planned("labels"),
    planned("log"),
];

/// An element of `ingress`.
pub(super) const INGRESS: &[Field] = &[
    used("fromEndpoints"),
    used("fromEntities"),
    used("toPorts"),
    planned("fromRequires"),
    planned("fromCIDR"),
    planned("fromCIDRSet"),
    planned("fromGroups"),
    planned("fromNodes"),
    planned("icmps"),
    planned("authentication"),
];

/// An element of `ingressDeny`.
pub(super) const INGRESS_DENY: &[Field] = &[
    used("fromEndpoints"),
    used("fromEntities"),
    used("toPorts"),
    planned("fromRequires"),
    planned("fromCIDR"),
    planned("fromCIDRSet"),
    planned("fromGroups"),
    planned("fromNodes"),
    planned("icmps"),
];

/// An element of `egress`.
pub(super) const EGRESS: &[Field] = &[
    used("toEndpoints"),
    used("toEntities"),
    used("toPorts"),
    planned("toRequires"),
    planned("toCIDR"),
    planned("toCIDRSet"),
    planned("toServices"),
    planned("toFQDNs"),
    planned("toGroups"),
    planned("toNodes"),
    planned("icmps"),
    planned("authentication"),
];

/// An element of `egressDeny`.
pub(super) const EGRESS_DENY: &[Field] = &[
    used("toEndpoints"),
    used("toEntities"),
    used("toPorts"),
    planned("toRequires"),
    planned("toCIDR"),
    planned("toCIDRSet"),
    planned("toServices"),
    planned("toGroups"),
    planned("toNodes"),
    planned("icmps"),
];

/// The lists of `ingress` of which one element may fill only one (VAL-4).
pub(super) const INGRESS_PEERS: &[&str] =
    &["fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromNodes", "fromGroups"];

/// The lists of `egress` of which one element may fill only one (VAL-5).
pub(super) const EGRESS_PEERS: &[&str] =
    &["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs"];

/// An element of `toPorts` of an allow rule.
pub(super) const PORT_RULE: &[Field] = &[
    used("ports"),
    planned("rules"),
    planned("terminatingTLS"),
    planned("originatingTLS"),
    planned("serverNames"),
    planned("listener"),
];

/// An element of `toPorts` of a deny rule (VAL-35).
pub(super) const PORT_DENY_RULE: &[Field] = &[used("ports")];

/// An element of `ports`.
pub(super) const PORT: &[Field] = &[used("port"), used("protocol"), planned("endPort")];

/// A selector.
pub(super) const SELECTOR: &[Field] = &[used("matchLabels"), used("matchExpressions")];

/// An element of `matchExpressions`.
pub(super) const REQUIREMENT: &[Field] = &[used("key"), used("operator"), used("values")];

/// The candidate a person most likely meant: the same but for letter case, or a few typing errors away.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST_WORD_BYTES: usize = 40;
    if word.len() > LONGEST_WORD_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    let limit = (word.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (edit_distance(&word, &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other (optimal string
/// alignment).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut last_from = None;
    for (row, from) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(from != *to);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && last_from == Some(*to) && right[column - 1] == from {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        last_from = Some(from);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_field_is_what_a_person_meant() {
        let names = || INGRESS.iter().map(|field| field.name);
        let cases = [
            ("fromEndpoint", Some("fromEndpoints")),
            ("fromendpoints", Some("fromEndpoints")),
            ("toPort", Some("toPorts")),
            ("fromCidr", Some("fromCIDR")),
            ("icmp", Some("icmps")),
            ("selector", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, names()), expected, "{word}");
        }
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("wrold", "world"), 1);
    }
}
