//! What the policies of `demo/` say, in words and by hand: the demo's own judge, independent of the policy engine.

use crate::testbed::flow::Flow;
use crate::testbed::topology::{CUT_CLUSTER, Endpoint};

/// Where the quarantine of south's web tier is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quarantine {
    /// Not applied.
    #[default]
    Nowhere,
    /// Applied while the drill's cluster is cut off: its nodes do not know of it.
    NotInTheCutCluster,
    /// Realised by every node.
    Everywhere,
}

/// The policies in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// 01-default-deny.yaml
    pub default_deny: bool,
    /// 02-web-to-api.yaml
    pub web_to_api: bool,
    /// 03-deny-dev.yaml
    pub deny_dev: bool,
    /// 04-quarantine-south-web.yaml
    pub quarantine: Quarantine,
}

impl Rules {
    /// Whether the flow should pass.
    #[must_use]
    pub fn allow(&self, flow: &Flow) -> bool {
        let (source, destination) = (flow.source, flow.destination);
        if self.deny_dev && keeps_shop_and_dev_apart(source, destination) {
            return false;
        }
        if self.is_quarantined(source, destination) {
            return false;
        }
        if self.web_to_api && source.app == "web" && destination.app == "api" && flow.port == 8080 {
            return true;
        }
        !self.default_deny
    }

    /// "No API accepts the web tier of south."
    fn is_quarantined(&self, source: Endpoint, destination: Endpoint) -> bool {
        let realised = match self.quarantine {
            Quarantine::Nowhere => false,
            Quarantine::NotInTheCutCluster => destination.node.cluster.name != CUT_CLUSTER,
            Quarantine::Everywhere => true,
        };
        realised && source.app == "web" && source.node.cluster.name == "south" && destination.app == "api"
    }
}

/// "No traffic between shop and dev."
fn keeps_shop_and_dev_apart(source: Endpoint, destination: Endpoint) -> bool {
    matches!((source.namespace, destination.namespace), ("shop", "dev") | ("dev", "shop"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::flow::whole_matrix;

    const ALL: Rules =
        Rules { default_deny: true, web_to_api: true, deny_dev: true, quarantine: Quarantine::Everywhere };

    /// The story needs every policy to change some cell within a node, across nodes and across clusters.
    #[test]
    fn every_policy_decides_cells_near_and_far() {
        let changed = |before: Rules, after: Rules| -> Vec<Flow> {
            whole_matrix().into_iter().filter(|flow| before.allow(flow) != after.allow(flow)).collect()
        };
        let near = |flow: &Flow| flow.source.node == flow.destination.node;
        let far = |flow: &Flow| flow.source.node.cluster != flow.destination.node.cluster;
        let stages = [
            Rules::default(),
            Rules { default_deny: true, ..Rules::default() },
            Rules { default_deny: true, web_to_api: true, ..Rules::default() },
            Rules { quarantine: Quarantine::Nowhere, ..ALL },
        ];
        for pair in stages.windows(2) {
            let cells = changed(pair[0], pair[1]);
            assert!(cells.iter().any(near), "{pair:?} within a node");
            assert!(cells.iter().any(far), "{pair:?} across clusters");
            assert!(cells.iter().any(|flow| !near(flow) && !far(flow)), "{pair:?} across the nodes of a cluster");
        }
    }

    #[test]
    fn the_cut_cluster_is_the_only_one_that_still_accepts_souths_web_tier() {
        let rules = Rules { quarantine: Quarantine::NotInTheCutCluster, ..ALL };
        let accepted: Vec<Flow> = whole_matrix()
            .into_iter()
            .filter(|flow| flow.source.node.cluster.name == "south" && rules.allow(flow))
            .collect();
        assert!(!accepted.is_empty());
        assert!(accepted.iter().all(|flow| flow.destination.node.cluster.name == CUT_CLUSTER));
    }

    #[test]
    fn without_policies_everything_is_open() {
        assert!(whole_matrix().iter().all(|flow| Rules::default().allow(flow)));
    }
}
