//! Raft's state machine: applies committed entries to the mesh, to the state on disk and to the followers' history.
//!
//! ```text
//! Entry ─► Position::execute ─┬─► SharedHistory (mesh, followers)
//!  (under one lock)           ├─► DiskHistory
//!                             └─► Dirty ─► Behind ─► State
//! snapshot: Image (shares the state, taken in a moment) ─► Snapshots, while applying goes on
//! ```

mod behind;
mod position;

use std::sync::Arc;

use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, storage::RaftStateMachine};
use ringfence_proto::follow::SharedHistory;
use ringfence_runtime::metrics::Timed;

use super::{Answer, Entry, LogId, SnapshotMeta, StorageError, StoredMembership, TypeConfig, durable::Durable};
use crate::{
    digests::Digests,
    history::DiskHistory,
    machine::{Book, ledger::Ledger},
    observe::APPLY,
    snapshot::{Content, SnapshotError, SnapshotFile, Snapshots},
    state::{self, Marker, State, StateError},
};
use behind::Behind;
use position::{Image, Position};

/// The state machine; clones share one state.
#[derive(Clone)]
pub struct Applier {
    behind: Arc<Behind>,
    snapshots: Snapshots,
    digests: Arc<Digests>,
    durable: Option<Durable>,
}

/// Writes a snapshot of the moment in which it was made.
pub struct SnapshotBuilder {
    snapshots: Snapshots,
    behind: Arc<Behind>,
    image: Arc<Image>,
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
        let behind = Behind::start(history, past, state, Position::new(marker, book));
        Self { behind, snapshots, digests, durable: None }
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
        self.behind.write()
    }

    /// The digests of the last states, for other members to compare with theirs (S14).
    #[must_use]
    pub const fn digests(&self) -> &Arc<Digests> {
        &self.digests
    }

    /// Reads what the state machine knows beside the mesh: keep `f` short, the writer waits for it.
    pub fn read_book<R>(&self, f: impl FnOnce(&Book) -> R) -> R {
        f(&self.behind.position().book)
    }

    /// Where the state machine stands, with the digest of its state (S14).
    #[must_use]
    pub fn marker(&self) -> Marker {
        self.behind.position().marker.clone()
    }

    /// One entry, with an answer for each of its commands.
    fn apply_entry(&self, position: &mut Position, entry: Entry) -> Result<Vec<Answer>, StorageError> {
        let mut answers = Vec::new();
        match entry.payload {
            EntryPayload::Normal(batch) => {
                let commands = batch.take().map_err(|error| StorageIOError::apply(entry.log_id, &error))?;
                answers.extend(commands.iter().map(|command| position.execute(&self.behind.history, command)));
            }
            EntryPayload::Membership(membership) => {
                position.marker.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Blank => {}
        }
        position.marker.applied = Some(entry.log_id);
        Ok(answers)
    }
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
        let mut answers = Vec::with_capacity(entries.len());
        let dirty = {
            let mut position = self.behind.position();
            position.dirty.has_moved |= !entries.is_empty();
            for entry in entries {
                answers.push(self.apply_entry(&mut position, entry)?);
                position.marker.note(&self.digests);
            }
            self.behind.past.append(position.passed.iter(), self.behind.past.now());
            position.passed.clear();
            position.dirty.bytes()
        };
        self.behind.noted(dirty).map_err(|error| StorageIOError::write_state_machine(&error))?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let (snapshots, behind) = (self.snapshots.clone(), self.behind.clone());
        SnapshotBuilder { snapshots, behind, image: Arc::new(self.behind.image()) }
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
        let this = self.clone();
        let replaced = blocking(move || {
            this.behind.replace(Image { marker, mesh, ledger }, |marker| {
                marker.note(&this.digests);
                this.behind.past.reset(marker.revision);
            })
        });
        replaced.await.map_err(|error| StorageIOError::write_state_machine(&error))?;
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
        let (snapshots, behind, image) = (self.snapshots.clone(), self.behind.clone(), self.image.clone());
        // The log is purged behind a snapshot: afterwards the state must not fall back behind it.
        let built = blocking(move || {
            let written = behind.write().and_then(|()| behind.state.flush());
            written.map_err(|error| StorageError::from(StorageIOError::write_state_machine(&error)))?;
            let Image { marker, mesh, ledger } = &*image;
            let meta = marker.snapshot_meta();
            let file = snapshots.build(&meta, mesh, ledger, marker.digest).map_err(|error| write_error(&error))?;
            Ok(Snapshot { meta, snapshot: Box::new(file) })
        });
        built.await
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

#[cfg(test)]
mod tests;
