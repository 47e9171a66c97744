//! The gateway's configuration file.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, str::FromStr as _};

use ringfence_policy::{cidr::Cidr, identity::ClusterId, name::Name, record::Cluster};
use ringfence_runtime::{checked, telemetry::LogFormat, tls::TlsFiles};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `mesh-gateway.yaml`. Relative paths start at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster this gateway serves; registered in the store when the gateway starts.
    pub cluster: ClusterConfig,
    /// Where agents and operators reach it.
    pub listen: SocketAddr,
    /// The store's members as `host:port`; the first one is taken first, the others when it is out of reach.
    #[serde(deserialize_with = "addresses")]
    pub members: Vec<String>,
    /// Certificates for both directions.
    pub tls: TlsFiles,
    /// Where the newest state is kept for a start without the store. Without it such a start serves nothing.
    #[serde(default)]
    pub cache_file: Option<PathBuf>,
    /// How often the members hear from this gateway when nothing changes.
    #[serde(default = "default_report_interval_ms", deserialize_with = "positive")]
    pub report_interval_ms: u64,
    /// How many deltas are kept for agents that resume; older resumes get a snapshot.
    #[serde(default = "default_history")]
    pub history: usize,
    /// Where `/livez`, `/readyz` and `/metrics` are served, in plain HTTP: an address that only the node and the
    /// collectors reach. Nowhere without it.
    #[serde(default)]
    pub health_listen: Option<SocketAddr>,
    /// How log lines look.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long an orderly stop may take.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
}

/// A cluster of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Unique in the mesh.
    #[serde(deserialize_with = "name")]
    pub name: Name,
    /// 1–1023, unique in the mesh, for life.
    #[serde(deserialize_with = "cluster_id")]
    pub id: ClusterId,
    /// No address inside is ever `world`; disjoint from those of all other clusters.
    #[serde(default, serialize_with = "as_text", deserialize_with = "ranges")]
    pub pod_cidrs: Vec<Cidr>,
}

impl ClusterConfig {
    /// The record that is registered.
    #[must_use]
    pub fn record(&self) -> Cluster {
        Cluster { name: self.name.clone(), id: self.id, pod_cidrs: self.pod_cidrs.clone() }
    }
}

const fn default_report_interval_ms() -> u64 {
    1000
}

const fn default_history() -> usize {
    10_000
}

const fn default_drain_timeout_ms() -> u64 {
    5000
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let check =
        |interval| if interval == 0 { Err("0 is not an interval: give at least 1 millisecond") } else { Ok(interval) };
    checked::number(deserializer, check)
}

fn cluster_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
    checked::number(deserializer, |id| ClusterId::new(u32::try_from(id).unwrap_or(u32::MAX)))
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    checked::text(deserializer, Name::from_str)
}

fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    checked::texts(deserializer, Cidr::from_str, |_| Ok::<(), Infallible>(()))
}

fn as_text<S: Serializer>(ranges: &[Cidr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(ToString::to_string))
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let some = |members: &[String]| {
        if members.is_empty() {
            Err("the list is empty: give at least one member of the store as host:port")
        } else {
            Ok(())
        }
    };
    checked::texts(deserializer, address, some)
}

fn address(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let help = || format!("{text:?} is not an address: write it as host:port, like 10.40.1.10:7400");
    if valid { Ok(text.to_owned()) } else { Err(help()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster:\n  name: east\n  id: 1\n  pod_cidrs: [10.101.0.0/16]\nlisten: 127.0.0.1:7401\n\
                        members: ['127.0.0.1:7400']\ntls: {ca: a, certificate: b, key: c}\n";

    fn load(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesh-gateway.yaml");
        std::fs::write(&path, text).unwrap();
        ringfence_runtime::config::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_dumped_configuration_loads_to_the_same() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.history, 10_000);
        assert_eq!(load(&ringfence_runtime::config::dump(&config)), Ok(config));
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        let cases = [
            ("name: east", "name: East", ":2:9", "not a valid name"),
            ("id: 1", "id: 1024", ":3:7", "from 1 to 1023"),
            ("10.101.0.0/16", "10.101.0.0/40", ":4:15", "10.1.0.0/16"),
            ("127.0.0.1:7401", "localhost", ":5:9", "listen"),
            ("'127.0.0.1:7400'", "'127.0.0.1'", ":6:11", "host:port"),
            ("'127.0.0.1:7400'", "", ":6:10", "at least one member"),
            ("tls: ", "log_fromat: json\ntls: ", ":7:1", "log_format"),
            ("tls: ", "report_interval_ms: 0\ntls: ", ":7:21", "at least 1"),
        ];
        for (from, to, position, help) in cases {
            let message = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(&format!("mesh-gateway.yaml{position}")), "{message}");
            assert!(message.contains(help), "{message}");
        }
    }
}
