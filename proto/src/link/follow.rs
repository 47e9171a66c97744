//! `Mesh.Follow` on a connection of its own: one question, and events until one side has enough.
//!
//! ```text
//! Asking::connect ─ HELLO, FOLLOW ─► TLS (ALPN `ringfence-follow/1`, same port as gRPC) ─► Asked ─► Asked::answer
//!        ▲ EVENT … EVENT, at the end FAILURE with the reason ◄──────────────────────────────────────┘
//! ```
//!
//! What is next for a follower goes from its stream into one TLS record and one write, by one task: no HTTP/2 connection
//! wakes up for it, which cost as much as the kernel's part of a delivery. Nothing is queued: the stream is asked for more
//! when the write is done, so a follower that lags gets many revisions in one write, and one that takes nothing is let go.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use prost::{Message as _, bytes::Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;
use tonic::Status;

use super::{
    EVENT, FAILURE, HELLO, LinkError, decode_failure, encode_failure,
    frame::{self, Frame, Frames},
    method::FOLLOW,
};
use crate::{
    connect::{Dialer, MAX_MESSAGE_BYTES},
    follow::{FollowResponseStream, PATIENCE, wire::follow_event::Event},
    v1,
    version::Introduction,
};

/// Whoever connects asks within this time.
const ASKING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an introduction and of a question at most: its longest part is the addresses of a node's host.
const LONGEST_QUESTION: usize = 1 << 20;
/// Events that are there are written together up to about this many bytes: four TLS records.
const WRITE_BYTES: usize = 64 << 10;

/// The asking end: what a server sends.
#[derive(Debug)]
pub struct Asking {
    frames: Frames<TlsStream<TcpStream>>,
    address: String,
}

impl Asking {
    /// Connects and asks. What the server says to it comes with the first message.
    ///
    /// # Errors
    /// `Unsupported` from a server that does not know the protocol: ask it over gRPC.
    pub async fn connect(dialer: &Dialer, address: &str, request: &v1::FollowRequest) -> io::Result<Self> {
        let mut stream = dialer.follow(address).await?;
        let mut question = Vec::new();
        frame::push(&mut question, 0, HELLO, Introduction::own().to_string().as_bytes())?;
        frame::push(&mut question, 0, FOLLOW, &request.encode_to_vec())?;
        stream.write_all(&question).await?;
        stream.flush().await?;
        Ok(Self { frames: Frames::new(stream, MAX_MESSAGE_BYTES), address: address.to_owned() })
    }

    /// The next `FollowEvent`, encoded; none if the server closed the connection without a word. Cancel-safe.
    ///
    /// # Errors
    /// What the server says, or `unavailable` if the connection broke.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        let broken =
            |reason: String| LinkError::Broken { address: self.address.as_str().into(), reason: reason.into() };
        match self.frames.next().await {
            Ok(Some(Frame { kind: EVENT, payload, .. })) => Ok(Some(payload)),
            Ok(Some(Frame { kind: FAILURE, payload, .. })) => Err(decode_failure(&payload)),
            Ok(Some(Frame { kind, .. })) => Err(Status::internal(format!("an event of the unknown kind {kind}"))),
            Ok(None) => Ok(None),
            Err(error) => Err(broken(error.to_string()).status()),
        }
    }
}

/// The answering end: a follower that said what it wants.
#[derive(Debug)]
pub struct Asked<S> {
    /// What the follower understands.
    pub introduction: Introduction,
    /// What it wants.
    pub request: v1::FollowRequest,
    frames: Frames<ReadHalf<S>>,
    write: WriteHalf<S>,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Asked<S> {
    /// Waits for the question.
    ///
    /// # Errors
    /// That of the connection; `InvalidData` for something else than a question, `TimedOut` for none.
    pub async fn read(stream: S) -> io::Result<Self> {
        Self::read_with(stream, PATIENCE).await
    }

    pub(super) async fn read_with(stream: S, patience: Duration) -> io::Result<Self> {
        let (read, write) = tokio::io::split(stream);
        let mut frames = Frames::new(read, LONGEST_QUESTION);
        let asked = async {
            let introduction = payload(&mut frames, HELLO).await?;
            let introduction = std::str::from_utf8(&introduction).ok().and_then(|text| text.parse().ok());
            let introduction = introduction.ok_or_else(|| invalid("a follower that does not introduce itself"))?;
            let request = v1::FollowRequest::decode(payload(&mut frames, FOLLOW).await?);
            Ok::<_, io::Error>((
                introduction,
                request.map_err(|error| invalid(&format!("this is no FollowRequest: {error}")))?,
            ))
        };
        let (introduction, request) = tokio::time::timeout(ASKING_TIMEOUT, asked).await??;
        Ok(Self { introduction, request, frames, write, patience })
    }

    /// Sends events until they end, or until the follower goes away or does not take them.
    ///
    /// # Errors
    /// That of the connection; `TimedOut` for a follower that takes nothing.
    pub async fn answer(self, events: Result<FollowResponseStream, Status>) -> io::Result<()> {
        let Self { mut frames, mut write, patience, .. } = self;
        let mut buffer = Vec::new();
        match events {
            Ok(mut events) => {
                // Followers say nothing more. A task of its own, so that it is not looked at for each delivery.
                let mut gone = Gone(tokio::spawn(async move { frames.next().await.map(drop) }));
                let mut ended = false;
                while !ended {
                    ended = tokio::select! {
                        biased;
                        gathered = poll_fn(|context| gather(&mut events, &mut buffer, context)) => gathered?,
                        gone = &mut gone.0 => return gone.unwrap_or_else(|error| Err(io::Error::other(error))),
                    };
                    tokio::time::timeout(patience, write_out(&mut write, &mut buffer)).await??;
                }
            }
            Err(status) => {
                frame::push(&mut buffer, 0, FAILURE, &encode_failure(&status))?;
                tokio::time::timeout(patience, write_out(&mut write, &mut buffer)).await??;
            }
        }
        write.shutdown().await
    }
}

/// Ends with who waits for it.
struct Gone(JoinHandle<io::Result<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All that is there now, as frames; whether it is the end.
fn gather(
    events: &mut FollowResponseStream,
    buffer: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    while buffer.len() < WRITE_BYTES {
        let pushed = match events.as_mut().poll_next(context) {
            Poll::Pending if buffer.is_empty() => return Poll::Pending,
            Poll::Pending => break,
            Poll::Ready(None) => return Poll::Ready(Ok(true)),
            Poll::Ready(Some(Err(status))) => {
                return Poll::Ready(frame::push(buffer, 0, FAILURE, &encode_failure(&status)).map(|()| true));
            }
            Poll::Ready(Some(Ok(event))) => match event.event {
                Some(Event::Encoded(bytes)) => frame::push(buffer, 0, EVENT, &bytes),
                _ => frame::push(buffer, 0, EVENT, &event.encode_to_vec()),
            },
        };
        pushed?;
    }
    Poll::Ready(Ok(false))
}

async fn write_out<W: AsyncWrite + Unpin>(to: &mut W, buffer: &mut Vec<u8>) -> io::Result<()> {
    to.write_all(buffer).await?;
    to.flush().await?;
    buffer.clear();
    // One large burst is not remembered.
    buffer.shrink_to(WRITE_BYTES);
    Ok(())
}

async fn payload<R: AsyncRead + Unpin>(frames: &mut Frames<R>, kind: u8) -> io::Result<Bytes> {
    match frames.next().await? {
        Some(frame) if frame.kind == kind => Ok(frame.payload),
        Some(frame) => Err(invalid(&format!("a frame of kind {} where {kind} belongs", frame.kind))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{
        io::{DuplexStream, duplex},
        sync::mpsc,
    };
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::Code;

    use super::*;
    use crate::follow::wire::FollowEvent;

    type Sender = mpsc::UnboundedSender<Result<FollowEvent, Status>>;

    fn question() -> Vec<u8> {
        let request = v1::FollowRequest { from_revision: 7, follower: "test".to_owned(), ..Default::default() };
        let mut question = Vec::new();
        frame::push(&mut question, 0, HELLO, Introduction::own().to_string().as_bytes()).unwrap();
        frame::push(&mut question, 0, FOLLOW, &request.encode_to_vec()).unwrap();
        question
    }

    fn delta(revision: u64) -> Result<FollowEvent, Status> {
        let changes = vec![v1::Change::default(); 40];
        Ok(Event::Delta(v1::Delta { revision, changes, ..v1::Delta::default() }).into())
    }

    /// A follower's end with room for so many bytes on the way, and the server's after the question.
    async fn asked(room: usize, patience: Duration) -> (DuplexStream, Asked<DuplexStream>) {
        let (mut ours, theirs) = duplex(room);
        let question = question();
        let (sent, asked) = tokio::join!(ours.write_all(&question), Asked::read_with(theirs, patience));
        sent.unwrap();
        (ours, asked.unwrap())
    }

    fn events() -> (Sender, FollowResponseStream) {
        let (sender, events) = mpsc::unbounded_channel();
        (sender, Box::pin(UnboundedReceiverStream::new(events)))
    }

    async fn in_time<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("it hangs")
    }

    #[tokio::test]
    async fn events_come_in_order_and_the_end_says_why() {
        let (ours, asked) = asked(1 << 20, PATIENCE).await;
        assert_eq!((asked.introduction.clone(), asked.request.from_revision), (Introduction::own(), 7));
        let (sender, events) = events();
        let answering = tokio::spawn(asked.answer(Ok(events)));
        tokio::task::yield_now().await;
        (8..=10).for_each(|revision| sender.send(delta(revision)).unwrap());
        let mut frames = Frames::new(ours, MAX_MESSAGE_BYTES);
        for revision in 8..=10 {
            let frame = in_time(frames.next()).await.unwrap().unwrap();
            let Some(Event::Delta(delta)) = FollowEvent::decode(frame.payload).unwrap().event else { panic!() };
            assert_eq!((frame.kind, delta.revision), (EVENT, revision));
        }
        sender.send(Err(Status::unavailable("this server stops"))).unwrap();
        let last = in_time(frames.next()).await.unwrap().unwrap();
        let reason = decode_failure(&last.payload);
        assert_eq!((last.kind, reason.code(), reason.message()), (FAILURE, Code::Unavailable, "this server stops"));
        assert_eq!(in_time(frames.next()).await.unwrap(), None);
        in_time(answering).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_there_goes_into_one_write() {
        let (sender, mut events) = events();
        (8..=10).for_each(|revision| sender.send(delta(revision)).unwrap());
        let mut gathered = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(gather(&mut events, &mut gathered, &mut context), Poll::Ready(Ok(false))));
        let mut frames = Frames::new(gathered.as_slice(), MAX_MESSAGE_BYTES);
        for revision in 8..=10 {
            let frame = frames.next().await.unwrap().expect("all three are there");
            let Some(Event::Delta(delta)) = FollowEvent::decode(frame.payload).unwrap().event else { panic!() };
            assert_eq!(delta.revision, revision);
        }
        gathered.clear();
        assert!(gather(&mut events, &mut gathered, &mut context).is_pending());
    }

    #[tokio::test]
    async fn a_follower_that_takes_nothing_is_let_go_and_so_is_one_that_went() {
        let (ours, asked_here) = asked(256, Duration::from_millis(50)).await;
        let (sender, stuck) = events();
        (8..=20).for_each(|revision| sender.send(delta(revision)).unwrap());
        let ended = in_time(asked_here.answer(Ok(stuck))).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut, "{ended}");
        drop(ours);
        let (ours, asked_here) = asked(1 << 20, PATIENCE).await;
        let (_sender, quiet) = events();
        let mut answering = pin!(asked_here.answer(Ok(quiet)));
        let waits = tokio::time::timeout(Duration::from_millis(50), &mut answering).await;
        assert!(waits.is_err(), "while it is there, it is waited for");
        drop(ours);
        in_time(answering).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_server_refuses_is_said_and_what_is_no_question_is_not_answered() {
        let (ours, asked) = asked(1 << 20, PATIENCE).await;
        asked.answer(Err(Status::permission_denied("not you"))).await.unwrap();
        let refused = Frames::new(ours, MAX_MESSAGE_BYTES).next().await.unwrap().unwrap();
        assert_eq!((refused.kind, decode_failure(&refused.payload).code()), (FAILURE, Code::PermissionDenied));
        let mut stranger = Vec::new();
        frame::push(&mut stranger, 0, HELLO, b"curl/8").unwrap();
        let mut write = Vec::new();
        frame::push(&mut write, 0, HELLO, Introduction::own().to_string().as_bytes()).unwrap();
        frame::push(&mut write, 1, super::super::method::COMMAND, b"").unwrap();
        for bytes in [stranger, write, vec![0xff; 64]] {
            let (mut ours, theirs) = duplex(1 << 16);
            ours.write_all(&bytes).await.unwrap();
            let refused = in_time(Asked::read(theirs)).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
        }
    }
}
