//! One demo at a time per user: a locked file that says which process runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Held for as long as the demo runs; the kernel releases it however the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another demo of this user runs: its process id.
    pub fn take() -> Result<Self> {
        Self::take_at(path()?)
    }

    fn take_at(path: PathBuf) -> Result<Self> {
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    file.read_to_string(&mut pid).with_context(|| format!("cannot read {}", path.display()))?;
                    bail!("another demo runs as process {}: wait for it, or stop it with ctrl-C", pid.trim());
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // The holder before us may have removed the file between our open and our lock: then take the new one.
            if !is_same_file(&file, &path) {
                continue;
            }
            file.set_len(0).and_then(|()| file.rewind()).context("cannot empty the lock file")?;
            writeln!(file, "{}", std::process::id()).context("cannot write the lock file")?;
            return Ok(Self { file, path });
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if is_same_file(&self.file, &self.path) {
            // Nothing to do about a file that cannot be removed: the lock itself ends with the process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a lock that nobody holds any more, as a process that was killed leaves it.
pub fn remove_stale() {
    let Ok(path) = path() else { return };
    let Ok(file) = File::open(&path) else { return };
    if file.try_lock().is_ok() && is_same_file(&file, &path) {
        // Somebody else removing it is as good.
        let _ = fs::remove_file(path);
    }
}

/// Where the lock of this user is.
///
/// # Errors
/// When /proc is not there.
pub fn path() -> Result<PathBuf> {
    let user = fs::metadata("/proc/self").context("cannot read /proc/self")?.uid();
    Ok(std::env::temp_dir().join(format!("ringfence-demo-{user}.lock")))
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_which_process_runs() {
        let path = std::env::temp_dir().join(format!("ringfence-lock-test-{}", std::process::id()));
        let held = RunLock::take_at(path.clone()).unwrap();
        let error = RunLock::take_at(path.clone()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        assert!(!path.exists());
        drop(RunLock::take_at(path).unwrap());
    }
}
