//! Raft's state machine: applies committed entries to the mesh, to the state on disk and to the followers' history.

use std::sync::{Arc, Mutex, MutexGuard};

use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, storage::RaftStateMachine};
use ringfence_policy::{
    command::{Command, Committed, Refusal},
    mesh::Mesh,
    record::{Change, Delta, RecordKey, Versioned},
};
use ringfence_proto::follow::SharedHistory;

use super::{Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::{
    machine::{self, Book, Transition, ledger::Ledger},
    snapshot::{Content, SnapshotError, SnapshotFile, Snapshots},
    state::{self, Changed, Marker, State},
};

type Answer = Result<Committed, Refusal>;

/// The state machine; clones share one state.
#[derive(Clone)]
pub struct Applier {
    history: Arc<SharedHistory>,
    state: Arc<State>,
    snapshots: Snapshots,
    position: Arc<Mutex<Position>>,
}

/// Where the state machine stands, and what it knows beside the mesh.
#[derive(Debug, Default)]
struct Position {
    marker: Marker,
    book: Book,
}

/// Writes a snapshot of the moment in which it was made.
pub struct SnapshotBuilder {
    snapshots: Snapshots,
    state: Arc<State>,
    content: Arc<Content>,
}

impl Applier {
    /// A state machine that stands where `marker` says; `history` holds the mesh of that moment.
    #[must_use]
    pub fn new(
        history: Arc<SharedHistory>,
        state: Arc<State>,
        snapshots: Snapshots,
        marker: Marker,
        ledger: Ledger,
    ) -> Self {
        let book = history.read(|history| Book::of(history.mesh(), ledger));
        Self { history, state, snapshots, position: Arc::new(Mutex::new(Position { marker, book })) }
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

    /// One entry; the keys that it changed are added to `changed`.
    fn apply_entry(&self, position: &mut Position, entry: Entry, changed: &mut Changed) -> Answer {
        position.marker.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Normal(command) => return self.execute(position, &command, changed),
            EntryPayload::Membership(membership) => {
                position.marker.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Blank => {}
        }
        Ok(Committed { revision: position.marker.revision, changed: false, identity: None })
    }

    fn execute(&self, position: &mut Position, command: &Command, changed: &mut Changed) -> Answer {
        let Position { marker, book } = position;
        let (transition, before) = self.history.read(|history| {
            let mesh = history.mesh();
            let transition = machine::transition(mesh, book, command)?;
            marker.digest = state::moved_row_digest(marker.digest, book.ledger(), &transition.rows);
            book.apply(mesh, &transition);
            let before = transition.changes.iter().filter_map(|change| old_record(mesh, change)).collect();
            Ok::<_, Refusal>((transition, before))
        })?;
        let Transition { changes, rows, identity } = transition;
        changed.rows.extend(rows.into_keys());
        if changes.is_empty() {
            return Ok(Committed { revision: marker.revision, changed: false, identity });
        }
        let delta = Delta { revision: marker.revision.next(), changes: changes.clone() };
        self.history.push(delta).expect("only the state machine moves the history, one revision at a time");
        marker.revision = marker.revision.next();
        marker.digest =
            self.history.read(|history| state::moved_digest(marker.digest, &before, history.mesh(), &changes));
        changed.records.extend(changes.iter().map(Change::key));
        Ok(Committed { revision: marker.revision, changed: true, identity })
    }
}

fn old_record(mesh: &Mesh, change: &Change) -> Option<(RecordKey, Versioned)> {
    let key = change.key();
    mesh.records().get(&key).cloned().map(|versioned| (key, versioned))
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let marker = self.marker();
        Ok((marker.applied, marker.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut position = self.position();
        let mut changed = Changed::default();
        let answers =
            entries.into_iter().map(|entry| self.apply_entry(&mut position, entry, &mut changed)).collect::<Vec<_>>();
        self.history
            .read(|history| self.state.write(history.mesh(), position.book.ledger(), &changed, &position.marker))
            .map_err(|error| StorageIOError::write_state_machine(&error))?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let Marker { applied, membership, .. } = self.marker();
        let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |log_id| log_id.to_string());
        SnapshotBuilder {
            snapshots: self.snapshots.clone(),
            state: self.state.clone(),
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
        self.state.replace(&mesh, &ledger, &marker).map_err(|error| StorageIOError::write_state_machine(&error))?;
        let mut position = self.position();
        *position = Position { marker, book: Book::of(&mesh, ledger) };
        self.history.reset(mesh);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let snapshots = self.snapshots.clone();
        match blocking(move || snapshots.current()).await {
            Ok(current) => Ok(current.map(|(Content { meta, .. }, file)| Snapshot { meta, snapshot: Box::new(file) })),
            Err(error) => Err(read_error(&error)),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (snapshots, state, content) = (self.snapshots.clone(), self.state.clone(), self.content.clone());
        // The log is purged behind a snapshot: afterwards the state must not fall back behind it.
        let built = blocking(move || {
            state.flush().map_err(|error| StorageError::from(StorageIOError::write_state_machine(&error)))?;
            snapshots.build(&content).map_err(|error| write_error(&error))?;
            snapshots.current().map_err(|error| read_error(&error))
        });
        match built.await? {
            Some((Content { meta, .. }, file)) => Ok(Snapshot { meta, snapshot: Box::new(file) }),
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
