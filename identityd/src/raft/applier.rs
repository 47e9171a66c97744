//! Raft's state machine: applies committed entries to the mesh, to the state on disk and to the followers' history.

mod lagging;

use std::sync::{Arc, Mutex, MutexGuard};

use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, storage::RaftStateMachine};
use ringfence_policy::{
    command::{Command, Committed, Housekeeping, Refusal},
    mesh::Mesh,
    record::{Change, Delta},
    revision::Revision,
};
use ringfence_proto::follow::SharedHistory;
use ringfence_runtime::metrics::Timed;

use super::{Answer, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig, durable::Durable};
use crate::{
    codec,
    digests::Digests,
    history::DiskHistory,
    machine::{self, Book, ledger::Ledger},
    observe::APPLY,
    snapshot::{Content, SnapshotError, SnapshotFile, Snapshots},
    state::{self, EncodedChange, Marker, Stake, State, StateError},
};
use lagging::Lagging;

/// The state machine; clones share one state.
#[derive(Clone)]
pub struct Applier {
    history: Arc<SharedHistory>,
    state: Arc<State>,
    snapshots: Snapshots,
    position: Arc<Mutex<Position>>,
    digests: Arc<Digests>,
    past: Arc<DiskHistory>,
    lagging: Arc<Lagging>,
    durable: Option<Durable>,
}

/// Where the state machine stands, and what it knows beside the mesh.
#[derive(Debug, Default)]
struct Position {
    marker: Marker,
    book: Book,
    /// Encoded deltas that the history on disk gets next.
    passed: Vec<(Revision, Vec<u8>)>,
}

/// Writes a snapshot of the moment in which it was made.
pub struct SnapshotBuilder {
    snapshots: Snapshots,
    state: Arc<State>,
    lagging: Arc<Lagging>,
    content: Arc<Content>,
}

impl Applier {
    /// A state machine that stands where `marker` says; `history` holds the mesh of that moment, `past` what led to it.
    #[must_use]
    pub fn new(
        history: Arc<SharedHistory>,
        past: Arc<DiskHistory>,
        state: Arc<State>,
        snapshots: Snapshots,
        marker: Marker,
        ledger: Ledger,
    ) -> Self {
        let book = history.read(|history| Book::of(history.mesh(), ledger));
        book.ledger().store().into_iter().for_each(|store| history.found(store));
        let digests = Arc::new(Digests::default());
        marker.note(&digests);
        let position = Arc::new(Mutex::new(Position { marker, book, passed: Vec::new() }));
        let lagging = Lagging::start(state.clone());
        Self { history, past, state, snapshots, position, digests, lagging, durable: None }
    }

    /// Applies no entry before the own log holds it for good.
    #[must_use]
    pub fn behind(self, durable: Durable) -> Self {
        Self { durable: Some(durable), ..self }
    }

    /// Brings the state on disk up to what was applied, as an orderly stop does. Not on stable storage yet.
    ///
    /// # Errors
    /// `StateError`.
    pub fn persist(&self) -> Result<(), StateError> {
        self.lagging.write()
    }

    /// The digests of the last states, for other members to compare with theirs (S14).
    #[must_use]
    pub const fn digests(&self) -> &Arc<Digests> {
        &self.digests
    }

    /// Reads what the state machine knows beside the mesh: keep `f` short, the writer waits for it.
    pub fn read_book<R>(&self, f: impl FnOnce(&Book) -> R) -> R {
        f(&self.position().book)
    }

    /// Where the state machine stands, with the digest of its state (S14).
    #[must_use]
    pub fn marker(&self) -> Marker {
        self.position().marker.clone()
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().expect("no code panics while it holds the state machine's position")
    }

    /// One entry, with an answer for each of its commands; what it changed is added to `changed`.
    fn apply_entry(
        &self,
        position: &mut Position,
        entry: Entry,
        changed: &mut Vec<EncodedChange>,
    ) -> Result<Vec<Answer>, StorageError> {
        let mut answers = Vec::new();
        match entry.payload {
            EntryPayload::Normal(batch) => {
                let commands = batch.take().map_err(|error| StorageIOError::apply(entry.log_id, &error))?;
                answers.extend(commands.iter().map(|command| self.execute(position, command, changed)));
            }
            EntryPayload::Membership(membership) => {
                position.marker.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Blank => {}
        }
        position.marker.applied = Some(entry.log_id);
        Ok(answers)
    }

    fn execute(&self, position: &mut Position, command: &Command, changed: &mut Vec<EncodedChange>) -> Answer {
        let Position { marker, book, passed } = position;
        let revision = marker.revision.next();
        let (changes, identity) = self.history.read(|history| {
            let mesh = history.mesh();
            let transition = machine::transition(mesh, book, command)?;
            let records = transition.changes.iter().map(|change| moved_record(mesh, revision, change));
            let rows = transition.rows.iter().map(|(key, row)| {
                let before = book.ledger().get(key).map_or(0, |row| state::row_digest(key, &row));
                (before, Stake::of_row(key, row.as_ref()))
            });
            for (before, Stake { digest, change }) in records.chain(rows) {
                marker.digest = marker.digest.wrapping_sub(before).wrapping_add(digest);
                changed.push(change);
            }
            book.apply(mesh, &transition);
            Ok::<_, Refusal>((transition.changes, transition.identity))
        })?;
        if let Command::Housekeeping(Housekeeping::Found(_)) = command {
            book.ledger().store().into_iter().for_each(|store| self.history.found(store));
        }
        if changes.is_empty() {
            return Ok(Committed { revision: marker.revision, changed: false, identity });
        }
        marker.revision = revision;
        let delta = Delta { revision, changes };
        passed.push((revision, codec::encode(&delta)));
        self.history.push(delta).expect("only the state machine moves the history, one revision at a time");
        Ok(Committed { revision: marker.revision, changed: true, identity })
    }
}

/// What a change of one revision takes from the digest, and the record as it will be. A revision changes a record at
/// most once, so `mesh` still has the one from before.
fn moved_record(mesh: &Mesh, revision: Revision, change: &Change) -> (u64, Stake) {
    let key = change.key();
    let before = mesh.records().get(&key).map_or(0, |old| state::record_digest(&key, old));
    let versioned = match change {
        Change::Put(record) => Some((revision, record)),
        Change::Delete(_) => None,
    };
    (before, Stake::of_record(&key, versioned.as_ref()))
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let marker = self.marker();
        Ok((marker.applied, marker.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Answer>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let (Some(durable), Some(last)) = (&self.durable, entries.last()) {
            durable.wait_for(last.log_id).await;
        }
        let _timed = Timed::new(APPLY);
        let mut position = self.position();
        let mut changed = Vec::new();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            answers.push(self.apply_entry(&mut position, entry, &mut changed)?);
            position.marker.note(&self.digests);
        }
        self.past.append(&position.passed, self.past.now());
        position.passed.clear();
        let noted = self.lagging.note(changed, position.marker.clone());
        noted.map_err(|error| StorageIOError::write_state_machine(&error))?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let Marker { applied, membership, .. } = self.marker();
        let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |log_id| log_id.to_string());
        SnapshotBuilder {
            snapshots: self.snapshots.clone(),
            state: self.state.clone(),
            lagging: self.lagging.clone(),
            content: Arc::new(Content {
                meta: SnapshotMeta { last_log_id: applied, last_membership: membership, snapshot_id },
                mesh: self.history.read(|history| history.mesh().clone()),
                ledger: self.read_book(|book| book.ledger().clone()),
            }),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        self.snapshots.begin_receiving().map(Box::new).map_err(|error| write_error(&error))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<SnapshotFile>) -> Result<(), StorageError> {
        let snapshots = self.snapshots.clone();
        let installed = blocking(move || snapshots.install(*file)).await.map_err(|error| write_error(&error))?;
        let Content { meta: stored, mesh, ledger } = installed;
        tracing::info!(revision = %mesh.revision(), snapshot = stored.snapshot_id, "installing a snapshot");
        let marker = Marker {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            revision: mesh.revision(),
            digest: state::whole_digest(&mesh, &ledger),
        };
        self.lagging.clear();
        self.state.replace(&mesh, &ledger, &marker).map_err(|error| StorageIOError::write_state_machine(&error))?;
        let mut position = self.position();
        marker.note(&self.digests);
        self.past.reset(mesh.revision());
        let store = ledger.store();
        *position = Position { marker, book: Book::of(&mesh, ledger), passed: Vec::new() };
        self.history.replace(store, mesh);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let snapshots = self.snapshots.clone();
        match blocking(move || snapshots.current()).await {
            Ok(current) => Ok(current.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) })),
            Err(error) => Err(read_error(&error)),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (snapshots, state, lagging) = (self.snapshots.clone(), self.state.clone(), self.lagging.clone());
        let content = self.content.clone();
        // The log is purged behind a snapshot: afterwards the state must not fall back behind it.
        let built = blocking(move || {
            let written = lagging.write().and_then(|()| state.flush());
            written.map_err(|error| StorageError::from(StorageIOError::write_state_machine(&error)))?;
            let Content { meta, mesh, ledger } = &*content;
            snapshots.build(meta, mesh, ledger).map_err(|error| write_error(&error))?;
            snapshots.current().map_err(|error| read_error(&error))
        });
        match built.await? {
            Some((meta, file)) => Ok(Snapshot { meta, snapshot: Box::new(file) }),
            None => Err(read_error(&SnapshotError::Io {
                path: "snapshot".into(),
                source: std::io::ErrorKind::NotFound.into(),
            })),
        }
    }
}

/// Runs file work where it stops nobody else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic and is not cancelled")
}

fn write_error(error: &SnapshotError) -> StorageError {
    StorageIOError::write_snapshot(None, error).into()
}

fn read_error(error: &SnapshotError) -> StorageError {
    StorageIOError::read_snapshot(None, error).into()
}
