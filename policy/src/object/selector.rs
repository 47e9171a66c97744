//! Selectors as objects write them, with Kubernetes' syntax of keys and values (VAL-3, LBL-10, LBL-14).

use std::collections::BTreeSet;

use super::{
    fields::{REQUIREMENT, SELECTOR, nearest},
    located::{Findings, Located, Mapping},
};
use crate::{
    diagnostic::quoted,
    label::{Label, NAMESPACE_LABELS_PREFIX, SOURCE_ANY, SOURCE_K8S},
    selector::{Condition, LabelKey, Requirement},
};

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
/// Kubernetes: the longest name part of a key, and the longest value.
const MAX_NAME_BYTES: usize = 63;
/// Kubernetes: the longest prefix of a key.
const MAX_PREFIX_BYTES: usize = 253;

/// How keys are read.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    /// With the source that is written before them, else of any (LBL-10).
    Written,
    /// As they are, of one source.
    Of(&'static str),
    /// As they are: labels of a namespace (KNP-3).
    OfNamespace,
}

/// A selector before namespaces are added to it.
#[derive(Default)]
pub(super) struct WrittenSelector {
    /// `matchLabels`
    pub(super) labels: Vec<Requirement>,
    /// `matchExpressions`
    pub(super) expressions: Vec<Requirement>,
}

impl WrittenSelector {
    /// All keys that are named.
    pub(super) fn keys(&self) -> impl Iterator<Item = &LabelKey> {
        self.labels.iter().chain(&self.expressions).map(|requirement| &requirement.key)
    }
}

impl FromIterator<Requirement> for WrittenSelector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self { labels: Vec::new(), expressions: requirements.into_iter().collect() }
    }
}

pub(super) fn decode(at: &Located<'_>, keys: Keys, findings: &mut Findings) -> Option<WrittenSelector> {
    let selector = at.mapping(SELECTOR, findings)?;
    let mut written = WrittenSelector::default();
    if let Some(labels) = selector.get("matchLabels") {
        for (key, at) in labels.pairs(findings)? {
            let key = label_key(key, keys, &at, findings);
            let value = label_value(&at, findings);
            written.labels.extend(key.zip(value).map(|(key, value)| Requirement::equals(key, value)));
        }
    }
    if let Some(expressions) = selector.get("matchExpressions") {
        let items = expressions.items(findings)?;
        written.expressions.extend(items.iter().filter_map(|item| expression(item, keys, findings)));
    }
    Some(written)
}

fn expression(at: &Located<'_>, keys: Keys, findings: &mut Findings) -> Option<Requirement> {
    let fields = at.mapping(REQUIREMENT, findings)?;
    let key = match fields.get("key") {
        Some(at) => at.text(findings).and_then(|text| label_key(text, keys, &at, findings)),
        None => missing("key", &fields, findings),
    };
    let operator = match fields.get("operator") {
        Some(at) => at.text(findings).map(|text| (text, at)),
        None => missing("operator", &fields, findings),
    };
    let values = values(&fields, findings);
    let (operator, operator_at) = operator?;
    let condition = match (operator, values) {
        ("In", Some(values)) if !values.is_empty() => Condition::In(values),
        ("NotIn", Some(values)) if !values.is_empty() => Condition::NotIn(values),
        ("Exists", values) if values.as_ref().is_none_or(BTreeSet::is_empty) => Condition::Exists,
        ("DoesNotExist", values) if values.as_ref().is_none_or(BTreeSet::is_empty) => Condition::DoesNotExist,
        ("In" | "NotIn", _) => {
            findings.add(fields.at.error(format!("operator {operator} needs values")).rule("VAL-3"));
            return None;
        }
        ("Exists" | "DoesNotExist", _) => {
            findings.add(fields.at.error(format!("operator {operator} takes no values")).rule("VAL-3"));
            return None;
        }
        _ => {
            let help = match nearest(operator, OPERATORS.into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known operators: {}", OPERATORS.join(", ")),
            };
            let finding = operator_at.error(format!("unknown operator {}", quoted(operator)));
            findings.add(finding.rule("VAL-3").help(help));
            return None;
        }
    };
    Some(Requirement { key: key?, condition })
}

fn missing<T>(field: &str, fields: &Mapping<'_>, findings: &mut Findings) -> Option<T> {
    findings.add(fields.at.error(format!("has no {field}")).rule("VAL-3"));
    None
}

/// `values` is optional; without a value it is as if it were not written, which every operator judges for itself.
fn values(fields: &Mapping<'_>, findings: &mut Findings) -> Option<BTreeSet<String>> {
    let at = fields.get("values").filter(|at| !at.node.is_null())?;
    let items = at.items(findings)?;
    Some(items.iter().filter_map(|item| label_value(item, findings)).collect())
}

fn label_key(text: &str, keys: Keys, at: &Located<'_>, findings: &mut Findings) -> Option<LabelKey> {
    let parsed = match keys {
        Keys::Written => written_key(text, findings),
        Keys::Of(source) => is_qualified_name(&format!("{source}.{text}")).then(|| LabelKey::new(source, text)),
        Keys::OfNamespace => {
            is_qualified_name(text).then(|| LabelKey::new(SOURCE_K8S, format!("{NAMESPACE_LABELS_PREFIX}{text}")))
        }
    };
    if parsed.is_none() {
        let finding = at.error(format!("{} is not a label key", quoted(text))).rule("VAL-3");
        findings
            .add(finding.help("write it like app, k8s:app or example.com/app, with at most 63 characters after the /"));
    }
    parsed
}

/// LBL-10: `k8s:app` has a source, `app` means any. Kubernetes checks the key as Cilium hands it on: behind its source.
fn written_key(text: &str, findings: &Findings) -> Option<LabelKey> {
    // Cilium drops what follows an equals sign.
    let text = if findings.as_cilium() { text.split('=').next().unwrap_or_default() } else { text };
    let label = if text.contains('=') { None } else { Label::parse_with(text, SOURCE_ANY).ok() }?;
    is_qualified_name(&format!("{}.{}", label.source, label.key)).then(|| LabelKey::new(label.source, label.key))
}

fn label_value(at: &Located<'_>, findings: &mut Findings) -> Option<String> {
    let text = at.text(findings)?;
    if text.is_empty() || is_name(text) {
        return Some(text.to_owned());
    }
    let finding = at.error(format!("{} is not a label value", quoted(text))).rule("VAL-3");
    findings.add(
        finding.help("use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"),
    );
    None
}

/// Kubernetes: `name` or `prefix/name`, the prefix being a DNS subdomain.
fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
    }
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inside = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    inside && text.len() <= MAX_NAME_BYTES && edge(text.bytes().next()) && edge(text.bytes().next_back())
}

fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let inside = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inside && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_PREFIX_BYTES && text.split('.').all(part)
}
