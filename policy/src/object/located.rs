//! A node of a document together with the document, and the findings about it.

use super::{Diagnostic, Position, Severity, fields::nearest, path::path};
use crate::{
    compat::Compat,
    diagnostic::quoted,
    document::{Entry, Node, ScalarKind, Value},
};

/// A node and the document it is in.
#[derive(Clone)]
pub(super) struct Located<'a> {
    root: &'a Node,
    pub(super) node: &'a Node,
    /// The node's own position, or its key's if it has one: that is where a person looks.
    pub(super) position: Position,
}

/// A mapping whose keys have been checked.
pub(super) struct Mapping<'a> {
    pub(super) at: Located<'a>,
    entries: &'a [Entry],
    /// A field without a value is absent.
    skips_null: bool,
}

/// The findings of one document, and how it is read.
pub(super) struct Findings {
    compat: Compat,
    list: Vec<Diagnostic>,
    errors: usize,
}

impl Findings {
    pub(super) fn new(compat: Compat) -> Self {
        Self { compat, list: Vec::new(), errors: 0 }
    }

    /// Whether the document is read as Cilium's agent reads it: unknown fields are ignored, a field without a value is
    /// absent, and what only the API server's schema refuses is accepted.
    pub(super) fn as_cilium(&self) -> bool {
        self.compat == Compat::Cilium
    }

    pub(super) const fn compat(&self) -> Compat {
        self.compat
    }

    pub(super) fn add(&mut self, finding: Diagnostic) {
        self.errors += usize::from(finding.is_error());
        self.list.push(finding);
    }

    /// Adds what Cilium's agent accepts and Ringfence does not.
    pub(super) fn add_strict(&mut self, finding: Diagnostic) {
        if !self.as_cilium() {
            self.add(finding);
        }
    }

    pub(super) const fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn into_vec(self) -> Vec<Diagnostic> {
        self.list
    }
}

impl<'a> Located<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { root: node, node, position: node.position }
    }

    fn entry(&self, entry: &'a Entry) -> Self {
        Self { root: self.root, node: &entry.value, position: entry.position }
    }

    /// A place below this one, such as `rules.http[0].path`, as near as what is written goes.
    pub(super) fn at_path(&self, path: &str) -> Self {
        let (step, rest) = path.split_once(['.', '[']).unwrap_or((path, ""));
        let next = match (&self.node.value, step.strip_suffix(']')) {
            (Value::Sequence(items), Some(index)) => {
                index.parse().ok().and_then(|index: usize| items.get(index).map(|node| self.item(node)))
            }
            (Value::Mapping(entries), None) => {
                entries.iter().find(|entry| entry.key == step).map(|entry| self.entry(entry))
            }
            _ => None,
        };
        match next {
            Some(next) if rest.is_empty() => next,
            Some(next) => next.at_path(rest.strip_prefix('.').unwrap_or(rest)),
            None => self.clone(),
        }
    }

    fn item(&self, node: &'a Node) -> Self {
        Self { root: self.root, node, position: node.position }
    }

    /// An error at this place.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { path: path(self.root, self.node), ..Diagnostic::error(self.position, message) }
    }

    /// A warning at this place.
    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..self.error(message) }
    }

    /// The node as a mapping with these fields; every other key is a finding.
    pub(super) fn mapping(&self, fields: &[&str], findings: &mut Findings) -> Option<Mapping<'a>> {
        let entries = self.entries(findings)?;
        for entry in entries.iter().filter(|entry| !fields.contains(&entry.key.as_str())) {
            let help = match nearest(&entry.key, fields.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known here: {}", fields.join(", ")),
            };
            let finding = self.entry(entry).error(format!("unknown field {}", quoted(&entry.key)));
            findings.add_strict(finding.help(help));
        }
        Some(Mapping { at: self.clone(), entries, skips_null: findings.as_cilium() })
    }

    /// The keys and values of a mapping with free keys.
    pub(super) fn pairs(&self, findings: &mut Findings) -> Option<Vec<(&'a str, Self)>> {
        let entries = self.entries(findings)?;
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry))).collect())
    }

    fn entries(&self, findings: &mut Findings) -> Option<&'a [Entry]> {
        match &self.node.value {
            Value::Mapping(entries) => Some(entries),
            _ if self.node.is_null() && findings.as_cilium() => Some(&[]),
            _ if self.node.is_null() => {
                findings
                    .add(self.error("has no value").help("remove the key, or write {} for a mapping without content"));
                None
            }
            _ => self.wrong_type("a mapping", findings),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self, findings: &mut Findings) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::Sequence(items) => Some(items.iter().map(|node| self.item(node)).collect()),
            _ if self.node.is_null() => {
                let help = "remove the key to say nothing, or write [] for a list without elements";
                findings.add(self.error("has no value, which could mean either no list or an empty one").help(help));
                None
            }
            _ => self.wrong_type("a list", findings),
        }
    }

    /// A text: quoted, or plain and neither a number nor a boolean, as the Kubernetes API wants it.
    pub(super) fn text(&self, findings: &mut Findings) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Text => Some(&scalar.text),
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null => {
                findings.add(self.error("must be a text, found nothing").help("write \"\" for an empty text"));
                None
            }
            Value::Scalar(scalar) => {
                let finding = self.error(format!("must be a text, found {}", self.node.describe()));
                findings.add(finding.help(format!("write it in quotes: {}", quoted(&scalar.text))));
                None
            }
            _ => self.wrong_type("a text", findings),
        }
    }

    /// A boolean.
    pub(super) fn boolean(&self, findings: &mut Findings) -> Option<bool> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Boolean => {
                Some(scalar.text.eq_ignore_ascii_case("true"))
            }
            _ => self.wrong_type("true or false", findings),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<N: std::str::FromStr>(&self, findings: &mut Findings) -> Option<N> {
        let written = match &self.node.value {
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Number => scalar.text.parse().ok(),
            _ => return self.wrong_type("a number", findings),
        };
        if written.is_none() {
            findings.add(self.error("is no whole number of the size that is meant here"));
        }
        written
    }

    /// A text or a number, as written.
    pub(super) fn text_or_number(&self, findings: &mut Findings) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.kind() == ScalarKind::Number => Some(&scalar.text),
            _ => self.text(findings),
        }
    }

    fn wrong_type<T>(&self, expected: &str, findings: &mut Findings) -> Option<T> {
        findings.add(self.error(format!("must be {expected}, found {}", self.node.describe())));
        None
    }
}

impl<'a> Mapping<'a> {
    /// The value of a field that is written.
    pub(super) fn get(&self, name: &str) -> Option<Located<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let absent = self.skips_null && entry.value.is_null();
        (!absent).then(|| self.at.entry(entry))
    }

    /// The text of a field; empty if it is not written.
    pub(super) fn text(&self, name: &str, findings: &mut Findings) -> String {
        self.get(name).and_then(|at| at.text(findings).map(ToOwned::to_owned)).unwrap_or_default()
    }

    /// The texts of a list; none if it is not written.
    pub(super) fn texts(&self, name: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let items = self.get(name)?.items(findings)?;
        Some(items.iter().filter_map(|item| item.text(findings).map(ToOwned::to_owned)).collect())
    }

    /// The items of a list; none if it is not written.
    pub(super) fn list(&self, name: &str, findings: &mut Findings) -> Option<Vec<Located<'a>>> {
        self.get(name)?.items(findings)
    }

    /// A place below this mapping, such as `rules.http[0].path`, as near as what is written goes.
    pub(super) fn at_path(&self, path: &str) -> Located<'a> {
        self.at.at_path(path)
    }

    /// The fields out of `names` that hold a list with at least one element.
    pub(super) fn filled(&self, names: &[&str]) -> Vec<&'a str> {
        let filled = |entry: &&Entry| {
            names.contains(&entry.key.as_str())
                && matches!(&entry.value.value, Value::Sequence(items) if !items.is_empty())
        };
        self.entries.iter().filter(filled).map(|entry| entry.key.as_str()).collect()
    }
}
