#[path = "../../tests/durability/disk.rs"]
mod disk;

use std::{
    fs, io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicI32, Ordering::SeqCst},
    time::Duration,
};

use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;

use self::disk::{EIO, ENOSPC, FaultyDisk, Switches};
use super::*;
use crate::wal::replay::DamageReason;

mod old;

const MEMBER: u64 = 7;
const SMALL: u32 = 1024;

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Blank }
}

fn open(directory: &TempDir) -> Result<Wal, WalError> {
    Wal::open(directory.path(), MEMBER, WalOptions { segment_bytes: SMALL, ..WalOptions::default() })
}

fn open_on(directory: &TempDir, disk: &FaultyDisk) -> Wal {
    let options = WalOptions { segment_bytes: SMALL, disk: Arc::new(disk.clone()), ..WalOptions::default() };
    Wal::open(directory.path(), MEMBER, options).unwrap()
}

fn append(wal: &Wal, indexes: impl IntoIterator<Item = u64>) -> Result<(), WalFailed> {
    let (sender, receiver) = mpsc::channel();
    wal.append(indexes.into_iter().map(entry).collect(), None, move |result| sender.send(result).unwrap());
    receiver.recv_timeout(Duration::from_secs(10)).unwrap()
}

fn segments(directory: &TempDir) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().unwrap() == FINISHED);
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
    assert_eq!(after.tail().keys().copied().collect::<Vec<_>>(), (151..210).collect::<Vec<_>>());
    // A snapshot that was installed is ahead of the whole log.
    let wal = open(&directory).unwrap();
    wal.purge(log_id(1000)).await.unwrap();
    assert_eq!(segments(&directory).len(), 1);
    append(&wal, 1001..1003).unwrap();
    drop(wal);
    assert_eq!(contents(&directory).tail().keys().copied().collect::<Vec<_>>(), [1001, 1002]);
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
            let kept = contents(&directory).len();
            // A byte that was zero anyway is not missed.
            let complete = offsets.iter().filter(|end| torn[..**end] == whole[..**end]).count() as u64 - 1;
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
    assert_eq!(wal.contents().len(), 3);
    append(&wal, [3]).unwrap();
    drop(wal);
    assert_eq!(contents(&directory).len(), 4, "what was cut off does not come back behind new records");
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
    for version in [codec::FORMAT_VERSION + 1, codec::FORMAT_VERSION - 1] {
        scribble(&segments(&directory)[0], 8, &[version]);
        assert!(matches!(open(&directory), Err(WalError::OtherFormat { .. })), "version {version}");
    }
}

#[tokio::test]
async fn damage_of_the_last_vote_is_no_torn_tail() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    wal.save_vote(Vote::new(3, 2)).await.unwrap();
    drop(wal);
    let path = segments(&directory).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in codec::SEGMENT_HEADER_BYTES..offsets(&path, 1)[1] {
        scribble(&path, at as u64, &[whole[at] ^ 0x10]);
        assert!(matches!(open(&directory), Err(WalError::Damaged { .. })), "byte {at}: a member that forgot its vote");
        fs::write(&path, &whole).unwrap();
    }
}

#[tokio::test]
async fn a_failed_write_sync_or_create_poisons_the_log() {
    type Fault = fn(&Switches) -> &AtomicI32;
    let faults: [Fault; 3] = [|disk| &disk.sync, |disk| &disk.write, |disk| &disk.create];
    for (fault, errno) in faults.into_iter().flat_map(|fault| [(fault, EIO), (fault, ENOSPC)]) {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let wal = open_on(&directory, &disk);
        append(&wal, 0..5).unwrap();
        fault(&disk.0).store(errno, SeqCst);
        disk.0.spare.store(disk.0.create.load(SeqCst), SeqCst);
        // Enough to need another segment.
        let failed = append(&wal, 5..200).unwrap_err().to_string();
        assert!(failed.contains(&format!("os error {errno}")), "{failed}");
        assert_eq!(wal.failed().await.to_string(), failed, "the member learns why");
        fault(&disk.0).store(0, SeqCst);
        assert!(append(&wal, [200]).is_err(), "the disk works again, but nobody knows what is on it");
        let error = wal.save_vote(Vote::new(9, 9)).await.unwrap_err();
        assert!(error.to_string().contains("until identityd is restarted"), "{error}");
        drop(wal);
        let after = contents(&directory);
        assert!(after.len() >= 5 && after.vote.is_none(), "what was acknowledged is there");
    }
}

#[test]
fn segments_are_made_beside_the_writer_and_a_disk_that_was_full_for_a_while_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let wal = open_on(&directory, &disk);
    (0..200).for_each(|index| append(&wal, [index]).unwrap());
    let creators = std::mem::take(&mut *disk.0.creators.lock().unwrap());
    assert!(creators.len() > 3 && creators[1..].iter().all(|thread| thread == "wal-spare"), "{creators:?}");
    // No room for a spare one, and room again when it is needed.
    disk.0.spare.store(ENOSPC, SeqCst);
    (200..400).for_each(|index| append(&wal, [index]).unwrap());
    assert!(disk.0.creators.lock().unwrap().iter().filter(|thread| *thread == "wal").count() > 1);
    drop(wal);
    assert_eq!(contents(&directory).len(), 400);
}

/// After a failed sync the kernel takes the pages for clean: what is read back then is perhaps in memory only.
#[test]
fn what_no_record_vouches_for_is_written_again_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let wal = open_on(&directory, &disk);
    (0..3).for_each(|index| append(&wal, [index]).unwrap());
    drop(wal);
    let offsets = offsets(&segments(&directory)[0], 1);
    let disk = FaultyDisk::default();
    drop(open_on(&directory, &disk));
    assert_eq!(disk.0.bytes_written.load(SeqCst), offsets[3] - offsets[2], "the last record, and nothing else");
    assert_eq!(disk.0.syncs.load(SeqCst), 1);
}

#[test]
fn records_of_an_older_file_never_pass_for_records() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    (0..60).for_each(|index| append(&wal, [index]).unwrap());
    drop(wal);
    let paths = segments(&directory);
    let (first, last) = (fs::read(&paths[0]).unwrap(), paths.last().unwrap());
    let (mut reused, sequence) = (fs::read(last).unwrap(), paths.len() as u64);
    let end = *offsets(last, sequence).last().unwrap();
    let before = contents(&directory);
    // As if the file system had handed out the first segment's blocks again, behind the end of the last one.
    reused[end..].copy_from_slice(&first[end..]);
    fs::write(last, &reused).unwrap();
    assert_eq!(contents(&directory), before);
}

#[test]
fn how_far_entries_are_committed_is_on_the_disk_with_the_next_ones() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory).unwrap();
    append(&wal, [0]).unwrap();
    for index in 1..50 {
        let (sender, receiver) = mpsc::channel();
        wal.append(vec![entry(index)], Some(log_id(index - 1)), move |result| sender.send(result).unwrap());
        receiver.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        // As a crash leaves it at this moment.
        let left = tempfile::tempdir().unwrap();
        for path in segments(&directory) {
            fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        let on_disk = read(left.path(), MEMBER, usize::MAX).unwrap();
        assert_eq!((on_disk.committed, on_disk.last_log_id()), (Some(log_id(index - 1)), Some(log_id(index))));
    }
}

#[test]
fn writes_that_wait_share_one_sync() {
    struct Slow(RealDisk, Arc<std::sync::atomic::AtomicUsize>);
    struct SlowFile(Box<dyn SegmentFile>, Arc<std::sync::atomic::AtomicUsize>);
    impl SegmentFile for SlowFile {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.1.fetch_add(1, SeqCst);
            // What is asked for meanwhile waits.
            std::thread::park_timeout(Duration::from_millis(20));
            self.0.sync()
        }
    }
    impl Disk for Slow {
        fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
            Ok(Box::new(SlowFile(self.0.create(path, size)?, self.1.clone())))
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
            self.0.open(path)
        }
        fn read_at(&self, path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(path, bytes, offset)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove(path)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let counting = Arc::default();
    let options = WalOptions { disk: Arc::new(Slow(RealDisk, Arc::clone(&counting))), ..WalOptions::default() };
    let wal = Wal::open(directory.path(), MEMBER, options).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 0..100 {
        let sender = sender.clone();
        wal.append(vec![entry(index)], None, move |result| sender.send((index, result)).unwrap());
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
    let syncs = counting.load(SeqCst);
    assert!(syncs < 20, "{syncs} syncs for 100 appends");
}
