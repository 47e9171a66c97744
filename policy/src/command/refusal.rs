//! Why the store does not do what it was asked for.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::LabelSet,
    name::Name,
    record::{InvalidSettings, MAX_BLOCK_NUMBERS, RecordKey},
};

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
    /// There is no number left, or not as many in a row as were asked for.
    #[error(
        "cluster {cluster} has no identity number left: of {} numbers {} stand for label sets ({} of them without any \
         endpoint), {} are in quarantine, {} are set aside for gateways. Fewer different label sets are needed: see the \
         label filter among the mesh's settings",
        Identity::MAX_NUMBER, usage.in_use, usage.idle, usage.quarantined, usage.granted
    )]
    IdentitiesExhausted {
        /// The cluster.
        cluster: Name,
        /// What its numbers are used for.
        usage: IdentityUsage,
    },
    /// A block of that size cannot be granted.
    #[error("a block of {count} numbers cannot be granted: ask for 1 to {MAX_BLOCK_NUMBERS}")]
    BlockSize {
        /// How many were asked for.
        count: u32,
    },
    /// Gateways of one cluster are few.
    #[error("cluster {cluster} has {count} blocks of numbers already: return one that is not needed any more")]
    TooManyBlocks {
        /// The cluster.
        cluster: Name,
        /// How many blocks it has.
        count: usize,
    },
    /// The number is not the gateway's to give.
    #[error("identity {identity} is not in the {block}: it may have been returned meanwhile")]
    NotInBlock {
        /// The number.
        identity: Identity,
        /// The gateway's block.
        block: RecordKey,
    },
    /// The number stands for something else, or rests.
    #[error("identity {identity} cannot stand for {labels}: it {state}")]
    NumberTaken {
        /// The number.
        identity: Identity,
        /// What it was to stand for.
        labels: LabelSet,
        /// Why not.
        state: NumberTaken,
    },
    /// The label set has a number.
    #[error("{labels} has identity {identity} already, it cannot have {wanted}, too: use {identity}")]
    LabelsTaken {
        /// The label set.
        labels: LabelSet,
        /// Its number.
        identity: Identity,
        /// The number it was to have.
        wanted: Identity,
    },
    /// The settings cannot work.
    #[error("settings: {source}")]
    Settings {
        /// Why.
        #[from]
        source: InvalidSettings,
    },
    /// A DNS name without addresses says nothing.
    #[error("DNS name {name} has no address: give at least one, or delete the name")]
    NoFqdnAddress {
        /// The name.
        name: DnsName,
    },
}

/// Why a number cannot stand for a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NumberTaken {
    /// It stands for another one.
    #[error("stands for {labels}")]
    Labels {
        /// Which.
        labels: LabelSet,
    },
    /// It was released.
    #[error("was released and is in quarantine")]
    Quarantine,
}

/// What the numbers of a cluster are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityUsage {
    /// Stand for label sets.
    pub in_use: u32,
    /// Of these: no endpoint refers to them.
    pub idle: u32,
    /// Released, and not to be used again yet.
    pub quarantined: u32,
    /// In blocks of gateways, not adopted.
    pub granted: u32,
}

impl IdentityUsage {
    /// How many numbers cannot be given out, of `Identity::MAX_NUMBER`.
    #[must_use]
    pub const fn taken(&self) -> u32 {
        self.in_use + self.quarantined + self.granted
    }
}
