//! `ringfence.io/audit`: an object that is watched before it counts (AUD-5).
//!
//! An annotation with the prefix of Ringfence is never ignored: one that is misspelt would put an object into force that
//! its author only wants to watch.

use super::{
    envelope::Kind,
    fields::nearest,
    located::{Findings, Located, Mapping},
};
use crate::diagnostic::quoted;

/// What belongs to Ringfence among annotations and labels.
const OWN_PREFIX: &str = "ringfence.io/";
/// The annotation.
const AUDIT: &str = "ringfence.io/audit";

/// Whether `metadata` puts an object under audit.
pub(super) fn decode(kind: Kind, metadata: &Mapping<'_>, findings: &mut Findings) -> bool {
    for (key, at) in own(metadata, "labels", findings) {
        let finding = at.error(format!("{} is a label here, which says nothing", quoted(key))).rule("AUD-5");
        findings.add(finding.help("write it below metadata.annotations"));
    }
    let mut audit = false;
    for (key, at) in own(metadata, "annotations", findings) {
        if key != AUDIT {
            let help = match nearest(key, [AUDIT].into_iter()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the only one is {AUDIT}"),
            };
            let finding = at.error(format!("unknown annotation {}", quoted(key))).rule("AUD-5");
            findings.add(finding.help(help));
        } else if kind == Kind::CidrGroup {
            let finding = at.error("a CIDR group cannot be under audit").rule("AUD-5");
            findings.add(finding.help("put the policies that use it under audit"));
        } else {
            audit = value(&at, findings) == Some(true);
        }
    }
    audit
}

/// The entries of `labels` or `annotations` that belong to Ringfence.
fn own<'a>(metadata: &Mapping<'a>, field: &str, findings: &mut Findings) -> Vec<(&'a str, Located<'a>)> {
    let Some(at) = metadata.get(field).filter(|at| !at.node.is_null()) else { return Vec::new() };
    let mut pairs = at.pairs(&mut Findings::new(findings.compat())).unwrap_or_default();
    pairs.retain(|(key, _)| key.to_ascii_lowercase().starts_with(OWN_PREFIX));
    pairs
}

/// The annotation's value; that it is a text is checked with all others.
fn value(at: &Located<'_>, findings: &mut Findings) -> Option<bool> {
    match at.text(&mut Findings::new(findings.compat()))? {
        "true" => Some(true),
        "false" => Some(false),
        other => {
            let finding = at.error(format!("{} is neither \"true\" nor \"false\"", quoted(other))).rule("AUD-5");
            findings.add(finding.help("write \"true\" to watch what the object would do, \"false\" to let it count"));
            None
        }
    }
}
