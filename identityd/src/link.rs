//! Links (`ringfence_proto::link`) of other members and of gateways: taken on the core thread. Followers, which have links of
//! their own, stay on the process's runtime.

mod followers;
mod stream;

use std::sync::Arc;

use prost::{Message as _, bytes::Bytes};
use ringfence_proto::{
    access::{Access, Caller, Permit, Role, Site, UnknownRole, count, refuse_unknown},
    connect::MAX_MESSAGE_BYTES,
    link::{self, Handler, Limits, method},
    v1,
    version::{Introduction, Peers},
};
use ringfence_runtime::tls::Session;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::server::Connected as _};

pub(crate) use followers::Followers;
pub(crate) use stream::Movable;

use crate::{
    founding::Fellowship,
    raft::{network::MAX_RAFT_MESSAGE_BYTES, service::RaftService},
    service::MeshService,
};

/// Calls of one link under way: more than one client may have (`service/admission.rs`), so that it is told so.
const CALLS: usize = 2048;

/// Connections that speak a protocol of links.
pub(crate) type Sessions = mpsc::UnboundedReceiver<Session<Movable>>;

/// What links are answered from.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) raft: RaftService,
    pub(crate) mesh: MeshService,
    pub(crate) peers: Arc<Peers>,
    pub(crate) fellowship: Fellowship,
    pub(crate) stopping: CancellationToken,
}

/// Takes the links and the followers out of all connections; gRPC gets the rest.
pub(crate) fn split<E>(
    all: impl Stream<Item = Result<Session<Movable>, E>>,
    followers: Followers,
) -> (Sessions, impl Stream<Item = Result<Session<Movable>, E>>) {
    let (links, sessions) = mpsc::unbounded_channel();
    let others = all.filter_map(move |session| match session {
        Ok(session) if session.protocol() == Some(link::PROTOCOL) => {
            // Fails only when the core has stopped.
            let _ = links.send(session);
            None
        }
        Ok(session) if session.protocol() == Some(link::FOLLOW_PROTOCOL) => {
            followers.take(session);
            None
        }
        session => Some(session),
    });
    (sessions, others)
}

impl Links {
    /// Serves links until `stopping`; returns when what they asked is answered.
    pub(crate) async fn serve(self, mut sessions: Sessions) {
        let mut serving = JoinSet::new();
        loop {
            let session = tokio::select! {
                session = sessions.recv() => session,
                () = self.stopping.cancelled() => None,
                Some(_ended) = serving.join_next() => continue,
            };
            let Some(mut session) = session else { break };
            match session.io_mut().move_here() {
                Ok(()) => drop(serving.spawn(self.clone().one(session))),
                Err(error) => tracing::warn!(%error, "a link could not be taken"),
            }
        }
        while serving.join_next().await.is_some() {}
    }

    async fn one(self, session: Session<Movable>) {
        let caller = caller(&session);
        // Only members send what takes that much memory.
        let longest_call = match &caller {
            Ok(Caller { role: Role::Member(_), .. }) => MAX_RAFT_MESSAGE_BYTES,
            _ => MAX_MESSAGE_BYTES,
        };
        let stopping = self.stopping.clone();
        let linked = Linked { links: self, site: Arc::new(Site::Store), caller };
        let limits = Limits { longest_call, calls: CALLS };
        if let Err(error) = link::serve(session, Arc::new(linked), limits, stopping).await {
            tracing::debug!(%error, "a link ended");
        }
    }
}

fn caller(session: &Session<Movable>) -> Result<Caller, UnknownRole> {
    let certificates = session.connect_info().peer_certs();
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    let role = Role::of_certificate(certificate.ok_or(UnknownRole::NoCertificate)?)?;
    Ok(Caller { role, on_behalf_of: None })
}

fn hear(peers: &Peers, role: &Role, introduction: Introduction) {
    match role {
        Role::Member(member) => peers.heard(*member, introduction),
        Role::Gateway(cluster) => peers.heard_gateway(cluster, introduction),
        _ => {}
    }
}

/// One link.
struct Linked {
    links: Links,
    site: Arc<Site>,
    caller: Result<Caller, UnknownRole>,
}

impl Linked {
    async fn answer(&self, method: u8, payload: Bytes) -> Result<Vec<u8>, Status> {
        let caller = self.caller.clone().map_err(|error| refuse_unknown(&error))?;
        if method == method::COMMAND {
            return self.command(caller, payload).await;
        }
        let member = if let Role::Member(member) = caller.role { Some(member) } else { None };
        let permit = Permit::new(self.site.clone(), caller);
        permit.check(&Access::Raft)?;
        let payload = self.links.fellowship.open(member, &payload)?;
        self.links.raft.answer(&permit, method, &payload).await
    }

    async fn command(&self, mut caller: Caller, payload: Bytes) -> Result<Vec<u8>, Status> {
        let call = v1::CommandCall::decode(payload)
            .map_err(|error| Status::invalid_argument(format!("this is no CommandCall: {error}")))?;
        if !call.on_behalf_of.is_empty() {
            let asker = call.on_behalf_of.parse();
            let invalid = |error| Status::permission_denied(format!("CommandCall.on_behalf_of: {error}"));
            caller.on_behalf_of = Some(asker.map_err(invalid)?);
        }
        let command = call.command.ok_or_else(|| Status::invalid_argument("CommandCall.command is missing"))?;
        let permit = Permit::new(self.site.clone(), caller);
        let committed = self.links.mesh.carry_out(&permit, command, deadline_of(call.timeout_ms)).await?;
        Ok(committed.encode_to_vec())
    }
}

fn deadline_of(timeout_ms: u32) -> tokio::time::Instant {
    let timeout = (timeout_ms != 0).then(|| std::time::Duration::from_millis(timeout_ms.into()));
    tokio::time::Instant::from_std(ringfence_proto::deadline::within(timeout))
}

impl Handler for Linked {
    fn hello(&self, introduction: Introduction) {
        if let Ok(caller) = &self.caller {
            hear(&self.links.peers, &caller.role, introduction);
        }
    }

    async fn call(&self, method: u8, payload: Bytes) -> Result<Vec<u8>, Status> {
        let answer = self.answer(method, payload).await;
        count(name_of(method), answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer
    }
}

/// As requests over gRPC are counted.
const fn name_of(method: u8) -> &'static str {
    match method {
        method::COMMAND => "Mesh/Execute",
        method::APPEND => "Raft/AppendEntries",
        method::VOTE => "Raft/Vote",
        method::PROPOSE => "Raft/Propose",
        method::READ_INDEX => "Raft/ReadIndex",
        method::MEMBER_PING => "Raft/Ping",
        _ => "other",
    }
}
