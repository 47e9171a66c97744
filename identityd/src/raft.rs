//! Consensus: openraft with this store's log, state machine and network.
//!
//! ```text
//! Execute ─► propose.rs ─► Batch ─► Raft ─┬─ log.rs ─────► Wal           (acknowledged = here, on a majority)
//! (many commands)         (one entry)     ├─ network.rs ─► links ─► other members' service.rs
//!                                         └─ applier.rs ─► machine::transition ─► State (sled), SharedHistory
//! List ─► read.rs: one question to a quorum for all reads that wait
//! membership.rs, transfer.rs: who is a member, who leads
//! bound.rs: cuts the log when it holds many bytes, however few entries
//! guard.rs: pings the others; a member without a quorum, or with a leader, does not stand for election
//! ```

pub mod applier;
pub mod batch;
pub mod bound;
pub mod durable;
pub mod guard;
pub mod log;
pub mod membership;
pub mod network;
pub mod propose;
pub mod read;
pub mod service;
pub mod transfer;

use ringfence_policy::{
    command::{Committed, Refusal},
    name::Name,
};
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotFile;
use batch::Batch;

/// What a command did, or why it was refused.
pub type Answer = Result<Committed, Refusal>;

openraft::declare_raft_types!(
    /// What Raft replicates: commands that waited together, each with an answer of its own, in their order.
    pub TypeConfig:
        D = Batch,
        R = Vec<Answer>,
        NodeId = u64,
        Node = MemberNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotFile,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// A member as the membership entries of the log describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNode {
    /// `host:port` of its service.
    pub address: String,
    /// The cluster it sits in; none in openraft's placeholders.
    pub cluster: Option<Name>,
}

/// The running consensus of this member.
pub type Raft = openraft::Raft<TypeConfig>;
/// A log entry.
pub type Entry = openraft::Entry<TypeConfig>;
/// Term, leader and index of an entry.
pub type LogId = openraft::LogId<u64>;
/// Whom a member voted for in which term.
pub type Vote = openraft::Vote<u64>;
/// The members as of an applied entry.
pub type StoredMembership = openraft::StoredMembership<u64, MemberNode>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, MemberNode>;
/// Storage errors as openraft wants them; each one stops the member.
pub type StorageError = openraft::StorageError<u64>;
