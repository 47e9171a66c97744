//! Followers that come over links: served on the process's runtime, so that a thousand of them stand before no write.

use std::{sync::Arc, time::Duration};

use ringfence_proto::{
    access::{Access, Permit, Site, count, refuse_unknown},
    follow::FollowResponseStream,
    link::Asked,
    v1,
    version::{Introduction, Peers},
};
use ringfence_runtime::tls::Session;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::{Movable, caller, hear};
use crate::service::MeshService;

/// A follower whose machine vanished is let go after this time: progress marks that nobody acknowledges are due every second.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// Serves them; clones serve for the same member.
#[derive(Clone)]
pub(crate) struct Followers {
    mesh: MeshService,
    peers: Arc<Peers>,
    site: Arc<Site>,
    serving: TaskTracker,
}

impl Followers {
    pub(crate) fn new(mesh: MeshService, peers: Arc<Peers>) -> Self {
        Self { mesh, peers, site: Arc::new(Site::Store), serving: TaskTracker::new() }
    }

    /// Serves one until it goes away or the history is followed no more.
    pub(crate) fn take(&self, session: Session<Movable>) {
        let followers = self.clone();
        self.serving.spawn(async move {
            if let Err(error) = followers.serve(session).await {
                tracing::debug!(%error, "a follower's connection ended");
            }
        });
    }

    /// Returns when the last one is gone; the history must be stopped.
    pub(crate) async fn gone(&self) {
        self.serving.close();
        self.serving.wait().await;
    }

    async fn serve(&self, mut session: Session<Movable>) -> std::io::Result<()> {
        session.io_mut().give_up_after(UNACKNOWLEDGED)?;
        let caller = caller(&session).map_err(|error| refuse_unknown(&error));
        let permit = caller.map(|caller| Permit::new(self.site.clone(), caller));
        let mut asked = Asked::read(session).await?;
        let request = std::mem::take(&mut asked.request);
        let events = match permit {
            Ok(permit) => self.events(&permit, asked.introduction.clone(), request).await,
            Err(refused) => Err(refused),
        };
        count("Mesh/Follow", events.as_ref().map_or_else(Status::code, |_| Code::Ok));
        asked.answer(events).await
    }

    async fn events(
        &self,
        permit: &Permit,
        introduction: Introduction,
        request: v1::FollowRequest,
    ) -> Result<FollowResponseStream, Status> {
        permit.check(&Access::Read)?;
        hear(&self.peers, &permit.caller().role, introduction);
        self.mesh.follow_from(permit, request).await
    }
}
