//! Removal of everything a run made: its processes, namespaces, mounts and files, and nothing else.
//!
//! Processes are known by the run's id in their environment or by the network namespace they are in, never by name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::directory::RunDirectory;
use super::shell;

/// Every child process carries the run's id under this name.
pub const RUN_VARIABLE: &str = "RINGFENCE_DEMO_RUN";

const NAMESPACES: &str = "/run/netns";
const KILL_TIMEOUT: Duration = Duration::from_secs(15);

/// Removes what a run made. Two removals at once wait for each other. Returns where the logs were kept, when asked to.
///
/// # Errors
/// What could not be removed; the rest is removed all the same.
pub fn remove(run: &RunDirectory, keep_logs: bool) -> Result<Option<PathBuf>> {
    let Ok(record) = File::open(run.path().join("run.json")) else {
        return Ok(None); // removed by another process already
    };
    record.lock().context("cannot lock the run's record")?;
    if !run.path().exists() {
        return Ok(None);
    }
    let mut results = vec![kill_processes(run), unmount_all(run.path())];
    results.extend(
        namespaces(run)
            .iter()
            .map(|namespace| shell::run(Command::new("ip").args(["netns", "delete", namespace])).map(drop)),
    );
    let kept = std::env::temp_dir().join(format!("ringfence-logs-{}", run.record().id));
    let keeps = keep_logs && fs::rename(run.logs(), &kept).is_ok();
    // With something still mounted or running in it, the directory stays, so that the next start tries again.
    if results.iter().all(Result::is_ok) {
        let removed = fs::remove_dir_all(run.path());
        results.push(removed.with_context(|| format!("cannot remove {}", run.path().display())));
    }
    let problems: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if problems.is_empty() { Ok(keeps.then_some(kept)) } else { bail!("{}", problems.join("; ")) }
}

/// Removes every run whose process is dead and that was not left up on purpose; with `kept`, those too.
///
/// # Errors
/// As [`remove`].
pub fn remove_leftovers(kept: bool) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for run in RunDirectory::all()? {
        if run.is_running() && !run.record().kept || run.record().kept && !kept {
            continue;
        }
        remove(&run, false).with_context(|| format!("run {}", run.record().id))?;
        removed.push(run.record().id.clone());
    }
    Ok(removed)
}

/// The ids of the processes that belong to the run.
#[must_use]
pub fn processes(run: &RunDirectory) -> Vec<u32> {
    let inodes: BTreeSet<u64> = namespaces(run)
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NAMESPACES).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let mark = format!("{RUN_VARIABLE}={}", run.record().id);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| is_in_namespace(*pid, &inodes) || has_mark(*pid, &mark))
        .collect()
}

fn is_in_namespace(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| inodes.contains(&metadata.ino()))
}

fn has_mark(pid: u32, mark: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}

/// Whether nothing is left of a process but its number, for its parent. One whose first thread is gone looks like that in its
/// own line, while another thread may still be in the kernel, with all files open.
fn has_ended(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| is_over(&stat)))
}

/// proc_pid_stat(5): the state follows the name, which ends with the last parenthesis.
fn is_over(stat: &str) -> bool {
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

fn kill_processes(run: &RunDirectory) -> Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut left = BTreeSet::new();
    loop {
        // One that is ending has no environment and no namespace any more, and may still have files open.
        left.extend(processes(run));
        left.retain(|pid| !has_ended(*pid));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {left:?} do not end");
        }
        let ids: Vec<String> = left.iter().map(u32::to_string).collect();
        // One that ended meanwhile is no failure: the next turn looks again.
        let _ = shell::run(Command::new("sh").args(["-c", &format!("kill -KILL {}", ids.join(" "))]));
        thread::sleep(Duration::from_millis(20));
    }
}

fn namespaces(run: &RunDirectory) -> Vec<String> {
    let prefix = run.namespace_prefix();
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// Unmounts what is mounted below the run's directory, the deepest first.
fn unmount_all(directory: &Path) -> Result<()> {
    let mounts = fs::read("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut inside: Vec<PathBuf> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(1))
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
        .filter(|path| path.starts_with(directory))
        .collect();
    inside.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    for path in inside {
        shell::run(Command::new("umount").arg(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_process_whose_first_thread_is_gone_has_not_ended_before_the_others_have() {
        // exit(2), number 60, ends one thread; the other one lives on.
        let script = "threads->create(sub { sleep 60 }); syscall(60, 0)";
        let mut perl = Command::new("perl");
        // Nothing of ours is its own: should this test fail, nobody waits for it.
        perl.args(["-Mthreads", "-e", script]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = perl.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let of_the_first = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !is_over(&of_the_first(child.id())) {
            assert!(Instant::now() < deadline, "its first thread does not end");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!has_ended(child.id()));
        child.kill().unwrap();
        while !has_ended(child.id()) {
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(has_ended(child.id()), "nor does one that is not there live");
    }

    #[test]
    fn only_processes_that_carry_the_runs_id_are_killed() {
        let run = RunDirectory::create().unwrap();
        let mut ours = Command::new("sleep").arg("600").env(RUN_VARIABLE, &run.record().id).spawn().unwrap();
        let mut other = Command::new("sleep").arg("600").env(RUN_VARIABLE, "none").spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while processes(&run) != [ours.id()] {
            assert!(Instant::now() < deadline, "{:?}", processes(&run));
            thread::sleep(Duration::from_millis(5));
        }
        // The parent must reap, or the killed one stays visible as a zombie (without an environment, so not as ours).
        remove(&run, false).unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!run.path().exists());
        assert_eq!(remove(&run, false).unwrap(), None);
    }
}
