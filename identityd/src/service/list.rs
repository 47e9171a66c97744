//! Reads: linearizable, confirmed by a quorum, or stale with the staleness told. Both are answered from here.

use std::time::Duration;

use ringfence_policy::record::Kind;
use ringfence_proto::{
    convert::InvalidMessage,
    follow::{self, ListResponseStream},
    v1,
};
use tokio::time::Instant;
use tonic::Status;

use super::{MeshService, execute::wait_a_moment};
use crate::raft::read::NotConfirmed;

impl MeshService {
    /// Answers a list request; a linearizable one is tried until `deadline`. Reading twice harms nobody.
    pub(super) async fn list_until(
        &self,
        request: v1::ListRequest,
        deadline: Instant,
    ) -> Result<ListResponseStream, Status> {
        let kind = Kind::try_from(request.kind())?;
        let consistency = v1::Consistency::try_from(request.consistency)
            .map_err(|_| InvalidMessage::Unknown { field: "ListRequest.consistency", number: request.consistency })?;
        if consistency == v1::Consistency::Stale {
            return Ok(self.list_here(kind, self.freshness.staleness()));
        }
        loop {
            let reason = if *self.members.quorum().borrow() {
                match self.reads.confirm(deadline).await {
                    Ok(()) => return Ok(self.list_here(kind, Duration::ZERO)),
                    Err(reason @ NotConfirmed::TooMany) => return Err(Status::resource_exhausted(reason.to_string())),
                    Err(NotConfirmed::NoQuorum) => self.no_quorum(),
                    Err(reason) => Status::unavailable(reason.to_string()),
                }
            } else {
                self.no_quorum()
            };
            if !wait_a_moment(deadline).await {
                return Err(reason);
            }
        }
    }

    fn list_here(&self, kind: Kind, staleness: Duration) -> ListResponseStream {
        let (revision, records) = self.history.read(|history| {
            let mesh = history.mesh();
            let of_kind = mesh.records().iter().filter(|(key, _)| key.kind() == kind);
            (mesh.revision(), of_kind.map(|(_, versioned)| versioned.clone()).collect::<Vec<_>>())
        });
        follow::list(revision, staleness, records.into_iter())
    }
}
