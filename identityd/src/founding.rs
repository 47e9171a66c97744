//! Ids for new stores, and who may talk to whom: members of different stores never do.
//!
//! ```text
//! first leader ─ Housekeeping::Found ─► ledger of every member ─► SharedHistory: followers and members are told
//! restore ─ --store-id ─► ledger of every new directory, before anybody talks to anybody
//! ```
//!
//! Every call between members carries the caller's store. A founder that has not heard of an id yet talks to any member,
//! as it must to hear of one; a restored member has its id from the beginning, so no member of the old store ever gets in.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ringfence_policy::store::StoreId;
use ringfence_proto::follow::SharedHistory;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

/// The store of the member that calls, as `StoreId` writes it.
const STORE: &str = "ringfence-store";
/// A stranger calls several times a second: it is logged this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// An id that no other store has.
///
/// # Errors
/// As the system's source of random numbers says.
pub fn new_store_id(now: SystemTime) -> io::Result<StoreId> {
    let mut random = [0; 10];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(StoreId::new(u64::try_from(since).unwrap_or_default(), random))
}

/// Says to other members whose member this is, and lets in who is of the same store.
#[derive(Debug, Clone)]
pub struct Fellowship {
    history: Arc<SharedHistory>,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl Fellowship {
    /// Of the member whose history this is.
    #[must_use]
    pub fn new(history: Arc<SharedHistory>) -> Self {
        Self { history, warned: Arc::default() }
    }

    /// The store; none before its founding.
    #[must_use]
    pub fn store(&self) -> Option<StoreId> {
        self.history.position().store
    }

    /// A request to another member.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(store) = self.store() {
            let value = MetadataValue::try_from(store.to_string()).expect("hexadecimal digits and dashes");
            request.metadata_mut().insert(STORE, value);
        }
        request
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let (Some(own), Some(theirs)) = (self.store(), request.metadata().get(STORE)) else { return Ok(()) };
        if theirs.to_str().ok().and_then(|text| text.parse().ok()) == Some(own) {
            return Ok(());
        }
        let reason = format!("a member of store {} calls, and this is a member of store {own}", words(theirs));
        self.warn(&reason);
        Err(Status::failed_precondition(reason))
    }

    fn warn(&self, reason: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::error!(
                "{reason}: it is refused. Stop it, and remove its data_dir: an old store must not come back"
            );
        }
    }
}

fn words(value: &MetadataValue<tonic::metadata::Ascii>) -> &str {
    value.to_str().unwrap_or("?")
}

impl Interceptor for Fellowship {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(&request)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::mesh::{History, Mesh};

    #[test]
    fn members_of_different_stores_do_not_talk_and_founders_do() {
        let member = |store: Option<u8>| {
            let history = Arc::new(SharedHistory::new(History::new(Mesh::default(), 1)));
            store.into_iter().for_each(|byte| history.found(StoreId::new(1, [byte; 10])));
            Fellowship::new(history)
        };
        let lets_in = |own, other| member(own).check(&member(other).request(())).is_ok();
        for (own, other, expected) in [
            (Some(1), Some(1), true),
            (Some(1), Some(2), false),
            (None, Some(1), true),
            (Some(1), None, true),
            (None, None, true),
        ] {
            assert_eq!(lets_in(own, other), expected, "{own:?} {other:?}");
        }
        let refused = member(Some(1)).check(&member(Some(2)).request(())).unwrap_err();
        let (own, theirs) = (StoreId::new(1, [1; 10]).to_string(), StoreId::new(1, [2; 10]).to_string());
        assert!(refused.message().contains(&own) && refused.message().contains(&theirs), "{refused}");
    }

    #[test]
    fn ids_differ_and_tell_their_time() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_000_000_123);
        let ids = [new_store_id(now).unwrap(), new_store_id(now).unwrap()];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0].unix_ms(), 1_795_000_000_123);
    }
}
