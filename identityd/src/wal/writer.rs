//! The one thread that writes the log.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use tokio::sync::watch;

use super::{
    Contents, Disk, SegmentFile, WalError, WalFailed, WalOptions,
    places::Place,
    replay::{Replayed, Segment},
    segment_path,
    spare::{Blank, Spare},
};
use crate::codec::{self, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::raft::{LogId, Vote};

/// A batch is closed when it has this many bytes, so that the first one in it does not wait for ever.
const BATCH_BYTES: usize = 4 << 20;

type Callback = Box<dyn FnOnce(Result<(), WalFailed>) + Send>;

/// What happens once a request is written.
pub(super) enum Done {
    Nothing,
    Call(Callback),
    Close,
}

pub(super) struct Record {
    pub(super) kind: RecordKind,
    /// The index, for an entry; the first one that is gone, for a truncation.
    pub(super) index: Option<u64>,
    pub(super) payload: Vec<u8>,
}

/// Records that are written together, in the order in which they were asked for.
pub(super) struct Request {
    pub(super) records: Vec<Record>,
    /// Whether somebody waits for stable storage.
    pub(super) durable: bool,
    /// Entries up to here are needed no more.
    pub(super) purge: Option<LogId>,
    pub(super) done: Done,
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    member: u64,
    spare: Spare,
    file: Box<dyn SegmentFile>,
    segments: VecDeque<Segment>,
    /// Size of the current segment, end of its records, and how much of it is on stable storage.
    size: u32,
    end: u32,
    synced: u32,
    /// Encoded copies of what a new segment begins with.
    vote: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
    /// What readers see, and how much of it stays in memory.
    contents: Arc<Mutex<Contents>>,
    tail_bytes: usize,
    /// What of the batch readers learn once it is on stable storage.
    news: Vec<News>,
    failed: watch::Sender<Option<WalFailed>>,
}

/// What was written.
enum News {
    Entry(u64, Place),
    Truncated(u64),
}

impl Done {
    pub(super) fn call(self, result: &Result<(), WalFailed>) {
        if let Self::Call(callback) = self {
            callback(result.clone());
        }
    }
}

impl Writer {
    /// Goes on where a replayed log ends: cuts a torn tail, or begins the first segment.
    pub(super) fn start(
        directory: &Path,
        member: u64,
        options: WalOptions,
        mut replayed: Replayed,
        failed: watch::Sender<Option<WalFailed>>,
    ) -> Result<Self, WalError> {
        let WalOptions { segment_bytes, tail_bytes, disk } = options;
        let contents = std::mem::take(&mut replayed.contents);
        let vote = contents.vote.map(|vote: Vote| codec::encode(&vote));
        let purged = contents.purged.map(|log_id| codec::encode(&log_id));
        let mut spare = Spare::new(disk.clone(), directory, segment_bytes);
        let begun = match replayed.segments.last() {
            Some(last) => reopen(disk.as_ref(), &last.path, &replayed)
                .map_err(|source| WalError::Io { path: last.path.clone(), source })?,
            None => Head { member, sequence: 1, vote: None, purged: None }
                .begin(disk.as_ref(), directory, &mut spare, 0)
                .map_err(|source| WalError::Io { path: directory.to_owned(), source })?,
        };
        let Begun { file, segment, end, size } = begun;
        let mut segments: VecDeque<_> = replayed.segments.into();
        segments.extend(segment);
        let (directory, synced) = (directory.to_owned(), end);
        Ok(Self {
            disk,
            directory,
            member,
            spare,
            file,
            segments,
            size,
            end,
            synced,
            vote,
            purged,
            contents: Arc::new(Mutex::new(contents)),
            tail_bytes,
            news: Vec::new(),
            failed,
        })
    }

    /// What readers see.
    pub(super) fn contents(&self) -> Arc<Mutex<Contents>> {
        self.contents.clone()
    }

    /// Serves requests until it is told to close or nobody can ask any more.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Request>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Ok(request) = queue.try_recv()
            {
                bytes += request.records.iter().map(|record| record.payload.len()).sum::<usize>();
                batch.push(request);
            }
            let closing = batch.iter().any(|request| matches!(request.done, Done::Close));
            let result = self.write_batch(&mut batch);
            batch.into_iter().for_each(|request| request.done.call(&result));
            if closing {
                return;
            }
        }
    }

    fn write_batch(&mut self, batch: &mut [Request]) -> Result<(), WalFailed> {
        if let Some(failed) = &*self.failed.borrow() {
            return Err(failed.clone());
        }
        self.try_write_batch(batch).map_err(|error| {
            let segment = self.segments.back().map(|segment| segment.path.display().to_string());
            let failed = WalFailed::new(format_args!("{}: {error}", segment.unwrap_or_default()));
            tracing::error!(%error, "writing the write-ahead log failed: this member acknowledges nothing any more");
            self.failed.send_replace(Some(failed.clone()));
            failed
        })
    }

    fn try_write_batch(&mut self, batch: &mut [Request]) -> io::Result<()> {
        let mut buffer = Vec::new();
        for request in batch.iter_mut() {
            for record in request.records.drain(..) {
                self.push(&mut buffer, record)?;
            }
        }
        self.write(&mut buffer)?;
        if batch.iter().any(|request| request.durable) {
            self.sync()?;
        }
        self.publish();
        match batch.iter().filter_map(|request| request.purge).max() {
            Some(upto) => self.remove_segments(upto.index),
            None => Ok(()),
        }
    }

    fn push(&mut self, buffer: &mut Vec<u8>, record: Record) -> io::Result<()> {
        let Record { kind, index, payload } = record;
        let length = codec::RECORD_HEADER_BYTES + payload.len();
        if self.end as usize + buffer.len() + length > self.size as usize {
            // The next segment may exist only once this one is whole: then damage in this one is never a torn tail.
            self.write(buffer)?;
            self.sync()?;
            self.next_segment(length)?;
        }
        let segment = self.segments.back_mut().expect("a log has a segment from its start on");
        let start = self.end as usize + buffer.len();
        codec::push_record(buffer, segment.sequence, self.end, self.synced, kind, &payload);
        match (kind, index) {
            (RecordKind::Vote, _) => self.vote = Some(payload),
            (RecordKind::Purge, _) => self.purged = Some(payload),
            (RecordKind::Entry, Some(index)) => {
                segment.last_index = segment.last_index.max(Some(index));
                self.news.push(News::Entry(index, Place::new(segment.sequence, start..start + length)));
            }
            (RecordKind::Truncate, Some(index)) => self.news.push(News::Truncated(index)),
            _ => {}
        }
        Ok(())
    }

    /// Tells readers what of the log is on stable storage now; what need not be in memory any more goes.
    fn publish(&mut self) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        for news in self.news.drain(..) {
            match news {
                News::Entry(index, place) => contents.stored(index, place),
                News::Truncated(index) => contents.truncated(index),
            }
        }
        let evicted = contents.evict(self.tail_bytes);
        // Readers need not wait until they are freed.
        drop(contents);
        drop(evicted);
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if !buffer.is_empty() {
            self.file.write_at(buffer, u64::from(self.end))?;
            self.end += u32_of(buffer.len());
            buffer.clear();
            if self.end > self.size / 2 {
                self.spare.prepare();
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.end {
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    fn next_segment(&mut self, record_bytes: usize) -> io::Result<()> {
        let sequence = self.segments.back().map_or(1, |segment| segment.sequence + 1);
        let head = Head { member: self.member, sequence, vote: self.vote.as_deref(), purged: self.purged.as_deref() };
        let begun = head.begin(self.disk.as_ref(), &self.directory, &mut self.spare, record_bytes)?;
        self.segments.extend(begun.segment);
        (self.file, self.end, self.synced, self.size) = (begun.file, begun.end, begun.end, begun.size);
        Ok(())
    }

    /// Only from the front: a truncation in a later segment must not lose the entries it is about before it.
    fn remove_segments(&mut self, upto: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].last_index.is_none_or(|last| last <= upto) {
            self.disk.remove(&self.segments[0].path)?;
            self.segments.pop_front();
        }
        Ok(())
    }
}

/// A segment that records can be appended to.
struct Begun {
    file: Box<dyn SegmentFile>,
    /// None for one that is in the list already.
    segment: Option<Segment>,
    end: u32,
    size: u32,
}

/// The last segment of a log that was read, with nothing behind its records.
fn reopen(disk: &dyn Disk, path: &Path, replayed: &Replayed) -> io::Result<Begun> {
    let mut file = disk.open(path)?;
    if replayed.torn {
        // Whatever is left there could pass for records once new ones have filled the gap before it.
        file.write_at(&vec![0; replayed.size - replayed.end], replayed.end as u64)?;
    }
    // What was read may have been in memory only: the process died between write and sync, or the sync failed, and then
    // the kernel takes the pages for clean. Written again they are dirty, so this sync means what it says.
    file.write_at(&replayed.unproven, (replayed.end - replayed.unproven.len()) as u64)?;
    file.sync()?;
    Ok(Begun { file, segment: None, end: u32_of(replayed.end), size: u32_of(replayed.size) })
}

/// What a segment begins with: its header, and the vote and the purge marker of the segments before it.
struct Head<'a> {
    member: u64,
    sequence: u64,
    vote: Option<&'a [u8]>,
    purged: Option<&'a [u8]>,
}

impl Head<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = SegmentHeader { member: self.member, sequence: self.sequence }.encode().to_vec();
        let synced = u32_of(SEGMENT_HEADER_BYTES);
        for (kind, payload) in [(RecordKind::Vote, self.vote), (RecordKind::Purge, self.purged)] {
            if let Some(payload) = payload {
                codec::push_record(&mut bytes, self.sequence, 0, synced, kind, payload);
            }
        }
        bytes
    }

    /// A segment with this head and room for a record, on stable storage before it gets its name.
    fn begin(&self, disk: &dyn Disk, directory: &Path, spare: &mut Spare, record_bytes: usize) -> io::Result<Begun> {
        let head = self.bytes();
        let (Blank { mut file, path: blank }, size) = spare.take(u32_of(head.len() + record_bytes))?;
        file.write_at(&head, 0)?;
        file.sync()?;
        let path = segment_path(directory, self.sequence);
        disk.rename(&blank, &path)?;
        let segment = Segment { sequence: self.sequence, path, last_index: None };
        Ok(Begun { file, segment: Some(segment), end: u32_of(head.len()), size })
    }
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a segment is far below 4 GiB: commands are bounded by the message size")
}
