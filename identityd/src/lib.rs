//! The store: every record of the mesh, in one order, on a majority of members' disks before it counts.
//!
//! ```text
//! gateways ─ links (link) ─┐
//! CLI ─ gRPC Mesh (service)┴─► Raft (raft) ─► write-ahead log (wal) on a majority; one thread (core)
//!                        ▲                  │ committed
//!                        │                  ▼
//!                        │           machine::transition: Mesh + Command ─► changes of one revision, or a Refusal
//!                        │                  ├─► state (sled, rebuildable) ─► snapshot
//!                        └─ Follow ◄────────┴─► SharedHistory
//! ```
//!
//! housekeeping: where this member leads, it counts the store's clock on and ends silent nodes, by commands of its own.
//!
//! A write is acknowledged when a majority has its log entry on stable storage. The state machine is deterministic, so
//! equal logs make equal meshes (S14); state and snapshots can be rebuilt, the log cannot.

#![expect(
    clippy::result_large_err,
    reason = "Refusal, tonic's Status and openraft's errors are large and not ours to box; errors are not on the hot path"
)]

// The log's own tests and the tests in `tests/` share a faulty disk.
#[cfg(test)]
extern crate self as ringfence_identityd;

pub mod codec;
pub mod config;
mod core;
pub mod digests;
pub mod founding;
pub mod freshness;
pub mod history;
pub mod housekeeping;
mod link;
pub mod machine;
pub mod maintenance;
pub mod member;
pub mod observe;
pub mod raft;
pub mod reports;
pub mod restore;
pub mod service;
pub mod snapshot;
pub mod state;
pub mod storage;
pub mod wal;

/// What to do with a data directory that cannot be gone on with. A member that starts anew under its old id, or from an
/// older copy, has forgotten votes and entries that others count on.
pub(crate) const REPLACE_MEMBER: &str = "Replace the member: 'ringfence store member remove', then start one with \
    another id, an empty data_dir and 'join: true', and 'ringfence store member add' it. Under this id neither an \
    emptied directory nor an older copy will do: the member would have forgotten what it promised";

pub use config::{Config, InvalidConfig, MemberConfig};
pub use member::{Member, MemberFailed, StartError, run};
