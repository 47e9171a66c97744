//! What the cluster's agents last said about themselves.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ringfence_proto::v1::NodeStatus;
use tokio::sync::watch;

/// The newest report of each node. Status only: never an input to a decision.
#[derive(Debug)]
pub struct Reports {
    nodes: Mutex<BTreeMap<String, Entry>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    status: NodeStatus,
    received: Instant,
}

impl Reports {
    /// No report yet.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Takes a node's report.
    pub fn merge(&self, status: NodeStatus) {
        let mut nodes = self.lock();
        let content = |status: &NodeStatus| NodeStatus { report_age_ms: 0, ..status.clone() };
        let news = nodes.get(&status.name).is_none_or(|entry| content(&entry.status) != content(&status));
        nodes.insert(status.name.clone(), Entry { status, received: Instant::now() });
        drop(nodes);
        if news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// The newest report of each node, with its age now.
    #[must_use]
    pub fn current(&self) -> Vec<NodeStatus> {
        let aged = |entry: &Entry| {
            let age = milliseconds(entry.received.elapsed());
            NodeStatus { report_age_ms: entry.status.report_age_ms.saturating_add(age), ..entry.status.clone() }
        };
        self.lock().values().map(aged).collect()
    }

    /// Forgets old reports of nodes that are no longer registered.
    pub fn retain(&self, registered: impl Fn(&str) -> bool, older_than: Duration) {
        self.lock().retain(|name, entry| registered(name) || entry.received.elapsed() < older_than);
    }

    /// Moves whenever a report says something new.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Reports {
    fn default() -> Self {
        Self::new()
    }
}

/// A duration for the wire.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, revision: u64) -> NodeStatus {
        NodeStatus { name: name.into(), realised_revision: revision, reported: true, ..NodeStatus::default() }
    }

    #[test]
    fn only_news_is_announced_and_the_newest_report_counts() {
        let reports = Reports::new();
        let mut changed = reports.changed();
        changed.mark_unchanged();
        reports.merge(report("n1", 1));
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        reports.merge(report("n1", 1));
        assert!(!changed.has_changed().unwrap());
        reports.merge(report("n1", 2));
        assert!(changed.has_changed().unwrap());
        assert_eq!(reports.current().iter().map(|node| node.realised_revision).collect::<Vec<_>>(), [2]);
        reports.retain(|_| false, Duration::ZERO);
        assert!(reports.current().is_empty());
    }
}
