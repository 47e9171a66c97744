//! Both ends of `Follow`: a snapshot where needed, then one delta per revision, in order, without gaps (S13).
//!
//! ```text
//! push/reset ─► SharedHistory ─ head changes ─► waker ─► serve ─► FollowEvent … ─► Follower ─► Snapshot | Delta | Progress
//!                    └─ frames: every delta and snapshot encoded once ──┘
//! ```
//!
//! Writers come first: followers are woken by a task of its own, a few at a time and, where there are many, not for
//! every revision. A follower that takes nothing is cut off with a reason and resumes where it was.
//!
//! A follower says which store its revision is of (`Position`): in another one, such as one that was restored from a
//! backup, it does not resume but gets the whole state, and never one that is older than what it has.

mod client;
mod frames;
mod past;
mod position;
mod server;
mod shared;
mod until;
mod waker;
pub mod wire;

pub use client::{FollowError, FollowEvent, Follower};
pub use past::Past;
pub use position::{OtherStore, Position};
pub use server::{FollowResponseStream, ListResponseStream, Staleness, list, serve, serve_position};
pub use shared::SharedHistory;
pub use until::until;
