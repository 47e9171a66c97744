//! Our store: three `identityd` processes, and the calls that the workloads need.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message as _;
use ringfence_proto::{
    link::{Link, method},
    v1::{self, command::Command as Kind, mesh_client::MeshClient},
};
use ringfence_runtime::tls::TlsFiles;
use tonic::transport::Channel;

use crate::{
    certificates,
    fanout::{self, Stream},
    processes::Processes,
};

const PORTS: [u16; 3] = [23811, 23812, 23813];
/// Identities are spread over this many clusters.
pub(crate) const CLUSTERS: u32 = 16;
/// Label sets that endpoints of the put workload share.
const LABEL_SETS: u64 = 100;

/// Three members that have a leader, with clusters c1 … c16, each with node n1.
pub(crate) struct Ours {
    pub(crate) processes: Processes,
    tls: TlsFiles,
    /// Position of the leader.
    pub(crate) leader: usize,
}

impl Ours {
    pub(crate) async fn start(directory: &Path, tls: &TlsFiles) -> Self {
        let mut processes = Processes::default();
        let members = PORTS.iter().enumerate().fold(String::new(), |mut list, (n, port)| {
            let _ = write!(list, "{{id: {}, cluster: c{}, address: '127.0.0.1:{port}'}}, ", n + 1, n + 1);
            list
        });
        for (n, port) in PORTS.iter().enumerate() {
            let TlsFiles { ca, certificate, key } = certificates::of_member(&tls.ca, n + 1);
            let config = directory.join(format!("identityd-{n}.yaml"));
            let data = directory.join(format!("identityd-{n}"));
            let text = format!(
                "id: {id}\ncluster: c{id}\nlisten: 127.0.0.1:{port}\ndata_dir: {}\nmembers: [{members}]\n\
                 tls: {{ca: {}, certificate: {}, key: {}}}\n",
                data.display(),
                ca.display(),
                certificate.display(),
                key.display(),
                id = n + 1,
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_identityd"));
            command.arg("--config").arg(&config);
            processes.spawn(&mut command, &directory.join(format!("identityd-{n}.log")));
        }
        let mut ours = Self { processes, tls: tls.clone(), leader: 0 };
        ours.leader = ours.find_leader().await;
        let client = ours.connect(ours.leader);
        for id in 1..=CLUSTERS {
            let cluster = format!("c{id}");
            let node = v1::Node { cluster: cluster.clone(), name: "n1".to_owned(), addresses: vec![], labels: vec![] };
            client.execute(Kind::PutCluster(v1::Cluster { name: cluster, id, pod_cidrs: vec![] })).await;
            client.execute(Kind::PutNode(node)).await;
        }
        ours
    }

    /// A connection of its own to a member.
    pub(crate) fn connect(&self, member: usize) -> Client {
        let address = address(member);
        Client(certificates::dial(&self.tls, &address), certificates::link(&self.tls, &address))
    }

    /// Follows a member, on a connection of its own.
    pub(crate) async fn follow(&self, member: usize, from: u64) -> Stream {
        fanout::follow(&certificates::dialer(&self.tls), &address(member), from).await
    }

    async fn find_leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(status) = MeshClient::new(self.connect(0).0).status(v1::StatusRequest {}).await {
                let members = status.into_inner().members;
                if let Some(leader) = members.iter().position(|member| member.state == "leader") {
                    return leader;
                }
            }
            assert!(Instant::now() < deadline, "identityd has no leader after 30 s: see its logs");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn address(member: usize) -> String {
    format!("127.0.0.1:{}", PORTS[member % 3])
}

/// One connection of each kind: gRPC to read, and a link to write, as gateways do; made when first used.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Channel, Link);

impl Client {
    async fn execute(&self, command: Kind) -> v1::Committed {
        let command = Some(v1::Command { command: Some(command) });
        let call = v1::CommandCall { command, ..v1::CommandCall::default() };
        let answer = self.1.call(method::COMMAND, call.encode_to_vec()).await.unwrap();
        v1::Committed::decode(answer).unwrap()
    }

    /// An endpoint record of about 256 bytes. `mark` is an IPv6 address that makes the record a new one.
    pub(crate) async fn put(&self, key: u64, mark: String) {
        let address = format!("10.{}.{}.{}", key >> 16 & 255, key >> 8 & 255, key & 255);
        let endpoint = v1::Endpoint {
            cluster: "c1".to_owned(),
            node: "n1".to_owned(),
            name: format!("e{key:08}"),
            addresses: vec![address, mark],
            labels: labels(&format!("p{}", key % LABEL_SETS), "payments"),
            identity: 0,
            named_ports: vec![],
        };
        let committed = self.execute(Kind::PutEndpoint(endpoint)).await;
        assert!(committed.changed);
    }

    /// A new label set of about 230 bytes.
    pub(crate) async fn allocate(&self, cluster: u32, app: &str) {
        let cluster = format!("c{}", cluster % CLUSTERS + 1);
        let labels = labels(app, &cluster);
        let committed = self.execute(Kind::AllocateIdentity(v1::AllocateIdentity { cluster, labels })).await;
        assert!(committed.changed);
    }
}

/// Five labels as Kubernetes gives them; the store adds the cluster's.
pub(crate) fn labels(app: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("k8s:app={app}"),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        format!("k8s:io.cilium.k8s.policy.serviceaccount={app}"),
        format!("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}"),
        "k8s:tier=backend".to_owned(),
    ]
}
