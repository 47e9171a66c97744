//! Which nodes have been silent for too long, as one leader sees it. Pure: time is given.
//!
//! A node is silent only if its cluster's gateway is heard and does not tell of it. A cluster that is cut off as a whole
//! keeps what it has, however long that lasts: nobody knows whether its nodes live, and taking their endpoints away
//! would make an outage of every partition that heals. When it is heard again, its nodes have their full term to show up.

use std::{collections::BTreeMap, time::Duration};

use ringfence_policy::{command::Housekeeping, name::Name, record::MeshSettings};

use crate::machine::ledger::{Ledger, NodeKey};

/// What one leader has seen.
#[derive(Debug, Default)]
pub(super) struct LeaseTracker {
    clusters: BTreeMap<Name, Heard>,
    nodes: BTreeMap<NodeKey, Seen>,
}

/// A cluster's gateways.
#[derive(Debug)]
struct Heard {
    count: u64,
    /// When they were heard last.
    last: Duration,
    /// Since when without a gap.
    since: Duration,
}

#[derive(Debug)]
struct Seen {
    renewals: u64,
    at: Duration,
}

impl LeaseTracker {
    /// The nodes to end. `now` is the time since this leader began.
    pub(super) fn silent(&mut self, ledger: &Ledger, settings: &MeshSettings, now: Duration) -> Vec<Housekeeping> {
        let lease = Duration::from_millis(settings.node_lease_ms);
        let term = lease + Duration::from_millis(settings.node_grace_ms);
        self.clusters.retain(|cluster, _| ledger.gateways().contains_key(cluster));
        for (cluster, count) in ledger.gateways() {
            self.hear(cluster, *count, lease, now);
        }
        self.nodes.retain(|node, _| ledger.leases().contains_key(node));
        let mut silent = Vec::new();
        for (node, state) in ledger.leases().iter().filter(|(_, lease)| !lease.gone) {
            let renewals = state.renewals;
            let seen = self.nodes.entry(node.clone()).or_insert(Seen { renewals, at: now });
            if seen.renewals != renewals {
                *seen = Seen { renewals, at: now };
            }
            // A gateway that was never heard by this leader says nothing about its nodes.
            let Some(heard) = self.clusters.get(&node.0).filter(|heard| now.saturating_sub(heard.last) < lease) else {
                continue;
            };
            if now.saturating_sub(seen.at.max(heard.since)) >= term {
                let (cluster, node) = node.clone();
                silent.push(Housekeeping::ExpireNode { cluster, node, renewals });
            }
        }
        silent
    }

    fn hear(&mut self, cluster: &Name, count: u64, lease: Duration, now: Duration) {
        let Some(heard) = self.clusters.get_mut(cluster) else {
            self.clusters.insert(cluster.clone(), Heard { count, last: now, since: now });
            return;
        };
        if heard.count != count {
            if now.saturating_sub(heard.last) >= lease {
                heard.since = now;
            }
            (heard.count, heard.last) = (count, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::ledger::{Lease, Row, RowKey};

    const LEASE_MS: u64 = 10_000;
    const TERM: Duration = Duration::from_secs(25);

    #[derive(Default)]
    struct Scene {
        ledger: Ledger,
        tracker: LeaseTracker,
        now: Duration,
    }

    impl Scene {
        /// East's nodes n1 and n2, heard of at the beginning.
        fn new() -> Self {
            let mut scene = Self::default();
            scene.hear("east", &["n1", "n2"]);
            scene
        }

        fn hear(&mut self, cluster: &str, nodes: &[&str]) {
            let cluster = Name::new(cluster).unwrap();
            let heard = self.ledger.gateways().get(&cluster).copied().unwrap_or_default();
            self.ledger.set(&RowKey::Gateway(cluster.clone()), Some(Row::Gateway(heard + 1)));
            for node in nodes {
                let node = (cluster.clone(), Name::new(*node).unwrap());
                let renewals = self.ledger.leases().get(&node).map_or(0, |lease| lease.renewals) + 1;
                self.ledger.set(&RowKey::Lease(node), Some(Row::Lease(Lease { renewals, ..Lease::default() })));
            }
        }

        /// Two seconds pass, the gateway tells of `nodes` (or nothing), and the leader looks: who is to be ended.
        fn pass(&mut self, nodes: Option<&[&str]>) -> Vec<(String, u64)> {
            self.now += Duration::from_secs(2);
            if let Some(nodes) = nodes {
                self.hear("east", nodes);
            }
            let settings = MeshSettings { node_lease_ms: LEASE_MS, node_grace_ms: 15_000, ..MeshSettings::default() };
            let ended = self.tracker.silent(&self.ledger, &settings, self.now);
            let node = |command| match command {
                Housekeeping::ExpireNode { node, renewals, .. } => (node.to_string(), renewals),
                other @ (Housekeeping::Tick { .. } | Housekeeping::Found(_)) => panic!("{other:?} is no end of a node"),
            };
            ended.into_iter().map(node).collect()
        }

        /// For how long nobody is ended.
        fn pass_until_ended(&mut self, nodes: Option<&[&str]>) -> Option<Duration> {
            let began = self.now;
            (0..100).find(|_| !self.pass(nodes).is_empty()).map(|_| self.now - began)
        }
    }

    #[test]
    fn a_node_that_its_gateway_does_not_tell_of_any_more_is_ended_after_lease_and_grace() {
        let mut scene = Scene::new();
        assert_eq!(scene.pass(Some(&["n1", "n2"])), []);
        let after = scene.pass_until_ended(Some(&["n1"])).unwrap();
        assert!(after >= TERM && after <= TERM + Duration::from_secs(2), "{after:?}");
        assert_eq!(scene.pass(Some(&["n1"])), [("n2".to_owned(), 2)], "with what was seen, until it is done");
        assert_eq!(scene.pass(Some(&["n1", "n2"])), [], "it is back");
    }

    #[test]
    fn a_cluster_that_is_cut_off_loses_nothing_and_its_nodes_get_their_full_term_afterwards() {
        let mut scene = Scene::new();
        scene.pass(Some(&["n1", "n2"]));
        assert_eq!(scene.pass_until_ended(None), None);
        let after = scene.pass_until_ended(Some(&["n1"])).unwrap();
        assert!(after >= TERM, "{after:?}");
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_full_term_again() {
        let mut scene = Scene::new();
        scene.pass(Some(&["n1", "n2"]));
        for _ in 0..5 {
            // Long enough to be silent, not long enough to be ended.
            for _ in 0..10 {
                assert_eq!(scene.pass(Some(&["n1"])), []);
            }
            scene.tracker = LeaseTracker::default();
            scene.now = Duration::ZERO;
        }
        assert!(scene.pass_until_ended(Some(&["n1"])).unwrap() >= TERM);
    }

    #[test]
    fn a_leader_that_was_stopped_for_long_ends_nobody_when_it_goes_on() {
        let mut scene = Scene::new();
        scene.pass(Some(&["n1", "n2"]));
        scene.now += Duration::from_secs(3600);
        assert_eq!(scene.pass(None), []);
        assert_eq!(scene.pass(Some(&["n1"])), []);
        assert!(scene.pass_until_ended(Some(&["n1"])).unwrap() + Duration::from_secs(4) >= TERM);
    }

    #[test]
    fn what_is_removed_is_forgotten() {
        let mut scene = Scene::new();
        scene.pass(Some(&["n1", "n2"]));
        scene.ledger = Ledger::default();
        scene.pass(None);
        assert!(scene.tracker.nodes.is_empty() && scene.tracker.clusters.is_empty());
    }
}
