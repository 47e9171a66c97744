//! A past that reaches further back than memory does.

use std::fmt::Debug;

use ringfence_policy::{record::Delta, revision::Revision};

/// Where deltas lie that memory has forgotten. Reading may take a while.
pub trait Past: Debug + Send + Sync {
    /// At most `limit` deltas after a revision, in order; none if the next one is gone.
    fn deltas_after(&self, revision: Revision, limit: usize) -> Option<Vec<Delta>>;
}
