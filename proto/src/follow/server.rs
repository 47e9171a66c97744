//! The serving end.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ringfence_policy::{record::Versioned, revision::Revision};
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::MissedTickBehavior,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{
    frames::EncodedSnapshot,
    position::{Begin, OtherStore, Position},
    shared::{Next, SharedHistory},
    wire::follow_event::Event,
};
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
    serve_patiently(history, Begin::Resume(from), staleness, PATIENCE)
}

/// As `serve`, for a follower that says which store it has followed so far: in another one it does not resume.
///
/// # Errors
/// `OtherStore` if it has followed that one further than this one is.
pub fn serve_position(
    history: Arc<SharedHistory>,
    from: Position,
    staleness: Staleness,
) -> Result<FollowResponseStream, OtherStore> {
    let begin = from.begin(history.position())?;
    Ok(serve_patiently(history, begin, staleness, PATIENCE))
}

fn serve_patiently(
    history: Arc<SharedHistory>,
    begin: Begin,
    staleness: Staleness,
    patience: Duration,
) -> FollowResponseStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reason = Arc::new(OnceLock::new());
    let last_words = reason.clone();
    tokio::spawn(async move {
        if let Err(Gone::TooSlow(at)) = feed(&history, begin, &staleness, &Outlet { sender, patience }).await {
            let message = format!(
                "this follower took nothing for {patience:.0?} and is cut off at revision {at}: resume from there"
            );
            // The only one who sets it.
            let _ = reason.set(Status::resource_exhausted(message));
        }
    });
    let end = tokio_stream::once(()).filter_map(move |()| last_words.get().cloned().map(Err));
    Box::pin(ReceiverStream::new(receiver).map(Ok).chain(end))
}

/// Where one follower's events go.
struct Outlet {
    sender: mpsc::Sender<v1::FollowEvent>,
    patience: Duration,
}

/// Why feeding ends.
enum Gone {
    /// The follower has closed its end.
    Closed,
    /// It takes nothing any more; this is the last revision that it was given.
    TooSlow(Revision),
}

async fn feed(history: &Arc<SharedHistory>, begin: Begin, staleness: &Staleness, outlet: &Outlet) -> Result<(), Gone> {
    let mut woken = history.join();
    let mut at = match begin {
        Begin::Resume(from) => from,
        Begin::Whole => {
            let snapshot = history.snapshot().await;
            outlet.send_whole(&snapshot, Revision::ZERO).await?
        }
    };
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // At once, as soon as the follower is at the head; then with every tick.
    let mut is_due = true;
    loop {
        woken.mark_unchanged();
        match history.next(at).await {
            Next::Deltas(deltas) if deltas.is_empty() => {
                if is_due {
                    let staleness_ms = u64::try_from(staleness().as_millis()).unwrap_or(u64::MAX);
                    outlet.send(Event::Progress(v1::Progress { revision: at.0, staleness_ms }), at).await?;
                    is_due = false;
                }
                tokio::select! {
                    changed = woken.changed() => if changed.is_err() { return Ok(()) },
                    _ = ticks.tick() => is_due = true,
                    () = outlet.sender.closed() => return Err(Gone::Closed),
                }
            }
            Next::Deltas(deltas) => {
                for (revision, frame) in deltas {
                    outlet.send(Event::Encoded(frame), at).await?;
                    at = revision;
                }
            }
            Next::Snapshot(snapshot) => {
                at = outlet.send_whole(&snapshot, at).await?;
                is_due = true;
            }
        }
    }
}

impl Outlet {
    /// A snapshot, chunk by chunk; the follower is at its revision then.
    async fn send_whole(&self, snapshot: &EncodedSnapshot, at: Revision) -> Result<Revision, Gone> {
        for chunk in &snapshot.chunks {
            self.send(Event::Encoded(chunk.clone()), at).await?;
        }
        Ok(snapshot.revision)
    }

    async fn send(&self, event: Event, at: Revision) -> Result<(), Gone> {
        self.sender.send_timeout(event.into(), self.patience).await.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Gone::TooSlow(at),
            SendTimeoutError::Closed(_) => Gone::Closed,
        })
    }
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
pub(super) fn chunk(records: impl Iterator<Item = Versioned>) -> impl Iterator<Item = Vec<v1::Versioned>> {
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
    use prost::Message;
    use ringfence_policy::{
        mesh::{History, Mesh},
        record::Delta,
    };

    fn revisions(events: &[Result<v1::FollowEvent, Status>]) -> Vec<u64> {
        let decode = |event: &v1::FollowEvent| v1::FollowEvent::decode(event.encode_to_vec().as_slice()).unwrap();
        let revision = |event: &Result<v1::FollowEvent, Status>| match decode(event.as_ref().unwrap()).event.unwrap() {
            Event::Delta(delta) => Some(delta.revision),
            Event::Snapshot(_) | Event::Encoded(_) => panic!("no snapshot is needed"),
            Event::Progress(_) => None,
        };
        events.iter().filter_map(revision).collect()
    }

    #[tokio::test]
    async fn s13_a_follower_that_takes_nothing_is_cut_off_and_resumes_without_a_gap() {
        let history = Arc::new(SharedHistory::new(History::new(Mesh::default(), 100)));
        for revision in 1..=50 {
            history.push(Delta { revision: Revision(revision), changes: vec![] }).unwrap();
        }
        let staleness: Staleness = Arc::new(|| Duration::ZERO);
        let patience = Duration::from_millis(20);
        let stream =
            serve_patiently(Arc::clone(&history), Begin::Resume(Revision(0)), Arc::clone(&staleness), patience);
        // The serving task holds the history only until it gives up.
        while Arc::strong_count(&history) > 1 {
            tokio::task::yield_now().await;
        }
        let mut before: Vec<_> = stream.collect().await;
        let reason = before.pop().unwrap().unwrap_err();
        assert_eq!(reason.code(), tonic::Code::ResourceExhausted, "{reason}");
        assert!(reason.message().contains("cut off at revision 16: resume from there"), "{reason}");
        assert_eq!(revisions(&before), (1..=16).collect::<Vec<_>>());
        let rest: Vec<_> = serve(history, Revision(16), staleness).take(34).collect().await;
        assert_eq!(revisions(&rest), (17..=50).collect::<Vec<_>>());
    }
}
