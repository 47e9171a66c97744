//! A process of its own that removes the run when the main process ends, in whatever way, also by `kill -9`.
//!
//! The janitor is this same binary in a session of its own. The main process holds one end of a pipe to it; the end of the
//! main process closes the pipe. There is one path of removal for every kind of end.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cleanup;
use super::directory::RunDirectory;
use super::gate;
use super::lock;

const KEEP_LOGS: &str = "keep-logs";
const LEAVE: &str = "leave";

/// The main process's handle on its janitor.
#[derive(Debug)]
pub struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Janitor {
    /// Starts the janitor of a run.
    ///
    /// # Errors
    /// When this binary cannot be started again.
    pub fn start(run: &RunDirectory) -> Result<Self> {
        let _gate = gate::enter();
        let binary = std::env::current_exe().context("cannot find this binary's path")?;
        let mut child = Command::new("setsid")
            .arg(binary)
            .arg("janitor")
            .arg(run.path())
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start the janitor (setsid, of util-linux)")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Asks the janitor to keep the logs of the processes when it removes the run.
    pub fn keep_logs(&mut self) {
        self.tell(KEEP_LOGS);
    }

    /// Ends the janitor without any removal: the run stays up.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn leave(mut self) -> Result<()> {
        self.tell(LEAVE);
        self.finish()
    }

    /// Has the janitor remove the run and waits for it.
    ///
    /// # Errors
    /// When something could not be removed; the janitor has said what.
    pub fn finish(&mut self) -> Result<()> {
        self.pipe = None;
        let status = self.child.wait().context("cannot wait for the janitor")?;
        if status.success() { Ok(()) } else { bail!("the janitor could not remove everything ({status})") }
    }

    fn tell(&mut self, word: &str) {
        if let Some(pipe) = &mut self.pipe {
            // A janitor that is gone is noticed by `finish`.
            let _ = writeln!(pipe, "{word}");
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if self.pipe.is_some() {
            // An error or a panic is on its way out; the janitor has said what it could not remove.
            let _ = self.finish();
        }
    }
}

/// The janitor's own work: waits until the main process is gone, then removes the run.
///
/// # Errors
/// What could not be removed.
pub fn work(directory: &Path) -> Result<()> {
    let run = RunDirectory::open(directory)?;
    let mut keep_logs = false;
    for line in std::io::stdin().lock().lines() {
        match line.as_deref() {
            Ok(KEEP_LOGS) => keep_logs = true,
            Ok(LEAVE) => return Ok(()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let removed = cleanup::remove(&run, keep_logs);
    lock::remove_stale();
    if let Some(logs) = removed? {
        // The terminal may be gone with the main process.
        let _ = writeln!(std::io::stderr(), "The logs of all processes are in {}", logs.display());
    }
    Ok(())
}
