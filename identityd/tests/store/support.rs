//! A store of three real members on loopback, with mutual TLS and temporary directories.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use ringfence_identityd::{Config, Member, MemberConfig};
use ringfence_policy::{
    command::{Command, Committed},
    identity::ClusterId,
    label::{Label, LabelSet},
    name::Name,
    record::{Cluster, Node},
};
use ringfence_proto::{
    connect::{Dialer, Expected, SERVER_NAME},
    v1::{self, mesh_client::MeshClient},
};
use ringfence_runtime::{
    telemetry::{self, LogFormat},
    tls::{Tls, TlsFiles},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{Mutex, MutexGuard},
};
use tonic::{Request, Status, transport::Channel};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// One store at a time: three members need the machine's cores to keep Raft's times.
static ALONE: Mutex<()> = Mutex::const_new(());
/// As many certificates are made.
const MOST_MEMBERS: u64 = 5;
const CLUSTERS: [&str; 3] = ["east", "west", "south"];

pub(crate) struct Store {
    pub(crate) directory: TempDir,
    pub(crate) configs: BTreeMap<u64, Config>,
    pub(crate) running: BTreeMap<u64, Member>,
    channels: BTreeMap<u64, Channel>,
    _alone: MutexGuard<'static, ()>,
}

impl Store {
    /// Three members that have elected a leader.
    pub(crate) async fn start(snapshot_every: u64) -> Self {
        let alone = ALONE.lock().await;
        if std::env::var_os("RINGFENCE_LOG").is_some() {
            telemetry::init(LogFormat::Text);
        }
        let directory = tempfile::tempdir().unwrap();
        let tls = certificates(directory.path());
        let mut listeners = Vec::new();
        for _ in CLUSTERS {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let members: Vec<_> = (1..)
            .zip(CLUSTERS.iter().zip(&listeners))
            .map(|(id, (cluster, listener))| {
                let address = listener.local_addr().unwrap().to_string();
                MemberConfig { id, cluster: name(cluster), address }
            })
            .collect();
        let (configs, running, channels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut store = Self { directory, configs, running, channels, _alone: alone };
        for (member, listener) in members.iter().zip(listeners) {
            let config = Config {
                id: member.id,
                cluster: member.cluster.clone(),
                listen: listener.local_addr().unwrap(),
                data_dir: store.directory.path().join(member.id.to_string()),
                members: members.clone(),
                join: false,
                tls: tls_of(&tls, member.id),
                heartbeat_interval_ms: 200,
                election_timeout_min_ms: 700,
                election_timeout_max_ms: 1200,
                snapshot_every,
                history: 1000,
                health_listen: None,
                log_format: LogFormat::Text,
                drain_timeout_ms: 2000,
            };
            store.running.insert(member.id, Member::start_on(config.clone(), listener).await.unwrap());
            store.channels.insert(member.id, dial(&tls, &config.listen.to_string()));
            store.configs.insert(member.id, config);
        }
        store.leader().await;
        store
    }

    /// The member that leads, once the running ones agree on a running one.
    pub(crate) async fn leader(&self) -> u64 {
        until("a leader", || async {
            let leaders: Vec<_> = self.running.values().map(Member::leader).collect();
            let first = leaders.first().copied().flatten()?;
            (leaders.iter().all(|leader| *leader == Some(first)) && self.running.contains_key(&first)).then_some(first)
        })
        .await
    }

    pub(crate) async fn kill(&mut self, id: u64) {
        self.running.remove(&id).unwrap().kill().await;
    }

    pub(crate) async fn restart(&mut self, id: u64) {
        let config = self.configs[&id].clone();
        self.running.insert(id, Member::start(config).await.unwrap());
    }

    pub(crate) fn channel(&self, id: u64) -> Channel {
        let config = &self.configs[&id];
        self.channels.get(&id).cloned().unwrap_or_else(|| dial(&config.tls, &config.listen.to_string()))
    }

    pub(crate) fn client(&self, id: u64) -> MeshClient<Channel> {
        MeshClient::new(self.channel(id))
    }

    pub(crate) async fn execute(&self, id: u64, command: &Command, timeout: Duration) -> Result<Committed, Status> {
        let mut request = Request::new(v1::Command::from(command.clone()));
        request.set_timeout(timeout);
        Ok(self.client(id).execute(request).await?.into_inner().into())
    }

    /// Clusters east, west and south, each with node n1.
    pub(crate) async fn register(&self) {
        for (id, cluster) in (1..).zip(CLUSTERS) {
            let node =
                Node { cluster: name(cluster), name: name("n1"), addresses: vec![], labels: LabelSet::default() };
            let cluster = Cluster { name: name(cluster), id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] };
            for command in [Command::PutCluster(cluster), Command::PutNode(node)] {
                assert!(self.execute(u64::from(id), &command, PATIENCE).await.unwrap().changed);
            }
        }
    }

    /// Returns when all running members have applied the same entry, with the same state (S14).
    pub(crate) async fn converge(&self) {
        until("equal states", || async {
            let states: Vec<_> = self.running.values().map(Member::state_digest).collect();
            let applied = states[0].0;
            if states.iter().any(|(other, _)| *other != applied) {
                return None;
            }
            assert!(states.iter().all(|(_, digest)| *digest == states[0].1), "S14 is broken: {states:?}");
            Some(())
        })
        .await;
    }
}

/// Polls until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn labels(app: &str) -> LabelSet {
    [Label::new("k8s", "app", app)].into_iter().collect()
}

/// A label set of about 20 KB.
pub(crate) fn allocate_fat(cluster: &str, app: &str) -> Command {
    let fat = (0..45).map(|number| Label::new("k8s", format!("fat-{number}"), "x".repeat(440)));
    let labels = fat.chain([Label::new("k8s", "app", app)]).collect();
    Command::AllocateIdentity { cluster: name(cluster), labels }
}

pub(crate) fn allocate(cluster: &str, app: &str) -> Command {
    Command::AllocateIdentity { cluster: name(cluster), labels: labels(app) }
}

/// Certificates beside the members', by the names of their files.
pub(crate) const OTHERS: [(&str, &[&str]); 6] = [
    ("admin", &["spiffe://ringfence/admin/me"]),
    ("reader", &["spiffe://ringfence/reader/me"]),
    ("gateway", &["spiffe://ringfence/gateway/east"]),
    ("agent", &["spiffe://ringfence/agent/east/n1"]),
    ("nameless", &[]),
    ("two-faced", &["spiffe://ringfence/reader/me", "spiffe://ringfence/admin/me"]),
];

/// A connection that shows a certificate.
pub(crate) fn dial(tls: &TlsFiles, address: &str) -> Channel {
    dialer(tls).channel(address).unwrap()
}

/// Makes connections that show a certificate.
pub(crate) fn dialer(tls: &TlsFiles) -> Dialer {
    let tls = Tls::open(tls.clone()).unwrap();
    Dialer::new(Expected::Member, move || tls.client())
}

/// The files of a member; those of member 1 are given.
pub(crate) fn tls_of(first: &TlsFiles, id: u64) -> TlsFiles {
    let file = |suffix: &str| first.ca.with_file_name(format!("member-{id}.{suffix}"));
    TlsFiles { ca: first.ca.clone(), certificate: file("crt"), key: file("key") }
}

/// A list that revokes one certificate.
fn revocation(authority: &CertifiedIssuer<'_, KeyPair>, serial: u64) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2036, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).unwrap().pem().unwrap()
}

/// One authority, and a certificate for each of the first members; gives the files of member 1.
pub(crate) fn certificates(directory: &Path) -> TlsFiles {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut serial = 0;
    let mut issue = |uris: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        serial += 1_u64;
        params.serial_number = Some(SerialNumber::from(serial));
        (params.signed_by(&key, &authority).unwrap(), key)
    };
    for (number, (name, uris)) in (1_u64..).zip(OTHERS) {
        fs::write(directory.join(format!("{name}.revoked")), revocation(&authority, number)).unwrap();
        let (certificate, key) = issue(uris);
        fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let ca = directory.join("ca.crt");
    fs::write(&ca, authority.pem()).unwrap();
    for id in 1..=MOST_MEMBERS {
        let (certificate, key) = issue(&[&format!("spiffe://ringfence/member/{id}")]);
        fs::write(directory.join(format!("member-{id}.crt")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("member-{id}.key")), key.serialize_pem()).unwrap();
    }
    tls_of(&TlsFiles { ca: ca.clone(), certificate: ca.clone(), key: ca }, 1)
}
