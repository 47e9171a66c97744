//! Which fields objects have (§3.1, §3.2).

/// The object itself. `status` is the server's.
pub(super) const OBJECT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "specs", "status"];

/// `metadata`: what a person writes, then what a server adds.
pub(super) const METADATA: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "ownerReferences",
    "selfLink",
];

/// `spec`, and an element of `specs`.
pub(super) const SPEC: &[&str] = &[
    "description",
    "endpointSelector",
    "nodeSelector",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "enableDefaultDeny",
    "labels",
    "log",
];

/// `enableDefaultDeny`.
pub(super) const DEFAULT_DENY: &[&str] = &["ingress", "egress"];

/// `log`.
pub(super) const LOG: &[&str] = &["value"];

/// An element of `labels`.
pub(super) const LABEL: &[&str] = &["key", "value", "source"];

/// An element of `ingress`.
pub(super) const INGRESS: &[&str] = &[
    "fromEndpoints",
    "fromEntities",
    "fromCIDR",
    "fromCIDRSet",
    "fromNodes",
    "fromGroups",
    "fromRequires",
    "toPorts",
    "icmps",
    "authentication",
];

/// An element of `ingressDeny`.
pub(super) const INGRESS_DENY: &[&str] = &[
    "fromEndpoints",
    "fromEntities",
    "fromCIDR",
    "fromCIDRSet",
    "fromNodes",
    "fromGroups",
    "fromRequires",
    "toPorts",
    "icmps",
];

/// An element of `egress`.
pub(super) const EGRESS: &[&str] = &[
    "toEndpoints",
    "toEntities",
    "toCIDR",
    "toCIDRSet",
    "toFQDNs",
    "toServices",
    "toNodes",
    "toGroups",
    "toRequires",
    "toPorts",
    "icmps",
    "authentication",
];

/// An element of `egressDeny`.
pub(super) const EGRESS_DENY: &[&str] = &[
    "toEndpoints",
    "toEntities",
    "toCIDR",
    "toCIDRSet",
    "toServices",
    "toNodes",
    "toGroups",
    "toRequires",
    "toPorts",
    "icmps",
];

/// The lists of `ingress` of which one element may fill only one (VAL-4).
pub(super) const INGRESS_PEERS: &[&str] =
    &["fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities", "fromNodes", "fromGroups"];

/// The lists of `egress` of which one element may fill only one (VAL-5).
pub(super) const EGRESS_PEERS: &[&str] =
    &["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs"];

/// An element of `toPorts` of an allow rule.
pub(super) const PORT_RULE: &[&str] =
    &["ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"];

/// An element of `toPorts` of a deny rule (VAL-35).
pub(super) const PORT_DENY_RULE: &[&str] = &["ports"];

/// An element of `ports`.
pub(super) const PORT: &[&str] = &["port", "endPort", "protocol"];

/// An element of `icmps`, and one of its fields.
pub(super) const ICMP_RULE: &[&str] = &["fields"];
pub(super) const ICMP_FIELD: &[&str] = &["family", "type"];

/// `rules`, and the elements of its lists.
pub(super) const RULES: &[&str] = &["http", "kafka", "dns", "l7proto", "l7"];
pub(super) const HTTP: &[&str] = &["path", "method", "host", "headers", "headerMatches"];
pub(super) const HEADER_MATCH: &[&str] = &["name", "value", "secret", "mismatch"];
pub(super) const KAFKA: &[&str] = &["role", "apiKey", "apiVersion", "clientID", "topic"];
pub(super) const DNS: &[&str] = &["matchName", "matchPattern"];

/// A secret, and a TLS context around one.
pub(super) const SECRET: &[&str] = &["namespace", "name"];
pub(super) const TLS: &[&str] = &["secret", "trustedCA", "certificate", "privateKey"];

/// `listener`, and its `envoyConfig`.
pub(super) const LISTENER: &[&str] = &["envoyConfig", "name", "priority"];
pub(super) const ENVOY_CONFIG: &[&str] = &["kind", "name"];

/// `authentication`.
pub(super) const AUTHENTICATION: &[&str] = &["mode"];

/// An element of a CIDRSet.
pub(super) const CIDR_SET: &[&str] = &["cidr", "cidrGroupRef", "cidrGroupSelector", "except"];

/// An element of `toServices`, and its two forms.
pub(super) const SERVICE: &[&str] = &["k8sService", "k8sServiceSelector"];
pub(super) const SERVICE_BY_NAME: &[&str] = &["serviceName", "namespace"];
pub(super) const SERVICE_BY_LABELS: &[&str] = &["selector", "namespace"];

/// An element of `fromGroups` or `toGroups`.
pub(super) const GROUP: &[&str] = &["aws"];
pub(super) const AWS_GROUP: &[&str] = &["labels", "securityGroupsIds", "securityGroupsNames", "region"];

/// A selector.
pub(super) const SELECTOR: &[&str] = &["matchLabels", "matchExpressions"];

/// An element of `matchExpressions`.
pub(super) const REQUIREMENT: &[&str] = &["key", "operator", "values"];

/// `spec` of a NetworkPolicy, an element of its lists, a peer, an `ipBlock`.
pub(super) const KNP_SPEC: &[&str] = &["podSelector", "policyTypes", "ingress", "egress"];
pub(super) const KNP_INGRESS: &[&str] = &["from", "ports"];
pub(super) const KNP_EGRESS: &[&str] = &["to", "ports"];
pub(super) const KNP_PEER: &[&str] = &["podSelector", "namespaceSelector", "ipBlock"];
pub(super) const IP_BLOCK: &[&str] = &["cidr", "except"];

/// `spec` of a CiliumCIDRGroup.
pub(super) const CIDR_GROUP_SPEC: &[&str] = &["externalCIDRs"];

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
        let names = || INGRESS.iter().copied();
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
