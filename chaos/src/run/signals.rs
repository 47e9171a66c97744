//! Ctrl-C and its relatives: remove everything, then end.

use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, process, thread};

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::gate;
use super::janitor::Janitor;
use super::lock;

/// Watches for SIGINT, SIGTERM and SIGHUP on a thread of its own. The first one closes the gate, lets the janitor work
/// and ends the process with 128 + the signal's number.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn watch(janitor: Arc<Mutex<Option<Janitor>>>) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().context("cannot watch for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let watch = |kind| signal(kind).context("cannot watch for signals");
        (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?, watch(SignalKind::hangup())?)
    };
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => ("SIGINT", 130),
            _ = terminate.recv() => ("SIGTERM", 143),
            _ = hangup.recv() => ("SIGHUP", 129),
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let (name, code) = runtime.block_on(wait);
            eprintln!("\n{name}: removing everything this run made");
            gate::close();
            let taken = janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(Err(error)) = taken.map(|mut janitor| janitor.finish()) {
                eprintln!("{error:#}");
            }
            // This process holds the lock, so the file is its own.
            if let Ok(path) = lock::path() {
                let _ = fs::remove_file(path);
            }
            process::exit(code);
        })
        .context("cannot watch for signals")?;
    Ok(())
}
