//! The gate that every start of a child process passes, and everyone who saw one end.
//!
//! A removal that begins while another thread starts processes would miss the newest of them. So whoever removes closes
//! the gate first, for good: after that no child is started, and nobody takes the end of a removed one for news.

use std::sync::{Mutex, MutexGuard, PoisonError};

static GATE: Mutex<()> = Mutex::new(());

/// Passes the gate; children may be started while the guard lives.
pub fn enter() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns if the gate is open; after it was closed, this thread waits for the end of the process.
pub fn pass() {
    drop(enter());
}

/// Closes the gate until the process ends.
pub fn close() {
    std::mem::forget(enter());
}
