//! The members under test: real processes, configured as an operator would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringfence_proto::connect::{Dialer, Expected};
use ringfence_proto::pool::{Pool, Server};
use ringfence_proto::v1::{self, mesh_client::MeshClient};
use ringfence_runtime::tls::{Tls, TlsFiles};
use serde_json::json;
use tokio::runtime::Handle;
use tonic::{Request, transport::Channel};

use super::fabric::{address, role};
use crate::run::{directory::RunDirectory, shell};
use crate::testbed::network::Network;
use crate::testbed::process::{Launcher, Process, Recipe};

/// A little faster than the defaults, so that more faults fit into a run.
const HEARTBEAT_MS: u64 = 150;
const ELECTION_MIN_MS: u64 = 600;
/// The longest election timeout: pauses are longer.
pub const ELECTION_MAX_MS: u64 = 1000;
/// Small, so that snapshots are taken, sent and installed during a run.
const SNAPSHOT_EVERY: u64 = 150;
/// Small as well: a stream that begins anew gets a snapshot.
const HISTORY: usize = 100;

const POLL: Duration = Duration::from_millis(25);
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The members of one run, by index.
#[derive(Debug)]
pub struct Members {
    processes: Vec<Process>,
    /// Those that were killed and not started again.
    down: Vec<bool>,
    /// The build under test.
    program: PathBuf,
    pool: Pool,
    handle: Handle,
    run: RunDirectory,
}

impl Members {
    /// Makes certificates and configurations and starts the members, of the build in `older` if there is one. They die with
    /// the thread that calls this.
    ///
    /// # Errors
    /// What could not be made or started.
    pub fn start(
        run: &RunDirectory,
        binaries: &Path,
        older: Option<&Path>,
        count: usize,
        handle: Handle,
    ) -> Result<Self> {
        let tls = run.path().join("tls");
        let subjects = (1..=count).map(|id| format!("member/{id}")).chain(["admin/drill".to_owned()]);
        shell::run(Command::new(binaries.join("ringfence")).args(["ca", "init", "--dir"]).arg(&tls).args(subjects))?;
        for directory in [run.logs(), run.path().join("store"), run.path().join("config")] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let launcher = Launcher::new(run, Some(Network::of(run)), false);
        let mut processes = Vec::new();
        for index in 0..count {
            let config = run.path().join("config").join(format!("{}.yaml", role(index)));
            write_config(&config, run, &tls, index, count)?;
            processes.push(launcher.start(Recipe {
                name: format!("identityd-{}", role(index)),
                role: role(index),
                program: older.unwrap_or(binaries).join("identityd"),
                arguments: vec!["--config".to_owned(), config.to_string_lossy().into_owned()],
                piped: false,
            })?);
        }
        let client = Tls::open(files(&tls, "admin-drill"))?;
        let dialer = Dialer::new(Expected::Member, move || client.client());
        let addresses: Vec<_> = (0..count).map(|index| address(index).to_string()).collect();
        let inside = handle.enter();
        let pool = Pool::new("member", &addresses, &dialer)?;
        drop(inside);
        let program = binaries.join("identityd");
        Ok(Self { processes, down: vec![false; count], program, pool, handle, run: run.clone() })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Never: a store has members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// How each is reached; connections are made when first used.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        self.pool.servers()
    }

    /// The connections for calls.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        self.servers().iter().map(|server| server.channel.clone()).collect()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.down[index] = true;
        self.processes[index].kill()
    }

    /// SIGTERM, and the end waited for.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.down[index] = true;
        self.processes[index].stop(STOP_PATIENCE)
    }

    /// The member's next start is one of the build under test.
    pub fn upgrade(&mut self, index: usize) {
        self.processes[index].replace_program(&self.program);
    }

    /// Removes all that a killed member has on disk.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn lose_disk(&self, index: usize) -> Result<()> {
        let path = self.run.path().join("store").join(role(index));
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// After [`Self::kill`] or [`Self::stop`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self, index: usize) -> Result<()> {
        if std::mem::take(&mut self.down[index]) {
            self.processes[index].restart()?;
        }
        Ok(())
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pause(&self, index: usize, paused: bool) -> Result<()> {
        self.processes[index].signal(if paused { "STOP" } else { "CONT" })
    }

    /// Whether those that should run do.
    ///
    /// # Errors
    /// The first that ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let up = self.processes.iter_mut().zip(&self.down).filter(|(_, down)| !**down);
        up.map(|(process, _)| process).try_for_each(Process::check)
    }

    /// What a member says about itself and the store; none if it does not answer.
    #[must_use]
    pub fn status(&self, index: usize) -> Option<v1::StatusResponse> {
        let mut client = MeshClient::new(self.servers()[index].channel.clone());
        let mut request = Request::new(v1::StatusRequest {});
        request.set_timeout(STATUS_TIMEOUT);
        let call = async move { tokio::time::timeout(STATUS_TIMEOUT, client.status(request)).await };
        Some(self.handle.block_on(call).ok()?.ok()?.into_inner())
    }

    /// A member's row about itself.
    #[must_use]
    pub fn own_row(&self, index: usize) -> Option<v1::MemberStatus> {
        let id = u64::try_from(index + 1).ok()?;
        self.status(index)?.members.into_iter().find(|row| row.id == id)
    }

    /// The member that leads, with the highest term if two think so; waits for one.
    ///
    /// # Errors
    /// When nobody leads within `patience`.
    pub fn leader(&self, patience: Duration) -> Result<usize> {
        let deadline = Instant::now() + patience;
        loop {
            let rows = (0..self.len()).filter_map(|index| self.own_row(index).map(|row| (row.term, row.state, index)));
            if let Some((.., index)) = rows.filter(|(_, state, _)| state == "leader").max() {
                return Ok(index);
            }
            if Instant::now() > deadline {
                bail!("no member leads within {patience:?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Lines of the members' logs that must never be there.
    #[must_use]
    pub fn alarming_lines(&self) -> Vec<String> {
        let mut found = Vec::new();
        for index in 0..self.len() {
            let text = fs::read(self.run.logs().join(format!("identityd-{}.log", role(index)))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let alarming = text.lines().filter(|line| line.contains("S14 is broken") || line.contains("panicked at"));
            found.extend(alarming.map(|line| format!("log of {}: {line}", role(index))));
        }
        found
    }
}

fn write_config(path: &Path, run: &RunDirectory, tls: &Path, index: usize, count: usize) -> Result<()> {
    let member = |index| json!({"id": index + 1, "cluster": role(index), "address": address(index).to_string()});
    let config = json!({
        "id": index + 1,
        "cluster": role(index),
        "listen": address(index).to_string(),
        "data_dir": run.path().join("store").join(role(index)),
        "members": (0..count).map(member).collect::<Vec<_>>(),
        "tls": files(tls, &format!("member-{}", index + 1)),
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "election_timeout_min_ms": ELECTION_MIN_MS,
        "election_timeout_max_ms": ELECTION_MAX_MS,
        "snapshot_every": SNAPSHOT_EVERY,
        "history": HISTORY,
    });
    let text = yaml_serde::to_string(&config).context("cannot write a configuration as YAML")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn files(tls: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        ca: tls.join("ca.crt"),
        certificate: tls.join(format!("{name}.crt")),
        key: tls.join(format!("{name}.key")),
    }
}
