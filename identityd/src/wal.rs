//! The write-ahead log: what a member has promised lies here before it says so.
//!
//! ```text
//! append, save_vote, … ─► queue ─► writer thread: takes all that waits ─► one write ─► one fdatasync ─► callbacks
//!        └─► Contents (readers) ◄─ what is on disk ─┘     └─ segment full: the spare one, made ready by another thread
//! read: the tail of Contents, in memory; older entries from their segments, every record checked
//! open: segments ─► replay ─► Contents; a torn tail is cut, any other damage refuses to start
//! ```
//!
//! `append`, `truncate` and `purge` are called one after the other, never at the same time, as Raft does.
//!
//! A failed write or sync poisons the log: nobody can tell what is on the disk then, so nothing is acknowledged any
//! more until the process is started again, has read it, and has written anew what no record vouches for.

mod contents;
mod disk;
mod places;
mod reader;
mod replay;
mod spare;
mod writer;

use std::{
    fmt,
    ops::{Bound, Range, RangeBounds},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{oneshot, watch};

use crate::codec::{self, RecordKind};
use crate::raft::{Entry, LogId, Vote};

pub use contents::{Contents, TruncatesCommitted, weight};
pub use disk::{Disk, RealDisk, SegmentFile, sync_parent};
pub use replay::WalError;
use writer::{Done, Record, Request, Writer};

/// Ending of a segment's name.
const FINISHED: &str = "segment";
/// Ending of a segment's name until it is whole.
const UNFINISHED: &str = "new";

/// What the log of `member` in a directory holds, as a start finds it. Nothing is made or cut; segments that are not whole are
/// removed. The entries take at most `tail_bytes` in memory.
///
/// # Errors
/// `WalError`.
pub fn read(directory: &Path, member: u64, tail_bytes: usize) -> Result<Contents, WalError> {
    Ok(replay::replay(directory, member, tail_bytes)?.contents)
}

/// How a log is kept.
pub struct WalOptions {
    /// Size of a segment in bytes; a larger one is made for a record that does not fit.
    pub segment_bytes: u32,
    /// What committed entries may take in memory: those that members need who lag a little. Older ones are read back.
    pub tail_bytes: usize,
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
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    contents: Arc<Mutex<Contents>>,
    requests: mpsc::Sender<Request>,
    failed: watch::Receiver<Option<WalFailed>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, tail_bytes: 4 << 20, disk: Arc::new(RealDisk) }
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
        let replayed = replay::replay(directory, member, options.tail_bytes)?;
        let disk = options.disk.clone();
        let (failure, failed) = watch::channel(None);
        let writer = Writer::start(directory, member, options, replayed, failure)?;
        let contents = writer.contents();
        let (requests, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|source| WalError::Io { path: directory.to_owned(), source })?;
        let directory = directory.to_owned();
        Ok(Self { directory, disk, contents, requests, failed, writer: Mutex::new(Some(thread)) })
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

    /// Whether reading from an index on needs no disk.
    #[must_use]
    pub fn is_in_memory(&self, index: u64) -> bool {
        self.contents().stretch(index).is_none()
    }

    /// The entries of a range of indexes, as far as they are there, but not more than about `most_bytes`, one at least. Blocks
    /// where they are on disk.
    ///
    /// # Errors
    /// `WalError` for what cannot be read back; nothing is left out instead.
    pub fn read(&self, range: Range<u64>, most_bytes: usize) -> Result<Vec<Entry>, WalError> {
        let mut taken = Taken { wanted: range, room: most_bytes, entries: Vec::new() };
        while taken.wants_more() {
            let stretch = {
                let contents = self.contents();
                match contents.first_index() {
                    // The next ones were purged meanwhile.
                    Some(first) if first > taken.wanted.start && !taken.entries.is_empty() => break,
                    Some(first) => taken.wanted.start = taken.wanted.start.max(first),
                    None => break,
                }
                let Some(stretch) = contents.stretch(taken.wanted.start) else {
                    let mut tail = contents.tail().range(taken.wanted.start..).map(|(_, entry)| entry);
                    while taken.wants_more()
                        && let Some(entry) = tail.next()
                    {
                        taken.take(entry.clone());
                    }
                    break;
                };
                stretch
            };
            let from = taken.wanted.start;
            match reader::read(self.disk.as_ref(), &self.directory, stretch, from, |entry| taken.take(entry)) {
                // It was purged meanwhile, and its segment removed.
                Err(_) if self.contents().stretch(taken.wanted.start).is_none() => {}
                read => read?,
            }
        }
        Ok(taken.entries)
    }

    /// The log id of an entry. Blocks where it is on disk.
    ///
    /// # Errors
    /// `WalError` for what cannot be read back.
    pub fn log_id(&self, index: u64) -> Result<Option<LogId>, WalError> {
        Ok(self
            .read(index..index.saturating_add(1), 1)?
            .first()
            .map(|entry| entry.log_id)
            .filter(|id| id.index == index))
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
        self.write(RecordKind::Vote, codec::encode(&vote), None, None).await?;
        self.contents().vote = Some(vote);
        // A record behind it vouches for it: damage of the vote can then not pass for a torn tail.
        let committed = self.contents().committed;
        self.save_committed(committed);
        Ok(())
    }

    /// Removes the entries from `index` on. Durable on return.
    ///
    /// # Errors
    /// `WalFailed`; also for committed entries that left memory: nobody may truncate them.
    pub async fn truncate(&self, index: u64) -> Result<(), WalFailed> {
        self.contents().truncate(index).map_err(WalFailed::new)?;
        self.write(RecordKind::Truncate, codec::encode(&index), Some(index), None).await
    }

    /// Removes the entries up to `upto` and every segment that holds nothing else. Durable on return.
    ///
    /// # Errors
    /// `WalFailed`.
    pub async fn purge(&self, upto: LogId) -> Result<(), WalFailed> {
        self.contents().purge(upto);
        self.write(RecordKind::Purge, codec::encode(&upto), None, Some(upto)).await
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

    async fn write(
        &self,
        kind: RecordKind,
        payload: Vec<u8>,
        index: Option<u64>,
        purge: Option<LogId>,
    ) -> Result<(), WalFailed> {
        let (answer, answered) = oneshot::channel();
        let done = Done::Call(Box::new(move |result| {
            // The one who asked may have been cancelled; what was written stays written.
            let _nobody_waits = answer.send(result);
        }));
        let records = vec![Record { kind, index, payload }];
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

/// Entries on their way to a reader.
struct Taken {
    /// The indexes that are missing.
    wanted: Range<u64>,
    /// Bytes that there still is room for.
    room: usize,
    entries: Vec<Entry>,
}

impl Taken {
    fn wants_more(&self) -> bool {
        !self.wanted.is_empty() && self.room > 0
    }

    /// Takes the next entry, if it is wanted; says whether it was.
    fn take(&mut self, entry: Entry) -> bool {
        let is_wanted = self.wants_more();
        if is_wanted {
            self.room = self.room.saturating_sub(weight(&entry));
            self.wanted.start += 1;
            self.entries.push(entry);
        }
        is_wanted
    }
}

/// The indexes of a range.
pub fn indexes(range: impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// A segment's name. Names sort as sequences do.
fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.{FINISHED}"))
}

#[cfg(test)]
mod tests;
