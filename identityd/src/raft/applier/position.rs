//! Where the state machine stands, and carrying out one command there.

use std::collections::HashSet;

use ringfence_policy::{
    command::{Command, Committed, Housekeeping},
    identity::Identity,
    mesh::Mesh,
    record::{Change, Delta, IdentityRecord, Record, RecordKey},
    revision::Revision,
};
use ringfence_proto::follow::SharedHistory;

use crate::{
    codec::{self, EncodedDeltas},
    machine::{
        self, Book, Transition,
        ledger::{Ledger, Row, RowKey},
    },
    raft::Answer,
    state::{self, EncodedChange, Marker},
};

/// Where the state machine stands, and what it knows beside the mesh.
#[derive(Debug, Default)]
pub(super) struct Position {
    pub(super) marker: Marker,
    pub(super) book: Book,
    /// Encoded deltas that the history on disk gets next.
    pub(super) passed: EncodedDeltas,
    /// What the state on disk does not have yet.
    pub(super) dirty: Dirty,
    /// For values on their way into digests and deltas.
    buffer: Vec<u8>,
}

/// What the texts of a key take that nobody else holds any more: those of an endpoint that was removed, say.
const NAME_BYTES: usize = 64;

/// What has changed since a moment; what it is now is looked up when it is written. There can be many identities at once,
/// so they and their numbers are not noted as keys.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    identities: HashSet<Identity>,
    /// Apart from identities.
    records: HashSet<RecordKey>,
    numbers: HashSet<Identity>,
    /// Apart from numbers.
    rows: HashSet<RowKey>,
    /// Entries were applied, whether they changed something or not.
    pub(super) has_moved: bool,
}

/// The whole state at one log entry, taken in a moment: it shares what it holds with the state machine.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) marker: Marker,
    pub(super) mesh: Mesh,
    pub(super) ledger: Ledger,
}

impl Position {
    pub(super) fn new(marker: Marker, book: Book) -> Self {
        Self { marker, book, ..Self::default() }
    }

    /// The state as it is. Every change of it happens under the same lock as this.
    pub(super) fn image(&self, history: &SharedHistory) -> Image {
        let mesh = history.read(|history| history.mesh().clone());
        Image { marker: self.marker.clone(), mesh, ledger: self.book.ledger().clone() }
    }

    /// Carries out one command.
    pub(super) fn execute(&mut self, history: &SharedHistory, command: &Command) -> Answer {
        let revision = self.marker.revision.next();
        let transition = history.read(|history| machine::transition(history.mesh(), &self.book, command))?;
        if transition.changes().len() > 0 {
            self.pass(revision, &transition);
        }
        for (key, row) in transition.rows.iter() {
            self.change_row(key, row);
        }
        self.book.apply(&transition);
        let (changes, identity) = transition.into_parts();
        if let Command::Housekeeping(Housekeeping::Found(_)) = command {
            self.book.ledger().store().into_iter().for_each(|store| history.found(store));
        }
        let changed = !changes.is_empty();
        if changed {
            self.marker.revision = revision;
            let delta = Delta { revision, changes };
            history.push(delta).expect("only the state machine moves the history, one revision at a time");
        }
        Ok(Committed { revision: self.marker.revision, changed, identity })
    }

    /// Counts the changes of one revision into the digest and adds its delta. Each record is encoded once for both.
    fn pass(&mut self, revision: Revision, transition: &Transition) {
        let Self { marker, passed, dirty, buffer, .. } = self;
        passed.begin(revision, transition.changes().len());
        for (change, former) in transition.changes() {
            if let Some(before) = former {
                buffer.clear();
                codec::encode_into(buffer, before);
                marker.digest = marker.digest.wrapping_sub(state::encoded_record_digest(buffer));
            }
            match change {
                Change::Put(record) => {
                    buffer.clear();
                    let start = codec::encode_versioned(buffer, revision, record);
                    marker.digest = marker.digest.wrapping_add(state::encoded_record_digest(buffer));
                    passed.put(&buffer[start..]);
                }
                Change::Delete(key) => passed.delete(key),
            }
            dirty.note(change);
        }
        passed.end(revision);
    }

    fn change_row(&mut self, key: &RowKey, row: Option<&Row>) {
        let Self { marker, book, dirty, buffer, .. } = self;
        buffer.clear();
        codec::encode_into(buffer, key);
        let end = buffer.len();
        let mut share = |row: &Row| {
            buffer.truncate(end);
            codec::encode_into(buffer, row);
            state::encoded_row_digest(&buffer[..end], &buffer[end..])
        };
        let before = book.ledger().get(key).map_or(0, |row| share(&row));
        let after = row.map_or(0, share);
        marker.digest = marker.digest.wrapping_sub(before).wrapping_add(after);
        dirty.note_row(key);
    }
}

impl Dirty {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Put(Record::Identity(IdentityRecord { identity, .. }))
            | Change::Delete(RecordKey::Identity(identity)) => self.identities.insert(*identity),
            _ => self.records.insert(change.key()),
        };
    }

    fn note_row(&mut self, key: &RowKey) {
        match key {
            RowKey::Number(number) => self.numbers.insert(*number),
            _ => self.rows.insert(key.clone()),
        };
    }

    /// How many records and rows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.identities.len() + self.records.len() + self.numbers.len() + self.rows.len()
    }

    /// What their names take in memory, roughly; a set has about as much room again.
    pub(super) fn bytes(&self) -> usize {
        let numbers = self.identities.len() + self.numbers.len();
        let names = self.records.len() * size_of::<RecordKey>() + self.rows.len() * size_of::<RowKey>();
        2 * (numbers * size_of::<Identity>() + names) + NAME_BYTES * (self.records.len() + self.rows.len())
    }

    /// What is written of them; each kind in the order in which it lies.
    pub(super) fn changes(self, image: &Image) -> impl Iterator<Item = EncodedChange> {
        let identities = sorted(self.identities).into_iter().map(RecordKey::Identity);
        let records = identities.chain(sorted(self.records));
        let records = records.map(|key| state::record_change(&key, image.mesh.records().get(&key)));
        let rows = sorted(self.numbers).into_iter().map(RowKey::Number).chain(self.rows);
        let rows = rows.map(|key| state::row_change(&key, image.ledger.get(&key).as_ref()));
        records.chain(rows)
    }
}

fn sorted<K: Ord>(keys: HashSet<K>) -> Vec<K> {
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable();
    keys
}
