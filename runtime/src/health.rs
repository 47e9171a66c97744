//! `/livez`, `/readyz` and `/metrics` for probes and collectors: plain HTTP on an address of its own.
//!
//! Nothing here needs a certificate and nothing changes anything: give it an address that only the node and the
//! collectors reach.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{self, Metric},
    tasks::{OnEnd, Tasks},
    tls::Tls,
};

/// Probes and collectors that are answered at once.
const CONNECTIONS: usize = 64;
/// A client that sends no whole request within this time is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Prometheus' text format, version 0.0.4.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a process says about itself.
pub struct Health {
    /// `"identityd"`, `"mesh-gateway"`, `"ringfence-agent"`.
    pub process: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The process's own metrics.
    pub metrics: &'static [&'static [Metric]],
    /// Its certificates.
    pub tls: Arc<Tls>,
    /// Why it should be restarted; empty while it should not.
    pub not_live: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Why nobody should count on it; empty when it does its work.
    pub not_ready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Sets the gauges of this moment.
    pub observe: Box<dyn Fn() + Send + Sync>,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("health_listen: cannot listen on {address}: {source}")]
pub struct HealthError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Health {
    /// Serves as a task of the process; returns where. Must be called inside a runtime.
    ///
    /// # Errors
    /// `HealthError`; nothing is served then.
    pub fn spawn(self, address: SocketAddr, tasks: &mut Tasks) -> Result<SocketAddr, HealthError> {
        let failed = |source| HealthError { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        metrics::install(&[metrics::EVERYWHERE]);
        metrics::install(self.metrics);
        ::metrics::gauge!("ringfence_build_info", "process" => self.process, "version" => self.version).set(1.0);
        tracing::info!(%bound, "health and metrics are served");
        tasks.spawn("health", OnEnd::Stop, Arc::new(self).serve(listener, tasks.token()));
        Ok(bound)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, token: CancellationToken) -> Result<(), Infallible> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return Ok(()),
                _ = upkeep.tick() => {
                    metrics::upkeep();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            // Nothing depends on a probe that was not answered: the next one comes soon.
            let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().try_acquire_owned()) else { continue };
            let (health, token) = (self.clone(), token.clone());
            tokio::spawn(async move {
                let answer = service_fn(move |request| {
                    let answer = health.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                let builder = builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
                tokio::select! {
                    () = token.cancelled() => {}
                    _closed = builder.serve_connection(TokioIo::new(stream), answer) => {}
                }
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/livez" => verdict(&(self.not_live)()),
            "/readyz" => verdict(&(self.not_ready)()),
            "/metrics" => {
                self.tls.observe();
                (self.observe)();
                let mut response = plain(StatusCode::OK, metrics::render());
                response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(METRICS_TYPE));
                response
            }
            _ => plain(StatusCode::NOT_FOUND, "there is /livez, /readyz and /metrics\n".to_owned()),
        }
    }
}

/// 200 "ok", or 503 with one reason a line.
fn verdict(reasons: &[String]) -> Response<Full<Bytes>> {
    match reasons {
        [] => plain(StatusCode::OK, "ok\n".to_owned()),
        reasons => plain(StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("process", &self.process).finish_non_exhaustive()
    }
}
