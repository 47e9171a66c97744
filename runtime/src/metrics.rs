//! What a process counts and measures, under names that stay.
//!
//! ```text
//! metrics::counter!(…) anywhere ─► the one recorder ─┐
//! Health::observe: gauges of this moment ────────────┴─► render ─► GET /metrics (Prometheus' text format)
//! ```
//!
//! Every name stands in a table of `Metric`s: here what every process has, in each process's `metrics.rs` its own.
//! `docs/operations/metrics.md` is the same list, and a test holds them together. Until `install` nothing is kept.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Begins with `ringfence_`, ends with its unit, and with `_total` where it only grows.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// For people.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, in buckets.
    Histogram,
}

/// A metric without labels.
#[must_use]
pub const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, labels: &[], help }
}

/// What every process has.
pub const EVERYWHERE: &[Metric] = &[
    Metric {
        name: "ringfence_build_info",
        kind: Kind::Gauge,
        labels: &["process", "version"],
        help: "Always 1; the labels say what runs.",
    },
    Metric {
        name: "ringfence_tls_certificate_not_after_seconds",
        kind: Kind::Gauge,
        labels: &["certificate", "name"],
        help: "Until when the process's own certificate and the authorities it trusts are good, in seconds since 1970.",
    },
    Metric {
        name: "ringfence_tls_reloads_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Changes of the certificate files: `ok` are in use, `refused` are broken and the old ones stay in use.",
    },
    Metric {
        name: "ringfence_tls_files_refused",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the certificate files on disk cannot be used and older ones are in use.",
    },
];

/// What every process that serves others has.
pub const SERVERS: &[Metric] = &[
    Metric {
        name: "ringfence_requests_total",
        kind: Kind::Counter,
        labels: &["method", "code"],
        help: "Calls by gRPC method and the code they were answered with, those over links too; a stream that breaks later was answered OK.",
    },
    Metric {
        name: "ringfence_refusals_total",
        kind: Kind::Counter,
        labels: &["role", "request"],
        help: "Requests that the caller's role may not make.",
    },
    metric(
        "ringfence_tls_handshakes_refused_total",
        Kind::Counter,
        "Connections without a certificate that is trusted, or that did not finish their handshake.",
    ),
];

/// From a fast disk's sync to a member that is in trouble.
const SECONDS: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to keep metrics, and describes those of the tables. A second call describes more.
pub fn install(tables: &[&[Metric]]) {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
        // A process that brought a recorder of its own keeps it, and is not rendered here.
        builder.ok()?.install_recorder().ok()
    });
    for metric in tables.iter().flat_map(|table| table.iter()) {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
        // A count of nothing is 0, not absent: alerts on growth need the beginning.
        if metric.kind == Kind::Counter && metric.labels.is_empty() {
            metrics::counter!(metric.name).increment(0);
        }
    }
}

/// The rows of `docs/operations/metrics.md` for a table.
#[must_use]
pub fn reference(table: &[Metric]) -> String {
    let row = |metric: &Metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help)
    };
    table.iter().map(row).collect()
}

/// All metrics in Prometheus' text format; empty before `install`.
#[must_use]
pub fn render() -> String {
    handle().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves what was recorded into its buckets; to be called every few seconds.
pub fn upkeep() {
    if let Some(handle) = handle() {
        handle.run_upkeep();
    }
}

fn handle() -> Option<&'static PrometheusHandle> {
    RECORDER.get().and_then(Option::as_ref)
}

/// Counts while it lives: one more of a gauge.
#[derive(Debug)]
pub struct Counted(metrics::Gauge);

impl Counted {
    /// One more.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let gauge = metrics::gauge!(name);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Measures while it lives.
#[derive(Debug)]
pub struct Timed {
    name: &'static str,
    since: std::time::Instant,
}

impl Timed {
    /// From now until it is dropped.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, since: std::time::Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        metrics::histogram!(self.name).record(self.since.elapsed());
    }
}

/// A count as a gauge wants it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts above 2^53 do not occur")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_what_every_process_and_every_server_has() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&reference(EVERYWHERE)), "should be:\n{}", reference(EVERYWHERE));
        assert!(text.contains(&reference(SERVERS)), "should be:\n{}", reference(SERVERS));
    }

    #[test]
    fn names_say_what_they_are() {
        for Metric { name, kind, .. } in EVERYWHERE.iter().chain(SERVERS) {
            assert!(name.starts_with("ringfence_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        }
    }
}
