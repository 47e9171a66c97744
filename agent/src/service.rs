//! The local API on the Unix socket.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use ringfence_datapath::{PacketKind, ProbePacket};
use ringfence_policy::{flow::protocol, name::Name};
use ringfence_proto::v1::{self, agent_server::Agent};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    declared::DeclaredEndpoint,
    feed::Feed,
    local::{ChangeError, LocalEndpoints},
    owner::Stopped,
    realise::JudgeError,
    status::{NodeSources, endpoint_statuses, node_status},
};

/// The first of the source ports that probes take turns with where none is asked for: the range that systems take
/// for outgoing connections (RFC 6335 §6).
const FIRST_EPHEMERAL_PORT: u16 = 49152;

/// Answers what is asked on the socket.
#[derive(Debug)]
pub(crate) struct AgentService {
    pub(crate) endpoints: Arc<LocalEndpoints>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) problem: watch::Receiver<Option<String>>,
    pub(crate) probes: AtomicU16,
}

impl AgentService {
    fn node_status(&self) -> v1::NodeStatus {
        node_status(&NodeSources {
            cluster: &self.endpoints.cluster,
            node: &self.endpoints.node,
            datapath: &self.endpoints.datapath,
            registry: &self.endpoints.registry,
            problem: &self.problem,
        })
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
        let observed = self.endpoints.datapath.observe().await.map_err(stopped)?;
        let observation = observed.map_err(|error| Status::internal(error.to_string()))?;
        let packets = observation.packets.iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect();
        let staleness = self.feed.freshness().staleness();
        Ok(Response::new(v1::AgentStatus {
            node: Some(self.node_status()),
            followed_revision: self.feed.followed().mesh.revision().0,
            gateway: self.feed.gateway(),
            staleness_ms: u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX),
            packets,
            datapath_features: self.endpoints.datapath.features().to_owned(),
        }))
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
