//! The cluster's gateways, and what an agent tells them.

use std::time::Duration;

use ringfence_proto::{
    connect::{Dialer, InvalidAddress},
    pool::{Pool, Server},
    v1,
};
use tonic::{Response, Status};

/// How long a gateway may take for a write: it tries the members of the store one after the other.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway may take for a report; the next one carries newer figures anyway.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The gateways in the order of the configuration; any of them can answer.
#[derive(Debug)]
pub struct Gateways {
    pool: Pool,
}

impl Gateways {
    /// Never dials: gateways that are out of reach are found out when they are asked.
    ///
    /// # Errors
    /// `InvalidAddress` for an address that cannot be one.
    pub fn new(addresses: &[String], dialer: &Dialer) -> Result<Self, InvalidAddress> {
        Ok(Self { pool: Pool::new("gateway", addresses, dialer)? })
    }

    /// In the order of the configuration; never empty.
    #[must_use]
    pub fn all(&self) -> &[Server] {
        self.pool.servers()
    }

    /// Hands a write to a gateway; the next one is asked if one cannot be reached or does not answer in time.
    ///
    /// # Errors
    /// The store's refusal, or `unavailable` naming every gateway that was tried.
    pub async fn execute(&self, command: &v1::Command) -> Result<v1::Committed, Status> {
        let call = self.pool.ask(command, WRITE_TIMEOUT, None, |mut client, request| async move {
            client.execute(request).await.map(Response::into_inner)
        });
        call.await.result
    }

    /// Tells a gateway how this node does.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn report(&self, status: v1::NodeStatus) -> Result<(), Status> {
        let report = v1::ReportRequest { gateway: None, nodes: vec![status] };
        let call = self.pool.ask(&report, REPORT_TIMEOUT, None, |mut client, request| async move {
            client.report(request).await.map(|_| ())
        });
        call.await.result
    }
}
