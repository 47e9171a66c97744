//! What the agent says about itself to probes and collectors.

use std::sync::Arc;

use ringfence_runtime::{
    health::Health,
    metrics::{Kind, Metric, float, metric},
    tls::Tls,
};

use crate::{
    events::Counts,
    feed::{Feed, Followed, Scope},
    figures::Verification,
    owner::DatapathHandle,
    registry::{Attachment, Registration, Registry},
};

/// Gateways that were followed and lost.
pub(crate) const GATEWAY_LOST: &str = "ringfence_agent_gateway_lost_total";
/// The agent's own metrics.
pub const METRICS: &[Metric] = &[
    metric("ringfence_agent_realised_revision", Kind::Gauge, "The revision that packets are judged by."),
    metric("ringfence_agent_followed_revision", Kind::Gauge, "The newest revision that was received."),
    metric(
        "ringfence_agent_records",
        Kind::Gauge,
        "Records of the mesh that are held: what the node needs, or all of them where its gateway serves no views.",
    ),
    metric("ringfence_agent_view", Kind::Gauge, "1 while that is what the node needs, 0 while it is the whole mesh."),
    metric(
        "ringfence_agent_lag_revisions",
        Kind::Gauge,
        "Revisions that were received and are not yet what packets are judged by.",
    ),
    metric(
        "ringfence_agent_staleness_seconds",
        Kind::Gauge,
        "How long ago the newest revision received was known to be the store's newest.",
    ),
    metric("ringfence_agent_gateway_connected", Kind::Gauge, "1 while a gateway is followed."),
    metric(GATEWAY_LOST, Kind::Counter, "Gateways that were followed and lost: each one is a reconnect."),
    Metric {
        name: "ringfence_agent_packets_total",
        kind: Kind::Counter,
        labels: &["reason", "verdict"],
        help: "Packets by why they were treated so, `allow` or `deny`; they go on when the agent restarts.",
    },
    Metric {
        name: "ringfence_agent_policy_packets_total",
        kind: Kind::Counter,
        labels: &["direction", "verdict"],
        help: "Packets that policies decided, `allow` or `deny`, at both ends of a local pair; by band: `ringfence bpf policy list`.",
    },
    Metric {
        name: "ringfence_agent_policy_bytes_total",
        kind: Kind::Counter,
        labels: &["direction", "verdict"],
        help: "Their bytes.",
    },
    Metric {
        name: "ringfence_agent_events_total",
        kind: Kind::Counter,
        labels: &["outcome"],
        help: "Events of the datapath since the agent started: `delivered`, or lost to a full `ring`, the `rate-limit` of a CPU, or `undecodable`.",
    },
    Metric {
        name: "ringfence_agent_tallies_total",
        kind: Kind::Counter,
        labels: &["tally"],
        help: "What the datapath counts beside packets; they go on when the agent restarts.",
    },
    metric("ringfence_agent_watchers", Kind::Gauge, "Who watches events (`ringfence monitor`)."),
    Metric {
        name: "ringfence_agent_verify_runs_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Times that the datapath's maps were read back: `ok` (repaired where that was needed) or `failed`.",
    },
    Metric {
        name: "ringfence_agent_verify_repaired_entries_total",
        kind: Kind::Counter,
        labels: &["set"],
        help: "Entries that somebody else had changed: in the set that packets read (`served`), and in the other one.",
    },
    metric("ringfence_agent_problems", Kind::Gauge, "What keeps the node from enforcing the newest revision."),
    Metric {
        name: "ringfence_agent_endpoints",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Declared endpoints: `waiting-for-interface`, `waiting-for-store`, `refused`, `registered`.",
    },
];

/// Health of an agent that runs.
pub(crate) fn health(feed: Arc<Feed>, datapath: DatapathHandle, registry: Arc<Registry>, tls: Arc<Tls>) -> Health {
    let (of_ready, datapath_of_ready) = (Arc::clone(&feed), datapath.clone());
    Health {
        process: "ringfence-agent",
        version: env!("CARGO_PKG_VERSION"),
        metrics: &[METRICS],
        tls,
        not_live: Box::new(Vec::new),
        not_ready: Box::new(move || not_ready(&of_ready, &datapath_of_ready)),
        observe: Box::new(move || observe(&feed, &datapath, &registry)),
    }
}

/// An agent that lost its gateway goes on enforcing: that does not make it less ready.
fn not_ready(feed: &Feed, datapath: &DatapathHandle) -> Vec<String> {
    let realised = datapath.realised().borrow().clone();
    let mut reasons = realised.problems;
    if !feed.followed().complete {
        let gateway = feed.gateway();
        reasons.push(if gateway.is_empty() {
            "no gateway has been reached since the start; packets are judged as before it".to_owned()
        } else {
            format!("the state of gateway {gateway} is not complete yet")
        });
    } else if realised.revision.0 == 0 {
        reasons.push("no revision is realised yet: every endpoint is refused everything".to_owned());
    }
    reasons
}

fn observe(feed: &Feed, datapath: &DatapathHandle, registry: &Registry) {
    let realised = datapath.realised().borrow().clone();
    let Followed { mesh, scope, .. } = feed.followed();
    let followed = mesh.revision().0;
    ::metrics::gauge!("ringfence_agent_records").set(float(mesh.records().len() as u64));
    ::metrics::gauge!("ringfence_agent_view").set(if scope == Scope::Mesh { 0.0 } else { 1.0 });
    ::metrics::gauge!("ringfence_agent_realised_revision").set(float(realised.revision.0));
    ::metrics::gauge!("ringfence_agent_followed_revision").set(float(followed));
    ::metrics::gauge!("ringfence_agent_lag_revisions").set(float(followed.saturating_sub(realised.revision.0)));
    ::metrics::gauge!("ringfence_agent_staleness_seconds").set(feed.freshness().staleness().as_secs_f64());
    let connected = if feed.gateway().is_empty() { 0.0 } else { 1.0 };
    ::metrics::gauge!("ringfence_agent_gateway_connected").set(connected);
    ::metrics::gauge!("ringfence_agent_problems").set(float(realised.problems.len() as u64));
    observe_datapath(datapath);
    let states: Vec<&str> =
        registry.entries().iter().map(|entry| state(&entry.attachment, &entry.registration)).collect();
    for state in ["waiting-for-interface", "waiting-for-store", "refused", "registered"] {
        let count = states.iter().filter(|other| **other == state).count();
        ::metrics::gauge!("ringfence_agent_endpoints", "state" => state).set(float(count as u64));
    }
}

/// Every series is one of a few: no label comes from a policy, an endpoint or an address.
fn observe_datapath(datapath: &DatapathHandle) {
    let figures = datapath.figures().borrow().clone();
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    for (reason, count) in figures.packets.iter() {
        let labels = [("reason", reason.name()), ("verdict", word(reason.passes()))];
        ::metrics::counter!("ringfence_agent_packets_total", &labels).absolute(count);
    }
    for (tally, count) in figures.tallies.iter() {
        ::metrics::counter!("ringfence_agent_tallies_total", "tally" => tally.name()).absolute(count);
    }
    for (direction, sum) in ["ingress", "egress"].into_iter().zip(figures.decided) {
        for (verdict, packets, bytes) in
            [("allow", sum.allowed_packets, sum.allowed_bytes), ("deny", sum.refused_packets, sum.refused_bytes)]
        {
            let labels = [("direction", direction), ("verdict", verdict)];
            ::metrics::counter!("ringfence_agent_policy_packets_total", &labels).absolute(packets);
            ::metrics::counter!("ringfence_agent_policy_bytes_total", &labels).absolute(bytes);
        }
    }
    let events = datapath.events();
    let Counts { delivered, lost } = events.counts();
    for (outcome, count) in [
        ("delivered", delivered),
        ("ring", lost.ring),
        ("rate-limit", lost.rate_limit),
        ("undecodable", lost.undecodable),
    ] {
        ::metrics::counter!("ringfence_agent_events_total", "outcome" => outcome).absolute(count);
    }
    ::metrics::gauge!("ringfence_agent_watchers").set(float(events.subscribers() as u64));
    let Verification { runs, failures, served, unserved, .. } = figures.verification;
    for (result, count) in [("ok", runs - failures), ("failed", failures)] {
        ::metrics::counter!("ringfence_agent_verify_runs_total", "result" => result).absolute(count);
    }
    for (set, count) in [("served", served), ("unserved", unserved)] {
        ::metrics::counter!("ringfence_agent_verify_repaired_entries_total", "set" => set).absolute(count);
    }
}

const fn state(attachment: &Attachment, registration: &Registration) -> &'static str {
    match (attachment, registration) {
        (Attachment::Waiting { .. }, _) => "waiting-for-interface",
        (_, Registration::Waiting { .. }) => "waiting-for-store",
        (_, Registration::Refused { .. }) => "refused",
        (_, Registration::Registered { .. }) => "registered",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ringfence_runtime::metrics;

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
        let prefix = ["ringfence", "_agent_"].concat();
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
