//! Both ends of `Follow`: a snapshot where needed, then one delta per revision, in order, without gaps (S13).
//!
//! ```text
//! push/reset ─► SharedHistory ─ head changes ─► serve ─► FollowEvent … ─► Follower ─► Snapshot | Delta | Progress
//! ```

mod client;
mod server;
mod shared;
mod until;

pub use client::{FollowError, FollowEvent, Follower};
pub use server::{FollowResponseStream, ListResponseStream, Staleness, list, serve};
pub use shared::SharedHistory;
pub use until::until;
