//! Makes the node, its proxy and health check, and its endpoints known to the mesh.

mod reserved;

pub use reserved::Reserved;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ringfence_policy::{
    command::Command,
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::{Node, RecordKey},
    revision::Revision,
};
use ringfence_proto::{
    status::{describe, is_out_of_reach},
    v1,
};
use ringfence_runtime::backoff::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Feed,
    gateways::Gateways,
    registry::{Attachment, Entry, Registration, Registry},
};

/// How long to wait after a failure, at most.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// Puts the node's record first, then those of attached endpoints, and puts them again if the mesh loses them.
#[derive(Debug)]
pub struct Registering {
    /// Who this is.
    pub cluster: Name,
    /// Who this is.
    pub node: Name,
    /// The node's own.
    pub addresses: Vec<IpAddr>,
    /// The node's own.
    pub labels: LabelSet,
    /// Where to register.
    pub gateways: Arc<Gateways>,
    /// What to register.
    pub registry: Arc<Registry>,
    /// What the mesh has.
    pub feed: Arc<Feed>,
    /// The node's proxy and health check.
    pub reserved: [Reserved; 2],
    /// Why the node itself, its proxy or its health check are not registered, in words.
    pub problems: watch::Sender<Vec<String>>,
}

/// The revisions that hold what was registered.
#[derive(Debug, Default)]
struct Registered {
    node: Option<Revision>,
    reserved: [Option<Revision>; 2],
}

/// The store did not take a record this time.
#[derive(Debug)]
enum NotTaken {
    OutOfReach(String),
    Refused(String),
}

impl Registering {
    /// Registers until cancelled. Refusals are shown and tried again: what stands in the way may go.
    pub async fn run(self, token: CancellationToken) {
        let (mut work, mut followed) = (self.registry.subscribe_work(), self.feed.subscribe());
        let mut backoff = Backoff::new(Duration::from_millis(100), MAX_RETRY);
        let mut registered = Registered::default();
        loop {
            work.mark_unchanged();
            followed.mark_unchanged();
            let done = tokio::select! {
                () = token.cancelled() => return,
                done = self.register_missing(&mut registered) => done,
            };
            if done {
                backoff.reset();
            }
            let retry = backoff.next_delay();
            tokio::select! {
                () = token.cancelled() => return,
                _ = work.changed() => {}
                // The mesh may have lost a record.
                _ = followed.changed(), if done => {}
                () = tokio::time::sleep(retry), if !done => {}
            }
        }
    }

    /// Whether nothing is missing any more.
    async fn register_missing(&self, registered: &mut Registered) -> bool {
        if let Err(problem) = self.register_own(registered).await {
            self.publish(vec![problem]);
            return false;
        }
        let problems = self.register_reserved(&mut registered.reserved).await;
        let mut done = problems.is_empty();
        self.publish(problems);
        for entry in self.registry.entries() {
            if self.is_missing(&entry) {
                let _one = self.registry.exclusive().await;
                // The local API may have been faster.
                if let Some(entry) = self.registry.get(&entry.declared.name).filter(|entry| self.is_missing(entry)) {
                    done &= self.register_endpoint(&entry).await;
                }
            }
        }
        done
    }

    fn is_missing(&self, entry: &Entry) -> bool {
        !entry.held && matches!(entry.attachment, Attachment::Attached { .. }) && !self.is_registered(entry)
    }

    /// The node itself.
    async fn register_own(&self, registered: &mut Registered) -> Result<(), String> {
        self.withdraw().await?;
        if registered.node.is_none_or(|revision| self.is_lost(&self.node_key(), revision)) {
            registered.node = None;
            registered.node = Some(self.register_node().await?);
        }
        Ok(())
    }

    async fn register_node(&self) -> Result<Revision, String> {
        let node = Node {
            cluster: self.cluster.clone(),
            name: self.node.clone(),
            addresses: self.addresses.clone(),
            labels: self.labels.clone(),
        };
        match self.execute(Command::PutNode(node)).await {
            Ok(committed) => {
                tracing::info!(node = %self.node, revision = committed.revision, changed = committed.changed, "node registered");
                Ok(Revision(committed.revision))
            }
            Err(NotTaken::OutOfReach(reason)) => Err(format!("the node cannot be registered now: {reason}")),
            Err(NotTaken::Refused(reason)) => Err(format!("the store refuses to register the node: {reason}")),
        }
    }

    fn publish(&self, problems: Vec<String>) {
        self.problems.send_if_modified(|current| {
            for problem in problems.iter().filter(|problem| !current.contains(problem)) {
                tracing::warn!(node = %self.node, "{problem}");
            }
            let modified = *current != problems;
            *current = problems;
            modified
        });
    }

    async fn register_endpoint(&self, entry: &Entry) -> bool {
        let spec = entry.declared.spec(&self.cluster, &self.node);
        let registration = match self.execute(Command::PutEndpoint(spec)).await {
            Ok(committed) => {
                tracing::info!(endpoint = %entry.declared.name, revision = committed.revision, identity = committed.identity, "endpoint registered");
                registered(&committed)
            }
            Err(NotTaken::OutOfReach(reason)) => Registration::Waiting { reason },
            Err(NotTaken::Refused(reason)) => Registration::Refused { reason },
        };
        if registration != entry.registration
            && let Registration::Refused { reason } = &registration
        {
            tracing::warn!(endpoint = %entry.declared.name, reason, "the store refuses the endpoint");
        }
        let done = matches!(registration, Registration::Registered { .. });
        self.registry.update(&entry.declared, |entry| entry.registration = registration);
        done
    }

    async fn execute(&self, command: Command) -> Result<v1::Committed, NotTaken> {
        self.gateways.execute(&v1::Command::from(command)).await.map_err(|status| {
            let reason = describe(&status);
            if is_out_of_reach(&status) { NotTaken::OutOfReach(reason) } else { NotTaken::Refused(reason) }
        })
    }

    fn is_registered(&self, entry: &Entry) -> bool {
        let key = RecordKey::Endpoint(self.cluster.clone(), self.node.clone(), entry.declared.name.clone());
        matches!(&entry.registration, Registration::Registered { revision, .. }
            if !self.is_lost(&key, *revision) && !self.is_numbered_otherwise(*revision))
    }

    /// Whether the mesh's settings, which say what labels make an identity, changed after a revision.
    fn is_numbered_otherwise(&self, revision: Revision) -> bool {
        let followed = self.feed.followed();
        followed.mesh.records().get(&RecordKey::Settings).is_some_and(|settings| settings.revision > revision)
    }

    /// Whether a record that the store had at a revision is gone in a later one.
    fn is_lost(&self, key: &RecordKey, revision: Revision) -> bool {
        let followed = self.feed.followed();
        followed.complete && followed.mesh.revision() >= revision && followed.mesh.get(key).is_none()
    }

    fn node_key(&self) -> RecordKey {
        RecordKey::Node(self.cluster.clone(), self.node.clone())
    }
}

/// What the store's answer to a `PutEndpoint` says.
pub(crate) fn registered(committed: &v1::Committed) -> Registration {
    Registration::Registered {
        identity: Identity::from_bits(committed.identity),
        revision: Revision(committed.revision),
    }
}
