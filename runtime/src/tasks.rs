//! Typed tasks: each one says what its end means to the process.
//!
//! ```text
//! spawn(name, OnFailure, |token| future) ─► JoinSet ─► run_until_signal ─┬─ signal: cancel, drain within the grace period
//!                                                                       └─ a Critical task ended: the same, exit code 1
//! ```

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// The process cannot go on: it drains and exits with an error.
    Stop,
    /// The task was one of many, or has done its work.
    Continue,
}

/// Why a process ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A task that must run ended.
    #[error("{task} ended: {reason}")]
    Task {
        /// Its name.
        task: &'static str,
        /// What it said.
        reason: String,
    },
    /// Tasks did not stop in time.
    #[error("{count} tasks did not stop within {} s and were cut off", grace.as_secs())]
    Undrained {
        /// How many.
        count: usize,
        /// The grace period.
        grace: Duration,
    },
    /// Signals cannot be received.
    #[error("cannot listen for signals: {source}")]
    Signal {
        /// Why.
        source: std::io::Error,
    },
}

type Outcome = (&'static str, OnEnd, Result<(), String>);

/// The tasks of one process.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Outcome>,
    token: CancellationToken,
}

impl Tasks {
    /// No task yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to stop.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task. It must end soon after the token is cancelled.
    pub fn spawn<F, E>(&mut self, name: &'static str, on_end: OnEnd, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        self.set.spawn(async move { (name, on_end, future.await.map_err(|error| error.to_string())) });
    }

    /// Runs until SIGTERM, SIGINT or the end of a task that must not end; then drains. A second signal ends the
    /// process at once.
    ///
    /// # Errors
    /// `Ended` if anything but a signal and an orderly drain ended the process.
    pub async fn run(mut self, grace: Duration) -> Result<(), Ended> {
        let listen = |kind| signal(kind).map_err(|source| Ended::Signal { source });
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let first = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                Some(outcome) = self.set.join_next() => if let Some(ended) = must_stop(outcome) { break Err(ended) },
            }
        };
        tracing::info!("stopping");
        self.token.cancel();
        let drained = tokio::select! {
            drained = tokio::time::timeout(grace, drain(&mut self.set)) => drained.is_ok(),
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        first?;
        if drained { Ok(()) } else { Err(Ended::Undrained { count: self.set.len(), grace }) }
    }
}

async fn drain(set: &mut JoinSet<Outcome>) {
    while let Some(outcome) = set.join_next().await {
        if let Ok((name, _, Err(reason))) = outcome {
            tracing::warn!(task = name, reason, "task failed while stopping");
        }
    }
}

fn must_stop(outcome: Result<Outcome, tokio::task::JoinError>) -> Option<Ended> {
    match outcome {
        Ok((task, OnEnd::Stop, result)) => {
            Some(Ended::Task { task, reason: result.err().unwrap_or_else(|| "without an error".to_owned()) })
        }
        Ok((task, OnEnd::Continue, result)) => {
            if let Err(reason) = result {
                tracing::warn!(task, reason, "task failed");
            }
            None
        }
        Err(error) => Some(Ended::Task { task: "a task", reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_critical_task_stops_the_others() {
        let mut tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("waiting", OnEnd::Continue, async move {
            token.cancelled().await;
            Ok::<(), String>(())
        });
        tasks.spawn("critical", OnEnd::Stop, async { Err("broken") });
        let ended = tasks.run(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(ended.to_string(), "critical ended: broken");
    }
}
