//! Connections of clients, after their handshake.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::Tls;

/// A client that does not finish its handshake within this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait for the server to take them.
const QUEUE: usize = 64;

/// Connections whose clients showed a certificate of the mesh. Give it to tonic's `serve_with_incoming`. Handshakes
/// run on their own, each with the certificates of its moment; the listener lives and ends with this stream.
pub struct Incoming<IO> {
    connections: Pin<Box<dyn Stream<Item = io::Result<IO>> + Send>>,
    tls: Arc<Tls>,
    /// What is spoken here beside HTTP/2.
    protocols: Vec<Vec<u8>>,
    sender: mpsc::Sender<Session<IO>>,
    sessions: mpsc::Receiver<Session<IO>>,
    /// After an error of the listener, so that a machine without file descriptors is not kept busy by it.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection; it breaks when its client is not trusted any more.
#[derive(Debug)]
pub struct Session<IO> {
    stream: TlsStream<IO>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    id: u64,
    tls: Arc<Tls>,
}

impl Tls {
    /// Lets clients in. Must be polled inside a runtime.
    pub fn incoming<IO>(
        self: &Arc<Self>,
        connections: impl Stream<Item = io::Result<IO>> + Send + 'static,
    ) -> Incoming<IO> {
        let (sender, sessions) = mpsc::channel(QUEUE);
        let (connections, tls) = (Box::pin(connections), self.clone());
        Incoming { connections, tls, protocols: Vec::new(), sender, sessions, pause: None }
    }
}

impl<IO> Incoming<IO> {
    /// Lets clients choose another protocol than HTTP/2 (ALPN, RFC 7301); `Session::protocol` tells what they chose.
    #[must_use]
    pub fn speaking(mut self, protocol: &[u8]) -> Self {
        self.protocols.push(protocol.to_vec());
        self
    }
}

impl<IO> Session<IO> {
    /// What the client chose to speak (ALPN); none for one that did not say.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }

    /// What lies below TLS. Reading and writing there breaks the connection.
    pub fn io_mut(&mut self) -> &mut IO {
        self.stream.get_mut().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for Incoming<IO> {
    type Item = io::Result<Session<IO>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(context).is_pending()) {
                break;
            }
            self.pause = None;
            match self.connections.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(io))) => {
                    let mut config = self.tls.server();
                    if !self.protocols.is_empty() {
                        let mut with_more = ServerConfig::clone(&config);
                        with_more.alpn_protocols.extend(self.protocols.iter().cloned());
                        config = Arc::new(with_more);
                    }
                    tokio::spawn(shake_hands(self.tls.clone(), config, io, self.sender.clone()));
                }
                // Out of file descriptors, or the client is gone again: no reason to stop serving the others.
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        Poll::Ready(ready!(self.sessions.poll_recv(context)).map(Ok))
    }
}

async fn shake_hands<IO>(tls: Arc<Tls>, config: Arc<ServerConfig>, io: IO, sender: mpsc::Sender<Session<IO>>)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let refused = |reason: &dyn std::fmt::Display| {
        metrics::counter!("ringfence_tls_handshakes_refused_total").increment(1);
        tracing::warn!(%reason, "a client's handshake failed");
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(io)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
            let (id, cut) = tls.register(chain);
            // Fails only when the server has stopped.
            let _stopped = sender.send(Session { stream, cut: Box::pin(cut.cancelled_owned()), id, tls }).await;
        }
        Ok(Err(error)) => refused(&error),
        Err(_elapsed) => refused(&"it took too long"),
    }
}

impl<IO> Drop for Session<IO> {
    fn drop(&mut self) {
        self.tls.forget(self.id);
    }
}

impl<IO: Connected> Connected for Session<IO> {
    type ConnectInfo = <TlsStream<IO> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            let reason = "the client's certificate is not trusted any more";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Session<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
