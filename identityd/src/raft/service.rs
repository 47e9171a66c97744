//! What other members ask of this one: over links what is asked often, and the gRPC service `Raft`.

use std::{sync::Arc, time::Duration};

use openraft::{
    EntryPayload, Snapshot,
    raft::{AppendEntriesRequest, VoteRequest},
};
use ringfence_proto::{
    access::{Access, Permit},
    link::{LinkError, method},
    v1::{self, raft_server},
};
use serde::de::DeserializeOwned;
use tokio::{sync::Mutex, time::Instant};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    Raft, SnapshotMeta, TypeConfig, Vote,
    batch::Proposal,
    durable::Durable,
    guard::{self, Members},
    propose::{HANDOVER_TIMEOUT, Proposer},
    read::{NotConfirmed, Reads},
};
use crate::{codec, freshness::Freshness};

/// The details of an error after which the commands are surely not in the log, and never will be.
const NOT_PROPOSED: &[u8] = b"not-proposed";
/// The answer must be on its way before the one who handed over gives up.
const HANDOVER_MARGIN: Duration = Duration::from_millis(500);

/// Serves Raft's messages and the guard's pings; clones share one.
#[derive(Clone)]
pub struct RaftService {
    raft: Raft,
    durable: Durable,
    freshness: Arc<Freshness>,
    members: Arc<Members>,
    proposer: Proposer,
    reads: Reads,
    /// Snapshots come in one at a time: they share a file.
    receiving: Arc<Mutex<()>>,
}

impl RaftService {
    /// For a running Raft.
    #[must_use]
    pub fn new(
        raft: Raft,
        durable: Durable,
        freshness: Arc<Freshness>,
        members: Arc<Members>,
        proposer: Proposer,
        reads: Reads,
    ) -> Self {
        Self { raft, durable, freshness, members, proposer, reads, receiving: Arc::default() }
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(self.members.own().id)
    }
}

/// Whether an error says that nothing was proposed: the leader said so, or was never reached.
#[must_use]
pub fn surely_not_proposed(status: &Status) -> bool {
    LinkError::is_not_reached(status) || status.details() == NOT_PROPOSED
}

fn not_proposed(reason: String) -> Status {
    Status::with_details(Code::Unavailable, reason, NOT_PROPOSED.into())
}

impl RaftService {
    /// Answers what comes over a link; `method` is one of those for members.
    ///
    /// # Errors
    /// `unimplemented` for a method that is not known; `permission_denied` for a call in another member's name.
    pub async fn answer(&self, permit: &Permit, method: u8, payload: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            method::APPEND => self.append(permit, payload).await,
            method::VOTE => {
                let rpc: VoteRequest<u64> = decode(payload)?;
                check_vote(permit, &rpc.vote)?;
                Ok(codec::encode(&self.raft.vote(rpc).await.map_err(stopped)?))
            }
            method::PROPOSE => self.propose(payload).await,
            method::READ_INDEX => Ok(codec::encode(&self.read_index().await)),
            method::MEMBER_PING => guard::answer_ping(&self.members, &self.raft, permit, payload),
            _ => Err(Status::unimplemented(format!("there is no method {method} on a link"))),
        }
    }

    async fn append(&self, permit: &Permit, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let (staleness, rpc): (Duration, AppendEntriesRequest<TypeConfig>) = decode(payload)?;
        check_vote(permit, &rpc.vote)?;
        for entry in &rpc.entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                // A command that this version does not know must not get as far as the log.
                batch
                    .check()
                    .map_err(|error| Status::failed_precondition(format!("entry {}: {error}", entry.log_id)))?;
            }
        }
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let answer = self.raft.append_entries(rpc).await.map_err(stopped)?;
        if answer.is_success() || answer.is_conflict() {
            self.freshness.heard_leader(staleness);
        }
        // The leader counts on what it is told here: it must be on the disk by then (`Log::may_go_on`).
        if let (true, Some(last)) = (answer.is_success(), last) {
            self.durable.wait_for(last).await;
        }
        Ok(codec::encode(&answer))
    }

    async fn propose(&self, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let deadline = Instant::now() + HANDOVER_TIMEOUT - HANDOVER_MARGIN;
        let proposal = Proposal::decode(payload)
            .map_err(|error| not_proposed(format!("the leader does not understand the commands: {error}")))?;
        if !self.leads() {
            return Err(not_proposed("this member is not the leader any more".to_owned()));
        }
        // A leader without a quorum would take commands into its log and could not say what becomes of them (S11).
        if !*self.members.quorum().borrow() {
            return Err(not_proposed(format!("no quorum of the store: {}", self.members.describe_quorum())));
        }
        Ok(codec::encode(&self.proposer.submit_handed_over(proposal, deadline).await))
    }

    async fn read_index(&self) -> Result<Option<u64>, NotConfirmed> {
        if !self.leads() {
            return Err(NotConfirmed::NoLeader);
        }
        self.reads.confirm(Instant::now() + HANDOVER_TIMEOUT).await?;
        Ok(self.raft.metrics().borrow().last_applied.map(|log_id| log_id.index))
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let permit = Permit::of(&request)?;
        let _alone = self
            .receiving
            .try_lock()
            .map_err(|_| Status::unavailable("another snapshot is being received by this member"))?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("the snapshot has no part"))?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&first.head)?;
        check_vote(&permit, &vote)?;
        let mut file = self.raft.begin_receiving_snapshot().await.map_err(stopped)?;
        let mut next = Some(first);
        while let Some(part) = next {
            file = blocking(move || file.append(&part.data).map(|()| file)).await?;
            next = parts.message().await?;
        }
        // Checked before Raft sees it: a snapshot that Raft cannot install stops the member.
        let file = blocking(move || file.check().map(|()| file)).await?;
        let answer = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await.map_err(stopped)?;
        Ok(Response::new(v1::RaftMessage { payload: codec::encode(&answer.vote) }))
    }

    async fn campaign(&self, request: Request<v1::CampaignRequest>) -> Result<Response<v1::CampaignResponse>, Status> {
        let (permit, from) = (Permit::of(&request)?, request.into_inner().from);
        permit.check(&Access::RaftAs(from))?;
        tracing::info!(from, "the leader hands leadership over to this member");
        self.raft.trigger().elect().await.map_err(stopped)?;
        Ok(Response::new(v1::CampaignResponse {}))
    }
}

/// Candidates and leaders speak in their own name, which is the one in their certificate.
fn check_vote(permit: &Permit, vote: &Vote) -> Result<(), Status> {
    vote.leader_id().voted_for().map_or(Ok(()), |id| permit.check(&Access::RaftAs(id)))
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    codec::decode(payload).map_err(|error| Status::invalid_argument(format!("a message between members: {error}")))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this member's Raft has stopped: {error}"))
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Status>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| Status::data_loss(error.to_string()))
}
