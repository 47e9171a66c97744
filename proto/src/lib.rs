//! The wire: messages, their meaning, and both ends of the `Follow` protocol.
//!
//! ```text
//! bytes ◄─ prost/tonic ─► v1::… ◄─ TryFrom/From (convert) ─► ringfence_policy types
//!
//! History ─ SharedHistory ─ follow::serve ─► stream FollowEvent ─► follow::Follower ─► Snapshot | Delta | Progress
//! ```
//!
//! `v1` holds what the `.proto` files say; `convert` is the only place that turns messages into meaning and back, and
//! refuses with an `InvalidMessage` that names the field. Store members and gateways serve `Follow` with the same code.

pub mod access;
pub mod backup;
pub mod connect;
pub mod convert;
pub mod deadline;
pub mod follow;
pub mod link;
pub mod pool;
pub mod status;
pub mod version;

/// Generated from `proto/ringfence/v1/*.proto`; documented there.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code; the .proto files carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("ringfence.v1");

    pub use crate::follow::wire::{FollowEvent, follow_event};
}
