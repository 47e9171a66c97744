//! The endpoints of this node: what was declared, and how far each one has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ringfence_policy::{identity::Identity, name::Name, revision::Revision, tables::EndpointId};
use ringfence_runtime::config;
use tokio::sync::watch;

use crate::declared::{DeclaredEndpoint, EndpointsFile, Repeated, check_unique};

/// All declared endpoints. Changes wake the task that attaches and registers them.
#[derive(Debug)]
pub struct Registry {
    entries: Mutex<BTreeMap<Name, Entry>>,
    changed: watch::Sender<u64>,
    work: watch::Sender<u64>,
    /// One change of this node's records in the store at a time.
    changing: tokio::sync::Mutex<()>,
    /// Where declarations through the local API outlive the agent.
    kept: PathBuf,
}

/// One declared endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As declared.
    pub declared: DeclaredEndpoint,
    /// Who declared it.
    pub origin: Origin,
    /// Its place in the datapath.
    pub attachment: Attachment,
    /// What the store says.
    pub registration: Registration,
    /// The local API is at work on it: the task that registers endpoints leaves it alone.
    pub held: bool,
}

/// Who declared an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The endpoints file.
    File,
    /// The local API.
    Api,
}

/// An endpoint's place in the datapath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Not yet, and why.
    Waiting {
        /// In words.
        reason: String,
    },
    /// The datapath sees its packets.
    Attached {
        /// Its number there.
        id: EndpointId,
    },
}

/// What the store says about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// Not asked yet, or out of reach.
    Waiting {
        /// In words; empty before the first attempt.
        reason: String,
    },
    /// The store refused it; it is asked again from time to time.
    Refused {
        /// In the store's words.
        reason: String,
    },
    /// The store has it.
    Registered {
        /// The number of its label set.
        identity: Identity,
        /// The revision that holds it.
        revision: Revision,
    },
}

/// A declaration cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The file is the truth about it.
    #[error("endpoint {name} is declared in the endpoints file: change it there and restart the agent")]
    FromFile {
        /// The endpoint.
        name: Name,
    },
    /// Nobody declared it.
    #[error("endpoint {name} is not declared on this node")]
    Unknown {
        /// The endpoint.
        name: Name,
    },
    /// It shares something with another endpoint of this node.
    #[error(transparent)]
    Repeated(#[from] Repeated),
    /// It would be forgotten when the agent restarts.
    #[error("cannot keep the declaration in {}: {source}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Registry {
    /// The endpoints of the file and those declared through the local API before a restart; the file wins.
    ///
    /// # Errors
    /// `Repeated` if a kept declaration shares an interface or an address with the file.
    pub fn new(file: EndpointsFile, kept: PathBuf, from_api: EndpointsFile) -> Result<Self, Repeated> {
        let entry = |declared: DeclaredEndpoint, origin| (declared.name.clone(), Entry::new(declared, origin));
        let mut entries: BTreeMap<Name, Entry> =
            from_api.endpoints.into_iter().map(|declared| entry(declared, Origin::Api)).collect();
        entries.extend(file.endpoints.into_iter().map(|declared| entry(declared, Origin::File)));
        check_unique(entries.values().map(|entry| &entry.declared))?;
        Ok(Self {
            entries: Mutex::new(entries),
            changed: watch::Sender::new(0),
            work: watch::Sender::new(0),
            changing: tokio::sync::Mutex::new(()),
            kept,
        })
    }

    /// Waits for the right to change this node's records in the store: a put that overtakes a removal would bring back
    /// what was removed.
    pub async fn exclusive(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// All endpoints, by name.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().values().cloned().collect()
    }

    /// The endpoints under audit of their own.
    #[must_use]
    pub fn audited(&self) -> BTreeSet<Name> {
        let entries = self.lock();
        entries.iter().filter(|(_, entry)| entry.declared.policy_audit_mode).map(|(name, _)| name.clone()).collect()
    }

    /// Puts an endpoint under audit, or ends that. One of the endpoints file is as declared there again when the agent
    /// restarts.
    ///
    /// # Errors
    /// `DeclareError`; nothing changes then.
    pub fn set_audit(&self, name: &Name, audit: bool) -> Result<(), DeclareError> {
        let mut entries = self.lock();
        let mut after = entries.clone();
        let Some(entry) = after.get_mut(name) else { return Err(DeclareError::Unknown { name: name.clone() }) };
        entry.declared.policy_audit_mode = audit;
        if entry.origin == Origin::Api {
            self.keep(&after)?;
        }
        *entries = after;
        drop(entries);
        self.wake();
        Ok(())
    }

    /// One endpoint.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<Entry> {
        self.lock().get(name).cloned()
    }

    /// Wakes whenever something changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes whenever there may be something to attach or to register: not when the store has answered.
    #[must_use]
    pub fn subscribe_work(&self) -> watch::Receiver<u64> {
        self.work.subscribe()
    }

    /// Adds or replaces a declaration of the local API, held. Returns what was there before.
    ///
    /// # Errors
    /// `DeclareError`; nothing changes then.
    pub fn declare(&self, declared: DeclaredEndpoint) -> Result<Option<Entry>, DeclareError> {
        let mut entries = self.lock();
        let name = declared.name.clone();
        if entries.get(&name).is_some_and(|entry| entry.origin == Origin::File) {
            return Err(DeclareError::FromFile { name });
        }
        let mut after = entries.clone();
        let before = after.insert(name, Entry { held: true, ..Entry::new(declared, Origin::Api) });
        check_unique(after.values().map(|entry| &entry.declared))?;
        self.keep(&after)?;
        *entries = after;
        drop(entries);
        self.wake();
        Ok(before)
    }

    /// Puts an endpoint back to what it was before `declare`, or removes it.
    ///
    /// # Errors
    /// `DeclareError::Keep` if the kept file still has the declaration.
    pub fn restore(&self, name: &Name, before: Option<Entry>) -> Result<(), DeclareError> {
        let mut entries = self.lock();
        match before {
            Some(before) => entries.insert(name.clone(), before),
            None => entries.remove(name),
        };
        let kept = self.keep(&entries);
        drop(entries);
        self.wake();
        kept
    }

    /// Records progress of one endpoint, if it is still declared like that.
    pub fn update(&self, declared: &DeclaredEndpoint, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&declared.name).filter(|entry| entry.declared == *declared) else { return };
        let before = entry.clone();
        change(entry);
        let changed = *entry != before;
        let work = entry.attachment != before.attachment || entry.held != before.held;
        drop(entries);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        if work {
            self.work.send_modify(|count| *count += 1);
        }
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.work.send_modify(|count| *count += 1);
    }

    fn keep(&self, entries: &BTreeMap<Name, Entry>) -> Result<(), DeclareError> {
        let from_api = entries.values().filter(|entry| entry.origin == Origin::Api);
        let file = EndpointsFile { endpoints: from_api.map(|entry| entry.declared.clone()).collect() };
        replace_file(&self.kept, config::dump(&file).as_bytes())
            .map_err(|source| DeclareError::Keep { path: self.kept.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(declared: DeclaredEndpoint, origin: Origin) -> Self {
        let attachment = Attachment::Waiting { reason: String::new() };
        Self {
            declared,
            origin,
            attachment,
            registration: Registration::Waiting { reason: String::new() },
            held: false,
        }
    }
}

/// The file has the old content or the new one, whatever happens.
fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, interface: &str, address: &str) -> DeclaredEndpoint {
        let yaml = format!("endpoints: [{{name: {name}, interface: {interface}, addresses: ['{address}']}}]");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        fs::write(&path, yaml).unwrap();
        EndpointsFile::load(&path).unwrap().endpoints.remove(0)
    }

    #[test]
    fn a_declaration_is_kept_or_refused_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("agent.sock.endpoints.yaml");
        let file = EndpointsFile { endpoints: vec![declared("web-1", "veth1", "10.0.0.1")] };
        let registry = Registry::new(file.clone(), kept.clone(), EndpointsFile::default()).unwrap();

        let from_file = registry.declare(declared("web-1", "veth9", "10.0.0.9")).unwrap_err();
        assert!(from_file.to_string().contains("endpoints file"), "{from_file}");
        let repeated = registry.declare(declared("api-1", "veth2", "10.0.0.1")).unwrap_err();
        assert!(repeated.to_string().contains("address 10.0.0.1"), "{repeated}");
        assert_eq!(registry.entries().len(), 1);
        assert!(!kept.exists());

        assert_eq!(registry.declare(declared("api-1", "veth2", "10.0.0.2")).unwrap(), None);
        let from_api = EndpointsFile::load(&kept).unwrap();
        let restarted = Registry::new(file, kept.clone(), from_api).unwrap();
        assert_eq!(restarted.get(&Name::new("api-1").unwrap()).unwrap().origin, Origin::Api);

        registry.restore(&Name::new("api-1").unwrap(), None).unwrap();
        assert_eq!(EndpointsFile::load(&kept).unwrap(), EndpointsFile::default());
    }

    #[test]
    fn progress_of_an_older_declaration_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("kept.yaml");
        let registry = Registry::new(EndpointsFile::default(), kept, EndpointsFile::default()).unwrap();
        let (old, new) = (declared("a", "veth1", "10.0.0.1"), declared("a", "veth1", "10.0.0.2"));
        registry.declare(old.clone()).unwrap();
        registry.declare(new).unwrap();
        registry.update(&old, |entry| entry.attachment = Attachment::Attached { id: EndpointId(7) });
        assert!(matches!(registry.entries()[0].attachment, Attachment::Waiting { .. }));
    }
}
