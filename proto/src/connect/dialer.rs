//! Connections of long-lived processes: each one made anew with the certificates of its moment.

use std::{fmt, io, sync::Arc};

use hyper_util::rt::TokioIo;
use ringfence_policy::name::Name;
use rustls::{AlertDescription, ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{self, Channel, Endpoint},
};
use tower::Service;

use super::{InvalidAddress, SERVER_NAME, plain};
use crate::{
    access::{Role, UnknownRole},
    link,
    version::Introduction,
};

/// Whom a process wants to reach: a certificate of the mesh is not enough to be taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// A member of the store.
    Member,
    /// The gateway of a cluster.
    Gateway(Name),
    /// A member of the store or a gateway, of whichever cluster: both serve `Mesh`.
    Either,
}

/// Makes connections over mutual TLS.
#[derive(Clone)]
pub struct Dialer {
    expected: Arc<Expected>,
    tls: Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>,
    mark: Option<u32>,
}

/// Somebody else answered.
#[derive(Debug, thiserror::Error)]
enum WrongPeer {
    #[error("it is not known who answered: {0}")]
    Unknown(#[from] UnknownRole),
    #[error("{role} answered where {expected} should be")]
    Other { role: Role, expected: Arc<Expected> },
}

impl Dialer {
    /// `tls` is asked for every new connection.
    #[must_use]
    pub fn new(expected: Expected, tls: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static) -> Self {
        Self { expected: Arc::new(expected), tls: Arc::new(tls), mark: None }
    }

    /// Gives every packet of its connections a mark (`SO_MARK`, socket(7)). Without the right to do so they go without.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// A connection that is made when first used, and again when it broke.
    ///
    /// # Errors
    /// `InvalidAddress::Form` unless `address` is `host:port`.
    pub fn channel(&self, address: &str) -> Result<Channel, InvalidAddress> {
        Ok(endpoint(address)?.connect_with_connector_lazy(self.connector(address)))
    }

    /// A connection that is made now.
    ///
    /// # Errors
    /// As `channel`, and inside why there is none.
    pub async fn connected(&self, address: &str) -> Result<Result<Channel, transport::Error>, InvalidAddress> {
        Ok(endpoint(address)?.connect_with_connector(self.connector(address)).await)
    }

    fn connector(
        &self,
        address: &str,
    ) -> impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future: Send> + Send + 'static + use<>
    {
        let (dialer, address): (Self, Arc<str>) = (self.clone(), address.into());
        tower::service_fn(move |_: Uri| {
            let (dialer, address) = (dialer.clone(), address.clone());
            async move { dialer.connect(&address, (dialer.tls)()).await.map(TokioIo::new) }
        })
    }

    /// A connection for a `Link`.
    ///
    /// # Errors
    /// That of the connection or of its handshake.
    pub(crate) async fn link(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        self.speak(link::PROTOCOL, address).await
    }

    /// A connection to follow on.
    ///
    /// # Errors
    /// As `link`; `Unsupported` if the other side does not know the protocol.
    pub(crate) async fn follow(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        self.speak(link::FOLLOW_PROTOCOL, address).await
    }

    async fn speak(&self, protocol: &[u8], address: &str) -> io::Result<TlsStream<TcpStream>> {
        let mut tls = ClientConfig::clone(&(self.tls)());
        tls.alpn_protocols = vec![protocol.to_vec()];
        let unknown = || {
            let reason = "it does not take links: is it a member of the store, and of this version?";
            io::Error::new(io::ErrorKind::Unsupported, reason)
        };
        let stream = match self.connect(address, Arc::new(tls)).await {
            Err(error) if is_unknown_protocol(&error) => return Err(unknown()),
            connected => connected?,
        };
        if stream.get_ref().1.alpn_protocol() == Some(protocol) { Ok(stream) } else { Err(unknown()) }
    }

    async fn connect(&self, address: &str, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let stream = match self.mark {
            Some(mark) => connect_marked(address, mark).await?,
            None => TcpStream::connect(address).await?,
        };
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        self.check(&stream).map_err(io::Error::other)?;
        Ok(stream)
    }

    fn check(&self, stream: &TlsStream<TcpStream>) -> Result<(), WrongPeer> {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let role = Role::of_certificate(certificate.ok_or(UnknownRole::NoCertificate)?)?;
        let right = match (&*self.expected, &role) {
            (Expected::Member | Expected::Either, Role::Member(_)) | (Expected::Either, Role::Gateway(_)) => true,
            (Expected::Gateway(cluster), Role::Gateway(of)) => cluster == of,
            _ => false,
        };
        if right { Ok(()) } else { Err(WrongPeer::Other { role, expected: self.expected.clone() }) }
    }
}

/// The other side speaks none of the protocols that it was offered.
fn is_unknown_protocol(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    tls == Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
}

/// What tonic knows as plain HTTP/2 is wrapped in TLS here.
fn endpoint(address: &str) -> Result<Endpoint, InvalidAddress> {
    let introduction = Introduction::own().to_string();
    Ok(plain(address)?.user_agent(introduction).expect("a version is a valid header"))
}

/// As `TcpStream::connect`; the mark is on the first packet already.
async fn connect_marked(address: &str, mark: u32) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Err(error) = SockRef::from(&socket).set_mark(mark) {
            tracing::debug!(%error, "connections to gateways go without a mark");
        }
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member => f.write_str("a member of the store"),
            Self::Either => f.write_str("a member of the store or a gateway"),
            Self::Gateway(cluster) => write!(f, "the gateway of cluster {cluster}"),
        }
    }
}
