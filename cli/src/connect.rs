//! Reaching a server of the mesh: each one that was given is tried in order, until one answers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use ringfence_proto::{
    connect::{MAX_MESSAGE_BYTES, SERVER_NAME, endpoint},
    v1::mesh_client::MeshClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{args::Global, failure::Failure};

/// A client of the service that gateways and members share.
pub(crate) type Client = MeshClient<Channel>;

/// The servers that were given. One that answered is asked first the next time.
pub(crate) struct Servers {
    servers: Vec<Server>,
    timeout: Duration,
}

struct Server {
    address: String,
    endpoint: Endpoint,
    client: Option<Client>,
}

/// Why one attempt gave no answer.
enum Attempt {
    /// This server cannot help, another one may.
    Next { reason: String, reached: bool },
    /// The answer is no.
    Final(Failure),
}

impl Servers {
    /// Reads the certificates and checks the addresses; connects to nobody yet.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        if global.servers.is_empty() {
            let reason = "no server given: use --server HOST:PORT or set RINGFENCE_SERVER".to_owned();
            return Err(Failure::Usage { reason });
        }
        let tls = tls_config(global)?;
        let server = |address: &String| {
            let endpoint =
                endpoint(address, tls.clone()).map_err(|error| Failure::Usage { reason: error.to_string() })?;
            Ok(Server { address: address.clone(), endpoint, client: None })
        };
        let servers = global.servers.iter().map(server).collect::<Result<_, Failure>>()?;
        Ok(Self { servers, timeout: global.timeout })
    }

    /// Sends a request to the first server that takes it. `call` may be made several times.
    pub(crate) async fn call<M, R>(
        &mut self,
        message: M,
        call: impl AsyncFn(Client, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Failure>
    where
        M: Clone,
    {
        let deadline = Instant::now() + self.timeout;
        let mut attempts = Vec::new();
        let mut reached_any = false;
        for index in 0..self.servers.len() {
            let attempt = timeout_at(deadline, self.servers[index].attempt(deadline, message.clone(), &call)).await;
            match attempt {
                Ok(Ok(answer)) => {
                    self.servers.swap(0, index);
                    return Ok(answer);
                }
                Ok(Err(Attempt::Final(failure))) => return Err(failure),
                Ok(Err(Attempt::Next { reason, reached })) => {
                    reached_any |= reached;
                    attempts.push(format!("  {}: {reason}", self.servers[index].address));
                }
                Err(_) => {
                    attempts.push(format!("  {}: no answer", self.servers[index].address));
                    let what = format!("no server answered\n{}", attempts.join("\n"));
                    return Err(Failure::TimedOut { what, after: self.timeout });
                }
            }
        }
        if reached_any {
            return Err(Failure::Failed(anyhow::anyhow!("no server could do it:\n{}", attempts.join("\n"))));
        }
        Err(Failure::Connect { attempts })
    }
}

impl Server {
    async fn attempt<M, R>(
        &mut self,
        deadline: Instant,
        message: M,
        call: &impl AsyncFn(Client, Request<M>) -> Result<R, Status>,
    ) -> Result<R, Attempt> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let not_reached = |error| Attempt::Next { reason: reasons(&error), reached: false };
                let channel = self.endpoint.connect().await.map_err(not_reached)?;
                MeshClient::new(channel)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
            }
        };
        let mut request = Request::new(message);
        // The server gives up a little before we do, so that we hear why.
        request.set_timeout(deadline.saturating_duration_since(Instant::now()).mul_f32(0.9));
        match call(client.clone(), request).await {
            Ok(answer) => {
                self.client = Some(client);
                Ok(answer)
            }
            Err(status) => {
                self.client = None;
                Err(classify(&status))
            }
        }
    }
}

/// A connection that breaks has a source; what a server says has none.
fn classify(status: &Status) -> Attempt {
    let from_transport = std::error::Error::source(status).is_some();
    match status.code() {
        _ if from_transport => Attempt::Next { reason: reasons(status), reached: false },
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Attempt::Next { reason: status.message().to_owned(), reached: true }
        }
        _ => Attempt::Final(Failure::Failed(anyhow::anyhow!("{}", status.message()))),
    }
}

/// An error with everything that caused it, each reason once.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

fn tls_config(global: &Global) -> Result<ClientTlsConfig, Failure> {
    let file = |given: &Option<PathBuf>, name: &str, flag: &str| {
        given.clone().or_else(|| global.tls_dir.as_ref().map(|directory| directory.join(name))).ok_or_else(|| {
            let reason =
                format!("no certificates given: use --tls-dir DIR (with ca.crt, tls.crt, tls.key) or {flag} FILE");
            Failure::Usage { reason }
        })
    };
    let ca = read(&file(&global.ca, "ca.crt", "--ca")?)?;
    let certificate = read(&file(&global.certificate, "tls.crt", "--certificate")?)?;
    let key = read(&file(&global.key, "tls.key", "--key")?)?;
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(certificate, key))
        .domain_name(SERVER_NAME))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
