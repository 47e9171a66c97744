//! What the agent was told about the mesh.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ringfence_policy::{
    mesh::{Mesh, RevisionGap},
    revision::Revision,
};
use ringfence_proto::follow::FollowEvent;
use ringfence_runtime::freshness::Freshness;
use tokio::sync::watch;

/// The newest state received, and how old it may be.
#[derive(Debug)]
pub struct Feed {
    followed: watch::Sender<Followed>,
    freshness: Freshness,
    gateway: Mutex<String>,
}

/// A state of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// Shared: a delta is applied in place unless somebody still reads the state before it.
    pub mesh: Arc<Mesh>,
    /// Whether the gateway's newest state was reached at least once since the agent started.
    pub complete: bool,
    /// What of the mesh this is.
    pub scope: Scope,
}

/// How much of the mesh is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    #[default]
    Mesh,
    /// What the node needs (decision 0010), and whoever has one of these addresses of the host's devices.
    View(Arc<BTreeSet<IpAddr>>),
}

/// What the gateway sent cannot follow what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// A revision is missing.
    #[error(transparent)]
    Gap(#[from] RevisionGap),
    /// The gateway has not yet what is here: going back would undo what is enforced (S3).
    #[error("its state is at revision {got}, older than revision {at} that is here")]
    Behind {
        /// The revision here.
        at: Revision,
        /// The revision there.
        got: Revision,
    },
}

impl Scope {
    /// Those of the host's addresses that an endpoint may have, too, without being in what is followed. Who has one
    /// outside the ranges of pods is in every view.
    #[must_use]
    pub fn unsure(&self, host: &BTreeSet<IpAddr>, mesh: &Mesh) -> BTreeSet<IpAddr> {
        let Self::View(told) = self else { return BTreeSet::new() };
        let in_pods = |address: &IpAddr| mesh.pod_cidrs().any(|range| range.contains(*address));
        host.difference(told).filter(|address| in_pods(address)).copied().collect()
    }

    /// For people: `"mesh"` or `"view"`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::View(_) => "view",
        }
    }
}

impl Feed {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            followed: watch::Sender::new(Followed::default()),
            freshness: Freshness::unknown(),
            gateway: Mutex::new(String::new()),
        }
    }

    /// Takes what the gateway sent of a scope; as a whole or not at all. Another scope begins with a snapshot.
    ///
    /// # Errors
    /// `OutOfOrder`; nothing changes then.
    pub fn take(&self, event: FollowEvent, scope: &Scope) -> Result<(), OutOfOrder> {
        let mut outcome = Ok(());
        self.followed.send_if_modified(|followed| {
            let at = followed.mesh.revision();
            match event {
                FollowEvent::Snapshot(snapshot) if snapshot.revision < at => {
                    outcome = Err(OutOfOrder::Behind { at, got: snapshot.revision });
                    false
                }
                FollowEvent::Snapshot(snapshot) => {
                    let mesh = Arc::new(Mesh::from_snapshot(snapshot));
                    *followed = Followed { mesh, complete: true, scope: scope.clone() };
                    true
                }
                FollowEvent::Delta(delta) => {
                    outcome = Arc::make_mut(&mut followed.mesh).apply(&delta).map_err(OutOfOrder::from);
                    outcome.is_ok()
                }
                FollowEvent::Quiet { revision } if revision > at => {
                    Arc::make_mut(&mut followed.mesh).skip_to(revision);
                    true
                }
                FollowEvent::Quiet { .. } => false,
                FollowEvent::Progress { revision, staleness } if revision <= at => {
                    self.freshness.heard(staleness);
                    !std::mem::replace(&mut followed.complete, true)
                }
                FollowEvent::Progress { .. } => false,
            }
        });
        outcome
    }

    /// The newest state.
    #[must_use]
    pub fn followed(&self) -> Followed {
        self.followed.borrow().clone()
    }

    /// Wakes whenever the state moves.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Followed> {
        self.followed.subscribe()
    }

    /// How old the state may be.
    #[must_use]
    pub const fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The gateway that is followed; empty while none is.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the gateway that is followed.
    pub fn set_gateway(&self, address: &str) {
        address.clone_into(&mut self.gateway.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::record::{Delta, Snapshot};
    use std::time::Duration;

    impl Feed {
        fn hears(&self, event: FollowEvent) -> Result<(), OutOfOrder> {
            self.take(event, &Scope::Mesh)
        }
    }

    fn delta(revision: u64) -> FollowEvent {
        FollowEvent::Delta(Delta { revision: Revision(revision), changes: vec![] })
    }

    fn snapshot(revision: u64) -> FollowEvent {
        FollowEvent::Snapshot(Snapshot { revision: Revision(revision), ..Snapshot::default() })
    }

    #[test]
    fn s3_the_state_never_goes_back_and_never_skips() {
        let feed = Feed::new();
        feed.hears(snapshot(7)).unwrap();
        let reader = feed.followed();
        feed.hears(delta(8)).unwrap();
        assert_eq!(reader.mesh.revision(), Revision(7), "a reader keeps the state it read");
        assert_eq!(feed.hears(snapshot(7)), Err(OutOfOrder::Behind { at: Revision(8), got: Revision(7) }));
        assert!(matches!(feed.hears(delta(10)), Err(OutOfOrder::Gap(_))));
        assert_eq!(feed.followed().mesh.revision(), Revision(8));
    }

    #[test]
    fn s13_what_is_of_no_interest_is_skipped_and_nothing_else() {
        let feed = Feed::new();
        feed.hears(snapshot(7)).unwrap();
        feed.hears(FollowEvent::Quiet { revision: Revision(9) }).unwrap();
        assert_eq!(feed.followed().mesh.revision(), Revision(9));
        feed.hears(FollowEvent::Quiet { revision: Revision(8) }).unwrap();
        feed.hears(delta(10)).unwrap();
        assert_eq!(feed.followed().mesh.revision(), Revision(10));
        assert!(matches!(feed.hears(delta(12)), Err(OutOfOrder::Gap(_))));
    }

    #[test]
    fn s8_a_state_is_complete_once_the_gateways_head_was_reached() {
        let feed = Feed::new();
        let progress = |revision| FollowEvent::Progress { revision: Revision(revision), staleness: Duration::ZERO };
        feed.hears(delta(1)).unwrap();
        feed.hears(progress(2)).unwrap();
        assert!(!feed.followed().complete);
        feed.hears(delta(2)).unwrap();
        feed.hears(progress(2)).unwrap();
        assert!(feed.followed().complete);
    }

    #[test]
    fn s12_an_address_of_pods_that_the_gateway_was_not_told_of_is_unsure() {
        use ringfence_policy::{
            identity::ClusterId,
            name::Name,
            record::{Change, Cluster, Record},
        };
        let mut mesh = Mesh::default();
        let east = Cluster {
            name: Name::new("east").unwrap(),
            id: ClusterId::new(1).unwrap(),
            pod_cidrs: vec!["10.101.0.0/16".parse().unwrap()],
        };
        mesh.apply(&Delta { revision: Revision(1), changes: vec![Change::Put(Record::Cluster(east))] }).unwrap();
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let host = addresses(&["10.101.1.1", "10.101.2.1", "192.0.2.1", "fe80::1"]);
        let view = Scope::View(Arc::new(addresses(&["10.101.1.1"])));
        assert_eq!(view.unsure(&host, &mesh), addresses(&["10.101.2.1"]));
        assert_eq!(Scope::Mesh.unsure(&host, &mesh), addresses(&[]));
    }
}
