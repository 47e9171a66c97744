//! The store's members, and what a gateway asks them.

use std::time::{Duration, Instant};

use ringfence_proto::{
    access::Role,
    connect::{Dialer, InvalidAddress},
    pool::{Answer, Pool, Server},
    v1,
};
use tonic::{Code, Response, Status};

use crate::settle::settle;

/// How long one member may take for a write or a linearizable read before the next one is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one member may take to tell its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The members in the order of the configuration; any of them can answer.
#[derive(Debug)]
pub struct Members {
    pool: Pool,
}

impl Members {
    /// Never dials: members that are out of reach are found out when they are asked.
    ///
    /// # Errors
    /// `InvalidAddress` for an address that cannot be one.
    pub fn new(addresses: &[String], dialer: &Dialer) -> Result<Self, InvalidAddress> {
        Ok(Self { pool: Pool::new("member of the store", addresses, dialer)? })
    }

    /// In the order of the configuration; never empty.
    #[must_use]
    pub fn all(&self) -> &[Server] {
        self.pool.servers()
    }

    /// Hands a write to a member over a link, as the gateway's own or for somebody who asked for it; the next one is asked if one cannot be reached or does not answer in time. That is
    /// safe for everything that puts, which changes nothing the second time, and settled for what removes.
    ///
    /// # Errors
    /// The store's refusal, or `unavailable` naming every member that was tried.
    pub async fn execute(
        &self,
        command: &v1::Command,
        asker: Option<&Role>,
        deadline: Instant,
    ) -> Result<v1::Committed, Status> {
        let on_behalf_of = asker.map(Role::to_string).unwrap_or_default();
        let call = v1::CommandCall { command: Some(command.clone()), timeout_ms: 0, on_behalf_of };
        let call = self.pool.command(&call, ATTEMPT_TIMEOUT, Some(deadline));
        match call.await {
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
        let call = self.pool.ask(&list, ATTEMPT_TIMEOUT, Some(deadline), |mut client, request| async move {
            let mut stream = client.list(request).await?.into_inner();
            let mut chunks = Vec::new();
            while let Some(chunk) = stream.message().await? {
                chunks.push(chunk);
            }
            Ok(chunks)
        });
        call.await.result
    }

    /// What a member knows about the mesh.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn status(&self, deadline: Instant) -> Result<v1::StatusResponse, Status> {
        let call =
            self.pool.ask(&v1::StatusRequest {}, STATUS_TIMEOUT, Some(deadline), |mut client, request| async move {
                client.status(request).await.map(Response::into_inner)
            });
        call.await.result
    }
}
