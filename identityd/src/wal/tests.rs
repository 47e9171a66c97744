use std::{
    fs, io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;

use super::*;
use crate::wal::replay::DamageReason;

const MEMBER: u64 = 7;
const SMALL: u32 = 1024;

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Blank }
}

fn open(directory: &TempDir) -> Result<Wal, WalError> {
    Wal::open(directory.path(), MEMBER, WalOptions { segment_bytes: SMALL, disk: Box::new(RealDisk) })
}

fn append(wal: &Wal, indexes: impl IntoIterator<Item = u64>) -> Result<(), WalFailed> {
    let (sender, receiver) = mpsc::channel();
    wal.append(indexes.into_iter().map(entry).collect(), move |result| sender.send(result).unwrap());
    receiver.recv_timeout(Duration::from_secs(10)).unwrap()
}

fn segments(directory: &TempDir) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn contents(directory: &TempDir) -> Contents {
    open(directory).unwrap().contents().clone()
}

/// Writes bytes over a segment.
fn scribble(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where the records of a segment begin, and where the last one ends.
fn offsets(path: &Path, sequence: u64) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    let mut offsets = vec![codec::SEGMENT_HEADER_BYTES];
    while let codec::Scanned::Record(frame) = codec::scan_record(&bytes, sequence, *offsets.last().unwrap()) {
        offsets.push(offsets.last().unwrap() + codec::RECORD_HEADER_BYTES + frame.payload.len());
    }
    offsets
}

#[tokio::test]
async fn everything_is_read_back_over_many_segments() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    let vote = Vote::new(3, 2);
    wal.save_vote(vote).await.unwrap();
    for index in 0..300 {
        append(&wal, [index]).unwrap();
    }
    wal.truncate(290).await.unwrap();
    append(&wal, 290..295).unwrap();
    wal.save_committed(Some(log_id(293)));
    let before = wal.contents().clone();
    drop(wal);
    assert!(segments(&directory).len() > 3, "{:?}", segments(&directory));
    let after = contents(&directory);
    assert_eq!(after, before);
    assert_eq!((after.vote, after.committed, after.last_log_id()), (Some(vote), Some(log_id(293)), Some(log_id(294))));
    assert_eq!(contents(&directory), before, "reading changes nothing");
}

#[tokio::test]
async fn purge_removes_whole_segments_and_keeps_vote_and_marker() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    wal.save_vote(Vote::new(3, 2)).await.unwrap();
    append(&wal, 0..200).unwrap();
    let count = segments(&directory).len();
    wal.purge(log_id(150)).await.unwrap();
    let left = segments(&directory).len();
    assert!(left < count && left > 1, "{count} segments became {left}");
    append(&wal, 200..210).unwrap();
    drop(wal);
    let after = contents(&directory);
    assert_eq!((after.vote, after.purged), (Some(Vote::new(3, 2)), Some(log_id(150))));
    assert_eq!(after.entries.keys().copied().collect::<Vec<_>>(), (151..210).collect::<Vec<_>>());
    // A snapshot that was installed is ahead of the whole log.
    let wal = open(&directory).unwrap();
    wal.purge(log_id(1000)).await.unwrap();
    assert_eq!(segments(&directory).len(), 1);
    append(&wal, 1001..1003).unwrap();
    drop(wal);
    assert_eq!(contents(&directory).entries.keys().copied().collect::<Vec<_>>(), [1001, 1002]);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    append(&wal, 0..3).unwrap();
    append(&wal, 3..6).unwrap();
    drop(wal);
    let path = segments(&directory).remove(0);
    let whole = fs::read(&path).unwrap();
    let offsets = offsets(&path, 1);
    // The second batch was cut off after any number of bytes, with zeros or garbage behind.
    for cut in offsets[3]..*offsets.last().unwrap() {
        for filler in [0, 0xa5] {
            let mut torn = whole.clone();
            torn[cut..].fill(0);
            torn[cut..cut + 20].fill(filler);
            fs::write(&path, &torn).unwrap();
            let kept = contents(&directory).entries.len();
            // A byte that was zero anyway is not missed.
            let complete = offsets.iter().filter(|end| torn[..**end] == whole[..**end]).count() - 1;
            assert!((3..=6).contains(&complete));
            assert_eq!(kept, complete, "cut at {cut}, filled with {filler}");
        }
    }
}

#[test]
fn a_page_of_the_last_write_that_was_lost_is_a_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    append(&wal, 0..3).unwrap();
    append(&wal, 3..6).unwrap();
    drop(wal);
    let path = segments(&directory).remove(0);
    let offsets = offsets(&path, 1);
    // Entries 3–5 came in one write: 3 did not reach the disk, 4 and 5 did.
    scribble(&path, offsets[3] as u64, &vec![0; offsets[4] - offsets[3]]);
    let wal = open(&directory).unwrap();
    assert_eq!(wal.contents().entries.len(), 3);
    append(&wal, [3]).unwrap();
    drop(wal);
    assert_eq!(contents(&directory).entries.len(), 4, "what was cut off does not come back behind new records");
}

#[test]
fn damage_before_later_records_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    (0..3).for_each(|index| append(&wal, [index]).unwrap());
    drop(wal);
    let path = segments(&directory).remove(0);
    let offsets = offsets(&path, 1);
    let whole = fs::read(&path).unwrap();
    for at in offsets[1]..offsets[2] {
        scribble(&path, at as u64, &[whole[at] ^ 0x10]);
        let error = open(&directory).err().unwrap();
        let WalError::Damaged { path: named, offset, reason } = &error else { panic!("{error}") };
        assert_eq!((named, *offset), (&path, offsets[1]), "byte {at}");
        assert_eq!(*reason, DamageReason::BeforeLaterRecord { later: offsets[2] });
        assert!(error.to_string().contains("nothing was cut"), "{error}");
        fs::write(&path, &whole).unwrap();
    }
    // Zeros look like the end of the log, but records follow.
    scribble(&path, offsets[1] as u64, &vec![0; offsets[2] - offsets[1]]);
    assert!(matches!(open(&directory), Err(WalError::Damaged { .. })));
}

#[test]
fn damage_in_an_earlier_segment_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    (0..150).for_each(|index| append(&wal, [index]).unwrap());
    drop(wal);
    let paths = segments(&directory);
    let offsets = offsets(&paths[0], 1);
    let (last, whole) = (offsets[offsets.len() - 2], fs::read(&paths[0]).unwrap());
    scribble(&paths[0], last as u64 + 4, &[whole[last + 4] ^ 1]);
    let error = open(&directory).err().unwrap();
    assert!(matches!(&error, WalError::Damaged { reason: DamageReason::EarlierSegment, .. }), "{error}");
    fs::write(&paths[0], &whole).unwrap();
    scribble(&paths[1], 20, &[0xff]);
    let error = open(&directory).err().unwrap();
    assert!(matches!(&error, WalError::Damaged { reason: DamageReason::Header { .. }, .. }), "{error}");
    fs::remove_file(&paths[1]).unwrap();
    let error = open(&directory).err().unwrap();
    assert!(matches!(&error, WalError::Damaged { reason: DamageReason::Sequence { .. }, .. }), "{error}");
}

#[test]
fn another_members_log_and_a_newer_format_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory).unwrap());
    let error = Wal::open(directory.path(), 8, WalOptions::default()).err().unwrap();
    assert!(error.to_string().contains("belongs to member 7, not to member 8"), "{error}");
    scribble(&segments(&directory)[0], 8, &[2]);
    assert!(matches!(open(&directory), Err(WalError::NewerFormat { .. })));
}

/// The real file system, until it is told to fail.
#[derive(Clone, Default)]
struct FailingDisk {
    writes: Arc<AtomicBool>,
    syncs: Arc<AtomicBool>,
    creates: Arc<AtomicBool>,
}

struct FailingFile {
    file: Box<dyn SegmentFile>,
    disk: FailingDisk,
}

fn fail_if(flag: &AtomicBool) -> io::Result<()> {
    if flag.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

impl SegmentFile for FailingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        fail_if(&self.disk.writes)?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        fail_if(&self.disk.syncs)?;
        self.file.sync()
    }
}

impl Disk for FailingDisk {
    fn create(&mut self, path: &Path, head: &[u8], size: u64) -> io::Result<Box<dyn SegmentFile>> {
        fail_if(&self.creates)?;
        Ok(Box::new(FailingFile { file: RealDisk.create(path, head, size)?, disk: self.clone() }))
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FailingFile { file: RealDisk.open(path)?, disk: self.clone() }))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}

#[tokio::test]
async fn a_failed_write_sync_or_create_poisons_the_log() {
    type Fault = fn(&FailingDisk) -> &AtomicBool;
    let faults: [Fault; 3] = [|disk| &disk.syncs, |disk| &disk.writes, |disk| &disk.creates];
    for fault in faults {
        let directory = tempfile::tempdir().unwrap();
        let disk = FailingDisk::default();
        let options = WalOptions { segment_bytes: SMALL, disk: Box::new(disk.clone()) };
        let wal = Wal::open(directory.path(), MEMBER, options).unwrap();
        append(&wal, 0..5).unwrap();
        fault(&disk).store(true, Ordering::SeqCst);
        // Enough to need another segment.
        assert!(append(&wal, 5..200).is_err());
        fault(&disk).store(false, Ordering::SeqCst);
        assert!(append(&wal, [200]).is_err(), "the disk works again, but nobody knows what is on it");
        let error = wal.save_vote(Vote::new(9, 9)).await.unwrap_err();
        assert!(error.to_string().contains("until identityd is restarted"), "{error}");
        drop(wal);
        let after = contents(&directory);
        assert!(after.entries.len() >= 5 && after.vote.is_none(), "what was acknowledged is there");
    }
}

#[test]
fn writes_that_wait_share_one_sync() {
    #[derive(Clone, Default)]
    struct Counting(Arc<std::sync::atomic::AtomicUsize>);
    struct CountingFile(Box<dyn SegmentFile>, Counting);
    impl SegmentFile for CountingFile {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.1.0.fetch_add(1, Ordering::SeqCst);
            // A slow disk: what is asked for meanwhile waits.
            std::thread::park_timeout(Duration::from_millis(20));
            self.0.sync()
        }
    }
    impl Disk for Counting {
        fn create(&mut self, path: &Path, head: &[u8], size: u64) -> io::Result<Box<dyn SegmentFile>> {
            Ok(Box::new(CountingFile(RealDisk.create(path, head, size)?, self.clone())))
        }
        fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
            RealDisk.open(path)
        }
        fn remove(&mut self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let counting = Counting::default();
    let options = WalOptions { disk: Box::new(counting.clone()), ..WalOptions::default() };
    let wal = Wal::open(directory.path(), MEMBER, options).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 0..100 {
        let sender = sender.clone();
        wal.append(vec![entry(index)], move |result| sender.send((index, result)).unwrap());
    }
    let order: Vec<u64> = receiver
        .iter()
        .take(100)
        .map(|(index, result)| {
            result.unwrap();
            index
        })
        .collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    let syncs = counting.0.load(Ordering::SeqCst);
    assert!(syncs < 20, "{syncs} syncs for 100 appends");
}
