//! Changing who is a member, one step at a time, on the leader.
//!
//! ```text
//! add ─► learner (gets the log, does not vote) ─ promote, once it has caught up ─► voter ─ remove ─► gone
//! ```
//!
//! Every change is checked against what the member itself says before anything enters the log: an address that was
//! mistyped, or a process of another store, must not become a member that a quorum then waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, ServerState,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use ringfence_policy::name::Name;
use tokio::task::JoinSet;

use super::{
    MemberNode,
    guard::{self, Roster},
    transfer::Transfer,
};

/// A learner that is at most this many entries behind may vote.
const MAX_LAG_ENTRIES: u64 = 100;
/// How long a member that is to be added may take to say who it is.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a quorum may take to confirm a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(8);

/// Why the members stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipRefused {
    /// This member does not lead.
    #[error("this member does not lead")]
    NotLeader,
    /// Nobody answers there.
    #[error(
        "no member answers at {address}: start identityd there first, with 'join: true' and certificates of this mesh, and \
         give the address under which the other members reach it"
    )]
    Silent {
        /// Where.
        address: String,
    },
    /// It says that it cannot be one: it is of another store, or has the asker's id.
    #[error(
        "the member at {address} refuses: {reason}. A new member begins with an id and an empty data_dir of its own"
    )]
    Stranger {
        /// Where.
        address: String,
        /// What it says.
        reason: String,
    },
    /// It has a log already.
    #[error(
        "member {id} at {address} has a log of its own with {entries} entries: a new member begins with an empty data_dir"
    )]
    NotEmpty {
        /// Who answers.
        id: u64,
        /// Where.
        address: String,
        /// The length of its log.
        entries: u64,
    },
    /// The id is taken.
    #[error("member {id} is a member already, at {address}: every member has an id of its own, for ever")]
    AlreadyMember {
        /// The id.
        id: u64,
        /// Where the store has it.
        address: String,
    },
    /// What the member says makes no sense.
    #[error("member {id} at {address} says that it sits in cluster {cluster:?}, which is no name")]
    Cluster {
        /// Who answers.
        id: u64,
        /// Where.
        address: String,
        /// What it says.
        cluster: String,
    },
    /// No such member.
    #[error("there is no member {id}: the members are {members}")]
    Unknown {
        /// Who was named.
        id: u64,
        /// Who is there.
        members: String,
    },
    /// It votes already.
    #[error("member {id} votes already")]
    AlreadyVoter {
        /// Who.
        id: u64,
    },
    /// It lags.
    #[error(
        "member {id} has entry {has} of {last}: wait until it is at most {MAX_LAG_ENTRIES} behind, or writes would wait for it"
    )]
    Lags {
        /// Who.
        id: u64,
        /// Its last entry.
        has: u64,
        /// The leader's.
        last: u64,
    },
    /// Nobody would be left.
    #[error(
        "member {id} is the last voter: a store without voters has no data any more; add and promote another one first"
    )]
    LastVoter {
        /// Who.
        id: u64,
    },
    /// It leads.
    #[error("member {id} leads: hand leadership over first ('ringfence store member move-leader')")]
    Leads {
        /// Who.
        id: u64,
    },
    /// Too few of those that stay answer.
    #[error("without member {id} there would be no quorum: {quorum}")]
    NoQuorumLeft {
        /// Who was to go.
        id: u64,
        /// What would be left.
        quorum: String,
    },
    /// One change at a time.
    #[error("another change of the members is under way: try again in a moment")]
    InProgress,
    /// Raft refuses, or has lost its quorum.
    #[error("the change was not confirmed: {reason}")]
    Raft {
        /// Why.
        reason: String,
    },
}

impl Transfer {
    /// Adds the member that runs at an address as a learner. Returns its id.
    ///
    /// # Errors
    /// `MembershipRefused`.
    pub async fn add(&self, address: &str) -> Result<u64, MembershipRefused> {
        self.must_lead()?;
        let address = address.to_owned();
        let asked = guard::ask(&self.channels, &address, self.members.own().id, PING_TIMEOUT).await;
        let status = match asked {
            Ok(status) => status,
            Err(Some(reason)) => return Err(MembershipRefused::Stranger { address, reason }),
            Err(None) => return Err(MembershipRefused::Silent { address }),
        };
        let id = status.id;
        if let Some(member) = self.members.get(id) {
            return Err(MembershipRefused::AlreadyMember { id, address: member.address });
        }
        if status.last_log_index > 0 || status.term > 0 {
            return Err(MembershipRefused::NotEmpty { id, address, entries: status.last_log_index });
        }
        let Ok(cluster) = Name::new(status.cluster.clone()) else {
            return Err(MembershipRefused::Cluster { id, address, cluster: status.cluster });
        };
        let node = MemberNode { address, cluster: Some(cluster) };
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)]))).await?;
        Ok(id)
    }

    /// Lets a learner vote.
    ///
    /// # Errors
    /// `MembershipRefused`.
    pub async fn promote(&self, id: u64) -> Result<(), MembershipRefused> {
        self.must_lead()?;
        self.must_know(id)?;
        if self.members.roster().is_voter(id) {
            return Err(MembershipRefused::AlreadyVoter { id });
        }
        let last = self.raft.metrics().borrow().last_log_index.unwrap_or_default();
        let has = self.matched(id);
        if has + MAX_LAG_ENTRIES < last {
            return Err(MembershipRefused::Lags { id, has, last });
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a member, voter or learner.
    ///
    /// # Errors
    /// `MembershipRefused`.
    pub async fn remove(&self, id: u64) -> Result<(), MembershipRefused> {
        self.must_lead()?;
        self.must_know(id)?;
        let mut roster = self.members.roster();
        if !roster.is_voter(id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await;
        }
        if roster.voters().len() == 1 {
            return Err(MembershipRefused::LastVoter { id });
        }
        if id == self.members.own().id {
            return Err(MembershipRefused::Leads { id });
        }
        roster.remove(id);
        let answering = self.answering_now(&roster).await;
        if !roster.has_quorum(&answering) {
            return Err(MembershipRefused::NoQuorumLeft { id, quorum: roster.describe_quorum(&answering) });
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
    }

    /// Who answers at this moment: what the guard knows may be a few rounds old, and a change that cannot be confirmed
    /// cannot be taken back.
    async fn answering_now(&self, roster: &Roster) -> BTreeSet<u64> {
        let own = self.members.own().id;
        let mut pings = JoinSet::new();
        for (id, member) in roster.others(own) {
            let channels = self.channels.clone();
            let ping = async move { guard::ping(&channels, &member.address, own, PING_TIMEOUT).await.map(|_| id) };
            pings.spawn(ping);
        }
        pings.join_all().await.into_iter().flatten().chain([own]).collect()
    }

    fn must_lead(&self) -> Result<(), MembershipRefused> {
        let leads = self.raft.metrics().borrow().state == ServerState::Leader;
        if leads { Ok(()) } else { Err(MembershipRefused::NotLeader) }
    }

    fn must_know(&self, id: u64) -> Result<(), MembershipRefused> {
        let members = self.members.roster().members;
        if members.contains_key(&id) {
            return Ok(());
        }
        let members = members.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
        Err(MembershipRefused::Unknown { id, members })
    }

    /// Through joint consensus where voters change.
    async fn change(&self, change: ChangeMembers<u64, MemberNode>) -> Result<(), MembershipRefused> {
        // The change goes on if this caller does not wait for it any longer.
        let raft = self.raft.clone();
        let changing = tokio::spawn(async move { raft.change_membership(change, false).await });
        let Ok(changed) = tokio::time::timeout(CHANGE_TIMEOUT, changing).await else {
            let quorum = self.members.describe_quorum();
            let reason = format!("no quorum confirmed it in time, it may still be carried out: {quorum}");
            return Err(MembershipRefused::Raft { reason });
        };
        let changed = changed.map_err(|error| MembershipRefused::Raft { reason: error.to_string() })?;
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(MembershipRefused::NotLeader),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)))) => {
                Err(MembershipRefused::InProgress)
            }
            Err(error) => Err(MembershipRefused::Raft { reason: error.to_string() }),
        }
    }
}
