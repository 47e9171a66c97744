//! The serving end.

use std::{pin::Pin, sync::Arc, time::Duration};

use ringfence_policy::{
    mesh::Resume,
    record::{Delta, Versioned},
    revision::Revision,
};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use super::shared::SharedHistory;
use crate::v1;

/// What `Mesh.Follow` answers.
pub type FollowResponseStream = Pin<Box<dyn Stream<Item = Result<v1::FollowEvent, Status>> + Send>>;
/// What `Mesh.List` answers.
pub type ListResponseStream = Pin<Box<dyn Stream<Item = Result<v1::ListChunk, Status>> + Send>>;
/// How long the server has not known itself in touch with a quorum of the store.
pub type Staleness = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Progress marks are sent at least this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Records in a chunk add up to about this much.
const CHUNK_BYTES: usize = 1 << 20;
/// Events that wait for a slow follower. Behind them the stream waits in the history, which is bounded: a follower that
/// falls out of it gets a snapshot.
const QUEUE: usize = 16;

/// Serves one follower from `from` until it goes away.
///
/// Deltas come in order and once each; where the history does not reach back to `from`, a snapshot in chunks comes
/// first. A progress mark follows at once when the follower is at the head, then every second.
#[must_use]
pub fn serve(history: Arc<SharedHistory>, from: Revision, staleness: Staleness) -> FollowResponseStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // The only way to end is that the follower is gone.
        let _gone = feed(&history, from, &staleness, &sender).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Sender = mpsc::Sender<Result<v1::FollowEvent, Status>>;
type Gone = mpsc::error::SendError<Result<v1::FollowEvent, Status>>;

async fn feed(history: &SharedHistory, from: Revision, staleness: &Staleness, sender: &Sender) -> Result<(), Gone> {
    let mut head = history.head();
    let mut at = from;
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        head.mark_unchanged();
        match history.read(|history| history.resume(at)) {
            Resume::Deltas(deltas) => {
                for delta in deltas {
                    at = delta.revision;
                    send(sender, delta_event(&delta)).await?;
                }
            }
            Resume::Snapshot(snapshot) => {
                at = snapshot.revision;
                let mut chunks = chunk(snapshot.records.into_values()).peekable();
                while let Some(records) = chunks.next() {
                    let last = chunks.peek().is_none();
                    let chunk = v1::SnapshotChunk { revision: at.0, records, last };
                    send(sender, v1::follow_event::Event::Snapshot(chunk)).await?;
                }
            }
        }
        if *head.borrow() == at {
            let staleness_ms = u64::try_from(staleness().as_millis()).unwrap_or(u64::MAX);
            send(sender, v1::follow_event::Event::Progress(v1::Progress { revision: at.0, staleness_ms })).await?;
        }
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return Ok(()) },
            _ = ticks.tick() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn send(sender: &Sender, event: v1::follow_event::Event) -> Result<(), Gone> {
    sender.send(Ok(v1::FollowEvent { event: Some(event) })).await
}

fn delta_event(delta: &Arc<Delta>) -> v1::follow_event::Event {
    v1::follow_event::Event::Delta(Delta::clone(delta).into())
}

/// Answers `Mesh.List`: records in chunks, at least one, so that the revision is told even where there is no record.
pub fn list(
    revision: Revision,
    staleness: Duration,
    records: impl Iterator<Item = Versioned> + Send + 'static,
) -> ListResponseStream {
    let staleness_ms = u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX);
    let chunks = chunk(records).map(move |records| Ok(v1::ListChunk { revision: revision.0, staleness_ms, records }));
    Box::pin(tokio_stream::iter(chunks))
}

/// Splits records into chunks of about `CHUNK_BYTES`; no records make one empty chunk.
fn chunk(records: impl Iterator<Item = Versioned>) -> impl Iterator<Item = Vec<v1::Versioned>> {
    let mut records = records.map(v1::Versioned::from).peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut chunk = Vec::new();
        while let Some(record) = records.next_if(|_| bytes < CHUNK_BYTES) {
            bytes += prost::Message::encoded_len(&record);
            chunk.push(record);
        }
        let answer = (first || !chunk.is_empty()).then_some(chunk);
        first = false;
        answer
    })
}
