//! Servers that can stand in for each other, and calls that any of them can answer.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use prost::Message as _;
use tonic::{Request, Status, transport::Channel};

use crate::{
    connect::{Dialer, InvalidAddress, MAX_MESSAGE_BYTES},
    follow::{FollowError, Follower, Position},
    link::{Link, method},
    status::{describe, is_out_of_reach},
    v1::{self, mesh_client::MeshClient},
};

/// The servers in the order of the configuration. Connections are made when first needed and renewed by themselves.
#[derive(Debug)]
pub struct Pool {
    /// What the servers are, for errors: "gateway".
    what: &'static str,
    servers: Vec<Server>,
    /// The one that answered last; asked first.
    last: AtomicUsize,
}

/// One server.
#[derive(Debug, Clone)]
pub struct Server {
    /// `host:port`.
    pub address: String,
    /// Connects when used.
    pub channel: Channel,
    /// Connects when used; members of the store take links.
    link: Link,
    dialer: Dialer,
}

/// What a server said.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it said, or `unavailable` naming every server that was tried.
    pub result: Result<T, Status>,
    /// No other server was asked before, whose answer may have been lost.
    pub first: bool,
}

impl Pool {
    /// Never dials: servers that are out of reach are found out when they are asked.
    ///
    /// `what`: what the servers are, for errors.
    ///
    /// # Errors
    /// `InvalidAddress` for an address that cannot be one.
    pub fn new(what: &'static str, addresses: &[String], dialer: &Dialer) -> Result<Self, InvalidAddress> {
        let server = |address: &String| {
            let channel = dialer.channel(address)?;
            let link = Link::new(dialer.clone(), address, MAX_MESSAGE_BYTES);
            Ok(Server { address: address.clone(), channel, link, dialer: dialer.clone() })
        };
        let servers = addresses.iter().map(server).collect::<Result<_, _>>()?;
        Ok(Self { what, servers, last: AtomicUsize::new(0) })
    }

    /// In the order of the configuration.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Asks one server after the other until one answers, each for at most `longest`. With a deadline each gets at most
    /// half of the time that is left, so that the next ones have a chance, too; the last one gets the rest.
    pub async fn ask<M: Clone, T, F>(
        &self,
        message: &M,
        longest: Duration,
        deadline: Option<Instant>,
        call: impl Fn(MeshClient<Channel>, Request<M>) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.first_answer(longest, deadline, |server, timeout| server.ask(message.clone(), timeout, &call)).await
    }

    /// As `ask`, for a write, over links.
    pub async fn command(
        &self,
        call: &v1::CommandCall,
        longest: Duration,
        deadline: Option<Instant>,
    ) -> Answer<v1::Committed> {
        self.first_answer(longest, deadline, |server, timeout| server.command(call.clone(), timeout)).await
    }

    async fn first_answer<'a, T, F>(
        &'a self,
        longest: Duration,
        deadline: Option<Instant>,
        ask: impl Fn(&'a Server, Duration) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let first = self.last.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = &self.servers[index];
            let timeout = deadline.map_or(longest, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                let is_last = offset + 1 == self.servers.len();
                if is_last { left } else { left / 2 }.min(longest)
            });
            match ask(server, timeout).await {
                Err(status) if is_out_of_reach(&status) => {
                    failures.push(format!("{}: {}", server.address, describe(&status)));
                }
                result => {
                    self.last.store(index, Ordering::Relaxed);
                    return Answer { result, first: failures.is_empty() };
                }
            }
        }
        let message = format!("no {} could answer ({})", self.what, failures.join("; "));
        Answer { result: Err(Status::unavailable(message)), first: false }
    }
}

impl Server {
    /// Asks this server, which is told to give up after `timeout`, too.
    ///
    /// # Errors
    /// The server's, or `deadline_exceeded`.
    pub async fn ask<M, T, F>(
        &self,
        message: M,
        timeout: Duration,
        call: impl Fn(MeshClient<Channel>, Request<M>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let client = MeshClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        let answer = tokio::time::timeout(timeout, call(client, request)).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {timeout:.1?}"))))
    }

    /// Follows this server from what the caller has, over a link.
    ///
    /// # Errors
    /// As `Follower::connect_over_link`.
    pub async fn follow(&self, from: Position, name: String) -> Result<Follower, FollowError> {
        Follower::connect_over_link(&self.dialer, &self.address, self.channel.clone(), from, name).await
    }

    /// Puts a write to this server, which is told to give up after `timeout`, too.
    ///
    /// # Errors
    /// The server's, or `deadline_exceeded`.
    pub async fn command(&self, mut call: v1::CommandCall, timeout: Duration) -> Result<v1::Committed, Status> {
        call.timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let answer = tokio::time::timeout(timeout, self.link.call(method::COMMAND, call.encode_to_vec())).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {timeout:.1?}"))))?;
        v1::Committed::decode(answer).map_err(|error| Status::internal(format!("an answer without meaning: {error}")))
    }
}
