//! Which labels make an identity (LBL-30 … LBL-36).
//!
//! ```text
//! LabelFilterText (a setting of the mesh) ─ new ─► LabelFilter ─ relevant(labels) ─► the labels that are numbered
//! ```
//!
//! The store's state machine filters, so one set of labels has one number whichever node or gateway brings it.

use serde::{Deserialize, Serialize};

use crate::{
    l7::expression::{InvalidExpression, PrefixExpression},
    label::{Label, LabelSet},
};

/// LBL-33, LBL-34.
const DEFAULTS: [&str; 19] = [
    "reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    "!pod-template-generation",
    "!pod-template-hash",
    "!controller-revision-hash",
    "!annotation.*",
    "!controller-uid",
    "!etcd_node",
];
/// The most entries of a mesh's own.
const MAX_ENTRIES: usize = 256;

/// A filter as it is set: entries are `[SOURCE:][!]EXPRESSION`, in RE2's syntax, matched from the beginning of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFilterText {
    /// The entries stand alone, as those of a label-prefix file; else they come on top of the built-in ones (LBL-36).
    pub replaces_defaults: bool,
    /// In any order.
    pub entries: Vec<String>,
}

/// A compiled filter.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelFilter {
    entries: Vec<Entry>,
    /// LBL-32: labels that match nothing are dropped.
    include_mode: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    source: Option<String>,
    ignores: bool,
    expression: PrefixExpression,
    /// What most expressions are; they need no automaton.
    literal: Option<Literal>,
}

/// Letters, digits and the like, and what may stand around them.
#[derive(Clone, Debug, PartialEq)]
struct Literal {
    /// `.*` stands before: the last occurrence counts.
    anywhere: bool,
    text: String,
    /// `.*` stands behind: everything behind matches, too.
    open_end: bool,
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum InvalidFilter {
    /// There is no expression.
    #[error("{entry:?} names no labels: write [SOURCE:][!]EXPRESSION, for example k8s:app or !pod-template-hash")]
    Empty {
        /// The entry as given.
        entry: String,
    },
    /// The expression is wrong.
    #[error("{entry:?}: {reason}")]
    Expression {
        /// The entry as given.
        entry: String,
        /// What is wrong.
        reason: InvalidExpression,
    },
    /// Too many entries.
    #[error("{count} entries given: at most {MAX_ENTRIES} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl LabelFilter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// `InvalidFilter` for the first entry that is wrong.
    pub fn new(text: &LabelFilterText) -> Result<Self, InvalidFilter> {
        if text.entries.len() > MAX_ENTRIES {
            return Err(InvalidFilter::TooMany { count: text.entries.len() });
        }
        let own = text.entries.iter().map(|entry| Entry::new(entry)).collect::<Result<Vec<_>, _>>()?;
        let include_mode = own.iter().any(|entry| !entry.ignores);
        let defaults: &[&str] = if text.replaces_defaults { &[] } else { &DEFAULTS };
        let entries = defaults.iter().map(|entry| Entry::new(entry)).chain(own.into_iter().map(Ok));
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, include_mode })
    }

    /// The labels that make the identity; the others only inform.
    #[must_use]
    pub fn relevant(&self, labels: &LabelSet) -> LabelSet {
        match labels.iter().all(|label| self.is_relevant(label)) {
            true => labels.clone(),
            false => labels.iter().filter(|label| self.is_relevant(label)).cloned().collect(),
        }
    }

    /// Whether a label makes the identity (LBL-31). As in Cilium, an ignore that matches nothing of the key counts as none.
    #[must_use]
    pub fn is_relevant(&self, label: &Label) -> bool {
        // A dot matches no end of a line.
        let is_plain = !label.key.contains('\n');
        let (mut included, mut ignored) = (0, 0);
        for entry in &self.entries {
            match entry.matched_bytes(label, is_plain) {
                Some(length) if entry.ignores && (ignored == 0 || length < ignored) => ignored = length,
                Some(length) if !entry.ignores => included = included.max(length),
                _ => {}
            }
        }
        included > ignored || (!self.include_mode && ignored == 0)
    }
}

impl Default for LabelFilter {
    fn default() -> Self {
        Self::new(&LabelFilterText::default()).expect("the built-in entries are expressions; a test compiles them")
    }
}

impl Entry {
    fn new(text: &str) -> Result<Self, InvalidFilter> {
        let (source, rest) = text.split_once(':').map_or((None, text), |(source, rest)| (Some(source), rest));
        let (ignores, expression) = rest.strip_prefix('!').map_or((false, rest), |expression| (true, expression));
        if expression.is_empty() {
            return Err(InvalidFilter::Empty { entry: text.to_owned() });
        }
        let expression = PrefixExpression::new(expression)
            .map_err(|reason| InvalidFilter::Expression { entry: text.to_owned(), reason })?;
        let source = source.filter(|source| !source.is_empty()).map(str::to_owned);
        Ok(Self { source, ignores, literal: Literal::of(expression.as_str()), expression })
    }

    /// LBL-30: how much of the key matches, from its beginning on.
    fn matched_bytes(&self, label: &Label, is_plain: bool) -> Option<usize> {
        let applies = self.source.as_ref().is_none_or(|source| label.source == *source);
        if !applies {
            return None;
        }
        match &self.literal {
            Some(literal) if is_plain => literal.matched_bytes(&label.key),
            _ => self.expression.matched_bytes(&label.key),
        }
    }
}

impl Literal {
    /// None for an expression that says more.
    fn of(expression: &str) -> Option<Self> {
        let (anywhere, rest) = expression.strip_prefix(".*").map_or((false, expression), |rest| (true, rest));
        let (open_end, rest) = rest.strip_suffix(".*").map_or((false, rest), |rest| (true, rest));
        let text = rest.replace(r"\.", ".");
        let plain = |part: &str| part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'/'));
        rest.split(r"\.").all(plain).then_some(Self { anywhere, text, open_end })
    }

    fn matched_bytes(&self, key: &str) -> Option<usize> {
        let (bytes, text) = (key.as_bytes(), self.text.as_bytes());
        // Most differ in their first byte: no call is made for these.
        let is_at = |at: &usize| text.is_empty() || (bytes[*at] == text[0] && bytes[*at..].starts_with(text));
        let last = key.len().checked_sub(text.len())?;
        let start = if self.anywhere { (0..=last).rev().find(is_at)? } else { Some(0).filter(is_at)? };
        Some(if self.open_end { key.len() } else { start + self.text.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(replaces_defaults: bool, entries: &[&str]) -> Result<LabelFilter, InvalidFilter> {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        LabelFilter::new(&LabelFilterText { replaces_defaults, entries })
    }

    #[track_caller]
    fn check(filter: &LabelFilter, kept: &[&str], dropped: &[&str]) {
        for (texts, relevant) in [(kept, true), (dropped, false)] {
            for text in texts {
                assert_eq!(filter.is_relevant(&Label::parse(text).unwrap()), relevant, "{text}");
            }
        }
    }

    #[test]
    fn lbl_33_and_34_the_built_in_entries() {
        let kept = [
            "k8s:app=web",
            "k8s:io.kubernetes.pod.namespace=shop",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:app.kubernetes.io/name=web",
            "k8s:io.cilium.k8s.policy.cluster=east",
            "k8s:io.cilium.k8s.policy.serviceaccount=web",
            "reserved:host",
            "container:zone=a",
            // Prefixes begin at the key's beginning.
            "k8s:my-pod-template-hash=1",
        ];
        let dropped = [
            "k8s:io.kubernetes.container.name=a",
            "k8s:kubernetes.io/arch=amd64",
            "k8s:statefulset.kubernetes.io/pod-name=web-0",
            "k8s:apps.kubernetes.io/pod-index=0",
            "k8s:batch.kubernetes.io/job-completion-index=0",
            "k8s:batch.kubernetes.io/controller-uid=0",
            "k8s:failure-domain.beta.kubernetes.io/zone=a",
            "k8s:k8s.io/cluster=a",
            "k8s:pod-template-generation=1",
            "k8s:pod-template-hash=abc",
            "k8s:controller-revision-hash=abc",
            "k8s:controller-uid=abc",
            "k8s:annotation.kubectl=x",
            "k8s:etcd_node=a",
        ];
        check(&LabelFilter::default(), &kept, &dropped);
    }

    #[test]
    fn lbl_30_and_31_the_longest_include_against_the_shortest_ignore() {
        let only = filter(true, &["!foo", r"foo\.bar"]).unwrap();
        check(&only, &["k8s:foo.bar=1", "k8s:foo.bar.baz=1"], &["k8s:foo=1", "k8s:foo.b=1", "k8s:other=1"]);
        let shortest = filter(true, &["!foo", r"!foo\.bar\.baz", r"foo\.bar"]).unwrap();
        check(&shortest, &["k8s:foo.bar.baz=1"], &["k8s:foo=1"]);
        let source = filter(true, &["k8s:!foo"]).unwrap();
        check(&source, &["container:foo=1", "k8s:bar=1", "k8s:xfoo=1"], &["k8s:foo=1", "k8s:foobar=1"]);
        let expression = filter(true, &["!a.c$"]).unwrap();
        check(&expression, &["k8s:abcd=1"], &["k8s:abc=1"]);
    }

    #[test]
    fn lbl_32_35_and_36_an_include_of_the_users_drops_what_matches_nothing() {
        let with_ignore = filter(false, &["!team"]).unwrap();
        check(&with_ignore, &["k8s:app=web", "k8s:io.cilium.k8s.policy.serviceaccount=a"], &["k8s:team=a"]);
        let with_include = filter(false, &["k8s:app"]).unwrap();
        let kept = ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", "reserved:host"];
        check(&with_include, &kept, &["k8s:team=a", "k8s:io.cilium.k8s.policy.serviceaccount=a", "container:app=web"]);
        let replaced = filter(true, &["k8s:app"]).unwrap();
        check(&replaced, &["k8s:app=web"], &["k8s:io.kubernetes.pod.namespace=shop", "reserved:host"]);
        check(&filter(true, &[]).unwrap(), &["k8s:pod-template-hash=1"], &[]);
    }

    #[test]
    fn literals_match_as_their_expressions_do() {
        let own = ["", ".*", ".*a.*", "a.*", ".*a", r"a\.b", r".*\.", "a/b-c_d", "app", r".*a\.b.*"];
        let entries: Vec<_> =
            DEFAULTS.into_iter().chain(own.into_iter().skip(1)).map(|e| Entry::new(e).unwrap()).collect();
        assert!(entries.iter().all(|entry| entry.literal.is_some()));
        for expression in ["a.c", "a+", "^a", "a$", "(a)", "a|b", "[a]", r"\d", r"a\\.", "a..*", "é"] {
            assert_eq!(Literal::of(expression), None, "{expression}");
        }
        let pieces = ["a", ".", "b", "/", "beta", "kubernetes", ".io", "k8s", "annotation", "io.kubernetes", "xé"];
        let mut keys = vec![String::new()];
        for _ in 0..3 {
            keys.extend(keys.clone().iter().flat_map(|key| pieces.iter().map(move |piece| format!("{key}{piece}"))));
        }
        for key in keys {
            for Entry { expression, literal, .. } in &entries {
                let literal = literal.as_ref().unwrap();
                assert_eq!(literal.matched_bytes(&key), expression.matched_bytes(&key), "{literal:?} on {key:?}");
            }
        }
    }

    #[test]
    fn entries_that_are_wrong_are_named() {
        for (entry, expected) in
            [("k8s:", "names no labels"), ("!", "names no labels"), ("a(", "a group is not closed")]
        {
            let error = filter(false, &["k8s:app", entry]).unwrap_err().to_string();
            assert!(error.contains(&format!("{entry:?}")) && error.contains(expected), "{error}");
        }
        assert_eq!(filter(false, &["a"; 257]), Err(InvalidFilter::TooMany { count: 257 }));
    }
}
