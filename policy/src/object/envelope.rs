//! What every object has around its content: kind, name, namespace (§3.1).

use super::{
    audit, cidr_group,
    fields::{METADATA, OBJECT, nearest},
    located::{Findings, Located, Mapping},
};
use crate::{diagnostic::quoted, name::Name, record::PolicyKind};

const POLICY_VERSIONS: &[&str] = &["cilium.io/v2"];
const KNP_VERSIONS: &[&str] = &["networking.k8s.io/v1"];
const GROUP_VERSIONS: &[&str] = &["cilium.io/v2", "cilium.io/v2alpha1"];
/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";
const KINDS: [Kind; 4] = [
    Kind::Policy(PolicyKind::CiliumNetworkPolicy),
    Kind::Policy(PolicyKind::CiliumClusterwideNetworkPolicy),
    Kind::Policy(PolicyKind::NetworkPolicy),
    Kind::CidrGroup,
];

/// The checked outside of an object.
pub(super) struct Envelope<'a> {
    pub(super) kind: Kind,
    /// None if it is wrong; the content is checked all the same.
    pub(super) name: Option<Name>,
    /// None for clusterwide objects, and if it is wrong.
    pub(super) namespace: Option<Name>,
    pub(super) scope: Scope,
    /// `metadata.labels`.
    pub(super) labels: Vec<(String, String)>,
    /// It is under audit (AUD-5).
    pub(super) audit: bool,
    /// `spec`.
    pub(super) spec: Option<Located<'a>>,
    /// Every element of `specs`.
    pub(super) specs: Vec<Located<'a>>,
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Policy(PolicyKind),
    CidrGroup,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Policy(kind) => kind.word(),
            Self::CidrGroup => "CiliumCIDRGroup",
        }
    }

    const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Policy(PolicyKind::NetworkPolicy) => KNP_VERSIONS,
            Self::Policy(_) => POLICY_VERSIONS,
            Self::CidrGroup => GROUP_VERSIONS,
        }
    }

    const fn is_clusterwide(self) -> bool {
        matches!(self, Self::Policy(PolicyKind::CiliumClusterwideNetworkPolicy) | Self::CidrGroup)
    }
}

/// Where an object counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// In one namespace, of every cluster.
    Namespace(Name),
    /// In the whole mesh.
    Clusterwide,
}

pub(super) fn decode<'a>(root: &Located<'a>, findings: &mut Findings) -> Option<Envelope<'a>> {
    let kind = kind(root, findings)?;
    let object = root.mapping(OBJECT, findings)?;
    check_api_version(kind, &object, findings);
    let metadata = object.get("metadata").and_then(|at| at.mapping(METADATA, findings));
    let name = name(&object, metadata.as_ref(), findings);
    let namespace = namespace(kind, metadata.as_ref(), findings);
    if let Some(metadata) = &metadata {
        check_texts(metadata, findings);
    }
    let audit = metadata.as_ref().is_some_and(|metadata| audit::decode(kind, metadata, findings));
    let (spec, specs) = specs(kind, &object, findings);
    // A namespace that is wrong rejects the object; its content is checked as if it had none.
    let scope = match &namespace {
        Some(namespace) if !kind.is_clusterwide() => Scope::Namespace(namespace.clone()),
        _ => Scope::Clusterwide,
    };
    let labels = cidr_group::labels(metadata.as_ref(), findings);
    Some(Envelope { kind, name, namespace, scope, labels, audit, spec, specs })
}

/// The kind decides how everything else is read, so nothing else is looked at where it is wrong.
fn kind(root: &Located<'_>, findings: &mut Findings) -> Option<Kind> {
    let pairs = root.pairs(findings)?;
    let words = KINDS.map(Kind::word);
    let Some((_, at)) = pairs.into_iter().find(|(key, _)| *key == "kind") else {
        findings.add(root.error("has no kind").help(format!("write kind: {}, or {}", words[0], words[1..].join(", "))));
        return None;
    };
    let word = at.text(findings)?;
    let known = KINDS.into_iter().find(|kind| kind.word() == word);
    if known.is_none() {
        let help = match nearest(word, words.into_iter()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known kinds: {}", words.join(", ")),
        };
        findings.add(at.error(format!("unknown kind {}", quoted(word))).help(help));
    }
    known
}

fn check_api_version(kind: Kind, object: &Mapping<'_>, findings: &mut Findings) {
    let help = || format!("write apiVersion: {}", kind.versions()[0]);
    match object.get("apiVersion") {
        None => findings.add_strict(object.at.error("has no apiVersion").help(help())),
        Some(at) => {
            if let Some(version) = at.text(findings)
                && !kind.versions().contains(&version)
            {
                let finding = at.error(format!("unknown apiVersion {} for this kind", quoted(version)));
                findings.add_strict(finding.help(help()));
            }
        }
    }
}

fn name(object: &Mapping<'_>, metadata: Option<&Mapping<'_>>, findings: &mut Findings) -> Option<Name> {
    let Some(metadata) = metadata else {
        if object.get("metadata").is_none() {
            findings.add(object.at.error("has no metadata.name").rule("OBJ-1").help("every object needs a name"));
        }
        return None;
    };
    match metadata.get("name") {
        Some(at) => checked_name(&at, findings),
        None => {
            findings.add(metadata.at.error("has no name").rule("OBJ-1").help("every object needs a name"));
            None
        }
    }
}

/// The namespace of the object's key: none if the object is clusterwide or its namespace is wrong.
fn namespace(kind: Kind, metadata: Option<&Mapping<'_>>, findings: &mut Findings) -> Option<Name> {
    let written = metadata.and_then(|metadata| metadata.get("namespace"));
    match (kind.is_clusterwide(), written) {
        (true, None) => None,
        (true, Some(at)) => {
            let finding = at.error(format!("a {} has no namespace", kind.word())).rule("OBJ-1");
            findings.add_strict(finding.help("remove it, or use a kind that has one"));
            None
        }
        (false, None) => Name::new(DEFAULT_NAMESPACE).ok(),
        (false, Some(at)) => checked_name(&at, findings),
    }
}

fn checked_name(at: &Located<'_>, findings: &mut Findings) -> Option<Name> {
    match Name::new(at.text(findings)?) {
        Ok(name) => Some(name),
        Err(invalid) => {
            findings.add(at.error(invalid.to_string()));
            None
        }
    }
}

/// `labels` and `annotations` only describe, but they are texts by name.
fn check_texts(metadata: &Mapping<'_>, findings: &mut Findings) {
    for at in ["labels", "annotations"].iter().filter_map(|field| metadata.get(field)) {
        if at.node.is_null() {
            continue;
        }
        for (_, value) in at.pairs(findings).unwrap_or_default() {
            value.text(findings);
        }
    }
}

/// `spec`, and the elements of `specs`, which only Cilium's policies have.
fn specs<'a>(kind: Kind, object: &Mapping<'a>, findings: &mut Findings) -> (Option<Located<'a>>, Vec<Located<'a>>) {
    let spec = object.get("spec");
    let list = object.get("specs");
    let has_specs =
        matches!(kind, Kind::Policy(PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy));
    if let Some(at) = list.as_ref().filter(|_| !has_specs) {
        findings.add_strict(at.error(format!("a {} has no specs", kind.word())).help("write one object for each"));
        return (spec, Vec::new());
    }
    let written = list.is_some();
    let specs = list.and_then(|at| at.items(findings)).unwrap_or_default();
    if spec.is_none() && specs.is_empty() {
        let finding = match written {
            true => object.at.error("specs is an empty list, so the object says nothing"),
            false if has_specs => object.at.error("has neither spec nor specs"),
            false => object.at.error("has no spec"),
        };
        let help = match kind {
            Kind::Policy(PolicyKind::NetworkPolicy) => "write spec with a podSelector and ingress or egress",
            Kind::Policy(_) => "write spec with an endpointSelector and ingress or egress",
            Kind::CidrGroup => "write spec with externalCIDRs",
        };
        findings.add(finding.rule("OBJ-1").help(help));
    }
    (spec, specs)
}
