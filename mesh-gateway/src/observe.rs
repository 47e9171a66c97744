//! What the gateway says about itself to probes and collectors.

use std::sync::Arc;

use ringfence_runtime::{
    health::Health,
    metrics::{self, Kind, Metric, float, metric},
    tls::Tls,
};

use crate::{cache::MeshCache, reports::Reports};

/// Agents and others that follow.
pub(crate) const FOLLOWERS: &str = "ringfence_gateway_followers";
/// Members that were followed and lost.
pub(crate) const UPSTREAM_LOST: &str = "ringfence_gateway_upstream_lost_total";
/// The gateway's own metrics.
pub const METRICS: &[Metric] = &[
    metric("ringfence_gateway_revision", Kind::Gauge, "The newest revision that agents can get here."),
    metric("ringfence_gateway_records", Kind::Gauge, "Records of the whole mesh at that revision."),
    metric(
        "ringfence_gateway_staleness_seconds",
        Kind::Gauge,
        "How long ago that revision was known to be the store's newest.",
    ),
    metric("ringfence_gateway_upstream_connected", Kind::Gauge, "1 while a member of the store is followed."),
    metric(UPSTREAM_LOST, Kind::Counter, "Members of the store that were followed and lost: each one is a reconnect."),
    metric(FOLLOWERS, Kind::Gauge, "Agents and others that follow this gateway now."),
    metric("ringfence_gateway_reporting_nodes", Kind::Gauge, "Nodes whose reports are known."),
    metric("ringfence_gateway_lagging_nodes", Kind::Gauge, "Of those, nodes that do not serve the newest revision."),
    metric("ringfence_gateway_realised_revision_min", Kind::Gauge, "The oldest revision that a reporting node serves."),
];

/// Health of a gateway that runs.
pub(crate) fn health(cache: Arc<MeshCache>, reports: Arc<Reports>, tls: Arc<Tls>) -> Health {
    let of_ready = Arc::clone(&cache);
    Health {
        process: "mesh-gateway",
        version: env!("CARGO_PKG_VERSION"),
        metrics: &[metrics::SERVERS, METRICS],
        tls,
        not_live: Box::new(Vec::new),
        not_ready: Box::new(move || not_ready(&of_ready)),
        observe: Box::new(move || observe(&cache, &reports)),
    }
}

/// A gateway that is cut off goes on serving what it has: that is what it is for.
fn not_ready(cache: &MeshCache) -> Vec<String> {
    if cache.freshness().is_known() {
        return Vec::new();
    }
    vec!["the store has not been reached yet, and there is no cache file to serve from".to_owned()]
}

fn observe(cache: &MeshCache, reports: &Reports) {
    let revision = cache.revision();
    ::metrics::gauge!("ringfence_gateway_revision").set(float(revision.0));
    let records = cache.history().read(|history| history.mesh().records().len());
    ::metrics::gauge!("ringfence_gateway_records").set(float(records as u64));
    ::metrics::gauge!("ringfence_gateway_staleness_seconds").set(cache.freshness().staleness().as_secs_f64());
    let connected = if cache.upstream().is_empty() { 0.0 } else { 1.0 };
    ::metrics::gauge!("ringfence_gateway_upstream_connected").set(connected);
    let realised: Vec<u64> = reports.current().iter().map(|node| node.realised_revision).collect();
    let lagging = realised.iter().filter(|realised| **realised < revision.0).count();
    ::metrics::gauge!("ringfence_gateway_reporting_nodes").set(float(realised.len() as u64));
    ::metrics::gauge!("ringfence_gateway_lagging_nodes").set(float(lagging as u64));
    let oldest = realised.iter().min().copied().unwrap_or(revision.0);
    ::metrics::gauge!("ringfence_gateway_realised_revision_min").set(float(oldest));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let prefix = ["ringfence", "_gateway_"].concat();
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
