//! Raft's log storage on top of the write-ahead log.

use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::{
    codec,
    wal::{Wal, WalFailed},
};

/// Entries of one message to another member add up to about this much, one entry at least.
const MESSAGE_BYTES: usize = 1 << 20;

/// The log as openraft sees it; clones share one write-ahead log.
#[derive(Clone)]
pub struct Log {
    wal: Arc<Wal>,
}

impl Log {
    /// Over an open write-ahead log.
    #[must_use]
    pub const fn new(wal: Arc<Wal>) -> Self {
        Self { wal }
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.wal.entries(range))
    }

    /// A message to another member stays small enough to arrive within a heartbeat interval.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let contents = self.wal.contents();
        let mut bytes = 0;
        let small_enough = |entry: &&Entry| {
            let fits = bytes < MESSAGE_BYTES;
            bytes += codec::encode(*entry).len();
            fits
        };
        Ok(contents.entries.range(start..end).map(|(_, entry)| entry).take_while(small_enough).cloned().collect())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let contents = self.wal.contents();
        Ok(LogState { last_purged_log_id: contents.purged, last_log_id: contents.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.wal.save_vote(*vote).await.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.wal.contents().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.wal.save_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.wal.contents().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.wal.append(entries.into_iter().collect(), move |result: Result<(), WalFailed>| {
            callback.log_io_completed(result.map_err(io::Error::other));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.wal.truncate(log_id.index).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.wal.purge(log_id).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
