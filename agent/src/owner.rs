//! The thread that owns the datapath, and the handle through which everyone else asks it.
//!
//! ```text
//! feed, registry, local API ─ Request ─► one thread: Realiser ─ Realised ─► reports, status
//! ```

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ringfence_datapath::{
    AttachError, MapReader, Observation, ObserveError, PacketCounters, ProbePacket, Reading, Tallies,
};
use ringfence_policy::{name::Name, tables::EndpointId};
use tokio::{
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot, watch,
    },
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    events::EventBus,
    feed::Feed,
    figures::{Figures, Meter},
    realise::{JudgeError, Judged, Realised, Realiser},
    registry::Registry,
};

/// Requests that wait for the datapath; askers wait beyond that.
const QUEUE: usize = 64;
/// How often a revision that could not be realised is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often events are taken out of the ring: it holds what two CPUs may write at once.
const DRAIN: Duration = Duration::from_millis(10);

/// Asks the thread that owns the datapath.
#[derive(Debug, Clone)]
pub struct DatapathHandle {
    requests: mpsc::Sender<Request>,
    realised: watch::Receiver<Realised>,
    figures: watch::Receiver<Figures>,
    bus: Arc<EventBus>,
    kind: &'static str,
    features: Arc<str>,
}

/// The owning thread has ended: the process is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// Packets by reason, and what is counted beside them.
type Counters = (PacketCounters, Tallies);
/// As the owner answers it.
type ReaderReply = oneshot::Sender<Result<Box<dyn MapReader>, ObserveError>>;

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
    Counters {
        reply: oneshot::Sender<Result<Counters, ObserveError>>,
    },
    Reader {
        reply: ReaderReply,
    },
    /// Take events, and now and then read the counters.
    Tick,
    /// Read the maps back.
    Verify,
    /// There is no request; something else is to be gone on with.
    Nothing,
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
pub struct Requests {
    requests: mpsc::Receiver<Request>,
    figures: watch::Sender<Figures>,
    bus: Arc<EventBus>,
}

/// A handle, and what the owning thread reads from.
#[must_use]
pub fn channel(realiser: &Realiser) -> (DatapathHandle, Requests) {
    let (requests, receiver) = mpsc::channel(QUEUE);
    let (figures, bus) = (watch::Sender::default(), Arc::new(EventBus::new()));
    let handle = DatapathHandle {
        requests,
        realised: realiser.subscribe(),
        figures: figures.subscribe(),
        bus: Arc::clone(&bus),
        kind: realiser.kind(),
        features: realiser.features().into(),
    };
    (handle, Requests { requests: receiver, figures, bus })
}

impl Requests {
    /// Serves requests until told to stop, or until every handle is gone. Blocks; the datapath stays as it is then.
    pub fn serve(mut self, mut realiser: Realiser, feed: &Feed, registry: &Registry) {
        let mut open = false;
        let mut meter = Meter::new(&realiser, &self.bus, &self.figures);
        // The maps are read back in parts, one after each request and whenever nobody asks anything.
        let mut reading: Option<Reading> = None;
        // An asker that has gone away needs no answer: failed replies are not errors.
        while let Some(request) = next(&mut self.requests, reading.is_some()) {
            match request {
                Request::Attach { name, interface, reply } => drop(reply.send(realiser.attach(&name, &interface))),
                Request::Detach { name, reply } => drop(reply.send(realiser.detach(&name))),
                Request::Attached { reply } => drop(reply.send(realiser.attached())),
                Request::Observe { reply } => drop(reply.send(realiser.observe())),
                Request::Counters { reply } => drop(reply.send(realiser.counters())),
                Request::Reader { reply } => drop(reply.send(realiser.reader())),
                Request::Tick => meter.tick(&mut realiser),
                Request::Verify => reading = reading.or_else(|| Some(Reading::default())),
                Request::Nothing => {}
                Request::Judge { packet, declared, reply } => drop(reply.send(realiser.judge(&packet, &declared))),
                Request::Open => open = true,
                // The newest state counts, whichever one woke us.
                Request::Realise { retry } if open => realiser.realise(feed.followed(), registry.audited(), retry),
                Request::Realise { .. } => {}
                Request::Stop => return,
            }
            if let Some(verified) = reading.as_mut().and_then(|reading| realiser.verify_part(reading)) {
                reading = None;
                meter.verified(&verified);
            }
        }
    }
}

/// The next request; `busy`: nothing instead of waiting for one. None once every handle is gone.
fn next(requests: &mut mpsc::Receiver<Request>, busy: bool) -> Option<Request> {
    if !busy {
        return requests.blocking_recv();
    }
    match requests.try_recv() {
        Ok(request) => Some(request),
        Err(TryRecvError::Empty) => Some(Request::Nothing),
        Err(TryRecvError::Disconnected) => None,
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

    /// Packets by reason, and what is counted beside them, as of now.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Datapath::counters`.
    pub async fn counters(&self) -> Result<Result<Counters, ObserveError>, Stopped> {
        self.ask(|reply| Request::Counters { reply }).await
    }

    /// Reads the maps for people, without holding up their owner.
    ///
    /// # Errors
    /// `Stopped`, or inside as `Datapath::reader`.
    pub async fn reader(&self) -> Result<Result<Box<dyn MapReader>, ObserveError>, Stopped> {
        self.ask(|reply| Request::Reader { reply }).await
    }

    /// Counters of a moment ago, and what reading the maps back has found.
    #[must_use]
    pub fn figures(&self) -> watch::Receiver<Figures> {
        self.figures.clone()
    }

    /// Where events come from.
    #[must_use]
    pub fn events(&self) -> &EventBus {
        &self.bus
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

    /// Wakes the owner for every state that is followed, for events, and to read the maps back, until cancelled; then
    /// stops it. `verify`: never if there is no interval.
    pub async fn pump(self, feed: Arc<Feed>, verify: Option<Duration>, token: CancellationToken) {
        let mut followed = feed.subscribe();
        let [mut retry, mut drain, mut verifying] = [RETRY, DRAIN, verify.unwrap_or(RETRY)].map(|period| {
            let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        loop {
            let request = tokio::select! {
                () = token.cancelled() => Request::Stop,
                _ = followed.changed() => Request::Realise { retry: false },
                _ = retry.tick() => Request::Realise { retry: true },
                _ = verifying.tick(), if verify.is_some() => Request::Verify,
                _ = drain.tick() => {
                    // An owner that is at work looks into the ring afterwards.
                    drop(self.requests.try_send(Request::Tick));
                    continue;
                }
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
