//! A snapshot from its chunks.

use ringfence_policy::{
    record::{Records, Snapshot, Versioned},
    revision::Revision,
};

use super::client::FollowError;
use crate::v1;

/// What has come of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    partial: Option<Snapshot>,
}

impl Assembly {
    /// The snapshot of which a part is here, by the revision at which it was begun to be read.
    pub(super) fn begun(&self) -> Option<Revision> {
        self.partial.as_ref().map(|partial| partial.revision)
    }

    /// The snapshot, once it is whole.
    ///
    /// # Errors
    /// `BrokenSnapshot` if the chunk belongs to another one, `Invalid`.
    pub(super) fn take(&mut self, chunk: v1::SnapshotChunk) -> Result<Option<Snapshot>, FollowError> {
        let revision = Revision(chunk.revision);
        let mut snapshot = self.partial.take().unwrap_or(Snapshot { revision, ..Snapshot::default() });
        if snapshot.revision != revision {
            return Err(FollowError::BrokenSnapshot { revision: snapshot.revision });
        }
        if chunk.anew {
            snapshot.records = Records::default();
        }
        for record in chunk.records {
            let versioned = Versioned::try_from(record)?;
            snapshot.records.insert(versioned.record.key(), versioned);
        }
        for key in chunk.removed {
            snapshot.records.remove(&key.try_into()?);
        }
        if chunk.last {
            snapshot.revision = revision.max(Revision(chunk.whole_at));
            return Ok(Some(snapshot));
        }
        self.partial = Some(snapshot);
        Ok(None)
    }
}
