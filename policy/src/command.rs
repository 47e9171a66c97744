//! What can be asked of the store, and what it answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    identity::{ClusterId, Identity},
    label::LabelSet,
    name::Name,
    record::{Cluster, NamedPort, Node, PolicyKey, PolicyRecord, RecordKey},
    revision::Revision,
};

/// A write. Each one becomes at most one revision, as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Creates or replaces a cluster.
    PutCluster(Cluster),
    /// Creates or replaces a node.
    PutNode(Node),
    /// Creates or replaces an endpoint; its label set gets a number in the same revision if it has none yet.
    PutEndpoint(EndpointSpec),
    /// Gives a label set its number without an endpoint.
    AllocateIdentity {
        /// The owner; its cluster label is added to `labels`.
        cluster: Name,
        /// The label set.
        labels: LabelSet,
    },
    /// Creates or replaces policy objects, all in one revision.
    PutPolicies(Vec<PolicyRecord>),
    /// Removes policy objects, all in one revision; one that does not exist refuses the command.
    DeletePolicies(Vec<PolicyKey>),
    /// Removes a cluster, node or endpoint; a cluster only without nodes, a node only without endpoints.
    Delete(RecordKey),
}

/// An endpoint as its node declares it: without the number, which the store gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Owner.
    pub cluster: Name,
    /// Where it runs.
    pub node: Name,
    /// Unique on its node.
    pub name: Name,
    /// At least one; unique in the mesh.
    pub addresses: Vec<IpAddr>,
    /// Identity-relevant labels; the cluster label is added by the store.
    pub labels: LabelSet,
    /// Ports that policies may name.
    pub named_ports: Vec<NamedPort>,
}

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The revision that holds the result: a new one if something changed, else the current one.
    pub revision: Revision,
    /// Whether anything changed.
    pub changed: bool,
    /// The number of the label set, for `PutEndpoint` and `AllocateIdentity`.
    pub identity: Option<Identity>,
}

/// A command was understood and refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The owner cluster is not in the store.
    #[error("cluster {cluster} does not exist: its gateway registers it when it starts")]
    UnknownCluster {
        /// The cluster that was named.
        cluster: Name,
    },
    /// The node is not in the store.
    #[error("node {cluster}/{node} does not exist: its agent registers it when it starts")]
    UnknownNode {
        /// The cluster that was named.
        cluster: Name,
        /// The node that was named.
        node: Name,
    },
    /// Another cluster has that id.
    #[error("cluster id {id} belongs to cluster {owner}: every cluster of the mesh needs an id of its own")]
    ClusterIdInUse {
        /// The id.
        id: ClusterId,
        /// Who has it.
        owner: Name,
    },
    /// A cluster that has identities cannot get another id.
    #[error("cluster {cluster} has id {id} already: a cluster keeps its id for life")]
    ClusterIdChanged {
        /// The cluster.
        cluster: Name,
        /// The id it has.
        id: ClusterId,
    },
    /// Another cluster's pod range covers a part of this one's.
    #[error("pod range {range} overlaps a pod range of cluster {owner}: pod ranges of the mesh must be disjoint")]
    PodCidrOverlap {
        /// The new range.
        range: crate::cidr::Cidr,
        /// Whose range it overlaps.
        owner: Name,
    },
    /// Another endpoint or node has that address.
    #[error("address {address} belongs to {owner} already")]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: RecordKey,
    },
    /// An endpoint without addresses cannot be enforced.
    #[error("endpoint {endpoint} has no address: give at least one IPv4 or IPv6 address")]
    NoAddress {
        /// The endpoint.
        endpoint: Name,
    },
    /// The labels name another cluster.
    #[error("label {label} names another cluster than {cluster}: leave it out, the store adds the right one")]
    ForeignClusterLabel {
        /// The cluster label that was given.
        label: String,
        /// The owner.
        cluster: Name,
    },
    /// Users cannot give themselves built-in labels.
    #[error("label {label} is reserved: only the system gives labels of source 'reserved' and 'cidr'")]
    ReservedLabel {
        /// The label.
        label: String,
    },
    /// There is no such record.
    #[error("{key} does not exist")]
    NotFound {
        /// What was named.
        key: RecordKey,
    },
    /// Something still refers to the record.
    #[error("{key} is still in use by {user}: remove that first")]
    InUse {
        /// What was to be removed.
        key: RecordKey,
        /// What refers to it.
        user: RecordKey,
    },
    /// Identities and policies have commands of their own.
    #[error("{key} cannot be removed with this command")]
    NotDeletable {
        /// What was named.
        key: RecordKey,
    },
    /// Every number of the cluster is in use.
    #[error("cluster {cluster} has used all of its {} identity numbers", Identity::MAX_NUMBER)]
    IdentitiesExhausted {
        /// The cluster.
        cluster: Name,
    },
}
