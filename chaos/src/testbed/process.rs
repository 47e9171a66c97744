//! The processes of the mesh under test: started, killed, started again, and told apart from those that died by themselves.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::network::Network;
use super::relay::ROLE_VARIABLE;
use crate::run::cleanup::RUN_VARIABLE;
use crate::run::directory::RunDirectory;
use crate::run::{gate, shell};

/// Lines of a dead process's log that go into the error.
const LOG_TAIL_LINES: usize = 12;
const STOP_POLL: Duration = Duration::from_millis(20);

/// Starts processes of a run: inside a namespace where there are any, marked with the run's id, logging to its directory.
#[derive(Debug, Clone)]
pub struct Launcher {
    run: RunDirectory,
    network: Option<Network>,
    /// Processes stay when the demo's process ends.
    keep: bool,
}

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// For messages and the log's file name.
    pub name: String,
    /// The namespace; not looked at where there are none.
    pub role: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// With pipes on its standard input and output.
    pub piped: bool,
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    recipe: Recipe,
    launcher: Launcher,
    child: Child,
}

impl Launcher {
    /// For the processes of a run.
    #[must_use]
    pub fn new(run: &RunDirectory, network: Option<Network>, keep: bool) -> Self {
        Self { run: run.clone(), network, keep }
    }

    /// A command of the run that ends by itself, inside a namespace where there are any.
    #[must_use]
    pub fn command(&self, role: &str, program: &Path) -> Command {
        let program = program.to_string_lossy();
        let mut command = match &self.network {
            Some(network) => network.command(role, &program),
            None => Command::new(program.as_ref()),
        };
        command.env(RUN_VARIABLE, &self.run.record().id).env(ROLE_VARIABLE, role);
        command
    }

    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, recipe: Recipe) -> Result<Process> {
        let child = self.spawn(&recipe)?;
        Ok(Process { recipe, launcher: self.clone(), child })
    }

    /// The process dies with the thread that starts it, so that is the main one (prctl(2), PR_SET_PDEATHSIG).
    fn spawn(&self, recipe: &Recipe) -> Result<Child> {
        let _gate = gate::enter();
        let mut command = if self.keep {
            self.command(&recipe.role, &recipe.program)
        } else {
            let mut command = self.command(&recipe.role, Path::new("setpriv"));
            command.args(["--pdeathsig", "KILL", "--"]).arg(&recipe.program);
            command
        };
        let pipe = || if recipe.piped { Stdio::piped() } else { Stdio::null() };
        let log = self.open_log(recipe)?;
        let output = if recipe.piped { Stdio::piped() } else { log.try_clone().context("cannot share a log")?.into() };
        command
            .args(&recipe.arguments)
            .stdin(pipe())
            .stdout(output)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {} ({})", recipe.name, recipe.program.display()))
    }

    fn open_log(&self, recipe: &Recipe) -> Result<File> {
        let path = self.log_path(recipe);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    }

    fn log_path(&self, recipe: &Recipe) -> PathBuf {
        self.run.logs().join(format!("{}.log", recipe.name))
    }
}

impl Process {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input and output, once, if it was started with pipes.
    pub fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .with_context(|| format!("cannot kill {}", self.name()))
    }

    /// Sends it a signal, by name: `STOP`, `CONT`, `TERM`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.id().to_string();
        shell::run(Command::new("kill").args(["-s", signal, &pid])).map(drop)
    }

    /// Asks it to stop (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// When it takes longer than `patience` or ends with a failure: the end of its log.
    pub fn stop(&mut self, patience: Duration) -> Result<()> {
        self.signal("TERM")?;
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait().with_context(|| format!("cannot look after {}", self.name()))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} stopped with {status}; its log ends with:\n{}", self.name(), self.log_tail()),
                None if Instant::now() > deadline => {
                    bail!("{} does not stop within {patience:?}; its log ends with:\n{}", self.name(), self.log_tail())
                }
                None => thread::sleep(STOP_POLL),
            }
        }
    }

    /// Starts it again, after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.child = self.launcher.spawn(&self.recipe)?;
        Ok(())
    }

    /// From its next start on it is this binary.
    pub fn replace_program(&mut self, program: &Path) {
        program.clone_into(&mut self.recipe.program);
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it ended by itself: with what, and the last lines of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot look after {}", self.name()))? {
            None => Ok(()),
            Some(status) => {
                gate::pass();
                bail!("{} ended by itself with {status}; its log ends with:\n{}", self.name(), self.log_tail())
            }
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.launcher.log_path(&self.recipe)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}
