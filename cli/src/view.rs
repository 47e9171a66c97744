//! What commands print: the field names of the `.proto` files, with texts where people expect texts.

mod other;

pub(crate) use other::{BlockView, CidrGroupView, FqdnView, ServiceView, SettingsView};

use ringfence_policy::{
    identity::Identity,
    record::{Cluster, Endpoint, IdentityRecord, Node, PolicyKey},
};
use ringfence_proto::v1;
use serde::Serialize;

/// `status`.
#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    pub(crate) responder: String,
    pub(crate) revision: u64,
    pub(crate) staleness_ms: u64,
    pub(crate) members: Vec<MemberView>,
    pub(crate) gateways: Vec<GatewayView>,
    pub(crate) nodes: Vec<NodeStatusView>,
    pub(crate) identities: Vec<IdentityUsageView>,
}

/// What the identity numbers of a cluster are used for.
#[derive(Debug, Serialize)]
pub(crate) struct IdentityUsageView {
    pub(crate) cluster: String,
    pub(crate) in_use: u32,
    pub(crate) idle: u32,
    pub(crate) quarantined: u32,
    pub(crate) granted: u32,
    pub(crate) limit: u32,
}

/// A store member.
#[derive(Debug, Serialize)]
pub(crate) struct MemberView {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) cluster: String,
    pub(crate) state: String,
    pub(crate) term: u64,
    pub(crate) last_log_index: u64,
    pub(crate) applied_index: u64,
    pub(crate) revision: u64,
}

/// A gateway.
#[derive(Debug, Serialize)]
pub(crate) struct GatewayView {
    pub(crate) cluster: String,
    pub(crate) revision: u64,
    pub(crate) report_age_ms: u64,
    pub(crate) upstream: String,
    pub(crate) staleness_ms: u64,
}

/// What is known of a node's datapath.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeStatusView {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) realised_revision: u64,
    pub(crate) report_age_ms: u64,
    pub(crate) reported: bool,
    pub(crate) problems: Vec<String>,
    pub(crate) datapath: String,
    /// Silent for so long that the store removed its endpoints.
    pub(crate) gone: bool,
}

/// A policy object.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyView {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) text: String,
}

/// A policy object's name.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyKeyView {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// An identity.
#[derive(Debug, Serialize)]
pub(crate) struct IdentityView {
    pub(crate) identity: u32,
    pub(crate) cluster_id: u16,
    pub(crate) number: u32,
    pub(crate) labels: Vec<String>,
    pub(crate) revision: u64,
}

/// An endpoint.
#[derive(Debug, Serialize)]
pub(crate) struct EndpointView {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) identity: u32,
    pub(crate) addresses: Vec<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) revision: u64,
}

/// A cluster.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterView {
    pub(crate) name: String,
    pub(crate) id: u16,
    pub(crate) pod_cidrs: Vec<String>,
    pub(crate) revision: u64,
}

/// A node with what is known of its datapath; none where no report is known.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
    /// Of its proxy, and of its health check: records of their own.
    pub(crate) ingress_addresses: Vec<String>,
    pub(crate) health_addresses: Vec<String>,
    pub(crate) revision: u64,
    pub(crate) status: Option<NodeStatusView>,
}

impl From<v1::StatusResponse> for StatusView {
    fn from(status: v1::StatusResponse) -> Self {
        Self {
            responder: status.responder,
            revision: status.revision,
            staleness_ms: status.staleness_ms,
            members: status.members.into_iter().map(Into::into).collect(),
            gateways: status.gateways.into_iter().map(Into::into).collect(),
            nodes: status.nodes.into_iter().map(Into::into).collect(),
            identities: status.identities.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::IdentityUsage> for IdentityUsageView {
    fn from(usage: v1::IdentityUsage) -> Self {
        let v1::IdentityUsage { cluster, in_use, idle, quarantined, granted, limit } = usage;
        Self { cluster, in_use, idle, quarantined, granted, limit }
    }
}

impl From<v1::MemberStatus> for MemberView {
    fn from(member: v1::MemberStatus) -> Self {
        Self {
            id: member.id,
            address: member.address,
            cluster: member.cluster,
            state: member.state,
            term: member.term,
            last_log_index: member.last_log_index,
            applied_index: member.applied_index,
            revision: member.revision,
        }
    }
}

impl From<v1::GatewayStatus> for GatewayView {
    fn from(gateway: v1::GatewayStatus) -> Self {
        Self {
            cluster: gateway.cluster,
            revision: gateway.revision,
            report_age_ms: gateway.report_age_ms,
            upstream: gateway.upstream,
            staleness_ms: gateway.staleness_ms,
        }
    }
}

impl From<v1::NodeStatus> for NodeStatusView {
    fn from(node: v1::NodeStatus) -> Self {
        Self {
            cluster: node.cluster,
            name: node.name,
            realised_revision: node.realised_revision,
            report_age_ms: node.report_age_ms,
            reported: node.reported,
            problems: node.problems,
            datapath: node.datapath,
            gone: node.gone,
        }
    }
}

impl From<&PolicyKey> for PolicyKeyView {
    fn from(key: &PolicyKey) -> Self {
        let namespace = key.namespace.as_ref().map(ToString::to_string);
        Self { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
    }
}

impl IdentityView {
    pub(crate) fn new(record: &IdentityRecord, revision: u64) -> Self {
        Self {
            identity: record.identity.bits(),
            cluster_id: record.identity.cluster().map_or(0, |cluster| cluster.get()),
            number: record.identity.number(),
            labels: record.labels.iter().map(ToString::to_string).collect(),
            revision,
        }
    }
}

impl EndpointView {
    pub(crate) fn new(endpoint: &Endpoint, revision: u64) -> Self {
        Self {
            cluster: endpoint.cluster.to_string(),
            node: endpoint.node.to_string(),
            name: endpoint.name.to_string(),
            identity: endpoint.identity.bits(),
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            labels: endpoint.labels.iter().map(ToString::to_string).collect(),
            revision,
        }
    }
}

impl ClusterView {
    pub(crate) fn new(cluster: &Cluster, revision: u64) -> Self {
        Self {
            name: cluster.name.to_string(),
            id: cluster.id.get(),
            pod_cidrs: cluster.pod_cidrs.iter().map(ToString::to_string).collect(),
            revision,
        }
    }
}

impl NodeView {
    /// `endpoints` are those of all nodes.
    pub(crate) fn new(node: &Node, revision: u64, endpoints: &[Endpoint], status: Option<NodeStatusView>) -> Self {
        let own = endpoints.iter().filter(|other| (&other.cluster, &other.node) == (&node.cluster, &node.name));
        let [ingress_addresses, health_addresses] = [Identity::INGRESS, Identity::HEALTH].map(|identity| {
            let reserved = own.clone().filter(|endpoint| endpoint.identity == identity);
            reserved.flat_map(|endpoint| &endpoint.addresses).map(ToString::to_string).collect()
        });
        Self {
            cluster: node.cluster.to_string(),
            name: node.name.to_string(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            ingress_addresses,
            health_addresses,
            revision,
            status,
        }
    }
}
