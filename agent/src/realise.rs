//! From a state of the mesh to packets judged by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ringfence_datapath::{
    ApplyError, AttachError, BandReport, Datapath, FlowEvent, Hook, MapReader, Observation, ObserveError,
    PacketCounters, ProbeError, ProbeOutcome, ProbePacket, Reading, Tallies, Verified,
};
use ringfence_policy::{
    compile::{Compilation, Compiler, Incomplete, LocalHost, LocalNode},
    mesh::Mesh,
    name::Name,
    revision::Revision,
    tables::{EndpointId, Tables},
};
use tokio::sync::watch;

use crate::{
    feed::{Followed, Scope},
    people::People,
};

/// The one owner of the datapath.
///
/// It begins with what the datapath holds already and moves only to a whole, not older revision: until one can be
/// realised, packets are judged as before (S8, S10).
pub struct Realiser {
    datapath: Box<dyn Datapath>,
    compiler: Compiler,
    local: LocalNode,
    /// What of the mesh the compiler has seen.
    scope: Scope,
    host: watch::Sender<HostAddresses>,
    /// Devices where the node's own packets are to be judged.
    uplinks: Vec<String>,
    /// They are, or there are none and no others are.
    uplinks_set: bool,
    audit: Audit,
    /// What packets are judged by.
    tables: Tables,
    revision: Revision,
    last: Option<Attempt>,
    /// What reading the maps back found last, in words; none if all was as it should be.
    tampered: Option<String>,
    people: Arc<People>,
    outcome: watch::Sender<Realised>,
}

/// The addresses of the host's devices, where the host is enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// All of them.
    pub all: BTreeSet<IpAddr>,
    /// Those of which the mesh that is followed does not tell who else has them: they are `unknown` until it does.
    pub unsure: BTreeSet<IpAddr>,
}

/// What becomes of packets that policies refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// They are refused.
    Off,
    /// They are reported and let through, for every endpoint of the node (AUD-1, AUD-2).
    Everything,
}

/// What this node enforces, and what keeps it from enforcing more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Realised {
    /// Packets are judged by it; published after the datapath does so (S3).
    pub revision: Revision,
    /// In words.
    pub problems: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    revision: Revision,
    endpoints: BTreeMap<Name, EndpointId>,
    audited: BTreeSet<Name>,
    host: Option<LocalHost>,
    failed: bool,
    /// What somebody should look at.
    problems: Vec<String>,
}

/// What would become of a packet, and by which revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// At the last hook that was asked.
    pub outcome: ProbeOutcome,
    /// The revision that judged it.
    pub revision: Revision,
}

/// A packet cannot be judged here.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// It passes no hook of this node.
    #[error(
        "neither {source_address} nor {destination} belongs to an endpoint of this node: ask the agents of their nodes"
    )]
    NotHere {
        /// Sender.
        source_address: IpAddr,
        /// Receiver.
        destination: IpAddr,
    },
    /// The datapath cannot try it.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// Why a revision is not realised.
#[derive(Debug, thiserror::Error)]
enum NotRealised {
    #[error("revision {revision}: {source}; revision {current} stays in force")]
    Incomplete { revision: Revision, current: Revision, source: Incomplete },
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Realiser {
    /// Adopts what the datapath holds; changes nothing.
    ///
    /// # Errors
    /// `ObserveError` if what packets are judged by cannot be read.
    pub fn adopt(
        datapath: Box<dyn Datapath>,
        local: LocalNode,
        uplinks: Vec<String>,
        audit: Audit,
        people: Arc<People>,
    ) -> Result<Self, ObserveError> {
        let Observation { revision, tables, .. } = datapath.observe()?;
        let outcome = watch::Sender::new(Realised { revision, problems: Vec::new() });
        let endpoints = datapath.attached();
        people.know(&endpoints);
        people.know_ranges(tables.ranges.iter().map(|(range, identity)| (*range, Some(*identity))));
        let mut realiser = Self {
            datapath,
            compiler: Compiler::default(),
            local: LocalNode { endpoints, ..local },
            scope: Scope::default(),
            host: watch::Sender::default(),
            uplinks,
            uplinks_set: false,
            audit,
            tables,
            revision,
            last: None,
            tampered: None,
            people,
            outcome,
        };
        realiser.look_at_host(&Followed::default());
        Ok(realiser)
    }

    /// Moves with the addresses of the host's devices.
    #[must_use]
    pub fn host(&self) -> watch::Receiver<HostAddresses> {
        self.host.subscribe()
    }

    /// Moves when packets are judged by another revision, and when a problem comes or goes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Realised> {
        self.outcome.subscribe()
    }

    /// Moves to the state, if it is complete, not older, and not what is in force already.
    ///
    /// `audited`: endpoints under audit of their own. `retry`: try again what failed, even if nothing has changed since.
    pub fn realise(&mut self, followed: Followed, audited: BTreeSet<Name>, retry: bool) {
        let revision = followed.mesh.revision();
        if !followed.complete {
            return;
        }
        if revision < self.revision {
            let current = self.revision;
            self.publish(vec![format!("the mesh that is followed is at revision {revision}, older than revision {current}, which stays in force")]);
            return;
        }
        self.local.endpoints = self.datapath.attached();
        self.local.audited = match self.audit {
            Audit::Off => audited,
            Audit::Everything => self.local.endpoints.keys().cloned().collect(),
        };
        self.look_at_host(&followed);
        self.look_at_scope(&followed.scope);
        let local = &self.local;
        let same = |last: &&Attempt| {
            (last.revision, &last.endpoints, &last.audited, &last.host)
                == (revision, &local.endpoints, &local.audited, &local.host)
        };
        if self.last.as_ref().filter(same).is_some_and(|last| !(last.failed && retry)) {
            return;
        }
        let attempt = self.attempt(followed.mesh);
        let failed = attempt.is_err() || !self.uplinks_set;
        let problems = attempt.unwrap_or_else(|reason| {
            tracing::error!(%revision, %reason, "revision not realised");
            vec![reason.to_string()]
        });
        let LocalNode { endpoints, audited, host, .. } = self.local.clone();
        self.last = Some(Attempt { revision, endpoints, audited, host, failed, problems: problems.clone() });
        self.publish(problems);
    }

    /// Reads a part of the maps back. Answers when all was read: what somebody else had changed is repaired then, and a
    /// problem until the next time. Errors are those of `Datapath::verify_part`.
    pub fn verify_part(&mut self, reading: &mut Reading) -> Option<Result<Verified, ApplyError>> {
        let verified = self.datapath.verify_part(&self.tables, reading).transpose()?;
        self.tampered = match &verified {
            Ok(Verified { served: 0, unserved: 0 }) => None,
            Ok(Verified { served, unserved }) => {
                tracing::error!(served, unserved, revision = %self.revision, "somebody else changed the datapath's maps: repaired");
                Some(format!(
                    "somebody else changed the datapath's maps: {served} entries that packets were judged by and {unserved} others were not as revision {} has them; they are repaired",
                    self.revision
                ))
            }
            Err(error) => {
                tracing::error!(%error, "the datapath's maps cannot be read back");
                Some(format!("the datapath's maps cannot be compared with what was written: {error}"))
            }
        };
        let problems = self.last.as_ref().map(|last| last.problems.clone());
        self.publish(problems.unwrap_or_default());
        Some(verified)
    }

    /// As `Datapath::events`.
    ///
    /// # Errors
    /// As there.
    pub fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError> {
        self.datapath.events(take)
    }

    /// As `Datapath::counters`.
    ///
    /// # Errors
    /// As there.
    pub fn counters(&self) -> Result<(PacketCounters, Tallies), ObserveError> {
        self.datapath.counters()
    }

    /// As `Datapath::bands`.
    ///
    /// # Errors
    /// As there.
    pub fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        self.datapath.bands()
    }

    /// As `Datapath::reader`.
    ///
    /// # Errors
    /// As there.
    pub fn reader(&self) -> Result<Box<dyn MapReader>, ObserveError> {
        self.datapath.reader()
    }

    /// As `Datapath::now_ns`.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.datapath.now_ns()
    }

    /// Puts an endpoint's device under enforcement.
    ///
    /// # Errors
    /// As `Datapath::attach`.
    pub fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        let attached = self.datapath.attach(name, interface);
        self.people.know(&self.datapath.attached());
        attached
    }

    /// Ends the enforcement of an endpoint that is gone.
    ///
    /// # Errors
    /// As `Datapath::detach`.
    pub fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        let detached = self.datapath.detach(name);
        self.people.know(&self.datapath.attached());
        detached
    }

    /// The endpoints under enforcement.
    #[must_use]
    pub fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.datapath.attached()
    }

    /// Reads back what packets are judged by.
    ///
    /// # Errors
    /// As `Datapath::observe`.
    pub fn observe(&self) -> Result<Observation, ObserveError> {
        self.datapath.observe()
    }

    /// What would become of a packet now: at its sender's hook if the sender is an endpoint of this node, and at its
    /// receiver's if that one is and was not judged yet. The packet is counted and remembered like a real one.
    ///
    /// `declared`: the addresses of attached endpoints that no realised revision has yet.
    ///
    /// # Errors
    /// `JudgeError`.
    pub fn judge(
        &mut self,
        packet: &ProbePacket,
        declared: &BTreeMap<IpAddr, EndpointId>,
    ) -> Result<Judged, JudgeError> {
        let endpoint = |address: &IpAddr| {
            let realised = self.tables.addresses.get(address).and_then(|entry| entry.endpoint);
            realised.or_else(|| declared.get(address).copied())
        };
        let (sender, receiver) = (endpoint(&packet.source), endpoint(&packet.destination));
        let host = Some(EndpointId::HOST);
        // What the node itself sends to an endpoint of its meets that one's hook only.
        let sender = sender.filter(|_| sender != host || receiver.is_none());
        let from = if sender == host { Hook::FromHost } else { Hook::FromEndpoint };
        let to = if receiver == host { Hook::ToHost } else { Hook::ToEndpoint };
        let sent = sender.map(|sender| self.datapath.probe(from, sender, packet)).transpose()?;
        let outcome = match (sent, receiver) {
            (Some(sent), None) => sent,
            (Some(sent), Some(_)) if !sent.allowed || sent.judged_both => sent,
            (_, Some(receiver)) => self.datapath.probe(to, receiver, packet)?,
            (None, None) => {
                return Err(JudgeError::NotHere { source_address: packet.source, destination: packet.destination });
            }
        };
        Ok(Judged { outcome, revision: self.revision })
    }

    /// The revision in force.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// `"kernel"` or `"memory"`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.datapath.kind()
    }

    /// What the datapath found when it was opened, in words.
    #[must_use]
    pub fn features(&self) -> String {
        self.datapath.features()
    }

    /// Answers with what somebody should look at although the revision is realised.
    fn attempt(&mut self, mesh: Arc<Mesh>) -> Result<Vec<String>, NotRealised> {
        let revision = mesh.revision();
        let incomplete = |source| NotRealised::Incomplete { revision, current: self.revision, source };
        let compiled = self.compiler.compile(&mesh, &self.local, &self.tables);
        // While it is held, the next delta has to copy it.
        drop(mesh);
        let Compilation { diff, problems } = compiled.map_err(incomplete)?;
        // If it fails, the next diff has these edits, too.
        let applied = self.datapath.apply(revision, &diff)?;
        self.compiler.realised();
        self.tables.apply(&diff);
        self.people.know_ranges(diff.ranges.iter().map(|edit| (edit.key, edit.after)));
        self.revision = revision;
        tracing::info!(%revision, generation = applied.generation, entries = applied.entries, grace = ?applied.grace, "revision realised");
        // Policy first, then the hooks: nobody is cut off by a node that has heard of no policy yet.
        let uplinks = if self.uplinks_set { Ok(()) } else { self.datapath.set_uplinks(&self.uplinks) };
        self.uplinks_set = uplinks.is_ok();
        let uplinks =
            uplinks.err().map(|error| format!("the node's own packets are not judged on every uplink: {error}"));
        let problems = problems.iter().map(ToString::to_string);
        Ok(problems.chain(uplinks).chain(self.unsure_addresses()).collect())
    }

    /// The node's addresses come and go with its devices.
    fn look_at_host(&mut self, followed: &Followed) {
        let Some(host) = &mut self.local.host else { return };
        match self.datapath.host_addresses() {
            Ok(addresses) => host.addresses = addresses,
            Err(error) => tracing::warn!(%error, "the node's addresses cannot be read: those that are known stay"),
        }
        host.unsure = followed.scope.unsure(&host.addresses, &followed.mesh);
        let addresses = HostAddresses { all: host.addresses.clone(), unsure: host.unsure.clone() };
        self.host.send_if_modified(|current| {
            let modified = *current != addresses;
            *current = addresses;
            modified
        });
    }

    /// Another part of the mesh may have other records at the same revision: what led there is not known.
    fn look_at_scope(&mut self, scope: &Scope) {
        if self.scope != *scope {
            self.scope = scope.clone();
            self.compiler = Compiler::default();
            self.last = None;
        }
    }

    fn unsure_addresses(&self) -> Option<String> {
        let unsure = &self.local.host.as_ref().filter(|host| !host.unsure.is_empty())?.unsure;
        let unsure: Vec<String> = unsure.iter().map(ToString::to_string).collect();
        let unsure = unsure.join(", ");
        Some(format!(
            "addresses of the node's devices lie in the ranges of pods, and the gateway was not told of them yet: {unsure}; \
             they are unknown until it says who else has them"
        ))
    }

    fn publish(&self, mut problems: Vec<String>) {
        problems.extend(self.tampered.clone());
        let realised = Realised { revision: self.revision, problems };
        self.outcome.send_if_modified(|current| {
            let modified = *current != realised;
            *current = realised;
            modified
        });
    }
}
