//! Reaching a server of the mesh: each one that was given is tried in order, until one answers.

use std::{error::Error, time::Duration};

use ringfence_proto::{
    connect::{Dialer, Expected, MAX_MESSAGE_BYTES, check_address},
    v1::{mesh_client::MeshClient, store_client::StoreClient},
};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status, TimeoutExpired,
    transport::{self, Channel},
};

use crate::{credentials, failure::Failure, flags::Global};

/// A client of the service that gateways and members share.
pub(crate) type Client = MeshClient<Channel>;

/// A client of the service that only members have.
pub(crate) type Store = StoreClient<Channel>;

/// The servers that were given. One that answered is asked first the next time.
pub(crate) struct Servers {
    servers: Vec<Server>,
    dialer: Dialer,
    timeout: Duration,
    unclear: bool,
}

struct Server {
    address: String,
    channel: Option<Channel>,
}

/// Why one attempt gave no answer.
enum Attempt {
    /// This server cannot help, another one may.
    Next { obstacle: Obstacle, reason: String },
    /// The answer is no.
    Final(Failure),
}

/// What was in the way; the worst one decides how the command fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// There is no connection.
    NotReached,
    /// The connection broke while the server was at work.
    Broken,
    /// The server says that it cannot do it now.
    Unavailable,
    /// The server took too long.
    TooLate,
}

impl Servers {
    /// Reads the certificates and checks the addresses; connects to nobody yet.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        Self::of(global, Expected::Either)
    }

    /// As `new`, for what only members of the store answer.
    pub(crate) fn members(global: &Global) -> Result<Self, Failure> {
        Self::of(global, Expected::Member)
    }

    fn of(global: &Global, expected: Expected) -> Result<Self, Failure> {
        if global.servers.is_empty() {
            let reason = "no server given: use --server HOST:PORT or set RINGFENCE_SERVER".to_owned();
            return Err(Failure::Usage { reason });
        }
        let dialer = credentials::dialer(global, expected)?;
        let server = |address: &String| {
            check_address(address).map_err(|error| Failure::Usage { reason: error.to_string() })?;
            Ok(Server { address: address.clone(), channel: None })
        };
        let servers = global.servers.iter().map(server).collect::<Result<_, Failure>>()?;
        Ok(Self { servers, dialer, timeout: global.timeout, unclear: false })
    }

    /// Sends a request to the first server that takes it. `call` may be made several times. A server that hangs leaves
    /// the others their share of the time.
    pub(crate) async fn call<M: Clone, R>(
        &mut self,
        message: M,
        call: impl AsyncFn(Client, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Failure> {
        let client = |channel| {
            MeshClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
        self.call_on(message, async |channel, request| call(client(channel), request).await).await
    }

    /// As `call`, for what only members of the store answer.
    pub(crate) async fn call_store<M: Clone, R>(
        &mut self,
        message: M,
        call: impl AsyncFn(Store, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Failure> {
        self.call_on(message, async |channel, request| call(StoreClient::new(channel), request).await).await
    }

    async fn call_on<M: Clone, R>(
        &mut self,
        message: M,
        call: impl AsyncFn(Channel, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut attempts = Vec::new();
        let mut worst = Obstacle::NotReached;
        self.unclear = false;
        for index in 0..self.servers.len() {
            let left = u32::try_from(self.servers.len() - index).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            let server = &mut self.servers[index];
            let attempt = timeout(share, server.attempt(&self.dialer, share, message.clone(), &call));
            match attempt.await.unwrap_or_else(|_| Err(Attempt::too_late(share))) {
                Ok(answer) => {
                    self.servers.swap(0, index);
                    return Ok(answer);
                }
                Err(Attempt::Final(failure)) => return Err(failure),
                Err(Attempt::Next { obstacle, reason }) => {
                    worst = worst.max(obstacle);
                    self.unclear |= obstacle != Obstacle::NotReached;
                    attempts.push(format!("  {}: {reason}", server.address));
                }
            }
        }
        let attempts_text = attempts.join("\n");
        Err(match worst {
            Obstacle::NotReached | Obstacle::Broken => Failure::Connect { attempts },
            Obstacle::Unavailable => Failure::Failed(anyhow::anyhow!("no server could do it:\n{attempts_text}")),
            Obstacle::TooLate => {
                Failure::TimedOut { what: format!("no server answered:\n{attempts_text}"), after: self.timeout }
            }
        })
    }

    /// Whether a server of the last call may have carried out the request without telling.
    pub(crate) const fn outcome_is_unclear(&self) -> bool {
        self.unclear
    }

    /// Asks another server first from now on.
    pub(crate) fn pass_over_first(&mut self) {
        self.servers.rotate_left(1);
    }
}

impl Server {
    async fn attempt<M, R>(
        &mut self,
        dialer: &Dialer,
        time: Duration,
        message: M,
        call: &impl AsyncFn(Channel, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Attempt> {
        let started = Instant::now();
        let known = self.channel.take();
        let is_new = known.is_none();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let connected = dialer.connected(&self.address).await;
                let connected =
                    connected.map_err(|error| Attempt::Final(Failure::Usage { reason: error.to_string() }))?;
                connected.map_err(|error| Attempt::not_reached(&error))?
            }
        };
        let mut request = Request::new(message);
        // The server gives up a little before we do, so that we hear why.
        request.set_timeout(time.saturating_sub(started.elapsed()).mul_f32(0.9));
        let answer = call(channel.clone(), request).await.map_err(|status| Attempt::answered(&status, is_new))?;
        self.channel = Some(channel);
        Ok(answer)
    }
}

impl Attempt {
    fn not_reached(error: &transport::Error) -> Self {
        Self::Next { obstacle: Obstacle::NotReached, reason: with_causes(&error.to_string(), error.source()) }
    }

    fn too_late(share: Duration) -> Self {
        Self::Next { obstacle: Obstacle::TooLate, reason: format!("no answer within {:.1} s", share.as_secs_f32()) }
    }

    /// A connection that breaks has a source; what a server says has none.
    fn answered(status: &Status, is_new: bool) -> Self {
        let reason = with_causes(status.message(), status.source());
        let cause = |wanted: fn(&(dyn Error + 'static)) -> bool| causes(status.source()).any(wanted);
        if cause(|error| error.is::<TimeoutExpired>()) {
            return Self::Next { obstacle: Obstacle::TooLate, reason };
        }
        // A server that does not like the client's certificate says so only after the client's handshake is done.
        if cause(|error| error.to_string().contains("received fatal alert")) {
            return Self::Next { obstacle: Obstacle::NotReached, reason };
        }
        if status.source().is_some() {
            let hint = if is_new { " (does it trust the authority of your certificate?)" } else { "" };
            // The HTTP library's words for a request that it has not begun to write.
            let unsent = cause(|error| error.to_string() == "connection closed");
            let obstacle = if unsent { Obstacle::NotReached } else { Obstacle::Broken };
            return Self::Next { obstacle, reason: format!("{reason}{hint}") };
        }
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => Self::Next { obstacle: Obstacle::TooLate, reason },
            Code::Unavailable => Self::Next { obstacle: Obstacle::Unavailable, reason },
            _ => Self::Final(Failure::Failed(anyhow::anyhow!("{reason}"))),
        }
    }
}

fn causes<'a>(first: Option<&'a (dyn Error + 'static)>) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(first, |&error| error.source())
}

/// A text with everything that caused it, each reason once.
fn with_causes(text: &str, source: Option<&(dyn Error + 'static)>) -> String {
    let mut texts = vec![text.to_owned()];
    for cause in causes(source) {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
