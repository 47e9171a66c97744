//! Waiting until every node serves packets with a revision.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::status;
use crate::{args::Wait, connect::Servers, failure::Failure, output::age, view::NodeStatusView};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Which nodes have a revision, and which have not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Waited {
    /// Every registered node has it.
    pub(crate) complete: bool,
    /// These have.
    pub(crate) realised: Vec<NodeStatusView>,
    /// These have not.
    pub(crate) lagging: Vec<NodeStatusView>,
}

impl Waited {
    /// The failure to report when the nodes did not follow in time.
    pub(crate) fn timed_out(&self, revision: u64, wait: Wait) -> Failure {
        let lagging: Vec<String> = self.lagging.iter().map(|node| format!("  {}", describe(node))).collect();
        let what = format!("revision {revision} is not realised on:\n{}", lagging.join("\n"));
        Failure::TimedOut { what, after: wait.wait_timeout }
    }
}

/// Polls until every registered node has realised `revision`, or the time is over.
///
/// # Errors
/// `Failure` only if no server answers at all until the time is over: one that stops answering is passed over.
pub(crate) async fn for_nodes(servers: &mut Servers, revision: u64, wait: Wait) -> Result<Waited, Failure> {
    let deadline = Instant::now() + wait.wait_timeout;
    let mut last = None;
    loop {
        match status::fetch(servers).await {
            Ok(mesh) => {
                // A server that is behind may not know all nodes yet: it must have seen the revision itself.
                let seen = mesh.revision >= revision;
                let has = |node: &NodeStatusView| node.reported && node.realised_revision >= revision;
                let (realised, lagging): (Vec<_>, Vec<_>) = mesh.nodes.into_iter().partition(has);
                let complete = seen && lagging.is_empty();
                progress(&realised, &lagging);
                if complete || Instant::now() >= deadline {
                    return Ok(Waited { complete, realised, lagging });
                }
                last = Some(Waited { complete, realised, lagging });
            }
            Err(failure) if Instant::now() >= deadline => return last.ok_or(failure),
            Err(_) => {}
        }
        tokio::time::sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

fn progress(realised: &[NodeStatusView], lagging: &[NodeStatusView]) {
    let mut error = std::io::stderr();
    if !error.is_terminal() {
        return;
    }
    let names: Vec<String> = lagging.iter().map(|node| format!("{}/{}", node.cluster, node.name)).collect();
    let waiting = if names.is_empty() { String::new() } else { format!(", waiting for {}", names.join(", ")) };
    // Progress is a courtesy: a terminal that cannot show it is no reason to fail.
    let _not_shown = write!(error, "\r\x1b[K{} of {} nodes{waiting}", realised.len(), realised.len() + lagging.len());
    if lagging.is_empty() {
        let _not_shown = writeln!(error);
    }
}

fn describe(node: &NodeStatusView) -> String {
    let name = format!("{}/{}", node.cluster, node.name);
    if !node.reported {
        return format!("{name}: no report of it is known");
    }
    let problems = if node.problems.is_empty() { String::new() } else { format!(", {}", node.problems.join("; ")) };
    format!("{name}: at revision {}, last report {} ago{problems}", node.realised_revision, age(node.report_age_ms))
}
