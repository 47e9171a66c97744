//! Both ends of `Follow`: a snapshot where needed, then one delta per revision, in order, without gaps (S13).
//!
//! ```text
//! push/reset ─► SharedHistory ─ head ─► waker ─ rounds ─► serve ─► FollowEvent … ─► Follower ─► Snapshot | Delta | Progress
//!                    ├─ every delta encoded once, for all ──┘▲
//!                    └─ a snapshot's parts, read and sent ───┘
//! ```
//!
//! Writers come first: followers are told by a task of its own, a group at a time and, where there are many, not of every
//! revision alone. A follower that takes nothing is cut off with a reason and resumes where it was.

mod assembly;
mod client;
mod encode;
mod frames;
mod past;
mod seat;
mod server;
mod shared;
mod snapshot;
mod until;
mod views;
mod waker;
pub mod wire;

pub use client::{FollowError, FollowEvent, Follower};
pub use past::Past;
pub use server::{FollowResponseStream, ListResponseStream, Staleness, list, serve};
pub use shared::SharedHistory;
pub use until::until;
pub use views::Interest;
