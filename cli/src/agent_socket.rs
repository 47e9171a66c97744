//! Reaching the agent of this machine: its local API is a Unix socket.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ringfence_proto::{connect::MAX_MESSAGE_BYTES, v1::agent_client::AgentClient};
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// A connection to the agent.
pub(crate) struct Agent {
    client: AgentClient<Channel>,
    timeout: Duration,
}

/// The socket cannot be used.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("{} does not exist: is the agent running on this machine? --socket names another socket", path.display())]
    Missing { path: PathBuf },
    #[error("{} may be opened by the user that runs the agent only (root): permission denied", path.display())]
    Denied { path: PathBuf },
    #[error("nobody listens on {}: the agent has ended, or this is not its socket", path.display())]
    Refused { path: PathBuf },
    #[error("cannot open {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} does not answer as an agent does: {source}", path.display())]
    NotAnAgent { path: PathBuf, source: tonic::transport::Error },
}

impl Agent {
    /// Connects to the agent's socket; every call may take `timeout`.
    ///
    /// # Errors
    /// `Failure::Connect` that says what is wrong with the socket.
    pub(crate) async fn connect(socket: &Path, timeout: Duration) -> Result<Self, Failure> {
        let channel = open(socket).await.map_err(|error| Failure::Connect { attempts: vec![format!("  {error}")] })?;
        let client = AgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, timeout })
    }

    /// One request.
    ///
    /// # Errors
    /// `Failure::TimedOut`, or `Failure::Failed` with what the agent said.
    pub(crate) async fn call<R>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(AgentClient<Channel>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        match timeout(self.timeout, call(self.client.clone())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::Failed(anyhow::anyhow!("{}", describe(&status)))),
            Err(_) => {
                Err(Failure::TimedOut { what: format!("the agent did not answer ({what})"), after: self.timeout })
            }
        }
    }

    /// A request that is answered by a stream: `timeout` is for its beginning.
    ///
    /// # Errors
    /// As `call`.
    pub(crate) async fn stream<R>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(AgentClient<Channel>) -> Result<Response<Streaming<R>>, Status>,
    ) -> Result<Streaming<R>, Failure> {
        self.call(what, call).await
    }
}

/// The next message of a stream; none at its end.
///
/// # Errors
/// `Failure::Failed` with what the agent said.
pub(crate) async fn next<R>(stream: &mut Streaming<R>) -> Result<Option<R>, Failure> {
    let message = stream.message().await;
    message.map_err(|status| Failure::Failed(anyhow::anyhow!("{}", describe(&status))))
}

async fn open(socket: &Path) -> Result<Channel, SocketError> {
    let path = socket.to_owned();
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(source) => {
            return Err(match source.kind() {
                ErrorKind::NotFound => SocketError::Missing { path },
                ErrorKind::PermissionDenied => SocketError::Denied { path },
                ErrorKind::ConnectionRefused => SocketError::Refused { path },
                _ => SocketError::Io { path, source },
            });
        }
    };
    // One connection for one command: a second one is not made when it breaks.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(ErrorKind::ConnectionReset));
        async { stream }
    });
    // HTTP/2 wants an authority; it goes nowhere.
    let endpoint = Endpoint::from_static("http://agent.local");
    endpoint.connect_with_connector(connector).await.map_err(|source| SocketError::NotAnAgent { path, source })
}

/// What the agent said; where it could not say anything, why.
fn describe(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(_) => "the agent closed the connection without an answer".to_owned(),
        None => status.message().to_owned(),
    }
}
