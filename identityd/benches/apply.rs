//! What one member spends on a command between "committed" and "applied, and durable later", without network and log.
//!
//! ```text
//! cargo bench -p ringfence-identityd --bench apply -- [--quick] [--json FILE]
//! ```
//!
//! CPU time of the whole process over many entries of [`COMMANDS`] commands each, so that writing the state behind is in it;
//! a snapshot is made when the log has [`LOG_BYTES`] of them, of which [`KEPT_BYTES`] stay. At last a start: a log of
//! [`LOG_BYTES`] is read and replayed into an empty state, the most that a start can have to do. The endpoints are those of the store's bench: 256 bytes,
//! 100,000 keys drawn at random, 100 label sets; each put changes an address.

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder, storage::RaftStateMachine};
use ringfence_identityd::{
    codec,
    raft::{
        Entry, LogId,
        applier::Applier,
        batch::{Batch, Proposal},
        bound::{KEPT_BYTES, LOG_BYTES},
        log::Log,
    },
    storage::Storage,
    wal::WalOptions,
};
use ringfence_policy::{
    command::{Command, EndpointSpec},
    identity::ClusterId,
    label::LabelSet,
    name::Name,
    record::{Cluster, Node},
};

const KEYS: u64 = 100_000;
const LABEL_SETS: u64 = 100;
const IDENTITIES: u64 = 50_000;
/// Commands of one entry: about what 256 clients make of it.
const COMMANDS: u64 = 64;
/// Entries of which the puts are measured at once.
const BLOCK: u64 = 500;

/// One member's state machine.
struct Machine {
    applier: Applier,
    index: u64,
    random: u64,
    runtime: tokio::runtime::Runtime,
}

/// One figure, as `xtask` reads it.
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

impl Machine {
    fn apply(&mut self, batch: Batch) {
        let entry = Entry { log_id: log_id(self.index), payload: EntryPayload::Normal(batch) };
        self.index += 1;
        let answers = self.runtime.block_on(self.applier.apply([entry])).expect("a disk that works");
        for answer in answers.iter().flatten() {
            assert!(answer.as_ref().expect("every command is all right").revision.0 > 0);
        }
    }

    fn snapshot(&mut self) {
        let mut builder = self.runtime.block_on(self.applier.get_snapshot_builder());
        black_box(self.runtime.block_on(builder.build_snapshot()).expect("a disk that works"));
    }

    fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn puts(&mut self, entries: u64) -> Vec<Batch> {
        (0..entries)
            .map(|_| {
                let commands = (0..COMMANDS).map(|_| {
                    let (key, mark) = (self.random() % KEYS, self.random());
                    put(key, mark)
                });
                batch(commands)
            })
            .collect()
    }
}

fn batch(commands: impl IntoIterator<Item = Command>) -> Batch {
    Batch::join(commands.into_iter().map(Proposal::new).collect())
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn name(text: impl AsRef<str>) -> Name {
    Name::new(text).expect("it is one")
}

fn labels(app: &str, namespace: &str) -> LabelSet {
    let texts = [
        format!("k8s:app={app}"),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        format!("k8s:io.cilium.k8s.policy.serviceaccount={app}"),
        format!("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}"),
        "k8s:tier=backend".to_owned(),
    ];
    LabelSet::parse(texts).expect("they are labels")
}

fn put_cluster() -> Command {
    Command::PutCluster(Cluster { name: name("c1"), id: ClusterId::new(1).expect("1 is one"), pod_cidrs: vec![] })
}

fn put_node() -> Command {
    Command::PutNode(Node { cluster: name("c1"), name: name("n1"), addresses: vec![], labels: LabelSet::default() })
}

fn put(key: u64, mark: u64) -> Command {
    let [_, _, _, _, _, a, b, c] = key.to_be_bytes();
    let mark = std::net::Ipv6Addr::from(u128::from(mark) | 0xfd00 << 112);
    Command::PutEndpoint(EndpointSpec {
        cluster: name("c1"),
        node: name("n1"),
        name: name(format!("e{key:08}")),
        addresses: vec![std::net::Ipv4Addr::new(10, a, b, c).into(), mark.into()],
        labels: labels(&format!("p{}", key % LABEL_SETS), "payments"),
        named_ports: vec![],
    })
}

/// CPU time of the process, also of threads that have ended; counted in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The command's name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')').expect("Linux puts it there");
    let ticks = rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
}

fn micros(spent: Duration, count: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / count as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().position(|argument| argument == "--json").and_then(|at| arguments.get(at + 1));
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a writable directory");
    let storage = Storage::open(directory.path(), 1, 10_000, WalOptions::default()).expect("a new store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let mut machine = Machine { applier: storage.applier, index: 1, random: 0x5eed, runtime };
    machine.apply(batch([put_cluster(), put_node()]));
    let mut rows = Vec::new();
    let mut row = |name, value, unit| {
        println!("{name:44} {value:10.2} {unit}");
        rows.push(Row { name, value, unit });
    };

    let (before, empty) = (cpu(), rss_mb());
    for from in (0..IDENTITIES).step_by(16) {
        let allocate = |number| Command::AllocateIdentity {
            cluster: name("c1"),
            labels: labels(&format!("app-{number:06}-of-a-cluster"), "payments"),
        };
        machine.apply(batch((from..from + 16).map(allocate)));
    }
    row("allocate (with making the command)", micros(cpu() - before, IDENTITIES), "µs CPU per identity");
    machine.snapshot();
    let filled = rss_mb();
    row("resident with 50,000 identities", filled, "MB");
    row("… for each of them", (filled - empty) * f64::from(1 << 20) / IDENTITIES as f64, "bytes");

    for from in (0..KEYS / COMMANDS).map(|entry| entry * COMMANDS) {
        machine.apply(batch((from..from + COMMANDS).map(|key| put(key, key + 1))));
    }
    machine.snapshot();
    row("resident with 100,000 endpoints more", rss_mb(), "MB");

    let blocks = if quick { 2 } else { 10 };
    let (mut known, mut received, mut snapshots) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..blocks {
        let batches = machine.puts(BLOCK);
        let before = cpu();
        batches.into_iter().for_each(|batch| machine.apply(batch));
        known += cpu() - before;
        let encoded: Vec<_> = machine.puts(BLOCK).iter().map(codec::encode).collect();
        let before = cpu();
        for bytes in encoded {
            let batch: Batch = codec::decode(&bytes).expect("it was encoded");
            batch.check().expect("it was encoded");
            machine.apply(batch);
        }
        received += cpu() - before;
    }
    let commands = blocks * BLOCK * COMMANDS;
    row("put, commands at hand", micros(known, commands), "µs CPU per put");
    row("put, commands decoded", micros(received, commands), "µs CPU per put");
    machine.applier.persist().expect("a disk that works");
    machine.puts(KEYS / COMMANDS).into_iter().for_each(|batch| machine.apply(batch));
    let before = cpu();
    machine.applier.persist().expect("a disk that works");
    // Of 100,000 keys, as many are drawn at least once in 100,000 draws.
    row("writing 63,000 changed records behind", (cpu() - before).as_secs_f64() * 1e3, "ms CPU");
    for _ in 0..3 {
        let before = cpu();
        machine.snapshot();
        snapshots += cpu() - before;
    }
    row("snapshot of 150,000 records", snapshots.as_secs_f64() * 1e3 / 3.0, "ms CPU");
    let entry_bytes = codec::encode(&machine.puts(1)[0]).len() as u64;
    let puts_between = (LOG_BYTES - KEPT_BYTES) / entry_bytes * COMMANDS;
    row("… spread over the puts from one to the next", micros(snapshots / 3, puts_between), "µs CPU per put");

    let batches = machine.puts(BLOCK);
    let longest = beside_snapshots(&mut machine, batches);
    row("longest apply beside snapshots", longest.as_secs_f64() * 1e3, "ms");
    row("resident at the end", rss_mb(), "MB");
    let log_bytes = if quick { LOG_BYTES / 8 } else { LOG_BYTES };
    let Start { entries, read, replayed } = start(&mut machine, log_bytes, entry_bytes);
    row("start: puts in the log", (entries * COMMANDS) as f64, "puts");
    row("… log read and checked", read.as_secs_f64(), "s");
    row("… and replayed", replayed.as_secs_f64(), "s");
    if let Some(path) = json {
        let rows: Vec<_> = rows
            .iter()
            .map(|Row { name, value, unit }| serde_json::json!({"name": name, "value": value, "unit": unit}))
            .collect();
        fs::write(path, serde_json::to_string_pretty(&rows).expect("plain rows")).expect("a writable file");
    }
}

/// What a start with a whole log, and no state, has to do.
struct Start {
    entries: u64,
    read: Duration,
    replayed: Duration,
}

/// Writes a log of so many bytes and starts with it, in a directory of its own.
fn start(machine: &mut Machine, log_bytes: u64, entry_bytes: u64) -> Start {
    const AT_ONCE: u64 = 64;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a writable directory");
    let open = || Storage::open(directory.path(), 1, 10_000, WalOptions::default()).expect("a store");
    let storage = open();
    let append = |index: u64, batches: Vec<Batch>| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let entry = |(index, batch)| Entry { log_id: log_id(index), payload: EntryPayload::Normal(batch) };
        let entries: Vec<_> = (index..).zip(batches).map(entry).collect();
        let last = entries.last().map(|entry| entry.log_id);
        storage.wal.append(entries, None, move |result| sender.send(result).expect("it is waited for"));
        receiver.recv().expect("it is told").expect("a disk that works");
        storage.wal.save_committed(last);
    };
    append(0, vec![batch([put_cluster(), put_node()])]);
    let entries = (log_bytes / entry_bytes).next_multiple_of(AT_ONCE);
    (0..entries / AT_ONCE).for_each(|lot| append(1 + lot * AT_ONCE, machine.puts(AT_ONCE)));
    storage.abandon();
    drop(storage);

    let begun = Instant::now();
    let storage = open();
    let read = begun.elapsed();
    let (mut log, mut applier) = (Log::new(1, storage.wal.clone()), storage.applier.clone());
    // As openraft does it.
    for from in (0..=entries).step_by(64) {
        let some = machine.runtime.block_on(log.try_get_log_entries(from..(from + 64).min(entries + 1)));
        let answers = machine.runtime.block_on(applier.apply(some.expect("a log that can be read")));
        assert!(answers.expect("a disk that works").iter().flatten().all(Result::is_ok));
    }
    let start = Start { entries, read, replayed: begun.elapsed() };
    storage.abandon();
    start
}

/// The longest that one entry took, while another thread took one snapshot after the other.
fn beside_snapshots(machine: &mut Machine, batches: Vec<Batch>) -> Duration {
    let mut applier = machine.applier.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut builder = runtime.block_on(applier.get_snapshot_builder());
                black_box(runtime.block_on(builder.build_snapshot()).expect("a disk that works"));
            }
        });
        let mut longest = Duration::ZERO;
        for batch in batches {
            let started = Instant::now();
            machine.apply(batch);
            longest = longest.max(started.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        longest
    })
}
