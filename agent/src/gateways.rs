//! The cluster's gateways, and calls that any of them can answer.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ringfence_proto::{
    connect::{self, InvalidAddress, MAX_MESSAGE_BYTES},
    status::{describe, is_out_of_reach},
    v1::{self, mesh_client::MeshClient},
};
use tonic::{
    Request, Status,
    transport::{Channel, ClientTlsConfig},
};

/// How long a gateway may take for a write: it tries the members of the store one after the other.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway may take for a report; the next one carries newer figures anyway.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The gateways in the order of the configuration. Connections are made when first needed and renewed by themselves.
#[derive(Debug)]
pub struct Gateways {
    gateways: Vec<Gateway>,
    /// The one that answered last; asked first.
    last: AtomicUsize,
}

/// One gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// `host:port`.
    pub address: String,
    /// Connects when used.
    pub channel: Channel,
}

impl Gateways {
    /// Never dials: gateways that are out of reach are found out when they are asked.
    ///
    /// # Errors
    /// `InvalidAddress` for an address that cannot be one.
    pub fn new(addresses: &[String], tls: &ClientTlsConfig) -> Result<Self, InvalidAddress> {
        let gateway = |address: &String| {
            let channel = connect::endpoint(address, tls.clone())?.connect_lazy();
            Ok(Gateway { address: address.clone(), channel })
        };
        Ok(Self { gateways: addresses.iter().map(gateway).collect::<Result<_, _>>()?, last: AtomicUsize::new(0) })
    }

    /// In the order of the configuration; never empty.
    #[must_use]
    pub fn all(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Hands a write to a gateway; the next one is asked if one cannot be reached or does not answer in time.
    ///
    /// # Errors
    /// The store's refusal, or `unavailable` naming every gateway that was tried.
    pub async fn execute(&self, command: &v1::Command) -> Result<v1::Committed, Status> {
        let call = |mut client: MeshClient<Channel>| {
            let request = with_timeout(command.clone(), WRITE_TIMEOUT);
            async move { client.execute(request).await.map(tonic::Response::into_inner) }
        };
        self.ask(WRITE_TIMEOUT, call).await
    }

    /// Tells a gateway how this node does.
    ///
    /// # Errors
    /// As `execute`.
    pub async fn report(&self, status: &v1::NodeStatus) -> Result<(), Status> {
        let call = |mut client: MeshClient<Channel>| {
            let report = v1::ReportRequest { gateway: None, nodes: vec![status.clone()] };
            async move { client.report(with_timeout(report, REPORT_TIMEOUT)).await.map(|_| ()) }
        };
        self.ask(REPORT_TIMEOUT, call).await
    }

    async fn ask<T, F>(&self, timeout: Duration, call: impl Fn(MeshClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let first = self.last.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for offset in 0..self.gateways.len() {
            let index = (first + offset) % self.gateways.len();
            let gateway = &self.gateways[index];
            let answer = tokio::time::timeout(timeout, call(gateway.client())).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {timeout:?}")))) {
                Err(status) if is_out_of_reach(&status) => {
                    failures.push(format!("{}: {}", gateway.address, describe(&status)));
                }
                answer => {
                    self.last.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(Status::unavailable(format!("no gateway could answer ({})", failures.join("; "))))
    }
}

impl Gateway {
    fn client(&self) -> MeshClient<Channel> {
        MeshClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
