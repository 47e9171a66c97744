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
/// A follower that takes no event for this long is cut off, so that it does not hold on to a snapshot for ever. It
/// resumes where it was.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one follower from `from` until it goes away.
///
/// Deltas come in order and once each; where the history does not reach back to `from`, a snapshot in chunks comes
/// first. A progress mark follows at once when the follower is at the head, then every second.
#[must_use]
pub fn serve(history: Arc<SharedHistory>, from: Revision, staleness: Staleness) -> FollowResponseStream {
    serve_patiently(history, from, staleness, PATIENCE)
}

fn serve_patiently(
    history: Arc<SharedHistory>,
    from: Revision,
    staleness: Staleness,
    patience: Duration,
) -> FollowResponseStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // The only way to end is that the follower is gone, or as good as gone.
        let _gone = feed(&history, from, &staleness, &Outlet { sender, patience }).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Where one follower's events go.
struct Outlet {
    sender: mpsc::Sender<Result<v1::FollowEvent, Status>>,
    patience: Duration,
}

/// The follower has closed its end, or takes nothing any more.
struct Gone;

async fn feed(history: &SharedHistory, from: Revision, staleness: &Staleness, outlet: &Outlet) -> Result<(), Gone> {
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
                    outlet.send(delta_event(&delta)).await?;
                }
            }
            Resume::Snapshot(snapshot) => {
                at = snapshot.revision;
                let mut chunks = chunk(snapshot.records.into_values()).peekable();
                while let Some(records) = chunks.next() {
                    let last = chunks.peek().is_none();
                    let chunk = v1::SnapshotChunk { revision: at.0, records, last };
                    outlet.send(v1::follow_event::Event::Snapshot(chunk)).await?;
                }
            }
        }
        if *head.borrow() == at {
            let staleness_ms = u64::try_from(staleness().as_millis()).unwrap_or(u64::MAX);
            outlet.send(v1::follow_event::Event::Progress(v1::Progress { revision: at.0, staleness_ms })).await?;
        }
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return Ok(()) },
            _ = ticks.tick() => {}
            () = outlet.sender.closed() => return Ok(()),
        }
    }
}

impl Outlet {
    async fn send(&self, event: v1::follow_event::Event) -> Result<(), Gone> {
        let event = v1::FollowEvent { event: Some(event) };
        self.sender.send_timeout(Ok(event), self.patience).await.map_err(|_| Gone)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::mesh::{History, Mesh};
    use tokio_stream::StreamExt;

    fn revisions(events: Vec<Result<v1::FollowEvent, Status>>) -> Vec<u64> {
        let revision = |event: Result<v1::FollowEvent, Status>| match event.unwrap().event.unwrap() {
            v1::follow_event::Event::Delta(delta) => Some(delta.revision),
            v1::follow_event::Event::Snapshot(_) => panic!("no snapshot is needed"),
            v1::follow_event::Event::Progress(_) => None,
        };
        events.into_iter().filter_map(revision).collect()
    }

    #[tokio::test]
    async fn s13_a_follower_that_takes_nothing_is_cut_off_and_resumes_without_a_gap() {
        let history = Arc::new(SharedHistory::new(History::new(Mesh::default(), 100)));
        for revision in 1..=50 {
            history.push(Delta { revision: Revision(revision), changes: vec![] }).unwrap();
        }
        let staleness: Staleness = Arc::new(|| Duration::ZERO);
        let patience = Duration::from_millis(20);
        let stream = serve_patiently(Arc::clone(&history), Revision(0), Arc::clone(&staleness), patience);
        // The serving task holds the history only until it gives up.
        while Arc::strong_count(&history) > 1 {
            tokio::task::yield_now().await;
        }
        let before = revisions(stream.collect().await);
        assert_eq!(before, (1..=16).collect::<Vec<_>>());
        let rest = serve(history, Revision(16), staleness).take(34).collect().await;
        assert_eq!(revisions(rest), (17..=50).collect::<Vec<_>>());
    }
}
