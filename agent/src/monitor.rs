//! `Monitor`: the datapath's events for one watcher, filtered, with names in place of numbers.
//!
//! ```text
//! EventBus ─ Subscription ─► Filter ─► Words (labels, names, rules) ─► MonitorResponse ─► the watcher
//! ```
//!
//! A watcher that reads slowly fills its own short queue; what it misses meanwhile is counted (`events.rs`).

mod filter;
mod rules;
mod words;

use std::sync::Arc;

use ringfence_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use crate::events::{Received, Subscription};

pub(crate) use filter::{End, Filter, InvalidFilter, direction, end, range};
pub(crate) use words::Words;

/// Answers that wait for a watcher; behind them stands the bus.
pub(crate) const QUEUE: usize = 4;
/// Watchers at a time: each one costs a copy of what it asks for.
pub(crate) const WATCHERS: usize = 32;

/// One watcher.
pub(crate) struct Watch {
    pub(crate) subscription: Subscription,
    pub(crate) filter: Filter,
    pub(crate) words: Words,
    pub(crate) started: v1::MonitorStarted,
    /// Its place among the watchers.
    pub(crate) place: OwnedSemaphorePermit,
}

impl Watch {
    /// Goes on until the watcher goes away, or the datapath's owner ends.
    pub(crate) async fn run(self, answers: mpsc::Sender<Result<v1::MonitorResponse, Status>>) {
        let Self { mut subscription, filter, words, started, place } = self;
        let first = v1::MonitorResponse { started: Some(started), ..v1::MonitorResponse::default() };
        if answers.send(Ok(first)).await.is_err() {
            return;
        }
        let mut work = Some((filter, words));
        while let Some((filter, mut words)) = work.take() {
            let received = tokio::select! {
                () = answers.closed() => return,
                received = subscription.next() => received,
            };
            let Some(received) = received else { break };
            // Rules may have to be read, and names looked up: not here, where other streams wait.
            let done = tokio::task::spawn_blocking(move || {
                let answer = answer(&received, &filter, &mut words);
                (answer, filter, words)
            });
            let Ok((answer, filter, words)) = done.await else { break };
            if let Some(answer) = answer
                && answers.send(Ok(answer)).await.is_err()
            {
                return;
            }
            work = Some((filter, words));
        }
        drop(place);
        // The watcher may have gone, too.
        drop(answers.send(Err(Status::unavailable("the agent is stopping"))).await);
    }
}

/// What a watcher is told; none if nothing of it is for this one.
fn answer(received: &Received, filter: &Filter, words: &mut Words) -> Option<v1::MonitorResponse> {
    words.refresh();
    let wanted = received.batch.events.iter().filter(|event| filter.wants(event, words));
    let wanted: Vec<_> = wanted.copied().collect();
    let events: Vec<v1::FlowEvent> =
        wanted.iter().map(|event| words.event(event, received.batch.time(event))).collect();
    let lost = v1::LostEvents {
        ring: received.lost.ring,
        rate_limit: received.lost.rate_limit,
        undecodable: received.lost.undecodable,
        slow_reader: received.missed,
    };
    let lost = (lost != v1::LostEvents::default()).then_some(lost);
    (lost.is_some() || !events.is_empty()).then_some(v1::MonitorResponse { lost, events, started: None })
}

/// Everything that watchers share.
pub(crate) type Watchers = Arc<tokio::sync::Semaphore>;
