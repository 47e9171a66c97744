//! The thread that owns the datapath, and the handle through which everyone else asks it.
//!
//! ```text
//! feed, registry, local API ─ Request ─► one thread: Realiser ─ Realised ─► reports, status
//! ```

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ringfence_datapath::{AttachError, Observation, ObserveError, ProbePacket};
use ringfence_policy::{name::Name, tables::EndpointId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Feed,
    realise::{JudgeError, Judged, Realised, Realiser},
};

/// Requests that wait for the datapath; askers wait beyond that.
const QUEUE: usize = 64;
/// How often a revision that could not be realised is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Asks the thread that owns the datapath.
#[derive(Debug, Clone)]
pub struct DatapathHandle {
    requests: mpsc::Sender<Request>,
    realised: watch::Receiver<Realised>,
    kind: &'static str,
    features: Arc<str>,
}

/// The owning thread has ended: the process is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

#[derive(Debug)]
enum Request {
    Attach {
        name: Name,
        interface: String,
        reply: oneshot::Sender<Result<EndpointId, AttachError>>,
    },
    Detach {
        name: Name,
        reply: oneshot::Sender<Result<(), AttachError>>,
    },
    Attached {
        reply: oneshot::Sender<BTreeMap<Name, EndpointId>>,
    },
    Observe {
        reply: oneshot::Sender<Result<Observation, ObserveError>>,
    },
    Judge {
        packet: ProbePacket,
        declared: BTreeMap<IpAddr, EndpointId>,
        reply: oneshot::Sender<Result<Judged, JudgeError>>,
    },
    /// The declared endpoints had their chance to be attached: from now on revisions may be realised.
    Open,
    Realise {
        retry: bool,
    },
    Stop,
}

/// The thread's side.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Request>);

/// A handle, and what the owning thread reads from.
#[must_use]
pub fn channel(realiser: &Realiser) -> (DatapathHandle, Requests) {
    let (requests, receiver) = mpsc::channel(QUEUE);
    let (realised, features) = (realiser.subscribe(), realiser.features().into());
    (DatapathHandle { requests, realised, kind: realiser.kind(), features }, Requests(receiver))
}

impl Requests {
    /// Serves requests until told to stop, or until every handle is gone. Blocks; the datapath stays as it is then.
    pub fn serve(mut self, mut realiser: Realiser, feed: &Feed) {
        let mut open = false;
        // An asker that has gone away needs no answer: failed replies are not errors.
        while let Some(request) = self.0.blocking_recv() {
            match request {
                Request::Attach { name, interface, reply } => drop(reply.send(realiser.attach(&name, &interface))),
                Request::Detach { name, reply } => drop(reply.send(realiser.detach(&name))),
                Request::Attached { reply } => drop(reply.send(realiser.attached())),
                Request::Observe { reply } => drop(reply.send(realiser.observe())),
                Request::Judge { packet, declared, reply } => drop(reply.send(realiser.judge(&packet, &declared))),
                Request::Open => open = true,
                // The newest state counts, whichever one woke us.
                Request::Realise { retry } if open => realiser.realise(feed.followed(), retry),
                Request::Realise { .. } => {}
                Request::Stop => return,
            }
        }
    }
}

impl DatapathHandle {
    /// Puts an endpoint's device under enforcement.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Datapath::attach`.
    pub async fn attach(&self, name: Name, interface: String) -> Result<Result<EndpointId, AttachError>, Stopped> {
        self.ask(|reply| Request::Attach { name, interface, reply }).await
    }

    /// Ends the enforcement of an endpoint that is gone.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Datapath::detach`.
    pub async fn detach(&self, name: Name) -> Result<Result<(), AttachError>, Stopped> {
        self.ask(|reply| Request::Detach { name, reply }).await
    }

    /// The endpoints under enforcement.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn attached(&self) -> Result<BTreeMap<Name, EndpointId>, Stopped> {
        self.ask(|reply| Request::Attached { reply }).await
    }

    /// Reads back what packets are judged by.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Datapath::observe`.
    pub async fn observe(&self) -> Result<Result<Observation, ObserveError>, Stopped> {
        self.ask(|reply| Request::Observe { reply }).await
    }

    /// What would become of a packet now.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Realiser::judge`.
    pub async fn judge(
        &self,
        packet: ProbePacket,
        declared: BTreeMap<IpAddr, EndpointId>,
    ) -> Result<Result<Judged, JudgeError>, Stopped> {
        self.ask(|reply| Request::Judge { packet, declared, reply }).await
    }

    /// Lets revisions be realised: call it once the declared endpoints had their chance to be attached, so that a
    /// restart never moves to tables that lack an endpoint which is enforced (S8).
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn open(&self) -> Result<(), Stopped> {
        self.requests.send(Request::Open).await.map_err(|_| Stopped)?;
        self.realise().await
    }

    /// Moves to the newest state that was followed.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn realise(&self) -> Result<(), Stopped> {
        self.requests.send(Request::Realise { retry: false }).await.map_err(|_| Stopped)
    }

    /// What is enforced now, and what keeps the node from enforcing more.
    #[must_use]
    pub fn realised(&self) -> watch::Receiver<Realised> {
        self.realised.clone()
    }

    /// `"kernel"` or `"memory"`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// What the datapath found when it was opened, in words; empty if it needs nothing.
    #[must_use]
    pub fn features(&self) -> &str {
        &self.features
    }

    /// Wakes the owner for every state that is followed, until cancelled; then stops it.
    pub async fn pump(self, feed: Arc<Feed>, token: CancellationToken) {
        let mut followed = feed.subscribe();
        let mut retry = tokio::time::interval(RETRY);
        loop {
            let request = tokio::select! {
                () = token.cancelled() => Request::Stop,
                _ = followed.changed() => Request::Realise { retry: false },
                _ = retry.tick() => Request::Realise { retry: true },
            };
            let stop = matches!(request, Request::Stop);
            if self.requests.send(request).await.is_err() || stop {
                return;
            }
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
