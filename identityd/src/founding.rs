//! Ids for new stores, and who may talk to whom: members of different stores never do.
//!
//! ```text
//! first leader ─ Housekeeping::Found ─► ledger of every member ─► SharedHistory: followers and members are told
//! restore ─ --store-id ─► ledger of every new directory, before anybody talks to anybody
//! ```
//!
//! Every call between members carries the caller's store. A founder that has not heard of an id yet talks to any member,
//! as it must to hear of one; a restored member has its id from the beginning, so no member of the old store ever gets in.
//!
//! It also carries which data directory the caller works in: of two processes with one id, the one that was heard first is
//! listened to, and the other one is told so. Both would vote, and the store would be two.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::bytes::Bytes;
use ringfence_policy::store::StoreId;
use ringfence_proto::{
    access::{Permit, Role},
    follow::SharedHistory,
};
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

/// The store of the member that calls, as `StoreId` writes it.
const STORE: &str = "ringfence-store";
/// The data directory of the member that calls.
const INSTANCE: &str = "ringfence-instance";
/// A member that was not heard for this long may come back with another directory; each one calls several times a second.
const INSTANCE_MEMORY: Duration = Duration::from_secs(5);
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

/// What tells a data directory from all others, also from its copies; kept in it.
///
/// # Errors
/// As the file system says.
pub fn instance(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("instance");
    if !path.exists() {
        // Two starts at once are kept apart by the directory's lock.
        fs::write(&path, new_store_id(SystemTime::now())?.to_string())?;
    }
    let metadata = fs::metadata(&path)?;
    Ok(format!("{}-{:x}-{:x}", fs::read_to_string(&path)?.trim(), metadata.dev(), metadata.ino()))
}

/// Says to other members whose member this is, and lets in who is of the same store.
#[derive(Debug, Clone)]
pub struct Fellowship {
    history: Arc<SharedHistory>,
    instance: Arc<str>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The directory of every member that called, and when it did last.
    instances: BTreeMap<u64, (String, Instant)>,
    warned: Option<Instant>,
    /// The store that was named last, as it is written.
    named: Option<(StoreId, Arc<str>)>,
}

impl Fellowship {
    /// Of the member whose history this is, and whose directory.
    #[must_use]
    pub fn new(history: Arc<SharedHistory>, instance: &str) -> Self {
        Self { history, instance: instance.into(), heard: Arc::default() }
    }

    /// The store; none before its founding.
    #[must_use]
    pub fn store(&self) -> Option<StoreId> {
        self.history.position().store
    }

    /// A request to another member.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(value) = MetadataValue::try_from(&*self.instance) {
            request.metadata_mut().insert(INSTANCE, value);
        }
        if let Some(store) = self.name() {
            let value = MetadataValue::try_from(&*store).expect("hexadecimal digits and dashes");
            request.metadata_mut().insert(STORE, value);
        }
        request
    }

    /// A call over a link to another member: what `request` says, and then the payload.
    pub fn seal(&self, payload: &[u8]) -> Vec<u8> {
        let store = self.name();
        let store = store.as_deref().unwrap_or_default();
        let mut sealed = Vec::with_capacity(2 + store.len() + self.instance.len() + payload.len());
        for words in [store, &*self.instance] {
            sealed.push(u8::try_from(words.len()).unwrap_or(0));
            // What is longer is no instance that `instance` made.
            sealed.extend_from_slice(if words.len() <= u8::MAX.into() { words.as_bytes() } else { &[] });
        }
        sealed.extend_from_slice(payload);
        sealed
    }

    /// The payload of a call that another member sealed.
    ///
    /// # Errors
    /// `failed_precondition` if it does not belong to this store, or to the process that is known as this member;
    /// `invalid_argument` if it was not sealed.
    pub fn open(&self, caller: Option<u64>, sealed: &Bytes) -> Result<Bytes, Status> {
        let (mut rest, mut words) = (&sealed[..], [""; 2]);
        for word in &mut words {
            let parted = rest.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into()));
            let text = parted.and_then(|(text, rest)| Some((std::str::from_utf8(text).ok()?, rest)));
            (*word, rest) = text.ok_or_else(|| Status::invalid_argument("the call does not say whose member calls"))?;
        }
        let [store, instance] = words.map(|word| Some(word).filter(|word| !word.is_empty()));
        self.check(caller, store, instance)?;
        Ok(sealed.slice_ref(rest))
    }

    /// `caller`: the member that calls.
    fn check(&self, caller: Option<u64>, store: Option<&str>, instance: Option<&str>) -> Result<(), Status> {
        self.check_store(store)?;
        let (Some(caller), Some(instance)) = (caller, instance) else { return Ok(()) };
        let mut heard = self.lock();
        let known = heard.instances.get_mut(&caller).filter(|(_, at)| at.elapsed() < INSTANCE_MEMORY);
        if let Some((known, at)) = known {
            if known == instance {
                *at = Instant::now();
                return Ok(());
            }
            let reason = format!(
                "two processes with different data directories say that they are member {caller}: every member has its own \
                 id, and the other one was heard first"
            );
            heard.warn(&reason);
            return Err(Status::failed_precondition(reason));
        }
        heard.instances.insert(caller, (instance.to_owned(), Instant::now()));
        Ok(())
    }

    fn check_store(&self, theirs: Option<&str>) -> Result<(), Status> {
        let (Some(own), Some(theirs)) = (self.name(), theirs) else { return Ok(()) };
        if *own == *theirs {
            return Ok(());
        }
        let reason = format!("a member of store {theirs} calls, and this is a member of store {own}");
        self.lock().warn(&reason);
        Err(Status::failed_precondition(reason))
    }

    /// The store as it is written, which is said in every message; none before its founding.
    fn name(&self) -> Option<Arc<str>> {
        let store = self.store()?;
        let mut heard = self.lock();
        match &heard.named {
            Some((named, name)) if *named == store => Some(name.clone()),
            _ => Some(heard.named.insert((store, store.to_string().into())).1.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn warn(&mut self, reason: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::error!("{reason}. It is refused: stop it, and take its data_dir away");
        }
    }
}

impl Interceptor for Fellowship {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let caller = match Permit::of(&request)?.caller().role {
            Role::Member(id) => Some(id),
            _ => None,
        };
        let said = |name| request.metadata().get(name).map(|value| value.to_str().unwrap_or("?"));
        self.check(caller, said(STORE), said(INSTANCE))?;
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
            Fellowship::new(history, "x")
        };
        let lets_in = |own, other| {
            member(own).open(Some(1), &member(other).seal(b"x").into()).is_ok_and(|payload| payload == "x")
        };
        for (own, other, expected) in [
            (Some(1), Some(1), true),
            (Some(1), Some(2), false),
            (None, Some(1), true),
            (Some(1), None, true),
            (None, None, true),
        ] {
            assert_eq!(lets_in(own, other), expected, "{own:?} {other:?}");
        }
        let refused = member(Some(1)).open(Some(1), &member(Some(2)).seal(b"x").into()).unwrap_err();
        let (own, theirs) = (StoreId::new(1, [1; 10]).to_string(), StoreId::new(1, [2; 10]).to_string());
        assert!(refused.message().contains(&own) && refused.message().contains(&theirs), "{refused}");
    }

    #[test]
    fn of_two_members_with_one_id_the_first_is_listened_to() {
        let history = || Arc::new(SharedHistory::new(History::new(Mesh::default(), 1)));
        let [own, first, second] = ["own", "first", "second"].map(|instance| Fellowship::new(history(), instance));
        let lets_in = |caller, from: &Fellowship| own.open(Some(caller), &from.seal(&[]).into());
        assert!(lets_in(2, &first).is_ok() && lets_in(3, &second).is_ok() && lets_in(2, &first).is_ok());
        let refused = lets_in(2, &second).unwrap_err();
        assert!(refused.message().contains("say that they are member 2"), "{refused}");
        assert!(lets_in(2, &first).is_ok(), "the one that was refused does not count as heard");
        own.lock().instances.get_mut(&2).unwrap().1 -= INSTANCE_MEMORY;
        assert!(lets_in(2, &second).is_ok(), "the first one is gone");
        assert!(lets_in(2, &first).is_err());
    }

    #[test]
    fn a_directory_keeps_its_instance_and_a_copy_has_another() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        [&one, &two].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let first = instance(&one).unwrap();
        assert_eq!(instance(&one).unwrap(), first);
        fs::copy(one.join("instance"), two.join("instance")).unwrap();
        assert_ne!(instance(&two).unwrap(), first);
    }

    #[test]
    fn ids_differ_and_tell_their_time() {
        let now = UNIX_EPOCH + Duration::from_millis(1_795_000_000_123);
        let ids = [new_store_id(now).unwrap(), new_store_id(now).unwrap()];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0].unix_ms(), 1_795_000_000_123);
    }
}
