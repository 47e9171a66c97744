//! The write-ahead log against the least that a disk can do for it: a preallocated file and one fdatasync per record.
//!
//! ```text
//! cargo bench -p ringfence-identityd --bench wal -- [DIRECTORY] [SECONDS]
//! ```
//!
//! Both take turns in slices, because a shared disk is not equally fast at all times; the median of the slices counts.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use openraft::{CommittedLeaderId, EntryPayload, Membership};
use ringfence_identityd::{
    codec,
    raft::{Entry, LogId, MemberNode},
    wal::{Disk, RealDisk, SegmentFile, Wal, WalOptions},
};

const RECORD_BYTES: usize = 1024;
const SLICE: Duration = Duration::from_millis(250);
const WAITING: u32 = 128;

/// An entry of about a kibibyte: a node's long address stands for the commands that usually fill one.
fn entry(index: u64) -> Entry {
    let node = MemberNode { address: "x".repeat(RECORD_BYTES - 40), cluster: None };
    let membership =
        Membership::new(vec![[1].into()], [(1, node)].into_iter().collect::<std::collections::BTreeMap<_, _>>());
    Entry { log_id: LogId::new(CommittedLeaderId::new(1, 1), index), payload: EntryPayload::Membership(membership) }
}

/// The real file system, counting.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

struct CountingFile(Box<dyn SegmentFile>, Arc<AtomicUsize>);

impl SegmentFile for CountingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.1.fetch_add(1, Relaxed);
        self.0.sync()
    }
}

impl Disk for Counting {
    fn create(&self, path: &Path, size: u64) -> std::io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(CountingFile(RealDisk.create(path, size)?, self.0.clone())))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(CountingFile(RealDisk.open(path)?, self.0.clone())))
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        RealDisk.read_at(path, bytes, offset)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
}

/// The limit: records of one kibibyte into zeros that are on disk already.
struct Plain {
    file: File,
    end: u64,
    size: u64,
}

impl Plain {
    fn new(path: &Path) -> Self {
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .expect("a writable directory");
        let size = 256 << 20;
        let zeros = vec![0; 1 << 20];
        (0..size).step_by(zeros.len()).for_each(|at| file.write_all_at(&zeros, at).expect("room for 256 MiB"));
        file.sync_all().expect("a disk that syncs");
        Self { file, end: 0, size }
    }

    fn append(&mut self, record: &[u8]) {
        if self.end + record.len() as u64 > self.size {
            self.end = 0;
        }
        self.file.write_all_at(record, self.end).expect("a disk that writes");
        self.file.sync_data().expect("a disk that syncs");
        self.end += record.len() as u64;
    }
}

/// Repeats for a slice; records per second, and the latency of each in microseconds.
fn slice(mut append: impl FnMut(), latencies: &mut Vec<u64>) -> f64 {
    let (started, mut count) = (Instant::now(), 0.0);
    while started.elapsed() < SLICE {
        let at = Instant::now();
        append();
        latencies.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        count += 1.0;
    }
    count / started.elapsed().as_secs_f64()
}

fn quantile<T: Copy + PartialOrd>(values: &mut [T], thousandths: usize) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).expect("no rate is NaN"));
    values[(values.len() - 1) * thousandths / 1000]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let parent = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: f64 = arguments.get(1).map_or(10.0, |seconds| seconds.parse().expect("SECONDS is a number"));
    let directory = tempfile::tempdir_in(parent).expect("a writable directory");
    let disk = Counting::default();
    let options = WalOptions { disk: Arc::new(disk.clone()), ..WalOptions::default() };
    std::fs::create_dir(directory.path().join("wal")).expect("a writable directory");
    let wal = Wal::open(&directory.path().join("wal"), 1, options).expect("a new log");
    let mut plain = Plain::new(&directory.path().join("plain"));
    let (done, waiting) = mpsc::channel();
    let mut index = 0;
    let mut append = |count: u32| {
        for _ in 0..count {
            let done = done.clone();
            wal.append(vec![entry(index)], None, move |result| done.send(result).expect("somebody waits"));
            index += 1;
        }
        (0..count).for_each(|_| waiting.recv().expect("an answer").expect("a disk that writes"));
    };
    let record = vec![0xa5; codec::RECORD_HEADER_BYTES + codec::encode(&entry(0)).len()];
    let (mut plain_rates, mut plain_latencies) = (Vec::new(), Vec::new());
    let (mut log_rates, mut log_latencies) = (Vec::new(), Vec::new());
    let (mut group_rates, mut group_latencies, mut grouped_syncs) = (Vec::new(), Vec::new(), 0);
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < seconds {
        plain_rates.push(slice(|| plain.append(&record), &mut plain_latencies));
        log_rates.push(slice(|| append(1), &mut log_latencies));
        let before = disk.0.load(Relaxed);
        group_rates.push(slice(|| append(WAITING), &mut group_latencies) * f64::from(WAITING));
        grouped_syncs += disk.0.load(Relaxed) - before;
    }
    println!("{} bytes per record, in {}", record.len(), directory.path().display());
    let groups = group_latencies.len();
    let plain = report("preallocated file + fdatasync", &mut plain_rates, &mut plain_latencies);
    let log = report("log, 1 writer", &mut log_rates, &mut log_latencies);
    report("log, 128 records wait", &mut group_rates, &mut group_latencies);
    println!("log : file at 1 writer                {:8.2}", log / plain);
    println!("fdatasyncs per 128 records that wait  {:8.2}", grouped_syncs as f64 / groups as f64);
}

/// Prints one row; the median rate.
fn report(name: &str, rates: &mut [f64], latencies: &mut [u64]) -> f64 {
    let rate = quantile(rates, 500);
    let [p50, p99, p999] = [500, 990, 999].map(|thousandths| quantile(latencies, thousandths));
    println!("{name:32} {rate:8.0} records/s   p50 {p50:5} µs   p99 {p99:6} µs   p99.9 {p999:6} µs");
    rate
}
