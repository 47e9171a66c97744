//! The watch history on disk: one encoded delta per revision, so that followers resume across restarts and from further
//! back than memory reaches.
//!
//! ```text
//! data_dir/history/<first revision>.deltas      records as in the log's segments, written and never synced
//! append ─► buffer ─ BUFFER_BYTES, flush, who reads ─► newest file ─ an eighth of a bound ─► next file
//!                                     whole files go from the front: too many bytes, too old
//! open(head) ─► reaches the head: cut there ─► read_from ─► Deltas (an iterator) │ Compacted { oldest }
//!            └► torn, damaged or short of it: emptied
//! ```
//!
//! Everything in it can be had from log and snapshot: whoever asks for what is lost gets a snapshot. So a disk that fails
//! here ends the history, not the member. And what waits in memory may be lost with the process, as long as the files reach
//! as far as the state on disk: the log brings the rest again. Whoever writes the state flushes the history before.

mod deltas;

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use ringfence_policy::{record::Delta, revision::Revision};
use ringfence_proto::follow::Past;

pub use deltas::{Deltas, HistoryError};

use crate::codec::{self, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader};

const ENDING: &str = "deltas";
/// A file is closed when it reaches this share of a bound.
const SHARES: u32 = 8;
/// Files are read as a whole; they are closed at this size at the latest, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// Deltas wait in memory up to this many bytes: a write for each put would be made by the core thread, before its answer.
const BUFFER_BYTES: usize = 64 << 10;

/// What is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all files.
    pub bytes: u64,
    /// Age of a delta; looked at when one is added.
    pub age: Duration,
}

/// What there is after a revision.
#[derive(Debug)]
pub enum Reach {
    /// Every later delta, in order; none for who is at the head.
    Deltas(Deltas),
    /// Not all of them.
    Compacted {
        /// The first revision that there is.
        oldest: Revision,
    },
}

/// The history of one member. One writer; readers do not wait for it.
#[derive(Debug)]
pub struct DiskHistory {
    directory: PathBuf,
    member: u64,
    bounds: Bounds,
    opened: (SystemTime, Instant),
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// In order, without gaps; none is empty.
    files: VecDeque<Run>,
    newest: Option<File>,
    /// Records that are counted and not written yet.
    buffer: Vec<u8>,
    head: Revision,
    /// Deltas up to here are forgotten, also those whose file is still needed for later ones.
    floor: Revision,
    failed: bool,
}

/// A file with the deltas of consecutive revisions.
#[derive(Debug, Clone)]
struct Run {
    path: PathBuf,
    first: u64,
    last: u64,
    end: u64,
    /// When its first and its last delta were added.
    began: SystemTime,
    ended: SystemTime,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 256 << 20, age: Duration::from_secs(24 * 60 * 60) }
    }
}

impl DiskHistory {
    /// Opens the history of `member`, whose state is at `head`: nothing later is kept, and nothing at all if it does not
    /// reach that far.
    #[must_use]
    pub fn open(directory: &Path, member: u64, bounds: Bounds, head: Revision) -> Self {
        let inner = Inner {
            files: VecDeque::new(),
            newest: None,
            buffer: Vec::new(),
            head,
            floor: Revision::default(),
            failed: false,
        };
        let opened = (SystemTime::now(), Instant::now());
        let history = Self { directory: directory.to_owned(), member, bounds, opened, inner: Mutex::new(inner) };
        let mut inner = history.lock();
        match fs::create_dir_all(directory).and_then(|()| deltas::runs(directory, member, head)) {
            Ok(files) if files.back().is_some_and(|run| run.last == head.0) => inner.files = files,
            Ok(files) => {
                if !files.is_empty() || head != Revision::default() {
                    tracing::info!(%head, "the history on disk does not reach the head: it begins anew");
                }
                history.clear(&mut inner);
            }
            Err(error) => history.give_up(&mut inner, &error),
        }
        drop(inner);
        history
    }

    /// What ages are counted by: the wall clock when the history was opened, which the files' times are of, and what has
    /// passed since. So a wall clock that jumps ages nothing.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let (opened, since) = self.opened;
        opened + since.elapsed()
    }

    /// Adds the encoded deltas of the revisions that follow the head; what is not later than the head is there already.
    /// `now` as `Self::now` says.
    pub fn append<'a>(&self, deltas: impl IntoIterator<Item = (Revision, &'a [u8])>, now: SystemTime) {
        let mut inner = self.lock();
        for (revision, delta) in deltas {
            if revision <= inner.head {
                continue;
            }
            if revision != inner.head.next() {
                self.clear(&mut inner);
            }
            inner.head = revision;
            if !inner.failed
                && let Err(error) = self.add(&mut inner, revision, delta, now)
            {
                self.give_up(&mut inner, &error);
            }
        }
        if inner.buffer.len() >= BUFFER_BYTES {
            self.write(&mut inner);
        }
    }

    /// Hands everything appended to the page cache: it survives the end of the process.
    pub fn flush(&self) {
        self.write(&mut self.lock());
    }

    /// Forgets everything: the state was replaced by another one at `head`.
    pub fn reset(&self, head: Revision) {
        let mut inner = self.lock();
        self.clear(&mut inner);
        inner.head = head;
    }

    /// The deltas after a revision.
    #[must_use]
    pub fn read_from(&self, revision: Revision) -> Reach {
        let mut inner = self.lock();
        self.write(&mut inner);
        let oldest = inner.first();
        if revision.next() < oldest || revision > inner.head {
            return Reach::Compacted { oldest };
        }
        let runs = inner.files.iter().filter(|run| run.last > revision.0).cloned();
        Reach::Deltas(Deltas::new(self.member, runs.collect(), revision))
    }

    fn write(&self, inner: &mut Inner) {
        if let Err(error) = inner.write() {
            self.give_up(inner, &error);
        }
    }

    fn add(&self, inner: &mut Inner, revision: Revision, delta: &[u8], now: SystemTime) -> io::Result<()> {
        if inner.newest.is_none() || inner.files.back().is_none_or(|run| self.is_full(run, now)) {
            inner.write()?;
            self.begin_file(inner, revision, now)?;
            self.enforce_bounds(inner, now)?;
        }
        let run = inner.files.back_mut().expect("a file that was begun is in the list");
        let before = inner.buffer.len();
        // The buffer's first byte comes behind what is written already.
        let base =
            u32::try_from(run.end).map_err(io::Error::other)? - u32::try_from(before).map_err(io::Error::other)?;
        codec::push_record(&mut inner.buffer, run.first, base, 0, RecordKind::Delta, delta);
        (run.last, run.ended) = (revision.0, now);
        run.end += (inner.buffer.len() - before) as u64;
        Ok(())
    }

    fn is_full(&self, run: &Run, now: SystemTime) -> bool {
        let age = now.duration_since(run.began).unwrap_or_default();
        run.end >= FILE_BYTES.min(self.bounds.bytes / u64::from(SHARES)) || age >= self.bounds.age / SHARES
    }

    /// A member that was just opened begins a file of its own, too: the last one may have been cut.
    fn begin_file(&self, inner: &mut Inner, first: Revision, now: SystemTime) -> io::Result<()> {
        let path = self.directory.join(format!("{:016x}.{ENDING}", first.0));
        let header = SegmentHeader { member: self.member, sequence: first.0 }.encode();
        let mut file = File::create(&path)?;
        file.write_all(&header)?;
        let end = SEGMENT_HEADER_BYTES as u64;
        inner.files.push_back(Run { path, first: first.0, last: first.0, end, began: now, ended: now });
        inner.newest = Some(file);
        Ok(())
    }

    fn enforce_bounds(&self, inner: &mut Inner, now: SystemTime) -> io::Result<()> {
        let mut bytes: u64 = inner.files.iter().map(|run| run.end).sum();
        while inner.files.len() > 1 {
            let run = &inner.files[0];
            let age = now.duration_since(run.ended).unwrap_or_default();
            if bytes <= self.bounds.bytes && age <= self.bounds.age {
                break;
            }
            bytes -= run.end;
            fs::remove_file(&run.path)?;
            inner.files.pop_front();
        }
        Ok(())
    }

    fn clear(&self, inner: &mut Inner) {
        inner.newest = None;
        inner.buffer.clear();
        inner.files.clear();
        if let Err(error) = deltas::remove_all(&self.directory) {
            self.give_up(inner, &error);
        }
    }

    fn give_up(&self, inner: &mut Inner, error: &dyn std::error::Error) {
        tracing::warn!(
            directory = %self.directory.display(),
            %error,
            "the history on disk cannot be used until the next start: followers that are far behind get a snapshot"
        );
        (inner.newest, inner.failed) = (None, true);
        inner.buffer.clear();
        inner.files.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DiskHistory {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Past for DiskHistory {
    fn deltas_after(&self, revision: Revision, limit: usize) -> Option<Vec<Delta>> {
        let Reach::Deltas(deltas) = self.read_from(revision) else { return None };
        let decoded: Result<Vec<Delta>, HistoryError> = deltas.take(limit).collect();
        match decoded {
            Ok(deltas) => Some(deltas),
            Err(HistoryError::Compacted { .. }) => None,
            Err(error) => {
                self.give_up(&mut self.lock(), &error);
                None
            }
        }
    }

    fn compact(&self, upto: Revision) {
        let mut inner = self.lock();
        inner.floor = inner.floor.max(upto.min(inner.head));
        if let Err(error) = inner.drop_files() {
            self.give_up(&mut inner, &error);
        }
    }

    fn oldest(&self) -> Revision {
        Revision(self.lock().first().0 - 1)
    }
}

impl Inner {
    /// The oldest delta that there is, or the next one.
    fn first(&self) -> Revision {
        let first = self.files.front().map_or(self.head.next(), |run| Revision(run.first));
        first.max(self.floor.next())
    }

    /// Removes what lies below the floor as a whole. The newest file stays: it is being written.
    fn drop_files(&mut self) -> io::Result<()> {
        while self.files.len() > 1 && self.files[0].last <= self.floor.0 {
            fs::remove_file(&self.files[0].path)?;
            self.files.pop_front();
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.newest {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
