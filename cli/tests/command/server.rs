//! A store of one process: the `Mesh` service over a `SharedHistory`, behind mutual TLS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringfence_policy::{
    command::{Command, Refusal},
    mesh::{History, Mesh as State},
    record::{Change, Delta, Kind, Record, RecordKey, Versioned},
    revision::Revision,
};
use ringfence_proto::{
    backup,
    convert::refusal_status,
    follow::{self, FollowResponseStream, ListResponseStream, SharedHistory},
    v1::{
        self,
        maintenance_server::{Maintenance, MaintenanceServer},
        mesh_server::{Mesh, MeshServer},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use crate::ringfence::{Outcome, argument, authority, command, run, run_with_input};

/// A running server, and the certificates to reach it with.
pub(crate) struct TestMesh {
    pub(crate) address: SocketAddr,
    pub(crate) tls: TempDir,
    pub(crate) store: Arc<Store>,
    _runtime: Runtime,
}

/// What the server knows.
pub(crate) struct Store {
    pub(crate) history: Arc<SharedHistory>,
    /// As agents would have reported.
    pub(crate) nodes: Mutex<Vec<v1::NodeStatus>>,
    /// Backups lack their end.
    pub(crate) cut_backups: AtomicBool,
    /// Requests that got through TLS.
    pub(crate) requests: AtomicUsize,
    /// The certificates of those who sent them, in DER.
    pub(crate) certificates: Mutex<Vec<Vec<u8>>>,
}

impl TestMesh {
    /// Starts on a port of its own, as a member of the store.
    pub(crate) fn start() -> Self {
        Self::start_as("member-1")
    }

    /// As `start`, with a certificate's files.
    pub(crate) fn start_as(certificate: &str) -> Self {
        let tls = authority();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = Arc::new(Store {
            history: Arc::new(SharedHistory::new(History::new(State::default(), 100))),
            nodes: Mutex::default(),
            cut_backups: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            certificates: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .tls_config(server_tls(tls.path(), certificate))
            .unwrap()
            .add_service(MeshServer::from_arc(Arc::clone(&store)))
            .add_service(MaintenanceServer::from_arc(Arc::clone(&store)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { address, tls, store, _runtime: runtime }
    }

    /// Puts records, all in one revision.
    pub(crate) fn put(&self, records: impl IntoIterator<Item = Record>) {
        self.store.commit(records.into_iter().map(Change::Put).collect());
    }

    /// The flags to reach it with.
    pub(crate) fn flags(&self) -> Vec<String> {
        ["--server", &self.address.to_string(), "--tls-dir", argument(self.tls.path())].map(str::to_owned).into()
    }

    /// Runs the binary against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        run(&self.with_flags(arguments))
    }

    /// Runs the binary against it, with a text on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        run_with_input(&self.with_flags(arguments), input)
    }

    /// The binary with the flags to reach it.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command();
        command.args(self.flags()).args(arguments);
        command
    }

    pub(crate) fn requests(&self) -> usize {
        self.store.requests.load(Ordering::SeqCst)
    }
}

/// As `ringfence-runtime` makes it from a process's configuration.
fn server_tls(directory: &Path, certificate: &str) -> ServerTlsConfig {
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let own = |suffix: &str| read(&format!("{certificate}.{suffix}"));
    ServerTlsConfig::new()
        .identity(Identity::from_pem(own("crt"), own("key")))
        .client_ca_root(Certificate::from_pem(read("ca.crt")))
}

impl Store {
    fn commit(&self, changes: Vec<Change>) -> Revision {
        let revision = self.history.read(|history| history.mesh().revision()).next();
        self.history.push(Delta { revision, changes }).unwrap();
        revision
    }

    fn note<T>(&self, request: &Request<T>) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let chain = request.peer_certs().unwrap();
        self.certificates.lock().unwrap().push(chain[0].to_vec());
    }

    /// What the command changes; policies are all that the tests write.
    fn changes(&self, command: Command) -> Result<Vec<Change>, Status> {
        let differs = |change: &Change| match change {
            Change::Put(record) => self.history.read(|history| history.mesh().get(&record.key()) != Some(record)),
            Change::Delete(_) => true,
        };
        let changes: Vec<Change> = match command {
            Command::PutPolicies(policies) => policies.into_iter().map(|p| Change::Put(Record::Policy(p))).collect(),
            Command::DeletePolicies(keys) => {
                keys.into_iter().map(|key| Change::Delete(RecordKey::Policy(key))).collect()
            }
            Command::PutObjects { policies, groups } => {
                let policies = policies.into_iter().map(|policy| Change::Put(Record::Policy(policy)));
                policies.chain(groups.into_iter().map(|group| Change::Put(Record::CidrGroup(group)))).collect()
            }
            Command::PutSettings(settings) => vec![Change::Put(Record::Settings(settings))],
            Command::Delete(key) => vec![Change::Delete(key)],
            other => return Err(Status::unimplemented(format!("{other:?}"))),
        };
        for change in &changes {
            let key = change.key();
            if matches!(change, Change::Delete(_)) && self.history.read(|history| history.mesh().get(&key).is_none()) {
                return Err(refusal_status(&Refusal::NotFound { key }));
            }
        }
        Ok(changes.into_iter().filter(differs).collect())
    }
}

#[tonic::async_trait]
impl Mesh for Store {
    type FollowStream = FollowResponseStream;
    type ListStream = ListResponseStream;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        self.note(&request);
        let from = Revision(request.into_inner().from_revision);
        Ok(Response::new(follow::serve(Arc::clone(&self.history), from, None, Arc::new(|| Duration::ZERO))))
    }

    async fn execute(&self, request: Request<v1::Command>) -> Result<Response<v1::Committed>, Status> {
        self.note(&request);
        let changes = self.changes(request.into_inner().try_into()?)?;
        let changed = !changes.is_empty();
        let revision =
            if changed { self.commit(changes) } else { self.history.read(|history| history.mesh().revision()) };
        Ok(Response::new(v1::Committed { revision: revision.0, changed, identity: 0 }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let kind = Kind::try_from(request.kind())?;
        let staleness = match request.consistency() {
            v1::Consistency::Linearizable => Duration::ZERO,
            v1::Consistency::Stale => Duration::from_secs(42),
        };
        let (revision, records) = self.history.read(|history| {
            let of_kind = |versioned: &&Versioned| versioned.record.key().kind() == kind;
            let records: Vec<_> = history.mesh().records().values().filter(of_kind).cloned().collect();
            (history.mesh().revision(), records)
        });
        Ok(Response::new(follow::list(revision, staleness, records.into_iter())))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.note(&request);
        Ok(Response::new(v1::StatusResponse {
            responder: "member 1 (east)".to_owned(),
            revision: self.history.read(|history| history.mesh().revision()).0,
            staleness_ms: 120,
            members: vec![v1::MemberStatus {
                id: 1,
                address: "127.0.0.1:7400".to_owned(),
                cluster: "east".to_owned(),
                state: "leader".to_owned(),
                term: 3,
                last_log_index: 9,
                applied_index: 8,
                revision: 7,
                state_digest: 0,
            }],
            gateways: vec![v1::GatewayStatus {
                cluster: "east".to_owned(),
                revision: 7,
                report_age_ms: 450,
                upstream: String::new(),
                staleness_ms: 61_000,
            }],
            nodes: self.nodes.lock().unwrap().clone(),
            identities: vec![],
        }))
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        self.note(&request);
        Ok(Response::new(v1::ReportResponse {}))
    }
}

#[tonic::async_trait]
impl Maintenance for Store {
    type BackupStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::BackupPart, Status>>>;

    async fn member_report(
        &self,
        _: Request<v1::MemberReportRequest>,
    ) -> Result<Response<v1::MemberReportResponse>, Status> {
        Err(Status::unimplemented("the tests' member is not where its status says"))
    }

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.note(&request);
        let snapshot = self.history.read(|history| history.mesh().snapshot());
        let header = v1::BackupHeader {
            saved_by: "member 1 (east)".to_owned(),
            store_id: "00000000-0001-7101-8101-010101010101".to_owned(),
            ..v1::BackupHeader::default()
        };
        let mut parts: Vec<_> =
            backup::write(header, snapshot, Vec::new()).map(|data| Ok(v1::BackupPart { data })).collect();
        if self.cut_backups.load(Ordering::SeqCst) {
            parts.pop();
        }
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn compact(&self, _: Request<v1::CompactRequest>) -> Result<Response<v1::CompactResponse>, Status> {
        Err(Status::unimplemented("as above"))
    }
}

impl TestMesh {
    fn with_flags<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        // Leaked: a few dozen bytes in a test, for lifetimes that are easy to read.
        let flags = self.flags().into_iter().map(|flag| &*Box::leak(flag.into_boxed_str()));
        flags.chain(arguments.iter().copied()).collect()
    }
}
