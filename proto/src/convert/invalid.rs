//! Why a message has no meaning, and how refusals travel.

use ringfence_policy::{
    cidr::InvalidCidr, command::Refusal, identity::InvalidIdentity, label::InvalidLabel, name::InvalidName,
    record::InvalidSettings, store::InvalidStoreId,
};
use tonic::{Code, Status};

/// A message does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Message and field, as in the `.proto` file.
        field: &'static str,
    },
    /// A name breaks DNS-1123.
    #[error("{field}: {source}")]
    Name {
        /// Message and field.
        field: &'static str,
        /// Why.
        source: InvalidName,
    },
    /// A label or label set is wrong.
    #[error("{field}: {source}")]
    Label {
        /// Message and field.
        field: &'static str,
        /// Why.
        source: InvalidLabel,
    },
    /// A store's id is wrong.
    #[error("{field}: {source}")]
    Store {
        /// Message and field.
        field: &'static str,
        /// Why.
        source: InvalidStoreId,
    },
    /// An address range is wrong.
    #[error("{field}: {source}")]
    Cidr {
        /// Message and field.
        field: &'static str,
        /// Why.
        source: InvalidCidr,
    },
    /// A cluster id is out of range, or a number is no identity that a cluster can give.
    #[error("{field}: {source}")]
    Identity {
        /// Message and field.
        field: &'static str,
        /// Why.
        source: InvalidIdentity,
    },
    /// A text is not an IP address.
    #[error("{field}: {text:?} is not an IP address")]
    Address {
        /// Message and field.
        field: &'static str,
        /// The text as given.
        text: String,
    },
    /// A number does not fit.
    #[error("{field}: {number} is out of range: {minimum} to {maximum} is allowed")]
    Range {
        /// Message and field.
        field: &'static str,
        /// The number as given.
        number: u32,
        /// The smallest that is allowed.
        minimum: u32,
        /// The largest that is allowed.
        maximum: u32,
    },
    /// An enum value that this version does not know.
    #[error("{field}: {number} is not a value this version knows")]
    Unknown {
        /// Message and field.
        field: &'static str,
        /// The number as given.
        number: i32,
    },
    /// Settings that cannot work.
    #[error("MeshSettings: {source}")]
    Settings {
        /// Why.
        source: InvalidSettings,
    },
    /// A namespaced policy without, or a clusterwide one with a namespace.
    #[error("PolicyKey.namespace: a {kind} {expected}")]
    Namespace {
        /// The kind.
        kind: ringfence_policy::record::PolicyKind,
        /// What is right.
        expected: &'static str,
    },
}

impl From<InvalidMessage> for Status {
    fn from(error: InvalidMessage) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// How a refused command travels: the code says what kind of refusal, the message is the refusal's own.
#[must_use]
pub fn refusal_status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::NotFound { .. } => Code::NotFound,
        Refusal::ClusterIdInUse { .. }
        | Refusal::AddressInUse { .. }
        | Refusal::PodCidrOverlap { .. }
        | Refusal::NumberTaken { .. }
        | Refusal::LabelsTaken { .. } => Code::AlreadyExists,
        Refusal::IdentitiesExhausted { .. } | Refusal::TooManyBlocks { .. } => Code::ResourceExhausted,
        Refusal::NoAddress { .. }
        | Refusal::NoFqdnAddress { .. }
        | Refusal::BlockSize { .. }
        | Refusal::NotInBlock { .. }
        | Refusal::Settings { .. }
        | Refusal::ForeignClusterLabel { .. }
        | Refusal::ReservedLabel { .. }
        | Refusal::NotDeletable { .. } => Code::InvalidArgument,
        Refusal::UnknownCluster { .. }
        | Refusal::UnknownNode { .. }
        | Refusal::ClusterIdChanged { .. }
        | Refusal::InUse { .. } => Code::FailedPrecondition,
    };
    Status::new(code, refusal.to_string())
}
