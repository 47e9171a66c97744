//! Who has which address, and which endpoints are this node's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{LocalNode, Problem};
use crate::{
    flow::Verdict,
    identity::Identity,
    mesh::Mesh,
    name::Name,
    record::RecordKey,
    tables::{AddressEntry, EndpointEntry, EndpointId, Tables},
};

/// Addresses, ranges and endpoints; the endpoints' verdicts are still to be filled in and refuse everything.
pub(super) fn compile(mesh: &Mesh, local: &LocalNode) -> (Tables, Vec<Problem>) {
    let mut claims = Claims::default();
    let mut tables = Tables::default();
    for endpoint in mesh.endpoints() {
        let here = endpoint.cluster == local.cluster && endpoint.node == local.node;
        let id = local.endpoints.get(&endpoint.name).copied().filter(|_| here);
        if let Some(id) = id {
            let refused = Verdict::DenyDefault;
            let entry = EndpointEntry { identity: endpoint.identity, ingress: refused, egress: refused };
            tables.endpoints.insert(id, entry);
        }
        for address in &endpoint.addresses {
            claims.add(*address, endpoint.identity, id, endpoint.key());
        }
    }
    for node in mesh.nodes() {
        let own = node.cluster == local.cluster && node.name == local.node;
        let identity = if own { Identity::HOST } else { Identity::REMOTE_NODE };
        for address in &node.addresses {
            claims.add(*address, identity, None, RecordKey::Node(node.cluster.clone(), node.name.clone()));
        }
    }
    // S12: an address inside a pod range that no record claims is unknown, never world.
    let ranges = mesh.clusters().flat_map(|cluster| &cluster.pod_cidrs);
    tables.ranges = ranges.map(|range| (*range, Identity::UNKNOWN)).collect();
    tables.addresses = claims.entries.into_iter().map(|(address, (entry, _))| (address, entry)).collect();
    let mut problems = unknown_endpoints(mesh, local);
    problems.extend(claims.conflicts);
    (tables, problems)
}

/// Addresses with who claims them.
#[derive(Default)]
struct Claims {
    entries: BTreeMap<IpAddr, (AddressEntry, RecordKey)>,
    conflicts: Vec<Problem>,
}

impl Claims {
    fn add(&mut self, address: IpAddr, identity: Identity, endpoint: Option<EndpointId>, owner: RecordKey) {
        let entry = AddressEntry { identity, endpoint };
        match self.entries.get_mut(&address) {
            None => {
                self.entries.insert(address, (entry, owner));
            }
            // A record may list an address twice.
            Some((before, first)) if *before == entry && *first == owner => {}
            Some((before, first)) => {
                *before = AddressEntry { identity: Identity::UNKNOWN, endpoint: None };
                self.conflicts.push(Problem::AddressConflict { address, first: first.clone(), second: owner });
            }
        }
    }
}

fn unknown_endpoints(mesh: &Mesh, local: &LocalNode) -> Vec<Problem> {
    let here = mesh.endpoints().filter(|endpoint| endpoint.cluster == local.cluster && endpoint.node == local.node);
    let known: BTreeSet<&Name> = here.map(|endpoint| &endpoint.name).collect();
    let unknown = local.endpoints.keys().filter(|name| !known.contains(name));
    unknown.map(|endpoint| Problem::UnknownEndpoint { endpoint: endpoint.clone() }).collect()
}
