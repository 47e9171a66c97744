//! The local API on the Unix socket.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use ringfence_datapath::{PacketKind, ProbePacket};
use ringfence_policy::{compat::Compat, flow::protocol, name::Name, world::Settings};
use ringfence_proto::v1::{self, agent_server::Agent};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    config::EnforcementMode,
    declared::DeclaredEndpoint,
    feed::Feed,
    figures::Figures,
    local::{ChangeError, LocalEndpoints},
    maps,
    monitor::{self, Filter, Watch, Watchers, Words},
    owner::Stopped,
    people::People,
    realise::JudgeError,
    registry::DeclareError,
    status::{NodeSources, endpoint_statuses, node_status, verification},
};

/// The first of the source ports that probes take turns with where none is asked for: the range that systems take
/// for outgoing connections (RFC 6335 §6).
const FIRST_EPHEMERAL_PORT: u16 = 49152;

/// Answers what is asked on the socket.
pub(crate) struct AgentService {
    pub(crate) endpoints: Arc<LocalEndpoints>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) unregistered: watch::Receiver<Vec<String>>,
    pub(crate) probes: AtomicU16,
    pub(crate) people: Arc<People>,
    pub(crate) modes: NodeModes,
    pub(crate) watchers: Watchers,
    pub(crate) readings: Watchers,
}

/// How the node was told to enforce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeModes {
    pub(crate) enforcement: EnforcementMode,
    pub(crate) audit: bool,
    /// 0 for never.
    pub(crate) verify_interval_ms: u64,
}

impl AgentService {
    fn node_status(&self) -> v1::NodeStatus {
        node_status(&NodeSources {
            cluster: &self.endpoints.cluster,
            node: &self.endpoints.node,
            datapath: &self.endpoints.datapath,
            registry: &self.endpoints.registry,
            unregistered: &self.unregistered,
        })
    }

    /// What numbers mean; looked up where it may take a while.
    async fn words(&self) -> Result<Words, Status> {
        let (people, feed) = (Arc::clone(&self.people), Arc::clone(&self.feed));
        let registry = Arc::clone(&self.endpoints.registry);
        let settings = Settings {
            enforcement: self.modes.enforcement.into(),
            ..Settings::new(self.endpoints.cluster.clone(), Compat::default())
        };
        let words = tokio::task::spawn_blocking(move || Words::new(people, feed, registry, settings));
        words.await.map_err(|error| Status::internal(error.to_string()))
    }

    fn packet(&self, request: &v1::ProbeRequest) -> Result<ProbePacket, Status> {
        let protocol = u8::try_from(request.protocol).map_err(|_| {
            Status::invalid_argument(format!("protocol: {} is not an IP protocol number", request.protocol))
        })?;
        let source_port = match port("source_port", request.source_port)? {
            // Another port each time: a probe asks about a new connection, not about the last one.
            0 => FIRST_EPHEMERAL_PORT | (self.probes.fetch_add(1, Ordering::Relaxed) & !FIRST_EPHEMERAL_PORT),
            port => port,
        };
        Ok(ProbePacket {
            source: address("source", &request.source)?,
            destination: address("destination", &request.destination)?,
            protocol,
            source_port,
            destination_port: port("destination_port", request.destination_port)?,
            kind: if protocol == protocol::TCP { PacketKind::Open } else { PacketKind::Data },
            judged: false,
        })
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn status(&self, _request: Request<v1::AgentStatusRequest>) -> Result<Response<v1::AgentStatus>, Status> {
        let counted = self.endpoints.datapath.counters().await.map_err(stopped)?;
        let (packets, tallies) = counted.map_err(|error| Status::internal(error.to_string()))?;
        let Figures { verification: read_back, .. } = self.endpoints.datapath.figures().borrow().clone();
        let staleness = self.feed.freshness().staleness();
        let followed = self.feed.followed();
        Ok(Response::new(v1::AgentStatus {
            node: Some(self.node_status()),
            followed_revision: followed.mesh.revision().0,
            records: followed.mesh.records().len() as u64,
            scope: if followed.complete { followed.scope.name().to_owned() } else { String::new() },
            gateway: self.feed.gateway(),
            staleness_ms: u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX),
            datapath_features: self.endpoints.datapath.features().to_owned(),
            packets: packets.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            tallies: tallies.iter().map(|(tally, count)| (tally.name().to_owned(), count)).collect(),
            verification: Some(verification(&read_back, self.modes.verify_interval_ms)),
            policy_enforcement: self.modes.enforcement.name().to_owned(),
            policy_audit_mode: self.modes.audit,
        }))
    }

    type MonitorStream = ReceiverStream<Result<v1::MonitorResponse, Status>>;

    async fn monitor(&self, request: Request<v1::MonitorRequest>) -> Result<Response<Self::MonitorStream>, Status> {
        let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{} watchers at a time are enough: end one of them", monitor::WATCHERS))
        })?;
        let words = self.words().await?;
        let filter = Filter::new(&request.into_inner(), &words).map_err(invalid)?;
        let datapath = &self.endpoints.datapath;
        let started = v1::MonitorStarted {
            cluster: self.endpoints.cluster.to_string(),
            node: self.endpoints.node.to_string(),
            revision: datapath.realised().borrow().revision.0,
            datapath: datapath.kind().to_owned(),
        };
        let (answers, receiver) = mpsc::channel(monitor::QUEUE);
        let subscription = datapath.events().subscribe();
        tokio::spawn(Watch { subscription, filter, words, started, place }.run(answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ReadMapsStream = ReceiverStream<Result<v1::ReadMapsResponse, Status>>;

    async fn read_maps(&self, request: Request<v1::ReadMapsRequest>) -> Result<Response<Self::ReadMapsStream>, Status> {
        let place = Arc::clone(&self.readings).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{} readings of the maps at a time are enough", maps::READINGS))
        })?;
        let mut words = self.words().await?;
        let question = maps::Question::new(&request.into_inner(), &words).map_err(invalid)?;
        let reader = self.endpoints.datapath.reader().await.map_err(stopped)?;
        let reader = reader.map_err(|error| Status::internal(error.to_string()))?;
        let (answers, receiver) = mpsc::channel(maps::QUEUE);
        tokio::task::spawn_blocking(move || {
            question.answer(&*reader, &mut words, answers);
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn set_endpoint_audit(
        &self,
        request: Request<v1::SetEndpointAuditRequest>,
    ) -> Result<Response<v1::SetEndpointAuditResponse>, Status> {
        let v1::SetEndpointAuditRequest { name, audit } = request.into_inner();
        let name = Name::new(name).map_err(|invalid| Status::invalid_argument(format!("name: {invalid}")))?;
        self.endpoints.registry.set_audit(&name, audit).map_err(|error| match &error {
            DeclareError::Unknown { .. } => Status::not_found(error.to_string()),
            _ => Status::internal(error.to_string()),
        })?;
        tracing::info!(endpoint = %name, audit, "policy audit mode of an endpoint");
        self.endpoints.datapath.realise().await.map_err(stopped)?;
        // Everything before it in the owner's queue is done when this is answered.
        self.endpoints.datapath.attached().await.map_err(stopped)?;
        Ok(Response::new(v1::SetEndpointAuditResponse {}))
    }

    async fn put_endpoint(&self, request: Request<v1::LocalEndpoint>) -> Result<Response<v1::Committed>, Status> {
        let declared = DeclaredEndpoint::try_from(request.into_inner())
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let endpoints = Arc::clone(&self.endpoints);
        finish(async move { endpoints.put(declared).await }).await
    }

    async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteLocalEndpoint>,
    ) -> Result<Response<v1::Committed>, Status> {
        let name = Name::new(request.into_inner().name)
            .map_err(|invalid| Status::invalid_argument(format!("name: {invalid}")))?;
        let endpoints = Arc::clone(&self.endpoints);
        finish(async move { endpoints.delete(&name).await }).await
    }

    async fn list_endpoints(
        &self,
        _request: Request<v1::ListLocalEndpointsRequest>,
    ) -> Result<Response<v1::ListLocalEndpointsResponse>, Status> {
        let datapath = &self.endpoints.datapath;
        let attached = datapath.attached().await.map_err(stopped)?;
        let realised = datapath.realised().borrow().clone();
        let endpoints = endpoint_statuses(&self.endpoints.registry, &attached, &realised);
        Ok(Response::new(v1::ListLocalEndpointsResponse { endpoints }))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeResponse>, Status> {
        let packet = self.packet(&request.into_inner())?;
        let judged = self.endpoints.datapath.judge(packet, self.endpoints.addresses()).await.map_err(stopped)?;
        let judged = judged.map_err(|error| match &error {
            JudgeError::NotHere { .. } => Status::not_found(error.to_string()),
            JudgeError::Probe(_) => Status::invalid_argument(error.to_string()),
        })?;
        Ok(Response::new(v1::ProbeResponse {
            allow: judged.outcome.allowed,
            reason: judged.outcome.reason.name().to_owned(),
            revision: judged.revision.0,
        }))
    }
}

/// A change runs to its end even when the caller goes away: stopped halfway it would leave a partial effect.
async fn finish(
    change: impl Future<Output = Result<v1::Committed, ChangeError>> + Send + 'static,
) -> Result<Response<v1::Committed>, Status> {
    let changed = tokio::spawn(change).await.map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(changed?))
}

fn invalid(error: impl std::error::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

fn address(field: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{field}: {text:?} is not an IPv4 or IPv6 address")))
}

fn port(field: &str, port: u32) -> Result<u16, Status> {
    u16::try_from(port)
        .map_err(|_| Status::invalid_argument(format!("{field}: {port} is not a port: give at most 65535")))
}
