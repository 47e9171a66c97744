//! Endpoints and the numbers of their label sets, given in the same revision.

use std::collections::BTreeSet;

use ringfence_policy::{
    command::{EndpointSpec, Refusal},
    record::{Endpoint, Record, RecordKey},
};

use super::{Transition, View, identity, lease};

pub(super) fn put(view: View<'_>, spec: &EndpointSpec) -> Result<Transition, Refusal> {
    let owner = view.cluster(&spec.cluster)?;
    let node = RecordKey::Node(spec.cluster.clone(), spec.node.clone());
    if view.mesh.get(&node).is_none() {
        return Err(Refusal::UnknownNode { cluster: spec.cluster.clone(), node: spec.node.clone() });
    }
    if spec.addresses.is_empty() {
        return Err(Refusal::NoAddress { endpoint: spec.name.clone() });
    }
    let key = RecordKey::Endpoint(spec.cluster.clone(), spec.node.clone(), spec.name.clone());
    view.index().check_addresses(&key, &spec.addresses)?;
    let labels = identity::relevant(view, &spec.cluster, &spec.labels)?;
    let mut transition = identity::number(view, owner, &labels)?;
    let identity = transition.identity.expect("`number` gives a number or refuses");
    let mut seen = BTreeSet::new();
    transition.changes.extend(view.put(Record::Endpoint(Endpoint {
        cluster: spec.cluster.clone(),
        node: spec.node.clone(),
        name: spec.name.clone(),
        addresses: spec.addresses.iter().copied().filter(|address| seen.insert(*address)).collect(),
        labels,
        identity,
        named_ports: spec.named_ports.clone(),
    })));
    // Who declares endpoints is alive.
    lease::renew(view, &(spec.cluster.clone(), spec.node.clone()), None, &mut transition);
    Ok(transition)
}
