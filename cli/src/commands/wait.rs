//! Waiting until every node serves packets with a revision.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::status;
use crate::{
    connect::Servers,
    failure::Failure,
    flags::Wait,
    output::age,
    view::{NodeStatusView, StatusView},
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Which nodes have a revision, and which have not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Waited {
    /// Every node has it that is not gone.
    pub(crate) complete: bool,
    /// These have.
    pub(crate) realised: Vec<NodeStatusView>,
    /// These have not.
    pub(crate) lagging: Vec<NodeStatusView>,
    /// These have been silent for so long that the store removed their endpoints; nobody waits for them.
    pub(crate) gone: Vec<NodeStatusView>,
    /// The server that was asked does not have the revision itself, and may not know all nodes.
    #[serde(skip)]
    behind: Option<String>,
}

impl Waited {
    /// The failure to report when the nodes did not follow in time.
    pub(crate) fn timed_out(&self, revision: u64, wait: Wait) -> Failure {
        let lagging = self.lagging.iter().map(describe).chain(self.behind.clone());
        let lines: Vec<String> = lagging.map(|line| format!("  {line}")).collect();
        let what = format!("revision {revision} is not realised on:\n{}", lines.join("\n"));
        Failure::TimedOut { what, after: wait.wait_timeout }
    }

    /// Nodes that nobody waited for, named; none if there is none.
    pub(crate) fn passed_over(&self) -> Option<String> {
        let names: Vec<String> = self.gone.iter().map(|node| format!("{}/{}", node.cluster, node.name)).collect();
        (!names.is_empty()).then(|| format!("not counted, because they are gone: {}", names.join(", ")))
    }

    fn new(mesh: StatusView, revision: u64) -> Self {
        let behind = (mesh.revision < revision).then(|| {
            format!("all nodes, as far as known: {} is itself only at revision {}", mesh.responder, mesh.revision)
        });
        let has = |node: &NodeStatusView| node.reported && node.realised_revision >= revision;
        let (realised, others): (Vec<_>, Vec<_>) = mesh.nodes.into_iter().partition(has);
        let (gone, lagging): (Vec<_>, Vec<_>) = others.into_iter().partition(|node| node.gone);
        Self { complete: behind.is_none() && lagging.is_empty(), realised, lagging, gone, behind }
    }
}

/// Polls until every node that is not gone has realised `revision`, or the time is over. A server that stops answering, or that
/// does not get the revision, is passed over.
///
/// # Errors
/// `Failure` only if no server ever answered.
pub(crate) async fn for_nodes(servers: &mut Servers, revision: u64, wait: Wait) -> Result<Waited, Failure> {
    let deadline = Instant::now() + wait.wait_timeout;
    let what = format!("no server told which nodes have revision {revision}");
    let mut last = Err(Failure::TimedOut { what, after: wait.wait_timeout });
    let mut progress = Progress::default();
    while let Ok(answer) = timeout_at(deadline, status::fetch(servers)).await {
        match answer.map(|mesh| Waited::new(mesh, revision)) {
            Ok(waited) => {
                progress.show(&waited);
                if waited.complete {
                    return Ok(waited);
                }
                if waited.behind.is_some() {
                    servers.pass_over_first();
                }
                last = Ok(waited);
            }
            Err(failure) if last.is_err() => last = Err(failure),
            Err(_) => {}
        }
        if Instant::now() + POLL_INTERVAL >= deadline {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    last
}

/// One line on a terminal that changes; nothing elsewhere.
#[derive(Default)]
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&mut self, waited: &Waited) {
        let mut error = std::io::stderr();
        if !error.is_terminal() {
            return;
        }
        let names: Vec<String> = waited.lagging.iter().map(|node| format!("{}/{}", node.cluster, node.name)).collect();
        let waiting = if names.is_empty() { String::new() } else { format!(", waiting for {}", names.join(", ")) };
        let (realised, all) = (waited.realised.len(), waited.realised.len() + waited.lagging.len());
        // Progress is a courtesy: a terminal that cannot show it is no reason to fail.
        let _not_shown = write!(error, "\r\x1b[K{realised} of {all} nodes{waiting}");
        self.shown = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _not_shown = writeln!(std::io::stderr());
        }
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
