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
//!
//! A follower says which store its revision is of (`Position`): in another one, such as one that was restored from a
//! backup, it does not resume but gets the whole state, and never one that is older than what it has.

mod assembly;
mod client;
mod encode;
mod frames;
mod past;
mod position;
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
pub use position::{OtherStore, Position};
pub(crate) use server::PATIENCE;
pub use server::{FollowResponseStream, ListResponseStream, Staleness, answer, list, serve, serve_position};
pub use shared::SharedHistory;
pub use until::until;
pub use views::{Interest, MAX_ADDRESSES, VIEW};
