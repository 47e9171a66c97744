//! Reaching the leader: what only it can answer is handed to it once, never in circles.

use std::{
    fmt,
    time::{Duration, Instant},
};

use ringfence_proto::{connect::MAX_MESSAGE_BYTES, v1::mesh_client::MeshClient};
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

use super::MeshService;
use crate::raft::network::Lane;

/// Marks a call that another member handed over: it is answered here or not at all.
const FORWARDED: &str = "ringfence-forwarded";
/// Marks an error after which the command is surely not in the log, and never will be.
const NOT_PROPOSED: &str = "ringfence-not-proposed";
/// How often a leader is looked for while there is none.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Why nobody can answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("no quorum of the store: {members}")]
    NoQuorum { members: String },
    #[error("the store has no leader at the moment; an election takes a few seconds")]
    NoLeader,
    #[error("the leader, {member}, cannot be reached: {reason}")]
    LeaderUnreachable { member: String, reason: String },
    #[error("this member is not the leader any more")]
    NotLeader,
    #[error("this member has stopped: {reason}")]
    Stopped { reason: String },
}

impl From<Unavailable> for Status {
    /// Nothing was proposed.
    fn from(reason: Unavailable) -> Self {
        let mut status = Self::unavailable(reason.to_string());
        status.metadata_mut().insert(NOT_PROPOSED, MetadataValue::from_static("1"));
        status
    }
}

impl MeshService {
    /// Why there is no leader to ask.
    pub(super) fn no_leader(&self) -> Unavailable {
        if *self.members.quorum().borrow() {
            Unavailable::NoLeader
        } else {
            Unavailable::NoQuorum { members: self.members.describe_quorum() }
        }
    }

    /// A client for the leader's service.
    pub(super) fn leader_client(&self, leader: u64) -> Result<MeshClient<Channel>, Unavailable> {
        let member = self.members.get(leader).ok_or(Unavailable::NoLeader)?;
        let channel =
            self.channels.get(Lane::Call, &member.address).map_err(|error| self.unreachable(leader, &error))?;
        Ok(MeshClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    pub(super) fn unreachable(&self, leader: u64, reason: &dyn fmt::Display) -> Unavailable {
        let member = self.members.get(leader).map_or_else(|| format!("member {leader}"), ToString::to_string);
        Unavailable::LeaderUnreachable { member, reason: reason.to_string() }
    }
}

/// Whether another member handed the call over.
pub(super) fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// A call for the leader, which must answer before `deadline`.
pub(super) fn forward<T>(message: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}

/// Whether an error of a forwarded call says that nothing was proposed: the leader said so, or was never reached.
pub(super) fn surely_not_proposed(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    status.metadata().contains_key(NOT_PROPOSED)
}

/// Waits a moment for a leader; false if `deadline` is reached.
pub(super) async fn wait_a_moment(deadline: Instant) -> bool {
    let now = Instant::now();
    if now >= deadline {
        return false;
    }
    tokio::time::sleep(RETRY_INTERVAL.min(deadline - now)).await;
    true
}
