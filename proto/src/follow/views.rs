//! What nodes are told that follow their own view of the mesh.
//!
//! ```text
//! head ─ waker ─► Views::advance ─► changes of each view ─ encoded once ─► Feed ─► every follower with this interest
//! ```
//!
//! Views of a cluster are kept as long as somebody follows one of them. A view moves round by round; a round in which
//! nothing of it changed sends nothing, and the next progress mark tells the follower that it has that revision, too.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use ringfence_policy::{
    mesh::Mesh,
    name::Name,
    record::{Change, Delta},
    revision::Revision,
    store::StoreId,
    view::{Viewer, Views},
};
use tokio::sync::watch;

use super::{encode::encode_step, frames::Run, snapshot::EncodedSnapshot, waker::Round};
use crate::{access::Access, convert::InvalidMessage, v1};

/// Bytes of steps that are kept of each view, for followers that lag or come back.
const BYTES: usize = 1 << 20;
/// A view that nobody follows is kept for so long.
const KEEP: Duration = Duration::from_secs(60);

/// In the metadata of an answer that is a view: whose.
pub const VIEW: &str = "ringfence-view";
/// Addresses that a node may say its devices have.
pub const MAX_ADDRESSES: u32 = 4096;

/// What a follower wants to know: what one node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Its cluster.
    pub cluster: Name,
    /// The node, and what it says of its host.
    pub viewer: Viewer,
}

/// The views of one cluster's nodes that are followed.
#[derive(Debug)]
pub(super) struct Cluster {
    views: Views,
    feeds: BTreeMap<Viewer, Arc<Feed>>,
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

impl Interest {
    /// What a node needs.
    #[must_use]
    pub fn new(cluster: Name, node: Name, addresses: Arc<BTreeSet<IpAddr>>) -> Self {
        Self { cluster, viewer: Viewer { node, addresses } }
    }

    /// What must be allowed to whoever asks for it.
    #[must_use]
    pub fn access(&self) -> Access {
        Access::View { cluster: self.cluster.clone(), node: self.viewer.node.clone() }
    }

    /// As in `VIEW`.
    pub(super) fn named(&self) -> String {
        format!("{}/{}", self.cluster, self.viewer.node)
    }
}

impl TryFrom<v1::Interests> for Interest {
    type Error = InvalidMessage;
    fn try_from(message: v1::Interests) -> Result<Self, InvalidMessage> {
        let name = |field, text| Name::new(text).map_err(|source| InvalidMessage::Name { field, source });
        let (cluster, node) = (name("Interests.cluster", message.cluster)?, name("Interests.node", message.node)?);
        let field = "Interests.addresses";
        let number = u32::try_from(message.addresses.len()).unwrap_or(u32::MAX);
        if number > MAX_ADDRESSES {
            return Err(InvalidMessage::Range { field, number, minimum: 0, maximum: MAX_ADDRESSES });
        }
        let address = |text: String| text.parse().map_err(|_| InvalidMessage::Address { field, text });
        let addresses: BTreeSet<IpAddr> = message.addresses.into_iter().map(address).collect::<Result<_, _>>()?;
        Ok(Self::new(cluster, node, Arc::new(addresses)))
    }
}

impl From<Interest> for v1::Interests {
    fn from(interest: Interest) -> Self {
        let Viewer { node, addresses } = interest.viewer;
        let addresses = addresses.iter().map(ToString::to_string).collect();
        Self { cluster: interest.cluster.to_string(), node: node.to_string(), addresses }
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
            self.renew(mesh);
            return;
        };
        for (viewer, feed) in &self.feeds {
            feed.log().step(mesh.revision(), changes.remove(viewer));
        }
    }

    /// Nothing that is here leads to the mesh: all followers get their views anew.
    pub(super) fn renew(&mut self, mesh: &Mesh) {
        self.views = Views::new(mesh, self.views.cluster().clone());
        for (viewer, feed) in &self.feeds {
            self.views.add(viewer);
            feed.log().renew(mesh.revision());
        }
    }

    /// A follower comes that has the view of a revision, or none. The views are at the mesh's revision.
    pub(super) fn enter(&mut self, viewer: &Viewer, from: Revision, mesh: &Mesh, store: Option<StoreId>) -> Entrance {
        // A node whose host has other addresses now does not come back to the view that it had.
        self.drop_feeds(|other, feed| other.node == viewer.node && other != viewer && feed.followers() == 0);
        self.views.add(viewer);
        let at = self.views.revision();
        let known = self.feeds.contains_key(viewer);
        let feed = self.feeds.entry(viewer.clone()).or_insert_with(|| Arc::new(Feed::new(at))).clone();
        // A view that begins at this moment cannot know what a follower of another server has.
        let resumes = known && from > Revision::ZERO && feed.after(from).is_some();
        let snapshot = (!resumes).then(|| {
            let records = self.views.records(viewer, mesh).map(|(_, versioned)| versioned);
            Arc::new(EncodedSnapshot::of(at, store, records))
        });
        Entrance { rounds: feed.rounds.subscribe(), feed, at, snapshot }
    }

    pub(super) fn feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.feeds.values()
    }

    /// Drops what nobody follows; whether anything is left.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        self.drop_feeds(|_, feed| {
            let mut log = feed.log();
            if feed.followers() > 0 {
                log.followed = now;
            }
            now.duration_since(log.followed) >= KEEP
        });
        !self.feeds.is_empty()
    }

    fn drop_feeds(&mut self, is_done: impl Fn(&Viewer, &Feed) -> bool) {
        self.feeds.retain(|viewer, feed| {
            let done = is_done(viewer, feed);
            if done {
                self.views.remove(viewer);
            }
            !done
        });
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

    fn renew(&mut self, at: Revision) {
        *self = Self { followed: self.followed, ..Self::new(at) };
    }

    /// What is larger than all that is kept comes with a snapshot, in parts.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        connect::MAX_MESSAGE_BYTES,
        follow::{
            snapshot::Part,
            wire::{FollowEvent, follow_event::Event},
        },
    };
    use prost::Message as _;
    use ringfence_policy::{
        identity::{ClusterId, Identity},
        label::LabelSet,
        object::parse_objects,
        record::{Cluster as ClusterRecord, Endpoint, IdentityRecord, PolicyKey, PolicyRecord, Record, Snapshot},
    };

    const ENDPOINTS_OF_NODE: u32 = 100;
    const ENDPOINTS_OF_APP: u32 = 10;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn viewer(node: &str) -> Viewer {
        Viewer { node: name(node), addresses: Arc::default() }
    }

    fn labels(app: u32) -> LabelSet {
        let app = format!("k8s:app=app-{app}");
        let fixed =
            ["k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=east", "k8s:tier=backend"];
        LabelSet::parse(fixed.into_iter().chain([app.as_str()])).unwrap()
    }

    fn identity(app: u32) -> Identity {
        Identity::global(ClusterId::new(1).unwrap(), 1000 + app).unwrap()
    }

    fn endpoint(number: u32) -> Change {
        let apps = number / ENDPOINTS_OF_NODE * ENDPOINTS_OF_NODE / ENDPOINTS_OF_APP;
        // A node has pods of many apps, an app pods on many nodes.
        let app = if number.is_multiple_of(2) { apps + number % 10 } else { number / 7 % apps.max(10) };
        Change::Put(Record::Endpoint(Arc::new(Endpoint {
            cluster: name("east"),
            node: name(&format!("n{}", number / ENDPOINTS_OF_NODE)),
            name: name(&format!("app-{app}-{number}")),
            addresses: vec![std::net::Ipv4Addr::from_bits((10 << 24) + number).into()],
            labels: labels(app),
            identity: identity(app),
            named_ports: vec![],
        })))
    }

    fn policy(app: u32) -> Change {
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: app-{app}, namespace: shop}}, spec: \
             {{endpointSelector: {{matchLabels: {{app: app-{app}}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: app-{}}}}}]}}], \
             egress: [{{toEndpoints: [{{matchLabels: {{app: app-{}}}}}]}}]}}}}",
            app + 1,
            app + 2
        );
        let key = parse_objects(&text).objects.remove(0).key;
        Change::Put(Record::Policy(PolicyRecord { key, text }))
    }

    fn size(snapshot: &EncodedSnapshot) -> usize {
        let part = |index| if let Part::Ready(part) = snapshot.part(index) { Some(part.len()) } else { None };
        (0..).map_while(part).sum()
    }

    #[test]
    fn a_step_above_the_limit_of_messages_comes_with_a_snapshot() {
        let mut mesh = Mesh::default();
        let first = Delta { revision: Revision(1), changes: vec![endpoint(1)] };
        mesh.apply(&first).unwrap();
        let mut cluster = Cluster::new(name("east"), &mesh);
        let (node, store) = (viewer("n0"), StoreId::new(1_795_000_000_000, [7; 10]));
        let feed = cluster.enter(&node, Revision(0), &mesh, None).feed;
        mesh.apply(&Delta { revision: Revision(2), changes: vec![endpoint(2)] }).unwrap();
        cluster.advance(&mesh);
        assert!(feed.after(Revision(1)).is_some_and(|(steps, _)| steps.len() == 1), "a small one is a step");
        let Change::Put(Record::Policy(record)) = policy(0) else { panic!() };
        let large = (0..17).map(|number| {
            let key = PolicyKey { name: name(&format!("large-{number}")), ..record.key.clone() };
            Change::Put(Record::Policy(PolicyRecord {
                key,
                text: format!("# {}\n{}", "x".repeat(1 << 20), record.text),
            }))
        });
        mesh.apply(&Delta { revision: Revision(3), changes: large.collect() }).unwrap();
        cluster.advance(&mesh);
        assert!(feed.after(Revision(2)).is_none(), "it is no step");
        let snapshot = cluster.enter(&node, Revision(2), &mesh, Some(store)).snapshot.expect("it does not resume");
        let mut parts = Vec::new();
        while let Part::Ready(part) = snapshot.part(parts.len()) {
            assert!(part.len() < MAX_MESSAGE_BYTES / 4, "{} bytes", part.len());
            parts.push(part);
        }
        let last = FollowEvent::decode(parts.pop().unwrap()).unwrap().event;
        let Some(Event::Snapshot(last)) = last else { panic!("{last:?}") };
        assert_eq!((last.whole_at, last.store_id), (3, store.to_string()), "a view says of which store it is");
    }

    /// Resident memory that something takes, in kB; what was freed before and is used again does not count.
    fn memory_of<T>(make: impl FnOnce() -> T) -> usize {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").ok();
            pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<usize>().ok()).unwrap_or_default() * 4
        };
        let before = resident();
        let made = make();
        let taken = resident().saturating_sub(before);
        drop(made);
        taken
    }

    /// `RINGFENCE_ENDPOINTS=100000` and `--nocapture` tell what a node of a large mesh gets.
    #[test]
    fn a_node_gets_a_small_part_of_a_large_mesh() {
        let endpoints = std::env::var("RINGFENCE_ENDPOINTS").map_or(4_000, |text| text.parse().unwrap());
        let apps = endpoints / ENDPOINTS_OF_APP;
        let pods = vec!["10.0.0.0/8".parse().unwrap()];
        let east = ClusterRecord { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: pods };
        let mut changes = vec![Change::Put(Record::Cluster(east))];
        changes.extend(
            (0..apps).map(|app| {
                Change::Put(Record::Identity(IdentityRecord { identity: identity(app), labels: labels(app) }))
            }),
        );
        changes.extend((0..endpoints).map(endpoint));
        changes.extend((0..apps.min(1_000)).map(policy));
        let mut mesh = Mesh::default();
        mesh.apply(&Delta { revision: Revision(1), changes }).unwrap();

        let started = Instant::now();
        let mut cluster = Cluster::new(name("east"), &mesh);
        let indexed = started.elapsed();
        let all = size(&EncodedSnapshot::of(Revision(1), None, mesh.records().values()));
        let node = viewer("n3");
        let started = Instant::now();
        let entrance = cluster.enter(&node, Revision(0), &mesh, None);
        let entered = started.elapsed();
        let own = size(&entrance.snapshot.unwrap());
        let part = || cluster.views.records(&node, &mesh).map(|(key, record)| (key.clone(), record.clone())).collect();
        let ([own_memory, all_memory], records) = (
            [
                memory_of(|| Mesh::from_snapshot(Snapshot { revision: Revision(1), records: part() })),
                memory_of(|| Mesh::from_snapshot(mesh.snapshot())),
            ],
            cluster.views.records(&node, &mesh).count(),
        );
        let step = (0..100).map(|number| {
            let Change::Put(Record::Endpoint(moved)) = endpoint(endpoints / 2 + number) else { panic!() };
            let address = std::net::Ipv4Addr::from_bits((10 << 24) + (1 << 23) + number).into();
            let moved = Endpoint { addresses: vec![address], ..Arc::unwrap_or_clone(moved) };
            Change::Put(Record::Endpoint(Arc::new(moved)))
        });
        mesh.apply(&Delta { revision: Revision(2), changes: step.collect() }).unwrap();
        let started = Instant::now();
        cluster.advance(&mesh);
        println!(
            "{endpoints} endpoints: mesh {} records {all} B ({all_memory} kB in memory), view {records} records {own} B \
             ({own_memory} kB in memory); index {indexed:.1?}, view {entered:.1?}, step of 100 endpoints {:.1?}",
            mesh.records().len(),
            started.elapsed()
        );
        assert!(own * 3 < all, "{own} of {all} bytes");
        let (steps, at) = entrance.feed.after(Revision(1)).unwrap();
        assert!(at == Revision(2) && steps.iter().map(|(_, frame)| frame.len()).sum::<usize>() < 20_000);
    }
}
