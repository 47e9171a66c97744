//! The labels of reserved identities.

use crate::{
    identity::Identity,
    label::{Label, LabelSet, SOURCE_RESERVED},
};

/// The reserved identities that can be a peer, in order (ID §2.2). `unknown` (0) has no labels and is not among them.
pub const RESERVED_PEERS: [Identity; 10] = {
    let mut peers = [Identity::UNKNOWN; 10];
    let mut bits = 1;
    while bits <= 10 {
        peers[bits as usize - 1] = Identity::from_bits(bits);
        bits += 1;
    }
    peers
};

/// The labels a reserved identity has; none for `unknown` and for numbers that are not reserved (ID §2.2).
#[must_use]
pub fn reserved_labels(identity: Identity) -> LabelSet {
    /// Identity 7 is another node that serves the API, so it is a remote node, too.
    const KUBE_APISERVER: u32 = 7;
    let names = match (identity.bits(), identity.reserved_name()) {
        (0, _) | (_, None) => vec![],
        (KUBE_APISERVER, Some(name)) => vec![name, "remote-node"],
        (_, Some(name)) => vec![name],
    };
    names.into_iter().map(|name| Label::new(SOURCE_RESERVED, name, "")).collect()
}

/// The reserved identity of an endpoint with these labels: of a node's proxy or health check, which have the one label and
/// no other (docs/decisions/0011). None for every other set, whose number the store gives.
#[must_use]
pub fn reserved_endpoint(labels: &LabelSet) -> Option<Identity> {
    let mut labels = labels.iter();
    let (Some(label), None) = (labels.next(), labels.next()) else { return None };
    // Asked of every endpoint that is put or decoded: so no labels are made to compare these with.
    let is_one = |identity: &Identity| identity.reserved_name().is_some_and(|name| label.key == *name);
    let is_reserved = label.source == *SOURCE_RESERVED && label.value.is_empty();
    [Identity::HEALTH, Identity::INGRESS].into_iter().filter(|_| is_reserved).find(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_health_checks_are_endpoints_with_one_label() {
        for (texts, expected) in [
            (&["reserved:ingress"][..], Some(Identity::INGRESS)),
            (&["reserved:health"], Some(Identity::HEALTH)),
            (&["reserved:host"], None),
            (&["reserved:ingress", "k8s:app=web"], None),
            (&["reserved:ingress", "reserved:health"], None),
            (&["reserved:ingress=x"], None),
            (&["k8s:ingress"], None),
            (&["reserved:remote-node"], None),
            (&[], None),
        ] {
            assert_eq!(reserved_endpoint(&LabelSet::parse(texts).unwrap()), expected, "{texts:?}");
        }
    }

    #[test]
    fn reserved_identities_have_the_labels_operators_know() {
        let cases = [(0, ""), (1, "reserved:host"), (2, "reserved:world"), (10, "reserved:world-ipv6"), (256, "")];
        for (bits, labels) in cases {
            assert_eq!(reserved_labels(Identity::from_bits(bits)).to_string(), labels, "{bits}");
        }
        assert_eq!(reserved_labels(Identity::from_bits(7)).to_string(), "reserved:kube-apiserver,reserved:remote-node");
        assert_eq!(RESERVED_PEERS.map(Identity::bits), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }
}
