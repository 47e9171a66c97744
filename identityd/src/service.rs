//! The gRPC service `Mesh`: what gateways and the CLI ask of a store member.

mod admission;
mod execute;
mod limits;
mod list;
mod store;

pub use store::StoreService;

use std::{sync::Arc, time::Duration};

use ringfence_policy::command::Command;
use ringfence_proto::{
    access::{Access, Permit},
    deadline,
    follow::{self, FollowResponseStream, Interest, ListResponseStream, Position, SharedHistory},
    v1::{self, mesh_server},
    version::Peers,
};
use ringfence_runtime::metrics::Counted;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    freshness::Freshness,
    observe,
    raft::{applier::Applier, batch::Proposal, guard::Members, propose::Proposer, read::Reads},
    reports::{Reports, milliseconds},
};
pub(crate) use admission::{Admission, BOUNDS, OVERLOADED};

/// How long a follower waits for a member that is behind it to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks: the founding moves no revision.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);
/// Why a stream ends when the member does.
pub(crate) const STOPPING: &str = "this member is stopping";

/// Everything the service answers from.
#[derive(Clone)]
pub struct MeshService {
    pub(crate) proposer: Proposer,
    pub(crate) reads: Reads,
    pub(crate) history: Arc<SharedHistory>,
    pub(crate) members: Arc<Members>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) applier: Applier,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) admission: Arc<Admission>,
    /// Lists end when it is cancelled; followers do with the history.
    pub(crate) stopping: CancellationToken,
}

impl MeshService {
    /// Checks a command and puts it to the store.
    pub(crate) async fn carry_out(
        &self,
        permit: &Permit,
        message: v1::Command,
        deadline: Instant,
    ) -> Result<v1::Committed, Status> {
        let command = Command::try_from(message)?;
        Access::of_command(&command).iter().try_for_each(|access| permit.check(access))?;
        self.members
            .understand(&command, &self.peers)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        // A label set keeps its number, whoever asks and how often.
        let is_repeatable = matches!(command, Command::AllocateIdentity { .. });
        let proposal = check(command).await?;
        let place = self.admission.enter(&permit.caller().role, proposal.bytes());
        let _place = place.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        observe::proposal(self.execute_until(proposal, is_repeatable, deadline)).await
    }

    /// Answers `Follow`, whichever way it was asked.
    pub(crate) async fn follow_from(
        &self,
        permit: &Permit,
        request: v1::FollowRequest,
    ) -> Result<FollowResponseStream, Status> {
        let v1::FollowRequest { from_revision, follower, interests, store_id } = request;
        let interest = interests.map(Interest::try_from).transpose()?;
        // Nobody may: views are served by gateways.
        interest.iter().try_for_each(|interest| permit.check(&interest.access()))?;
        let from = Position::parse(&store_id, from_revision)
            .map_err(|error| Status::invalid_argument(format!("FollowRequest.store_id: {error}")))?;
        self.wait_for(from).await?;
        tracing::info!(follower, from = %from.revision, store = ?from.store, "serving a follower");
        let freshness = self.freshness.clone();
        let counted = Counted::new(observe::FOLLOWERS);
        let staleness = move || {
            // Lives as long as the stream.
            let _ = &counted;
            freshness.staleness()
        };
        Ok(follow::serve_position(self.history.clone(), from, None, Arc::new(staleness))?)
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
    async fn wait_for(&self, from: Position) -> Result<(), Status> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let mut head = self.history.head();
        loop {
            let own = self.history.position();
            if own.store.is_some() && !from.is_ahead_of(own) {
                return Ok(());
            }
            let moved = tokio::time::timeout(WAIT_INTERVAL, head.changed()).await;
            if Instant::now() >= deadline || matches!(moved, Ok(Err(_))) {
                let (at, from) = (own.revision, from.revision);
                let reason = match own.store {
                    Some(_) => format!("this member is at revision {at}, behind the follower's {from}: ask another"),
                    None => "this member does not know its store yet: it has not heard of a leader".to_owned(),
                };
                return Err(Status::unavailable(reason));
            }
        }
    }
}

/// Checks a command against the limits. Policies are parsed for it, which takes long for large ones: not on the thread that
/// all writes go through.
async fn check(command: Command) -> Result<Proposal, Status> {
    let checked = if matches!(command, Command::PutPolicies(_) | Command::PutObjects { .. }) {
        let checking = tokio::task::spawn_blocking(|| limits::check(command)).await;
        checking.map_err(|error| Status::internal(format!("checking the command: {error}")))?
    } else {
        limits::check(command)
    };
    checked.map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl mesh_server::Mesh for MeshService {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let permit = Permit::of(&request)?;
        self.follow_from(&permit, request.into_inner()).await.map(Response::new)
    }

    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        let deadline = Instant::from_std(deadline::of(request.metadata()));
        let permit = Permit::of(&request)?;
        self.carry_out(&permit, request.into_inner(), deadline).await.map(Response::new)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let deadline = Instant::from_std(deadline::of(request.metadata()));
        let stream = self.list_until(request.into_inner(), deadline).await?;
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
        let (permit, report) = (Permit::of(&request)?, request.into_inner());
        Access::of_report(&report).iter().try_for_each(|access| permit.check(access))?;
        self.history.read(|history| self.reports.take(history.mesh(), report));
        Ok(Response::new(v1::ReportResponse {}))
    }
}
