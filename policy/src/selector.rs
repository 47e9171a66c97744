//! Selectors: which label sets a policy means (LBL-10 … LBL-15).

use std::{collections::BTreeSet, fmt};

use crate::{
    cidr::Cidr,
    identity::Identity,
    label::{Label, LabelSet, NAMESPACE_KEY, SOURCE_ANY, SOURCE_CIDR, SOURCE_RESERVED},
    reserved::reserved_labels,
};

/// All of these requirements together (LBL-12). Without any it is the true wildcard (LBL-15).
///
/// CL-1: no cluster is added to a selector as it is read, so one that does not name `io.cilium.k8s.policy.cluster`
/// selects in every cluster of the mesh, unless `world::Reach` says otherwise (CL-2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// What one key of a label set must be like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: LabelKey,
    /// What must hold for it.
    pub condition: Condition,
}

/// A key as selectors name it: LBL-10.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey {
    /// `any` matches every source (LBL-11).
    pub source: String,
    /// Without the source.
    pub key: String,
}

/// What must hold for a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The label exists with this value: how `matchLabels` says it. Elements meet, and may contradict each other, only
    /// where they write their selectors alike (§3.3), so this differs from `In` with one value.
    Is(String),
    /// The label exists with one of these values.
    In(BTreeSet<String>),
    /// The label does not exist, or has none of these values.
    NotIn(BTreeSet<String>),
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

impl LabelKey {
    /// A key from its parts.
    pub fn new(source: impl Into<String>, key: impl Into<String>) -> Self {
        Self { source: source.into(), key: key.into() }
    }

    /// Whether the key is the namespace's, from Kubernetes or from any source.
    #[must_use]
    pub fn is_namespace(&self) -> bool {
        self.key == NAMESPACE_KEY && (self.source == crate::label::SOURCE_K8S || self.source == SOURCE_ANY)
    }

    /// Whether the key is of a built-in label.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.source == SOURCE_RESERVED
    }

    /// The label of a set that the key means, if it is there. A key of source `cidr` means every range inside its own
    /// (LBL-13).
    fn find<'a>(&self, labels: &'a LabelSet) -> Option<&'a Label> {
        if self.source == SOURCE_CIDR {
            let own = Cidr::from_label_key(&self.key)?;
            let inside = |label: &&Label| {
                label.source == SOURCE_CIDR && Cidr::from_label_key(&label.key).is_some_and(|range| own.covers(&range))
            };
            return labels.iter().find(inside);
        }
        labels.get(&self.key).filter(|label| self.source == SOURCE_ANY || self.source == label.source)
    }
}

impl Requirement {
    /// Equality with one value, as `matchLabels` means it.
    #[must_use]
    pub fn equals(key: LabelKey, value: impl Into<String>) -> Self {
        Self { key, condition: Condition::Is(value.into()) }
    }

    /// Whether a label set meets it.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        let found = self.key.find(labels);
        match &self.condition {
            Condition::Is(value) => found.is_some_and(|label| label.value == *value),
            Condition::In(values) => found.is_some_and(|label| values.contains(label.value.as_str())),
            Condition::NotIn(values) => found.is_none_or(|label| !values.contains(label.value.as_str())),
            Condition::Exists => found.is_some(),
            Condition::DoesNotExist => found.is_none(),
        }
    }
}

impl Selector {
    /// The true wildcard: everything, labelled or not.
    pub const WILDCARD: Self = Self { requirements: BTreeSet::new() };

    /// A selector for one label with an empty value, such as `reserved:host`.
    pub fn label(source: &str, key: &str) -> Self {
        Self::from_iter([Requirement::equals(LabelKey::new(source, key), "")])
    }

    /// Whether it is the true wildcard.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements, in order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Adds a requirement.
    pub fn require(&mut self, requirement: Requirement) {
        self.requirements.insert(requirement);
    }

    /// Removes the requirements that a test does not pass.
    pub fn retain(&mut self, keep: impl FnMut(&Requirement) -> bool) {
        self.requirements.retain(keep);
    }

    /// Whether a label set meets every requirement.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it selects a peer in a mesh of both address families: whatever selects `world` selects both of its
    /// families (ID-15).
    #[must_use]
    pub fn selects(&self, peer: Identity, labels: &LabelSet) -> bool {
        let world_family = peer == Identity::WORLD_IPV4 || peer == Identity::WORLD_IPV6;
        self.selects_labels(labels) || world_family && self.matches(&reserved_labels(Identity::WORLD))
    }

    /// Whether it selects a peer by its labels alone. A peer without labels is `unknown`: only the wildcard selects it
    /// (S12), however true a negative requirement would be of it.
    #[must_use]
    pub fn selects_labels(&self, labels: &LabelSet) -> bool {
        self.is_wildcard() || !labels.is_empty() && self.matches(labels)
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self { requirements: requirements.into_iter().collect() }
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)
    }
}

impl fmt::Debug for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lbl_11_any_matches_every_source_and_no_other_source_does() {
        let cases = [
            ("any", "k8s:app=web", true),
            ("any", "container:app=web", true),
            ("k8s", "k8s:app=web", true),
            ("k8s", "any:app=web", false),
            ("k8s", "container:app=web", false),
        ];
        for (source, label, expected) in cases {
            let selector = Selector::from_iter([Requirement::equals(LabelKey::new(source, "app"), "web")]);
            let labels = LabelSet::parse([label]).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{source} {label}");
        }
    }

    #[test]
    fn lbl_12_kubernetes_semantics() {
        let cases = [
            (Condition::In(values(&["web", "api"])), [true, false, false]),
            (Condition::NotIn(values(&["web", "api"])), [false, true, true]),
            (Condition::Exists, [true, true, false]),
            (Condition::DoesNotExist, [false, false, true]),
        ];
        for (condition, expected) in cases {
            let requirement = Requirement { key: LabelKey::new("any", "app"), condition };
            let matched = ["k8s:app=web", "k8s:app=db", "k8s:tier=web"]
                .map(|label| requirement.matches(&LabelSet::parse([label]).unwrap()));
            assert_eq!(matched, expected, "{requirement:?}");
        }
        let both = Selector::from_iter([
            Requirement::equals(LabelKey::new("any", "app"), "web"),
            Requirement { key: LabelKey::new("any", "tier"), condition: Condition::Exists },
        ]);
        assert!(!both.matches(&LabelSet::parse(["k8s:app=web"]).unwrap()), "requirements are ANDed");
    }

    #[test]
    fn lbl_15_the_empty_selector_is_the_wildcard() {
        assert!(Selector::WILDCARD.matches(&LabelSet::default()));
        assert!(Selector::WILDCARD.selects(Identity::UNKNOWN, &LabelSet::default()));
    }

    #[test]
    fn s12_only_the_wildcard_selects_unknown() {
        let negative = Requirement { key: LabelKey::new("any", "app"), condition: Condition::DoesNotExist };
        let selector = Selector::from_iter([negative]);
        assert!(!selector.selects(Identity::UNKNOWN, &LabelSet::default()));
        assert!(selector.selects(Identity::WORLD, &reserved_labels(Identity::WORLD)));
    }

    #[test]
    fn id_15_world_selects_both_families() {
        let world = Selector::label(SOURCE_RESERVED, "world");
        for identity in [Identity::WORLD, Identity::WORLD_IPV4, Identity::WORLD_IPV6] {
            assert!(world.selects(identity, &reserved_labels(identity)), "{identity:?}");
        }
        let v4 = Selector::label(SOURCE_RESERVED, "world-ipv4");
        assert!(!v4.selects(Identity::WORLD, &reserved_labels(Identity::WORLD)), "and not the other way round");
        assert!(!v4.selects(Identity::WORLD_IPV6, &reserved_labels(Identity::WORLD_IPV6)));
    }
}
