//! The serving end.

use std::{
    cmp::Ordering,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ringfence_policy::{record::Versioned, revision::Revision};
use tokio::sync::watch;
use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::{Response, Status};

use super::{
    position::{Begin, OtherStore, Position},
    seat::{Held, Seat, Taken},
    shared::{Next, SharedHistory},
    views::{Entrance, Feed, Interest, VIEW},
    waker::Round,
    wire::follow_event::Event,
};
use crate::v1;

/// What `Mesh.Follow` answers.
pub type FollowResponseStream = Pin<Box<dyn Stream<Item = Result<v1::FollowEvent, Status>> + Send>>;
/// What `Mesh.List` answers.
pub type ListResponseStream = Pin<Box<dyn Stream<Item = Result<v1::ListChunk, Status>> + Send>>;
/// How long the server has not known itself in touch with a quorum of the store.
pub type Staleness = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Records in a chunk of a list add up to about this much.
const CHUNK_BYTES: usize = 1 << 20;
/// A follower that takes no event for this long is cut off. It resumes where it was.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one follower from `from` until it goes away; everything, or what it is interested in.
///
/// Deltas come in order and once each; where the history does not reach back to `from`, a snapshot in chunks comes
/// first. A progress mark follows at once when the follower is at the head, then every second.
#[must_use]
pub fn serve(
    history: Arc<SharedHistory>,
    from: Revision,
    interest: Option<Interest>,
    staleness: Staleness,
) -> FollowResponseStream {
    Box::pin(Following::new(history, Begin::Resume(from), interest, staleness, PATIENCE))
}

/// As `serve`, for a follower that says which store it has followed so far: in another one it does not resume.
///
/// # Errors
/// `OtherStore` if it has followed that one further than this one is.
pub fn serve_position(
    history: Arc<SharedHistory>,
    from: Position,
    interest: Option<Interest>,
    staleness: Staleness,
) -> Result<FollowResponseStream, OtherStore> {
    let begin = from.begin(history.position())?;
    Ok(Box::pin(Following::new(history, begin, interest, staleness, PATIENCE)))
}

/// The answer to `Mesh.Follow`: says that it is a view where it is one, since a server that knows nothing of views would send
/// everything.
#[must_use]
pub fn answer(events: FollowResponseStream, interest: Option<&Interest>) -> Response<FollowResponseStream> {
    let mut answer = Response::new(events);
    if let Some(view) = interest.and_then(|interest| interest.named().parse().ok()) {
        answer.metadata_mut().insert(VIEW, view);
    }
    answer
}

/// One follower's stream. There is no task behind it: whoever sends it asks for what is next, so that nothing is queued
/// for a follower but what its connection holds, and what has gathered meanwhile goes out in one write.
struct Following {
    history: Arc<SharedHistory>,
    seat: Arc<Seat>,
    rounds: WatchStream<Arc<Round>>,
    /// The newest one heard of.
    round: Arc<Round>,
    /// The view that it follows; none if it follows everything.
    feed: Option<Arc<Feed>>,
    interest: Option<Interest>,
    /// On the way to the round's head.
    catching_up: Option<Pin<Box<dyn Future<Output = Caught> + Send>>>,
    staleness: Staleness,
    /// The second of the last progress mark since the follower came or got everything anew.
    marked: Option<u64>,
    ended: bool,
}

/// What catching up comes to.
enum Caught {
    Held(Held),
    Entered(Entrance),
}

impl Following {
    fn new(
        history: Arc<SharedHistory>,
        begin: Begin,
        interest: Option<Interest>,
        staleness: Staleness,
        patience: Duration,
    ) -> Self {
        // A view that is entered with nothing is told as a whole.
        let (from, whole) = match begin {
            Begin::Resume(from) => (from, false),
            Begin::Whole => (Revision::ZERO, interest.is_none()),
        };
        let seat = Arc::new(Seat::new(from, patience));
        if whole {
            seat.hold(Held::Snapshot { snapshot: history.snapshot(), next: 0 });
        }
        history.look_after(&seat);
        let nothing = || watch::channel(Arc::new(Round::at(from, 0))).1;
        let rounds = if interest.is_some() { nothing() } else { history.waker().join() };
        let rounds = WatchStream::from_changes(rounds);
        let round = Arc::new(Round::at(*history.head().borrow(), 0));
        let (feed, catching_up, marked, ended) = (None, None, None, false);
        let mut following =
            Self { history, seat, rounds, round, feed, interest, catching_up, staleness, marked, ended };
        following.catching_up = following.interest.clone().map(|interest| following.enter(interest, from));
        following
    }

    fn enter(&self, interest: Interest, from: Revision) -> Pin<Box<dyn Future<Output = Caught> + Send>> {
        let history = self.history.clone();
        let entering = tokio::task::spawn_blocking(move || history.enter(&interest, from));
        Box::pin(async { Caught::Entered(entering.await.expect("making a view does not panic")) })
    }

    /// A view's follower has got its place.
    fn entered(&mut self, Entrance { feed, rounds, at, snapshot }: Entrance) {
        self.rounds = WatchStream::from_changes(rounds);
        self.round = Arc::new(Round::at(at, self.round.second));
        self.feed = Some(feed);
        self.seat.hold(snapshot.map_or(Held::Nothing, |snapshot| Held::Snapshot { snapshot, next: 0 }));
    }

    /// What is next for a follower that has everything up to `at`; none if that comes with the next round.
    fn advance(&mut self, at: Revision) -> Option<Held> {
        if at == self.round.to {
            return None;
        }
        if let Some(feed) = &self.feed {
            match feed.after(at) {
                Some((_, to)) if at == to => return None,
                Some((deltas, to)) => return Some(Held::Deltas { deltas, next: 0, to }),
                None => {}
            }
            self.catching_up = self.interest.clone().map(|interest| self.enter(interest, at));
            return Some(Held::Nothing);
        }
        match at.cmp(&self.round.to) {
            Ordering::Less if self.round.from == at && !self.round.deltas.is_empty() => {
                Some(Held::all(self.round.deltas.clone()))
            }
            // It heard of a revision from another server, or before the round came to it: the next one has it.
            Ordering::Greater if at <= *self.history.head().borrow() => None,
            _ => {
                let next = self.history.clone().next(at, self.round.to);
                self.catching_up = Some(Box::pin(async move {
                    Caught::Held(match next.await {
                        Next::Deltas(deltas) => Held::all(deltas),
                        Next::Snapshot(snapshot) => Held::Snapshot { snapshot, next: 0 },
                    })
                }));
                Some(Held::Nothing)
            }
        }
    }

    fn is_mark_due(&self, at: Revision) -> bool {
        at == self.round.to && self.marked != Some(self.round.second)
    }

    fn mark(&mut self, at: Revision) -> v1::FollowEvent {
        self.marked = Some(self.round.second);
        let staleness_ms = u64::try_from((self.staleness)().as_millis()).unwrap_or(u64::MAX);
        Event::Progress(v1::Progress { revision: at.0, staleness_ms }).into()
    }

    /// Until something is held, or there is something to say.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<v1::FollowEvent, Status>>> {
        loop {
            if let Some(reason) = self.history.stopped() {
                self.ended = true;
                return Poll::Ready(Some(Err(Status::unavailable(reason))));
            }
            if let Some(catching_up) = &mut self.catching_up {
                let Poll::Ready(caught) = catching_up.as_mut().poll(context) else { return Poll::Pending };
                self.catching_up = None;
                match caught {
                    Caught::Held(held) => self.seat.hold(held),
                    Caught::Entered(entrance) => self.entered(entrance),
                }
            }
            let at = match self.seat.take() {
                Taken::Event(bytes) => return Poll::Ready(Some(Ok(Event::Encoded(bytes).into()))),
                Taken::Nothing { at, anew } => {
                    self.marked = self.marked.filter(|_| !anew);
                    at
                }
                Taken::Awaited(snapshot, next) => {
                    self.catching_up = Some(Box::pin(async move {
                        snapshot.wait_for(next).await;
                        Caught::Held(Held::Snapshot { snapshot, next })
                    }));
                    continue;
                }
                Taken::CutOff(at, patience) => {
                    self.ended = true;
                    let message = format!(
                        "this follower took nothing for {patience:.0?} and is cut off at revision {at}: resume from there"
                    );
                    return Poll::Ready(Some(Err(Status::resource_exhausted(message))));
                }
            };
            if let Some(held) = self.advance(at) {
                self.seat.hold(held);
                continue;
            }
            if self.is_mark_due(at) {
                return Poll::Ready(Some(Ok(self.mark(at))));
            }
            match Pin::new(&mut self.rounds).poll_next(context) {
                Poll::Ready(Some(round)) => self.round = round,
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return Poll::Pending,
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
    }
}

impl Stream for Following {
    type Item = Result<v1::FollowEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.poll(context);
        if polled.is_pending() {
            self.seat.waits();
        }
        polled
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
        record::{Delta, Snapshot},
    };
    use tokio_stream::StreamExt;

    fn revisions(events: &[Result<v1::FollowEvent, Status>]) -> Vec<u64> {
        let decode = |event: &v1::FollowEvent| v1::FollowEvent::decode(event.encode_to_vec().as_slice()).unwrap();
        let revision = |event: &Result<v1::FollowEvent, Status>| match decode(event.as_ref().unwrap()).event.unwrap() {
            Event::Delta(delta) => Some(delta.revision),
            Event::Snapshot(_) | Event::Encoded(_) => panic!("no snapshot is needed"),
            Event::Progress(_) => None,
        };
        events.iter().filter_map(revision).collect()
    }

    fn history(revisions: u64) -> Arc<SharedHistory> {
        let history = Arc::new(SharedHistory::new(History::new(Mesh::default(), 100)));
        (1..=revisions).for_each(|revision| push(&history, revision));
        history
    }

    fn push(history: &SharedHistory, revision: u64) {
        history.push(Delta { revision: Revision(revision), changes: vec![] }).unwrap();
    }

    fn follow(history: &Arc<SharedHistory>, from: u64, patience: Duration) -> Following {
        let begin = Begin::Resume(Revision(from));
        Following::new(Arc::clone(history), begin, None, Arc::new(|| Duration::ZERO), patience)
    }

    /// Looks again and again, for ten seconds.
    async fn until(mut is_so: impl FnMut() -> bool) {
        let looking = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), looking).await.unwrap();
    }

    #[tokio::test]
    async fn s13_a_follower_that_takes_nothing_is_cut_off_and_resumes_without_a_gap() {
        let history = history(50);
        let mut stream = follow(&history, 0, Duration::ZERO);
        let before: Vec<_> = (&mut stream).take(16).collect().await;
        assert_eq!(revisions(&before), (1..=16).collect::<Vec<_>>());
        until(|| stream.seat.is_cut_off()).await;
        let after: Vec<_> = stream.collect().await;
        let [Err(reason)] = after.as_slice() else { panic!("{after:?}") };
        assert_eq!(reason.code(), tonic::Code::ResourceExhausted, "{reason}");
        assert!(reason.message().contains("cut off at revision 16: resume from there"), "{reason}");
        let rest: Vec<_> = follow(&history, 16, PATIENCE).take(34).collect().await;
        assert_eq!(revisions(&rest), (17..=50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn all_are_let_go_when_the_server_stops() {
        let history = history(20);
        let (mut waiting, mut busy) = (follow(&history, 20, PATIENCE), follow(&history, 0, PATIENCE));
        let marks: Vec<_> = (&mut waiting).take(2).collect().await;
        assert_eq!(revisions(&marks), [0; 0], "progress marks: one at once, one of the first round");
        assert_eq!(revisions(&[busy.next().await.unwrap()]), [1]);
        let woken = tokio::spawn(async move { (waiting.next().await, waiting) });
        tokio::task::yield_now().await;
        history.stop("this server stops");
        let woken = tokio::time::timeout(Duration::from_millis(500), woken).await;
        let (ended, waiting) = woken.expect("before the next second").unwrap();
        let ended = [(ended, waiting), (busy.next().await, busy), {
            let mut late = follow(&history, 0, PATIENCE);
            (late.next().await, late)
        }];
        for (ended, mut stream) in ended {
            let reason = ended.unwrap().unwrap_err();
            assert_eq!((reason.code(), reason.message()), (tonic::Code::Unavailable, "this server stops"));
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn one_that_waits_is_not_cut_off_for_it() {
        let history = history(1);
        let mut stream = follow(&history, 1, Duration::ZERO);
        assert_eq!(revisions(&[stream.next().await.unwrap()]), [0; 0], "a progress mark");
        let mut waiting = poll_once(&mut stream);
        assert!(waiting.is_pending());
        history.tidy();
        push(&history, 2);
        waiting = Poll::Ready(stream.next().await);
        let Poll::Ready(Some(event)) = waiting else { panic!("nothing came") };
        assert_eq!(revisions(&[event]), [2]);
        history.tidy();
        let Poll::Ready(Some(Err(reason))) = poll_once(&mut stream) else { panic!("it has not come back") };
        assert!(reason.message().contains("at revision 2"), "{reason}");
    }

    fn poll_once(stream: &mut Following) -> Poll<Option<Result<v1::FollowEvent, Status>>> {
        Pin::new(stream).poll_next(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn a_snapshot_is_not_kept_for_one_that_does_not_take_it() {
        let history = history(0);
        history.reset(Mesh::from_snapshot(Snapshot { revision: Revision(7), ..Snapshot::default() }));
        let mut stream = follow(&history, 0, Duration::ZERO);
        assert!(matches!(stream.next().await, Some(Ok(_))));
        let snapshot = match history.clone().next(Revision(0), Revision(7)).await {
            Next::Snapshot(snapshot) => Arc::downgrade(&snapshot),
            Next::Deltas(_) => panic!("nobody knows what led to revision 7"),
        };
        assert!(snapshot.upgrade().is_some());
        until(|| snapshot.upgrade().is_none()).await;
        assert!(matches!(stream.next().await, Some(Err(_))));
    }

    #[tokio::test]
    async fn s13_a_follower_goes_on_whatever_it_misses() {
        let history = history(0);
        let mut stream = follow(&history, 0, PATIENCE);
        let mut seen = Vec::new();
        for revision in 1..=90 {
            push(&history, revision);
            // Now and then it comes, sometimes before the round, sometimes long after.
            if revision % 7 == 0 {
                tokio::task::yield_now().await;
            }
            if revision % 13 == 0 {
                while let Poll::Ready(Some(event)) = poll_once(&mut stream) {
                    seen.extend(revisions(&[event]));
                }
            }
        }
        while seen.last() != Some(&90) {
            seen.extend(revisions(&[stream.next().await.unwrap()]));
        }
        assert_eq!(seen, (1..=90).collect::<Vec<_>>());
    }
}
