//! The one thread that writes the log.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::mpsc,
};

use super::{Disk, SegmentFile, WalError, WalFailed, WalOptions, replay::Replayed, replay::Segment, segment_path};
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
    /// The index, for an entry.
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
    directory: PathBuf,
    member: u64,
    segment_bytes: u32,
    file: Box<dyn SegmentFile>,
    segments: VecDeque<Segment>,
    /// Size of the current segment, end of its records, and how much of it is on stable storage.
    size: u32,
    end: u32,
    synced: u32,
    /// Encoded copies of what a new segment begins with.
    vote: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
    failed: Option<WalFailed>,
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
        directory: PathBuf,
        member: u64,
        options: &mut WalOptions,
        replayed: Replayed,
    ) -> Result<Self, WalError> {
        let WalOptions { segment_bytes, disk } = options;
        let segment_bytes = *segment_bytes;
        let vote = replayed.contents.vote.map(|vote: Vote| codec::encode(&vote));
        let purged = replayed.contents.purged.map(|log_id| codec::encode(&log_id));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Io { path, source }
        };
        let mut segments: VecDeque<_> = replayed.segments.into();
        let Some(last) = segments.back() else {
            let head = Head { member, sequence: 1, vote: None, purged: None };
            let (file, segment, end, size) =
                head.create(disk.as_mut(), &directory, segment_bytes).map_err(io(&directory))?;
            segments.push_back(segment);
            let synced = end;
            let failed = None;
            return Ok(Self {
                directory,
                member,
                segment_bytes,
                file,
                segments,
                size,
                end,
                synced,
                vote,
                purged,
                failed,
            });
        };
        let mut file = disk.open(&last.path).map_err(io(&last.path))?;
        if replayed.torn {
            // Whatever is left there could pass for records once new ones have filled the gap before it.
            file.write_at(&vec![0; replayed.size - replayed.end], replayed.end as u64).map_err(io(&last.path))?;
        }
        // What was read may have been in memory only, if the process died between write and sync.
        file.sync().map_err(io(&last.path))?;
        let (end, size) = (u32_of(replayed.end), u32_of(replayed.size));
        let (synced, failed) = (end, None);
        Ok(Self { directory, member, segment_bytes, file, segments, size, end, synced, vote, purged, failed })
    }

    /// Serves requests until it is told to close or nobody can ask any more.
    pub(super) fn run(mut self, mut disk: Box<dyn Disk>, queue: &mpsc::Receiver<Request>) {
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
            let result = self.write_batch(disk.as_mut(), &mut batch);
            batch.into_iter().for_each(|request| request.done.call(&result));
            if closing {
                return;
            }
        }
    }

    fn write_batch(&mut self, disk: &mut dyn Disk, batch: &mut [Request]) -> Result<(), WalFailed> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.try_write_batch(disk, batch).map_err(|error| {
            let segment = self.segments.back().map(|segment| segment.path.display().to_string());
            let failed = WalFailed::new(format_args!("{}: {error}", segment.unwrap_or_default()));
            tracing::error!(%error, "writing the write-ahead log failed: this member acknowledges nothing any more");
            self.failed = Some(failed.clone());
            failed
        })
    }

    fn try_write_batch(&mut self, disk: &mut dyn Disk, batch: &mut [Request]) -> io::Result<()> {
        let mut buffer = Vec::new();
        for request in batch.iter_mut() {
            for record in request.records.drain(..) {
                self.push(disk, &mut buffer, record)?;
            }
        }
        self.write(&mut buffer)?;
        if batch.iter().any(|request| request.durable) {
            self.sync()?;
        }
        match batch.iter().filter_map(|request| request.purge).max() {
            Some(upto) => self.remove_segments(disk, upto.index),
            None => Ok(()),
        }
    }

    fn push(&mut self, disk: &mut dyn Disk, buffer: &mut Vec<u8>, record: Record) -> io::Result<()> {
        let Record { kind, index, payload } = record;
        let length = codec::RECORD_HEADER_BYTES + payload.len();
        if self.end as usize + buffer.len() + length > self.size as usize {
            // The next segment may exist only once this one is whole: then damage in this one is never a torn tail.
            self.write(buffer)?;
            self.sync()?;
            self.next_segment(disk, length)?;
        }
        let segment = self.segments.back_mut().expect("a log has a segment from its start on");
        segment.last_index = segment.last_index.max(index);
        codec::push_record(buffer, segment.sequence, self.end, self.synced, kind, &payload);
        match kind {
            RecordKind::Vote => self.vote = Some(payload),
            RecordKind::Purge => self.purged = Some(payload),
            RecordKind::Entry | RecordKind::Truncate | RecordKind::Committed => {}
        }
        Ok(())
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        if !buffer.is_empty() {
            self.file.write_at(buffer, u64::from(self.end))?;
            self.end += u32_of(buffer.len());
            buffer.clear();
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

    fn next_segment(&mut self, disk: &mut dyn Disk, record_bytes: usize) -> io::Result<()> {
        let sequence = self.segments.back().map_or(1, |segment| segment.sequence + 1);
        let head = Head { member: self.member, sequence, vote: self.vote.as_deref(), purged: self.purged.as_deref() };
        let needed = u32_of(head.bytes().len() + record_bytes);
        let (file, segment, end, size) = head.create(disk, &self.directory, self.segment_bytes.max(needed))?;
        self.file = file;
        self.segments.push_back(segment);
        (self.end, self.synced, self.size) = (end, end, size);
        Ok(())
    }

    /// Only from the front: a truncation in a later segment must not lose the entries it is about before it.
    fn remove_segments(&mut self, disk: &mut dyn Disk, upto: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].last_index.is_none_or(|last| last <= upto) {
            disk.remove(&self.segments[0].path)?;
            self.segments.pop_front();
        }
        Ok(())
    }
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

    fn create(
        &self,
        disk: &mut dyn Disk,
        directory: &Path,
        size: u32,
    ) -> io::Result<(Box<dyn SegmentFile>, Segment, u32, u32)> {
        let path = segment_path(directory, self.sequence);
        let head = self.bytes();
        let file = disk.create(&path, &head, u64::from(size))?;
        Ok((file, Segment { sequence: self.sequence, path, last_index: None }, u32_of(head.len()), size))
    }
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a segment is far below 4 GiB: commands are bounded by the message size")
}
