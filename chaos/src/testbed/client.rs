//! The test bed's side of a workload process.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use anyhow::{Context, Result, bail};

use super::process::Process;
use super::topology::Endpoint;
use crate::run::gate;
use crate::workload::protocol::{Request, Response};

/// A workload in an endpoint's namespace.
#[derive(Debug)]
pub struct Workload {
    /// Where it runs.
    pub endpoint: Endpoint,
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workload {
    /// Takes over a started process.
    ///
    /// # Errors
    /// When it was started without pipes.
    pub fn new(endpoint: Endpoint, mut process: Process) -> Result<Self> {
        let (input, output) = process.take_pipes().context("a workload needs pipes")?;
        Ok(Self { endpoint, process, input, output: BufReader::new(output) })
    }

    /// Sends a request; its response comes from [`Self::receive`], so that many workloads work at the same time.
    ///
    /// # Errors
    /// When the workload is gone: what its log says.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        let line = serde_json::to_string(request).context("a request has no part that JSON refuses")?;
        writeln!(self.input, "{line}").with_context(|| self.gone())
    }

    /// The response to the oldest request without one.
    ///
    /// # Errors
    /// When the workload is gone or could not do what was asked.
    pub fn receive(&mut self) -> Result<Response> {
        let mut line = String::new();
        if self.output.read_line(&mut line).with_context(|| self.gone())? == 0 {
            bail!("{}", self.gone());
        }
        match serde_json::from_str(&line).with_context(|| format!("workload {} said {line}", self.endpoint))? {
            Response::Failed { message } => bail!("workload {}: {message}", self.endpoint),
            response => Ok(response),
        }
    }

    /// Request and response.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`].
    pub fn ask(&mut self, request: &Request) -> Result<Response> {
        self.send(request)?;
        self.receive()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn gone(&self) -> String {
        gate::pass();
        format!("workload {} is gone; its log ends with:\n{}", self.endpoint, self.process.log_tail())
    }
}
