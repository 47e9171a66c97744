//! How far somebody is, and in which store.

use ringfence_policy::{
    revision::Revision,
    store::{InvalidStoreId, StoreId},
};
use tonic::Status;

/// A revision of a store. Revisions of two stores say nothing about each other, even where they are equal: both may have
/// been restored from one backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The store; none where it is not known.
    pub store: Option<StoreId>,
    /// The newest revision; 0 for none.
    pub revision: Revision,
}

/// How a server begins with a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// What comes after the revision.
    Resume(Revision),
    /// The state as a whole, whatever the follower has.
    Whole,
}

/// A follower has more of another store than this one has of its own: nothing goes back, not even to another store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is store {own} at revision {head}, and the follower has revision {at} of store {theirs}: it stays with that one. A \
     store that replaces another begins above it ('ringfence store snapshot restore')"
)]
pub struct OtherStore {
    own: String,
    head: Revision,
    theirs: StoreId,
    at: Revision,
}

impl Position {
    /// What a follower says of itself; an empty text is no store.
    ///
    /// # Errors
    /// `InvalidStoreId`.
    pub fn parse(store_id: &str, revision: u64) -> Result<Self, InvalidStoreId> {
        Ok(Self { store: parse_store(store_id)?, revision: Revision(revision) })
    }

    /// How a server at `own` begins with a follower that is here. One that has nothing is told the whole state, and with
    /// it the store, before any delta; one that has a revision and does not say of which store is believed.
    pub(super) fn begin(self, own: Self) -> Result<Begin, OtherStore> {
        match self.store {
            store if store == own.store => Ok(Begin::Resume(self.revision)),
            None if self.revision > Revision::ZERO => Ok(Begin::Resume(self.revision)),
            Some(theirs) if own.revision <= self.revision => {
                let named = own.store.map_or_else(|| "without an id".to_owned(), |store| store.to_string());
                Err(OtherStore { own: named, head: own.revision, theirs, at: self.revision })
            }
            _ => Ok(Begin::Whole),
        }
    }

    /// Whether a server at `own` may be waited for: it is behind a follower of its own store.
    #[must_use]
    pub fn is_ahead_of(self, own: Self) -> bool {
        self.revision > own.revision && (self.store.is_none() || self.store == own.store)
    }
}

impl From<Revision> for Position {
    /// Of a store that is not known.
    fn from(revision: Revision) -> Self {
        Self { store: None, revision }
    }
}

impl From<OtherStore> for Status {
    fn from(error: OtherStore) -> Self {
        Self::failed_precondition(error.to_string())
    }
}

pub(super) fn parse_store(text: &str) -> Result<Option<StoreId>, InvalidStoreId> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1_795_000_000_000;

    fn at(store: u64, revision: u64) -> Position {
        let store = (store > 0).then(|| StoreId::new(A, [u8::try_from(store).unwrap(); 10]));
        Position { store, revision: Revision(revision) }
    }

    #[test]
    fn a_follower_resumes_in_its_own_store_only_and_never_goes_back() {
        let own = at(1, 50);
        assert_eq!(at(1, 40).begin(own), Ok(Begin::Resume(Revision(40))));
        assert_eq!(at(1, 60).begin(own), Ok(Begin::Resume(Revision(60))), "it is waited for elsewhere");
        assert_eq!(at(0, 0).begin(own), Ok(Begin::Whole));
        assert_eq!(at(0, 7).begin(own), Ok(Begin::Resume(Revision(7))));
        assert_eq!(at(2, 49).begin(own), Ok(Begin::Whole));
        for revision in [50, 51] {
            let error = at(2, revision).begin(own).unwrap_err().to_string();
            assert!(error.contains("at revision 50") && error.contains(&format!("revision {revision} of")), "{error}");
        }
        assert_eq!(at(0, 0).begin(at(0, 0)), Ok(Begin::Resume(Revision(0))));
        assert!(at(2, 9).begin(at(0, 9)).is_err());
        assert!(at(1, 51).is_ahead_of(own) && at(0, 51).is_ahead_of(own) && !at(2, 51).is_ahead_of(own));
    }
}
