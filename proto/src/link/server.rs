//! The answering end.

use std::{future::Future, io, sync::Arc, time::Duration};

use prost::bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    ANSWER, FAILURE, HELLO, PING, encode_failure,
    frame::{self, Frame, Frames},
};
use crate::version::Introduction;

/// Callers ask for a sign of life more often than that; who is silent for longer is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Answers that wait are written together up to about this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// What a link may take of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a call's payload.
    pub longest_call: usize,
    /// Calls of one link that are under way; the next one is not read before one of them is answered.
    pub calls: usize,
}

/// Answers calls.
pub trait Handler: Send + Sync + 'static {
    /// The first call of a link.
    fn hello(&self, introduction: Introduction);

    /// Answers a call, in a task of its own.
    fn call(&self, method: u8, payload: Bytes) -> impl Future<Output = Result<Vec<u8>, Status>> + Send;
}

/// Serves one link until its caller closes it or `stopping` is cancelled; returns once all calls are answered.
///
/// # Errors
/// That of the connection; `InvalidData` for what is no frame of ours.
pub async fn serve<S, H>(stream: S, handler: Arc<H>, limits: Limits, stopping: CancellationToken) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    H: Handler,
{
    let (read, write) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel(limits.calls.max(1));
    let writing = tokio::spawn(write_answers(write, queue));
    let mut frames = Frames::new(read, limits.longest_call);
    let places = Arc::new(Semaphore::new(limits.calls));
    let ended = loop {
        let next = tokio::select! {
            next = tokio::time::timeout(IDLE_TIMEOUT, frames.next()) => next,
            () = stopping.cancelled() => break Ok(()),
        };
        let Frame { number, kind, payload } = match next {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => break Ok(()),
            Ok(Err(error)) => break Err(error),
            Err(_elapsed) => break Err(io::Error::new(io::ErrorKind::TimedOut, "its caller is silent")),
        };
        match kind {
            HELLO => match std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()) {
                Some(introduction) => handler.hello(introduction),
                None => break Err(io::Error::new(io::ErrorKind::InvalidData, "its caller does not introduce itself")),
            },
            PING => {
                if answers.send((number, Ok(Vec::new()))).await.is_err() {
                    break Ok(());
                }
            }
            method => {
                let Ok(place) = places.clone().acquire_owned().await else { break Ok(()) };
                tokio::spawn(answer(handler.clone(), answers.clone(), number, method, payload, place));
            }
        }
    };
    drop(answers);
    let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    ended.and(written)
}

type Answer = (u32, Result<Vec<u8>, Status>);
type Answers = mpsc::Receiver<Answer>;

/// Answers one call. The handler's part of the task lies in a box: a task's memory is aligned to 128 bytes, and glibc finds
/// a freed piece of that kind again only where its neighbours are free, too. So large tasks leave large holes.
async fn answer<H: Handler>(
    handler: Arc<H>,
    answers: mpsc::Sender<Answer>,
    number: u32,
    method: u8,
    payload: Bytes,
    place: OwnedSemaphorePermit,
) {
    let answer = Box::pin(handler.call(method, payload)).await;
    // Fails when the connection is gone: nobody waits then.
    let _ = answers.send((number, answer)).await;
    drop(place);
}

async fn write_answers<W: AsyncWrite + Unpin>(mut to: W, mut queue: Answers) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some((number, answer)) = next.take() {
            match answer {
                Ok(payload) => frame::push(&mut buffer, number, ANSWER, &payload)?,
                Err(status) => frame::push(&mut buffer, number, FAILURE, &encode_failure(&status))?,
            }
            if buffer.len() < WRITE_BYTES {
                next = queue.try_recv().ok();
            }
        }
        to.write_all(&buffer).await?;
        to.flush().await?;
        buffer.clear();
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its calls need a lot of memory while they last.
    struct Large;

    impl Handler for Large {
        fn hello(&self, _introduction: Introduction) {}

        async fn call(&self, _method: u8, payload: Bytes) -> Result<Vec<u8>, Status> {
            let held = [0_u8; 4096];
            tokio::task::yield_now().await;
            Ok([&payload[..], &held].concat())
        }
    }

    #[tokio::test]
    async fn the_task_of_a_call_is_small_whatever_its_handler_needs() {
        assert!(size_of_val(&Large.call(7, Bytes::new())) > 4096);
        let (answers, mut queue) = mpsc::channel(1);
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let task = answer(Arc::new(Large), answers, 3, 7, Bytes::from_static(b"ab"), place);
        assert!(size_of_val(&task) <= 512, "{} bytes", size_of_val(&task));
        task.await;
        let (number, answer) = queue.recv().await.unwrap();
        assert_eq!((number, answer.unwrap().len()), (3, 4098));
    }
}
