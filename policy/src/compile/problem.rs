//! What keeps a revision from being compiled, and what somebody should look at.

use crate::{
    diagnostic::Diagnostic,
    engine::Unresolvable,
    identity::Identity,
    name::Name,
    record::{PolicyKey, RecordKey},
};

/// A revision that cannot be compiled whole. The node keeps the revision it has: leaving a policy out could open what it
/// closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the revision cannot be compiled: {}", listed(.problems))]
pub struct Incomplete {
    /// Why; at least one.
    pub problems: Vec<Problem>,
}

/// Something in the mesh that does not fit this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text of a policy is not understood, probably because a newer version accepted it.
    #[error("{key} cannot be read by this version, so no newer revision is enforced here: {}", listed(.diagnostics))]
    UnreadablePolicy {
        /// The object.
        key: PolicyKey,
        /// Why.
        diagnostics: Vec<Diagnostic>,
    },
    /// A policy says what the tables of this version cannot express. Its text passed an older or a newer check.
    #[error("{key} cannot be enforced here, so no newer revision is: {}", listed(.diagnostics))]
    NotEnforceable {
        /// The object.
        key: PolicyKey,
        /// Its fields, each with its position in the object's text.
        diagnostics: Vec<Diagnostic>,
    },
    /// An endpoint has an identity without a record: a rule that denies it would not deny it.
    #[error(
        "identity {identity} is used and has no record, so its labels are not known and no newer revision is enforced here"
    )]
    UnknownIdentity {
        /// The number.
        identity: Identity,
    },
    /// The policies of an endpoint come to nothing that can be enforced.
    #[error("the policies of endpoint {endpoint} cannot be enforced here, so no newer revision is: {reason}")]
    Unresolvable {
        /// Its name on this node.
        endpoint: Name,
        /// Why.
        reason: Unresolvable,
    },
    /// An attached endpoint has no record yet. It is refused everything until it has (S9).
    #[error("endpoint {endpoint} is attached here and has no record at this revision: all its traffic is refused")]
    UnknownEndpoint {
        /// Its name on this node.
        endpoint: Name,
    },
    /// A policy for nodes selects this one, which has no uplinks where it could be enforced.
    #[error("{key} selects this node, which has no uplinks in its agent's configuration: it is not enforced here")]
    HostNotEnforced {
        /// The object.
        key: PolicyKey,
    },
    /// Two records claim one address. It is `unknown` until one of them gives it up.
    #[error("address {address} belongs to {first} and to {second}: it is treated as unknown")]
    AddressConflict {
        /// The address.
        address: std::net::IpAddr,
        /// Who claims it.
        first: RecordKey,
        /// Who claims it, too.
        second: RecordKey,
    },
}

fn listed<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
