//! The gRPC service `Mesh`: what gateways and the CLI ask of a store member.

mod execute;
mod leader;
mod limits;
mod list;

use std::{sync::Arc, time::Duration};

use ringfence_policy::{command::Command, revision::Revision};
use ringfence_proto::{
    deadline,
    follow::{self, FollowResponseStream, ListResponseStream, SharedHistory},
    v1::{self, mesh_server},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    freshness::Freshness,
    raft::{Raft, applier::Applier, guard::Members, network::Channels},
    reports::{Reports, milliseconds},
};

/// Commands that one member has under way at once; more are refused.
const COMMANDS_UNDER_WAY: usize = 1024;
/// How long a follower waits for a member that is behind it to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Why a stream ends when the member does.
const STOPPING: &str = "this member is stopping";

/// Everything the service answers from.
#[derive(Clone)]
pub struct MeshService {
    pub(crate) raft: Raft,
    pub(crate) history: Arc<SharedHistory>,
    pub(crate) members: Arc<Members>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) channels: Channels,
    pub(crate) reports: Arc<Reports>,
    pub(crate) applier: Applier,
    pub(crate) under_way: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
}

impl MeshService {
    /// For a running Raft; streams end when `stopping` is cancelled.
    #[must_use]
    pub fn new(
        raft: Raft,
        history: Arc<SharedHistory>,
        members: Arc<Members>,
        freshness: Arc<Freshness>,
        channels: Channels,
        applier: Applier,
        stopping: CancellationToken,
    ) -> Self {
        let under_way = Arc::new(Semaphore::new(COMMANDS_UNDER_WAY));
        Self { raft, history, members, freshness, channels, reports: Arc::default(), applier, under_way, stopping }
    }

    /// What the state machine says of nodes beside their reports, and of the numbers.
    fn judged(&self, mut nodes: Vec<v1::NodeStatus>) -> (Vec<v1::NodeStatus>, Vec<v1::IdentityUsage>) {
        self.applier.read_book(|book| {
            for (key, lease) in book.ledger().leases().iter().filter(|(_, lease)| lease.gone) {
                let same = |node: &&mut v1::NodeStatus| node.cluster == key.0.as_str() && node.name == key.1.as_str();
                nodes.iter_mut().find(same).into_iter().for_each(|node| node.gone = lease.gone);
            }
            let usage = self.history.read(|history| book.usage(history.mesh()));
            (nodes, usage.into_iter().map(|(cluster, usage)| (cluster, usage).into()).collect())
        })
    }

    /// Revisions never go back for a follower: a member that has less than it waits, then sends it elsewhere.
    async fn wait_for(&self, from: Revision) -> Result<(), Status> {
        let mut head = self.history.head();
        let caught_up = tokio::time::timeout(CATCH_UP_TIMEOUT, head.wait_for(|head| *head >= from)).await;
        if matches!(caught_up, Ok(Ok(_))) {
            return Ok(());
        }
        let at = self.history.read(|history| history.mesh().revision());
        Err(Status::unavailable(format!("this member is at revision {at}, behind the follower's {from}: ask another")))
    }
}

#[tonic::async_trait]
impl mesh_server::Mesh for MeshService {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let v1::FollowRequest { from_revision, follower } = request.into_inner();
        let from = Revision(from_revision);
        self.wait_for(from).await?;
        tracing::info!(follower, %from, "serving a follower");
        let freshness = self.freshness.clone();
        let stream = follow::serve(self.history.clone(), from, Arc::new(move || freshness.staleness()));
        Ok(Response::new(follow::until(stream, self.stopping.clone().cancelled_owned(), STOPPING)))
    }

    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        let deadline = deadline::of(request.metadata());
        let forwarded = leader::is_forwarded(request.metadata());
        let command = Command::try_from(request.into_inner())?;
        limits::check(&command).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let _place = self.under_way.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!("{COMMANDS_UNDER_WAY} commands are under way at this member: try again"))
        })?;
        let committed = self.execute_until(command, deadline, forwarded).await?;
        Ok(Response::new(committed))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let deadline = deadline::of(request.metadata());
        let forwarded = leader::is_forwarded(request.metadata());
        let stream = self.list_until(request.into_inner(), deadline, forwarded).await?;
        Ok(Response::new(follow::until(stream, self.stopping.clone().cancelled_owned(), STOPPING)))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let own = self.members.own();
        let (revision, nodes) = self.history.read(|history| {
            let mesh = history.mesh();
            (mesh.revision(), self.reports.nodes(mesh))
        });
        let (nodes, identities) = self.judged(nodes);
        Ok(Response::new(v1::StatusResponse {
            responder: format!("member {} ({})", own.id, own.cluster),
            revision: revision.0,
            staleness_ms: milliseconds(self.freshness.staleness()),
            members: self.members.status(),
            gateways: self.reports.gateways(),
            nodes,
            identities,
        }))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        self.history.read(|history| self.reports.take(history.mesh(), request.into_inner()));
        Ok(Response::new(v1::ReportResponse {}))
    }
}
