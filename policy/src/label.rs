//! Labels and label sets (LBL-1 … LBL-7).

mod shared;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::text::Text;
use shared::Shared;

/// Label key that carries the cluster's name (LBL-24).
pub const CLUSTER_KEY: &str = "io.cilium.k8s.policy.cluster";
/// Label key that carries the namespace (LBL-21).
pub const NAMESPACE_KEY: &str = "io.kubernetes.pod.namespace";
/// Prefix of the label keys that carry a namespace's own labels (LBL-22).
pub const NAMESPACE_LABELS_PREFIX: &str = "io.cilium.k8s.namespace.labels.";
/// The source of labels that come from Kubernetes objects.
pub const SOURCE_K8S: &str = "k8s";
/// The source of built-in labels.
pub const SOURCE_RESERVED: &str = "reserved";
/// The source that matches every source; in selectors only (LBL-11).
pub const SOURCE_ANY: &str = "any";
/// The source of labels that stand for a range of addresses (LBL-8).
pub const SOURCE_CIDR: &str = "cidr";
/// The source of labels that come from CIDR groups.
pub const SOURCE_CIDR_GROUP: &str = "cidrgroup";
/// The source of labels that stand for DNS names (FQDN-1).
pub const SOURCE_FQDN: &str = "fqdn";
/// The source of labels of nodes.
pub const SOURCE_NODE: &str = "node";
/// The source of a label that was written without one (LBL-2).
pub const SOURCE_UNSPEC: &str = "unspec";

/// The longest text of one label, in bytes.
pub const MAX_LABEL_BYTES: usize = 512;
/// The most labels in one set.
pub const MAX_LABELS: usize = 128;

/// The key of the label that names a CIDR group (GRP-1).
#[must_use]
pub fn cidr_group_key(name: &str) -> String {
    format!("io.cilium.policy.cidrgroupname/{name}")
}

/// One label: `source:key=value`; with an empty value it is written `source:key`. A copy costs next to nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// Sorted by key first, as LBL-7 wants.
    pub key: Text,
    /// Where the label comes from: `k8s`, `reserved`, `cidr`, …
    pub source: Text,
    /// May be empty.
    pub value: Text,
}

/// Why a text is not a label or a set of texts is not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// There is no key.
    #[error("label {text:?} has no key: write it as source:key=value, for example k8s:app=web")]
    NoKey {
        /// The text as given.
        text: String,
    },
    /// The label is too long to keep.
    #[error("label {text:?} has {length} bytes: at most {MAX_LABEL_BYTES} are allowed")]
    TooLong {
        /// The beginning of the text.
        text: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A character that would break the canonical form.
    #[error("label {text:?} contains {character:?}: control characters and ';' are not allowed in labels")]
    Character {
        /// The text as given.
        text: String,
        /// The offending character.
        character: char,
    },
    /// Two labels with one key.
    #[error("label key {key:?} is given twice: a label set has each key once")]
    Duplicate {
        /// The key.
        key: String,
    },
    /// Too many labels.
    #[error("{count} labels given: a label set has at most {MAX_LABELS}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl Label {
    /// A label from its parts.
    pub fn new(source: impl Into<Text>, key: impl Into<Text>, value: impl Into<Text>) -> Self {
        Self { key: key.into(), source: source.into(), value: value.into() }
    }

    /// Parses a label that describes an object: without a source it is `unspec` (LBL-1 … LBL-5).
    ///
    /// # Errors
    /// `InvalidLabel` for an empty key, a text that is too long, or a character that cannot be kept.
    pub fn parse(text: &str) -> Result<Self, InvalidLabel> {
        Self::parse_with(text, SOURCE_UNSPEC)
    }

    /// Parses a label with the source to take when the text names none.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_with(text: &str, default_source: &str) -> Result<Self, InvalidLabel> {
        let (source, key, value) = Self::split(text, default_source)?;
        Ok(Self::new(source, key, value))
    }

    /// Source, key and value of a label's text.
    fn split<'a>(text: &'a str, default_source: &'a str) -> Result<(&'a str, &'a str, &'a str), InvalidLabel> {
        if text.len() > MAX_LABEL_BYTES {
            return Err(InvalidLabel::TooLong { text: text.chars().take(64).collect(), length: text.len() });
        }
        if let Some(character) = text.chars().find(|c| c.is_control() || *c == ';') {
            return Err(InvalidLabel::Character { text: text.to_owned(), character });
        }
        let (source, rest) = Self::split_source(text, default_source);
        // LBL-5: `reserved:=foo` is key `foo`.
        let rest = if source == SOURCE_RESERVED { rest.strip_prefix('=').unwrap_or(rest) } else { rest };
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        if key.is_empty() {
            return Err(InvalidLabel::NoKey { text: text.to_owned() });
        }
        Ok((source, key, value))
    }

    /// LBL-1 … LBL-4: the source, which is all before the first `:`, and what follows it.
    fn split_source<'a>(text: &'a str, default_source: &'a str) -> (&'a str, &'a str) {
        if let Some(rest) = text.strip_prefix('$') {
            return (SOURCE_RESERVED, rest);
        }
        match text.split_once(':') {
            Some((source, rest)) if !source.is_empty() => (source, rest),
            Some((_, rest)) => (default_source, rest),
            None => match text.strip_prefix("reserved.") {
                Some(rest) => (SOURCE_RESERVED, rest),
                None => (default_source, text),
            },
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of labels with each key once (LBL-6), ordered by key. Copies share one allocation, and sets that were made apart
/// share the labels that they have in common.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LabelSet(Arc<[Shared]>);

impl LabelSet {
    /// Parses label texts; a key that is given twice is an error here, because a person wrote it.
    ///
    /// # Errors
    /// `InvalidLabel` for the first text that is wrong.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, InvalidLabel> {
        let parse = |text: T| {
            let (source, key, value) = Label::split(text.as_ref(), SOURCE_UNSPEC)?;
            Ok(Shared::new(source, key, value))
        };
        let mut labels = texts.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        labels.sort_by(|one, other| one.key.cmp(&other.key));
        if let Some(twice) = labels.windows(2).find(|pair| pair[0].key == pair[1].key) {
            return Err(InvalidLabel::Duplicate { key: twice[0].key.to_string() });
        }
        if labels.len() > MAX_LABELS {
            return Err(InvalidLabel::TooMany { count: labels.len() });
        }
        Ok(Self(labels.into()))
    }

    /// Adds a label; one with the same key is replaced and given back (LBL-6).
    pub fn insert(&mut self, label: Label) -> Option<Label> {
        let mut labels = self.0.to_vec();
        let replaced = match self.position(&label.key) {
            Ok(at) => {
                let replaced: Shared = std::mem::replace(&mut labels[at], label.into());
                Some(Label::clone(&replaced))
            }
            Err(at) => {
                labels.insert(at, label.into());
                None
            }
        };
        self.0 = labels.into();
        replaced
    }

    /// The label with this key, whatever its source.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Label> {
        self.position(key).ok().map(|at| &*self.0[at])
    }

    /// All labels, ordered by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter().map(|label| &**label)
    }

    /// How many labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|label| label.key.as_str().cmp(key))
    }

    /// LBL-7: sorted by key, each `source:key=value;`. Equal sets have equal texts, for ever.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.iter().map(|label| format!("{}:{}={};", label.source, label.key, label.value)).collect()
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<T: IntoIterator<Item = Label>>(labels: T) -> Self {
        let mut labels: Vec<Shared> = labels.into_iter().map(Shared::from).collect();
        // Of those with one key the last stays: the sort keeps their order.
        labels.reverse();
        labels.sort_by(|one, other| one.key.cmp(&other.key));
        labels.dedup_by(|next, kept| next.key == kept.key);
        Self(labels.into())
    }
}

impl<'de> Deserialize<'de> for LabelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let labels = Vec::<Shared>::deserialize(deserializer)?;
        if labels.is_sorted_by(|one, next| one.key < next.key) {
            Ok(Self(labels.into()))
        } else {
            Err(de::Error::custom("the labels are not ordered by key, each key once"))
        }
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{label}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let label = Label::parse(text).unwrap();
        (label.source.to_string(), label.key.to_string(), label.value.to_string())
    }

    #[test]
    fn lbl_1_to_5_parse_rules() {
        let cases = [
            ("k8s:app=web", ("k8s", "app", "web")),
            ("k8s:a=b=c", ("k8s", "a", "b=c")),
            ("app=web", ("unspec", "app", "web")),
            ("$host", ("reserved", "host", "")),
            ("reserved.host", ("reserved", "host", "")),
            ("app.kubernetes.io/name", ("unspec", "app.kubernetes.io/name", "")),
            ("reserved:=foo", ("reserved", "foo", "")),
        ];
        for (text, (source, key, value)) in cases {
            assert_eq!(parts(text), (source.into(), key.into(), value.into()), "{text}");
        }
    }

    #[test]
    fn lbl_6_one_label_for_each_key() {
        let mut set = LabelSet::default();
        set.insert(Label::new("k8s", "app", "web"));
        let replaced = set.insert(Label::new("container", "app", "api"));
        assert_eq!(replaced, Some(Label::new("k8s", "app", "web")));
        assert_eq!(set.len(), 1);
        assert!(matches!(LabelSet::parse(["k8s:a=1", "any:a=2"]), Err(InvalidLabel::Duplicate { .. })));
    }

    #[test]
    fn lbl_6_of_labels_with_one_key_the_last_stays() {
        let labels = |texts: &[&str]| texts.iter().map(|text| Label::parse(text).unwrap()).collect::<LabelSet>();
        let set = labels(&["k8s:b=1", "k8s:a=1", "k8s:b=2", "any:a=2", "k8s:c"]);
        assert_eq!(set.to_string(), "any:a=2,k8s:b=2,k8s:c");
        let mut one_by_one = LabelSet::default();
        for text in ["k8s:c", "k8s:b=2", "any:a=2"] {
            one_by_one.insert(Label::parse(text).unwrap());
        }
        assert_eq!((&set, set.get("b").map(|label| label.value.as_str())), (&one_by_one, Some("2")));
    }

    #[test]
    fn bytes_that_are_no_set_are_refused() {
        let label = |key: &str| serde_json::json!({"key": key, "source": "k8s", "value": ""});
        let set = |keys: &[&str]| {
            serde_json::from_value::<LabelSet>(keys.iter().map(|key| label(key)).collect::<Vec<_>>().into())
        };
        assert_eq!(set(&["a", "b"]).unwrap(), LabelSet::parse(["k8s:a", "k8s:b"]).unwrap());
        for wrong in [["b", "a"], ["a", "a"]] {
            assert!(set(&wrong).unwrap_err().to_string().contains("not ordered by key"), "{wrong:?}");
        }
    }

    #[test]
    fn lbl_7_canonical_text_is_sorted_by_key() {
        let set = LabelSet::parse(["k8s:b=2", "k8s:a", "reserved:c"]).unwrap();
        assert_eq!(set.canonical(), "k8s:a=;k8s:b=2;reserved:c=;");
    }

    #[test]
    fn bad_labels_say_what_is_wrong() {
        assert!(matches!(Label::parse("k8s:=x"), Err(InvalidLabel::NoKey { .. })));
        assert!(matches!(Label::parse("a;b=c"), Err(InvalidLabel::Character { character: ';', .. })));
        assert!(matches!(Label::parse(&"x".repeat(600)), Err(InvalidLabel::TooLong { length: 600, .. })));
    }
}
