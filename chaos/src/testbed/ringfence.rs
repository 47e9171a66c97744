//! The `ringfence` command as the demo's operator uses it. The harness knows the mesh through it and nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::network::ADMIN;
use super::process::Launcher;
use crate::run::{gate, shell};

/// The CLI's exit code for a wait that ran out of time.
pub const EXIT_TIMED_OUT: i32 = 4;

/// Runs the CLI.
#[derive(Debug, Clone)]
pub struct Ringfence {
    launcher: Launcher,
    program: PathBuf,
    tls: PathBuf,
}

/// How a call of the CLI ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub output: String,
    /// Its standard error, trimmed.
    pub message: String,
    line: String,
}

/// `ringfence status -o json`, as far as the demo reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Who answered.
    pub responder: String,
    /// The newest revision the responder has.
    pub revision: u64,
    /// Milliseconds since the responder last knew itself in touch with a quorum.
    pub staleness_ms: u64,
    /// The store's members.
    pub members: Vec<MemberStatus>,
    /// One per cluster.
    pub gateways: Vec<GatewayStatus>,
    /// Every registered node.
    pub nodes: Vec<NodeStatus>,
}

/// A member of the store.
#[derive(Debug, Clone, Deserialize)]
pub struct MemberStatus {
    /// The member's id.
    pub id: u64,
    /// The cluster it sits in.
    pub cluster: String,
    /// `leader`, `follower`, …
    pub state: String,
    /// The newest revision it has applied.
    pub revision: u64,
}

/// A gateway.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayStatus {
    /// Its cluster.
    pub cluster: String,
    /// The newest revision it has.
    pub revision: u64,
}

/// A node.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeStatus {
    /// Its cluster.
    pub cluster: String,
    /// Its name in the cluster.
    pub name: String,
    /// The revision its datapath serves.
    pub realised_revision: u64,
    /// How long ago it was heard of.
    pub report_age_ms: u64,
    /// Whether any report of it is known.
    pub reported: bool,
    /// Why it does not follow.
    pub problems: Vec<String>,
}

/// `ringfence policy apply -o json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Applied {
    /// The revision of the write.
    pub revision: u64,
    /// What the wait found, when there was one.
    pub waited: Option<Waited>,
}

/// Which nodes have realised a revision.
#[derive(Debug, Clone, Deserialize)]
pub struct Waited {
    /// All of them have.
    pub complete: bool,
    /// Those that have.
    pub realised: Vec<NodeName>,
    /// Those that have not.
    pub lagging: Vec<NodeName>,
}

/// A node of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct NodeName {
    /// Its cluster.
    pub cluster: String,
    /// Its name in the cluster.
    pub name: String,
}

impl Ringfence {
    /// Uses `program` with the credentials in `tls`.
    #[must_use]
    pub fn new(launcher: Launcher, program: PathBuf, tls: PathBuf) -> Self {
        Self { launcher, program, tls }
    }

    /// Makes the run's certificate authority and a certificate for each subject.
    ///
    /// # Errors
    /// What the CLI said.
    pub fn init_authority(&self, subjects: &[String]) -> Result<()> {
        let mut command = Command::new(&self.program);
        shell::run(command.args(["ca", "init", "--dir"]).arg(&self.tls).args(subjects)).map(drop)?;
        // The operator's own pair under the names that --tls-dir looks for.
        for suffix in ["crt", "key"] {
            let (from, to) = (self.tls.join(format!("admin-demo.{suffix}")), self.tls.join(format!("tls.{suffix}")));
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    /// Runs a command against servers, tried in order.
    ///
    /// # Errors
    /// When it cannot be started; a failed command is an [`Answer`].
    pub fn call(&self, servers: &[SocketAddr], timeout: Duration, arguments: &[&str]) -> Result<Answer> {
        let mut command = self.command(servers, timeout);
        command.args(arguments);
        finish(command)
    }

    /// What a server knows about the mesh.
    ///
    /// # Errors
    /// When the command fails or answers something else.
    pub fn status(&self, servers: &[SocketAddr]) -> Result<Status> {
        self.call(servers, Duration::from_secs(5), &["-o", "json", "status"])?.json()
    }

    /// Applies policy files as one revision and waits up to `wait` for the nodes.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn apply(&self, servers: &[SocketAddr], files: &[&Path], wait: Duration) -> Result<Answer> {
        let mut command = self.command(servers, Duration::from_secs(10));
        command.args(["-o", "json", "policy", "apply", "--wait", "--wait-timeout"]).arg(wait.as_secs().to_string());
        for file in files {
            command.arg("-f").arg(file);
        }
        finish(command)
    }

    /// Asks one agent, over its local socket, for verdicts: one JSON line in and out per question.
    ///
    /// # Errors
    /// When the command fails.
    pub fn probe(&self, socket: &Path, questions: &str) -> Result<String> {
        let mut command = self.launcher.command(ADMIN, &self.program);
        command.args(["agent", "probe", "--batch", "--socket"]).arg(socket);
        shell::run_with_input(&mut command, questions)
    }

    fn command(&self, servers: &[SocketAddr], timeout: Duration) -> Command {
        let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let mut command = self.launcher.command(ADMIN, &self.program);
        command.arg("--server").arg(servers.join(",")).arg("--tls-dir").arg(&self.tls);
        command.arg("--timeout").arg(timeout.as_secs().to_string());
        command
    }
}

impl Answer {
    /// The output as JSON, whatever the exit code.
    ///
    /// # Errors
    /// When it is not of the form asked for: the command, its exit code and what it said.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.output).with_context(|| self.to_string())
    }

    /// Whether the command ended well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// This answer, if the command ended well.
    ///
    /// # Errors
    /// If it did not: the command and what it said.
    pub fn expect_success(self) -> Result<Self> {
        if self.is_success() { Ok(self) } else { bail!("{self}") }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        write!(formatter, "`{}` ended with {code}: {} {}", self.line, self.message, self.output.trim())
    }
}

/// Runs a command that may take long: the gate is passed for its start only.
fn finish(mut command: Command) -> Result<Answer> {
    let line = shell::line(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _gate = gate::enter();
        command.spawn().with_context(|| format!("cannot run {line}"))?
    };
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {line}"))?;
    gate::pass();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = text(&output.stderr).trim().to_owned();
    Ok(Answer { code: output.status.code(), output: text(&output.stdout), message, line })
}
