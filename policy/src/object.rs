//! Policy objects: from the text a person wrote to checked, normalised rules.
//!
//! ```text
//! text ─ document::read ─► trees ─ envelope ─► kind, name ────────────────────────┐
//!                                  spec ─► element ─► peers ─ cidrs, names         ├─► Object { key, text, rules }
//!                                   │                └► ports ─ proxy ─ rules, icmp │   + every Diagnostic
//!                                  network_policy    selector ─ namespace          ┘
//! ```
//!
//! Objects are accepted or rejected whole. A field that does not exist is an error: nothing that is written is ever
//! ignored, except what only describes. What is accepted here may still be more than nodes can enforce: see
//! [`not_enforceable`].

mod advice;
mod audit;
mod cidr_group;
mod cidrs;
mod element;
mod enforceable;
mod envelope;
mod fields;
mod icmp;
mod located;
mod names;
mod namespace;
mod network_policy;
mod path;
mod peers;
mod ports;
mod proxy;
mod rules;
mod selector;
mod service;
mod spec;

pub use cidr_group::CidrGroup;
pub use enforceable::not_enforceable;
pub use service::{ServiceContent, ServicePart, services};

use std::collections::BTreeMap;

use crate::{
    compat::Compat,
    diagnostic::{Diagnostic, Position, Severity},
    document::{self, Document},
    record::{PolicyKey, PolicyKind, PolicyRecord},
    rule::Rule,
};
use envelope::Kind;
use located::{Findings, Located};

/// One policy object.
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
    /// The policy objects without errors, in order.
    pub objects: Vec<Object>,
    /// The CIDR groups without errors, in order.
    pub groups: Vec<CidrGroup>,
    /// What the cluster says of services, in order: Service, Endpoints and EndpointSlice.
    pub services: Vec<ServicePart>,
    /// Every finding, errors and warnings, by position.
    pub diagnostics: Vec<Diagnostic>,
}

impl Object {
    /// Whether it is under audit, by its annotation: every rule of it says so, too (AUD-5).
    #[must_use]
    pub fn audit(&self) -> bool {
        self.rules.iter().any(|rule| rule.audit)
    }
}

impl Parsed {
    /// Whether a document of the text was rejected.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Parses every policy object of a YAML or JSON text, for the store. Never panics, whatever the text; positions are
/// those of the text. CIDR groups are refused: there are no records for them yet.
#[must_use]
pub fn parse_objects(text: &str) -> Parsed {
    let mut parsed = parse_documents(text, Compat::Ringfence);
    for group in std::mem::take(&mut parsed.groups) {
        let finding = Diagnostic::error(group.position, "kind \"CiliumCIDRGroup\" cannot be kept in the store yet");
        parsed.diagnostics.push(finding.help("write the ranges where they are used"));
    }
    for part in std::mem::take(&mut parsed.services) {
        let finding = Diagnostic::error(part.position, "services and their endpoints cannot be kept in the store yet");
        parsed.diagnostics.push(finding.help("they are for policy explain and policy test only"));
    }
    parsed.diagnostics.sort();
    parsed
}

/// Parses every document of a YAML or JSON text, in one of two ways. Never panics, whatever the text; positions are
/// those of the text.
#[must_use]
pub fn parse_documents(text: &str, compat: Compat) -> Parsed {
    let read = document::read(text);
    let several = read.documents.len() > 1;
    let mut parsed = Parsed { diagnostics: read.diagnostics, ..Parsed::default() };
    let mut first_positions: BTreeMap<PolicyKey, Position> = BTreeMap::new();
    for document in read.documents {
        let mut findings = Findings::new(compat);
        match decode(document, &mut findings) {
            Some(Decoded::Object(object)) => {
                match first_positions.get(&object.key) {
                    Some(first) => findings.add(
                        Diagnostic::error(object.position, format!("{} is given twice: first at {first}", object.key))
                            .help("keep one of them, or give them different names"),
                    ),
                    None if several => {
                        first_positions.insert(object.key.clone(), object.position);
                    }
                    None => {}
                }
                if findings.errors() == 0 {
                    parsed.objects.push(object);
                }
            }
            Some(Decoded::Group(group)) if findings.errors() == 0 => parsed.groups.push(group),
            Some(Decoded::Service(part)) if findings.errors() == 0 => parsed.services.push(part),
            Some(Decoded::Group(_) | Decoded::Service(_)) | None => {}
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
    let Parsed { mut objects, mut diagnostics, .. } = parse_objects(&record.text);
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

/// What one document holds.
enum Decoded {
    Object(Object),
    Group(CidrGroup),
    Service(ServicePart),
}

fn decode(document: Document, findings: &mut Findings) -> Option<Decoded> {
    let root = Located::root(&document.root);
    if let Some(service) = service::decode(&root, findings) {
        return service.map(Decoded::Service);
    }
    let envelope = envelope::decode(&root, findings)?;
    let (position, scope) = (root.position, &envelope.scope);
    let Kind::Policy(kind) = envelope.kind else {
        let ranges = envelope.spec.map(|spec| cidr_group::ranges(&spec, findings)).unwrap_or_default();
        return Some(Decoded::Group(CidrGroup { name: envelope.name?, position, labels: envelope.labels, ranges }));
    };
    let spec = envelope.spec.iter().map(|spec| (spec, false));
    let specs: Vec<_> = spec.chain(envelope.specs.iter().map(|spec| (spec, true))).collect();
    let mut rules: Vec<Rule> = Vec::new();
    for (at, in_list) in specs {
        rules.extend(match kind {
            PolicyKind::NetworkPolicy => network_policy::decode(at, scope, findings),
            _ => spec::decode(at, in_list, scope, findings),
        });
    }
    // What groups of a cloud provider expand to is another object, made by Cilium's operator; this one is not enforced.
    let derived = |rule: &Rule| rule.elements().any(|(_, _, element)| element.peers.iter().any(|p| p.groups > 0));
    if findings.as_cilium() && rules.iter().any(derived) {
        rules.clear();
    }
    rules.iter_mut().for_each(|rule| rule.audit = envelope.audit);
    if findings.errors() == 0 {
        advice::on(&rules, findings);
    }
    let key = PolicyKey { kind, namespace: envelope.namespace, name: envelope.name? };
    Some(Decoded::Object(Object { key, position, text: document.text, rules }))
}
