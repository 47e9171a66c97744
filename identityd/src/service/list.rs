//! Reads: linearizable through the leader, or stale from here with the staleness told.

use std::time::{Duration, Instant};

use openraft::error::{CheckIsLeaderError, ForwardToLeader, RaftError};
use ringfence_policy::record::Kind;
use ringfence_proto::{
    convert::InvalidMessage,
    follow::{self, ListResponseStream},
    v1,
};
use tonic::{Code, Status};

use super::{
    MeshService,
    leader::{self, Unavailable},
};

impl MeshService {
    /// Answers a list request; a linearizable one is tried until `deadline`. Reading twice harms nobody.
    pub(super) async fn list_until(
        &self,
        request: v1::ListRequest,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<ListResponseStream, Status> {
        let kind = Kind::try_from(request.kind())?;
        let consistency = v1::Consistency::try_from(request.consistency)
            .map_err(|_| InvalidMessage::Unknown { field: "ListRequest.consistency", number: request.consistency })?;
        if consistency == v1::Consistency::Stale {
            return Ok(self.list_here(kind, self.freshness.staleness()));
        }
        loop {
            let reason = match self.confirm_leadership(deadline).await {
                Ok(()) => return Ok(self.list_here(kind, Duration::ZERO)),
                Err(Confirm::Leader(_)) if forwarded => Unavailable::NotLeader,
                Err(Confirm::Leader(leader)) => match self.list_at(leader, request, deadline).await {
                    Ok(stream) => return Ok(stream),
                    Err(status) if matches!(status.code(), Code::InvalidArgument) => return Err(status),
                    Err(status) => self.unreachable(leader, &status.message()),
                },
                Err(Confirm::Nobody(reason)) => reason,
            };
            if forwarded || !leader::wait_a_moment(deadline).await {
                return Err(reason.into());
            }
        }
    }

    /// Returns once this member knows that it leads and has applied all that was committed before.
    async fn confirm_leadership(&self, deadline: Instant) -> Result<(), Confirm> {
        if !*self.members.quorum().borrow() {
            return Err(Confirm::Nobody(self.no_leader()));
        }
        match tokio::time::timeout_at(deadline.into(), self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(ForwardToLeader {
                leader_id, ..
            })))) => match leader_id.filter(|leader| *leader != self.members.own().id) {
                Some(leader) => Err(Confirm::Leader(leader)),
                None => Err(Confirm::Nobody(self.no_leader())),
            },
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(Confirm::Nobody(Unavailable::NoQuorum { members: self.members.describe_quorum() }))
            }
            Ok(Err(RaftError::Fatal(error))) => {
                Err(Confirm::Nobody(Unavailable::Stopped { reason: error.to_string() }))
            }
        }
    }

    async fn list_at(
        &self,
        leader: u64,
        request: v1::ListRequest,
        deadline: Instant,
    ) -> Result<ListResponseStream, Status> {
        let mut client = self.leader_client(leader)?;
        let call = client.list(leader::forward(request, deadline));
        let answer = tokio::time::timeout_at(deadline.into(), call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("it did not answer in time"))??;
        Ok(Box::pin(answer.into_inner()))
    }

    fn list_here(&self, kind: Kind, staleness: Duration) -> ListResponseStream {
        let (revision, records) = self.history.read(|history| {
            let mesh = history.mesh();
            let of_kind = mesh.records().iter().filter(|(key, _)| key.kind() == kind);
            (mesh.revision(), of_kind.map(|(_, versioned)| versioned.clone()).collect::<Vec<_>>())
        });
        follow::list(revision, staleness, records.into_iter())
    }
}

/// Who can answer a linearizable read, if not this member.
enum Confirm {
    Leader(u64),
    Nobody(Unavailable),
}
