//! The gRPC service `Store`: members and leadership, done by the leader.

use std::{future::Future, time::Duration};

use ringfence_proto::v1::{self, store_client::StoreClient, store_server};
use tonic::{Code, Request, Response, Status, metadata::MetadataValue, transport::Channel};

use crate::raft::{
    membership::MembershipRefused,
    transfer::{Transfer, TransferFailed},
};

/// Marks a call that another member handed over: it is answered here or not at all.
const FORWARDED: &str = "ringfence-forwarded";
/// Two entries and a wait for a lease; a caller's own time may be shorter.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Serves `Store` on a member.
pub struct StoreService {
    transfer: Transfer,
}

impl StoreService {
    /// For a running member.
    #[must_use]
    pub const fn new(transfer: Transfer) -> Self {
        Self { transfer }
    }

    /// Hands a call to the leader, unless that is this member.
    async fn at_leader<M, F>(
        &self,
        request: Request<M>,
        call: impl FnOnce(StoreClient<Channel>, Request<M>) -> F,
    ) -> Result<Result<Response<v1::MembersResponse>, M>, Status>
    where
        F: Future<Output = Result<Response<v1::MembersResponse>, Status>>,
    {
        let members = &self.transfer.members;
        if !*members.quorum().borrow() {
            return Err(Status::unavailable(format!("no quorum of the store: {}", members.describe_quorum())));
        }
        let leader = self.transfer.raft.metrics().borrow().current_leader;
        let leader = leader.ok_or_else(|| Status::unavailable("the store has no leader at the moment"))?;
        if leader == members.own().id {
            return Ok(Err(request.into_inner()));
        }
        if request.metadata().contains_key(FORWARDED) {
            return Err(Status::unavailable("this member is not the leader any more: try again"));
        }
        let member =
            members.get(leader).ok_or_else(|| Status::unavailable("the leader's address is not known here"))?;
        let channel = self.transfer.channels.get(&member.address);
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut forwarded = Request::new(request.into_inner());
        forwarded.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        forwarded.set_timeout(TIMEOUT);
        let answer = tokio::time::timeout(TIMEOUT, call(StoreClient::new(channel), forwarded)).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded(format!("{member}, the leader, did not answer")))?;
        // Only what the leader says, without what its connection adds.
        Ok(Ok(answer.map_err(|status| Status::new(status.code(), status.message()))?))
    }

    fn members(&self, id: u64) -> Response<v1::MembersResponse> {
        Response::new(v1::MembersResponse { id, members: self.transfer.members.status() })
    }
}

#[tonic::async_trait]
impl store_server::Store for StoreService {
    async fn members(&self, _: Request<v1::MembersRequest>) -> Result<Response<v1::MembersResponse>, Status> {
        let leader = self.transfer.raft.metrics().borrow().current_leader;
        Ok(Self::members(self, leader.unwrap_or_default()))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        match self.at_leader(request, |mut leader, request| async move { leader.add_member(request).await }).await? {
            Ok(response) => Ok(response),
            Err(v1::AddMemberRequest { address }) => {
                Ok(Self::members(self, self.transfer.add(&address).await.map_err(refused)?))
            }
        }
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        match self.at_leader(request, |mut leader, request| async move { leader.promote_member(request).await }).await?
        {
            Ok(response) => Ok(response),
            Err(v1::PromoteMemberRequest { id }) => {
                self.transfer.promote(id).await.map_err(refused)?;
                Ok(Self::members(self, id))
            }
        }
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        match self.at_leader(request, |mut leader, request| async move { leader.remove_member(request).await }).await? {
            Ok(response) => Ok(response),
            Err(v1::RemoveMemberRequest { id }) => {
                self.transfer.remove(id).await.map_err(refused)?;
                Ok(Self::members(self, id))
            }
        }
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        match self.at_leader(request, |mut leader, request| async move { leader.move_leader(request).await }).await? {
            Ok(response) => Ok(response),
            Err(v1::MoveLeaderRequest { id }) => {
                let leader =
                    self.transfer.to((id != 0).then_some(id)).await.map_err(|error| not_transferred(&error))?;
                Ok(Self::members(self, leader))
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: MembershipRefused) -> Status {
    let code = match &error {
        MembershipRefused::NotLeader | MembershipRefused::InProgress | MembershipRefused::Raft { .. } => {
            Code::Unavailable
        }
        MembershipRefused::AlreadyMember { .. } => Code::AlreadyExists,
        MembershipRefused::Unknown { .. } => Code::NotFound,
        MembershipRefused::Silent { .. }
        | MembershipRefused::Stranger { .. }
        | MembershipRefused::Cluster { .. }
        | MembershipRefused::NotEmpty { .. }
        | MembershipRefused::AlreadyVoter { .. }
        | MembershipRefused::Lags { .. }
        | MembershipRefused::LastVoter { .. }
        | MembershipRefused::Leads { .. }
        | MembershipRefused::NoQuorumLeft { .. } => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

fn not_transferred(error: &TransferFailed) -> Status {
    let code = match error {
        TransferFailed::NotAVoter { .. } => Code::NotFound,
        TransferFailed::Nobody | TransferFailed::Behind { .. } => Code::FailedPrecondition,
        TransferFailed::NotLeader | TransferFailed::Unreachable { .. } | TransferFailed::NotElected { .. } => {
            Code::Unavailable
        }
    };
    Status::new(code, error.to_string())
}
