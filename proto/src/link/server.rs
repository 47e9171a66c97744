//! The answering end.

use std::{future::Future, io, sync::Arc, time::Duration};

use prost::bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Semaphore, mpsc},
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
                let (handler, answers) = (handler.clone(), answers.clone());
                tokio::spawn(async move {
                    let answer = handler.call(method, payload).await;
                    // Fails when the connection is gone: nobody waits then.
                    let _ = answers.send((number, answer)).await;
                    drop(place);
                });
            }
        }
    };
    drop(answers);
    let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    ended.and(written)
}

type Answers = mpsc::Receiver<(u32, Result<Vec<u8>, Status>)>;

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
