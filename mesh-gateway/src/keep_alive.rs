//! Signs of life of the cluster's nodes on their way to the store: one command for all of them.
//!
//! ```text
//! agents ─ Report ─► Reports ─ four times in a lease ─► KeepAlive { every node heard of lately } ─► store
//! ```
//!
//! A node that is left out for too long loses its endpoints. A gateway that tells nothing takes nothing from anybody: the
//! store ends nodes only of clusters that it hears of.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_policy::{
    command::{Command, SignOfLife},
    name::Name,
    revision::Revision,
};
use ringfence_proto::{
    status::describe,
    v1::{self, NodeStatus},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::MeshCache,
    members::Members,
    reports::{Reports, milliseconds},
};

/// Tells the store which nodes live.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    pub(crate) cluster: Name,
    pub(crate) members: Arc<Members>,
    pub(crate) cache: Arc<MeshCache>,
    pub(crate) reports: Arc<Reports>,
}

impl KeepAlive {
    /// Tells in every interval, until cancelled.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut head = self.cache.history().head();
        let mut told = Instant::now();
        loop {
            let interval = self.interval();
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep_until((told + interval).into()) => {}
                // Perhaps of the settings.
                _ = head.changed() => continue,
            }
            told = Instant::now();
            let command = v1::Command::from(signs_of_life(&self.cluster, self.reports.current(), interval * 2));
            let outcome = tokio::select! {
                () = token.cancelled() => return,
                outcome = self.members.execute(&command, None, Instant::now() + interval) => outcome,
            };
            if let Err(status) = outcome {
                tracing::debug!(reason = describe(&status), "the store does not hear of this cluster's nodes");
            }
        }
    }

    /// Four times in a lease, as the mesh's settings have it.
    fn interval(&self) -> Duration {
        let settings = self.cache.history().read(|history| history.mesh().settings());
        Duration::from_millis(settings.node_lease_ms) / 4
    }
}

/// All nodes whose last word is not older than `lately`.
fn signs_of_life(cluster: &Name, reports: Vec<NodeStatus>, lately: Duration) -> Command {
    let recent = reports.into_iter().filter(|report| report.report_age_ms <= milliseconds(lately));
    let sign = |report: NodeStatus| {
        let realised = Revision(report.realised_revision);
        Name::new(report.name).ok().map(|node| SignOfLife { node, realised })
    };
    Command::KeepAlive { cluster: cluster.clone(), nodes: recent.filter_map(sign).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_were_heard_of_lately_are_told_of() {
        let report = |name: &str, realised_revision, report_age_ms| NodeStatus {
            name: name.to_owned(),
            realised_revision,
            report_age_ms,
            ..NodeStatus::default()
        };
        let reports = vec![report("n1", 7, 2000), report("n2", 8, 2001), report("No Name", 9, 0)];
        let cluster = Name::new("east").unwrap();
        let n1 = SignOfLife { node: Name::new("n1").unwrap(), realised: Revision(7) };
        let command = signs_of_life(&cluster, reports, Duration::from_secs(2));
        assert_eq!(command, Command::KeepAlive { cluster, nodes: vec![n1] });
    }
}
