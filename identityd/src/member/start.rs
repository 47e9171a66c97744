//! Bringing a member up.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use openraft::{
    ConfigError, SnapshotPolicy,
    error::{Fatal, InitializeError, RaftError},
};
use ringfence_proto::{
    access::{AccessLayer, Role, Site, UnknownRole},
    connect::{Dialer, Expected, MAX_CALLS_GIVEN_UP, MAX_MESSAGE_BYTES},
    link::{FOLLOW_PROTOCOL, PROTOCOL},
    v1::{
        maintenance_server::MaintenanceServer, mesh_server::MeshServer, raft_server::RaftServer,
        store_server::StoreServer,
    },
    version::Peers,
};
use ringfence_runtime::{
    health::HealthError,
    tls::{Tls, TlsError},
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};

use super::Member;
use crate::{
    config::{Config, InvalidConfig, MemberConfig},
    core::Core,
    founding::{self, Fellowship},
    freshness::Freshness,
    housekeeping::Housekeeper,
    link::{self, Followers, Links, Movable, Sessions},
    maintenance::MaintenanceService,
    raft::{
        MemberNode, Raft,
        bound::keep_log_small,
        guard::{Members, Times},
        log::Log,
        network::{Channels, MAX_RAFT_MESSAGE_BYTES, Network},
        propose::Proposer,
        read::Reads,
        service::RaftService,
        transfer::Transfer,
    },
    service::{Admission, BOUNDS, MeshService, StoreService},
    storage::{Storage, StorageError},
    wal::WalOptions,
};

/// A snapshot of a large mesh over a slow line must get through.
const SNAPSHOT_TIMEOUT_MS: u64 = 120_000;
/// Clients that vanished without a word are noticed within these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A certificate file cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The certificate is of somebody else: the other members would refuse every call.
    #[error(
        "tls.certificate: it is of {role}, and id says that this is member {id}: give it the one that 'ringfence ca issue member/{id}' made"
    )]
    Certificate {
        /// Whose it is.
        role: Role,
        /// The configured id.
        id: u64,
    },
    /// The certificate does not say whose it is.
    #[error("tls.certificate: {0}")]
    Role(#[from] UnknownRole),
    /// The port is taken, or the address is not this machine's.
    #[error("listen: cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("the core thread cannot be started: {0}")]
    Thread(io::Error),
    /// The data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The address for probes cannot be listened on.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// openraft refuses the times.
    #[error("the Raft timing cannot work: {0}")]
    Timing(#[from] ConfigError),
    /// Raft does not start.
    #[error("Raft does not start: {0}")]
    Raft(#[from] Fatal<u64>),
}

impl StartError {
    /// Whether the configuration is to blame, not the machine: exit code 2 instead of 1.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Tls(_) | Self::Certificate { .. } | Self::Role(_) | Self::Timing(_))
    }
}

pub(super) async fn start(config: Config, listener: TcpListener, wal: WalOptions) -> Result<Member, StartError> {
    config.validate()?;
    let core = Core::start().map_err(StartError::Thread)?;
    let begun = core.spawn(begin(config.clone(), listener, wal, Handle::current())).await;
    match begun.expect("nothing panics while a member is put together, and nobody stops its core") {
        Ok(mut member) => {
            member.core = Some(core);
            initialize(&config, member).await
        }
        Err(error) => {
            core.stop().await;
            Err(error)
        }
    }
}

/// Puts a member together, on its core thread; `outside` is the process's runtime.
async fn begin(config: Config, listener: TcpListener, wal: WalOptions, outside: Handle) -> Result<Member, StartError> {
    let tls = own_tls(&config)?;
    let client_tls = tls.clone();
    let raft_config = Arc::new(raft_config(&config)?);
    let listen_error = |source| StartError::Listen { listen: config.listen, source };
    let address = listener.local_addr().map_err(listen_error)?;
    let storage = Storage::open(&config.data_dir, config.id, config.history, wal)?;

    let fellowship = match founding::instance(&config.data_dir) {
        Ok(instance) => Fellowship::new(storage.history.clone(), &instance),
        Err(source) => {
            storage.abandon();
            return Err(StorageError::Io { path: config.data_dir.join("instance"), source }.into());
        }
    };
    let channels = Channels::new(Dialer::new(Expected::Member, move || client_tls.client()), fellowship.clone());
    let freshness = Arc::new(OnceLock::new());
    let log = Log::new(config.id, storage.wal.clone());
    let network = Network::new(channels.clone(), freshness.clone(), &log);
    let durable = log.durable();
    let applier = storage.applier.clone().behind(durable.clone());
    let raft = match Raft::new(config.id, raft_config, network, log, applier).await {
        Ok(raft) => raft,
        Err(error) => {
            storage.abandon();
            return Err(error.into());
        }
    };
    let freshness = freshness.get_or_init(|| Arc::new(Freshness::new(raft.metrics(), storage.last_written))).clone();
    let members = Arc::new(known(&config, address, &raft, &storage, &freshness));
    let stopping = CancellationToken::new();
    let layer = AccessLayer::new(Site::Store);
    let peers = layer.peers();
    let proposer = Proposer::start(raft.clone(), members.clone(), channels.clone(), stopping.clone());
    let reads = Reads::start(raft.clone(), members.clone(), channels.clone(), stopping.clone());
    let times = times(&config);
    let transfer = Transfer {
        raft: raft.clone(),
        members: members.clone(),
        channels: channels.clone(),
        proposer: proposer.clone(),
        times,
    };
    let mesh = MeshService {
        proposer: proposer.clone(),
        reads: reads.clone(),
        history: storage.history.clone(),
        members: members.clone(),
        freshness: freshness.clone(),
        applier: storage.applier.clone(),
        peers: peers.clone(),
        reports: Arc::default(),
        admission: Admission::new(BOUNDS),
        stopping: stopping.clone(),
    };
    let between = RaftService::new(raft.clone(), durable, freshness.clone(), members.clone(), proposer, reads);
    let links = Links {
        raft: between.clone(),
        mesh: mesh.clone(),
        peers: peers.clone(),
        fellowship: fellowship.clone(),
        stopping: stopping.clone(),
    };
    let maintenance = MaintenanceService {
        raft: raft.clone(),
        applier: storage.applier.clone(),
        history: storage.history.clone(),
        members: members.clone(),
        freshness: freshness.clone(),
        tls: tls.clone(),
        peers: peers.clone(),
        data_dir: config.data_dir.clone(),
    };
    let followers = Followers::new(mesh.clone(), peers.clone());
    let services =
        Services { layer, fellowship, between, mesh, store: StoreService::new(transfer.clone()), maintenance };
    let (sessions, server) = services.serve(&outside, &tls, listener, followers.clone(), stopping.clone());
    outside.spawn(tls.clone().follow(stopping.clone()));
    tokio::spawn(keep_log_small(raft.clone(), storage.wal.clone(), stopping.clone()));
    let links = tokio::spawn(links.serve(sessions));
    let housekeeper = housekeeper(&transfer, &storage, peers);
    let guard = tokio::spawn(members.clone().guard(channels, times, stopping.clone()));
    let housekeeping = tokio::spawn(housekeeper.run(stopping.clone()));
    Ok(Member {
        address,
        raft,
        storage,
        members,
        freshness,
        transfer,
        stopping,
        server,
        followers,
        links,
        guard,
        housekeeping,
        tls,
        core: None,
    })
}

/// The certificate, if it is this member's: the others listen to it only under the id in there.
fn own_tls(config: &Config) -> Result<Arc<Tls>, StartError> {
    let tls = Tls::open(config.tls.clone())?;
    match Role::of_certificate(tls.material().own())? {
        Role::Member(id) if id == config.id => Ok(tls),
        role => Err(StartError::Certificate { role, id: config.id }),
    }
}

/// Whom the configuration knows, before the log says more.
fn known(config: &Config, address: SocketAddr, raft: &Raft, storage: &Storage, fresh: &Arc<Freshness>) -> Members {
    let (own, founders) = (own_member(config, address), config.members.clone());
    let digests = storage.applier.digests().clone();
    Members::new(own, founders, raft.clone(), storage.history.clone(), digests, fresh.clone())
}

fn housekeeper(transfer: &Transfer, storage: &Storage, peers: Arc<Peers>) -> Housekeeper {
    Housekeeper {
        raft: transfer.raft.clone(),
        proposer: transfer.proposer.clone(),
        peers,
        members: transfer.members.clone(),
        applier: storage.applier.clone(),
        history: storage.history.clone(),
    }
}

fn times(config: &Config) -> Times {
    Times {
        interval: Duration::from_millis(config.heartbeat_interval_ms),
        lease: Duration::from_millis(config.election_timeout_max_ms),
    }
}

/// What is served over gRPC.
struct Services {
    layer: AccessLayer,
    fellowship: Fellowship,
    between: RaftService,
    mesh: MeshService,
    store: StoreService,
    maintenance: MaintenanceService,
}

impl Services {
    /// Serves on the process's runtime until `stopping`, and followers there, too; gives the connections that are links.
    fn serve(
        self,
        outside: &Handle,
        tls: &Arc<Tls>,
        listener: TcpListener,
        followers: Followers,
        stopping: CancellationToken,
    ) -> (Sessions, JoinHandle<Result<(), tonic::transport::Error>>) {
        let router = server()
            .layer(self.layer)
            .add_service(InterceptedService::new(
                RaftServer::new(self.between)
                    .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES),
                self.fellowship,
            ))
            .add_service(
                MeshServer::new(self.mesh)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(StoreServer::new(self.store))
            .add_service(MaintenanceServer::new(self.maintenance));
        let _outside = outside.enter();
        let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
        let incoming = tls.incoming(connections.map(|stream| stream.map(Movable::new)));
        let incoming = incoming.speaking(PROTOCOL).speaking(FOLLOW_PROTOCOL);
        let (sessions, incoming) = link::split(incoming, followers);
        let server = outside.spawn(router.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()));
        (sessions, server)
    }
}

/// Every member does this with the same list; one that is initialized already is left as it is.
async fn initialize(config: &Config, member: Member) -> Result<Member, StartError> {
    let nodes: BTreeMap<u64, MemberNode> = config
        .members
        .iter()
        .map(|node| (node.id, MemberNode { address: node.address.clone(), cluster: Some(node.cluster.clone()) }))
        .collect();
    let initialized = match member.raft.is_initialized().await {
        Ok(true) => Ok(()),
        // The store that it is added to tells it who the members are.
        Ok(false) if config.join => Ok(()),
        Ok(false) => member.raft.initialize(nodes).await,
        Err(error) => Err(RaftError::Fatal(error)),
    };
    match initialized {
        // A leader may have told it meanwhile; and the list holds this member: `validate` has seen to it.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_) | InitializeError::NotInMembers(_))) => {}
        Err(RaftError::Fatal(error)) => {
            member.kill().await;
            return Err(error.into());
        }
    }
    let head = *member.storage.history.head().borrow();
    tracing::info!(id = config.id, cluster = %config.cluster, address = %member.address, revision = %head, "serving");
    Ok(member)
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MAX_CALLS_GIVEN_UP))
}

fn raft_config(config: &Config) -> Result<openraft::Config, ConfigError> {
    openraft::Config {
        cluster_name: "ringfence".to_owned(),
        heartbeat_interval: config.heartbeat_interval_ms,
        election_timeout_min: config.election_timeout_min_ms,
        election_timeout_max: config.election_timeout_max_ms,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        // For members that lag: `bound.rs` sees to the bytes.
        max_in_snapshot_log_to_keep: config.snapshot_every,
        replication_lag_threshold: config.snapshot_every.saturating_mul(2),
        // The guard allows it as soon as a quorum answers.
        enable_elect: config.members.len() == 1 && !config.join,
        ..openraft::Config::default()
    }
    .validate()
}

/// As the list has it; one that joins a running store is reached where it listens until the log says more.
fn own_member(config: &Config, address: SocketAddr) -> MemberConfig {
    let own = config.members.iter().find(|member| member.id == config.id).cloned();
    own.unwrap_or_else(|| MemberConfig { id: config.id, cluster: config.cluster.clone(), address: address.to_string() })
}
