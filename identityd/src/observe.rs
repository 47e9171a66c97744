//! What a member says about itself to probes and collectors.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::{RaftMetrics, ServerState};
use ringfence_proto::follow::SharedHistory;
use ringfence_runtime::{
    health::Health,
    metrics::{self, Counted, Kind, Metric, float, metric},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    freshness::Freshness,
    member::Member,
    raft::{MemberNode, guard::Members},
    service::OVERLOADED,
};

/// Followers that are served.
pub(crate) const FOLLOWERS: &str = "ringfence_store_followers";
/// Syncs of the write-ahead log.
pub(crate) const FSYNC: &str = "ringfence_store_wal_fsync_duration_seconds";
/// Batches of entries that are applied.
pub(crate) const APPLY: &str = "ringfence_store_apply_duration_seconds";
const PENDING: &str = "ringfence_store_proposals_pending";

/// The member's own metrics.
pub const METRICS: &[Metric] = &[
    metric("ringfence_store_has_leader", Kind::Gauge, "1 while this member knows a leader."),
    metric("ringfence_store_is_leader", Kind::Gauge, "1 while this member leads."),
    metric("ringfence_store_has_quorum", Kind::Gauge, "1 while a majority of the members answers this one."),
    metric("ringfence_store_leader_changes_total", Kind::Counter, "Leaders that this member saw come after another."),
    metric("ringfence_store_term", Kind::Gauge, "Raft's term."),
    metric("ringfence_store_revision", Kind::Gauge, "The newest revision that this member has applied."),
    metric(
        "ringfence_store_staleness_seconds",
        Kind::Gauge,
        "Time since this member knew itself in touch with a quorum.",
    ),
    metric("ringfence_store_log_last_index", Kind::Gauge, "The last entry of this member's log."),
    metric("ringfence_store_log_applied_index", Kind::Gauge, "The last entry that this member has applied."),
    metric("ringfence_store_snapshot_index", Kind::Gauge, "The last entry that this member's snapshot covers."),
    Metric {
        name: "ringfence_store_proposals_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        help: "Commands put to this member: `committed`, `refused` by a rule, `failed` without a known outcome.",
    },
    Metric {
        name: OVERLOADED,
        kind: Kind::Counter,
        labels: &["limit"],
        help: "Commands refused because this member, or one client of it, had as many under way as it may.",
    },
    metric(PENDING, Kind::Gauge, "Commands that wait for their outcome at this member."),
    metric(FSYNC, Kind::Histogram, "How long the write-ahead log takes to reach stable storage."),
    metric(APPLY, Kind::Histogram, "How long a batch of committed entries takes to be applied."),
    metric(FOLLOWERS, Kind::Gauge, "Gateways and others that follow this member now."),
    metric("ringfence_store_wal_bytes", Kind::Gauge, "Size of the write-ahead log on disk."),
    metric("ringfence_store_snapshot_bytes", Kind::Gauge, "Size of the snapshot on disk."),
    metric("ringfence_store_state_bytes", Kind::Gauge, "Size of the state database on disk."),
    Metric { name: "ringfence_store_records", kind: Kind::Gauge, labels: &["kind"], help: "Records by kind." },
];

type RaftState = watch::Receiver<RaftMetrics<u64, MemberNode>>;

/// What the figures are read from.
struct Sources {
    raft: RaftState,
    history: Arc<SharedHistory>,
    members: Arc<Members>,
    freshness: Arc<Freshness>,
    data_dir: PathBuf,
}

/// Health of a member that runs.
pub(crate) fn health(member: &Member, data_dir: &Path) -> Health {
    let sources = Arc::new(Sources {
        raft: member.raft().metrics(),
        history: member.history().clone(),
        members: member.members().clone(),
        freshness: member.freshness().clone(),
        data_dir: data_dir.to_owned(),
    });
    let (of_live, of_ready) = (sources.clone(), sources.clone());
    Health {
        process: "identityd",
        version: env!("CARGO_PKG_VERSION"),
        metrics: &[metrics::SERVERS, METRICS],
        tls: member.tls().clone(),
        not_live: Box::new(move || of_live.not_live()),
        not_ready: Box::new(move || of_ready.not_ready()),
        observe: Box::new(move || sources.observe()),
    }
}

/// Counts changes of the leader until cancelled.
pub(crate) async fn watch_leaders(mut raft: RaftState, token: CancellationToken) {
    let mut last = None;
    loop {
        let leader = raft.borrow_and_update().current_leader;
        if leader.is_some() && leader != last {
            if last.is_some() {
                ::metrics::counter!("ringfence_store_leader_changes_total").increment(1);
            }
            last = leader;
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = raft.changed() => if changed.is_err() { return },
        }
    }
}

/// Counts a command by what becomes of it.
pub(crate) async fn proposal<T>(outcome: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let pending = Counted::new(PENDING);
    let outcome = outcome.await;
    drop(pending);
    let word = match &outcome {
        Ok(_) => "committed",
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Internal | Code::DeadlineExceeded) => "failed",
        Err(_) => "refused",
    };
    ::metrics::counter!("ringfence_store_proposals_total", "outcome" => word).increment(1);
    outcome
}

impl Sources {
    fn not_live(&self) -> Vec<String> {
        let stopped = self.raft.borrow().running_state.clone().err();
        stopped.into_iter().map(|error| format!("Raft has stopped: {error}")).collect()
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = self.not_live();
        if !*self.members.quorum().borrow() {
            reasons.push(format!("no quorum: {}", self.members.describe_quorum()));
        }
        if self.raft.borrow().current_leader.is_none() {
            reasons.push("no leader is known".to_owned());
        }
        reasons
    }

    fn observe(&self) {
        let raft = self.raft.borrow().clone();
        let flag = |name: &'static str, on: bool| ::metrics::gauge!(name).set(if on { 1.0 } else { 0.0 });
        let set = |name: &'static str, value: u64| ::metrics::gauge!(name).set(float(value));
        flag("ringfence_store_has_leader", raft.current_leader.is_some());
        flag("ringfence_store_is_leader", raft.state == ServerState::Leader);
        flag("ringfence_store_has_quorum", *self.members.quorum().borrow());
        set("ringfence_store_term", raft.current_term);
        set("ringfence_store_log_last_index", raft.last_log_index.unwrap_or_default());
        set("ringfence_store_log_applied_index", raft.last_applied.map_or(0, |log_id| log_id.index));
        set("ringfence_store_snapshot_index", raft.snapshot.map_or(0, |log_id| log_id.index));
        ::metrics::gauge!("ringfence_store_staleness_seconds").set(self.freshness.staleness().as_secs_f64());
        set("ringfence_store_wal_bytes", bytes_below(&self.data_dir.join("wal")));
        set("ringfence_store_snapshot_bytes", bytes_below(&self.data_dir.join("snapshot")));
        set("ringfence_store_state_bytes", bytes_below(&self.data_dir.join("state")));
        // Counted outside the lock.
        let mesh = self.history.read(|history| history.mesh().clone());
        let mut kinds = std::collections::BTreeMap::new();
        for key in mesh.records().keys() {
            *kinds.entry(key.kind()).or_insert(0_u64) += 1;
        }
        set("ringfence_store_revision", mesh.revision().0);
        for (kind, word) in KINDS {
            let count = kinds.get(&kind).copied().unwrap_or_default();
            ::metrics::gauge!("ringfence_store_records", "kind" => word).set(float(count));
        }
    }
}

const KINDS: [(ringfence_policy::record::Kind, &str); 5] = {
    use ringfence_policy::record::Kind;
    [
        (Kind::Cluster, "cluster"),
        (Kind::Node, "node"),
        (Kind::Identity, "identity"),
        (Kind::Endpoint, "endpoint"),
        (Kind::Policy, "policy"),
    ]
};

/// The size of a file, or of all files below a directory; what is being replaced meanwhile counts nothing.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.flatten().map(|entry| bytes_below(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name in this crate's sources, in the table and in the reference is one of the others, too.
    #[test]
    fn names_in_the_sources_the_table_and_the_reference_are_the_same() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let reference = std::fs::read_to_string(root.join("../docs/operations/metrics.md")).unwrap();
        assert!(reference.contains(&metrics::reference(METRICS)), "should be:\n{}", metrics::reference(METRICS));
        for Metric { name, kind, .. } in METRICS {
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        }
        let prefix = ["ringfence", "_store_"].concat();
        let quoted = format!("\"{prefix}");
        let everywhere: Vec<&str> = METRICS.iter().chain(metrics::EVERYWHERE).map(|metric| metric.name).collect();
        let mut directories = vec![root.join("src")];
        while let Some(directory) = directories.pop() {
            for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let used = text.split(&quoted).skip(1).filter_map(|rest| rest.split('"').next());
                for name in used.map(|rest| format!("{prefix}{rest}")) {
                    assert!(everywhere.contains(&name.as_str()), "{}: {name} is in no table", path.display());
                }
            }
        }
    }
}
