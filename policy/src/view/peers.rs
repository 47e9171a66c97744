//! Endpoints by what decides who has to know them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use roaring::RoaringBitmap;

use super::{Touched, is_of_store};
use crate::{
    cidr::Cidr,
    engine::Reach,
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::{Endpoint, NamedPort, Node, Record, RecordKey},
    reserved::reserved_labels,
};

/// All endpoints of the mesh, each with a slot that is its own until it is gone.
#[derive(Debug)]
pub(super) struct Peers {
    cluster: Name,
    slots: HashMap<RecordKey, u32>,
    keys: Vec<RecordKey>,
    known: Vec<Option<Peer>>,
    free: Vec<u32>,
    removed: Vec<u32>,
    of_identity: HashMap<Identity, RoaringBitmap>,
    /// Of this cluster.
    on_node: BTreeMap<Name, RoaringBitmap>,
    /// What rules for nodes select the hosts of this cluster by.
    hosts: BTreeMap<Name, LabelSet>,
    /// In every view.
    always: RoaringBitmap,
    claims: HashMap<IpAddr, Claims>,
    named_ports: BTreeMap<NamedPort, BTreeSet<RecordKey>>,
    /// How many clusters name a range.
    pods: BTreeMap<Cidr, usize>,
    nothing: RoaringBitmap,
}

#[derive(Debug)]
struct Peer {
    identity: Identity,
    addresses: BTreeSet<IpAddr>,
    named_ports: Vec<NamedPort>,
}

/// Who has an address.
#[derive(Debug, Default)]
struct Claims {
    nodes: usize,
    endpoints: Vec<u32>,
}

impl Peers {
    pub(super) fn new(cluster: Name) -> Self {
        Self {
            cluster,
            slots: HashMap::new(),
            keys: Vec::new(),
            known: Vec::new(),
            free: Vec::new(),
            removed: Vec::new(),
            of_identity: HashMap::new(),
            on_node: BTreeMap::new(),
            hosts: BTreeMap::new(),
            always: RoaringBitmap::new(),
            claims: HashMap::new(),
            named_ports: BTreeMap::new(),
            pods: BTreeMap::new(),
            nothing: RoaringBitmap::new(),
        }
    }

    pub(super) fn slot(&self, key: &RecordKey) -> Option<u32> {
        self.slots.get(key).copied()
    }

    /// Of a slot in use, or of one that was until this revision.
    pub(super) fn key(&self, slot: u32) -> &RecordKey {
        &self.keys[slot as usize]
    }

    /// None of one that is gone.
    pub(super) fn identity(&self, slot: u32) -> Option<Identity> {
        Some(self.known[slot as usize].as_ref()?.identity)
    }

    pub(super) fn of_identity(&self, identity: Identity) -> &RoaringBitmap {
        self.of_identity.get(&identity).unwrap_or(&self.nothing)
    }

    pub(super) fn on_node(&self, node: &Name) -> &RoaringBitmap {
        self.on_node.get(node).unwrap_or(&self.nothing)
    }

    pub(super) fn identities_on(&self, node: &Name) -> BTreeSet<Identity> {
        self.on_node(node).iter().filter_map(|slot| self.identity(slot)).collect()
    }

    /// Who has one of these addresses.
    pub(super) fn claiming(&self, addresses: &BTreeSet<IpAddr>) -> RoaringBitmap {
        addresses
            .iter()
            .filter_map(|address| self.claims.get(address))
            .flat_map(|claims| claims.endpoints.iter().copied())
            .collect()
    }

    pub(super) fn claims_any(&self, slot: u32, addresses: &BTreeSet<IpAddr>) -> bool {
        self.known[slot as usize].as_ref().is_some_and(|peer| !peer.addresses.is_disjoint(addresses))
    }

    /// A node without a record has what is built in.
    pub(super) fn host(&self, node: &Name) -> LabelSet {
        self.hosts.get(node).cloned().unwrap_or_else(|| reserved_labels(Identity::HOST))
    }

    pub(super) const fn always(&self) -> &RoaringBitmap {
        &self.always
    }

    /// A record of an endpoint, node or cluster as it was and as it is.
    pub(super) fn change(&mut self, before: Option<&Record>, after: Option<&Record>, touched: &mut Touched) {
        for (record, comes) in [(before, false), (after, true)] {
            match record {
                Some(Record::Endpoint(endpoint)) if comes => self.put(endpoint, touched),
                Some(Record::Endpoint(endpoint)) => self.remove(endpoint, touched),
                Some(Record::Node(node)) => {
                    self.change_host(node, comes, touched);
                    for address in node.addresses.iter().collect::<BTreeSet<_>>() {
                        let claims = self.claims.entry(*address).or_default();
                        claims.nodes = if comes { claims.nodes + 1 } else { claims.nodes - 1 };
                        touched.endpoints.extend(&claims.endpoints);
                        self.drop_claims(*address);
                    }
                }
                Some(Record::Cluster(cluster)) => {
                    for range in &cluster.pod_cidrs {
                        let count = self.pods.entry(*range).or_default();
                        *count = if comes { *count + 1 } else { *count - 1 };
                        if *count == 0 {
                            self.pods.remove(range);
                        }
                    }
                    touched.endpoints.extend(self.slots.values());
                }
                _ => {}
            }
        }
    }

    /// Finds out who is in every view now, of those that were touched.
    pub(super) fn settle(&mut self, reach: &Reach, touched: &mut Touched) {
        for identity in &touched.identities {
            touched.endpoints |= self.of_identity(*identity);
        }
        for slot in &touched.endpoints {
            if self.is_always_needed(slot, reach) {
                self.always.insert(slot)
            } else {
                self.always.remove(slot)
            };
        }
    }

    /// The slots of those that are gone may be used again.
    pub(super) fn forget_removed(&mut self) {
        for slot in std::mem::take(&mut self.removed) {
            if self.known[slot as usize].is_none() {
                self.slots.remove(&self.keys[slot as usize]);
                self.free.push(slot);
            }
        }
    }

    fn put(&mut self, endpoint: &Endpoint, touched: &mut Touched) {
        let key = endpoint.key();
        let slot = self.slots.get(&key).copied().unwrap_or_else(|| {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.known.push(None);
                self.keys.push(key.clone());
                u32::try_from(self.known.len() - 1).expect("there are fewer than 2^32 endpoints")
            });
            self.keys[slot as usize] = key.clone();
            self.slots.insert(key.clone(), slot);
            slot
        });
        let addresses: BTreeSet<IpAddr> = endpoint.addresses.iter().copied().collect();
        for address in &addresses {
            let claims = self.claims.entry(*address).or_default();
            claims.endpoints.push(slot);
            touched.endpoints.extend(&claims.endpoints);
        }
        for port in &endpoint.named_ports {
            let having = self.named_ports.entry(port.clone()).or_default();
            touched.endpoints.extend(having.first().and_then(|first| self.slots.get(first)));
            having.insert(key.clone());
        }
        self.of_identity.entry(endpoint.identity).or_default().insert(slot);
        if endpoint.cluster == self.cluster {
            self.on_node.entry(endpoint.node.clone()).or_default().insert(slot);
        }
        let named_ports = endpoint.named_ports.clone();
        self.known[slot as usize] = Some(Peer { identity: endpoint.identity, addresses, named_ports });
        self.note(endpoint, slot, touched);
    }

    fn remove(&mut self, endpoint: &Endpoint, touched: &mut Touched) {
        let key = endpoint.key();
        let Some(slot) = self.slots.get(&key).copied() else { return };
        let Some(peer) = self.known[slot as usize].take() else { return };
        for address in peer.addresses {
            if let Some(claims) = self.claims.get_mut(&address) {
                claims.endpoints.retain(|claimant| *claimant != slot);
                touched.endpoints.extend(&claims.endpoints);
            }
            self.drop_claims(address);
        }
        for port in &peer.named_ports {
            if let Some(having) = self.named_ports.get_mut(port) {
                having.remove(&key);
                touched.endpoints.extend(having.first().and_then(|first| self.slots.get(first)));
                if having.is_empty() {
                    self.named_ports.remove(port);
                }
            }
        }
        remove_from(&mut self.of_identity, &peer.identity, slot);
        if endpoint.cluster == self.cluster
            && let Some(slots) = self.on_node.get_mut(&endpoint.node)
        {
            slots.remove(slot);
            if slots.is_empty() {
                self.on_node.remove(&endpoint.node);
            }
        }
        self.removed.push(slot);
        self.note(endpoint, slot, touched);
    }

    fn change_host(&mut self, node: &Node, comes: bool, touched: &mut Touched) {
        if node.cluster != self.cluster {
            return;
        }
        if comes {
            let built_in = reserved_labels(Identity::HOST);
            let labels = node.labels.iter().chain(built_in.iter()).cloned().collect();
            self.hosts.insert(node.name.clone(), labels);
        } else {
            self.hosts.remove(&node.name);
        }
        touched.nodes.insert(node.name.clone());
    }

    fn note(&self, endpoint: &Endpoint, slot: u32, touched: &mut Touched) {
        touched.changed.insert(slot);
        touched.endpoints.insert(slot);
        touched.worn.insert(endpoint.identity);
        if endpoint.cluster == self.cluster {
            touched.nodes.insert(endpoint.node.clone());
        }
    }

    fn drop_claims(&mut self, address: IpAddr) {
        if self.claims.get(&address).is_some_and(|claims| claims.nodes == 0 && claims.endpoints.is_empty()) {
            self.claims.remove(&address);
        }
    }

    fn is_always_needed(&self, slot: u32, reach: &Reach) -> bool {
        let Some(peer) = &self.known[slot as usize] else { return false };
        let in_pods = |address: &IpAddr| self.pods.keys().any(|range| range.contains(*address));
        let contested = |address: &IpAddr| {
            self.claims.get(address).is_some_and(|claims| claims.nodes > 0 || claims.endpoints.len() > 1)
        };
        let is_first = |port: &NamedPort| {
            self.named_ports.get(port).and_then(BTreeSet::first).is_some_and(|first| first == self.key(slot))
        };
        !is_of_store(peer.identity)
            || reach.labels(peer.identity).is_none()
            || peer.addresses.iter().any(|address| !in_pods(address) || contested(address))
            || peer.named_ports.iter().any(is_first)
    }
}

fn remove_from(map: &mut HashMap<Identity, RoaringBitmap>, identity: &Identity, slot: u32) {
    if let Some(slots) = map.get_mut(identity) {
        slots.remove(slot);
        if slots.is_empty() {
            map.remove(identity);
        }
    }
}
