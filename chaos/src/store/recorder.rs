//! The history as it grows: calls with monotonic times, and what must not happen while it happens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::check::history::{Call, Outcome};
use super::check::trail::Trail;

/// Shared by everybody in a run.
#[derive(Debug)]
pub struct Recorder {
    begin: Instant,
    calls: Mutex<Vec<Call>>,
    trail: Mutex<Trail>,
    violations: Mutex<Vec<String>>,
    /// For each member: when the newest of the writes that it acknowledged began.
    acknowledged_ns: Vec<AtomicU64>,
    stopping: AtomicBool,
}

impl Recorder {
    /// Time begins now.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self {
            begin: Instant::now(),
            calls: Mutex::default(),
            trail: Mutex::default(),
            violations: Mutex::default(),
            acknowledged_ns: (0..members).map(|_| AtomicU64::new(0)).collect(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Nanoseconds since the begin (CLOCK_MONOTONIC).
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a call that has ended, however.
    pub fn add(&self, call: Call) {
        if matches!(call.outcome, Outcome::Answered { .. }) && !call.is_read() {
            self.acknowledged_ns[call.member].fetch_max(call.begin_ns, Ordering::SeqCst);
        }
        lock(&self.calls).push(call);
    }

    /// Whether a member has acknowledged a write that began after this moment.
    #[must_use]
    pub fn has_acknowledged(&self, member: usize, since_ns: u64) -> bool {
        self.acknowledged_ns[member].load(Ordering::SeqCst) > since_ns
    }

    /// Something that must not happen.
    pub fn violation(&self, text: &str) {
        let at = self.now_ns() / 1_000_000;
        lock(&self.violations).push(format!("at {at} ms: {text}"));
    }

    /// What the streams carried.
    pub fn trail(&self) -> MutexGuard<'_, Trail> {
        lock(&self.trail)
    }

    /// Clients end after the call that they are in.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether clients are to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// All violations so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
