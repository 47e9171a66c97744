//! The write-ahead log: what a member has promised lies here before it says so.
//!
//! ```text
//! append, save_vote, … ─► queue ─► writer thread: takes all that waits ─► one write ─► one fdatasync ─► callbacks
//!        └─► Contents in memory (readers)       └─ segment full: the spare one, which another thread has made ready
//! open: segments ─► replay ─► Contents; a torn tail is cut, any other damage refuses to start
//! ```
//!
//! A failed write or sync poisons the log: nobody can tell what is on the disk then, so nothing is acknowledged any
//! more until the process is started again, has read it, and has written anew what no record vouches for.

mod contents;
mod disk;
mod replay;
mod spare;
mod writer;

use std::{
    fmt,
    ops::RangeBounds,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{oneshot, watch};

use crate::codec::{self, RecordKind};
use crate::raft::{Entry, LogId, Vote};

pub use contents::{Contents, weight};
pub use disk::{Disk, RealDisk, SegmentFile, sync_parent};
pub use replay::WalError;
use writer::{Done, Record, Request, Writer};

/// Ending of a segment's name.
const FINISHED: &str = "segment";
/// Ending of a segment's name until it is whole.
const UNFINISHED: &str = "new";

/// What the log of `member` in a directory holds, as a start finds it; nothing is made or cut.
///
/// # Errors
/// `WalError`.
pub fn read(directory: &Path, member: u64) -> Result<Contents, WalError> {
    Ok(replay::replay(directory, member)?.contents)
}

/// How a log is kept.
pub struct WalOptions {
    /// Size of a segment in bytes; a larger one is made for a record that does not fit.
    pub segment_bytes: u32,
    /// Where segments live.
    pub disk: Arc<dyn Disk>,
}

/// The log has failed; it takes nothing any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the write-ahead log has failed and takes nothing any more until identityd is restarted: {reason}")]
pub struct WalFailed {
    reason: Arc<str>,
}

/// The log of one member.
pub struct Wal {
    contents: Arc<Mutex<Contents>>,
    requests: mpsc::Sender<Request>,
    failed: watch::Receiver<Option<WalFailed>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, disk: Arc::new(RealDisk) }
    }
}

impl WalFailed {
    fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string().into() }
    }
}

impl Wal {
    /// Opens the log of `member` in `directory`, or begins one there.
    ///
    /// # Errors
    /// `WalError` for damage that is not a torn tail, another member's log, a newer format, and for IO.
    pub fn open(directory: &Path, member: u64, options: WalOptions) -> Result<Self, WalError> {
        let replayed = replay::replay(directory, member)?;
        let contents = Arc::new(Mutex::new(replayed.contents.clone()));
        let (failure, failed) = watch::channel(None);
        let writer = Writer::start(directory, member, options, replayed, failure)?;
        let (requests, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| WalError::Io { path: directory.to_owned(), source })?;
        Ok(Self { contents, requests, failed, writer: Mutex::new(Some(thread)) })
    }

    /// Whether the log takes nothing any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Returns when the log has failed; never, if it is closed before.
    pub async fn failed(&self) -> WalFailed {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await.map(|failed| failed.clone()) {
            Ok(Some(failed)) => failed,
            _ => std::future::pending().await,
        }
    }

    /// A look at what the log holds.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no code panics while it holds the log's contents")
    }

    /// The entries of a range of indexes.
    pub fn entries(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        self.contents().entries().range(range).map(|(_, entry)| entry.clone()).collect()
    }

    /// Appends entries; readers see them at once, `done` is called when they are on stable storage, or will never be.
    /// `committed` notes how far entries are committed, in the same write.
    pub fn append(
        &self,
        entries: Vec<Entry>,
        committed: Option<LogId>,
        done: impl FnOnce(Result<(), WalFailed>) + Send + 'static,
    ) {
        let record = |entry: &Entry| Record {
            kind: RecordKind::Entry,
            index: Some(entry.log_id.index),
            payload: codec::encode(entry),
        };
        let mut records: Vec<_> = entries.iter().map(record).collect();
        let mut contents = self.contents();
        entries.into_iter().for_each(|entry| contents.push(entry));
        if committed.is_some() {
            contents.committed = committed;
            records.push(committed_record(committed));
        }
        drop(contents);
        self.send(Request { records, durable: true, purge: None, done: Done::Call(Box::new(done)) });
    }

    /// Saves the vote. Durable on return.
    ///
    /// # Errors
    /// `WalFailed`; the vote then counts as not given.
    pub async fn save_vote(&self, vote: Vote) -> Result<(), WalFailed> {
        self.write(RecordKind::Vote, codec::encode(&vote), None).await?;
        self.contents().vote = Some(vote);
        // A record behind it vouches for it: damage of the vote can then not pass for a torn tail.
        let committed = self.contents().committed;
        self.save_committed(committed);
        Ok(())
    }

    /// Removes the entries from `index` on. Durable on return.
    ///
    /// # Errors
    /// `WalFailed`.
    pub async fn truncate(&self, index: u64) -> Result<(), WalFailed> {
        self.contents().truncate(index);
        self.write(RecordKind::Truncate, codec::encode(&index), None).await
    }

    /// Removes the entries up to `upto` and every segment that holds nothing else. Durable on return.
    ///
    /// # Errors
    /// `WalFailed`.
    pub async fn purge(&self, upto: LogId) -> Result<(), WalFailed> {
        self.contents().purge(upto);
        self.write(RecordKind::Purge, codec::encode(&upto), Some(upto)).await
    }

    /// Notes how far entries are committed. Not waited for: after a crash the leader tells it again.
    pub fn save_committed(&self, committed: Option<LogId>) {
        self.contents().committed = committed;
        let records = vec![committed_record(committed)];
        self.send(Request { records, durable: false, purge: None, done: Done::Nothing });
    }

    /// Writes what waits and stops the writer; its file is closed on return.
    pub fn close(&self) {
        self.send(Request { records: Vec::new(), durable: true, purge: None, done: Done::Close });
        let thread = self.writer.lock().ok().and_then(|mut writer| writer.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the write-ahead log's thread panicked");
        }
    }

    async fn write(&self, kind: RecordKind, payload: Vec<u8>, purge: Option<LogId>) -> Result<(), WalFailed> {
        let (answer, answered) = oneshot::channel();
        let done = Done::Call(Box::new(move |result| {
            // The one who asked may have been cancelled; what was written stays written.
            let _nobody_waits = answer.send(result);
        }));
        let records = vec![Record { kind, index: None, payload }];
        self.send(Request { records, durable: true, purge, done });
        answered.await.unwrap_or_else(|_| Err(WalFailed::new("it is closed")))
    }

    fn send(&self, request: Request) {
        if let Err(mpsc::SendError(request)) = self.requests.send(request) {
            request.done.call(&Err(WalFailed::new("it is closed")));
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

fn committed_record(committed: Option<LogId>) -> Record {
    Record { kind: RecordKind::Committed, index: None, payload: codec::encode(&committed) }
}

/// A segment's name. Names sort as sequences do.
fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.{FINISHED}"))
}

#[cfg(test)]
mod tests;
