//! Who is alive. Signs of life make no revision; the end of a node does.

use ringfence_policy::{
    command::{Refusal, SignOfLife},
    name::Name,
    record::{Endpoint, RecordKey},
    revision::Revision,
};

use super::{
    Transition, View,
    ledger::{Lease, NodeKey, Row, RowKey},
};

pub(super) fn keep_alive(view: View<'_>, cluster: &Name, nodes: &[SignOfLife]) -> Result<Transition, Refusal> {
    view.cluster(cluster)?;
    let mut transition = Transition::default();
    let heard = view.ledger().gateways().get(cluster).copied().unwrap_or_default();
    transition.set(RowKey::Gateway(cluster.clone()), Some(Row::Gateway(heard + 1)));
    for SignOfLife { node, realised } in nodes {
        let registered = view.mesh.get(&RecordKey::Node(cluster.clone(), node.clone())).is_some();
        if registered {
            renew(view, &(cluster.clone(), node.clone()), Some(*realised), &mut transition);
        }
    }
    Ok(transition)
}

/// One more sign of life of a node.
pub(super) fn renew(view: View<'_>, node: &NodeKey, realised: Option<Revision>, transition: &mut Transition) {
    let before = view.ledger().leases().get(node).cloned().unwrap_or_default();
    let realised = realised.unwrap_or(before.realised);
    let lease = Lease { renewals: before.renewals + 1, realised, gone: false };
    transition.set(RowKey::Lease(node.clone()), Some(Row::Lease(lease)));
}

/// Removes what a silent node has, unless it was heard of since the leader looked.
pub(super) fn expire(view: View<'_>, node: &NodeKey, renewals: u64) -> Transition {
    let mut transition = Transition::default();
    let lease = view.ledger().leases().get(node).filter(|lease| lease.renewals == renewals && !lease.gone);
    if let Some(lease) = lease {
        let endpoints = view.mesh.endpoints_of(&node.0, &node.1);
        endpoints.map(Endpoint::key).for_each(|key| transition.delete(view, key));
        transition.set(RowKey::Lease(node.clone()), Some(Row::Lease(Lease { gone: true, ..lease.clone() })));
    }
    transition
}

/// The newest revision that every live node serves packets with; the mesh's own where there is no node.
pub(super) fn realised_everywhere(view: View<'_>) -> Revision {
    let live = view.ledger().leases().values().filter(|lease| !lease.gone);
    live.map(|lease| lease.realised).min().unwrap_or_else(|| view.mesh.revision())
}
