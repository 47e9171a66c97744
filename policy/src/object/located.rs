//! A node of a document together with the path that leads to it, and the findings about it.

use super::{
    Diagnostic, Position, Severity,
    fields::{Field, Support, nearest},
};
use crate::{
    diagnostic::quoted,
    document::{Entry, Node, ScalarKind, Value},
};

/// A node and its path.
#[derive(Clone)]
pub(super) struct Located<'a> {
    pub(super) node: &'a Node,
    /// The node's own position, or its key's if it has one: that is where a person looks.
    pub(super) position: Position,
    pub(super) path: String,
}

/// A mapping whose keys have been checked.
pub(super) struct Mapping<'a> {
    pub(super) at: Located<'a>,
    entries: &'a [Entry],
}

/// The findings of one document.
#[derive(Default)]
pub(super) struct Findings(Vec<Diagnostic>);

impl Findings {
    pub(super) fn add(&mut self, finding: Diagnostic) {
        self.0.push(finding);
    }

    pub(super) fn errors(&self) -> usize {
        self.0.iter().filter(|finding| finding.is_error()).count()
    }

    pub(super) fn into_vec(self) -> Vec<Diagnostic> {
        self.0
    }
}

impl<'a> Located<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, position: node.position, path: String::new() }
    }

    fn entry(&self, entry: &'a Entry) -> Self {
        let plain = entry.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let path = match (plain && !entry.key.is_empty(), self.path.is_empty()) {
            (true, true) => entry.key.clone(),
            (true, false) => format!("{}.{}", self.path, entry.key),
            (false, _) => format!("{}[{}]", self.path, quoted(&entry.key)),
        };
        Self { node: &entry.value, position: entry.position, path }
    }

    /// An error at this place.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { path: self.path.clone(), ..Diagnostic::error(self.position, message) }
    }

    /// A warning at this place.
    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..self.error(message) }
    }

    /// The node as a mapping with these fields; every other key is a finding.
    pub(super) fn mapping(&self, fields: &[Field], findings: &mut Findings) -> Option<Mapping<'a>> {
        let entries = self.entries(findings)?;
        for entry in entries {
            let at = self.entry(entry);
            let name = quoted(&entry.key);
            match fields.iter().find(|field| field.name == entry.key).map(|field| field.support) {
                Some(Support::Used) => {}
                Some(Support::Planned) => {
                    let finding = at.error(format!("field {name} is not supported yet"));
                    findings.add(finding.help("it is refused because ignoring it would change what the policy does"));
                }
                None => {
                    let near = nearest(&entry.key, fields.iter().map(|field| field.name));
                    let known = fields.iter().filter(|field| field.support == Support::Used).map(|field| field.name);
                    let help = match near {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
                    };
                    findings.add(at.error(format!("unknown field {name}")).help(help));
                }
            }
        }
        Some(Mapping { at: self.clone(), entries })
    }

    /// The keys and values of a mapping with free keys.
    pub(super) fn pairs(&self, findings: &mut Findings) -> Option<Vec<(&'a str, Self)>> {
        let entries = self.entries(findings)?;
        Some(entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry))).collect())
    }

    fn entries(&self, findings: &mut Findings) -> Option<&'a [Entry]> {
        match &self.node.value {
            Value::Mapping(entries) => Some(entries),
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
        let item = |(index, node): (usize, &'a Node)| Self {
            node,
            position: node.position,
            path: format!("{}[{index}]", self.path),
        };
        match &self.node.value {
            Value::Sequence(items) => Some(items.iter().enumerate().map(item).collect()),
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
        self.entries.iter().find(|entry| entry.key == name).map(|entry| self.at.entry(entry))
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
