//! Records, keys, changes and deltas.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use ringfence_policy::{
    cidr::Cidr,
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::LabelSet,
    name::Name,
    record::{
        Change, Cluster, Delta, Endpoint, IdentityRecord, Kind, NamedPort, Node, PolicyKey, PolicyKind, PolicyRecord,
        Record, RecordKey, Versioned,
    },
    reserved::reserved_endpoint,
    revision::Revision,
};

use super::invalid::InvalidMessage;
use crate::v1;

pub(super) fn name(field: &'static str, text: String) -> Result<Name, InvalidMessage> {
    Name::new(text).map_err(|source| InvalidMessage::Name { field, source })
}

pub(super) fn labels(field: &'static str, texts: &[String]) -> Result<LabelSet, InvalidMessage> {
    LabelSet::parse(texts).map_err(|source| InvalidMessage::Label { field, source })
}

pub(super) fn addresses(field: &'static str, texts: Vec<String>) -> Result<Vec<IpAddr>, InvalidMessage> {
    texts.into_iter().map(|text| address(field, text)).collect()
}

pub(super) fn address(field: &'static str, text: String) -> Result<IpAddr, InvalidMessage> {
    text.parse().map_err(|_| InvalidMessage::Address { field, text })
}

pub(super) fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(super) fn label_texts(labels: &LabelSet) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}

pub(super) fn named_ports(ports: Vec<v1::NamedPort>) -> Result<Vec<NamedPort>, InvalidMessage> {
    ports.into_iter().map(TryInto::try_into).collect()
}

impl From<Cluster> for v1::Cluster {
    fn from(cluster: Cluster) -> Self {
        Self { name: cluster.name.to_string(), id: cluster.id.get().into(), pod_cidrs: texts(&cluster.pod_cidrs) }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = InvalidMessage;
    fn try_from(message: v1::Cluster) -> Result<Self, InvalidMessage> {
        let cidr = |text: &String| {
            text.parse::<Cidr>().map_err(|source| InvalidMessage::Cidr { field: "Cluster.pod_cidrs", source })
        };
        Ok(Self {
            name: name("Cluster.name", message.name)?,
            id: ClusterId::new(message.id)
                .map_err(|source| InvalidMessage::Identity { field: "Cluster.id", source })?,
            pod_cidrs: message.pod_cidrs.iter().map(cidr).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Node> for v1::Node {
    fn from(node: Node) -> Self {
        Self {
            cluster: node.cluster.to_string(),
            name: node.name.to_string(),
            addresses: texts(&node.addresses),
            labels: label_texts(&node.labels),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = InvalidMessage;
    fn try_from(message: v1::Node) -> Result<Self, InvalidMessage> {
        Ok(Self {
            cluster: name("Node.cluster", message.cluster)?,
            name: name("Node.name", message.name)?,
            addresses: addresses("Node.addresses", message.addresses)?,
            labels: labels("Node.labels", &message.labels)?,
        })
    }
}

impl From<NamedPort> for v1::NamedPort {
    fn from(port: NamedPort) -> Self {
        Self { name: port.name, protocol: port.protocol.into(), port: port.port.into() }
    }
}

impl TryFrom<v1::NamedPort> for NamedPort {
    type Error = InvalidMessage;
    fn try_from(message: v1::NamedPort) -> Result<Self, InvalidMessage> {
        Ok(Self {
            name: message.name,
            protocol: protocol("NamedPort.protocol", message.protocol)?,
            port: port("NamedPort.port", message.port)?,
        })
    }
}

pub(super) fn protocol(field: &'static str, number: u32) -> Result<u8, InvalidMessage> {
    u8::try_from(number).map_err(|_| range(field, number, 0..=u8::MAX.into()))
}

pub(super) fn port(field: &'static str, number: u32) -> Result<u16, InvalidMessage> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| range(field, number, 1..=u16::MAX.into()))
}

fn range(field: &'static str, number: u32, allowed: RangeInclusive<u32>) -> InvalidMessage {
    InvalidMessage::Range { field, number, minimum: *allowed.start(), maximum: *allowed.end() }
}

/// The store gives out global numbers of clusters only: scope bits, no cluster and number 0 are no identity of a record.
pub(super) fn identity(field: &'static str, bits: u32) -> Result<Identity, InvalidMessage> {
    let bits = Identity::from_bits(bits);
    ClusterId::new(bits.bits() >> Identity::MAX_NUMBER.count_ones())
        .and_then(|cluster| Identity::global(cluster, bits.number()))
        .map_err(|source| InvalidMessage::Identity { field, source })
}

/// Of an endpoint: with the labels of a node's proxy or health check the reserved number of these, and no other.
fn identity_of_endpoint(labels: &LabelSet, bits: u32) -> Result<Identity, InvalidMessage> {
    match reserved_endpoint(labels) {
        Some(reserved) if reserved.bits() == bits => Ok(reserved),
        _ => identity("Endpoint.identity", bits),
    }
}

impl From<Endpoint> for v1::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            cluster: endpoint.cluster.to_string(),
            node: endpoint.node.to_string(),
            name: endpoint.name.to_string(),
            addresses: texts(&endpoint.addresses),
            labels: label_texts(&endpoint.labels),
            identity: endpoint.identity.bits(),
            named_ports: endpoint.named_ports.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = InvalidMessage;
    fn try_from(message: v1::Endpoint) -> Result<Self, InvalidMessage> {
        let labels = labels("Endpoint.labels", &message.labels)?;
        Ok(Self {
            cluster: name("Endpoint.cluster", message.cluster)?,
            node: name("Endpoint.node", message.node)?,
            name: name("Endpoint.name", message.name)?,
            addresses: addresses("Endpoint.addresses", message.addresses)?,
            identity: identity_of_endpoint(&labels, message.identity)?,
            labels,
            named_ports: named_ports(message.named_ports)?,
        })
    }
}

impl From<IdentityRecord> for v1::Identity {
    fn from(record: IdentityRecord) -> Self {
        Self { identity: record.identity.bits(), labels: label_texts(&record.labels) }
    }
}

impl TryFrom<v1::Identity> for IdentityRecord {
    type Error = InvalidMessage;
    fn try_from(message: v1::Identity) -> Result<Self, InvalidMessage> {
        Ok(Self {
            identity: identity("Identity.identity", message.identity)?,
            labels: labels("Identity.labels", &message.labels)?,
        })
    }
}

impl From<PolicyKey> for v1::PolicyKey {
    fn from(key: PolicyKey) -> Self {
        let kind = match key.kind {
            PolicyKind::CiliumNetworkPolicy => v1::policy_key::Kind::CiliumNetworkPolicy,
            PolicyKind::CiliumClusterwideNetworkPolicy => v1::policy_key::Kind::CiliumClusterwideNetworkPolicy,
            PolicyKind::NetworkPolicy => v1::policy_key::Kind::NetworkPolicy,
        };
        let namespace = key.namespace.map_or(String::new(), |namespace| namespace.to_string());
        Self { kind: kind.into(), namespace, name: key.name.to_string() }
    }
}

impl TryFrom<v1::PolicyKey> for PolicyKey {
    type Error = InvalidMessage;
    fn try_from(message: v1::PolicyKey) -> Result<Self, InvalidMessage> {
        use v1::policy_key::Kind as Wire;
        let kind = match message.kind() {
            Wire::CiliumNetworkPolicy => PolicyKind::CiliumNetworkPolicy,
            Wire::CiliumClusterwideNetworkPolicy => PolicyKind::CiliumClusterwideNetworkPolicy,
            Wire::NetworkPolicy => PolicyKind::NetworkPolicy,
            Wire::Unspecified => return Err(InvalidMessage::Unknown { field: "PolicyKey.kind", number: message.kind }),
        };
        let clusterwide = kind == PolicyKind::CiliumClusterwideNetworkPolicy;
        let namespace = match (clusterwide, message.namespace.is_empty()) {
            (true, true) => None,
            (false, false) => Some(name("PolicyKey.namespace", message.namespace)?),
            (true, false) => return Err(InvalidMessage::Namespace { kind, expected: "has no namespace" }),
            (false, true) => return Err(InvalidMessage::Namespace { kind, expected: "needs a namespace" }),
        };
        Ok(Self { kind, namespace, name: name("PolicyKey.name", message.name)? })
    }
}

impl From<PolicyRecord> for v1::Policy {
    fn from(policy: PolicyRecord) -> Self {
        Self { key: Some(policy.key.into()), text: policy.text }
    }
}

impl TryFrom<v1::Policy> for PolicyRecord {
    type Error = InvalidMessage;
    fn try_from(message: v1::Policy) -> Result<Self, InvalidMessage> {
        let key = message.key.ok_or(InvalidMessage::Missing { field: "Policy.key" })?;
        Ok(Self { key: key.try_into()?, text: message.text })
    }
}

impl From<Record> for v1::Record {
    fn from(record: Record) -> Self {
        use v1::record::Record as Wire;
        let record = match record {
            Record::Cluster(cluster) => Wire::Cluster(cluster.into()),
            Record::Node(node) => Wire::Node(node.into()),
            Record::Identity(identity) => Wire::Identity(identity.into()),
            Record::Endpoint(endpoint) => Wire::Endpoint(Arc::unwrap_or_clone(endpoint).into()),
            Record::Policy(policy) => Wire::Policy(policy.into()),
            Record::CidrGroup(group) => Wire::CidrGroup(group.into()),
            Record::Service(service) => Wire::Service(Arc::unwrap_or_clone(service).into()),
            Record::Fqdn(fqdn) => Wire::Fqdn(fqdn.into()),
            Record::Block(block) => Wire::Block(block.into()),
            Record::Settings(settings) => Wire::Settings(settings.into()),
        };
        Self { record: Some(record) }
    }
}

impl TryFrom<v1::Record> for Record {
    type Error = InvalidMessage;
    fn try_from(message: v1::Record) -> Result<Self, InvalidMessage> {
        use v1::record::Record as Wire;
        Ok(match message.record.ok_or(InvalidMessage::Missing { field: "Record.record" })? {
            Wire::Cluster(cluster) => Self::Cluster(cluster.try_into()?),
            Wire::Node(node) => Self::Node(node.try_into()?),
            Wire::Identity(identity) => Self::Identity(identity.try_into()?),
            Wire::Endpoint(endpoint) => Self::Endpoint(Arc::new(endpoint.try_into()?)),
            Wire::Policy(policy) => Self::Policy(policy.try_into()?),
            Wire::CidrGroup(group) => Self::CidrGroup(group.try_into()?),
            Wire::Service(service) => Self::Service(Arc::new(service.try_into()?)),
            Wire::Fqdn(fqdn) => Self::Fqdn(fqdn.try_into()?),
            Wire::Block(block) => Self::Block(block.try_into()?),
            Wire::Settings(settings) => Self::Settings(settings.try_into()?),
        })
    }
}

impl From<RecordKey> for v1::RecordKey {
    fn from(key: RecordKey) -> Self {
        use v1::record_key::Key as Wire;
        let key = match key {
            RecordKey::Cluster(name) => Wire::Cluster(name.to_string()),
            RecordKey::Node(cluster, name) => {
                Wire::Node(v1::NodeKey { cluster: cluster.to_string(), name: name.to_string() })
            }
            RecordKey::Identity(identity) => Wire::Identity(identity.bits()),
            RecordKey::Endpoint(cluster, node, name) => Wire::Endpoint(v1::EndpointKey {
                cluster: cluster.to_string(),
                node: node.to_string(),
                name: name.to_string(),
            }),
            RecordKey::Policy(key) => Wire::Policy(key.into()),
            RecordKey::CidrGroup(name) => Wire::CidrGroup(name.to_string()),
            RecordKey::Service(cluster, namespace, name) => Wire::Service(v1::ServiceKey {
                cluster: cluster.to_string(),
                namespace: namespace.to_string(),
                name: name.to_string(),
            }),
            RecordKey::Fqdn(cluster, name) => {
                Wire::Fqdn(v1::FqdnKey { cluster: cluster.to_string(), name: name.to_string() })
            }
            RecordKey::Block(cluster, holder) => {
                Wire::Block(v1::BlockKey { cluster: cluster.to_string(), holder: holder.to_string() })
            }
            RecordKey::Settings => Wire::Settings(v1::SettingsKey {}),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<v1::RecordKey> for RecordKey {
    type Error = InvalidMessage;
    fn try_from(message: v1::RecordKey) -> Result<Self, InvalidMessage> {
        use v1::record_key::Key as Wire;
        Ok(match message.key.ok_or(InvalidMessage::Missing { field: "RecordKey.key" })? {
            Wire::Cluster(cluster) => Self::Cluster(name("RecordKey.cluster", cluster)?),
            Wire::Node(node) => Self::Node(name("NodeKey.cluster", node.cluster)?, name("NodeKey.name", node.name)?),
            Wire::Identity(bits) => Self::Identity(identity("RecordKey.identity", bits)?),
            Wire::Endpoint(endpoint) => Self::Endpoint(
                name("EndpointKey.cluster", endpoint.cluster)?,
                name("EndpointKey.node", endpoint.node)?,
                name("EndpointKey.name", endpoint.name)?,
            ),
            Wire::Policy(key) => Self::Policy(key.try_into()?),
            Wire::CidrGroup(group) => Self::CidrGroup(name("RecordKey.cidr_group", group)?),
            Wire::Service(key) => Self::Service(
                name("ServiceKey.cluster", key.cluster)?,
                name("ServiceKey.namespace", key.namespace)?,
                name("ServiceKey.name", key.name)?,
            ),
            Wire::Fqdn(key) => Self::Fqdn(name("FqdnKey.cluster", key.cluster)?, DnsName::new(&key.name)),
            Wire::Block(key) => {
                Self::Block(name("BlockKey.cluster", key.cluster)?, name("BlockKey.holder", key.holder)?)
            }
            Wire::Settings(v1::SettingsKey {}) => Self::Settings,
        })
    }
}

impl From<Versioned> for v1::Versioned {
    fn from(versioned: Versioned) -> Self {
        Self { revision: versioned.revision.0, record: Some(versioned.record.into()) }
    }
}

impl TryFrom<v1::Versioned> for Versioned {
    type Error = InvalidMessage;
    fn try_from(message: v1::Versioned) -> Result<Self, InvalidMessage> {
        let record = message.record.ok_or(InvalidMessage::Missing { field: "Versioned.record" })?;
        Ok(Self { revision: Revision(message.revision), record: record.try_into()? })
    }
}

impl From<Change> for v1::Change {
    fn from(change: Change) -> Self {
        use v1::change::Change as Wire;
        let change = match change {
            Change::Put(record) => Wire::Put(record.into()),
            Change::Delete(key) => Wire::Delete(key.into()),
        };
        Self { change: Some(change) }
    }
}

impl TryFrom<v1::Change> for Change {
    type Error = InvalidMessage;
    fn try_from(message: v1::Change) -> Result<Self, InvalidMessage> {
        use v1::change::Change as Wire;
        Ok(match message.change.ok_or(InvalidMessage::Missing { field: "Change.change" })? {
            Wire::Put(record) => Self::Put(record.try_into()?),
            Wire::Delete(key) => Self::Delete(key.try_into()?),
        })
    }
}

impl From<Delta> for v1::Delta {
    fn from(delta: Delta) -> Self {
        Self { revision: delta.revision.0, changes: delta.changes.into_iter().map(Into::into).collect(), after: 0 }
    }
}

impl TryFrom<v1::Delta> for Delta {
    type Error = InvalidMessage;
    fn try_from(message: v1::Delta) -> Result<Self, InvalidMessage> {
        let changes = message.changes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self { revision: Revision(message.revision), changes })
    }
}

impl From<Kind> for v1::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Cluster => Self::Cluster,
            Kind::Node => Self::Node,
            Kind::Identity => Self::Identity,
            Kind::Endpoint => Self::Endpoint,
            Kind::Policy => Self::Policy,
            Kind::CidrGroup => Self::CidrGroup,
            Kind::Service => Self::Service,
            Kind::Fqdn => Self::Fqdn,
            Kind::Block => Self::Block,
            Kind::Settings => Self::Settings,
        }
    }
}

impl TryFrom<v1::Kind> for Kind {
    type Error = InvalidMessage;
    fn try_from(kind: v1::Kind) -> Result<Self, InvalidMessage> {
        Ok(match kind {
            v1::Kind::Cluster => Self::Cluster,
            v1::Kind::Node => Self::Node,
            v1::Kind::Identity => Self::Identity,
            v1::Kind::Endpoint => Self::Endpoint,
            v1::Kind::Policy => Self::Policy,
            v1::Kind::CidrGroup => Self::CidrGroup,
            v1::Kind::Service => Self::Service,
            v1::Kind::Fqdn => Self::Fqdn,
            v1::Kind::Block => Self::Block,
            v1::Kind::Settings => Self::Settings,
            v1::Kind::Unspecified => return Err(InvalidMessage::Unknown { field: "ListRequest.kind", number: 0 }),
        })
    }
}
