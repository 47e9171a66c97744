//! Answers `Status`: a member's knowledge with the gateway's own, fresher figures laid over it.

use std::{collections::BTreeMap, time::Instant};

use ringfence_policy::name::Name;
use ringfence_proto::v1::{GatewayStatus, MemberStatus, NodeStatus, StatusResponse};

use crate::{
    cache::MeshCache,
    members::Members,
    push::own_status,
    reports::{Reports, milliseconds},
};

/// Where the figures come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) cluster: &'a Name,
    pub(crate) members: &'a Members,
    pub(crate) cache: &'a MeshCache,
    pub(crate) reports: &'a Reports,
}

/// Asks a member; where none answers, the gateway's own cache is all there is, and its staleness says how old it is.
pub(crate) async fn status(sources: Sources<'_>, deadline: Instant) -> StatusResponse {
    let base = match sources.members.status(deadline).await {
        Ok(answer) => answer,
        Err(status) => {
            tracing::debug!(reason = status.message(), "no member tells its status");
            StatusResponse {
                members: unreachable(sources.members),
                nodes: registered(sources.cache),
                ..StatusResponse::default()
            }
        }
    };
    let own = own_status(sources.cluster, sources.cache);
    StatusResponse {
        responder: format!("gateway {}", sources.cluster),
        revision: sources.cache.revision().0,
        staleness_ms: milliseconds(sources.cache.freshness().staleness()),
        members: base.members,
        gateways: overlay_gateway(base.gateways, own),
        nodes: overlay_nodes(base.nodes, sources.reports.current()),
        identities: base.identities,
    }
}

fn unreachable(members: &Members) -> Vec<MemberStatus> {
    let unreachable = |address: &str| MemberStatus {
        address: address.to_owned(),
        state: "unreachable".to_owned(),
        ..MemberStatus::default()
    };
    members.all().iter().map(|member| unreachable(&member.address)).collect()
}

fn registered(cache: &MeshCache) -> Vec<NodeStatus> {
    let unreported = |cluster: &Name, name: &Name| NodeStatus {
        cluster: cluster.to_string(),
        name: name.to_string(),
        ..NodeStatus::default()
    };
    cache.history().read(|history| history.mesh().nodes().map(|node| unreported(&node.cluster, &node.name)).collect())
}

fn overlay_gateway(gateways: Vec<GatewayStatus>, own: GatewayStatus) -> Vec<GatewayStatus> {
    let mut by_cluster: BTreeMap<String, GatewayStatus> =
        gateways.into_iter().map(|gateway| (gateway.cluster.clone(), gateway)).collect();
    by_cluster.insert(own.cluster.clone(), own);
    by_cluster.into_values().collect()
}

/// A node that is not registered is not listed, whatever it reports.
fn overlay_nodes(mut nodes: Vec<NodeStatus>, own: Vec<NodeStatus>) -> Vec<NodeStatus> {
    for report in own {
        let same = |node: &&mut NodeStatus| node.cluster == report.cluster && node.name == report.name;
        if let Some(node) = nodes.iter_mut().find(same)
            && (!node.reported || report.report_age_ms <= node.report_age_ms)
        {
            // What the store decided is not the node's to tell.
            *node = NodeStatus { gone: node.gone, ..report };
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, revision: u64, age: u64, reported: bool) -> NodeStatus {
        NodeStatus {
            cluster: "east".into(),
            name: name.into(),
            realised_revision: revision,
            report_age_ms: age,
            reported,
            ..NodeStatus::default()
        }
    }

    #[test]
    fn the_fresher_report_counts_and_strangers_are_not_listed() {
        let told = vec![node("n1", 0, 0, false), node("n2", 5, 10, true), node("n3", 5, 900, true)];
        let own =
            vec![node("n1", 6, 40, true), node("n2", 4, 40, true), node("n3", 6, 40, true), node("n9", 9, 0, true)];
        let revisions: Vec<_> = overlay_nodes(told, own).iter().map(|node| node.realised_revision).collect();
        assert_eq!(revisions, [6, 5, 6]);
    }
}
