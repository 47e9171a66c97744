//! The calling end: one connection, made when first used and again when it broke.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
};
use tonic::Status;

use super::{
    ANSWER, FAILURE, HELLO, LinkError, PING, decode_failure,
    frame::{self, Frames},
};
use crate::{connect::Dialer, version::Introduction};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent link is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// With an answer outstanding for this long, and nothing else coming, the other side is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that wait are written together up to about this many bytes.
const WRITE_BYTES: usize = 64 << 10;
/// Calls without an answer on one link: the other side is not doing anything any more.
const MOST_OUTSTANDING: usize = 8192;

/// A link to one address; clones share the connection.
#[derive(Debug, Clone)]
pub struct Link {
    dialer: Dialer,
    address: Arc<str>,
    longest_answer: usize,
    calls: Arc<Mutex<Option<mpsc::UnboundedSender<Call>>>>,
}

#[derive(Debug)]
struct Call {
    method: u8,
    payload: Vec<u8>,
    answer: Answer,
}

impl Link {
    /// Never dials before the first call. `longest_answer`: bytes of an answer at most.
    #[must_use]
    pub fn new(dialer: Dialer, address: &str, longest_answer: usize) -> Self {
        Self { dialer, address: address.into(), longest_answer, calls: Arc::default() }
    }

    /// Asks the other side. Bounded by whoever waits: dropping the future gives the call up, not what it does.
    ///
    /// # Errors
    /// What the other side says, or `unavailable` with a `LinkError` as its cause.
    pub async fn call(&self, method: u8, payload: Vec<u8>) -> Result<Bytes, Status> {
        let (answer, answered) = oneshot::channel();
        self.send(Call { method, payload, answer });
        let lost = || LinkError::Broken { address: self.address.clone(), reason: "its task ended".into() };
        answered.await.unwrap_or_else(|_| Err(lost().status()))
    }

    fn send(&self, call: Call) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let call = match &*calls {
            Some(sender) => match sender.send(call) {
                Ok(()) => return,
                // The connection broke: a new one.
                Err(mpsc::error::SendError(call)) => call,
            },
            None => call,
        };
        let (sender, queue) = mpsc::unbounded_channel();
        if let Err(mpsc::error::SendError(_dropped)) = sender.send(call) {
            return;
        }
        *calls = Some(sender);
        drop(calls);
        let under_way = Arc::new(Mutex::new(UnderWay { calls: BTreeMap::new(), heard: Instant::now() }));
        let connection = Connection { address: self.address.clone(), under_way };
        tokio::spawn(connection.run(self.dialer.clone(), self.longest_answer, queue));
    }
}

type Answer = oneshot::Sender<Result<Bytes, Status>>;

/// What is under way on a connection.
struct UnderWay {
    /// Calls that were sent and are not answered, by number.
    calls: BTreeMap<u32, (Instant, Answer)>,
    /// When the other side was last heard.
    heard: Instant,
}

struct Connection {
    address: Arc<str>,
    under_way: Arc<Mutex<UnderWay>>,
}

impl Connection {
    async fn run(self, dialer: Dialer, longest: usize, mut queue: mpsc::UnboundedReceiver<Call>) {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dialer.link(&self.address)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")));
        let ended = match dialled {
            Ok(stream) => {
                let (read, write) = tokio::io::split(stream);
                let reading = tokio::spawn(answers(Frames::new(read, longest), self.under_way.clone()));
                let ended = tokio::select! {
                    ended = self.write(write, &mut queue) => ended,
                    ended = self.watch() => ended,
                    ended = ended(reading) => ended,
                };
                queue.close();
                ended
            }
            Err(error) => error,
        };
        // Closed before it is emptied: who calls from now on makes a new connection.
        queue.close();
        let reason: Arc<str> = ended.to_string().into();
        let calls = std::mem::take(&mut lock(&self.under_way).calls);
        for (_, (_, answer)) in calls {
            let broken = LinkError::Broken { address: self.address.clone(), reason: reason.clone() };
            // Who called may have given up.
            let _ = answer.send(Err(broken.status()));
        }
        while let Some(Call { answer, .. }) = queue.recv().await {
            let error = LinkError::NotReached { address: self.address.clone(), reason: reason.clone() };
            let _ = answer.send(Err(error.status()));
        }
    }

    /// Writes calls until the connection breaks or nobody can call any more.
    async fn write<W: AsyncWrite + Unpin>(&self, mut to: W, queue: &mut mpsc::UnboundedReceiver<Call>) -> io::Error {
        let mut buffer = Vec::new();
        let mut number = 0_u32;
        let hello = Introduction::own().to_string();
        if let Err(error) = frame::push(&mut buffer, number, HELLO, hello.as_bytes()) {
            return error;
        }
        loop {
            let mut next = tokio::select! {
                call = queue.recv() => match call {
                    Some(call) => Some(call),
                    None => return io::ErrorKind::NotConnected.into(),
                },
                () = tokio::time::sleep(PING_INTERVAL) => {
                    number = number.wrapping_add(1);
                    if let Err(error) = self.ping(&mut buffer, number) {
                        return error;
                    }
                    None
                }
            };
            while let Some(Call { method, payload, answer }) = next.take() {
                number = number.wrapping_add(1);
                if let Err(error) = self.push(&mut buffer, number, method, &payload, answer) {
                    return error;
                }
                if buffer.len() < WRITE_BYTES {
                    next = queue.try_recv().ok();
                }
            }
            if let Err(error) = to.write_all(&buffer).await {
                return error;
            }
            if let Err(error) = to.flush().await {
                return error;
            }
            buffer.clear();
        }
    }

    fn push(&self, buffer: &mut Vec<u8>, number: u32, method: u8, payload: &[u8], answer: Answer) -> io::Result<()> {
        // Given up while it waited.
        if answer.is_closed() {
            return Ok(());
        }
        let mut under_way = lock(&self.under_way);
        if under_way.calls.len() >= MOST_OUTSTANDING {
            let reason = format!("{MOST_OUTSTANDING} calls to it are not answered").into();
            // Who called may have given up.
            let _ = answer.send(Err(LinkError::NotReached { address: self.address.clone(), reason }.status()));
            return Ok(());
        }
        under_way.calls.insert(number, (Instant::now(), answer));
        drop(under_way);
        frame::push(buffer, number, method, payload)
    }

    fn ping(&self, buffer: &mut Vec<u8>, number: u32) -> io::Result<()> {
        let (answer, _nobody) = oneshot::channel();
        lock(&self.under_way).calls.insert(number, (Instant::now(), answer));
        frame::push(buffer, number, PING, &[])
    }

    /// Returns when something is asked of the other side and it says nothing at all for too long. A call may take
    /// longer than that: pings are answered meanwhile.
    async fn watch(&self) -> io::Error {
        loop {
            tokio::time::sleep(SILENCE_TIMEOUT / 5).await;
            let (oldest, heard) = {
                let under_way = lock(&self.under_way);
                (under_way.calls.values().next().map(|(since, _)| since.elapsed()), under_way.heard.elapsed())
            };
            if oldest.is_some_and(|oldest| oldest.min(heard) >= SILENCE_TIMEOUT) {
                return io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {SILENCE_TIMEOUT:?}"));
            }
        }
    }
}

/// Gives answers to those who wait for them, until the connection breaks.
async fn answers<R: AsyncRead + Unpin>(mut frames: Frames<R>, under_way: Arc<Mutex<UnderWay>>) -> io::Error {
    loop {
        match frames.next().await {
            Ok(Some(frame)) => {
                let call = {
                    let mut under_way = lock(&under_way);
                    under_way.heard = Instant::now();
                    under_way.calls.remove(&frame.number)
                };
                let Some((_, answer)) = call else { continue };
                // Who called may have given up.
                let _ = match frame.kind {
                    ANSWER => answer.send(Ok(frame.payload)),
                    FAILURE => answer.send(Err(decode_failure(&frame.payload))),
                    kind => answer.send(Err(Status::internal(format!("an answer of the unknown kind {kind}")))),
                };
            }
            Ok(None) => return io::Error::new(io::ErrorKind::ConnectionAborted, "the other side closed it"),
            Err(error) => return error,
        }
    }
}

async fn ended(reading: tokio::task::JoinHandle<io::Error>) -> io::Error {
    reading.await.unwrap_or_else(io::Error::other)
}

fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}
