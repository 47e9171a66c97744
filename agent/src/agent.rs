//! Puts the agent together.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU16},
    time::Duration,
};

use ringfence_datapath::{Datapath, MARK_PASSED, ObserveError};
use ringfence_policy::name::Name;
use ringfence_proto::{
    connect::{Dialer, Expected, InvalidAddress},
    v1::agent_server::AgentServer,
};
use ringfence_runtime::{
    config::ConfigError,
    health::HealthError,
    tasks::{OnEnd, Tasks},
    tls::{Tls, TlsError},
};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, watch},
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    attach::Attaching,
    config::{Config, InvalidConfig},
    declared::{EndpointsFile, Repeated},
    feed::Feed,
    follow::Following,
    gateways::Gateways,
    local::LocalEndpoints,
    maps, monitor, observe,
    open::{DatapathError, open},
    owner::{self, DatapathHandle},
    people::People,
    realise::{Audit, HostAddresses, Realiser},
    register::Registering,
    registry::{Entry, Registry},
    report::Reporter,
    service::{AgentService, NodeModes},
    socket::{Socket, SocketError, beside},
};

/// A running agent; its tasks belong to the `Tasks` it was started with.
#[derive(Debug)]
pub struct Agent {
    /// What it was told about the mesh.
    pub feed: Arc<Feed>,
    /// Its datapath.
    pub datapath: DatapathHandle,
    /// Its endpoints.
    pub registry: Arc<Registry>,
}

/// The agent cannot start. What is enforced stays enforced.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address in the configuration is not one.
    #[error("gateways: {0}")]
    Address(#[from] InvalidAddress),
    /// A file of endpoints cannot be used.
    #[error(transparent)]
    Endpoints(#[from] ConfigError),
    /// An endpoint of the file and one that was declared through the local API get in each other's way.
    #[error("{}: {source}", kept.display())]
    Repeated {
        /// Where declarations of the local API are kept.
        kept: PathBuf,
        /// What is repeated.
        source: Repeated,
    },
    /// An address of the node's proxy or health check is an endpoint's.
    #[error(
        "{field}: {address} is the address of endpoint {endpoint}, too: remove it from one of them; an endpoint with the \
         one label reserved:health or reserved:ingress needs no such line"
    )]
    NotOfAnEndpoint {
        /// Where it is.
        field: &'static str,
        /// The address.
        address: IpAddr,
        /// Whose it is, too.
        endpoint: Name,
    },
    /// Fields of the configuration do not go together.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
    /// The local API's socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address for probes cannot be listened on.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The datapath cannot be opened.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// What packets are judged by cannot be read.
    #[error("what the datapath enforces cannot be read back: {0}")]
    Observe(#[from] ObserveError),
}

/// What every part needs.
struct Parts {
    gateways: Arc<Gateways>,
    feed: Arc<Feed>,
    registry: Arc<Registry>,
    datapath: DatapathHandle,
    people: Arc<People>,
    host: watch::Receiver<HostAddresses>,
    problems: watch::Sender<Vec<String>>,
}

impl StartError {
    /// Whether another configuration would help (exit code 2).
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Tls(_)
                | Self::Address(_)
                | Self::Endpoints(_)
                | Self::Repeated { .. }
                | Self::NotOfAnEndpoint { .. }
                | Self::Invalid(_)
        )
    }
}

impl Agent {
    /// Adopts the configured datapath and starts following, realising and reporting. No gateway need be there.
    ///
    /// # Errors
    /// `StartError`; nothing runs then.
    pub fn start(config: &Config, tasks: &mut Tasks) -> Result<Self, StartError> {
        Self::start_with(config, || open(config), tasks)
    }

    /// As `start`, with a datapath of the caller's. It is opened only once it is certain that no other agent runs.
    ///
    /// # Errors
    /// `StartError`; nothing runs then.
    pub fn start_with(
        config: &Config,
        open: impl FnOnce() -> Result<Box<dyn Datapath>, DatapathError>,
        tasks: &mut Tasks,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let tls = Tls::open(config.tls.clone())?;
        let client_tls = tls.clone();
        let dialer = Dialer::new(Expected::Gateway(config.cluster.clone()), move || client_tls.client());
        // What this node hears from its gateways could not be put right once a policy had cut it off from them.
        let dialer = if config.uplinks.is_empty() { dialer } else { dialer.marked(MARK_PASSED) };
        let gateways = Arc::new(Gateways::new(&config.gateways, &dialer)?);
        let registry = Arc::new(load_registry(config)?);
        let mut socket = Socket::bind(&config.socket)?;
        let audit = if config.policy_audit_mode { Audit::Everything } else { Audit::Off };
        let people = Arc::new(People::default());
        let realiser =
            Realiser::adopt(open()?, config.local_node(), config.uplinks.clone(), audit, Arc::clone(&people))?;
        let revision = realiser.revision();
        tracing::info!(cluster = %config.cluster, node = %config.node, datapath = realiser.kind(), %revision, "datapath adopted");
        let feed = Arc::new(Feed::new());
        let (datapath, requests) = owner::channel(&realiser);
        let host = realiser.host();
        let owners = Arc::clone(&registry);
        let problems = watch::Sender::new(Vec::new());
        let parts = Parts { gateways, feed: Arc::clone(&feed), registry, datapath, people, host, problems };

        tasks.spawn("datapath", OnEnd::Stop, async move {
            tokio::task::spawn_blocking(move || requests.serve(realiser, &feed, &owners)).await
        });
        if let Some(address) = config.health_listen {
            let (feed, registry) = (Arc::clone(&parts.feed), Arc::clone(&parts.registry));
            observe::health(feed, parts.datapath.clone(), registry, Arc::clone(&tls)).spawn(address, tasks)?;
        }
        tasks.spawn("certificates", OnEnd::Stop, tls.follow(tasks.token()));
        spawn_followers(config, &parts, tasks);
        spawn_endpoints(config, &parts, tasks);
        if let Some(listener) = socket.take_listener() {
            let service = service(config, &parts);
            tasks.spawn("local API", OnEnd::Stop, serve(listener, socket, service, tasks.token()));
        }
        Ok(Self { feed: parts.feed, datapath: parts.datapath, registry: parts.registry })
    }
}

fn load_registry(config: &Config) -> Result<Registry, StartError> {
    let file = config.endpoints_file.as_deref().map_or_else(|| Ok(EndpointsFile::default()), EndpointsFile::load)?;
    let kept = beside(&config.socket, ".endpoints.yaml");
    let from_api = load_kept(&kept)?;
    let registry =
        Registry::new(file, kept.clone(), from_api).map_err(|source| StartError::Repeated { kept, source })?;
    for reserved in config.reserved() {
        let shared = |entry: &Entry| {
            let address = entry.declared.addresses.iter().find(|address| reserved.addresses.contains(address))?;
            let (field, endpoint) = (reserved.field(), entry.declared.name.clone());
            Some(StartError::NotOfAnEndpoint { field, address: *address, endpoint })
        };
        if let Some(error) = registry.entries().iter().find_map(shared) {
            return Err(error);
        }
    }
    Ok(registry)
}

fn load_kept(kept: &Path) -> Result<EndpointsFile, ConfigError> {
    match EndpointsFile::load(kept) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(EndpointsFile::default())
        }
        loaded => loaded,
    }
}

fn spawn_followers(config: &Config, parts: &Parts, tasks: &mut Tasks) {
    let following = Following {
        gateways: Arc::clone(&parts.gateways),
        feed: Arc::clone(&parts.feed),
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        host: parts.host.clone(),
    };
    spawn(tasks, "following", |token| following.run(token));
    let verify = Some(config.verify_interval_ms).filter(|ms| *ms != 0).map(Duration::from_millis);
    let pump = parts.datapath.clone().pump(Arc::clone(&parts.feed), verify, tasks.token());
    spawn(tasks, "realising", |_| pump);
    let reporter = Reporter {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        gateways: Arc::clone(&parts.gateways),
        datapath: parts.datapath.clone(),
        registry: Arc::clone(&parts.registry),
        unregistered: parts.problems.subscribe(),
        interval: Duration::from_millis(config.report_interval_ms),
    };
    spawn(tasks, "reports", |token| reporter.run(token));
}

fn spawn_endpoints(config: &Config, parts: &Parts, tasks: &mut Tasks) {
    let attaching = Attaching { registry: Arc::clone(&parts.registry), datapath: parts.datapath.clone() };
    tasks.spawn("attaching", OnEnd::Stop, attaching.run(tasks.token()));
    let registering = Registering {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        addresses: config.addresses.clone(),
        labels: config.node_labels(),
        gateways: Arc::clone(&parts.gateways),
        registry: Arc::clone(&parts.registry),
        feed: Arc::clone(&parts.feed),
        reserved: config.reserved(),
        problems: parts.problems.clone(),
    };
    spawn(tasks, "registering", |token| registering.run(token));
}

fn service(config: &Config, parts: &Parts) -> AgentService {
    let endpoints = LocalEndpoints {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        gateways: Arc::clone(&parts.gateways),
        registry: Arc::clone(&parts.registry),
        datapath: parts.datapath.clone(),
    };
    AgentService {
        endpoints: Arc::new(endpoints),
        feed: Arc::clone(&parts.feed),
        unregistered: parts.problems.subscribe(),
        probes: AtomicU16::new(0),
        people: Arc::clone(&parts.people),
        modes: NodeModes {
            enforcement: config.policy_enforcement,
            audit: config.policy_audit_mode,
            verify_interval_ms: config.verify_interval_ms,
        },
        watchers: Arc::new(Semaphore::new(monitor::WATCHERS)),
        readings: Arc::new(Semaphore::new(maps::READINGS)),
    }
}

fn spawn<F>(tasks: &mut Tasks, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let running = run(tasks.token());
    tasks.spawn(name, OnEnd::Stop, async move {
        running.await;
        Ok::<(), Infallible>(())
    });
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    socket: Socket,
    service: AgentService,
    token: CancellationToken,
) -> Result<(), ServeError> {
    let incoming = UnixListenerStream::new(UnixListener::from_std(listener)?);
    let server = Server::builder().add_service(AgentServer::new(service));
    server.serve_with_incoming_shutdown(incoming, token.cancelled_owned()).await?;
    drop(socket);
    Ok(())
}

/// The local API cannot be served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the socket cannot be listened on: {0}")]
    Listen(#[from] std::io::Error),
    #[error(transparent)]
    Serve(#[from] tonic::transport::Error),
}
