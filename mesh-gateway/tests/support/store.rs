use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::{Message as _, bytes::Bytes};
use ringfence_policy::{
    command::{Command, Committed, EndpointSpec, Refusal, SignOfLife},
    identity::{ClusterId, Identity},
    label::{CLUSTER_KEY, Label, LabelSet, SOURCE_K8S},
    mesh::{History, Mesh},
    name::Name,
    record::{Change, Delta, Endpoint, IdentityRecord, Node, Record, RecordKey, Snapshot},
    reserved::reserved_endpoint,
    revision::Revision,
    store::StoreId,
};
use ringfence_proto::{
    access::ON_BEHALF_OF,
    connect::MAX_MESSAGE_BYTES,
    convert::refusal_status,
    follow::{self, FollowResponseStream, Interest, ListResponseStream, Position, SharedHistory, Staleness},
    link::{self, Asked},
    v1::{self, mesh_server},
    version::Introduction,
};
use ringfence_runtime::tls::{Session, Tls, TlsFiles};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{Killable, as_role};

/// One member's worth of store: a real history behind the real service. Several servers can share one, as members do.
#[derive(Clone)]
pub(crate) struct TestStore(Arc<State>);

struct State {
    history: Arc<SharedHistory>,
    writing: Mutex<BTreeMap<LabelSet, Identity>>,
    staleness_ms: AtomicU64,
    reports: Mutex<Vec<v1::ReportRequest>>,
    askers: Mutex<Vec<Option<String>>>,
    alive: Mutex<Vec<Vec<SignOfLife>>>,
    available: Mutex<bool>,
    lose_answers: AtomicU64,
    views: AtomicBool,
    takes_followers: AtomicBool,
    knows_proxies: AtomicBool,
    followed: Mutex<Vec<v1::FollowRequest>>,
    /// Where followers are told from, whichever server they came to.
    _teller: Killable,
}

impl TestStore {
    pub(crate) fn new(history: usize) -> Self {
        let (history, teller) = (Arc::new(SharedHistory::new(History::new(Mesh::default(), history))), Killable::new());
        let first = history.clone();
        teller.run(async { drop(follow::serve(first, Revision::ZERO, None, Arc::new(|| Duration::ZERO))) });
        Self(Arc::new(State {
            history,
            views: AtomicBool::new(true),
            takes_followers: AtomicBool::new(true),
            knows_proxies: AtomicBool::new(true),
            followed: Mutex::default(),
            _teller: teller,
            writing: Mutex::default(),
            staleness_ms: AtomicU64::new(0),
            reports: Mutex::default(),
            askers: Mutex::default(),
            alive: Mutex::default(),
            available: Mutex::new(true),
            lose_answers: AtomicU64::new(0),
        }))
    }

    /// A member that has only a part of what another one has.
    pub(crate) fn at(snapshot: Snapshot) -> Self {
        let store = Self::new(100);
        store.0.history.reset(Mesh::from_snapshot(snapshot));
        store
    }

    /// Says which store it is.
    pub(crate) fn found(&self, store: StoreId) {
        self.0.history.found(store);
    }

    /// Listens with a role's certificate; the server lives as long as the runtime.
    pub(crate) fn serve(&self, role: &str, address: SocketAddr, tls: &TlsFiles) -> (SocketAddr, Killable) {
        let runtime = Killable::new();
        let listener = runtime.run(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::open(as_role(tls, role)).unwrap();
        let (links, service) = (Arc::new(self.clone()), mesh_server::MeshServer::new(self.clone()));
        let takes_followers = self.0.takes_followers.load(Ordering::Relaxed);
        runtime.spawn(async move {
            let incoming = tls.incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).speaking(link::PROTOCOL);
            let incoming = if takes_followers { incoming.speaking(link::FOLLOW_PROTOCOL) } else { incoming };
            let incoming = incoming.filter_map(move |session| match session {
                Ok(session) if session.protocol() == Some(link::FOLLOW_PROTOCOL) => {
                    tokio::spawn(links.clone().serve_follower(session));
                    None
                }
                Ok(session) if session.protocol() == Some(link::PROTOCOL) => {
                    let limits = link::Limits { longest_call: MAX_MESSAGE_BYTES, calls: 100 };
                    tokio::spawn(link::serve(session, links.clone(), limits, CancellationToken::new()));
                    None
                }
                session => Some(session),
            });
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        (address, runtime)
    }

    /// As a member from before followers had links.
    pub(crate) fn take_no_followers(&self) {
        self.0.takes_followers.store(false, Ordering::Relaxed);
    }

    async fn serve_follower(self: Arc<Self>, session: Session<TcpStream>) {
        let asked = Asked::read(session).await.unwrap();
        let events = mesh_server::Mesh::follow(&*self, Request::new(asked.request.clone())).await;
        // A follower that went away is what most of them do.
        let _ = asked.answer(events.map(Response::into_inner)).await;
    }

    pub(crate) fn revision(&self) -> Revision {
        self.0.history.read(|history| history.mesh().revision())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.0.history.read(|history| history.mesh().snapshot())
    }

    pub(crate) fn set_staleness(&self, staleness: Duration) {
        self.0.staleness_ms.store(u64::try_from(staleness.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Without it writes are answered with `unavailable`, as by a member without a leader.
    pub(crate) fn set_available(&self, available: bool) {
        *self.0.available.lock().unwrap() = available;
    }

    /// The next writes are carried out, and their answers never come.
    pub(crate) fn lose_answers(&self, count: u64) {
        self.0.lose_answers.store(count, Ordering::Relaxed);
    }

    /// Without them it is as a server of an older version, which does not know what it is asked for.
    pub(crate) fn serve_views(&self, views: bool) {
        self.0.views.store(views, Ordering::Relaxed);
    }

    /// Without that it is as a member of an older version, which refuses reserved labels.
    pub(crate) fn know_proxies(&self, knows: bool) {
        self.0.knows_proxies.store(knows, Ordering::Relaxed);
    }

    /// What followers asked for, in order.
    pub(crate) fn followed(&self) -> Vec<v1::FollowRequest> {
        self.0.followed.lock().unwrap().clone()
    }

    /// For whom the writes were that arrived.
    pub(crate) fn askers(&self) -> Vec<Option<String>> {
        self.0.askers.lock().unwrap().clone()
    }

    pub(crate) fn reports(&self) -> Vec<v1::ReportRequest> {
        self.0.reports.lock().unwrap().clone()
    }

    /// The signs of life that came, command by command.
    pub(crate) fn signs_of_life(&self) -> Vec<Vec<SignOfLife>> {
        self.0.alive.lock().unwrap().clone()
    }

    /// Makes one revision.
    pub(crate) fn push(&self, changes: Vec<Change>) -> Revision {
        let revision = self.revision().next();
        self.0.history.push(Delta { revision, changes }).unwrap();
        revision
    }

    pub(crate) fn put(&self, record: Record) -> Revision {
        self.push(vec![Change::Put(record)])
    }

    pub(crate) fn execute(&self, command: Command) -> Result<Committed, Box<Refusal>> {
        let mut identities = self.0.writing.lock().unwrap();
        let mesh = self.0.history.read(|history| Mesh::from_snapshot(history.mesh().snapshot()));
        if let Command::PutEndpoint(spec) = &command
            && reserved_endpoint(&spec.labels).is_some()
            && !self.0.knows_proxies.load(Ordering::Relaxed)
        {
            return Err(Box::new(Refusal::ReservedLabel { label: spec.labels.to_string() }));
        }
        let (changes, identity) = transition(&mesh, &mut identities, command)?;
        let new: Vec<_> = changes.into_iter().filter(|change| !is_there(&mesh, change)).collect();
        let changed = !new.is_empty();
        let revision = if changed { self.push(new) } else { mesh.revision() };
        Ok(Committed { revision, changed, identity })
    }
}

impl link::Handler for TestStore {
    fn hello(&self, introduction: Introduction) {
        assert_eq!(introduction, Introduction::own());
    }

    async fn call(&self, method: u8, payload: Bytes) -> Result<Vec<u8>, Status> {
        assert_eq!(method, link::method::COMMAND);
        let call = v1::CommandCall::decode(payload).unwrap();
        let mut request = Request::new(call.command.unwrap());
        if !call.on_behalf_of.is_empty() {
            request.metadata_mut().insert(ON_BEHALF_OF, call.on_behalf_of.parse().unwrap());
        }
        Ok(mesh_server::Mesh::execute(self, request).await?.into_inner().encode_to_vec())
    }
}

fn is_there(mesh: &Mesh, change: &Change) -> bool {
    matches!(change, Change::Put(record) if mesh.get(&record.key()) == Some(record))
}

type Identities = BTreeMap<LabelSet, Identity>;

fn transition(
    mesh: &Mesh,
    identities: &mut Identities,
    command: Command,
) -> Result<(Vec<Change>, Option<Identity>), Box<Refusal>> {
    match command {
        Command::PutCluster(cluster) => {
            if let Some(owner) = mesh.clusters().find(|other| other.id == cluster.id && other.name != cluster.name) {
                return Err(Box::new(Refusal::ClusterIdInUse { id: cluster.id, owner: owner.name.clone() }));
            }
            Ok((vec![Change::Put(Record::Cluster(cluster))], None))
        }
        Command::PutNode(node) => {
            if !mesh.clusters().any(|cluster| cluster.name == node.cluster) {
                return Err(Box::new(Refusal::UnknownCluster { cluster: node.cluster }));
            }
            for other in mesh.endpoints() {
                if let Some(address) = other.addresses.iter().find(|address| node.addresses.contains(address)) {
                    return Err(Box::new(Refusal::AddressInUse { address: *address, owner: other.key() }));
                }
            }
            Ok((vec![Change::Put(Record::Node(node))], None))
        }
        Command::PutEndpoint(spec) => put_endpoint(mesh, identities, spec),
        Command::PutPolicies(policies) => {
            Ok((policies.into_iter().map(|policy| Change::Put(Record::Policy(policy))).collect(), None))
        }
        Command::Delete(key) if mesh.get(&key).is_none() => Err(Box::new(Refusal::NotFound { key })),
        Command::Delete(key) => Ok((vec![Change::Delete(key)], None)),
        Command::DeletePolicies(keys) => {
            let keys: Vec<_> = keys.into_iter().map(RecordKey::Policy).collect();
            match keys.iter().find(|key| mesh.get(key).is_none()) {
                Some(key) => Err(Box::new(Refusal::NotFound { key: key.clone() })),
                None => Ok((keys.into_iter().map(Change::Delete).collect(), None)),
            }
        }
        Command::KeepAlive { .. } => Ok((vec![], None)),
        other => unreachable!("no test sends {other:?}"),
    }
}

fn put_endpoint(
    mesh: &Mesh,
    identities: &mut Identities,
    spec: EndpointSpec,
) -> Result<(Vec<Change>, Option<Identity>), Box<Refusal>> {
    if mesh.get(&RecordKey::Node(spec.cluster.clone(), spec.node.clone())).is_none() {
        return Err(Box::new(Refusal::UnknownNode { cluster: spec.cluster, node: spec.node }));
    }
    let key = RecordKey::Endpoint(spec.cluster.clone(), spec.node.clone(), spec.name.clone());
    for other in mesh.endpoints().filter(|other| other.key() != key) {
        if let Some(address) = other.addresses.iter().find(|address| spec.addresses.contains(address)) {
            return Err(Box::new(Refusal::AddressInUse { address: *address, owner: other.key() }));
        }
    }
    let mut labels = spec.labels;
    if let Some(identity) = reserved_endpoint(&labels) {
        let EndpointSpec { cluster, node, name, addresses, named_ports, .. } = spec;
        let endpoint = Endpoint { cluster, node, name, addresses, labels, identity, named_ports };
        return Ok((vec![Change::Put(Record::Endpoint(endpoint.into()))], Some(identity)));
    }
    labels.insert(Label::new(SOURCE_K8S, CLUSTER_KEY, spec.cluster.as_str()));
    let cluster = mesh.clusters().find(|cluster| cluster.name == spec.cluster).map(|cluster| cluster.id);
    let next =
        Identity::global(cluster.unwrap_or(ClusterId::new(1).unwrap()), u32::try_from(identities.len()).unwrap() + 1)
            .unwrap();
    let identity = *identities.entry(labels.clone()).or_insert(next);
    let endpoint = Endpoint {
        cluster: spec.cluster,
        node: spec.node,
        name: spec.name,
        addresses: spec.addresses,
        labels: labels.clone(),
        identity,
        named_ports: spec.named_ports,
    };
    let identity_record = Record::Identity(IdentityRecord { identity, labels });
    Ok((vec![Change::Put(identity_record), Change::Put(Record::Endpoint(endpoint.into()))], Some(identity)))
}

#[tonic::async_trait]
impl mesh_server::Mesh for TestStore {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let state = Arc::clone(&self.0);
        let staleness: Staleness = Arc::new(move || Duration::from_millis(state.staleness_ms.load(Ordering::Relaxed)));
        self.0.followed.lock().unwrap().push(request.get_ref().clone());
        let v1::FollowRequest { from_revision, interests, store_id, .. } = request.into_inner();
        let interests = interests.filter(|_| self.0.views.load(Ordering::Relaxed));
        let from = Position::parse(&store_id, from_revision).unwrap();
        let interest = interests.map(Interest::try_from).transpose()?;
        let events = follow::serve_position(Arc::clone(&self.0.history), from, interest.clone(), staleness)?;
        Ok(follow::answer(events, interest.as_ref()))
    }

    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        if !*self.0.available.lock().unwrap() {
            return Err(Status::unavailable("no leader is known"));
        }
        let asker = request.metadata().get(ON_BEHALF_OF).map(|asker| asker.to_str().unwrap().to_owned());
        self.0.askers.lock().unwrap().push(asker);
        let command = Command::try_from(request.into_inner())?;
        if let Command::KeepAlive { nodes, .. } = &command {
            self.0.alive.lock().unwrap().push(nodes.clone());
        }
        let executed = TestStore::execute(self, command).map_err(|refusal| refusal_status(&refusal))?;
        let lose = |left: u64| left.checked_sub(1);
        if self.0.lose_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose).is_ok() {
            return Err(Status::cancelled("the connection broke"));
        }
        Ok(Response::new(executed.into()))
    }

    async fn list(&self, _request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let snapshot = self.snapshot();
        Ok(Response::new(follow::list(snapshot.revision, Duration::ZERO, snapshot.records.into_values())))
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let nodes = self.0.history.read(|history| {
            let status = |node: &Node| v1::NodeStatus {
                cluster: node.cluster.to_string(),
                name: node.name.to_string(),
                ..v1::NodeStatus::default()
            };
            history.mesh().nodes().map(status).collect()
        });
        let member = v1::MemberStatus { id: 1, state: "leader".to_owned(), ..v1::MemberStatus::default() };
        Ok(Response::new(v1::StatusResponse {
            responder: "member 1 (east)".to_owned(),
            revision: self.revision().0,
            members: vec![member],
            nodes,
            ..v1::StatusResponse::default()
        }))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        self.0.reports.lock().unwrap().push(request.into_inner());
        Ok(Response::new(v1::ReportResponse {}))
    }
}

pub(crate) fn node(cluster: &str, name: &str, address: &str) -> Node {
    Node {
        cluster: Name::new(cluster).unwrap(),
        name: Name::new(name).unwrap(),
        addresses: vec![address.parse().unwrap()],
        labels: LabelSet::default(),
    }
}
