//! What every object has around its content: kind, name, namespace (§3.1).

use super::{
    fields::{METADATA, OBJECT, nearest},
    located::{Findings, Located, Mapping},
};
use crate::{
    diagnostic::quoted,
    name::Name,
    record::{PolicyKey, PolicyKind},
};

/// The only version of the Cilium kinds.
const CILIUM_API_VERSION: &str = "cilium.io/v2";
/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";
const KINDS: [PolicyKind; 3] =
    [PolicyKind::CiliumNetworkPolicy, PolicyKind::CiliumClusterwideNetworkPolicy, PolicyKind::NetworkPolicy];

/// The checked outside of an object.
pub(super) struct Envelope<'a> {
    /// None if the name or namespace is wrong; the content is checked all the same.
    pub(super) key: Option<PolicyKey>,
    pub(super) scope: Scope,
    /// `spec`, then every element of `specs`.
    pub(super) specs: Vec<Located<'a>>,
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
    check_api_version(&object, findings);
    let metadata = object.get("metadata").and_then(|at| at.mapping(METADATA, findings));
    let name = name(&object, metadata.as_ref(), findings);
    let namespace = namespace(kind, metadata.as_ref(), findings);
    if let Some(metadata) = &metadata {
        check_texts(metadata, findings);
    }
    let specs = specs(&object, findings);
    // A namespace that is wrong rejects the object; its content is checked as if it had none.
    let scope = match (kind, &namespace) {
        (PolicyKind::CiliumClusterwideNetworkPolicy, _) | (_, None) => Scope::Clusterwide,
        (_, Some(namespace)) => Scope::Namespace(namespace.clone()),
    };
    let key = name.map(|name| PolicyKey { kind, namespace, name });
    Some(Envelope { key, scope, specs })
}

/// The kind decides how everything else is read, so nothing else is looked at where it is wrong.
fn kind(root: &Located<'_>, findings: &mut Findings) -> Option<PolicyKind> {
    let pairs = root.pairs(findings)?;
    let words = KINDS.map(|kind| kind.to_string());
    let Some((_, at)) = pairs.into_iter().find(|(key, _)| *key == "kind") else {
        let help = format!("write kind: {}, or {}", words[0], words[1]);
        findings.add(root.error("has no kind").help(help));
        return None;
    };
    let word = at.text(findings)?;
    match KINDS.into_iter().find(|kind| kind.to_string() == word) {
        Some(PolicyKind::NetworkPolicy) => {
            let finding = at.error("kind \"NetworkPolicy\" is not supported yet");
            findings.add(finding.help(format!("write it as a {}", words[0])));
            None
        }
        Some(kind) => Some(kind),
        None => {
            let help = match nearest(word, words.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known kinds: {}, {}", words[0], words[1]),
            };
            findings.add(at.error(format!("unknown kind {}", quoted(word))).help(help));
            None
        }
    }
}

fn check_api_version(object: &Mapping<'_>, findings: &mut Findings) {
    let help = format!("write apiVersion: {CILIUM_API_VERSION}");
    match object.get("apiVersion") {
        None => findings.add(object.at.error("has no apiVersion").help(help)),
        Some(at) => {
            if let Some(version) = at.text(findings)
                && version != CILIUM_API_VERSION
            {
                findings.add(at.error(format!("unknown apiVersion {} for this kind", quoted(version))).help(help));
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
fn namespace(kind: PolicyKind, metadata: Option<&Mapping<'_>>, findings: &mut Findings) -> Option<Name> {
    let written = metadata.and_then(|metadata| metadata.get("namespace"));
    match (kind, written) {
        (PolicyKind::CiliumClusterwideNetworkPolicy, None) => None,
        (PolicyKind::CiliumClusterwideNetworkPolicy, Some(at)) => {
            let finding = at.error("a CiliumClusterwideNetworkPolicy has no namespace").rule("OBJ-1");
            findings.add(finding.help("remove it, or use kind CiliumNetworkPolicy"));
            None
        }
        (_, None) => Name::new(DEFAULT_NAMESPACE).ok(),
        (_, Some(at)) => checked_name(&at, findings),
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

fn specs<'a>(object: &Mapping<'a>, findings: &mut Findings) -> Vec<Located<'a>> {
    let mut specs: Vec<_> = object.get("spec").into_iter().collect();
    if let Some(list) = object.get("specs") {
        specs.extend(list.items(findings).unwrap_or_default());
    } else if specs.is_empty() {
        let finding = object.at.error("has neither spec nor specs").rule("OBJ-1");
        findings.add(finding.help("write spec with an endpointSelector and ingress or egress"));
        return specs;
    }
    if specs.is_empty() && object.get("specs").is_some_and(|list| !list.node.is_null()) {
        findings.add(object.at.error("specs is an empty list, so the object says nothing").rule("OBJ-1"));
    }
    specs
}
