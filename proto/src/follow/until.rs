//! Streams that end when their server stops, so that followers move on to the next one at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tonic::Status;

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Until<T> {
    items: Items<T>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    reason: &'static str,
    ended: bool,
}

/// `items`, cut off as `unavailable` for the `reason` once `stopping` is ready.
pub fn until<T: 'static>(
    items: Items<T>,
    stopping: impl Future<Output = ()> + Send + 'static,
    reason: &'static str,
) -> Items<T> {
    Box::pin(Until { items, stopping: Box::pin(stopping), reason, ended: false })
}

impl<T> Stream for Until<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.stopping.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Err(Status::unavailable(self.reason))));
        }
        self.items.as_mut().poll_next(context)
    }
}
