//! Waiting for the mesh: until it is up, until every part has one revision.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Testbed;
use super::ringfence::Status;
use super::topology::{self, CLUSTERS};

const POLL: Duration = Duration::from_millis(50);

impl Testbed {
    /// Waits until all members, gateways and nodes are there and serve one and the same revision, as the gateways of
    /// `clusters` tell it.
    ///
    /// # Errors
    /// When that takes longer than `timeout`, or a process ended by itself: what is missing.
    pub fn wait_for_one_revision(&mut self, clusters: &[&str], timeout: Duration) -> Result<Status> {
        self.wait(clusters, timeout, "one revision everywhere", differences)
    }

    /// Waits until the whole mesh is up: [`Self::wait_for_one_revision`] with every endpoint in the store.
    ///
    /// # Errors
    /// As [`Self::wait_for_one_revision`].
    pub fn wait_until_up(&mut self, timeout: Duration) -> Result<Status> {
        let deadline = Instant::now() + timeout;
        let expected = topology::endpoints().len();
        loop {
            let servers = self.gateways_of(&[CLUSTERS[0].name]);
            let answer =
                self.ringfence().call(&servers, Duration::from_secs(3), &["-o", "json", "endpoint", "list"])?;
            let found = answer.json::<Vec<serde_json::Value>>().map_or(0, |list| list.len());
            if found == expected {
                break;
            }
            self.check()?;
            if Instant::now() > deadline {
                let logs = self.log_tails();
                bail!("after {timeout:?} the store has {found} of {expected} endpoints ({answer})\n{logs}");
            }
            thread::sleep(POLL);
        }
        self.wait_for_one_revision(&[CLUSTERS[0].name], deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits until `missing` finds nothing missing in the status.
    ///
    /// # Errors
    /// As [`Self::wait_for_one_revision`].
    pub fn wait(
        &mut self,
        clusters: &[&str],
        timeout: Duration,
        what: &str,
        missing: impl Fn(&Status) -> Option<String>,
    ) -> Result<Status> {
        let deadline = Instant::now() + timeout;
        let servers = self.gateways_of(clusters);
        loop {
            let why = match self.ringfence().status(&servers) {
                Ok(status) => match missing(&status) {
                    None => return Ok(status),
                    Some(why) => why,
                },
                Err(error) => format!("{error:#}"),
            };
            self.check()?;
            if Instant::now() > deadline {
                bail!("waited {timeout:?} for {what}: {why}");
            }
            thread::sleep(POLL);
        }
    }

    fn log_tails(&self) -> String {
        self.processes().map(|process| format!("── {} ──\n{}\n", process.name(), process.log_tail())).collect()
    }
}

/// What keeps the mesh from being at one revision; none when it is.
#[must_use]
pub fn differences(status: &Status) -> Option<String> {
    let head = status.revision;
    if !status.members.iter().any(|member| member.state == "leader") {
        return Some("no leader".to_owned());
    }
    let members = status.members.iter().filter(|m| m.revision == head && m.state != "unreachable").count();
    let gateways = status.gateways.iter().filter(|gateway| gateway.revision == head).count();
    let nodes = status.nodes.iter().filter(|node| node.reported && node.realised_revision == head).count();
    let (clusters, all_nodes) = (CLUSTERS.len(), topology::nodes().len());
    if (members, gateways, nodes) == (clusters, clusters, all_nodes) {
        return None;
    }
    let problems: Vec<String> = status
        .nodes
        .iter()
        .flat_map(|node| {
            node.problems.iter().map(move |problem| format!("; {}/{}: {problem}", node.cluster, node.name))
        })
        .collect();
    Some(format!(
        "at revision {head}: {members}/{clusters} members, {gateways}/{clusters} gateways, {nodes}/{all_nodes} nodes{}",
        problems.concat()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(revisions: [u64; 6]) -> Status {
        let nodes: Vec<_> = topology::nodes()
            .iter()
            .zip(revisions)
            .map(|(node, revision)| {
                json!({"cluster": node.cluster.name, "name": node.name(), "realised_revision": revision, "reported": true, "report_age_ms": 5,
                       "problems": if revision < 7 { vec!["full"] } else { vec![] }})
            })
            .collect();
        let members: Vec<_> = CLUSTERS
            .iter()
            .map(|c| json!({"id": c.id, "cluster": c.name, "state": if c.id == 2 { "leader" } else { "follower" }, "revision": 7}))
            .collect();
        let gateways: Vec<_> = CLUSTERS.iter().map(|c| json!({"cluster": c.name, "revision": 7})).collect();
        let whole = json!({"responder": "gateway east", "revision": 7, "staleness_ms": 0, "members": members,
            "gateways": gateways, "nodes": nodes});
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_lagging_node_is_a_difference_and_its_problem_is_named() {
        assert_eq!(differences(&status([7; 6])), None);
        let why = differences(&status([7, 7, 6, 7, 7, 7])).unwrap();
        assert!(why.contains("5/6 nodes") && why.contains("west/n1: full"), "{why}");
    }
}
