//! Raft's log storage on top of the write-ahead log.

use std::{
    fmt::Debug,
    io,
    ops::{Range, RangeBounds},
    sync::Arc,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use tokio::sync::watch;

use super::{Entry, LogId, StorageError, TypeConfig, Vote, durable::Durable};
use crate::wal::{Wal, WalFailed, indexes};

/// Entries of one message to another member add up to about this much, one entry at least.
const MESSAGE_BYTES: usize = 1 << 20;

/// The log as openraft sees it; clones share one write-ahead log.
#[derive(Clone)]
pub struct Log {
    member: u64,
    wal: Arc<Wal>,
    durable: Durable,
    /// Index of the newest entry, durable or not.
    newest: watch::Sender<u64>,
    /// Committed, and not in the log yet.
    committed: Option<LogId>,
}

impl Log {
    /// The log of a member, over an open write-ahead log.
    #[must_use]
    pub fn new(member: u64, wal: Arc<Wal>) -> Self {
        let last = wal.contents().last_log_id();
        let newest = watch::Sender::new(last.map_or(0, |log_id| log_id.index));
        Self { member, wal, durable: Durable::new(last), newest, committed: None }
    }

    /// How far the log is on stable storage.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.durable.clone()
    }

    /// Index of the newest entry of this log, durable or not.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Entries from memory at once. Older ones, which only a member needs that lags far behind (or a start, which replays
    /// them), are read on another thread: the one that asks carries the writes. They come from the page cache or the disk,
    /// are checked and decoded: some milliseconds for a message.
    async fn read(&self, range: Range<u64>, most_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        if self.wal.is_in_memory(range.start) {
            return self.wal.read(range, most_bytes).map_err(|error| StorageIOError::read_logs(&error).into());
        }
        let wal = self.wal.clone();
        let read = tokio::task::spawn_blocking(move || wal.read(range, most_bytes)).await;
        let read = read.map_err(|error| StorageError::from(StorageIOError::read_logs(&error)))?;
        read.map_err(|error| StorageIOError::read_logs(&error).into())
    }

    /// Whether openraft may go on before the entries are durable (`Durable`): a leader made them itself, or the leader
    /// that this member follows sent them and is answered later (`service.rs`). Nobody else can make entries under a
    /// leader's vote.
    fn may_go_on(&self, entries: &[Entry]) -> bool {
        let vote = self.wal.contents().vote;
        vote.is_some_and(|vote| {
            let is_own = vote.leader_id.voted_for() == Some(self.member);
            let all_new = || entries.iter().all(|entry| entry.log_id.leader_id == vote.leader_id);
            vote.committed && (!is_own || all_new())
        })
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(indexes(range), usize::MAX).await
    }

    /// A message to another member stays small enough to arrive within a heartbeat interval.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start..end, MESSAGE_BYTES).await
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

    /// A member that led before it was stopped must not go on leading in its old term: what it told followers before
    /// its own disk had it (`Durable`) may be gone here, and the same log ids would be given out again. With its vote
    /// uncommitted it is a follower, and its next term a new one.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let led = |vote: &Vote| vote.leader_id.voted_for() == Some(self.member);
        let uncommitted = |vote: Vote| Vote { committed: vote.committed && !led(&vote), ..vote };
        Ok(self.wal.contents().vote.map(uncommitted))
    }

    /// Goes to the disk with the next entries: a write of its own would cost as much as theirs, and what is missing after
    /// a crash the leader tells again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.committed = committed;
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
        let entries: Vec<_> = entries.into_iter().collect();
        let last = entries.last().map(|entry| entry.log_id);
        let durable = self.durable.clone();
        let mut callback = Some(callback);
        if self.may_go_on(&entries)
            && !self.wal.has_failed()
            && let Some(callback) = callback.take()
        {
            callback.log_io_completed(Ok(()));
        }
        if let Some(last) = last {
            self.newest.send_replace(last.index);
        }
        self.wal.append(entries, self.committed.take(), move |result: Result<(), WalFailed>| {
            if let (Ok(()), Some(last)) = (&result, last) {
                durable.advance(last);
            }
            if let Some(callback) = callback {
                callback.log_io_completed(result.map_err(io::Error::other));
            }
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let truncated = self.wal.truncate(log_id.index).await;
        self.durable.truncate(log_id.index, self.wal.contents().last_log_id());
        truncated.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        // A snapshot may have brought what this log never held.
        self.durable.advance(log_id);
        self.wal.purge(log_id).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
