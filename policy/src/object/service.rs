//! Service, Endpoints and EndpointSlice, as far as `toServices` goes (SVC-1 … SVC-3): what the cluster says, beside the
//! policies that people write. Their other fields are none of ours and are not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::located::{Findings, Located};
use crate::{
    diagnostic::{Position, quoted},
    document::Value,
    label::{Label, LabelSet, SOURCE_K8S},
    world::{Backends, Service},
};

const DEFAULT_NAMESPACE: &str = "default";
/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service, or the addresses behind one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePart {
    /// Of the service.
    pub namespace: String,
    /// Of the service.
    pub name: String,
    /// Where the document begins.
    pub position: Position,
    /// What the document says.
    pub content: ServiceContent,
}

/// What one document says of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceContent {
    /// Service: its labels, and the labels of its pods; none without a selector.
    Service {
        /// The service's own labels.
        labels: LabelSet,
        /// `spec.selector`.
        selector: Option<Vec<(String, String)>>,
    },
    /// Endpoints or EndpointSlice: addresses behind it.
    Addresses(Vec<IpAddr>),
}

/// The services of some documents: each with its pods or, if it has no selector, with all of its addresses (SVC-2).
/// Addresses of a service that is not there are nobody's.
#[must_use]
pub fn services(parts: &[ServicePart]) -> Vec<Service> {
    let mut addresses: BTreeMap<(&str, &str), BTreeSet<IpAddr>> = BTreeMap::new();
    for ServicePart { namespace, name, content, .. } in parts {
        if let ServiceContent::Addresses(found) = content {
            addresses.entry((namespace, name)).or_default().extend(found);
        }
    }
    let service = |part: &ServicePart| {
        let ServicePart { namespace, name, content, .. } = part;
        let ServiceContent::Service { labels, selector } = content else { return None };
        let found = addresses.get(&(namespace.as_str(), name.as_str()));
        let backends = match selector {
            Some(selector) => Backends::Pods(selector.clone()),
            None => Backends::Addresses(found.into_iter().flatten().copied().collect()),
        };
        Some(Service { namespace: namespace.clone(), name: name.clone(), labels: labels.clone(), backends })
    };
    parts.iter().filter_map(service).collect()
}

/// None if the document is of another kind; then whether it could be read.
pub(super) fn decode(root: &Located<'_>, findings: &mut Findings) -> Option<Option<ServicePart>> {
    let Value::Mapping(_) = &root.node.value else { return None };
    let at = field(root, "kind")?;
    let Value::Scalar(kind) = &at.node.value else { return None };
    let content = match kind.text.as_str() {
        "Service" => service,
        "Endpoints" => endpoints,
        "EndpointSlice" => slice,
        _ => return None,
    };
    Some(part(root, kind.text.as_str(), content, findings))
}

type Content = fn(&Located<'_>, &mut Findings) -> Option<ServiceContent>;

fn part(root: &Located<'_>, kind: &str, content: Content, findings: &mut Findings) -> Option<ServicePart> {
    let metadata = field(root, "metadata");
    let text = |name: &str| metadata.as_ref().and_then(|at| field(at, name));
    let name = match kind {
        "EndpointSlice" => text("labels").and_then(|labels| field(&labels, SERVICE_NAME)),
        _ => text("name"),
    };
    let Some(name) = name else {
        let wanted = if kind == "EndpointSlice" { "label kubernetes.io/service-name" } else { "name" };
        let finding = root.error(format!("a {kind} without a {wanted}")).rule("SVC-1");
        findings.add(finding.help("write it below metadata"));
        return None;
    };
    let namespace = match text("namespace") {
        Some(at) => at.text(findings)?.to_owned(),
        None => DEFAULT_NAMESPACE.to_owned(),
    };
    let (name, content) = (name.text(findings)?.to_owned(), content(root, findings)?);
    Some(ServicePart { namespace, name, position: root.position, content })
}

fn service(root: &Located<'_>, findings: &mut Findings) -> Option<ServiceContent> {
    let labels = field(root, "metadata").and_then(|at| field(&at, "labels"));
    let labels = labels.map(|at| texts(&at, findings)).unwrap_or_default();
    let labels = labels.iter().map(|(key, value)| Label::new(SOURCE_K8S, key, value)).collect();
    let selector = field(root, "spec").and_then(|at| field(&at, "selector"));
    let selector = selector.map(|at| texts(&at, findings)).filter(|selector| !selector.is_empty());
    Some(ServiceContent::Service { labels, selector })
}

/// `subsets[].addresses[].ip`.
fn endpoints(root: &Located<'_>, findings: &mut Findings) -> Option<ServiceContent> {
    let mut found = Vec::new();
    for subset in items(root, "subsets", findings) {
        for at in items(&subset, "addresses", findings) {
            found.extend(field(&at, "ip").and_then(|at| address(&at, findings)));
        }
    }
    Some(ServiceContent::Addresses(found))
}

/// `endpoints[].addresses[]`.
fn slice(root: &Located<'_>, findings: &mut Findings) -> Option<ServiceContent> {
    let mut found = Vec::new();
    for endpoint in items(root, "endpoints", findings) {
        found.extend(items(&endpoint, "addresses", findings).iter().filter_map(|at| address(at, findings)));
    }
    Some(ServiceContent::Addresses(found))
}

fn address(at: &Located<'_>, findings: &mut Findings) -> Option<IpAddr> {
    let text = at.text(findings)?;
    let address = text.parse().ok();
    if address.is_none() {
        let finding = at.error(format!("{} is not an address", quoted(text))).rule("SVC-2");
        findings.add(finding.help("write it like 192.0.2.1 or 2001:db8::1"));
    }
    address
}

/// A field that has a value.
fn field<'a>(at: &Located<'a>, name: &str) -> Option<Located<'a>> {
    let mut nothing = Findings::new(crate::compat::Compat::Ringfence);
    let pairs = at.pairs(&mut nothing)?;
    pairs.into_iter().find(|(key, at)| *key == name && !at.node.is_null()).map(|(_, at)| at)
}

fn items<'a>(at: &Located<'a>, name: &str, findings: &mut Findings) -> Vec<Located<'a>> {
    field(at, name).and_then(|at| at.items(findings)).unwrap_or_default()
}

fn texts(at: &Located<'_>, findings: &mut Findings) -> Vec<(String, String)> {
    let pairs = at.pairs(findings).unwrap_or_default();
    pairs.iter().filter_map(|(key, at)| Some(((*key).to_owned(), at.text(findings)?.to_owned()))).collect()
}
