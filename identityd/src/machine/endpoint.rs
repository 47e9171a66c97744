//! Endpoints and the numbers of their label sets, given in the same revision.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ringfence_policy::{
    command::{EndpointSpec, Refusal},
    record::{Endpoint, Record, RecordKey},
};

use super::{Transition, View, identity, lease};

pub(super) fn put(view: View<'_>, spec: &EndpointSpec) -> Result<Transition, Refusal> {
    let owner = view.cluster(&spec.cluster)?;
    let node = RecordKey::Node(spec.cluster.clone(), spec.node.clone());
    let Some(Record::Node(node)) = view.mesh.get(&node) else {
        return Err(Refusal::UnknownNode { cluster: spec.cluster.clone(), node: spec.node.clone() });
    };
    if spec.addresses.is_empty() {
        return Err(Refusal::NoAddress { endpoint: spec.name.clone() });
    }
    // The names as the mesh has them already, so that nobody holds them twice.
    let (cluster, node) = (owner.name.clone(), node.name.clone());
    let key = RecordKey::Endpoint(cluster.clone(), node.clone(), spec.name.clone());
    view.index().check_addresses(&key, &spec.addresses)?;
    let (labels, mut transition) = identity::of_endpoint(view, owner, &spec.labels)?;
    let identity = transition.identity.expect("`of_endpoint` gives a number or refuses");
    transition.changes.extend(view.put(Record::Endpoint(Arc::new(Endpoint {
        cluster: cluster.clone(),
        node: node.clone(),
        name: spec.name.clone(),
        addresses: each_once(&spec.addresses),
        labels: view.index().shared(labels),
        identity,
        named_ports: spec.named_ports.clone(),
    }))));
    // Who declares endpoints is alive.
    lease::renew(view, &(cluster, node), None, &mut transition);
    Ok(transition)
}

fn each_once(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses.iter().copied().filter(|address| seen.insert(*address)).collect()
}
