//! The quorum guard, in place of pre-vote: a member that reaches no quorum does not stand for election, so that it does
//! not come back with a term far ahead and stop the others' writes (docs/decisions/0001).
//!
//! ```text
//! every interval: ping all others ─┬─ a quorum answers ─► may stand for election
//!                                  └─ two rounds without ─► may not, and takes no writes
//! ```
//!
//! The answers also tell every member about the others, for `status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use openraft::ServerState;
use ringfence_proto::{
    follow::SharedHistory,
    v1::{self, raft_client::RaftClient},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{
    Raft,
    network::{Channels, Lane},
};
use crate::{config::MemberConfig, digests::Digests};

/// Rounds without a quorum after which a member counts itself as cut off.
const TOLERATED_MISSES: u32 = 2;

/// What this member knows about itself and the others.
pub struct Members {
    own: MemberConfig,
    others: Vec<MemberConfig>,
    raft: Raft,
    history: Arc<SharedHistory>,
    digests: Arc<Digests>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    quorum: watch::Sender<bool>,
}

#[derive(Debug, Clone)]
struct Heard {
    at: Instant,
    status: v1::MemberStatus,
    /// Whether it answered in the last round.
    answers: bool,
}

impl Members {
    /// This member and the others; no quorum is known yet.
    #[must_use]
    pub fn new(
        own: MemberConfig,
        others: Vec<MemberConfig>,
        raft: Raft,
        history: Arc<SharedHistory>,
        digests: Arc<Digests>,
    ) -> Self {
        // A member alone is its own quorum.
        let quorum = watch::Sender::new(others.is_empty());
        Self { own, others, raft, history, digests, heard: Mutex::default(), quorum }
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

    /// The member with an id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&MemberConfig> {
        std::iter::once(&self.own).chain(&self.others).find(|member| member.id == id)
    }

    /// "1 of 3 members answer, 2 are needed; silent: member 2 (west, 10.0.0.2:7400), …"
    #[must_use]
    pub fn describe_quorum(&self) -> String {
        let heard = self.heard();
        let answers = |member: &&MemberConfig| heard.get(&member.id).is_some_and(|heard| heard.answers);
        let silent: Vec<_> = self.others.iter().filter(|member| !answers(member)).map(ToString::to_string).collect();
        let total = self.others.len() + 1;
        let answering = total - silent.len();
        let silent = if silent.is_empty() { "none".to_owned() } else { silent.join(", ") };
        format!("{answering} of {total} members answer, {} are needed; silent: {silent}", needed(total))
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
            revision: self.history.head().borrow().0,
            state_digest,
        }
    }

    /// All members in the order of their ids; one that does not answer keeps what it said last and is `unreachable`.
    #[must_use]
    pub fn status(&self) -> Vec<v1::MemberStatus> {
        let heard = self.heard();
        let mut all = vec![self.own_status()];
        for member in &self.others {
            let known = heard.get(&member.id);
            let mut status = known.map(|heard| heard.status.clone()).unwrap_or_default();
            (status.id, status.address) = (member.id, member.address.clone());
            status.cluster = member.cluster.to_string();
            if !known.is_some_and(|heard| heard.answers) {
                "unreachable".clone_into(&mut status.state);
            }
            all.push(status);
        }
        all.sort_by_key(|status| status.id);
        all
    }

    /// Pings until cancelled, and lets Raft stand for election or not.
    pub async fn guard(self: Arc<Self>, channels: Channels, interval: Duration, token: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut misses = 0;
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let answering = self.ping_all(&channels, interval).await + 1;
            misses = if answering >= needed(self.others.len() + 1) { 0 } else { misses + 1 };
            let quorum = match misses {
                0 => true,
                misses if misses >= TOLERATED_MISSES => false,
                _ => continue,
            };
            self.raft.runtime_config().elect(quorum);
            if self.quorum.send_replace(quorum) != quorum {
                if quorum {
                    tracing::info!("a quorum of the store answers");
                } else {
                    tracing::warn!("no quorum of the store: {}", self.describe_quorum());
                }
            }
        }
    }

    async fn ping_all(&self, channels: &Channels, timeout: Duration) -> usize {
        let mut pings = JoinSet::new();
        for member in &self.others {
            let (id, channels, address, from) = (member.id, channels.clone(), member.address.clone(), self.own.id);
            pings.spawn(async move { (id, ping(&channels, &address, from, timeout).await) });
        }
        let mut count = 0;
        while let Some(answer) = pings.join_next().await {
            let Ok((id, answer)) = answer else { continue };
            let mut heard = self.heard();
            match answer {
                Some(status) => {
                    if let Err(error) = self.digests.compare(id, status.applied_index, status.state_digest) {
                        tracing::error!("{error}");
                    }
                    heard.insert(id, Heard { at: Instant::now(), status, answers: true });
                    count += 1;
                }
                // One lost ping does not make a member unreachable in the status.
                None => {
                    if let Some(known) = heard.get_mut(&id) {
                        known.answers = known.at.elapsed() < timeout * (TOLERATED_MISSES + 1);
                    }
                }
            }
        }
        count
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn needed(members: usize) -> usize {
    members / 2 + 1
}

async fn ping(channels: &Channels, address: &str, from: u64, timeout: Duration) -> Option<v1::MemberStatus> {
    let mut client = RaftClient::new(channels.get(Lane::Call, address).ok()?);
    let call = client.ping(Request::new(v1::PingRequest { from }));
    tokio::time::timeout(timeout, call).await.ok()?.ok()?.into_inner().status
}
