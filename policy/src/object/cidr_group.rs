//! CiliumCIDRGroup: addresses by name and labels (GRP-1, GRP-2).

use super::{
    fields::CIDR_GROUP_SPEC,
    located::{Findings, Located, Mapping},
};
use crate::{
    cidr::Cidr,
    diagnostic::{Position, quoted},
    label::{Label, LabelSet, SOURCE_CIDR_GROUP, cidr_group_key},
    name::Name,
};

/// Prefix of label keys that are not a user's.
const OWNED_PREFIX: &str = "io.cilium";

/// A group of ranges that policies refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrGroup {
    /// Unique in the mesh.
    pub name: Name,
    /// Where it begins in the text it was read from.
    pub position: Position,
    /// The object's own labels.
    pub labels: Vec<(String, String)>,
    /// The addresses.
    pub ranges: Vec<Cidr>,
}

impl CidrGroup {
    /// The labels that its addresses carry: its name, and its own labels without those that Cilium gives (GRP-2).
    #[must_use]
    pub fn identity_labels(&self) -> LabelSet {
        let name = Label::new(SOURCE_CIDR_GROUP, cidr_group_key(self.name.as_str()), "");
        let own = self.labels.iter().filter(|(key, _)| !key.starts_with(OWNED_PREFIX));
        own.map(|(key, value)| Label::new(SOURCE_CIDR_GROUP, key, value)).chain([name]).collect()
    }
}

/// The ranges of `spec`. A range that is none is skipped in Cilium, and refused here.
pub(super) fn ranges(spec: &Located<'_>, findings: &mut Findings) -> Vec<Cidr> {
    let Some(fields) = spec.mapping(CIDR_GROUP_SPEC, findings) else { return Vec::new() };
    let mut ranges = Vec::new();
    for item in fields.list("externalCIDRs", findings).unwrap_or_default() {
        let Some(text) = item.text(findings) else { continue };
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(_) => {
                let finding = item.error(format!("{} is not a range", quoted(text))).rule("GRP-2");
                findings.add_strict(finding.help("write it like 10.1.0.0/16 or fd00:1::/64"));
            }
        }
    }
    ranges
}

/// `metadata.labels`.
pub(super) fn labels(metadata: Option<&Mapping<'_>>, findings: &mut Findings) -> Vec<(String, String)> {
    let Some(at) = metadata.and_then(|metadata| metadata.get("labels")).filter(|at| !at.node.is_null()) else {
        return Vec::new();
    };
    let pairs = at.pairs(findings).unwrap_or_default();
    pairs.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.text(findings)?.to_owned()))).collect()
}
