//! What gateways report: realised revisions and their own health. Kept in memory, for `status` only.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ringfence_policy::{mesh::Mesh, name::Name};
use ringfence_proto::v1;

/// The newest report of every registered gateway and node.
#[derive(Debug, Default)]
pub struct Reports {
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    gateways: BTreeMap<String, Observed<v1::GatewayStatus>>,
    nodes: BTreeMap<(String, String), Observed<v1::NodeStatus>>,
}

#[derive(Debug, Clone)]
struct Observed<T> {
    at: Instant,
    status: T,
}

impl Reports {
    /// Takes a report. What is not registered in the store is left out, which bounds what is kept; an observation
    /// older than the one that is known is left out, too.
    pub fn take(&self, mesh: &Mesh, report: v1::ReportRequest) {
        let now = Instant::now();
        let mut newest = self.lock();
        newest.forget_unregistered(mesh);
        if let Some(status) = report.gateway.filter(|gateway| has_cluster(mesh, &gateway.cluster)) {
            let at = observed_at(now, status.report_age_ms);
            keep_newest(&mut newest.gateways, status.cluster.clone(), Observed { at, status });
        }
        for status in report.nodes {
            if has_node(mesh, &status.cluster, &status.name) {
                let at = observed_at(now, status.report_age_ms);
                keep_newest(&mut newest.nodes, (status.cluster.clone(), status.name.clone()), Observed { at, status });
            }
        }
    }

    /// Gateways that have reported, with the age of the report.
    #[must_use]
    pub fn gateways(&self) -> Vec<v1::GatewayStatus> {
        let age = |observed: &Observed<v1::GatewayStatus>| v1::GatewayStatus {
            report_age_ms: milliseconds(observed.at.elapsed()),
            ..observed.status.clone()
        };
        self.lock().gateways.values().map(age).collect()
    }

    /// Every registered node, joined with its newest report.
    #[must_use]
    pub fn nodes(&self, mesh: &Mesh) -> Vec<v1::NodeStatus> {
        let newest = self.lock();
        mesh.nodes()
            .map(|node| {
                let (cluster, name) = (node.cluster.to_string(), node.name.to_string());
                match newest.nodes.get(&(cluster.clone(), name.clone())) {
                    Some(Observed { at, status }) => {
                        let report_age_ms = milliseconds(at.elapsed());
                        v1::NodeStatus { report_age_ms, reported: true, ..status.clone() }
                    }
                    None => v1::NodeStatus { cluster, name, ..v1::NodeStatus::default() },
                }
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    fn forget_unregistered(&mut self, mesh: &Mesh) {
        self.gateways.retain(|cluster, _| has_cluster(mesh, cluster));
        self.nodes.retain(|(cluster, node), _| has_node(mesh, cluster, node));
    }
}

fn keep_newest<K: Ord, T>(known: &mut BTreeMap<K, Observed<T>>, key: K, new: Observed<T>) {
    if known.get(&key).is_none_or(|old| old.at <= new.at) {
        known.insert(key, new);
    }
}

fn observed_at(now: Instant, age_ms: u64) -> Instant {
    now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(now)
}

fn has_cluster(mesh: &Mesh, cluster: &str) -> bool {
    use ringfence_policy::record::RecordKey;
    Name::new(cluster).is_ok_and(|name| mesh.get(&RecordKey::Cluster(name)).is_some())
}

fn has_node(mesh: &Mesh, cluster: &str, node: &str) -> bool {
    use ringfence_policy::record::RecordKey;
    match (Name::new(cluster), Name::new(node)) {
        (Ok(cluster), Ok(node)) => mesh.get(&RecordKey::Node(cluster, node)).is_some(),
        _ => false,
    }
}

/// A duration on the wire.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::record::{Change, Delta, Node, Record};

    fn mesh() -> Mesh {
        let mut mesh = Mesh::default();
        let node = |name| {
            Record::Node(Node {
                cluster: Name::new("east").unwrap(),
                name: Name::new(name).unwrap(),
                addresses: vec![],
                labels: ringfence_policy::label::LabelSet::default(),
            })
        };
        let changes = vec![Change::Put(node("n1")), Change::Put(node("n2"))];
        mesh.apply(&Delta { revision: mesh.revision().next(), changes }).unwrap();
        mesh
    }

    fn report(name: &str, realised_revision: u64, report_age_ms: u64) -> v1::ReportRequest {
        let (cluster, name) = ("east".to_owned(), name.to_owned());
        let node = v1::NodeStatus { cluster, name, realised_revision, report_age_ms, ..v1::NodeStatus::default() };
        v1::ReportRequest { gateway: None, nodes: vec![node] }
    }

    #[test]
    fn the_newest_observation_of_a_registered_node_counts() {
        let (reports, mesh) = (Reports::default(), mesh());
        reports.take(&mesh, report("n1", 7, 100));
        reports.take(&mesh, report("n1", 5, 60_000));
        reports.take(&mesh, report("stranger", 9, 0));
        let nodes = reports.nodes(&mesh);
        let seen: Vec<_> =
            nodes.iter().map(|node| (node.name.as_str(), node.realised_revision, node.reported)).collect();
        assert_eq!(seen, [("n1", 7, true), ("n2", 0, false)]);
        assert!(nodes[0].report_age_ms >= 100);
        reports.take(&Mesh::default(), v1::ReportRequest::default());
        assert!(!reports.nodes(&mesh)[0].reported, "a node that was removed is forgotten");
    }
}
