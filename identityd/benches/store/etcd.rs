//! etcd: three members, and the calls of its v3 API that the workloads need.

mod api;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ringfence_runtime::tls::TlsFiles;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{certificates, fanout, processes::Processes};
use api::{Compare, KeyValue, RequestOp};

const CLIENT_PORTS: [u16; 3] = [23791, 23792, 23793];
const PEER_PORTS: [u16; 3] = [23801, 23802, 23803];

/// Three members that have a leader.
pub(crate) struct Etcd {
    pub(crate) processes: Processes,
    tls: Option<TlsFiles>,
    /// Position of the leader.
    pub(crate) leader: usize,
}

impl Etcd {
    pub(crate) fn version() -> String {
        let output =
            Command::new("etcd").arg("--version").output().expect("etcd must be installed: Debian's etcd-server");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    }

    /// Without `tls` nothing is encrypted.
    pub(crate) async fn start(directory: &Path, tls: Option<&TlsFiles>) -> Self {
        let mut processes = Processes::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
        let cluster: Vec<_> = (0..3).map(|n| format!("n{n}={}", url(PEER_PORTS[n]))).collect();
        for n in 0..3 {
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("n{n}"), "--data-dir"]).arg(directory.join(format!("etcd-{n}")));
            for flag in ["--listen-client-urls", "--advertise-client-urls"] {
                command.args([flag, &url(CLIENT_PORTS[n])]);
            }
            for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                command.args([flag, &url(PEER_PORTS[n])]);
            }
            command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
            command.args(["--log-level", "error", "--logger", "zap", "--auto-compaction-retention", "0"]);
            command.args(["--quota-backend-bytes", "4294967296"]);
            for (prefix, tls) in tls.into_iter().flat_map(|tls| [("--", tls), ("--peer-", tls)]) {
                command.arg(format!("{prefix}cert-file")).arg(&tls.certificate);
                command.arg(format!("{prefix}key-file")).arg(&tls.key);
                command.arg(format!("{prefix}trusted-ca-file")).arg(&tls.ca);
                command.arg(format!("{prefix}client-cert-auth"));
            }
            processes.spawn(&mut command, &directory.join(format!("etcd-{n}.log")));
        }
        let mut etcd = Self { processes, tls: tls.cloned(), leader: 0 };
        etcd.leader = etcd.find_leader().await;
        etcd
    }

    /// A connection of its own to a member.
    pub(crate) fn connect(&self, member: usize) -> Client {
        let address = format!("127.0.0.1:{}", CLIENT_PORTS[member % 3]);
        Client(match &self.tls {
            Some(tls) => certificates::dial(tls, &address),
            None => Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(),
        })
    }

    async fn find_leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            for member in 0..3 {
                let status = self.connect(member).status().await;
                if let Ok(status) = status
                    && status.leader != 0
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return member;
                }
            }
            assert!(Instant::now() < deadline, "etcd has no leader after 30 s: see its logs");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Client(Channel);

impl Client {
    async fn unary<M, R>(&self, path: &'static str, message: M) -> Result<R, tonic::Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(256 << 20);
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(Request::new(message), path, ProstCodec::<M, R>::default()).await?.into_inner())
    }

    async fn status(&self) -> Result<api::StatusResponse, tonic::Status> {
        self.unary("/etcdserverpb.Maintenance/Status", api::StatusRequest {}).await
    }

    pub(crate) async fn put(&self, key: Vec<u8>, value: Vec<u8>) {
        let _: api::PutResponse = self.unary("/etcdserverpb.KV/Put", api::PutRequest { key, value }).await.unwrap();
    }

    /// The keys of a range in one answer.
    pub(crate) async fn range(&self, key: Vec<u8>, range_end: Vec<u8>, limit: i64) -> Vec<KeyValue> {
        let request = api::RangeRequest { key, range_end, limit };
        self.unary::<_, api::RangeResponse>("/etcdserverpb.KV/Range", request).await.unwrap().kvs
    }

    async fn txn(&self, compare: Compare, success: RequestOp) -> bool {
        let request = api::TxnRequest { compare: vec![compare], success: vec![success], failure: vec![] };
        self.unary::<_, api::TxnResponse>("/etcdserverpb.KV/Txn", request).await.unwrap().succeeded
    }

    /// The calls of one new identity in Cilium's allocator: 5 transactions (3 of them write), 1 linearizable range,
    /// 1 delete, one after the other.
    pub(crate) async fn allocate(&self, labels: &str, number: u64, agent: usize) {
        let lock = format!("locks/{labels}").into_bytes();
        let master = format!("id/{number}").into_bytes();
        let slave = format!("value/{labels}/{agent}").into_bytes();
        assert!(self.txn(Compare::absent(&lock), RequestOp::put(&lock, b"held")).await);
        let prefix = format!("value/{labels}/").into_bytes();
        let mut end = prefix.clone();
        *end.last_mut().unwrap() += 1;
        assert!(self.range(prefix.clone(), end, 1).await.is_empty());
        assert!(self.txn(Compare::present(&lock), RequestOp::range(&prefix)).await);
        assert!(self.txn(Compare::absent(&master), RequestOp::put(&master, labels.as_bytes())).await);
        assert!(self.txn(Compare::present(&lock), RequestOp::range(&master)).await);
        assert!(self.txn(Compare::present(&lock), RequestOp::put(&slave, number.to_string().as_bytes())).await);
        let delete = api::DeleteRangeRequest { key: lock };
        let _: api::DeleteRangeResponse = self.unary("/etcdserverpb.KV/DeleteRange", delete).await.unwrap();
    }

    /// Watches all keys that begin with a prefix, from now on; messages come as bytes.
    pub(crate) async fn watch_raw(&self, prefix: &[u8]) -> fanout::Stream {
        let mut end = prefix.to_vec();
        *end.last_mut().unwrap() += 1;
        let create = api::WatchCreateRequest { key: prefix.to_vec(), range_end: end };
        let request = api::WatchRequest { request: Some(api::watch_request::Request::Create(create)) };
        fanout::open(self.0.clone(), "/etcdserverpb.Watch/Watch", request).await
    }
}
