//! The store's members, and calls that any of them can answer.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ringfence_proto::{
    connect::{self, InvalidAddress, MAX_MESSAGE_BYTES},
    status::{describe, is_out_of_reach},
    v1::{self, mesh_client::MeshClient},
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, ClientTlsConfig},
};

use crate::settle::settle;

/// How long one member may take for a write or a linearizable read before the next one is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one member may take to tell its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The members in the order of the configuration. Connections are made when first needed and renewed by themselves.
#[derive(Debug)]
pub struct Members {
    members: Vec<Member>,
    /// The one that answered last; asked first.
    last: AtomicUsize,
}

/// One member of the store.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    /// Connects when used.
    pub channel: Channel,
}

/// What a member said.
struct Answer<T> {
    result: Result<T, Status>,
    /// No other member was asked before, whose answer may have been lost.
    first: bool,
}

impl Members {
    /// Never dials: members that are out of reach are found out when they are asked.
    ///
    /// # Errors
    /// `InvalidAddress` for an address that cannot be one.
    pub fn new(addresses: &[String], tls: &ClientTlsConfig) -> Result<Self, InvalidAddress> {
        let member = |address: &String| {
            let channel = connect::endpoint(address, tls.clone())?.connect_lazy();
            Ok(Member { address: address.clone(), channel })
        };
        Ok(Self { members: addresses.iter().map(member).collect::<Result<_, _>>()?, last: AtomicUsize::new(0) })
    }

    /// In the order of the configuration; never empty.
    #[must_use]
    pub fn all(&self) -> &[Member] {
        &self.members
    }

    /// Hands a write to a member; the next one is asked if one cannot be reached or does not answer in time. That is
    /// safe for everything that puts, which changes nothing the second time, and settled for what removes.
    ///
    /// # Errors
    /// The store's refusal, or `unavailable` naming every member that was tried.
    pub async fn execute(&self, command: &v1::Command, deadline: Instant) -> Result<v1::Committed, Status> {
        let call = |mut client: MeshClient<Channel>, timeout| {
            let request = with_timeout(command.clone(), timeout);
            async move { client.execute(request).await.map(tonic::Response::into_inner) }
        };
        match self.ask(deadline, ATTEMPT_TIMEOUT, call).await {
            Answer { result: Err(status), first: false } if status.code() == Code::NotFound => {
                settle(self, command, status, deadline).await
            }
            answer => answer.result,
        }
    }

    /// Reads from a member, whole: a member that fails halfway through has told nothing.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn list(&self, list: v1::ListRequest, deadline: Instant) -> Result<Vec<v1::ListChunk>, Status> {
        let call = |mut client: MeshClient<Channel>, timeout| async move {
            let mut stream = client.list(with_timeout(list, timeout)).await?.into_inner();
            let mut chunks = Vec::new();
            while let Some(chunk) = stream.message().await? {
                chunks.push(chunk);
            }
            Ok(chunks)
        };
        self.ask(deadline, ATTEMPT_TIMEOUT, call).await.result
    }

    /// What a member knows about the mesh.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn status(&self, deadline: Instant) -> Result<v1::StatusResponse, Status> {
        let call = |mut client: MeshClient<Channel>, timeout| async move {
            let request = with_timeout(v1::StatusRequest {}, timeout);
            client.status(request).await.map(tonic::Response::into_inner)
        };
        self.ask(deadline, STATUS_TIMEOUT, call).await.result
    }

    /// Asks one member after the other. Each gets at most half of the time that is left, so that the next ones have a
    /// chance, too; the last one gets the rest.
    async fn ask<T, F>(
        &self,
        deadline: Instant,
        longest: Duration,
        call: impl Fn(MeshClient<Channel>, Duration) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let first = self.last.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for offset in 0..self.members.len() {
            let index = (first + offset) % self.members.len();
            let member = &self.members[index];
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = if offset + 1 == self.members.len() { left } else { left / 2 }.min(longest);
            let answer = tokio::time::timeout(timeout, call(member.client(), timeout)).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {timeout:.1?}")))) {
                Err(status) if is_out_of_reach(&status) => {
                    failures.push(format!("{}: {}", member.address, describe(&status)));
                }
                result => {
                    self.last.store(index, Ordering::Relaxed);
                    return Answer { result, first: failures.is_empty() };
                }
            }
        }
        let message = format!("no member of the store could answer ({})", failures.join("; "));
        Answer { result: Err(Status::unavailable(message)), first: false }
    }
}

impl Member {
    /// A client with the mesh's message limits.
    #[must_use]
    pub fn client(&self) -> MeshClient<Channel> {
        MeshClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// A request that the server gives up on after the timeout, too.
pub(crate) fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
