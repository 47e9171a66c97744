//! Puts the gateway together.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use ringfence_proto::{
    access::{AccessLayer, Site},
    connect::{Dialer, Expected, InvalidAddress, MAX_CALLS_GIVEN_UP, MAX_MESSAGE_BYTES},
    v1::mesh_server::MeshServer,
};
use ringfence_runtime::{
    health::HealthError,
    tasks::{OnEnd, Tasks},
    tls::{Tls, TlsError},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    cache::MeshCache,
    config::Config,
    keep_alive::KeepAlive,
    members::Members,
    observe,
    push::Pusher,
    register::register,
    reports::Reports,
    saved::{self, SavedState},
    service::MeshService,
    upstream::Upstream,
};

/// A running gateway; its tasks belong to the `Tasks` it was started with.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens: the configured address, with the real port where the configuration says 0.
    pub address: SocketAddr,
    /// What it knows of the mesh.
    pub cache: Arc<MeshCache>,
}

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address in the configuration is not one.
    #[error("members: {0}")]
    Address(#[from] InvalidAddress),
    /// The port for probes is taken, or the address is not this machine's.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address} (listen): {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// Whether another configuration would help (exit code 2).
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        !matches!(self, Self::Listen { .. } | Self::Health(_))
    }
}

impl Gateway {
    /// Binds the port and starts following, serving and reporting. The store need not be there.
    ///
    /// # Errors
    /// `StartError`; nothing runs then.
    pub async fn start(config: &Config, tasks: &mut Tasks) -> Result<Self, StartError> {
        let tls = Tls::open(config.tls.clone())?;
        let client_tls = tls.clone();
        let dialer = Dialer::new(Expected::Member, move || client_tls.client());
        let members = Arc::new(Members::new(&config.members, &dialer)?);
        let listening = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let cache = Arc::new(MeshCache::new(config.history));
        let reports = Arc::new(Reports::new());

        if let Some(path) = &config.cache_file {
            saved::restore(path, &cache);
            let saved = SavedState { path: path.clone(), cache: Arc::clone(&cache) };
            spawn(tasks, "cache file", |token| saved.run(token));
        }
        let follower = format!("gateway {}", config.cluster.name);
        let upstream = Upstream { members: Arc::clone(&members), cache: Arc::clone(&cache), follower };
        spawn(tasks, "upstream", |token| upstream.run(token));
        for member in members.all() {
            let pusher = Pusher {
                cluster: config.cluster.name.clone(),
                member: member.clone(),
                cache: Arc::clone(&cache),
                reports: Arc::clone(&reports),
                interval: Duration::from_millis(config.report_interval_ms),
            };
            spawn(tasks, "reports", |token| pusher.run(token));
        }
        if let Some(address) = config.health_listen {
            observe::health(Arc::clone(&cache), Arc::clone(&reports), Arc::clone(&tls)).spawn(address, tasks)?;
        }
        let keep_alive = KeepAlive {
            cluster: config.cluster.name.clone(),
            members: Arc::clone(&members),
            cache: Arc::clone(&cache),
            reports: Arc::clone(&reports),
        };
        spawn(tasks, "signs of life", |token| keep_alive.run(token));
        let token = tasks.token();
        tasks.spawn("certificates", OnEnd::Stop, tls.clone().follow(token.clone()));
        tasks.spawn(
            "registration",
            OnEnd::Stop,
            register(Arc::clone(&members), config.cluster.record(), token.clone()),
        );
        let service = MeshService { cluster: config.cluster.name.clone(), members, cache: Arc::clone(&cache), reports };
        let history = cache.history();
        spawn(tasks, "followers", |token| async move {
            token.cancelled().await;
            history.stop("the gateway stops: follow another one");
        });
        tasks.spawn("server", OnEnd::Stop, serve(tls, listener, service, token));
        tracing::info!(cluster = %config.cluster.name, %address, "gateway serves");
        Ok(Self { address, cache })
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
    tls: Arc<Tls>,
    listener: TcpListener,
    service: MeshService,
    token: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let layer = AccessLayer::new(Site::Gateway(service.cluster.clone()));
    let service = MeshServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let incoming = tls.incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .http2_max_pending_accept_reset_streams(Some(MAX_CALLS_GIVEN_UP))
        .layer(layer)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, token.cancelled_owned())
        .await
}
