//! Follows one gateway after the other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ringfence_proto::{
    follow::{FollowError, Follower, Position},
    pool::Server,
};
use ringfence_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::{Feed, OutOfOrder},
    gateways::Gateways,
    observe::GATEWAY_LOST,
};

/// Keeps the feed at the mesh's head, whichever gateway tells it.
#[derive(Debug)]
pub struct Following {
    /// Where to follow.
    pub gateways: Arc<Gateways>,
    /// What to move.
    pub feed: Arc<Feed>,
    /// Told to the gateways, for their logs.
    pub follower: String,
}

/// Why a gateway is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Following {
    /// Follows until cancelled; a gateway that is lost is followed by the next one, from the revision that is here.
    pub async fn run(self, token: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        // Of nothing yet; moves with the feed.
        let mut position = Position::default();
        for gateway in self.gateways.all().iter().cycle() {
            let lost = tokio::select! {
                () = token.cancelled() => return,
                lost = self.follow(gateway, &mut position, &mut backoff) => lost,
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

    async fn follow(&self, gateway: &Server, position: &mut Position, backoff: &mut Backoff) -> Lost {
        match self.follow_until_lost(gateway, position, backoff).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn follow_until_lost(
        &self,
        gateway: &Server,
        position: &mut Position,
        backoff: &mut Backoff,
    ) -> Result<Infallible, Lost> {
        let mut follower = Follower::connect(gateway.channel.clone(), *position, self.follower.clone()).await?;
        loop {
            self.feed.take(follower.next().await?)?;
            *position = follower.position();
            if self.feed.gateway().is_empty() {
                self.feed.set_gateway(&gateway.address);
                backoff.reset();
                let revision = self.feed.followed().mesh.revision();
                tracing::info!(gateway = gateway.address, %revision, "following the mesh");
            }
        }
    }
}
