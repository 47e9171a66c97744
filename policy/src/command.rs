//! What can be asked of the store, and what it answers.

mod refusal;

pub use refusal::{IdentityUsage, NumberTaken, Refusal};

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    identity::Identity,
    l7::dns_name::DnsName,
    label::LabelSet,
    name::Name,
    record::{
        CidrGroupRecord, Cluster, MeshSettings, NamedPort, Node, PolicyKey, PolicyRecord, RecordKey, ServiceRecord,
    },
    revision::Revision,
    store::StoreId,
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
    /// Removes a cluster, node, endpoint, CIDR group, service or DNS name; a cluster only without nodes and blocks, a
    /// node only without endpoints.
    Delete(RecordKey),
    /// Creates or replaces policy objects and CIDR groups, all in one revision.
    PutObjects {
        /// As in `PutPolicies`.
        policies: Vec<PolicyRecord>,
        /// The groups.
        groups: Vec<CidrGroupRecord>,
    },
    /// Creates or replaces services, all in one revision.
    PutServices(Vec<ServiceRecord>),
    /// Binds DNS names to addresses, all in one revision. Addresses that are bound already stay bound until their time is
    /// over, or longer if this says so.
    PutFqdns(Vec<FqdnSpec>),
    /// Replaces the settings of the mesh.
    PutSettings(MeshSettings),
    /// Ends the grace of a number that nobody refers to: it goes into quarantine.
    ReleaseIdentity(Identity),
    /// Signs of life of a cluster's nodes, all that its gateway heard of lately. Makes no revision.
    KeepAlive {
        /// The owner.
        cluster: Name,
        /// Nodes that are not registered are left out.
        nodes: Vec<SignOfLife>,
    },
    /// Sets numbers of a cluster aside for one of its gateways; nothing changes if it has a block.
    GrantBlock {
        /// The owner.
        cluster: Name,
        /// The gateway.
        holder: Name,
        /// How many, 1 to `MAX_BLOCK_NUMBERS`.
        count: u32,
    },
    /// Gives a gateway's block back. Numbers that it gave out and that were not adopted go into quarantine, too.
    ReturnBlock {
        /// The owner.
        cluster: Name,
        /// The gateway.
        holder: Name,
    },
    /// Makes known that a gateway gave a number of its block to a label set while it was cut off.
    AdoptFromBlock {
        /// The owner.
        cluster: Name,
        /// The gateway.
        holder: Name,
        /// The number.
        identity: Identity,
        /// The label set; it is filtered and gets the cluster's label as with `PutEndpoint`.
        labels: LabelSet,
    },
    /// What only the store's leader proposes; it has no form on the wire.
    Housekeeping(Housekeeping),
}

/// What the store does by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Housekeeping {
    /// Time has passed: releases identities, ends quarantines, lets DNS names expire; a bounded number each time.
    Tick {
        /// The store's clock as the leader counts it on, in milliseconds. It never goes back, and moves at most
        /// [`Housekeeping::MAX_STEP_MS`] at once, whatever is given.
        now_ms: u64,
    },
    /// A node is gone: its endpoints are removed, in one revision.
    ExpireNode {
        /// The owner.
        cluster: Name,
        /// The node.
        node: Name,
        /// The signs of life that the leader knew of. Nothing happens if there was another one meanwhile.
        renewals: u64,
    },
    /// The store begins: it has this id from now on. Nothing happens if it has one already.
    Found(StoreId),
}

impl Housekeeping {
    /// The most that the store's clock moves at once, in milliseconds.
    pub const MAX_STEP_MS: u64 = 10_000;
}

/// A node is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOfLife {
    /// Which node.
    pub node: Name,
    /// The newest revision that it serves packets with; 0 if none.
    pub realised: Revision,
}

/// What a DNS name was found to stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FqdnSpec {
    /// Owner.
    pub cluster: Name,
    /// The name.
    pub name: DnsName,
    /// The addresses, and how long each one is valid from now on, in milliseconds.
    pub addresses: Vec<(IpAddr, u64)>,
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
