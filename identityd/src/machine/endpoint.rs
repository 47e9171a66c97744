//! Endpoints and the numbers of their label sets, given in the same revision.

use std::collections::BTreeSet;

use ringfence_policy::{
    command::{EndpointSpec, Refusal},
    identity::Identity,
    label::{CLUSTER_KEY, Label, LabelSet, SOURCE_K8S, SOURCE_RESERVED},
    mesh::Mesh,
    name::Name,
    record::{Change, Cluster, Endpoint, IdentityRecord, Record, RecordKey},
};

use super::{Index, Transition, cluster, put as put_record};

/// Source of labels that are derived from address ranges.
const SOURCE_CIDR: &str = "cidr";

pub(super) fn put(mesh: &Mesh, index: &Index, spec: &EndpointSpec) -> Result<Transition, Refusal> {
    let owner = cluster(mesh, &spec.cluster)?;
    if mesh.get(&RecordKey::Node(spec.cluster.clone(), spec.node.clone())).is_none() {
        return Err(Refusal::UnknownNode { cluster: spec.cluster.clone(), node: spec.node.clone() });
    }
    if spec.addresses.is_empty() {
        return Err(Refusal::NoAddress { endpoint: spec.name.clone() });
    }
    let key = RecordKey::Endpoint(spec.cluster.clone(), spec.node.clone(), spec.name.clone());
    index.check_addresses(&key, &spec.addresses)?;
    let labels = with_cluster_label(&spec.cluster, &spec.labels)?;
    let (mut changes, identity) = number(index, owner, &labels)?;
    let mut seen = BTreeSet::new();
    changes.extend(put_record(
        mesh,
        Record::Endpoint(Endpoint {
            cluster: spec.cluster.clone(),
            node: spec.node.clone(),
            name: spec.name.clone(),
            addresses: spec.addresses.iter().copied().filter(|address| seen.insert(*address)).collect(),
            labels,
            identity,
            named_ports: spec.named_ports.clone(),
        }),
    ));
    Ok((changes, Some(identity)))
}

pub(super) fn allocate(mesh: &Mesh, index: &Index, name: &Name, labels: &LabelSet) -> Result<Transition, Refusal> {
    let owner = cluster(mesh, name)?;
    let (changes, identity) = number(index, owner, &with_cluster_label(name, labels)?)?;
    Ok((changes, Some(identity)))
}

/// One label set, one number (S5): the one it has, or the cluster's next.
fn number(index: &Index, owner: &Cluster, labels: &LabelSet) -> Result<(Vec<Change>, Identity), Refusal> {
    if let Some(identity) = index.number(labels) {
        return Ok((Vec::new(), identity));
    }
    let identity = index.next_number(owner.id, &owner.name)?;
    let record = IdentityRecord { identity, labels: labels.clone() };
    Ok((vec![Change::Put(Record::Identity(record))], identity))
}

fn with_cluster_label(cluster: &Name, labels: &LabelSet) -> Result<LabelSet, Refusal> {
    if let Some(label) = labels.iter().find(|label| [SOURCE_RESERVED, SOURCE_CIDR].contains(&label.source.as_str())) {
        return Err(Refusal::ReservedLabel { label: label.to_string() });
    }
    if let Some(label) = labels.get(CLUSTER_KEY).filter(|label| label.value != cluster.as_str()) {
        return Err(Refusal::ForeignClusterLabel { label: label.to_string(), cluster: cluster.clone() });
    }
    let mut labels = labels.clone();
    labels.insert(Label::new(SOURCE_K8S, CLUSTER_KEY, cluster.as_str()));
    Ok(labels)
}
