//! Streams that end when the member stops, so that their followers move on to the next one at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Until<T> {
    items: Items<T>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

/// `items`, cut off with a reason once `stopping` is cancelled.
pub(super) fn until<T: Send + 'static>(items: Items<T>, stopping: &CancellationToken) -> Items<T> {
    let stopping = Box::pin(stopping.clone().cancelled_owned());
    Box::pin(Until { items, stopping, ended: false })
}

impl<T> Stream for Until<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.stopping.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Err(Status::unavailable("this member is stopping"))));
        }
        self.items.as_mut().poll_next(context)
    }
}
