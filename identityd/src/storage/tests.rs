use openraft::{
    RaftLogReader, RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftStateMachine},
    testing::{StoreBuilder, Suite},
};
use ringfence_policy::{command::Command, identity::ClusterId, mesh::Mesh, name::Name, record::Cluster};

use super::*;
use crate::raft::{Entry, TypeConfig, log::Log};

fn open(directory: &Path) -> Result<Storage, StorageError> {
    Storage::open(directory, 1, 100, WalOptions { segment_bytes: 4096, ..WalOptions::default() })
}

fn log_id(index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(1, 1), index)
}

/// Entry 0 is blank, every other one puts a cluster.
fn put(index: u64) -> Entry {
    if index == 0 {
        return Entry { log_id: log_id(0), payload: openraft::EntryPayload::Blank };
    }
    let id = u32::try_from(index).unwrap();
    let name = Name::new(format!("c{id}")).unwrap();
    let cluster = Cluster { name, id: ClusterId::new(id).unwrap(), pod_cidrs: vec![] };
    Entry { log_id: log_id(index), payload: openraft::EntryPayload::Normal(Command::PutCluster(cluster).into()) }
}

/// Appends entries durably and applies them, as Raft does with committed ones.
async fn commit(storage: &Storage, range: std::ops::RangeInclusive<u64>) {
    let entries: Vec<_> = range.map(put).collect();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    storage.wal.append(entries.clone(), None, |result| sender.send(result).unwrap());
    receiver.await.unwrap().unwrap();
    storage.wal.save_committed(entries.last().map(|entry| entry.log_id));
    storage.applier.clone().apply(entries).await.unwrap();
}

/// What openraft does when it starts: applies what is committed and not applied.
async fn replay(storage: &Storage) {
    let applied = storage.applier.marker().applied.map_or(0, |log_id| log_id.index + 1);
    let committed = storage.wal.contents().committed.map_or(0, |log_id| log_id.index + 1);
    let entries = Log::new(1, storage.wal.clone()).try_get_log_entries(applied..committed.max(applied)).await.unwrap();
    storage.applier.clone().apply(entries).await.unwrap();
}

fn position(storage: &Storage) -> (Marker, Mesh) {
    (storage.applier.marker(), storage.history.read(|history| history.mesh().clone()))
}

#[tokio::test]
async fn s14_restart_snapshot_and_replay_lead_to_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let storage = open(path).unwrap();
    commit(&storage, 0..=20).await;
    storage.applier.clone().get_snapshot_builder().await.build_snapshot().await.unwrap();
    commit(&storage, 21..=40).await;
    let expected = position(&storage);
    assert_eq!(
        expected.0.digest,
        state::whole_digest(&expected.1, &storage.applier.read_book(|book| book.ledger().clone())),
        "the digest is carried along rightly"
    );
    storage.close().unwrap();

    let storage = open(path).unwrap();
    assert_eq!(position(&storage), expected, "from the state on disk");
    storage.close().unwrap();

    std::fs::remove_dir_all(path.join("state")).unwrap();
    let storage = open(path).unwrap();
    assert_eq!(storage.applier.marker().applied, Some(log_id(20)), "from the snapshot");
    replay(&storage).await;
    assert_eq!(position(&storage), expected, "from snapshot and log");
    storage.close().unwrap();

    std::fs::remove_dir_all(path.join("state")).unwrap();
    std::fs::remove_file(path.join("snapshot")).unwrap();
    let storage = open(path).unwrap();
    replay(&storage).await;
    assert_eq!(position(&storage), expected, "from the log alone");
}

#[tokio::test]
async fn a_flipped_bit_in_the_state_is_seen_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let storage = open(path).unwrap();
    commit(&storage, 0..=20).await;
    let expected = position(&storage);
    storage.close().unwrap();
    let database = path.join("state/db");
    let whole = std::fs::read(&database).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 12 + 1) {
        let mut damaged = whole.clone();
        damaged[*at] ^= 0x04;
        std::fs::write(&database, damaged).unwrap();
        let storage = open(path).unwrap();
        replay(&storage).await;
        assert_eq!(position(&storage), expected, "byte {at}");
        storage.close().unwrap();
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_made_again_while_the_state_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let storage = open(path).unwrap();
    commit(&storage, 0..=5).await;
    storage.applier.clone().get_snapshot_builder().await.build_snapshot().await.unwrap();
    storage.wal.purge(log_id(5)).await.unwrap();
    let expected = position(&storage);
    storage.close().unwrap();
    let mut bytes = std::fs::read(path.join("snapshot")).unwrap();
    bytes[40] ^= 1;
    std::fs::write(path.join("snapshot"), &bytes).unwrap();
    let storage = open(path).unwrap();
    assert_eq!(position(&storage), expected);
    storage.close().unwrap();
    std::fs::remove_dir_all(path.join("state")).unwrap();
    let storage = open(path).unwrap();
    assert_eq!(position(&storage), expected, "from the snapshot that was made again");
    storage.close().unwrap();
    std::fs::remove_file(path.join("snapshot")).unwrap();
    // Without state and snapshot nothing reaches the log's first entry.
    std::fs::remove_dir_all(path.join("state")).unwrap();
    assert!(matches!(open(path), Err(StorageError::Gap { purged: 5, .. })));
    std::fs::write(path.join("snapshot"), &bytes).unwrap();
    assert!(matches!(open(path), Err(StorageError::Snapshot(SnapshotError::Content { .. }))));
}

#[tokio::test]
async fn a_snapshot_that_was_installed_just_before_a_crash_counts() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (behind, ahead) = (open(old.path()).unwrap(), open(new.path()).unwrap());
    commit(&behind, 0..=3).await;
    commit(&ahead, 0..=9).await;
    ahead.applier.clone().get_snapshot_builder().await.build_snapshot().await.unwrap();
    let expected = position(&ahead);
    behind.close().unwrap();
    // The snapshot has its name, the state is still the old one.
    std::fs::copy(new.path().join("snapshot"), old.path().join("snapshot")).unwrap();
    let storage = open(old.path()).unwrap();
    assert_eq!(position(&storage), expected);
    storage.close().unwrap();
}

#[tokio::test]
async fn a_log_that_lost_what_was_applied_refuses_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).unwrap();
    commit(&storage, 0..=5).await;
    let length = storage.wal.contents().len();
    storage.close().unwrap();
    // From entry 4 on there are zeros: by itself the log of a member that never got further.
    let path = std::fs::read_dir(directory.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    let at = |end: usize| [&whole[..end], &vec![0; whole.len() - end]].concat();
    let cut = (0..whole.len()).find(|end| {
        std::fs::write(&path, at(*end)).unwrap();
        Wal::open(&directory.path().join("wal"), 1, WalOptions::default())
            .is_ok_and(|wal| wal.contents().len() == length - 2)
    });
    std::fs::write(&path, at(cut.unwrap())).unwrap();
    let error = open(directory.path()).err().unwrap();
    assert!(matches!(error, StorageError::CutShort { applied: 5, last: 3, .. }), "{error}");
    std::fs::write(&path, whole).unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn a_directory_is_used_by_one_process_and_needs_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(StorageError::InUse { .. })));
    storage.close().unwrap();
    std::fs::remove_dir_all(directory.path().join("wal")).unwrap();
    assert!(matches!(open(directory.path()), Err(StorageError::LogMissing { .. })));
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, Applier, (tempfile::TempDir, Arc<Wal>)> for Builder {
    async fn build(&self) -> Result<((tempfile::TempDir, Arc<Wal>), Log, Applier), crate::raft::StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let storage = open(directory.path()).unwrap();
        Ok(((directory, storage.wal.clone()), Log::new(1, storage.wal.clone()), storage.applier))
    }
}

/// openraft's own tests of what it expects from a log and a state machine.
#[test]
fn openraft_accepts_log_and_state_machine() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test]
async fn a_log_state_is_that_of_its_entries() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).unwrap();
    commit(&storage, 0..=3).await;
    let state = Log::new(1, storage.wal.clone()).get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(log_id(3))));
}
