//! The gRPC service `Maintenance`: what an operator asks of one member.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ringfence_policy::revision::Revision;
use ringfence_proto::{
    backup,
    follow::SharedHistory,
    v1::{self, maintenance_server},
    version::{self, Peers},
};
use ringfence_runtime::tls::Tls;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    freshness::Freshness,
    observe::bytes_below,
    raft::{Raft, applier::Applier, guard::Members},
    reports::milliseconds,
    restore::rows,
};

/// Parts of a backup that wait for the network.
const PARTS_AHEAD: usize = 4;

/// Serves operators.
pub struct MaintenanceService {
    pub(crate) raft: Raft,
    pub(crate) applier: Applier,
    pub(crate) history: Arc<SharedHistory>,
    pub(crate) members: Arc<Members>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) data_dir: PathBuf,
}

impl MaintenanceService {
    fn store_id(&self) -> String {
        self.history.position().store.map(|store| store.to_string()).unwrap_or_default()
    }
}

#[tonic::async_trait]
impl maintenance_server::Maintenance for MaintenanceService {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupPart, Status>> + Send>>;

    async fn member_report(
        &self,
        _: Request<v1::MemberReportRequest>,
    ) -> Result<Response<v1::MemberReportResponse>, Status> {
        let (metrics, marker) = (self.raft.metrics().borrow().clone(), self.applier.marker());
        let not_after = self.tls.material().expiries().first().map(|own| seconds(own.not_after));
        Ok(Response::new(v1::MemberReportResponse {
            status: Some(self.members.own_status()),
            leader: metrics.current_leader.unwrap_or_default(),
            digest_index: marker.applied.map_or(0, |log_id| log_id.index),
            state_digest: marker.digest,
            snapshot_index: metrics.snapshot.map_or(0, |log_id| log_id.index),
            wal_bytes: bytes_below(&self.data_dir.join("wal")),
            snapshot_bytes: bytes_below(&self.data_dir.join("snapshot")),
            state_bytes: bytes_below(&self.data_dir.join("state")),
            oldest_revision: self.history.read(|history| history.oldest().0),
            staleness_ms: milliseconds(self.freshness.staleness()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificate_not_after: not_after.unwrap_or_default(),
            feature_level: version::LEVEL,
            heard_feature_levels: self.peers.levels().into_iter().collect(),
            store_id: self.store_id(),
        }))
    }

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let own = self.members.own();
        // Both of one moment: whoever applies entries holds the book.
        let (snapshot, ledger) = self
            .applier
            .read_book(|book| (self.history.read(|history| history.mesh().snapshot()), book.ledger().clone()));
        tracing::info!(revision = %snapshot.revision, records = snapshot.records.len(), "a backup is taken");
        let header = v1::BackupHeader {
            revision: snapshot.revision.0,
            saved_at: seconds(SystemTime::now()),
            saved_by: format!("member {} ({})", own.id, own.cluster),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_id: self.store_id(),
            authorities: authorities(&self.tls),
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(PARTS_AHEAD);
        tokio::task::spawn_blocking(move || {
            for data in backup::write(header, snapshot, rows::kept(&ledger)) {
                if sender.blocking_send(v1::BackupPart { data }).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok))))
    }

    async fn compact(&self, request: Request<v1::CompactRequest>) -> Result<Response<v1::CompactResponse>, Status> {
        let upto = Revision(request.into_inner().revision);
        let head = self.history.read(|history| history.mesh().revision());
        if upto > head {
            return Err(Status::out_of_range(format!("revision {upto} is still to come: this member is at {head}")));
        }
        let oldest = self.history.compact(upto);
        tracing::info!(%upto, %oldest, "the history was compacted");
        Ok(Response::new(v1::CompactResponse { oldest_revision: oldest.0 }))
    }
}

/// The serial numbers of the authorities: what tells one mesh from another.
pub(crate) fn authorities(tls: &Tls) -> Vec<String> {
    let material = tls.material();
    let authorities = material.expiries().iter().filter(|expiry| expiry.what == "authority");
    authorities.map(|expiry| expiry.serial.clone()).collect()
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(since).unwrap_or(i64::MAX)
}
