//! Policy objects: from the text a person wrote to checked, normalised rules.
//!
//! ```text
//! text ─ document::read ─► trees ─ envelope ─► kind, name ─┐
//!                                  spec ─► element ─► ports ├─► Object { key, text, rules }
//!                                   └► selector ─ namespace ┘       + every Diagnostic of the document
//! ```
//!
//! Objects are accepted or rejected whole. A field that does not exist is an error, and so is one that exists and is
//! not supported yet: nothing that is written is ever ignored, except what only describes.

mod element;
mod envelope;
mod fields;
mod located;
mod namespace;
mod ports;
mod selector;
mod spec;

use std::collections::BTreeMap;

use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    document::{self, Document},
    record::{PolicyKey, PolicyRecord},
    rule::Rule,
};
use located::{Findings, Located};

/// One policy object that can be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Which object.
    pub key: PolicyKey,
    /// Where it begins in the text it was read from.
    pub position: Position,
    /// Its own document, as written: what `PolicyRecord::text` keeps.
    pub text: String,
    /// `spec` first, then `specs` in order.
    pub rules: Vec<Rule>,
}

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The objects without errors, in order.
    pub objects: Vec<Object>,
    /// Every finding, errors and warnings, by position.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether a document of the text was rejected.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Parses every document of a YAML or JSON text. Never panics, whatever the text; positions are those of the text.
#[must_use]
pub fn parse_objects(text: &str) -> Parsed {
    let read = document::read(text);
    let mut parsed = Parsed { objects: Vec::new(), diagnostics: read.diagnostics };
    let mut first_positions: BTreeMap<PolicyKey, Position> = BTreeMap::new();
    for document in read.documents {
        let mut findings = Findings::default();
        let object = decode(document, &mut findings);
        if let Some(object) = object {
            match first_positions.get(&object.key) {
                Some(first) => findings.add(
                    Diagnostic::error(object.position, format!("{} is given twice: first at {first}", object.key))
                        .help("keep one of them, or give them different names"),
                ),
                None => {
                    first_positions.insert(object.key.clone(), object.position);
                }
            }
            if findings.errors() == 0 {
                parsed.objects.push(object);
            }
        }
        parsed.diagnostics.append(&mut findings.into_vec());
    }
    parsed.diagnostics.sort();
    parsed
}

/// Parses the text of a record, which holds exactly the object of its key.
///
/// # Errors
/// Every finding that rejects the text; a text without an object or with another one than the key's is rejected, too.
pub fn parse_record(record: &PolicyRecord) -> Result<Object, Vec<Diagnostic>> {
    let Parsed { mut objects, mut diagnostics } = parse_objects(&record.text);
    diagnostics.retain(Diagnostic::is_error);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    match (objects.pop(), objects.len()) {
        (Some(object), 0) if object.key == record.key => Ok(object),
        (Some(object), 0) => {
            let message = format!("the text is of {}, not of {}", object.key, record.key);
            Err(vec![Diagnostic::error(object.position, message)])
        }
        (None, _) => Err(vec![Diagnostic::error(Position::START, "the text holds no policy object")]),
        (Some(_), others) => {
            let message = format!("the text holds {} policy objects: a record holds one", others + 1);
            Err(vec![Diagnostic::error(Position::START, message)])
        }
    }
}

fn decode(document: Document, findings: &mut Findings) -> Option<Object> {
    let root = Located::root(&document.root);
    let envelope = envelope::decode(&root, findings)?;
    let rules = envelope.specs.iter().filter_map(|spec| spec::decode(spec, &envelope.scope, findings)).collect();
    Some(Object { key: envelope.key?, position: root.position, text: document.text, rules })
}
