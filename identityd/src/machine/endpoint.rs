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
    let former = view.former(&key);
    let old = if let Some(Record::Endpoint(old)) = former.map(|former| &former.record) { Some(&**old) } else { None };
    let own = old.map_or(&[][..], |old| &old.addresses);
    view.index().check_addresses(&key, spec.addresses.iter().filter(|address| !own.contains(address)))?;
    let (mut transition, labels) = identity::of_endpoint(view, owner, &spec.labels, old)?;
    let record = Record::Endpoint(Arc::new(Endpoint {
        cluster: cluster.clone(),
        node: node.clone(),
        name: spec.name.clone(),
        addresses: each_once(&spec.addresses),
        labels,
        identity: transition.identity.expect("`of_endpoint` gives a number or refuses"),
        named_ports: spec.named_ports.clone(),
    }));
    transition.replace(former, record);
    // Who declares endpoints is alive.
    lease::renew(view, &(cluster, node), None, &mut transition);
    Ok(transition)
}

fn each_once(addresses: &[IpAddr]) -> Vec<IpAddr> {
    // As most endpoints have it: one of each family.
    if let [one, other] = addresses
        && one != other
    {
        return addresses.to_vec();
    }
    let mut seen = BTreeSet::new();
    addresses.iter().copied().filter(|address| seen.insert(*address)).collect()
}
