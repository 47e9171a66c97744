//! The quorum guard, in place of pre-vote: who may stand for election, and when (docs/decisions/0001).
//!
//! ```text
//! every interval: ping all others ─┬─ no quorum answers, twice ──────────► may not, and takes no writes
//!                                  ├─ a quorum, and one of them leads ───► may not: what is slow is this member
//!                                  └─ a quorum, and nobody leads ────────► may; the one with the longest log at once,
//!                                                                          when the old leader's lease is over
//! ```
//!
//! So a member that comes back does not come with a term far ahead, a member whose own disk stalls does not unseat a
//! leader that is well, and a dead leader is replaced after its lease instead of after a lease and an election timeout.
//! A leader that answers pings but does not replicate any more is tolerated for a few leases only.
//!
//! Who the others are is what the log says, at every moment. The answers also tell every member about the others, for
//! `status`.

mod roster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use openraft::ServerState;
use prost::Message as _;
use ringfence_policy::command::Command;
use ringfence_proto::{
    access::{Access, Permit},
    follow::SharedHistory,
    link::method,
    v1,
    version::{self, NotUnderstood, Peers},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub use roster::Roster;

use super::{
    Raft,
    network::{Channels, Lane},
};
use crate::{config::MemberConfig, digests::Digests, freshness::Freshness};

/// Rounds without a quorum after which a member counts itself as cut off.
const TOLERATED_MISSES: u32 = 2;
/// Leases that a leader which answers pings, but sends nothing, keeps its place.
const PATIENCE_LEASES: u32 = 4;
/// How long after the lease an election begins: both followers' leases must be over.
const LEASE_MARGIN: Duration = Duration::from_millis(40);
/// How much later members with shorter logs, or higher ids, stand for election.
const STAGGER: Duration = Duration::from_millis(150);
/// Rounds while there is no leader are this far apart.
const URGENT_INTERVAL: Duration = Duration::from_millis(50);

/// What the guard works with.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between two rounds of pings.
    pub interval: Duration,
    /// How long followers grant a silent leader its place: `election_timeout_max_ms`.
    pub lease: Duration,
}

/// What this member knows about itself and the others.
pub struct Members {
    own: MemberConfig,
    /// Who founded the store; counts until the log says more.
    founders: Vec<MemberConfig>,
    raft: Raft,
    history: Arc<SharedHistory>,
    digests: Arc<Digests>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    /// Since when this member is known to lead.
    leads_since: Mutex<Option<Instant>>,
    quorum: watch::Sender<bool>,
    freshness: Arc<Freshness>,
}

#[derive(Debug, Clone)]
struct Heard {
    at: Instant,
    status: v1::MemberStatus,
    /// Whether it answered in the last round.
    answers: bool,
}

impl Members {
    /// This member among those that found the store; no quorum is known yet.
    #[must_use]
    pub fn new(
        own: MemberConfig,
        founders: Vec<MemberConfig>,
        raft: Raft,
        history: Arc<SharedHistory>,
        digests: Arc<Digests>,
        freshness: Arc<Freshness>,
    ) -> Self {
        // A member alone is its own quorum.
        let quorum = watch::Sender::new(founders.iter().all(|member| member.id == own.id));
        Self {
            own,
            founders,
            raft,
            history,
            digests,
            heard: Mutex::default(),
            leads_since: Mutex::default(),
            quorum,
            freshness,
        }
    }

    /// Whether a quorum answers, and a way to wait for a change.
    #[must_use]
    pub fn quorum(&self) -> watch::Receiver<bool> {
        self.quorum.subscribe()
    }

    /// This member.
    #[must_use]
    pub const fn own(&self) -> &MemberConfig {
        &self.own
    }

    /// The members as the log has them now.
    #[must_use]
    pub fn roster(&self) -> Roster {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Roster::new(metrics.membership_config.membership(), &self.founders)
    }

    /// The member with an id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<MemberConfig> {
        self.roster().members.remove(&id)
    }

    /// How long this member has led, at least.
    #[must_use]
    pub fn leads_for(&self) -> Duration {
        self.leads_since.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ids of the members that answer, this one included.
    #[must_use]
    pub fn answering(&self) -> BTreeSet<u64> {
        let heard = self.heard();
        let others = heard.iter().filter(|(_, heard)| heard.answers).map(|(id, _)| *id);
        others.chain([self.own.id]).collect()
    }

    /// "1 of 3 members answer, 2 are needed; silent: member 2 (west, 10.0.0.2:7400), …"
    #[must_use]
    pub fn describe_quorum(&self) -> String {
        self.roster().describe_quorum(&self.answering())
    }

    /// What this member answers to a ping.
    #[must_use]
    pub fn own_status(&self) -> v1::MemberStatus {
        let metrics = self.raft.metrics().borrow().clone();
        let state = match metrics.state {
            ServerState::Leader => "leader",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Learner | ServerState::Shutdown => "learner",
        };
        let (applied_index, state_digest) = self.digests.latest();
        v1::MemberStatus {
            id: self.own.id,
            address: self.own.address.clone(),
            cluster: self.own.cluster.to_string(),
            state: state.to_owned(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            applied_index,
            state_digest,
            revision: self.history.head().borrow().0,
        }
    }

    /// All members in the order of their ids; one that does not answer keeps what it said last and is `unreachable`.
    #[must_use]
    pub fn status(&self) -> Vec<v1::MemberStatus> {
        let roster = self.roster();
        let heard = self.heard();
        let status = |(id, member): (&u64, &MemberConfig)| {
            let known = heard.get(id);
            let mut status = if *id == self.own.id {
                self.own_status()
            } else {
                known.map(|heard| heard.status.clone()).unwrap_or_default()
            };
            (status.id, status.address) = (*id, member.address.clone());
            status.cluster = member.cluster.to_string();
            if *id != self.own.id && !known.is_some_and(|heard| heard.answers) {
                "unreachable".clone_into(&mut status.state);
            } else if !roster.is_voter(*id) {
                "learner".clone_into(&mut status.state);
            }
            status
        };
        roster.members.iter().map(status).collect()
    }

    /// Nothing enters the log that another member or a gateway cannot read; this one knows the command already.
    ///
    /// # Errors
    /// `NotUnderstood` by one of them.
    pub fn understand(&self, command: &Command, peers: &Peers) -> Result<(), NotUnderstood> {
        let needed = version::level_of(command);
        if needed <= version::FIRST_LEVEL {
            return Ok(());
        }
        let others: Vec<u64> = self.roster().members.keys().copied().filter(|id| *id != self.own.id).collect();
        peers.check(needed, others)
    }

    /// Pings until cancelled, and lets Raft stand for election or not.
    pub async fn guard(self: Arc<Self>, channels: Channels, times: Times, token: CancellationToken) {
        let (mut misses, mut round) = (0, Duration::ZERO);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(round) => {}
            }
            self.ping_all(&channels, times.interval).await;
            let has_quorum = self.roster().has_quorum(&self.answering());
            misses = if has_quorum { 0 } else { misses + 1 };
            if misses == 0 || misses >= TOLERATED_MISSES {
                self.note_quorum(has_quorum);
            }
            let is_urgent = has_quorum && self.let_stand(times).await;
            if !has_quorum {
                self.raft.runtime_config().elect(false);
            }
            round = if is_urgent { URGENT_INTERVAL.min(times.interval) } else { times.interval };
        }
    }

    fn note_quorum(&self, quorum: bool) {
        if self.quorum.send_replace(quorum) != quorum {
            if quorum {
                tracing::info!("a quorum of the store answers");
            } else {
                tracing::warn!("no quorum of the store: {}", self.describe_quorum());
            }
        }
    }

    /// Whether this member may stand for election, with a quorum in reach; begins one if it is its turn. True while
    /// there is no leader.
    async fn let_stand(&self, times: Times) -> bool {
        let (leads, known_leader) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.state == ServerState::Leader, metrics.current_leader.is_some())
        };
        {
            let mut since = self.leads_since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = if leads { since.or_else(|| Some(Instant::now())) } else { None };
        }
        let silent = self.freshness.since_leader();
        let has_leader = leads || self.heard().values().any(|heard| heard.answers && heard.status.state == "leader");
        let may = !leads && (!has_leader || silent > times.lease * PATIENCE_LEASES);
        self.raft.runtime_config().elect(may);
        let roster = self.roster();
        if may && known_leader && roster.is_voter(self.own.id) {
            let turn = times.lease + LEASE_MARGIN + STAGGER * self.rank(&roster);
            if silent >= turn
                && let Err(error) = self.raft.trigger().elect().await
            {
                tracing::warn!(%error, "cannot stand for election");
            }
        }
        !has_leader
    }

    /// How many voters that answer are better candidates: longer logs first, then lower ids.
    fn rank(&self, roster: &Roster) -> u32 {
        let own = self.raft.metrics().borrow().last_log_index.unwrap_or_default();
        let heard = self.heard();
        let is_better = |(id, heard): &(&u64, &Heard)| {
            let other = heard.status.last_log_index;
            heard.answers && roster.is_voter(**id) && (other > own || other == own && **id < self.own.id)
        };
        u32::try_from(heard.iter().filter(is_better).count()).unwrap_or(u32::MAX)
    }

    async fn ping_all(&self, channels: &Channels, timeout: Duration) {
        let others = self.roster().others(self.own.id);
        let mut pings = JoinSet::new();
        for (id, member) in &others {
            let (id, channels, address, from) = (*id, channels.clone(), member.address.clone(), self.own.id);
            pings.spawn(async move { (id, ping(&channels, &address, from, timeout).await) });
        }
        while let Some(answer) = pings.join_next().await {
            let Ok((id, answer)) = answer else { continue };
            let mut heard = self.heard();
            match answer {
                Some(status) => {
                    if let Err(error) = self.digests.compare(id, status.applied_index, status.state_digest) {
                        tracing::error!("{error}");
                    }
                    heard.insert(id, Heard { at: Instant::now(), status, answers: true });
                }
                // One lost ping does not make a member unreachable in the status.
                None => {
                    if let Some(known) = heard.get_mut(&id) {
                        known.answers = known.at.elapsed() < timeout * TOLERATED_MISSES;
                    }
                }
            }
        }
        self.heard().retain(|id, _| others.contains_key(id));
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a member who it is and where it stands.
pub async fn ping(channels: &Channels, address: &str, from: u64, timeout: Duration) -> Option<v1::MemberStatus> {
    ask(channels, address, from, timeout).await.ok()
}

/// As `ping`; says what a member that answers has against it.
///
/// # Errors
/// The member's reason; none if nobody answers.
pub async fn ask(
    channels: &Channels,
    address: &str,
    from: u64,
    timeout: Duration,
) -> Result<v1::MemberStatus, Option<String>> {
    let link = channels.link(Lane::Ping, address);
    let call = link.call(method::MEMBER_PING, v1::PingRequest { from }.encode_to_vec());
    let answer = tokio::time::timeout(timeout, call).await.map_err(|_elapsed| None)?;
    let is_reason = |status: Status| (status.code() == Code::FailedPrecondition).then(|| status.message().to_owned());
    v1::PingResponse::decode(answer.map_err(is_reason)?).map_err(|_| None)?.status.ok_or(None)
}

/// The other end of `ping`.
///
/// # Errors
/// `failed_precondition` for another process that says it is this member, `unavailable` where Raft has stopped: such a
/// member is no part of any quorum.
pub(super) fn answer_ping(members: &Members, raft: &Raft, permit: &Permit, payload: &[u8]) -> Result<Vec<u8>, Status> {
    let v1::PingRequest { from } =
        v1::PingRequest::decode(payload).map_err(|error| Status::invalid_argument(format!("PingRequest: {error}")))?;
    permit.check(&Access::RaftAs(from))?;
    if from == members.own().id {
        tracing::error!(id = from, "another process says that it is this member: two members have one id");
        let message = format!("member {from} is running here: every member has its own id");
        return Err(Status::failed_precondition(message));
    }
    if let Err(error) = &raft.metrics().borrow().running_state {
        return Err(Status::unavailable(format!("this member's Raft has stopped: {error}")));
    }
    Ok(v1::PingResponse { status: Some(members.own_status()) }.encode_to_vec())
}
