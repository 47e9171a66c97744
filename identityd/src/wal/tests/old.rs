//! Entries that left memory.

use std::{collections::BTreeMap, net::Ipv6Addr};

use ringfence_policy::{command::Command, label::LabelSet, name::Name, record::Node};

use super::*;

/// An entry of a command of about so many bytes.
fn sized(term: u64, index: u64, bytes: usize) -> Entry {
    let name = || Name::new(format!("n{index}")).unwrap();
    let addresses = vec![Ipv6Addr::from(u128::from(term)).into(); bytes / 17];
    let node = Node { cluster: name(), name: name(), addresses, labels: LabelSet::default() };
    let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(Command::PutNode(node).into()) }
}

fn append(wal: &Wal, entries: Vec<Entry>) {
    let (sender, receiver) = mpsc::channel();
    wal.append(entries, None, move |result| sender.send(result).unwrap());
    receiver.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
}

fn read(wal: &Wal, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, WalError> {
    wal.read(indexes(range), usize::MAX)
}

/// The log keeps nothing committed in memory.
fn open_bare(directory: &TempDir, disk: &FaultyDisk) -> Wal {
    let options = WalOptions { segment_bytes: SMALL, tail_bytes: 0, disk: Arc::new(disk.clone()) };
    Wal::open(directory.path(), MEMBER, options).unwrap()
}

/// How many entries there are.
fn in_memory_and_all(wal: &Wal) -> (usize, u64) {
    let contents = wal.contents();
    (contents.tail().len(), contents.len())
}

/// Entries 0 to 49, all committed and on disk only.
async fn fifty(directory: &TempDir, disk: &FaultyDisk) -> Wal {
    let wal = open_bare(directory, disk);
    (0..50).for_each(|index| append(&wal, vec![sized(3, index, 10)]));
    wal.save_committed(Some(log_id(49)));
    // Behind it in the queue.
    wal.save_vote(Vote::new(3, 2)).await.unwrap();
    assert_eq!(in_memory_and_all(&wal), (0, 50));
    wal
}

/// The same log as a plain map.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    committed: Option<LogId>,
    random: u64,
}

impl Model {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn range(&self, range: Range<u64>) -> Vec<Entry> {
        self.entries.range(range).map(|(_, entry)| entry.clone()).collect()
    }

    async fn step(&mut self, wal: &Wal, term: u64) {
        let first_open = self.committed.map_or(0, |committed| committed.index + 1);
        match self.random(10) {
            0 if first_open < self.next => {
                let from = first_open + self.random(self.next - first_open);
                wal.truncate(from).await.unwrap();
                self.entries.split_off(&from);
                self.next = from;
            }
            1 if first_open > 0 => {
                let upto = self.random(first_open);
                let upto = self.entries.get(&upto).map(|entry| entry.log_id);
                if let Some(upto) = upto {
                    wal.purge(upto).await.unwrap();
                    self.entries = self.entries.split_off(&(upto.index + 1));
                }
            }
            2 | 3 if first_open < self.next => {
                let upto = first_open + self.random(self.next - first_open);
                self.committed = Some(self.entries[&upto].log_id);
                wal.save_committed(self.committed);
            }
            _ => {
                let count = 1 + self.random(8);
                let sizes: Vec<_> = (0..count).map(|_| usize::try_from(self.random(300)).unwrap()).collect();
                let entries: Vec<_> =
                    (self.next..).zip(sizes).map(|(index, bytes)| sized(term, index, bytes)).collect();
                self.next += count;
                self.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
                append(wal, entries);
            }
        }
    }
}

#[tokio::test]
async fn what_is_read_back_is_what_was_appended() {
    let (mut bytes_read, mut rounds_with_old) = (0, 0);
    for seed in 1..=6 {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut model = Model { random: seed * 0x9e37_79b9, ..Model::default() };
        for term in 1..=4 {
            // Each term begins with a restart.
            let wal = open_bare(&directory, &disk);
            for step in 0..30 {
                model.step(&wal, term).await;
                let (from, to) = (model.random(model.next + 1), model.random(model.next + 2));
                let expected = model.range(from..to.max(from));
                assert_eq!(read(&wal, from..to).unwrap(), expected, "seed {seed}, term {term}, step {step}");
            }
            let all: Vec<_> = model.entries.values().cloned().collect();
            assert_eq!(read(&wal, ..).unwrap(), all, "seed {seed}, term {term}");
            let (tail, count) = in_memory_and_all(&wal);
            assert_eq!(count, all.len() as u64);
            assert_eq!(wal.contents().first_index(), all.first().map(|entry| entry.log_id.index));
            for entry in &all {
                let id = entry.log_id;
                assert_eq!(wal.log_id(id.index).unwrap(), Some(id));
                // As many as fit, one at least.
                let some = wal.read(id.index..u64::MAX, 700).unwrap();
                let weights: Vec<_> = some.iter().map(weight).collect();
                assert!(weights[..weights.len() - 1].iter().sum::<usize>() < 700, "{weights:?}");
                assert_eq!(some, model.range(id.index..id.index + some.len() as u64));
            }
            rounds_with_old += usize::from(count > tail as u64);
            bytes_read += disk.0.bytes_read.swap(0, SeqCst);
        }
    }
    assert!(
        bytes_read > 1 << 18 && rounds_with_old > 12,
        "{bytes_read} bytes read in {rounds_with_old} rounds with old entries"
    );
}

#[tokio::test]
async fn a_flipped_bit_of_an_old_entry_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let wal = fifty(&directory, &disk).await;
    // Its first segment holds nothing else.
    let path = segments(&directory).remove(0);
    let (whole, offsets) = (fs::read(&path).unwrap(), offsets(&path, 1));
    let expected = read(&wal, ..).unwrap();
    assert_eq!(expected.len(), 50);
    let (start, end) = (offsets[0], *offsets.last().unwrap());
    for at in start..end {
        scribble(&path, at as u64, &[whole[at] ^ 1 << (at % 8)]);
        let error = read(&wal, ..).map(|read| read.len()).expect_err(&format!("byte {at} of {offsets:?}"));
        let WalError::Damaged { path: named, offset, reason } = &error else { panic!("{error}") };
        assert_eq!(named, &path);
        assert!(
            offsets.contains(offset) && *offset <= at && matches!(reason, DamageReason::Unreadable { .. }),
            "{error}"
        );
        assert!(read(&wal, 45..).is_ok(), "those elsewhere can be read");
        scribble(&path, at as u64, &whole[at..=at]);
    }
    assert_eq!(read(&wal, ..).unwrap(), expected);
    // A whole segment less, and one that ends early.
    fs::write(&path, &whole[..offsets[2] - 1]).unwrap();
    assert!(matches!(read(&wal, ..), Err(WalError::Io { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(read(&wal, ..), Err(WalError::Io { .. })));
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_an_error_and_only_for_old_entries() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let wal = fifty(&directory, &disk).await;
    append(&wal, vec![sized(3, 50, 10)]);
    disk.0.read.store(EIO, SeqCst);
    let error = read(&wal, 40..).unwrap_err();
    assert!(error.to_string().contains("os error 5"), "{error}");
    assert_eq!(read(&wal, 50..).unwrap().len(), 1, "what is not committed is in memory");
}

#[tokio::test]
async fn committed_entries_that_left_memory_are_never_truncated() {
    let directory = tempfile::tempdir().unwrap();
    let wal = fifty(&directory, &FaultyDisk::default()).await;
    let error = wal.truncate(30).await.unwrap_err().to_string();
    assert!(error.contains("entry 49 is committed"), "{error}");
    assert_eq!(read(&wal, ..).unwrap().len(), 50);
}

/// 64 MiB of entries, 4 MiB of them in memory; also when they are read at a start.
#[tokio::test]
async fn memory_does_not_grow_with_the_log() {
    const ENTRY: usize = 64 << 10;
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = || WalOptions { disk: Arc::new(disk.clone()), ..WalOptions::default() };
    let wal = Wal::open(directory.path(), MEMBER, options()).unwrap();
    let most = WalOptions::default().tail_bytes + 2 * (ENTRY + 256);
    for from in (0..1024).step_by(16) {
        append(&wal, (from..from + 16).map(|index| sized(3, index, ENTRY)).collect());
        wal.save_committed(Some(log_id(from + 15)));
        wal.save_vote(Vote::new(3, 2)).await.unwrap();
        assert!(memory(&wal.contents()) <= most);
    }
    let on_disk = wal.contents().disk_bytes();
    assert!(on_disk > 64 << 20, "{on_disk}");
    drop(wal);
    let wal = Wal::open(directory.path(), MEMBER, options()).unwrap();
    assert!((1..=most).contains(&memory(&wal.contents())));
    assert_eq!(wal.contents().len(), 1024);
    disk.0.bytes_read.store(0, SeqCst);
    let newest = wal.read(1000..1024, usize::MAX).unwrap();
    assert_eq!((newest.len(), disk.0.bytes_read.load(SeqCst)), (24, 0), "the tail needs no disk");
    assert_eq!(wal.read(7..1024, 1 << 20).unwrap()[0], sized(3, 7, ENTRY));
}

/// What the entries in memory really hold.
fn memory(contents: &Contents) -> usize {
    contents.tail().values().map(|entry| codec::encode(entry).len()).sum()
}
