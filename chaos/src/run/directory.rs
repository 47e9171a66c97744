//! A run's directory under the system's temporary directory, and the runs that are there.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "ringfence-run-";
const RECORD: &str = "run.json";
/// A Unix socket's path has room for 107 bytes; the longest name below the directory has 30.
const LONGEST_PATH_BYTES: usize = 75;

/// What a run says about itself on disk, for whoever removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Four hexadecimal digits; part of the name of every namespace of the run.
    pub id: String,
    /// The process that runs the demo.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: tells it from a later process with its number.
    pub started_ticks: u64,
    /// Left up on purpose (`--keep`).
    pub kept: bool,
}

/// A run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
    record: RunRecord,
}

impl RunDirectory {
    /// Makes a new directory, readable by its owner only.
    ///
    /// # Errors
    /// When it cannot be written, or when its path is too long for the sockets in it.
    pub fn create() -> Result<Self> {
        let parent = std::env::temp_dir();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut seed = clock.subsec_nanos() ^ process::id().rotate_left(7);
        loop {
            let id = format!("{:04x}", seed & 0xffff);
            let path = parent.join(format!("{PREFIX}{id}"));
            if path.as_os_str().len() > LONGEST_PATH_BYTES {
                bail!(
                    "the temporary directory {} is too deep for Unix sockets: set TMPDIR to a shorter path",
                    parent.display()
                );
            }
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let pid = process::id();
                    let started_ticks = started_ticks(pid).context("cannot read /proc/self/stat")?;
                    let directory = Self { path, record: RunRecord { id, pid, started_ticks, kept: false } };
                    directory.write_record()?;
                    return Ok(directory);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => seed = seed.wrapping_add(1),
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
            }
        }
    }

    /// Opens a directory that a run made.
    ///
    /// # Errors
    /// When it has no readable record.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(RECORD);
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let record = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        Ok(Self { path: path.to_owned(), record })
    }

    /// Every run's directory that is there now. One without a record (made this moment, or removed) is passed over.
    ///
    /// # Errors
    /// When the temporary directory cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let parent = std::env::temp_dir();
        let entries = fs::read_dir(&parent).with_context(|| format!("cannot read {}", parent.display()))?;
        Ok(entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .filter_map(|entry| Self::open(&entry.path()).ok())
            .collect())
    }

    /// Whether the run's main process is alive.
    #[must_use]
    pub fn is_running(&self) -> bool {
        started_ticks(self.record.pid) == Some(self.record.started_ticks)
    }

    /// Marks the run as left up on purpose.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn mark_kept(&mut self) -> Result<()> {
        self.record.kept = true;
        self.write_record()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the run says about itself.
    #[must_use]
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Where the logs of its processes are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The name of one of the run's network namespaces.
    #[must_use]
    pub fn namespace(&self, role: &str) -> String {
        format!("{}{role}", self.namespace_prefix())
    }

    /// What the names of all its namespaces begin with.
    #[must_use]
    pub fn namespace_prefix(&self) -> String {
        format!("rf-{}-", self.record.id)
    }

    fn write_record(&self) -> Result<()> {
        let (file, beside) = (self.path.join(RECORD), self.path.join("run.json.new"));
        let text = serde_json::to_vec(&self.record).context("a run's record has no part that JSON refuses")?;
        fs::write(&beside, text).with_context(|| format!("cannot write {}", beside.display()))?;
        fs::rename(&beside, &file).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// When a process started (field 22 of /proc/PID/stat, proc(5)); none when there is no such process or it is a zombie.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_has_a_start_time_and_a_dead_one_has_none() {
        assert!(started_ticks(process::id()).is_some());
        let mut child = process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(started_ticks(pid), None);
    }

    #[test]
    fn a_run_is_found_again_by_its_directory() {
        let mut directory = RunDirectory::create().unwrap();
        assert!(directory.is_running());
        directory.mark_kept().unwrap();
        let found = RunDirectory::open(directory.path()).unwrap();
        assert!(found.record().kept && found == directory);
        fs::remove_dir_all(directory.path()).unwrap();
    }
}
