//! What nodes are told that follow their own view of the mesh.
//!
//! ```text
//! head ─ waker ─► Views::advance ─► changes of each view ─ encoded once ─► Feed ─► every follower with this interest
//! ```
//!
//! Views of a cluster are kept as long as somebody follows one of them. A view moves round by round; a round in which
//! nothing of it changed sends nothing, and the next progress mark tells the follower that it has that revision, too.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use ringfence_policy::{
    mesh::Mesh,
    name::Name,
    record::{Change, Delta},
    revision::Revision,
    view::Views,
};
use tokio::sync::watch;

use super::{encode::encode_step, frames::Run, snapshot::EncodedSnapshot, waker::Round};
use crate::{convert::InvalidMessage, v1};

/// Bytes of steps that are kept of each view, for followers that lag or come back.
const BYTES: usize = 1 << 20;
/// A view that nobody follows is kept for so long.
const KEEP: Duration = Duration::from_secs(60);

/// What a follower wants to know: what one node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Its cluster.
    pub cluster: Name,
    /// Its name there.
    pub node: Name,
}

/// The views of one cluster's nodes that are followed.
#[derive(Debug)]
pub(super) struct Cluster {
    views: Views,
    feeds: BTreeMap<Name, Arc<Feed>>,
}

/// The steps of one view.
#[derive(Debug)]
pub(super) struct Feed {
    rounds: watch::Sender<Arc<Round>>,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    /// Every step after this revision is here.
    since: Revision,
    at: Revision,
    steps: VecDeque<(Revision, Bytes)>,
    bytes: usize,
    followed: Instant,
}

/// What a follower of a view begins with.
pub(super) struct Entrance {
    pub(super) feed: Arc<Feed>,
    pub(super) rounds: watch::Receiver<Arc<Round>>,
    pub(super) at: Revision,
    /// None if it resumes.
    pub(super) snapshot: Option<Arc<EncodedSnapshot>>,
}

impl TryFrom<v1::Interests> for Interest {
    type Error = InvalidMessage;
    fn try_from(message: v1::Interests) -> Result<Self, InvalidMessage> {
        let name = |field, text| Name::new(text).map_err(|source| InvalidMessage::Name { field, source });
        Ok(Self { cluster: name("Interests.cluster", message.cluster)?, node: name("Interests.node", message.node)? })
    }
}

impl From<Interest> for v1::Interests {
    fn from(interest: Interest) -> Self {
        Self { cluster: interest.cluster.to_string(), node: interest.node.to_string() }
    }
}

impl Cluster {
    pub(super) fn new(cluster: Name, mesh: &Mesh) -> Self {
        Self { views: Views::new(mesh, cluster), feeds: BTreeMap::new() }
    }

    /// Brings all views to the mesh's revision.
    pub(super) fn advance(&mut self, mesh: &Mesh) {
        if mesh.revision() == self.views.revision() {
            return;
        }
        let Some(mut changes) = self.views.advance(mesh) else {
            self.views = Views::new(mesh, self.views.cluster().clone());
            for (node, feed) in &self.feeds {
                self.views.add(node);
                *feed.log() = Log::new(mesh.revision());
            }
            return;
        };
        for (node, feed) in &self.feeds {
            feed.log().step(mesh.revision(), changes.remove(node));
        }
    }

    /// A follower comes that has the view of a revision, or none. The views are at the mesh's revision.
    pub(super) fn enter(&mut self, node: &Name, from: Revision, mesh: &Mesh) -> Entrance {
        self.views.add(node);
        let at = self.views.revision();
        let feed = self.feeds.entry(node.clone()).or_insert_with(|| Arc::new(Feed::new(at))).clone();
        // One that begins at this moment cannot know what a follower of another server has.
        let resumes = feed.log().since < from && feed.after(from).is_some();
        let snapshot = (!resumes).then(|| {
            let records = self.views.records(node, mesh).map(|(_, versioned)| versioned);
            Arc::new(EncodedSnapshot::of(at, records))
        });
        Entrance { rounds: feed.rounds.subscribe(), feed, at, snapshot }
    }

    pub(super) fn feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.values()
    }

    /// Drops what nobody follows; whether anything is left.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        self.feeds.retain(|node, feed| {
            let mut log = feed.log();
            if feed.followers() > 0 {
                log.followed = now;
            }
            let keep = now.duration_since(log.followed) < KEEP;
            if !keep {
                self.views.remove(node);
            }
            keep
        });
        !self.feeds.is_empty()
    }
}

impl Feed {
    fn new(at: Revision) -> Self {
        Self { rounds: watch::Sender::new(Arc::new(Round::at(at, 0))), log: Mutex::new(Log::new(at)) }
    }

    /// The steps that lead from a revision to where the view is; none if they are not known.
    pub(super) fn after(&self, from: Revision) -> Option<(Run, Revision)> {
        let log = self.log();
        let known = log.since <= from && from <= log.at;
        known.then(|| (log.steps.iter().filter(|(revision, _)| *revision > from).cloned().collect(), log.at))
    }

    pub(super) fn followers(&self) -> usize {
        self.rounds.receiver_count()
    }

    pub(super) fn tell(&self, second: u64) {
        let at = self.log().at;
        self.rounds.send_replace(Arc::new(Round::at(at, second)));
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn new(at: Revision) -> Self {
        Self { since: at, at, steps: VecDeque::new(), bytes: 0, followed: Instant::now() }
    }

    fn step(&mut self, revision: Revision, changes: Option<Vec<Change>>) {
        self.at = revision;
        let Some(changes) = changes else { return };
        let after = self.steps.back().map_or(self.since, |(last, _)| *last);
        let frame = encode_step(&Delta { revision, changes }, after);
        self.bytes += frame.len();
        self.steps.push_back((revision, frame));
        while self.bytes > BYTES
            && let Some((oldest, frame)) = self.steps.pop_front()
        {
            self.bytes -= frame.len();
            self.since = oldest;
        }
    }
}
