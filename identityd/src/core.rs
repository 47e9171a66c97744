//! The thread that a write goes through.
//!
//! ```text
//! core thread (one)      links of members and gateways ─► proposals ─► Raft ─► log ─► state machine ─► answers
//! the process's runtime  handshakes, followers; gRPC: reads, operators, backups; files (blocking threads)
//! ```
//!
//! Everything between a command's first byte and its answer runs on one thread, so that nothing of it waits for another
//! thread to wake up, and followers by the thousand cannot stand before it in a queue. The disk has threads of its own.

use std::{future::Future, io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinHandle,
};

/// A runtime on a thread of its own. It ends, with all its tasks, when it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Core {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Core {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("core".to_owned()).spawn(move || {
            // Told to stop, or dropped: both end it.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop, thread })
    }

    /// Runs a task there.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Ends all tasks; returns when they are gone. Call it from another runtime.
    pub(crate) async fn stop(self) {
        let Self { stop, thread, .. } = self;
        drop(stop);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the core thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_there_is_gone_when_it_is_stopped() {
        let core = Core::start().unwrap();
        let name = core.spawn(async { thread::current().name().map(str::to_owned) });
        assert_eq!(name.await.unwrap().as_deref(), Some("core"));
        let held = std::sync::Arc::new(());
        let holding = held.clone();
        let pending = core.spawn(async move {
            let _holding = holding;
            std::future::pending::<()>().await;
        });
        core.stop().await;
        assert!(pending.await.unwrap_err().is_cancelled());
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
