//! `ringfence agent probe`.

use std::{io, thread};

use anyhow::Context as _;
use comfy_table::Table;
use ringfence_proto::v1;
use serde::Serialize;
use tokio::sync::mpsc;

use super::packet::ProbePacket;
use crate::{
    agent_socket::Agent,
    failure::Failure,
    output::{line, table},
};

/// Lines that are read ahead of the answers.
const READ_AHEAD: usize = 64;

/// What would become of a packet.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    allow: bool,
    reason: String,
    revision: u64,
}

impl Answer {
    /// One row.
    pub(super) fn table(&self) -> Table {
        let verdict = if self.allow { "allow" } else { "deny" };
        table(["VERDICT", "REASON", "REVISION"], [[verdict.to_owned(), self.reason.clone(), self.revision.to_string()]])
    }
}

/// Asks about one packet.
pub(super) async fn ask(agent: &Agent, packet: &ProbePacket) -> Result<Answer, Failure> {
    let request = v1::ProbeRequest::from(packet);
    let response = agent.call("probe", async |mut client| client.probe(request).await).await?;
    Ok(Answer { allow: response.allow, reason: response.reason, revision: response.revision })
}

/// Answers every line of standard input with one line, at once. Ends at the first one that cannot be answered.
pub(super) async fn batch(agent: &Agent) -> Result<(), Failure> {
    let mut lines = standard_input();
    let mut number = 0;
    while let Some(text) = lines.recv().await {
        number += 1;
        let text = text.context("cannot read standard input")?;
        let packet = parse(&text).with_context(|| format!("standard input, line {number}"))?;
        let answer = ask(agent, &packet).await.map_err(|failure| match failure {
            Failure::Failed(error) => Failure::Failed(error.context(format!("standard input, line {number}"))),
            other => other,
        })?;
        line(&serde_json::to_string(&answer).context("cannot write the answer")?)?;
    }
    Ok(())
}

/// The parser counts lines within the text, of which there is one: only the column says something.
fn parse(text: &str) -> anyhow::Result<ProbePacket> {
    serde_json::from_str(text).map_err(|error| {
        let (message, column) = (error.to_string(), error.column());
        let place = format!(" at line {} column {column}", error.line());
        anyhow::anyhow!("column {column}: {}", message.strip_suffix(&place).unwrap_or(&message))
    })
}

/// Reading blocks, so a thread of its own does it; it ends with the process.
fn standard_input() -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
