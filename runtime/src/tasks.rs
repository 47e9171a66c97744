//! Typed tasks: each one says what its end means to the process.
//!
//! ```text
//! spawn(name, OnFailure, |token| future) ─► JoinSet ─► run_until_signal ─┬─ signal: cancel, drain within the grace period
//!                                                                       └─ a Critical task ended: the same, exit code 1
//! ```

use std::{future::Future, time::Duration};

use tokio::{
    runtime::Builder,
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
    /// A second signal came while tasks were stopping.
    #[error("told to stop again: {count} tasks were cut off")]
    Impatient {
        /// How many.
        count: usize,
    },
    /// Signals cannot be received.
    #[error("cannot listen for signals: {source}")]
    Signal {
        /// Why.
        source: std::io::Error,
    },
}

/// Runs a process's future on a runtime of its own. What still runs when it ends, blocking work too, holds up nothing.
///
/// # Panics
/// If the system gives no threads.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    run(&mut Builder::new_multi_thread(), future)
}

/// As `block_on`, on as many threads as half of the cores: for a process that has threads of its own for the rest. Threads
/// without a core of their own cost each other more than they do.
///
/// # Panics
/// If the system gives no threads.
pub fn block_on_half<T>(future: impl Future<Output = T>) -> T {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    run(Builder::new_multi_thread().worker_threads(cores.div_ceil(2)), future)
}

fn run<T>(runtime: &mut Builder, future: impl Future<Output = T>) -> T {
    let runtime = runtime.enable_all().build().expect("a process that gets no threads cannot begin");
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    output
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
        tracing::debug!("running: signals stop the process in order");
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
            drained = tokio::time::timeout(grace, drain(&mut self.set)) => Some(drained.is_ok()),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        first?;
        match drained {
            Some(true) => Ok(()),
            Some(false) => Err(Ended::Undrained { count: self.set.len(), grace }),
            None => Err(Ended::Impatient { count: self.set.len() }),
        }
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
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    const CHILD: &str = "RINGFENCE_TEST_CHILD";

    /// Not a test of its own: the process that the next test starts and stops.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        crate::telemetry::init(crate::telemetry::LogFormat::Json);
        let ended = block_on(async {
            let mut tasks = Tasks::new();
            tasks.spawn("hanging", OnEnd::Stop, async { tokio::task::spawn_blocking(std::thread::park).await });
            tasks.run(Duration::from_secs(3600)).await.unwrap_err()
        });
        eprintln!("{ended}");
        std::process::exit(7);
    }

    #[test]
    fn a_second_signal_ends_a_process_that_hangs() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tasks::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .env("RINGFENCE_LOG", "debug")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let terminate = |child: &std::process::Child| {
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("running: signals")));
        terminate(&child);
        let stopping = lines.find(|line| line.contains("stopping")).unwrap();
        assert!(stopping.starts_with('{'), "a JSON line: {stopping}");
        terminate(&child);
        assert!(lines.any(|line| line == "told to stop again: 1 tasks were cut off"));
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }

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
