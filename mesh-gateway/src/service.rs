//! The `Mesh` service for agents and operators.

use std::sync::Arc;

use ringfence_policy::{command::Command, name::Name, record::Kind};
use ringfence_proto::{
    access::{Access, Permit},
    convert::InvalidMessage,
    deadline,
    follow::{self, FollowResponseStream, Interest, ListResponseStream, Position, Staleness},
    v1::{self, mesh_server::Mesh},
};
use ringfence_runtime::metrics::Counted;
use tonic::{Request, Response, Status};

use crate::{
    cache::MeshCache,
    members::Members,
    observe::FOLLOWERS,
    reports::Reports,
    status::{Sources, status},
};

/// Answers from the cache what the cache can answer, and hands the rest to a member of the store.
#[derive(Debug, Clone)]
pub(crate) struct MeshService {
    pub(crate) cluster: Name,
    pub(crate) members: Arc<Members>,
    pub(crate) cache: Arc<MeshCache>,
    pub(crate) reports: Arc<Reports>,
}

impl MeshService {
    /// Before anything was heard an empty answer would be a lie: a follower must go elsewhere or wait.
    fn require_state(&self) -> Result<(), Status> {
        if self.cache.freshness().is_known() {
            return Ok(());
        }
        let members: Vec<&str> = self.members.all().iter().map(|member| member.address.as_str()).collect();
        let members = members.join(", ");
        Err(Status::unavailable(format!("gateway {} has not reached the store yet (members: {members})", self.cluster)))
    }

    fn stale_list(&self, kind: i32) -> Result<ListResponseStream, Status> {
        self.require_state()?;
        let unknown = |_| InvalidMessage::Unknown { field: "ListRequest.kind", number: kind };
        let kind = Kind::try_from(v1::Kind::try_from(kind).map_err(unknown)?)?;
        let (revision, records) = self.cache.history().read(|history| {
            let of_kind = history.mesh().records().iter().filter(|(key, _)| key.kind() == kind);
            (history.mesh().revision(), of_kind.map(|(_, record)| record.clone()).collect::<Vec<_>>())
        });
        Ok(follow::list(revision, self.cache.freshness().staleness(), records.into_iter()))
    }
}

#[tonic::async_trait]
impl Mesh for MeshService {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        self.require_state()?;
        let (peer, permit) = (request.remote_addr(), Permit::of(&request)?);
        let request = request.into_inner();
        let interest = request.interests.map(Interest::try_from).transpose()?;
        interest.iter().try_for_each(|interest| permit.check(&interest.access()))?;
        let view = interest.as_ref().map(|interest| interest.viewer.node.as_str());
        let from = Position::parse(&request.store_id, request.from_revision)
            .map_err(|error| Status::invalid_argument(format!("FollowRequest.store_id: {error}")))?;
        tracing::info!(follower = request.follower, view, ?peer, from = request.from_revision, "follower connected");
        let freshness = self.cache.freshness();
        let counted = Counted::new(FOLLOWERS);
        let staleness: Staleness = Arc::new(move || {
            // Lives as long as the stream.
            let _ = &counted;
            freshness.staleness()
        });
        let events = follow::serve_position(self.cache.history(), from, interest.clone(), staleness)?;
        Ok(follow::answer(events, interest.as_ref()))
    }

    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        let (permit, deadline) = (Permit::of(&request)?, deadline::of(request.metadata()));
        let message = request.into_inner();
        let command = Command::try_from(message.clone())?;
        Access::of_command(&command).iter().try_for_each(|access| permit.check(access))?;
        self.members.execute(&message, Some(&permit.caller().role), deadline).await.map(Response::new)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let deadline = deadline::of(request.metadata());
        let request = request.into_inner();
        match v1::Consistency::try_from(request.consistency) {
            Ok(v1::Consistency::Stale) => self.stale_list(request.kind).map(Response::new),
            Ok(v1::Consistency::Linearizable) => {
                let chunks = self.members.list(request, deadline).await?;
                Ok(Response::new(Box::pin(tokio_stream::iter(chunks.into_iter().map(Ok)))))
            }
            Err(error) => Err(Status::invalid_argument(format!("ListRequest.consistency: {error}"))),
        }
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let sources =
            Sources { cluster: &self.cluster, members: &self.members, cache: &self.cache, reports: &self.reports };
        Ok(Response::new(status(sources, deadline::of(request.metadata())).await))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let permit = Permit::of(&request)?;
        let request = request.into_inner();
        if request.gateway.is_some() {
            return Err(Status::invalid_argument(
                "gateway: a gateway reports to members of the store, not to a gateway",
            ));
        }
        let foreign = |node: &&v1::NodeStatus| node.cluster != self.cluster.as_str();
        if let Some(node) = request.nodes.iter().find(foreign) {
            let message = format!(
                "node {}/{} does not belong to this gateway's cluster {}",
                node.cluster, node.name, self.cluster
            );
            return Err(Status::invalid_argument(message));
        }
        for access in Access::of_report(&request) {
            permit.check(&access)?;
        }
        for node in request.nodes {
            self.reports.merge(node);
        }
        Ok(Response::new(v1::ReportResponse {}))
    }
}
