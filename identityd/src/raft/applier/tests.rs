use std::{
    iter,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use openraft::CommittedLeaderId;
use ringfence_policy::{
    command::{Command, EndpointSpec, SignOfLife},
    identity::ClusterId,
    label::LabelSet,
    mesh::Mesh,
    name::Name,
    record::{Cluster, Node, RecordKey},
    revision::Revision,
};
use ringfence_proto::follow::Past as _;

use super::*;
use crate::{
    history::Bounds,
    raft::batch::{Batch, Proposal},
    storage::Storage,
    wal::WalOptions,
};

/// How long something may take that waits for nothing.
const DEADLINE: Duration = Duration::from_secs(60);

fn name(text: impl AsRef<str>) -> Name {
    Name::new(text).unwrap()
}

fn entry(index: u64, commands: Vec<Command>) -> Entry {
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(Batch::join(commands.into_iter().map(Proposal::new).collect())) }
}

fn first() -> Vec<Command> {
    let cluster = Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: vec![] };
    let node = Node { cluster: name("east"), name: name("n1"), addresses: vec![], labels: LabelSet::default() };
    vec![Command::PutCluster(cluster), Command::PutNode(node)]
}

/// Endpoint `number`, with an address that says which round put it.
fn put(number: u16, round: u8) -> Command {
    let [high, low] = number.to_be_bytes();
    Command::PutEndpoint(EndpointSpec {
        cluster: name("east"),
        node: name("n1"),
        name: name(format!("pod-{number:05}")),
        addresses: vec![[10, round, high, low].into()],
        labels: LabelSet::parse([format!("k8s:app=app-{}", number % 7)]).unwrap(),
        named_ports: vec![],
    })
}

struct Opened {
    storage: Storage,
    applier: Applier,
    index: u64,
}

impl Opened {
    fn new(directory: &Path) -> Self {
        let storage = Storage::open(directory, 1, 100, WalOptions::default()).unwrap();
        let mut opened = Self { applier: storage.applier.clone(), storage, index: 0 };
        opened.apply(first());
        opened
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let entry = entry(self.index, commands);
        self.index += 1;
        let answers = block_on(self.applier.apply([entry])).unwrap();
        answers.into_iter().flatten().for_each(|answer| assert!(answer.is_ok(), "{answer:?}"));
    }

    /// As `apply`, of an entry that lies in the log before.
    fn log_and_apply(&mut self, commands: Vec<Command>) {
        let (done, logged) = mpsc::channel();
        let entry = entry(self.index, commands.clone());
        self.storage.wal.append(vec![entry], None, move |appended| done.send(appended.is_ok()).unwrap());
        assert!(logged.recv_timeout(DEADLINE).unwrap());
        self.apply(commands);
    }

    fn snapshot(&mut self) {
        let mut builder = block_on(self.applier.get_snapshot_builder());
        block_on(builder.build_snapshot()).unwrap();
    }

    fn mesh(&self) -> Mesh {
        self.storage.history.read(|history| history.mesh().clone())
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn s14_the_digest_that_is_kept_is_that_of_the_whole_state() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    for round in 0..3 {
        opened.apply((0..50).map(|number| put(number * (u16::from(round) + 1), round)).collect());
        let ledger = opened.applier.read_book(|book| book.ledger().clone());
        assert_eq!(opened.applier.marker().digest, state::whole_digest(&opened.mesh(), &ledger), "round {round}");
    }
    // One command that names a row twice.
    let sign = |realised| SignOfLife { node: name("n1"), realised: Revision(realised) };
    opened.apply(vec![Command::KeepAlive { cluster: name("east"), nodes: vec![sign(2), sign(3)] }]);
    let ledger = opened.applier.read_book(|book| book.ledger().clone());
    assert_eq!(ledger.leases()[&(name("east"), name("n1"))].realised, Revision(3), "the last one counts");
    assert_eq!(opened.applier.marker().digest, state::whole_digest(&opened.mesh(), &ledger));
}

#[test]
fn a_snapshot_is_of_the_moment_when_it_was_taken_while_entries_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    opened.apply((0..1000).map(|number| put(number, 0)).collect());
    let (then, marker) = (opened.mesh(), opened.applier.marker());
    let mut builder = block_on(opened.applier.get_snapshot_builder());
    opened.apply((500..1500).map(|number| put(number, 1)).collect());
    let now = opened.mesh();
    let built = block_on(async {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let built = runtime.spawn(async move { builder.build_snapshot().await.unwrap().meta }).await.unwrap();
        runtime.shutdown_background();
        built
    });
    assert_eq!(built.last_log_id, marker.applied);
    let content = opened.applier.snapshots.load().unwrap().unwrap();
    assert_eq!((&content.mesh, content.meta), (&then, built));
    // The state on disk is as new as it can be: it must not stand behind the snapshot.
    opened.storage.abandon();
    let (_, stored) = State::open(&directory.path().join("state")).unwrap();
    assert_eq!(stored.unwrap().mesh, now);
}

#[test]
fn s13_after_a_crash_the_history_reaches_as_far_as_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    let before = opened.mesh().revision();
    (0..10).for_each(|round| opened.apply(vec![put(2, round)]));
    opened.applier.persist().unwrap();
    let written = opened.mesh().revision();
    (0..10).for_each(|round| opened.apply(vec![put(3, round)]));
    opened.storage.abandon();
    // What it had in memory is gone.
    std::mem::forget(opened);
    let (_, stored) = State::open(&directory.path().join("state")).unwrap();
    let head = stored.unwrap().marker.revision;
    assert_eq!(head, written);
    let past = DiskHistory::open(&directory.path().join("history"), 1, Bounds::default(), head);
    let resumed = past.deltas_after(before, 100).expect("followers resume");
    assert_eq!(resumed.len() as u64, written.0 - before.0);
}

#[test]
fn entries_are_applied_while_the_disk_takes_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    let behind = opened.applier.behind.clone();
    let disk = behind.writing();
    let (done, applied) = mpsc::channel();
    let applying = std::thread::spawn(move || {
        opened.apply((0..500).map(|number| put(number, 0)).collect());
        done.send(()).unwrap();
        opened
    });
    applied.recv_timeout(DEADLINE).expect("applying waits for nobody who writes");
    drop(disk);
    let opened = applying.join().unwrap();
    opened.applier.persist().unwrap();
    opened.storage.abandon();
    let (_, stored) = State::open(&directory.path().join("state")).unwrap();
    assert_eq!(stored.unwrap().mesh.revision(), Revision(502));
}

#[test]
fn what_changes_often_is_written_once_and_in_the_end_the_disk_has_all() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    opened.applier.persist().unwrap();
    let idle = Command::AllocateIdentity { cluster: name("east"), labels: LabelSet::parse(["k8s:app=idle"]).unwrap() };
    for round in 0..20 {
        opened.apply((0..10).map(|number| put(number, round)).chain([idle.clone()]).collect());
    }
    // Ten endpoints, seven identities of theirs, the counter and the lease; one more identity, with its number.
    assert_eq!(opened.applier.behind.position().dirty.len(), 10 + 7 + 1 + 1 + 2);
    // Twelve have names; identities and their numbers are numbers.
    let bytes = opened.applier.behind.position().dirty.bytes();
    assert!((12 * 100..12 * 150).contains(&bytes), "{bytes}");
    opened.applier.persist().unwrap();
    assert_eq!(opened.applier.behind.position().dirty.len(), 0);
    assert_eq!(opened.applier.behind.position().dirty.bytes(), 0);
    let (mesh, marker) = (opened.mesh(), opened.applier.marker());
    opened.storage.abandon();
    let (_, stored) = State::open(&directory.path().join("state")).unwrap();
    let stored = stored.unwrap();
    assert_eq!((stored.mesh, stored.marker), (mesh, marker));
}

/// Where a write of the state stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Behind so many changes; the marker is still the one from before.
    Changes(usize),
    Everything,
}

/// A member with a snapshot of entry 1 and a state of entry 2 whose next write, of entry 3, stops somewhere. Gives how
/// many changes there were, where it stood when it was opened again, and checks what the log makes of it then.
fn stop_in_a_write(written: Written) -> (usize, u64) {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path(), 1, 100, WalOptions::default()).unwrap();
    let mut opened = Opened { applier: storage.applier.clone(), storage, index: 0 };
    let gone =
        |number: u16| Command::Delete(RecordKey::Endpoint(name("east"), name("n1"), name(format!("pod-{number:05}"))));
    opened.log_and_apply(first());
    opened.log_and_apply((0..10).map(|number| put(number, 0)).collect());
    opened.snapshot();
    opened.log_and_apply((5..15).map(|number| put(number, 1)).collect());
    opened.applier.persist().unwrap();
    opened.log_and_apply((10..20).map(|number| put(number, 2)).chain((0..3).map(gone)).collect());
    let (mesh, marker) = (opened.mesh(), opened.applier.marker());
    let (changes, image) = {
        let mut position = opened.applier.behind.position();
        let image = position.image(&opened.storage.history);
        (std::mem::take(&mut position.dirty).changes(&image).collect::<Vec<_>>(), image)
    };
    let count = changes.len();
    match written {
        Written::Everything => opened.storage.state.write(changes, &image.marker).unwrap(),
        Written::Changes(some) => {
            let end = iter::once_with(|| resume_unwind(Box::new("the process ends")));
            let changes = changes.into_iter().take(some).chain(end);
            let stopped = catch_unwind(AssertUnwindSafe(|| opened.storage.state.write(changes, &image.marker)));
            assert!(stopped.is_err());
        }
    }
    opened.storage.abandon();
    drop(opened);

    let storage = Storage::open(directory.path(), 1, 100, WalOptions::default()).unwrap();
    let stood = storage.applier.marker().applied.unwrap().index;
    let mut applier = storage.applier.clone();
    block_on(applier.apply(storage.wal.read(stood + 1..u64::MAX, usize::MAX).unwrap())).unwrap();
    let ledger = applier.read_book(|book| book.ledger().clone());
    assert_eq!(storage.history.read(|history| history.mesh().clone()), mesh, "{written:?}");
    assert_eq!(applier.marker(), marker, "{written:?}");
    assert_eq!(marker.digest, state::whole_digest(&mesh, &ledger), "{written:?}");
    (count, stood)
}

#[test]
fn s14_a_member_that_stops_in_a_write_of_its_state_comes_back_as_it_was() {
    let (count, stood) = stop_in_a_write(Written::Everything);
    assert_eq!(stood, 3, "a whole write is used");
    assert!(count > 13, "{count}");
    assert_eq!(stop_in_a_write(Written::Changes(0)), (count, 2), "the state from before is used");
    for some in 1..=count {
        assert_eq!(stop_in_a_write(Written::Changes(some)), (count, 1), "{some} of {count}: the snapshot is used");
    }
}

#[test]
fn a_write_that_fails_behind_ends_the_state_machine() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Opened::new(directory.path());
    opened.storage.state.close();
    opened.applier.behind.wake();
    let deadline = Instant::now() + DEADLINE;
    let mut failed = Ok(());
    while failed.is_ok() && Instant::now() < deadline {
        let entry = entry(opened.index, vec![put(1, 0)]);
        opened.index += 1;
        failed = block_on(opened.applier.apply([entry])).map(drop);
    }
    assert!(failed.unwrap_err().to_string().contains("closed"));
}
