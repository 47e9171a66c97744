//! The table at the door of a server.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{self, Extensions, HeaderMap, header::USER_AGENT},
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::{
    ON_BEHALF_OF,
    role::{Role, UnknownRole},
    table::{Access, Caller, Refusal, Site, authorise},
};
use crate::version::Peers;

/// Lets calls through to a server as far as their path tells; counts all.
#[derive(Debug, Clone)]
pub struct AccessLayer {
    site: Arc<Site>,
    peers: Arc<Peers>,
}

/// A server behind an `AccessLayer`.
#[derive(Debug, Clone)]
pub struct AccessService<S> {
    site: Arc<Site>,
    peers: Arc<Peers>,
    inner: S,
}

/// Who made a call that the layer let through.
#[derive(Debug, Clone)]
pub struct Permit {
    site: Arc<Site>,
    caller: Caller,
}

/// What a path tells.
enum Gate {
    /// All there is to know.
    Access(Access),
    /// The handler decides, by the content.
    Content,
}

impl AccessLayer {
    /// For a server of this kind.
    #[must_use]
    pub fn new(site: Site) -> Self {
        Self { site: Arc::new(site), peers: Arc::default() }
    }

    /// What members say that they understand, as far as they called.
    #[must_use]
    pub fn peers(&self) -> Arc<Peers> {
        self.peers.clone()
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService { site: self.site.clone(), peers: self.peers.clone(), inner }
    }
}

impl Permit {
    /// For a caller whose certificate was looked at.
    #[must_use]
    pub const fn new(site: Arc<Site>, caller: Caller) -> Self {
        Self { site, caller }
    }

    /// Who calls.
    ///
    /// # Errors
    /// `internal` if no `AccessLayer` lies around the server: nothing is allowed then.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let permit = request.extensions().get::<Self>().cloned();
        permit.ok_or_else(|| Status::internal("this server does not know its callers: nothing is allowed"))
    }

    /// Who calls, and for whom.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller may do it here.
    ///
    /// # Errors
    /// `permission_denied`, logged and counted.
    pub fn check(&self, access: &Access) -> Result<(), Status> {
        authorise(&self.site, &self.caller, access).map_err(|refusal| refuse(&refusal))
    }
}

impl<S> Service<http::Request<Body>> for AccessService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = method(request.uri().path());
        match enter(&self.site, &request) {
            Ok(permit) => {
                self.hear(&permit.caller.role, request.headers());
                request.extensions_mut().insert(permit);
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let answer = answer.await?;
                    count(method, Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()));
                    Ok(answer)
                })
            }
            Err(status) => {
                count(method, status.code());
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

impl<S> AccessService<S> {
    fn hear(&self, role: &Role, headers: &HeaderMap) {
        if !matches!(role, Role::Member(_) | Role::Gateway(_)) {
            return;
        }
        let introduction = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()?.parse().ok());
        match (role, introduction) {
            (Role::Member(member), Some(introduction)) => self.peers.heard(*member, introduction),
            (Role::Gateway(cluster), Some(introduction)) => self.peers.heard_gateway(cluster, introduction),
            _ => {}
        }
    }
}

fn enter(site: &Arc<Site>, request: &http::Request<Body>) -> Result<Permit, Status> {
    let caller = caller(request.extensions(), request.headers()).inspect_err(note_unknown)?;
    let permit = Permit { site: site.clone(), caller };
    if let Gate::Access(access) = gate(request.uri().path()) {
        permit.check(&access)?;
    }
    Ok(permit)
}

fn note_unknown(refused: &Status) {
    metrics::counter!("ringfence_refusals_total", "role" => "unknown", "request" => "any").increment(1);
    tracing::warn!(reason = refused.message(), "refused");
}

/// Refuses a caller whose certificate says nothing: logged and counted.
#[must_use]
pub fn refuse_unknown(error: &UnknownRole) -> Status {
    let refused = unknown(error);
    note_unknown(&refused);
    refused
}

fn unknown(error: &UnknownRole) -> Status {
    Status::permission_denied(format!("it is not known who calls: {error}"))
}

fn caller(extensions: &Extensions, headers: &HeaderMap) -> Result<Caller, Status> {
    let certificates = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    let role = certificate.ok_or(UnknownRole::NoCertificate).and_then(|der| Role::of_certificate(der));
    let on_behalf_of = match headers.get(ON_BEHALF_OF) {
        None => None,
        Some(value) => {
            let asker = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(asker.ok_or_else(|| Status::permission_denied(format!("{ON_BEHALF_OF}: not a role")))?)
        }
    };
    Ok(Caller { role: role.map_err(|error| unknown(&error))?, on_behalf_of })
}

fn gate(path: &str) -> Gate {
    match path {
        "/ringfence.v1.Mesh/Execute" | "/ringfence.v1.Mesh/Report" => Gate::Content,
        "/ringfence.v1.Mesh/Follow"
        | "/ringfence.v1.Mesh/List"
        | "/ringfence.v1.Mesh/Status"
        | "/ringfence.v1.Maintenance/MemberReport" => Gate::Access(Access::Read),
        _ if path.starts_with("/ringfence.v1.Raft/") => Gate::Access(Access::Raft),
        _ => Gate::Access(Access::Administer),
    }
}

fn refuse(refusal: &Refusal) -> Status {
    let (role, request) = (refusal.caller.role.kind(), refusal.access.kind());
    metrics::counter!("ringfence_refusals_total", "role" => role, "request" => request).increment(1);
    tracing::warn!(caller = %refusal.caller, access = %refusal.access, "refused");
    Status::permission_denied(refusal.to_string())
}

/// Paths come from clients: those that are not known share one name, so that nobody can fill the memory with names.
fn method(path: &str) -> &'static str {
    const KNOWN: [&str; 14] = [
        "Mesh/Follow",
        "Mesh/Execute",
        "Mesh/List",
        "Mesh/Status",
        "Mesh/Report",
        "Raft/InstallSnapshot",
        "Maintenance/MemberReport",
        "Maintenance/Backup",
        "Maintenance/Compact",
        "Store/Members",
        "Store/AddMember",
        "Store/PromoteMember",
        "Store/RemoveMember",
        "Store/MoveLeader",
    ];
    let path = path.strip_prefix("/ringfence.v1.").unwrap_or_default();
    KNOWN.into_iter().find(|known| *known == path).unwrap_or("other")
}

/// Counts a call by its outcome. `method`: as in the metrics, `"Mesh/Execute"`.
pub fn count(method: &'static str, code: Code) {
    metrics::counter!("ringfence_requests_total", "method" => method, "code" => code_name(code)).increment(1);
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
