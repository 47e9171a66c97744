//! Handing leadership over, which openraft 0.9 cannot do by itself.
//!
//! ```text
//! leader: no new entries ─► target has the whole log ─► [heartbeats off, lease over] ─► "stand for election"
//! target: asks for votes ─► the old leader and the target are a majority of three; with more members, or right after
//!         an election, the lease that voters grant a leader must be over
//! ```
//!
//! Commands that come meanwhile wait in the queue, and go to the new leader. If it does not come to an election, the old
//! leader goes on.

use std::{sync::Arc, time::Duration};

use openraft::ServerState;
use ringfence_proto::v1::{self, raft_client::RaftClient};
use tokio::time::Instant;

use super::{
    Raft,
    guard::{Members, Times},
    network::Channels,
    propose::Proposer,
};

/// Members of a store in which the old leader and the new one are a majority.
const SMALL_STORE: usize = 3;
/// How long the target may take to get the rest of the log.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an election may take.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// A margin on top of the lease, for clocks that started a little later.
const LEASE_MARGIN: Duration = Duration::from_millis(50);

/// Why leadership stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferFailed {
    /// This member does not lead.
    #[error("this member does not lead")]
    NotLeader,
    /// No such voter.
    #[error("member {id} is no voter of this store: the voters are {voters}")]
    NotAVoter {
        /// Who was asked for.
        id: u64,
        /// Who could be.
        voters: String,
    },
    /// Nobody else votes, or nobody else answers.
    #[error("no other voter answers that could lead")]
    Nobody,
    /// The target lags.
    #[error("member {id} has not got the whole log within {} s: it has entry {has} of {last}", CATCH_UP_TIMEOUT.as_secs())]
    Behind {
        /// The target.
        id: u64,
        /// Its last entry.
        has: u64,
        /// The leader's.
        last: u64,
    },
    /// The target cannot be told.
    #[error("member {id} cannot be reached: {reason}")]
    Unreachable {
        /// The target.
        id: u64,
        /// Why.
        reason: String,
    },
    /// It was told and did not win.
    #[error("member {id} did not win an election within {} s; member {leader} leads", ELECTION_TIMEOUT.as_secs())]
    NotElected {
        /// The target.
        id: u64,
        /// Who leads now; 0 for nobody.
        leader: u64,
    },
}

/// Hands leadership over.
#[derive(Clone)]
pub struct Transfer {
    /// Consensus.
    pub raft: Raft,
    /// Who could lead.
    pub members: Arc<Members>,
    /// How to tell them.
    pub channels: Channels,
    /// What waits meanwhile.
    pub proposer: Proposer,
    /// How long leases last.
    pub times: Times,
}

impl Transfer {
    /// Makes another member the leader: `target`, or else the voter with the longest log. Returns who leads.
    ///
    /// # Errors
    /// `TransferFailed`; this member goes on leading then, unless somebody else was elected.
    pub async fn to(&self, target: Option<u64>) -> Result<u64, TransferFailed> {
        if self.raft.metrics().borrow().state != ServerState::Leader {
            return Err(TransferFailed::NotLeader);
        }
        let target = self.choose(target)?;
        if target == self.members.own().id {
            return Ok(target);
        }
        // An entry that comes behind the target's last one would keep it from being elected.
        let _paused = self.proposer.pause(CATCH_UP_TIMEOUT).await.ok_or_else(|| self.behind(target))?;
        self.catch_up(target).await?;
        let handed_over = self.hand_over(target).await;
        self.raft.runtime_config().heartbeat(true);
        handed_over
    }

    fn choose(&self, wanted: Option<u64>) -> Result<u64, TransferFailed> {
        let (roster, own) = (self.members.roster(), self.members.own().id);
        if let Some(id) = wanted {
            let voters = || roster.voters().iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            return if roster.is_voter(id) { Ok(id) } else { Err(TransferFailed::NotAVoter { id, voters: voters() }) };
        }
        let answering = self.members.answering();
        let candidates = roster.voters().into_iter().filter(|id| *id != own && answering.contains(id));
        candidates.max_by_key(|id| self.matched(*id)).ok_or(TransferFailed::Nobody)
    }

    /// The last entry that a member is known to have.
    pub(super) fn matched(&self, id: u64) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
        matched.map_or(0, |log_id| log_id.index)
    }

    async fn catch_up(&self, target: u64) -> Result<(), TransferFailed> {
        let mut metrics = self.raft.metrics();
        let has_all = metrics.wait_for(|metrics| {
            let matched =
                metrics.replication.as_ref().and_then(|replication| replication.get(&target).copied().flatten());
            matched.map(|log_id| log_id.index) >= metrics.last_log_index
        });
        match tokio::time::timeout(CATCH_UP_TIMEOUT, has_all).await {
            Ok(_) => Ok(()),
            Err(_elapsed) => Err(self.behind(target)),
        }
    }

    fn behind(&self, target: u64) -> TransferFailed {
        let last = self.raft.metrics().borrow().last_log_index.unwrap_or_default();
        TransferFailed::Behind { id: target, has: self.matched(target), last }
    }

    async fn hand_over(&self, target: u64) -> Result<u64, TransferFailed> {
        let lease = self.times.lease + LEASE_MARGIN;
        if self.members.roster().voters().len() > SMALL_STORE || self.members.leads_for() < lease {
            // The others, and this member itself, would refuse their votes as long as they count on this leader.
            self.raft.runtime_config().heartbeat(false);
            tokio::time::sleep(lease).await;
        }
        self.campaign(target).await?;
        let mut metrics = self.raft.metrics();
        let own = self.members.own().id;
        let deadline = Instant::now() + ELECTION_TIMEOUT;
        let other_leads = metrics.wait_for(|metrics| metrics.current_leader.is_some_and(|leader| leader != own));
        let leader = match tokio::time::timeout_at(deadline, other_leads).await {
            Ok(Ok(metrics)) => metrics.current_leader.unwrap_or_default(),
            _ => self.raft.metrics().borrow().current_leader.unwrap_or_default(),
        };
        if leader == target { Ok(leader) } else { Err(TransferFailed::NotElected { id: target, leader }) }
    }

    async fn campaign(&self, target: u64) -> Result<(), TransferFailed> {
        let unreachable = |reason: String| TransferFailed::Unreachable { id: target, reason };
        let member = self.members.get(target).ok_or_else(|| unreachable("its address is not known".to_owned()))?;
        let channel = self.channels.get(&member.address).map_err(|error| unreachable(error.to_string()))?;
        let mut client = RaftClient::new(channel);
        let call = client.campaign(self.channels.request(v1::CampaignRequest { from: self.members.own().id }));
        match tokio::time::timeout(ELECTION_TIMEOUT, call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(unreachable(status.message().to_owned())),
            Err(_elapsed) => Err(unreachable("it did not answer in time".to_owned())),
        }
    }
}
