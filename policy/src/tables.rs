//! The tables a node's datapath serves packets with, and the edits that lead from one set of tables to the next.
//!
//! Tables are plain ordered maps: equal inputs give equal tables, and two tables are compared by value.
//! A `TableDiff` carries what was there before, so that it can be undone and replayed.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    cidr::Cidr,
    flow::{Direction, Flow, Verdict},
    identity::Identity,
};

/// An endpoint on this node: the interface index of its host-side device. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EndpointId(pub u32);

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressEntry {
    /// Who has the address.
    pub identity: Identity,
    /// Set if the address belongs to an endpoint of this node.
    pub endpoint: Option<EndpointId>,
}

/// How one endpoint of this node is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// The subject of its rules.
    pub identity: Identity,
    /// The verdict for ingress flows that no rule matches.
    pub ingress: Verdict,
    /// The verdict for egress flows that no rule matches.
    pub egress: Verdict,
}

/// Which flows a rule decides. A flow is looked up three times, most specific first: (peer, protocol, port), then
/// (any peer, protocol, port), then (peer, any protocol, any port). The compiler resolves deny precedence so that the
/// first hit is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    /// The identity the rule is applied to.
    pub subject: Identity,
    /// Seen from the subject.
    pub direction: Direction,
    /// `Identity::UNKNOWN` for any peer.
    pub peer: Identity,
    /// 0 for any protocol; then `port` is 0, too.
    pub protocol: u8,
    /// The destination port; 0 for any.
    pub port: u16,
}

/// What a rule says. Never `DenyDefault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleEntry {
    /// Allow or explicit deny.
    pub verdict: Verdict,
}

/// Everything a node enforces at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// Exact addresses.
    pub addresses: BTreeMap<IpAddr, AddressEntry>,
    /// Ranges for addresses that are not in `addresses`, longest prefix first; without a match an address is `world`.
    pub ranges: BTreeMap<Cidr, Identity>,
    /// The endpoints of this node. One that is missing here is refused everything (S9).
    pub endpoints: BTreeMap<EndpointId, EndpointEntry>,
    /// The rules of this node's subjects.
    pub rules: BTreeMap<RuleKey, RuleEntry>,
}

/// One entry that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<K, V> {
    /// Which entry.
    pub key: K,
    /// Its value before; none if it is new.
    pub before: Option<V>,
    /// Its value after; none if it goes away.
    pub after: Option<V>,
}

/// All entries that change between two tables, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Edits of `Tables::addresses`.
    pub addresses: Vec<Edit<IpAddr, AddressEntry>>,
    /// Edits of `Tables::ranges`.
    pub ranges: Vec<Edit<Cidr, Identity>>,
    /// Edits of `Tables::endpoints`.
    pub endpoints: Vec<Edit<EndpointId, EndpointEntry>>,
    /// Edits of `Tables::rules`.
    pub rules: Vec<Edit<RuleKey, RuleEntry>>,
}

impl Tables {
    /// The edits that lead from `self` to `target`.
    #[must_use]
    pub fn diff(&self, target: &Self) -> TableDiff {
        TableDiff {
            addresses: diff_maps(&self.addresses, &target.addresses),
            ranges: diff_maps(&self.ranges, &target.ranges),
            endpoints: diff_maps(&self.endpoints, &target.endpoints),
            rules: diff_maps(&self.rules, &target.rules),
        }
    }

    /// The verdict for a flow from or to an endpoint of this node, found as the datapath finds it: see `RuleKey`. The
    /// subject is the endpoint's; `flow.subject` is not looked at. An endpoint without an entry is refused (S9).
    #[must_use]
    pub fn lookup(&self, endpoint: EndpointId, flow: &Flow) -> Verdict {
        let Some(entry) = self.endpoints.get(&endpoint) else { return Verdict::DenyDefault };
        let Flow { peer, direction, protocol, port, .. } = *flow;
        let exact = RuleKey { subject: entry.identity, direction, peer, protocol, port };
        let probes = [exact, RuleKey { peer: Identity::UNKNOWN, ..exact }, RuleKey { protocol: 0, port: 0, ..exact }];
        let hit = probes.iter().find_map(|key| self.rules.get(key));
        hit.map_or_else(|| entry.default_verdict(direction), |rule| rule.verdict)
    }

    /// Carries out the edits of a diff that was made from these tables.
    pub fn apply(&mut self, diff: &TableDiff) {
        apply_edits(&mut self.addresses, &diff.addresses);
        apply_edits(&mut self.ranges, &diff.ranges);
        apply_edits(&mut self.endpoints, &diff.endpoints);
        apply_edits(&mut self.rules, &diff.rules);
    }
}

impl EndpointEntry {
    /// The verdict for flows that no rule matches.
    #[must_use]
    pub const fn default_verdict(&self, direction: Direction) -> Verdict {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

impl TableDiff {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len() + self.ranges.len() + self.endpoints.len() + self.rules.len()
    }

    /// The edits that undo this diff.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            addresses: invert(&self.addresses),
            ranges: invert(&self.ranges),
            endpoints: invert(&self.endpoints),
            rules: invert(&self.rules),
        }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn diff_maps<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<Edit<K, V>> {
    let gone_or_changed = old.iter().filter(|(key, value)| new.get(key) != Some(value));
    let added = new.keys().filter(|key| !old.contains_key(key));
    let mut keys: Vec<&K> = gone_or_changed.map(|(key, _)| key).chain(added).collect();
    keys.sort();
    let edit = |key: &K| Edit { key: key.clone(), before: old.get(key).cloned(), after: new.get(key).cloned() };
    keys.into_iter().map(edit).collect()
}

fn apply_edits<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, edits: &[Edit<K, V>]) {
    for edit in edits {
        match &edit.after {
            Some(value) => map.insert(edit.key.clone(), value.clone()),
            None => map.remove(&edit.key),
        };
    }
}

fn invert<K: Clone, V: Clone>(edits: &[Edit<K, V>]) -> Vec<Edit<K, V>> {
    let swap =
        |edit: &Edit<K, V>| Edit { key: edit.key.clone(), before: edit.after.clone(), after: edit.before.clone() };
    edits.iter().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tables() -> impl Strategy<Value = Tables> {
        let ranges = proptest::collection::btree_map(0u8..6, 0u32..3, 0..6);
        let addresses = proptest::collection::btree_map(0u8..6, 0u32..3, 0..6);
        (ranges, addresses).prop_map(|(ranges, addresses)| {
            let mut tables = Tables::default();
            for (network, identity) in ranges {
                let range = Cidr::new([10, network, 0, 0].into(), 16).unwrap();
                tables.ranges.insert(range, Identity::from_bits(identity));
            }
            for (host, identity) in addresses {
                let entry = AddressEntry { identity: Identity::from_bits(identity), endpoint: None };
                tables.addresses.insert([10, 0, 0, host].into(), entry);
            }
            tables
        })
    }

    proptest! {
        #[test]
        fn a_diff_leads_there_and_its_inverse_back(old in tables(), new in tables()) {
            let diff = old.diff(&new);
            let mut walked = old.clone();
            walked.apply(&diff);
            prop_assert_eq!(&walked, &new);
            walked.apply(&diff.inverse());
            prop_assert_eq!(&walked, &old);
            prop_assert_eq!(diff.is_empty(), old == new);
        }
    }
}
