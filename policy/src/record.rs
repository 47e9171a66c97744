//! What the store holds: records, their keys, and changes to them.

mod block;
mod outside;
mod records;
mod service;
mod settings;

pub use block::{IdentityBlock, MAX_BLOCK_NUMBERS};
pub use outside::{BoundAddress, CidrGroupRecord, FqdnRecord, MAX_FQDN_ADDRESSES, MAX_FQDN_BYTES};
pub use records::Records;
pub use service::{ServicePort, ServiceRecord};
pub use settings::{InvalidSettings, MAX_TIME_MS, MeshSettings, TimeField};

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    cidr::Cidr,
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::LabelSet,
    name::Name,
    revision::Revision,
};

/// A cluster of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Unique in the mesh.
    pub name: Name,
    /// Unique in the mesh; the cluster part of its identities.
    pub id: ClusterId,
    /// Addresses inside these ranges are never `world` (S12).
    pub pod_cidrs: Vec<Cidr>,
}

/// A machine with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Owner.
    pub cluster: Name,
    /// Unique in its cluster.
    pub name: Name,
    /// The node's own addresses: `host` on itself, `remote-node` elsewhere.
    pub addresses: Vec<IpAddr>,
    /// Its labels, with source `k8s`: what `nodeSelector`, `fromNodes` and `toNodes` select by.
    pub labels: LabelSet,
}

/// A port a workload declares by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedPort {
    /// IANA service-name syntax.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// 1–65535.
    pub port: u16,
}

/// A workload with addresses on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Owner.
    pub cluster: Name,
    /// Where it runs.
    pub node: Name,
    /// Unique on its node.
    pub name: Name,
    /// IPv4 and IPv6; unique in the mesh.
    pub addresses: Vec<IpAddr>,
    /// The identity-relevant labels, cluster label included.
    pub labels: LabelSet,
    /// The number the store gave to `labels`.
    pub identity: Identity,
    /// Ports that policies may name.
    pub named_ports: Vec<NamedPort>,
}

/// A number and the label set it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// The number; its cluster part is the owner.
    pub identity: Identity,
    /// The labels.
    pub labels: LabelSet,
}

/// A policy object, kept as the user wrote it: the store's text is the truth, rules are derived from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Which object.
    pub key: PolicyKey,
    /// One YAML or JSON document.
    pub text: String,
}

/// The kinds of policy objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `cilium.io/v2` `CiliumNetworkPolicy`, namespaced.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` `CiliumClusterwideNetworkPolicy`, for every namespace.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1` `NetworkPolicy`, namespaced.
    NetworkPolicy,
}

/// The name of a policy object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: PolicyKind,
    /// None for clusterwide objects.
    pub namespace: Option<Name>,
    /// Unique in its kind and namespace.
    pub name: Name,
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `Cluster`
    Cluster,
    /// `Node`
    Node,
    /// `IdentityRecord`
    Identity,
    /// `Endpoint`
    Endpoint,
    /// `PolicyRecord`
    Policy,
    /// `CidrGroupRecord`
    CidrGroup,
    /// `ServiceRecord`
    Service,
    /// `FqdnRecord`
    Fqdn,
    /// `IdentityBlock`
    Block,
    /// `MeshSettings`
    Settings,
}

/// Any record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A cluster of the mesh.
    Cluster(Cluster),
    /// A machine with an agent.
    Node(Node),
    /// A number and its label set.
    Identity(IdentityRecord),
    /// A workload. Most records are one: deltas, the mesh and what it was before share it.
    Endpoint(Arc<Endpoint>),
    /// A policy object.
    Policy(PolicyRecord),
    /// Ranges by name.
    CidrGroup(CidrGroupRecord),
    /// A service; shared because it is large.
    Service(Arc<ServiceRecord>),
    /// What a DNS name stands for.
    Fqdn(FqdnRecord),
    /// Numbers that a gateway may give.
    Block(IdentityBlock),
    /// What holds for the whole mesh.
    Settings(MeshSettings),
}

/// Names a record. The order (clusters, nodes, identities, endpoints, policies, …) is the order of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordKey {
    /// By cluster name.
    Cluster(Name),
    /// By cluster and node name.
    Node(Name, Name),
    /// By number.
    Identity(Identity),
    /// By cluster, node and endpoint name.
    Endpoint(Name, Name, Name),
    /// By kind, namespace and name.
    Policy(PolicyKey),
    /// By name.
    CidrGroup(Name),
    /// By cluster, namespace and name.
    Service(Name, Name, Name),
    /// By cluster and DNS name.
    Fqdn(Name, DnsName),
    /// By cluster and gateway.
    Block(Name, Name),
    /// There is one.
    Settings,
}

/// A record with the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The revision that last changed it.
    pub revision: Revision,
    /// The content.
    pub record: Record,
}

/// One change of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The record exists with this content from now on.
    Put(Record),
    /// The record exists no more.
    Delete(RecordKey),
}

/// Everything one revision changed; applied as a whole or not at all (S13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The revision that results.
    pub revision: Revision,
    /// In the order of the command that made them; at most one for each key.
    pub changes: Vec<Change>,
}

/// The whole state at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The revision of the state.
    pub revision: Revision,
    /// Every record.
    pub records: Records,
}

impl Record {
    /// The record's name.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Cluster(cluster) => RecordKey::Cluster(cluster.name.clone()),
            Self::Node(node) => RecordKey::Node(node.cluster.clone(), node.name.clone()),
            Self::Identity(record) => RecordKey::Identity(record.identity),
            Self::Endpoint(endpoint) => endpoint.key(),
            Self::Policy(policy) => RecordKey::Policy(policy.key.clone()),
            Self::CidrGroup(group) => RecordKey::CidrGroup(group.name.clone()),
            Self::Service(service) => {
                RecordKey::Service(service.cluster.clone(), service.namespace.clone(), service.name.clone())
            }
            Self::Fqdn(fqdn) => RecordKey::Fqdn(fqdn.cluster.clone(), fqdn.name.clone()),
            Self::Block(block) => RecordKey::Block(block.cluster.clone(), block.holder.clone()),
            Self::Settings(_) => RecordKey::Settings,
        }
    }
}

impl Endpoint {
    /// The record's name.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::Endpoint(self.cluster.clone(), self.node.clone(), self.name.clone())
    }
}

impl RecordKey {
    /// Which kind of record it names.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Node(..) => Kind::Node,
            Self::Identity(_) => Kind::Identity,
            Self::Endpoint(..) => Kind::Endpoint,
            Self::Policy(_) => Kind::Policy,
            Self::CidrGroup(_) => Kind::CidrGroup,
            Self::Service(..) => Kind::Service,
            Self::Fqdn(..) => Kind::Fqdn,
            Self::Block(..) => Kind::Block,
            Self::Settings => Kind::Settings,
        }
    }
}

impl Change {
    /// Which record changes.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

impl PolicyKind {
    /// As `kind` has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}/{}", self.kind, namespace, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Node(cluster, name) => write!(f, "node {cluster}/{name}"),
            Self::Identity(identity) => write!(f, "identity {identity}"),
            Self::Endpoint(cluster, node, name) => write!(f, "endpoint {cluster}/{node}/{name}"),
            Self::Policy(key) => key.fmt(f),
            Self::CidrGroup(name) => write!(f, "CiliumCIDRGroup {name}"),
            Self::Service(cluster, namespace, name) => write!(f, "service {cluster}/{namespace}/{name}"),
            Self::Fqdn(cluster, name) => write!(f, "DNS name {cluster}/{name}"),
            Self::Block(cluster, holder) => write!(f, "block of numbers {cluster}/{holder}"),
            Self::Settings => f.write_str("the mesh's settings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{label::Label, text::Text};

    /// A mesh is a hundred thousand of these: whoever makes one larger should know.
    #[test]
    fn records_and_what_they_consist_of_are_small() {
        let sizes = [
            ("text", size_of::<Text>(), 8),
            ("label", size_of::<Label>(), 24),
            ("key", size_of::<RecordKey>(), 32),
            ("record", size_of::<Record>(), 64),
            ("record with its revision", size_of::<Versioned>(), 72),
            ("change", size_of::<Change>(), 64),
            ("endpoint", size_of::<Endpoint>(), 96),
        ];
        let too_large: Vec<_> = sizes.into_iter().filter(|(_, bytes, most)| bytes > most).collect();
        assert!(too_large.is_empty(), "(what, bytes, at most): {too_large:?}");
    }
}
