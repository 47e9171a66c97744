//! Follows one gateway after the other.

use std::{collections::BTreeSet, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use ringfence_policy::name::Name;
use ringfence_proto::{
    follow::{FollowError, Follower, Interest, MAX_ADDRESSES, Position},
    pool::Server,
};
use ringfence_runtime::backoff::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::{Feed, OutOfOrder, Scope},
    gateways::Gateways,
    observe::GATEWAY_LOST,
    realise::HostAddresses,
};

/// Keeps the feed at the head of the node's view of the mesh, whichever gateway tells it; at the head of the whole mesh
/// where a gateway does not know views.
#[derive(Debug)]
pub struct Following {
    /// Where to follow.
    pub gateways: Arc<Gateways>,
    /// What to move.
    pub feed: Arc<Feed>,
    /// The cluster.
    pub cluster: Name,
    /// Whose view it is.
    pub node: Name,
    /// Whoever has one of them, too, must be in the view.
    pub host: watch::Receiver<HostAddresses>,
}

/// What the feed has.
#[derive(Debug, Default)]
struct Held {
    scope: Scope,
    /// Of nothing yet; moves with the feed.
    position: Position,
}

/// Why a gateway is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// Another view of the same gateway is needed.
    #[error("the host has addresses that the gateway was not told of")]
    Addresses,
}

impl Following {
    /// Follows until cancelled; a gateway that is lost is followed by the next one, from the revision that is here.
    pub async fn run(self, token: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut held = Held::default();
        for gateway in self.gateways.all().iter().cycle() {
            let lost = loop {
                let lost = tokio::select! {
                    () = token.cancelled() => return,
                    lost = self.follow(gateway, &mut held, &mut backoff) => lost,
                };
                if !matches!(lost, Lost::Addresses) {
                    break lost;
                }
                tracing::info!(gateway = gateway.address, "{lost}: asking for its view anew");
            };
            if self.feed.gateway().is_empty() {
                tracing::debug!(gateway = gateway.address, reason = %lost, "gateway cannot be followed");
            } else {
                self.feed.set_gateway("");
                metrics::counter!(GATEWAY_LOST).increment(1);
                let revision = self.feed.followed().mesh.revision();
                tracing::warn!(gateway = gateway.address, reason = %lost, %revision, "lost the gateway; enforcement stays as it is");
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    async fn follow(&self, gateway: &Server, held: &mut Held, backoff: &mut Backoff) -> Lost {
        match self.follow_until_lost(gateway, held, backoff).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn follow_until_lost(
        &self,
        gateway: &Server,
        held: &mut Held,
        backoff: &mut Backoff,
    ) -> Result<Infallible, Lost> {
        let mut host = self.host.clone();
        let addresses = host.borrow_and_update().all.clone();
        let (mut follower, scope) = self.connect(gateway, held, addresses).await?;
        loop {
            let event = tokio::select! {
                event = follower.next() => event?,
                Ok(()) = host.changed() => {
                    if is_other(&scope, &host.borrow_and_update()) {
                        return Err(Lost::Addresses);
                    }
                    continue;
                }
            };
            self.feed.take(event, &scope)?;
            (held.scope, held.position) = (scope.clone(), follower.position());
            if self.feed.gateway().is_empty() {
                self.feed.set_gateway(&gateway.address);
                backoff.reset();
                let revision = self.feed.followed().mesh.revision();
                tracing::info!(gateway = gateway.address, %revision, scope = scope.name(), "following the mesh");
            }
        }
    }

    /// Resumes where the same part of the mesh was followed before.
    async fn connect(
        &self,
        gateway: &Server,
        held: &Held,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<(Follower, Scope), FollowError> {
        let from = |scope: &Scope| if held.scope == *scope { held.position } else { Position::default() };
        let (channel, name) = (&gateway.channel, format!("agent {}/{}", self.cluster, self.node));
        let is_told = u32::try_from(addresses.len()).is_ok_and(|count| count <= MAX_ADDRESSES);
        if is_told {
            let addresses = Arc::new(addresses);
            let interest = Interest::new(self.cluster.clone(), self.node.clone(), Arc::clone(&addresses));
            let scope = Scope::View(addresses);
            match Follower::connect_to_view(channel.clone(), from(&scope), name.clone(), interest).await {
                Err(FollowError::NoViews) => {
                    tracing::warn!(
                        gateway = gateway.address,
                        "the gateway is of an older version and serves no views: following the whole mesh"
                    );
                }
                connected => return connected.map(|follower| (follower, scope)),
            }
        } else {
            tracing::warn!(
                addresses = addresses.len(),
                limit = MAX_ADDRESSES,
                "the host has too many addresses for a view: following the whole mesh"
            );
        }
        let follower = Follower::connect(channel.clone(), from(&Scope::Mesh), name).await?;
        Ok((follower, Scope::Mesh))
    }
}

fn is_other(scope: &Scope, host: &HostAddresses) -> bool {
    matches!(scope, Scope::View(told) if !host.unsure.is_subset(told))
}
