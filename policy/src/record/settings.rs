//! What holds for the whole mesh.

use serde::{Deserialize, Serialize};

use crate::label_filter::{InvalidFilter, LabelFilter, LabelFilterText};

/// The longest time that can be set, in milliseconds: 30 days.
pub const MAX_TIME_MS: u64 = 30 * 24 * 3_600_000;

/// Settings of the mesh; the defaults hold while there is no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshSettings {
    /// Which labels make an identity (LBL-30 … LBL-36). A change counts for endpoints that are put after it.
    pub label_filter: LabelFilterText,
    /// How long a number that nobody refers to keeps its label set, in milliseconds (ALLOC-8).
    pub identity_grace_ms: u64,
    /// How long a number rests once every node has realised that it is gone, in milliseconds.
    pub quarantine_ms: u64,
    /// A node counts as silent after this long without a sign of life, in milliseconds.
    pub node_lease_ms: u64,
    /// A silent node's endpoints are removed after this long on top, in milliseconds.
    pub node_grace_ms: u64,
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum InvalidSettings {
    /// An entry of the filter.
    #[error("label_filter: {source}")]
    Filter {
        /// What is wrong with it.
        #[from]
        source: InvalidFilter,
    },
    /// A time.
    #[error("{field}: {time_ms} is out of range: {minimum_ms} to {MAX_TIME_MS} milliseconds are allowed")]
    Time {
        /// Which one.
        field: TimeField,
        /// As given.
        time_ms: u64,
        /// The shortest that is allowed.
        minimum_ms: u64,
    },
}

/// A time among the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeField {
    /// `identity_grace_ms`
    IdentityGrace,
    /// `quarantine_ms`
    Quarantine,
    /// `node_lease_ms`
    NodeLease,
    /// `node_grace_ms`
    NodeGrace,
}

impl Default for MeshSettings {
    /// 15 minutes of grace (ALLOC-8) and 10 of quarantine; nodes are silent after 40 s and lose their endpoints 5 minutes
    /// later, as in Kubernetes.
    fn default() -> Self {
        Self {
            label_filter: LabelFilterText::default(),
            identity_grace_ms: 15 * 60_000,
            quarantine_ms: 10 * 60_000,
            node_lease_ms: 40_000,
            node_grace_ms: 5 * 60_000,
        }
    }
}

impl MeshSettings {
    /// Gateways tell of their nodes four times in a lease; a shorter one would cost more writes than it is worth.
    pub const MIN_NODE_LEASE_MS: u64 = 1000;

    /// The filter, if everything is right.
    ///
    /// # Errors
    /// The first `InvalidSettings`.
    pub fn check(&self) -> Result<LabelFilter, InvalidSettings> {
        let times = [
            (TimeField::IdentityGrace, self.identity_grace_ms, 0),
            (TimeField::Quarantine, self.quarantine_ms, 0),
            (TimeField::NodeLease, self.node_lease_ms, Self::MIN_NODE_LEASE_MS),
            (TimeField::NodeGrace, self.node_grace_ms, 0),
        ];
        for (field, time_ms, minimum_ms) in times {
            if !(minimum_ms..=MAX_TIME_MS).contains(&time_ms) {
                return Err(InvalidSettings::Time { field, time_ms, minimum_ms });
            }
        }
        Ok(LabelFilter::new(&self.label_filter)?)
    }
}

impl std::fmt::Display for TimeField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::IdentityGrace => "identity_grace_ms",
            Self::Quarantine => "quarantine_ms",
            Self::NodeLease => "node_lease_ms",
            Self::NodeGrace => "node_grace_ms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_does_not_is_named() {
        MeshSettings::default().check().unwrap();
        let short = MeshSettings { node_lease_ms: 100, ..MeshSettings::default() }.check().unwrap_err();
        assert!(short.to_string().contains("node_lease_ms: 100 is out of range: 1000 to"), "{short}");
        let long = MeshSettings { quarantine_ms: u64::MAX, ..MeshSettings::default() }.check().unwrap_err();
        assert!(long.to_string().contains("quarantine_ms"), "{long}");
    }
}
