//! Reports on their way up: what the agents said and how the gateway itself does.

use std::{sync::Arc, time::Duration};

use ringfence_policy::name::Name;
use ringfence_proto::{pool::Server, status::describe, v1};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::MeshCache,
    reports::{Reports, milliseconds},
};

/// Reports that arrive within this time go up together.
const COALESCE: Duration = Duration::from_millis(100);
/// How long a member may take for a report; the next one carries newer figures anyway.
const PUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a report outlives its node's record: a node that registers is reported before its record is cached.
const UNREGISTERED_AFTER: Duration = Duration::from_secs(60);

/// Tells one member; each member has a pusher of its own so that one that hangs delays no other.
#[derive(Debug)]
pub(crate) struct Pusher {
    pub(crate) cluster: Name,
    pub(crate) member: Server,
    pub(crate) cache: Arc<MeshCache>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) interval: Duration,
}

impl Pusher {
    /// Reports on news and in every interval, until cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut changed = self.reports.changed();
        let mut reachable = true;
        loop {
            changed.mark_unchanged();
            let pushed = tokio::select! {
                () = token.cancelled() => return,
                pushed = self.push() => pushed,
            };
            if let Err(status) = &pushed
                && reachable
            {
                tracing::info!(
                    member = self.member.address,
                    reason = describe(status),
                    "reports do not reach the member"
                );
            }
            reachable = pushed.is_ok();
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
                _ = changed.changed() => tokio::time::sleep(COALESCE.min(self.interval)).await,
            }
        }
    }

    async fn push(&self) -> Result<(), tonic::Status> {
        let call = self.member.ask(self.request(), PUSH_TIMEOUT, |mut client, request| async move {
            client.report(request).await.map(|_| ())
        });
        call.await
    }

    fn request(&self) -> v1::ReportRequest {
        let registered = |name: &str| {
            self.cache.history().read(|history| {
                history.mesh().nodes().any(|node| node.cluster == self.cluster && node.name.as_str() == name)
            })
        };
        self.reports.retain(registered, UNREGISTERED_AFTER);
        v1::ReportRequest { gateway: Some(own_status(&self.cluster, &self.cache)), nodes: self.reports.current() }
    }
}

/// How the gateway itself does.
pub(crate) fn own_status(cluster: &Name, cache: &MeshCache) -> v1::GatewayStatus {
    v1::GatewayStatus {
        cluster: cluster.to_string(),
        revision: cache.revision().0,
        report_age_ms: 0,
        upstream: cache.upstream(),
        staleness_ms: milliseconds(cache.freshness().staleness()),
    }
}
