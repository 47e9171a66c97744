//! Linearizable reads: one question to a quorum for all reads that wait.
//!
//! ```text
//! confirm ─► queue ─┬─ this member leads: does a quorum still follow? ─────────────┐
//! (bounded)         └─ another one does: how far must I be? ─► apply that far ─────┴─► read here
//! ```
//!
//! Reads that come while a question is under way wait for the next one: the answer must be younger than they are.

use std::{sync::Arc, time::Duration};

use openraft::error::{CheckIsLeaderError, RaftError};
use ringfence_proto::link::method;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Raft,
    guard::Members,
    network::{Channels, Lane},
};
use crate::codec;

/// Reads that wait at most; more are refused.
const QUEUE: usize = 4096;
/// How long one question may take. Reads ask again until their own time is over.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a read cannot be confirmed now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NotConfirmed {
    /// Nobody leads, as far as this member knows.
    #[error("the store has no leader at the moment; an election takes about a second")]
    NoLeader,
    /// The leader does not reach a quorum.
    #[error("the leader reaches no quorum of the store")]
    NoQuorum,
    /// The leader cannot be reached.
    #[error("the leader, member {leader}, cannot be reached: {reason}")]
    LeaderUnreachable {
        /// Its id.
        leader: u64,
        /// Why.
        reason: String,
    },
    /// This member has stopped.
    #[error("this member has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// Too many reads wait.
    #[error("{QUEUE} linearizable reads are waiting at this member: try again")]
    TooMany,
}

type Confirmation = Result<(), NotConfirmed>;

/// Confirms reads; clones share one queue.
#[derive(Clone)]
pub struct Reads {
    queue: mpsc::Sender<oneshot::Sender<Confirmation>>,
}

impl Reads {
    /// Starts the task that asks; it ends with `stopping`.
    #[must_use]
    pub fn start(raft: Raft, members: Arc<Members>, channels: Channels, stopping: CancellationToken) -> Self {
        let (queue, mut waiting) = mpsc::channel::<oneshot::Sender<Confirmation>>(QUEUE);
        let asker = Asker { raft, members, channels };
        let run = async move {
            while let Some(first) = waiting.recv().await {
                let mut readers = vec![first];
                while let Ok(next) = waiting.try_recv() {
                    readers.push(next);
                }
                let confirmed = asker.ask().await;
                for reader in readers {
                    // The reader may have given up.
                    let _ = reader.send(confirmed.clone());
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = run => {}
            }
        });
        Self { queue }
    }

    /// Returns once this member has applied everything that was acknowledged before the call.
    ///
    /// # Errors
    /// `NotConfirmed`; asking again harms nobody.
    pub async fn confirm(&self, deadline: Instant) -> Confirmation {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotConfirmed::TooMany,
            mpsc::error::TrySendError::Closed(_) => NotConfirmed::Stopped { reason: "it is stopping".to_owned() },
        })?;
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(_dropped)) => Err(NotConfirmed::Stopped { reason: "it is stopping".to_owned() }),
            Err(_elapsed) => Err(NotConfirmed::NoQuorum),
        }
    }
}

/// Who asks.
struct Asker {
    raft: Raft,
    members: Arc<Members>,
    channels: Channels,
}

impl Asker {
    async fn ask(&self) -> Confirmation {
        let leader = self.raft.metrics().borrow().current_leader.ok_or(NotConfirmed::NoLeader)?;
        if leader == self.members.own().id { self.ask_quorum().await } else { self.ask_leader(leader).await }
    }

    async fn ask_quorum(&self) -> Confirmation {
        match tokio::time::timeout(ROUND_TIMEOUT, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)))) => Err(NotConfirmed::NoLeader),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(NotConfirmed::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(error))) => Err(NotConfirmed::Stopped { reason: error.to_string() }),
        }
    }

    async fn ask_leader(&self, leader: u64) -> Confirmation {
        let unreachable = |reason: String| NotConfirmed::LeaderUnreachable { leader, reason };
        let member = self.members.get(leader).ok_or(NotConfirmed::NoLeader)?;
        let call = self.channels.link(Lane::Handover, &member.address);
        let call = tokio::time::timeout(ROUND_TIMEOUT, call.call(method::READ_INDEX, Vec::new()));
        let answer = match call.await {
            Ok(answer) => answer.map_err(|status| unreachable(status.message().to_owned()))?,
            Err(_elapsed) => return Err(unreachable("it did not answer in time".to_owned())),
        };
        let index: Result<Option<u64>, NotConfirmed> =
            codec::decode(&answer).map_err(|error| unreachable(error.to_string()))?;
        let applied = self.raft.wait(Some(ROUND_TIMEOUT)).applied_index_at_least(index?, "a linearizable read").await;
        applied.map(drop).map_err(|_| NotConfirmed::NoQuorum)
    }
}
