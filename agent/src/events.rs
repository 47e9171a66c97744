//! Events of the datapath, on their way to everybody who watches.
//!
//! ```text
//! owner's thread: drain ─► publish ─► the newest batches ─┬─► Subscription ─► monitor
//!                                                         └─► Subscription ─► …
//! ```
//!
//! Nobody is waited for: who reads slowly misses batches, and is told exactly how many events were in them (S16). For
//! every subscriber, events handed over and counted losses add up to what the datapath saw since it subscribed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use ringfence_datapath::FlowEvent;
use tokio::sync::broadcast;

/// Batches that are kept for slow subscribers.
const BATCHES: usize = 128;
/// Events in one batch, at most: with `BATCHES` it bounds the memory, to about 9 MB.
const EVENTS: usize = 512;

/// Hands events to subscribers.
#[derive(Debug)]
pub struct EventBus {
    at: Mutex<Counts>,
    batches: broadcast::Sender<Arc<Batch>>,
}

/// What there was, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the datapath handed over.
    pub delivered: u64,
    /// Events that it did not.
    pub lost: Lost,
}

/// Events that nobody will see, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The ring was full.
    pub ring: u64,
    /// A CPU had written too many.
    pub rate_limit: u64,
    /// What stood in the ring was no event.
    pub undecodable: u64,
}

/// Events that came together.
#[derive(Debug)]
pub struct Batch {
    /// Oldest first.
    pub events: Vec<FlowEvent>,
    /// How many events there were before these.
    first: u64,
    /// All losses until after these.
    lost: Lost,
    clock: Clock,
}

/// A moment on two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// On the datapath's, in nanoseconds.
    pub datapath_ns: u64,
    /// On people's.
    pub wall: SystemTime,
}

/// One reader.
#[derive(Debug)]
pub struct Subscription {
    batches: broadcast::Receiver<Arc<Batch>>,
    at: Counts,
}

/// The next thing that a subscriber learns.
#[derive(Debug)]
pub struct Received {
    /// Events.
    pub batch: Arc<Batch>,
    /// What was lost since the batch before.
    pub lost: Lost,
    /// How many events this subscriber was too slow for since the batch before.
    pub missed: u64,
}

impl EventBus {
    /// Nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self { at: Mutex::default(), batches: broadcast::Sender::new(BATCHES) }
    }

    /// Hands over events that the datapath gave, and all that it has lost so far.
    pub fn publish(&self, events: &[FlowEvent], lost: Lost, clock: Clock) {
        let mut at = self.lock();
        let listening = self.batches.receiver_count() > 0;
        let send = |at: &mut Counts, events: &[FlowEvent]| {
            let first = at.delivered;
            *at = Counts { delivered: first + events.len() as u64, lost };
            if listening {
                // The last one may have gone just now.
                drop(self.batches.send(Arc::new(Batch { events: events.to_vec(), first, lost, clock })));
            }
        };
        if events.is_empty() && at.lost != lost {
            send(&mut at, events);
        }
        events.chunks(EVENTS).for_each(|events| send(&mut at, events));
    }

    /// Reads from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let at = self.lock();
        Subscription { batches: self.batches.subscribe(), at: *at }
    }

    /// What there was so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// How many read.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.batches.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Lost {
    fn since(self, before: Self) -> Self {
        Self {
            ring: self.ring.saturating_sub(before.ring),
            rate_limit: self.rate_limit.saturating_sub(before.rate_limit),
            undecodable: self.undecodable.saturating_sub(before.undecodable),
        }
    }

    /// All reasons together.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.ring + self.rate_limit + self.undecodable
    }
}

impl Subscription {
    /// The next batch; none once the datapath's owner has ended.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            match self.batches.recv().await {
                Ok(batch) => {
                    let missed = batch.first.saturating_sub(self.at.delivered);
                    let lost = batch.lost.since(self.at.lost);
                    self.at = Counts { delivered: batch.first + batch.events.len() as u64, lost: batch.lost };
                    return Some(Received { batch, lost, missed });
                }
                // What was missed shows in the next batch's numbers: they count events, not batches.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Batch {
    /// When an event happened, on people's clock.
    #[must_use]
    pub fn time(&self, event: &FlowEvent) -> SystemTime {
        let ago = self.clock.datapath_ns.saturating_sub(event.time_ns);
        self.clock.wall.checked_sub(Duration::from_nanos(ago)).unwrap_or(self.clock.wall)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ringfence_datapath::Reason;
    use ringfence_policy::{flow::Direction, identity::Identity, revision::Revision, tables::EndpointId};

    use super::*;

    fn event(number: u64) -> FlowEvent {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        FlowEvent {
            time_ns: number,
            revision: Revision(1),
            reason: Reason::New,
            endpoint: EndpointId(1),
            identity: Identity::UNKNOWN,
            peer: Identity::UNKNOWN,
            local: (address, 1),
            remote: (address, 2),
            protocol: 6,
            packet: Direction::Egress,
            direction: Direction::Egress,
            policy: None,
            port: 2,
            band: 0,
            shadow_differs: false,
            cut: false,
        }
    }

    fn clock() -> Clock {
        Clock { datapath_ns: 0, wall: SystemTime::UNIX_EPOCH }
    }

    /// Publishes `count` events in batches of `at_once`, each with a loss more.
    fn publish(bus: &EventBus, count: u64, at_once: u64) {
        let before = bus.counts();
        for (batch, first) in (0..count).step_by(usize::try_from(at_once).unwrap()).enumerate() {
            let events: Vec<FlowEvent> = (first..count.min(first + at_once)).map(event).collect();
            let lost = Lost { ring: before.lost.ring + batch as u64 + 1, ..before.lost };
            bus.publish(&events, lost, clock());
        }
    }

    async fn drain(subscription: &mut Subscription) -> (u64, u64, Lost) {
        let (mut seen, mut missed, mut lost) = (0, 0, Lost::default());
        while let Ok(Some(received)) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
            seen += received.batch.events.len() as u64;
            missed += received.missed;
            lost.ring += received.lost.ring;
        }
        (seen, missed, lost)
    }

    #[tokio::test]
    async fn s16_what_a_slow_subscriber_misses_is_counted_to_the_event() {
        let bus = EventBus::new();
        publish(&bus, 1000, 300);
        let (mut slow, mut fast) = (bus.subscribe(), bus.subscribe());
        publish(&bus, 100, 40);
        assert_eq!(drain(&mut fast).await, (100, 0, Lost { ring: 3, ..Lost::default() }));
        publish(&bus, 700 * BATCHES as u64, 700);
        let (seen, missed, lost) = drain(&mut slow).await;
        assert!(missed > 0 && seen > 0, "it was slow: {seen} seen, {missed} missed");
        assert_eq!(seen + missed, 100 + 700 * BATCHES as u64);
        assert_eq!(lost.ring, 3 + BATCHES as u64, "losses before the newest batches are told, too");
        assert_ne!(seen, bus.counts().delivered - 1000, "control: without the count of what was missed, events vanish");
        publish(&bus, 1, 1);
        assert_eq!(drain(&mut slow).await, (1, 0, Lost { ring: 1, ..Lost::default() }));
    }

    #[tokio::test]
    async fn s16_losses_are_told_when_nothing_else_is() {
        let bus = EventBus::new();
        let mut subscription = bus.subscribe();
        bus.publish(&[], Lost::default(), clock());
        assert_eq!(drain(&mut subscription).await, (0, 0, Lost::default()));
        bus.publish(&[], Lost { ring: 7, ..Lost::default() }, clock());
        assert_eq!(drain(&mut subscription).await.2.ring, 7);
        drop(bus);
        assert!(subscription.next().await.is_none());
    }

    #[test]
    fn events_have_the_time_of_people() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let clock = Clock { datapath_ns: 5_000_000_000, wall };
        let batch = Batch { events: vec![], first: 0, lost: Lost::default(), clock };
        assert_eq!(batch.time(&event(4_000_000_000)), wall - Duration::from_secs(1));
        assert_eq!(batch.time(&event(6_000_000_000)), wall, "a clock that ticks coarsely may be ahead");
    }
}
