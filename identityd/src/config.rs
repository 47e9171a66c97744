//! The configuration file of `identityd`. The comments on the fields are its reference.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf};

use ringfence_policy::name::Name;
use ringfence_runtime::{telemetry::LogFormat, tls::TlsFiles};
use serde::{Deserialize, Serialize};

/// `identityd.yaml`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This member's id; one of `members`. A member keeps its id for life.
    pub id: u64,
    /// The cluster this member sits in.
    pub cluster: Name,
    /// Where the service listens, as `address:port`.
    pub listen: SocketAddr,
    /// Where log, state and snapshots live; one directory for each member, on a file system that honours fsync.
    pub data_dir: PathBuf,
    /// The first members of the store: the same list in every member's file.
    pub members: Vec<MemberConfig>,
    /// This member is added to a running store (`ringfence store member add`): it need not be in `members`, founds no
    /// store of its own and waits until the store's leader knows it.
    #[serde(default)]
    pub join: bool,
    /// Certificates.
    pub tls: TlsFiles,
    /// How often a leader shows that it lives, in milliseconds. Well above the round trip between members: a
    /// linearizable read waits for answers at most this long.
    #[serde(default = "default_heartbeat_interval_ms")]
    pub heartbeat_interval_ms: u64,
    /// A member that hears no leader stands for election after at least this long, in milliseconds.
    #[serde(default = "default_election_timeout_min_ms")]
    pub election_timeout_min_ms: u64,
    /// … and at most this long, in milliseconds. It is also a leader's lease: after its death writes pause for about
    /// this long. A leader that answers pings is left alone, so that a stall of one disk unseats nobody.
    #[serde(default = "default_election_timeout_max_ms")]
    pub election_timeout_max_ms: u64,
    /// A snapshot is taken after this many log entries, and as many stay behind it for members that lag; earlier, and
    /// fewer, where they have many bytes: the log is cut at 256 MiB, of which 64 MiB stay.
    #[serde(default = "default_snapshot_every")]
    pub snapshot_every: u64,
    /// How many revisions back a follower can resume without a snapshot.
    #[serde(default = "default_history")]
    pub history: usize,
    /// Where `/livez`, `/readyz` and `/metrics` are served, in plain HTTP: an address that only the node and the
    /// collectors reach. Nowhere without it.
    #[serde(default)]
    pub health_listen: Option<SocketAddr>,
    /// `text` or `json`.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long a stopping process waits for what it has begun, in milliseconds.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
}

/// One of the first members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Unique, for ever.
    pub id: u64,
    /// The cluster it sits in.
    pub cluster: Name,
    /// `host:port` under which the other members reach it.
    pub address: String,
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The own id is not in the list.
    #[error(
        "id: member {id} is not in 'members', which lists {listed}: every member's file has the same list, with itself in it; \
         one that is added to a running store has 'join: true' instead"
    )]
    NotAMember {
        /// The own id.
        id: u64,
        /// The ids in the list.
        listed: String,
    },
    /// The own cluster is not the one in the list.
    #[error("cluster: member {id} sits in cluster {cluster}, 'members' says {listed}")]
    OtherCluster {
        /// The own id.
        id: u64,
        /// The own cluster.
        cluster: Name,
        /// The cluster in the list.
        listed: Name,
    },
    /// Two members have one id.
    #[error("members: id {id} is given twice")]
    DuplicateId {
        /// The id.
        id: u64,
    },
    /// Two members have one address.
    #[error("members: address {address} is given twice")]
    DuplicateAddress {
        /// The address.
        address: String,
    },
    /// An address cannot be dialled.
    #[error("members: {address:?} of member {id} is not an address: write host:port, for example 10.40.1.10:7400")]
    Address {
        /// The member.
        id: u64,
        /// The text as given.
        address: String,
    },
    /// Ids count from 1.
    #[error("members: id 0 is not allowed: ids count from 1")]
    ZeroId,
    /// Times that do not fit each other.
    #[error(
        "heartbeat_interval_ms ({heartbeat}), election_timeout_min_ms ({minimum}) and election_timeout_max_ms \
         ({maximum}) do not fit: 0 < 2 × heartbeat ≤ minimum < maximum is needed"
    )]
    Timeouts {
        /// `heartbeat_interval_ms`
        heartbeat: u64,
        /// `election_timeout_min_ms`
        minimum: u64,
        /// `election_timeout_max_ms`
        maximum: u64,
    },
    /// A number that must not be 0.
    #[error("{field} must be at least 1")]
    Zero {
        /// The field.
        field: &'static str,
    },
}

const fn default_heartbeat_interval_ms() -> u64 {
    250
}

const fn default_election_timeout_min_ms() -> u64 {
    500
}

const fn default_election_timeout_max_ms() -> u64 {
    700
}

const fn default_snapshot_every() -> u64 {
    100_000
}

const fn default_history() -> usize {
    10_000
}

const fn default_drain_timeout_ms() -> u64 {
    5000
}

impl Config {
    /// Checks what the file's syntax cannot say.
    ///
    /// # Errors
    /// The first `InvalidConfig`.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            let MemberConfig { id, address, .. } = member;
            if *id == 0 {
                return Err(InvalidConfig::ZeroId);
            }
            if !ids.insert(*id) {
                return Err(InvalidConfig::DuplicateId { id: *id });
            }
            if !addresses.insert(address) {
                return Err(InvalidConfig::DuplicateAddress { address: address.clone() });
            }
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
            if !matches!(port, Some(Ok(1..=u16::MAX))) {
                return Err(InvalidConfig::Address { id: *id, address: address.clone() });
            }
        }
        self.validate_own()?;
        let (heartbeat, minimum, maximum) =
            (self.heartbeat_interval_ms, self.election_timeout_min_ms, self.election_timeout_max_ms);
        if heartbeat == 0 || heartbeat.saturating_mul(2) > minimum || minimum >= maximum {
            return Err(InvalidConfig::Timeouts { heartbeat, minimum, maximum });
        }
        match self.snapshot_every {
            0 => Err(InvalidConfig::Zero { field: "snapshot_every" }),
            _ => Ok(()),
        }
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        let listed = || self.members.iter().map(|member| member.id.to_string()).collect::<Vec<_>>().join(", ");
        if self.id == 0 {
            return Err(InvalidConfig::ZeroId);
        }
        let own = match self.members.iter().find(|member| member.id == self.id) {
            Some(own) => own,
            None if self.join => return Ok(()),
            None => return Err(InvalidConfig::NotAMember { id: self.id, listed: listed() }),
        };
        if own.cluster != self.cluster {
            let (cluster, listed) = (self.cluster.clone(), own.cluster.clone());
            return Err(InvalidConfig::OtherCluster { id: self.id, cluster, listed });
        }
        Ok(())
    }
}

impl fmt::Display for MemberConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} ({}, {})", self.id, self.cluster, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "
id: 1
cluster: east
listen: 127.0.0.1:7400
data_dir: /var/lib/ringfence/identityd
members: [{id: 1, cluster: east, address: '10.40.1.10:7400'}, {id: 2, cluster: west, address: '10.40.2.10:7400'}]
tls: {ca: ca.crt, certificate: member-1.crt, key: member-1.key}
";

    fn load(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identityd.yaml");
        std::fs::write(&path, text).unwrap();
        let config: Config = ringfence_runtime::config::load(&path).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = load(EXAMPLE).unwrap();
        assert_eq!((config.heartbeat_interval_ms, config.snapshot_every, config.history), (250, 100_000, 10_000));
    }

    #[test]
    fn a_member_that_joins_need_not_be_in_the_list() {
        let joins = EXAMPLE.replacen("id: 1\ncluster", "id: 7\njoin: true\ncluster", 1);
        assert!(load(&joins).unwrap().join);
    }

    #[test]
    fn what_cannot_work_is_named() {
        let cases = [
            ("id: 1\ncluster", "id: 7\ncluster", "member 7 is not in 'members', which lists 1, 2"),
            ("cluster: east\nlisten", "cluster: west\nlisten", "sits in cluster west, 'members' says east"),
            ("{id: 2", "{id: 1", "id 1 is given twice"),
            ("{id: 2", "{id: 0", "ids count from 1"),
            ("10.40.2.10:7400", "10.40.1.10:7400", "10.40.1.10:7400 is given twice"),
            ("10.40.2.10:7400", "10.40.2.10", "write host:port"),
            ("listen: 127.0.0.1:7400", "listen: 127.0.0.1", "listen"),
            ("data_dir", "data_dri", "unknown field `data_dri`"),
            ("cluster: east\nl", "cluster: East\nl", "not a valid name"),
            ("id: 1\ncluster", "join: true\nid: 0\ncluster", "ids count from 1"),
            ("tls:", "heartbeat_interval_ms: 900\ntls:", "2 × heartbeat ≤ minimum"),
            ("tls:", "snapshot_every: 0\ntls:", "snapshot_every must be at least 1"),
        ];
        for (from, to, expected) in cases {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = load(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{error} does not say {expected:?}");
        }
    }
}
