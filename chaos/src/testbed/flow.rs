//! One flow between two endpoints, and the verdict that the mesh really gives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::topology::{self, Endpoint, Node};
use super::{Mode, Testbed};
use crate::workload::protocol::{Outcome, PORTS, Request, Response};

/// How long a dropped connection attempt is waited for. An allowed one between namespaces needs a few milliseconds.
const PROBE_TIMEOUT_MS: u64 = 700;
/// Before a flow that should pass is called dropped, it gets a second attempt with room for two retransmissions.
pub const PATIENT_TIMEOUT_MS: u64 = 4000;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

/// A TCP connection from one endpoint to a port of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who connects.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// With which addresses.
    pub family: Family,
    /// To which port.
    pub port: u16,
}

/// `ringfence agent probe --batch`, one line.
#[derive(Debug, Deserialize)]
struct ProbeAnswer {
    allow: bool,
}

/// Every endpoint to every other one, on both ports, with both families.
#[must_use]
pub fn whole_matrix() -> Vec<Flow> {
    let endpoints = topology::endpoints();
    let mut flows = Vec::new();
    for source in &endpoints {
        for destination in endpoints.iter().filter(|destination| *destination != source) {
            for port in PORTS {
                for family in [Family::Four, Family::Six] {
                    flows.push(Flow { source: *source, destination: *destination, family, port });
                }
            }
        }
    }
    flows
}

impl Flow {
    /// The address connected to.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.destination.addresses()[self.family as usize], self.port)
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.family == Family::Four { "IPv4" } else { "IPv6" };
        write!(formatter, "{} → {}:{} ({family})", self.source, self.destination, self.port)
    }
}

impl Testbed {
    /// What happens to each flow now, in order. In kernel mode by real connections; in memory mode the sender's and the
    /// receiver's agent are asked, and both must allow.
    ///
    /// # Errors
    /// When a workload or an agent does not answer.
    pub fn try_flows(&mut self, flows: &[Flow]) -> Result<Vec<Outcome>> {
        match self.mode() {
            Mode::Kernel => self.connect(flows, PROBE_TIMEOUT_MS),
            Mode::Memory => self.ask_agents(flows),
        }
    }

    /// As [`Self::try_flows`], with more patience.
    ///
    /// # Errors
    /// As [`Self::try_flows`].
    pub fn try_flows_again(&mut self, flows: &[Flow]) -> Result<Vec<Outcome>> {
        match self.mode() {
            Mode::Kernel => self.connect(flows, PATIENT_TIMEOUT_MS),
            Mode::Memory => self.ask_agents(flows),
        }
    }

    fn connect(&mut self, flows: &[Flow], timeout_ms: u64) -> Result<Vec<Outcome>> {
        let mut outcomes = vec![None; flows.len()];
        let mut asked = Vec::new();
        for (position, workload) in self.workloads.iter_mut().enumerate() {
            let indices: Vec<usize> =
                (0..flows.len()).filter(|&index| flows[index].source == workload.endpoint).collect();
            let targets = indices.iter().map(|&index| flows[index].target()).collect();
            workload.send(&Request::Probe { targets, timeout_ms })?;
            asked.push((position, indices));
        }
        for (position, indices) in asked {
            let Response::Probed { outcomes: answers } = self.workloads[position].receive()? else {
                bail!("a workload answered a probe with something else");
            };
            for (index, outcome) in indices.into_iter().zip(answers) {
                outcomes[index] = Some(outcome);
            }
        }
        outcomes.into_iter().map(|outcome| outcome.context("a probe has no outcome")).collect()
    }

    fn ask_agents(&mut self, flows: &[Flow]) -> Result<Vec<Outcome>> {
        let mut allowed = vec![true; flows.len()];
        for node in topology::nodes() {
            let concerns = |flow: &Flow| flow.source.node == node || flow.destination.node == node;
            let indices: Vec<usize> = (0..flows.len()).filter(|&index| concerns(&flows[index])).collect();
            if indices.is_empty() {
                continue;
            }
            for (index, allow) in indices.iter().zip(self.ask_agent(node, flows, &indices)?) {
                allowed[*index] &= allow;
            }
        }
        Ok(allowed.into_iter().map(|allow| if allow { Outcome::Connected } else { Outcome::TimedOut }).collect())
    }

    fn ask_agent(&self, node: Node, flows: &[Flow], indices: &[usize]) -> Result<Vec<bool>> {
        let mut questions = String::new();
        for flow in indices.iter().map(|&index| &flows[index]) {
            let from = flow.source.addresses()[flow.family as usize];
            let question = json!({"from": from, "to": flow.target().ip(), "protocol": "tcp", "port": flow.port});
            questions.push_str(&question.to_string());
            questions.push('\n');
        }
        let answers = self.ringfence.probe(&self.config.agent_socket(node), &questions)?;
        let allows: Vec<bool> = answers
            .lines()
            .map(|line| serde_json::from_str::<ProbeAnswer>(line).map(|answer| answer.allow))
            .collect::<Result<_, _>>()
            .with_context(|| format!("the agent of {node} answered a probe with: {answers}"))?;
        if allows.len() != indices.len() {
            bail!("the agent of {node} answered {} of {} probes", allows.len(), indices.len());
        }
        Ok(allows)
    }

    /// Accepted connections and received datagrams at `destination`'s `port` from `source`, so far.
    ///
    /// # Errors
    /// When the workload does not answer.
    pub fn arrived(&mut self, source: Endpoint, destination: Endpoint, port: u16) -> Result<u64> {
        let Response::Counted { counts } = self.ask(destination, &Request::Counters)? else {
            bail!("workload {destination} answered a question for counters with something else");
        };
        let ours = counts.iter().filter(|count| count.port == port && source.addresses().contains(&count.source));
        Ok(ours.map(|count| count.count).sum())
    }
}

/// Groups outcomes by what a person would call them, for messages.
#[must_use]
pub fn tally(outcomes: &[Outcome]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for outcome in outcomes {
        let name = match outcome {
            Outcome::Connected => "connected",
            Outcome::TimedOut => "dropped",
            Outcome::Failed(_) => "failed otherwise",
        };
        *tally.entry(name).or_default() += 1;
    }
    tally
}
