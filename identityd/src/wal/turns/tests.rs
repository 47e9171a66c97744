//! The log under its two writers, by what the disk sees: which thread wrote and synced, and in which order.

use std::{
    io,
    path::Path,
    sync::{
        atomic::{AtomicI32, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use openraft::{CommittedLeaderId, EntryPayload};

use super::super::{Contents, Disk, RealDisk, SegmentFile, Wal, WalFailed, WalOptions};
use super::*;
use crate::raft::{Entry, LogId};

/// A disk that tells which threads synced it, and can be slow or fail.
#[derive(Clone, Default)]
struct Watched(Arc<Switches>);

#[derive(Default)]
struct Switches {
    syncers: Mutex<Vec<String>>,
    slow_ms: AtomicU64,
    errno: AtomicI32,
}

struct WatchedFile(Box<dyn SegmentFile>, Arc<Switches>);

impl SegmentFile for WatchedFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.syncers.lock().unwrap().push(thread::current().name().unwrap_or_default().to_owned());
        match (self.1.errno.load(SeqCst), self.1.slow_ms.load(SeqCst)) {
            (0, 0) => Ok(()),
            (0, slow) => {
                thread::park_timeout(Duration::from_millis(slow));
                Ok(())
            }
            (errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Disk for Watched {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(WatchedFile(RealDisk.create(path, size)?, self.0.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(WatchedFile(RealDisk.open(path)?, self.0.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}

impl Watched {
    /// Whose syncs there were since the last look.
    fn syncers(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.syncers.lock().unwrap())
    }
}

/// A log, its disk, and the answers to what was appended.
struct Bench {
    directory: tempfile::TempDir,
    disk: Watched,
    wal: Arc<Wal>,
    answers: mpsc::Receiver<(u64, Result<(), WalFailed>)>,
    answer: mpsc::Sender<(u64, Result<(), WalFailed>)>,
}

impl Bench {
    fn new(segment_bytes: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Watched::default();
        let options = WalOptions { segment_bytes, disk: Arc::new(disk.clone()) };
        let wal = Arc::new(Wal::open(directory.path(), 1, options).unwrap());
        let (answer, answers) = mpsc::channel();
        Self { directory, disk, wal, answers, answer }
    }

    /// With a disk that is known to be quick: entries 0 to 19 are in the log.
    fn quick(segment_bytes: u32) -> Self {
        let bench = Self::new(segment_bytes);
        for index in 0..20 {
            bench.append(index);
            bench.answered(index).unwrap();
        }
        bench.settle();
        bench.disk.syncers();
        bench
    }

    /// Returns once the thread sleeps: answers come a moment before.
    fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.wal.turns.queue().is_thread_idle {
            assert!(Instant::now() < deadline, "the thread does not come to an end");
            thread::yield_now();
        }
    }

    fn append(&self, index: u64) {
        let answer = self.answer.clone();
        self.wal.append(vec![entry(index)], move |result| answer.send((index, result)).unwrap());
    }

    fn append_calmly(&self, index: u64) -> bool {
        let answer = self.answer.clone();
        let done = move |result| answer.send((index, result)).unwrap();
        self.wal.append_calmly(vec![entry(index)], Some(log_id(index.saturating_sub(1))), done)
    }

    /// The next answer, which must be that of an entry.
    fn answered(&self, index: u64) -> Result<(), WalFailed> {
        let (answered, result) = self.answers.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(answered, index);
        result
    }

    fn is_answered(&self) -> bool {
        self.answers.try_recv().is_ok()
    }

    /// What a start would find.
    fn reopened(self) -> Contents {
        self.wal.close();
        Wal::open(self.directory.path(), 1, WalOptions::default()).unwrap().contents().clone()
    }
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Blank }
}

fn own_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn a_calm_log_is_synced_where_it_was_appended_to() {
    let bench = Bench::quick(16 << 20);
    assert!(bench.append_calmly(20));
    assert!(!bench.is_answered() && bench.disk.syncers().is_empty(), "nothing is acknowledged before its sync");
    bench.wal.write_here();
    bench.answered(20).unwrap();
    assert_eq!(bench.disk.syncers(), [own_name()]);
    bench.wal.write_here();
    assert!(bench.disk.syncers().is_empty(), "nothing waits");
    let contents = bench.reopened();
    assert_eq!((contents.last_log_id(), contents.committed), (Some(log_id(20)), Some(log_id(19))));
}

#[test]
fn a_disk_that_nobody_knows_yet_is_the_threads() {
    let bench = Bench::new(16 << 20);
    assert!(!bench.append_calmly(0));
    bench.answered(0).unwrap();
    assert_eq!(bench.disk.syncers().last().map(String::as_str), Some("wal"));
}

#[test]
fn several_that_wait_are_the_threads() {
    let bench = Bench::quick(16 << 20);
    assert!(bench.append_calmly(20));
    assert!(!bench.append_calmly(21), "the thread writes both");
    bench.answered(20).unwrap();
    bench.answered(21).unwrap();
    bench.wal.write_here();
    assert!(bench.disk.syncers().iter().all(|name| name == "wal"));
}

#[test]
fn a_new_segment_is_the_threads() {
    let bench = Bench::quick(1024);
    let mut index = 20;
    loop {
        let is_calm = bench.append_calmly(index);
        if is_calm {
            bench.wal.write_here();
        }
        bench.answered(index).unwrap();
        index += 1;
        if index == 120 {
            break;
        }
    }
    let syncers = bench.disk.syncers();
    assert!(syncers.contains(&"wal".to_owned()) && syncers.contains(&own_name()), "{syncers:?}");
    let segments = std::fs::read_dir(bench.directory.path()).unwrap().count();
    assert!(segments > 3, "{segments} segments");
    assert_eq!(bench.reopened().entries().keys().copied().collect::<Vec<_>>(), (0..120).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_becomes_slow_is_the_threads_until_it_is_quick_again() {
    let bench = Bench::quick(16 << 20);
    bench.disk.0.slow_ms.store(40, SeqCst);
    assert!(bench.append_calmly(20), "nobody knows it yet");
    bench.wal.write_here();
    bench.answered(20).unwrap();
    bench.disk.syncers();
    for index in 21..24 {
        assert!(!bench.append_calmly(index), "one slow sync was enough");
        assert!(!bench.is_answered(), "the one who appended goes on while the disk syncs");
        bench.answered(index).unwrap();
    }
    assert_eq!(bench.disk.syncers(), ["wal"; 3]);
    bench.disk.0.slow_ms.store(0, SeqCst);
    for index in 24..34 {
        bench.append(index);
        bench.answered(index).unwrap();
    }
    bench.settle();
    assert!(bench.append_calmly(34));
    bench.wal.write_here();
    bench.answered(34).unwrap();
}

#[tokio::test]
async fn a_sync_that_fails_here_poisons_the_log() {
    let bench = Bench::quick(16 << 20);
    bench.disk.0.errno.store(5, SeqCst);
    assert!(bench.append_calmly(20));
    bench.wal.write_here();
    let failed = bench.answered(20).unwrap_err().to_string();
    assert!(failed.contains("os error 5"), "{failed}");
    assert_eq!(bench.disk.syncers(), [own_name()]);
    assert!(bench.wal.has_failed());
    assert_eq!(bench.wal.failed().await.to_string(), failed, "the member learns why");
    bench.disk.0.errno.store(0, SeqCst);
    bench.append(21);
    assert!(bench.answered(21).is_err(), "the disk works again, but nobody knows what is on it");
    if bench.append_calmly(22) {
        bench.wal.write_here();
    }
    assert!(bench.answered(22).is_err());
    assert!(bench.disk.syncers().is_empty());
}

/// Appends from here and by the thread in turns, with votes between them: the log reads back what was asked for, in order.
#[tokio::test]
async fn order_is_kept_between_the_two() {
    let bench = Bench::quick(64 << 10);
    let (mut here, mut index) = (0, 20);
    while index < 1500 {
        if index % 5 == 0 {
            bench.settle();
        }
        match index % 7 {
            0 => bench.append(index),
            3 => {
                // Two at once, and written here all the same if the thread has not come yet.
                let _ = bench.append_calmly(index);
                index += 1;
                let _ = bench.append_calmly(index);
                bench.wal.write_here();
            }
            5 => {
                bench.wal.truncate(index - 2).await.unwrap();
                index -= 2;
                bench.append(index);
                index += 1;
                bench.append(index);
                index += 1;
                bench.append(index);
            }
            _ => {
                if bench.append_calmly(index) {
                    here += 1;
                    bench.wal.write_here();
                }
            }
        }
        index += 1;
    }
    bench.append(index);
    let mut last = 19;
    while last < index {
        let (answered, result) = bench.answers.recv_timeout(Duration::from_secs(10)).unwrap();
        result.unwrap();
        assert!(answered <= last + 1, "{answered} behind {last}");
        last = answered;
    }
    assert!(here > 0, "nothing was written here");
    let before = bench.wal.contents().clone();
    assert_eq!(bench.reopened(), before);
}

/// A writer holds the log while others send: what they sent is written although the one who held it never looks again.
#[test]
fn nothing_is_left_lying_when_both_come_at_once() {
    let bench = Bench::quick(16 << 20);
    for index in (20..4020).step_by(2) {
        bench.settle();
        let calm = bench.append_calmly(index);
        let (wal, answer) = (bench.wal.clone(), bench.answer.clone());
        thread::scope(|scope| {
            scope.spawn(move || {
                wal.append(vec![entry(index + 1)], move |result| answer.send((index + 1, result)).unwrap());
            });
            if calm {
                bench.wal.write_here();
            }
        });
        bench.answered(index).unwrap();
        bench.answered(index + 1).unwrap();
    }
    assert_eq!(bench.reopened().last_log_id(), Some(log_id(4019)));
}

#[test]
fn damage_of_what_was_synced_here_is_no_torn_tail() {
    let bench = Bench::quick(16 << 20);
    assert!(bench.append_calmly(20));
    bench.wal.write_here();
    bench.answered(20).unwrap();
    bench.wal.close();
    let path = bench.directory.path().join("0000000000000001.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // The note behind the entry is 10 to 20 bytes long.
    bytes[end - 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Wal::open(bench.directory.path(), 1, WalOptions::default()).err().unwrap().to_string();
    assert!(error.contains("nothing was cut"), "{error}");
}
