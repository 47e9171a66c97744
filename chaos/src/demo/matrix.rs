//! The whole verdict matrix: tried, compared with what the policies say, printed.

use anyhow::Result;

use super::expected::Rules;
use super::report::Report;
use crate::testbed::Testbed;
use crate::testbed::flow::{self, Family, Flow};
use crate::testbed::topology::{self, CLUSTERS, Endpoint};
use crate::workload::protocol::{Outcome, PORTS};

/// Flows and what became of them.
#[derive(Debug)]
pub struct Matrix {
    flows: Vec<Flow>,
    outcomes: Vec<Outcome>,
    rules: Rules,
    /// Flows that needed the second, patient attempt.
    retried: usize,
}

impl Matrix {
    /// Tries every flow that `concerns` accepts.
    ///
    /// # Errors
    /// When a workload or an agent does not answer.
    pub fn take(bed: &mut Testbed, rules: Rules, concerns: impl Fn(&Flow) -> bool) -> Result<Self> {
        let flows: Vec<Flow> = flow::whole_matrix().into_iter().filter(concerns).collect();
        let mut outcomes = bed.try_flows(&flows)?;
        // A loaded machine can be late with an allowed packet, never early with a denied one: only a flow that should have
        // passed gets a second attempt.
        let late: Vec<usize> = (0..flows.len())
            .filter(|&index| rules.allow(&flows[index]) && outcomes[index] == Outcome::TimedOut)
            .collect();
        if !late.is_empty() {
            let again: Vec<Flow> = late.iter().map(|&index| flows[index]).collect();
            for (index, outcome) in late.iter().zip(bed.try_flows_again(&again)?) {
                outcomes[*index] = outcome;
            }
        }
        Ok(Self { flows, outcomes, rules, retried: late.len() })
    }

    /// Decides the expectation that every cell is as the policies say.
    pub fn check(&self, what: &str, report: &mut Report) {
        let wrong: Vec<String> = self.unexpected().map(|(flow, outcome)| format!("{flow}: {outcome:?}")).collect();
        let tally: Vec<String> =
            flow::tally(&self.outcomes).iter().map(|(name, count)| format!("{count} {name}")).collect();
        let retried =
            if self.retried == 0 { String::new() } else { format!(", {} on the second attempt", self.retried) };
        let what = format!("{what}: {} cells as the policies say ({}{retried})", self.flows.len(), tally.join(", "));
        let shown = &wrong[..wrong.len().min(8)];
        report.expect(&what, wrong.is_empty(), &format!("{} wrong cells: {}", wrong.len(), shown.join(", ")));
    }

    /// The matrix as a table: rows connect to columns.
    #[must_use]
    pub fn table(&self) -> String {
        let endpoints = topology::endpoints();
        let mut lines = header(&endpoints);
        for source in &endpoints {
            let mut line = format!("  {:14}", source.to_string());
            for (position, destination) in endpoints.iter().enumerate() {
                line.push_str(if starts_cluster(&endpoints, position) { " │" } else { " " });
                for port in PORTS {
                    line.push_str(&format!(" {:<4}", self.cell(*source, *destination, port)));
                }
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.push("  ✓ passes, ✗ dropped, both with IPv4 and IPv6; ! not as the policies say".to_owned());
        lines.join("\n")
    }

    fn unexpected(&self) -> impl Iterator<Item = (&Flow, &Outcome)> {
        let cells = self.flows.iter().zip(&self.outcomes);
        cells.filter(|(flow, outcome)| !is_as_expected(self.rules.allow(flow), outcome))
    }

    fn cell(&self, source: Endpoint, destination: Endpoint, port: u16) -> String {
        let at = |family| {
            let wanted = Flow { source, destination, family, port };
            let index = self.flows.iter().position(|flow| *flow == wanted)?;
            Some((&self.outcomes[index], is_as_expected(self.rules.allow(&wanted), &self.outcomes[index])))
        };
        let (Some((four, four_right)), Some((six, six_right))) = (at(Family::Four), at(Family::Six)) else {
            return "·".to_owned();
        };
        let sign = if four == six { sign(four).to_owned() } else { format!("{}{}", sign(four), sign(six)) };
        if four_right && six_right { sign } else { format!("{sign}!") }
    }
}

fn is_as_expected(allow: bool, outcome: &Outcome) -> bool {
    *outcome == if allow { Outcome::Connected } else { Outcome::TimedOut }
}

fn sign(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Connected => "✓",
        Outcome::TimedOut => "✗",
        Outcome::Failed(_) => "?",
    }
}

fn starts_cluster(endpoints: &[Endpoint], position: usize) -> bool {
    position == 0 || endpoints[position].node.cluster != endpoints[position - 1].node.cluster
}

fn header(endpoints: &[Endpoint]) -> Vec<String> {
    let margin = " ".repeat(16);
    let (mut clusters, mut names, mut ports) = (margin.clone(), margin.clone(), margin);
    for cluster in CLUSTERS {
        clusters.push_str(&format!(" │ {:<43}", format!("to {}", cluster.name)));
    }
    for (position, endpoint) in endpoints.iter().enumerate() {
        let edge = if starts_cluster(endpoints, position) { " │" } else { " " };
        names.push_str(&format!("{edge} {:<9}", endpoint.name));
        ports.push_str(&format!("{edge} {:<4} {:<4}", PORTS[0], PORTS[1]));
    }
    [clusters, names, ports].map(|line| line.trim_end().to_owned()).to_vec()
}
