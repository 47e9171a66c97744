//! Follows one member of the store after the other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ringfence_proto::{follow::FollowError, pool::Server};
use ringfence_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{MeshCache, OutOfOrder},
    members::Members,
    observe::UPSTREAM_LOST,
};

/// Keeps the cache at the store's head, whichever member tells it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) members: Arc<Members>,
    pub(crate) cache: Arc<MeshCache>,
    /// Told to the members, for their logs.
    pub(crate) follower: String,
}

/// Why a member is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
}

impl Upstream {
    /// Follows until cancelled; a member that is lost is followed by the next one, from the revision that is here.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for member in self.members.all().iter().cycle() {
            let lost = tokio::select! {
                () = token.cancelled() => return,
                lost = self.follow(member, &mut backoff) => lost,
            };
            if self.cache.upstream().is_empty() {
                tracing::debug!(member = member.address, reason = %lost, "member cannot be followed");
            } else {
                self.cache.set_upstream("");
                metrics::counter!(UPSTREAM_LOST).increment(1);
                tracing::warn!(member = member.address, reason = %lost, revision = %self.cache.revision(), "lost the store's member");
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    async fn follow(&self, member: &Server, backoff: &mut Backoff) -> Lost {
        match self.follow_until_lost(member, backoff).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn follow_until_lost(&self, member: &Server, backoff: &mut Backoff) -> Result<Infallible, Lost> {
        let mut follower = member.follow(self.cache.position(), self.follower.clone()).await?;
        loop {
            let event = follower.next().await?;
            self.cache.take(event, follower.store())?;
            if self.cache.upstream().is_empty() {
                self.cache.set_upstream(&member.address);
                backoff.reset();
                tracing::info!(member = member.address, revision = %self.cache.revision(), "following the store");
            }
        }
    }
}
