//! The gRPC service `Raft`: what other members ask of this one.

use std::{sync::Arc, time::Duration};

use openraft::{
    EntryPayload, Snapshot,
    raft::{AppendEntriesRequest, VoteRequest},
};
use ringfence_policy::command::Command;
use ringfence_proto::v1::{self, raft_server};
use serde::de::DeserializeOwned;
use tokio::{sync::Mutex, time::Instant};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{
    Raft, SnapshotMeta, TypeConfig, Vote,
    guard::Members,
    propose::{HANDOVER_TIMEOUT, Proposer},
    read::{NotConfirmed, Reads},
};
use crate::{codec, freshness::Freshness};

/// Marks an error after which the commands are surely not in the log, and never will be.
const NOT_PROPOSED: &str = "ringfence-not-proposed";
/// The answer must be on its way before the one who handed over gives up.
const HANDOVER_MARGIN: Duration = Duration::from_millis(500);

/// Serves Raft's messages and the guard's pings.
pub struct RaftService {
    raft: Raft,
    freshness: Arc<Freshness>,
    members: Arc<Members>,
    proposer: Proposer,
    reads: Reads,
    /// Snapshots come in one at a time: they share a file.
    receiving: Mutex<()>,
}

impl RaftService {
    /// For a running Raft.
    #[must_use]
    pub fn new(
        raft: Raft,
        freshness: Arc<Freshness>,
        members: Arc<Members>,
        proposer: Proposer,
        reads: Reads,
    ) -> Self {
        Self { raft, freshness, members, proposer, reads, receiving: Mutex::new(()) }
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(self.members.own().id)
    }
}

/// Whether an error says that nothing was proposed: the leader said so, or was never reached.
#[must_use]
pub fn surely_not_proposed(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    status.metadata().contains_key(NOT_PROPOSED)
}

fn not_proposed(reason: String) -> Status {
    let mut status = Status::unavailable(reason);
    status.metadata_mut().insert(NOT_PROPOSED, MetadataValue::from_static("1"));
    status
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append_entries(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let (staleness, rpc): (Duration, AppendEntriesRequest<TypeConfig>) = decode(&request.into_inner().payload)?;
        for entry in &rpc.entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                // A command that this version does not know must not get as far as the log.
                batch.check().map_err(|error| Status::failed_precondition(format!("entry {}: {error}", entry.log_id)))?;
            }
        }
        let answer = self.raft.append_entries(rpc).await.map_err(stopped)?;
        if answer.is_success() || answer.is_conflict() {
            self.freshness.heard_leader(staleness);
        }
        Ok(Response::new(v1::RaftMessage { payload: codec::encode(&answer) }))
    }

    async fn vote(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let rpc: VoteRequest<u64> = decode(&request.into_inner().payload)?;
        let answer = self.raft.vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(v1::RaftMessage { payload: codec::encode(&answer) }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let _alone = self
            .receiving
            .try_lock()
            .map_err(|_| Status::unavailable("another snapshot is being received by this member"))?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or_else(|| Status::invalid_argument("the snapshot has no part"))?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&first.head)?;
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

    async fn propose(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let deadline = Instant::now() + HANDOVER_TIMEOUT - HANDOVER_MARGIN;
        let payload = request.into_inner().payload;
        let commands: Vec<Command> = codec::decode(&payload)
            .map_err(|error| not_proposed(format!("the leader does not understand the commands: {error}")))?;
        if !self.leads() {
            return Err(not_proposed("this member is not the leader any more".to_owned()));
        }
        // A leader without a quorum would take commands into its log and could not say what becomes of them (S11).
        if !*self.members.quorum().borrow() {
            return Err(not_proposed(format!("no quorum of the store: {}", self.members.describe_quorum())));
        }
        let proposed = self.proposer.submit_handed_over(commands, payload.len(), deadline).await;
        Ok(Response::new(v1::RaftMessage { payload: codec::encode(&proposed) }))
    }

    async fn read_index(&self, _: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let confirmed = if self.leads() {
            self.reads.confirm(Instant::now() + HANDOVER_TIMEOUT).await
        } else {
            Err(NotConfirmed::NoLeader)
        };
        let index = confirmed.map(|()| self.raft.metrics().borrow().last_applied.map(|log_id| log_id.index));
        Ok(Response::new(v1::RaftMessage { payload: codec::encode(&index) }))
    }

    async fn campaign(&self, request: Request<v1::CampaignRequest>) -> Result<Response<v1::CampaignResponse>, Status> {
        tracing::info!(from = request.into_inner().from, "the leader hands leadership over to this member");
        self.raft.trigger().elect().await.map_err(stopped)?;
        Ok(Response::new(v1::CampaignResponse {}))
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let v1::PingRequest { from } = request.into_inner();
        if from == self.members.own().id {
            tracing::error!(id = from, "another process says that it is this member: two members have one id");
            return Err(Status::failed_precondition(format!(
                "member {from} is running here: every member has its own id"
            )));
        }
        // A member whose Raft has stopped is no part of any quorum.
        if let Err(error) = &self.raft.metrics().borrow().running_state {
            return Err(stopped(error));
        }
        Ok(Response::new(v1::PingResponse { status: Some(self.members.own_status()) }))
    }
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    codec::decode(payload).map_err(|error| Status::invalid_argument(format!("RaftMessage.payload: {error}")))
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
