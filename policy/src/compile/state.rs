//! What a node's tables follow from, kept up to date record by record.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    LocalNode,
    addresses::Addresses,
    nodes::Nodes,
    objects::{ObjectChanges, Objects},
    problem::Problem,
    ranges::{IdentityChanges, Ranges},
    tracked::Tracked,
};
use crate::{
    engine::{Engine, Subject},
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::{Endpoint, NamedPort, Record, RecordKey},
    reserved::reserved_labels,
    tables::{AddressEntry, EndpointEntry, EndpointId, PolicyId, TableDiff, Tables},
    world::{Settings, World},
};

#[derive(Debug)]
pub(super) struct State {
    cluster: Name,
    node: Name,
    engine: Engine,
    addresses: Addresses,
    ranges: Ranges,
    nodes: Nodes,
    objects: Objects,
    /// How many endpoints have an identity.
    used: BTreeMap<Identity, usize>,
    /// Used, and without labels.
    unlabelled: BTreeSet<Identity>,
    /// How many endpoints call a port so.
    named_ports: BTreeMap<NamedPort, usize>,
    /// The records of this node's endpoints.
    here: BTreeMap<Name, Here>,
    attached: BTreeMap<Name, EndpointId>,
    subjects: BTreeSet<Subject>,
    endpoints: Tracked<EndpointId, EndpointEntry>,
    host: Host,
}

/// The node itself.
#[derive(Debug, Default)]
struct Host {
    /// Of its record.
    addresses: BTreeSet<IpAddr>,
    labels: LabelSet,
    /// Claimed for it, with those of its devices.
    claimed: BTreeMap<IpAddr, AddressEntry>,
    /// Whether it is under audit; none if it is no subject.
    audit: Option<bool>,
}

/// An endpoint of this node.
#[derive(Debug)]
struct Here {
    subject: Subject,
    addresses: Vec<IpAddr>,
}

impl Here {
    /// A proxy or health check of the node.
    fn is_reserved(&self) -> bool {
        [Identity::INGRESS, Identity::HEALTH].contains(&self.subject.identity)
    }

    fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }
}

/// What records change, in the end.
#[derive(Debug, Default)]
struct Batch {
    identities: IdentityChanges,
    objects: ObjectChanges,
    /// Identities whose use or whose labels changed.
    touched: BTreeSet<Identity>,
    names_changed: bool,
}

impl State {
    pub(super) fn new(settings: Settings, local: &LocalNode, in_force: &Tables) -> Self {
        Self {
            cluster: local.cluster.clone(),
            node: local.node.clone(),
            addresses: Addresses::default(),
            ranges: Ranges::new(settings.dual_stack, &in_force.ranges),
            engine: Engine::new(settings),
            nodes: Nodes::new(&in_force.addresses),
            objects: Objects::default(),
            used: BTreeMap::new(),
            unlabelled: BTreeSet::new(),
            named_ports: BTreeMap::new(),
            here: BTreeMap::new(),
            attached: BTreeMap::new(),
            subjects: BTreeSet::new(),
            endpoints: Tracked::default(),
            host: Host { audit: local.host.as_ref().map(|host| host.audit), ..Host::default() },
        }
    }

    /// Records as they were and as they are, each with the same key.
    pub(super) fn change<'r>(&mut self, changes: impl IntoIterator<Item = (Option<&'r Record>, Option<&'r Record>)>) {
        let mut batch = Batch::default();
        for (before, after) in changes {
            if before == after {
                continue;
            }
            match (before, after) {
                // Put in the place of what was there, so that ranges of both stay.
                (Some(Record::Policy(_)), Some(_)) => {}
                (before, _) => before.into_iter().for_each(|record| self.remove(record, &mut batch)),
            }
            after.into_iter().for_each(|record| self.put(record, &mut batch));
        }
        for more in std::mem::take(&mut batch.objects.asking) {
            self.nodes.ask(more, &mut self.addresses, &mut batch.identities);
        }
        let Batch { identities, objects, touched, names_changed } = batch;
        let (put, removed): (Vec<_>, Vec<_>) = identities.0.into_iter().partition(|(_, labels)| labels.is_some());
        self.engine.put_identities(put.into_iter().filter_map(|(identity, labels)| Some((identity, labels?))));
        self.engine.change_objects(objects.put, objects.removed);
        self.engine.remove_identities(removed.into_iter().map(|(identity, _)| identity));
        if names_changed {
            let peer_ports = self.named_ports.keys().cloned().collect();
            self.engine.set_world(World { peer_ports, ..World::default() });
        }
        for identity in touched {
            let labelled = match is_of_store(identity) {
                true => self.engine.labels(identity).is_some(),
                false => !identity.is_local(),
            };
            if self.used.contains_key(&identity) && !labelled {
                self.unlabelled.insert(identity);
            } else {
                self.unlabelled.remove(&identity);
            }
        }
    }

    /// These endpoints have devices on the node, and no others.
    pub(super) fn attach(&mut self, local: &LocalNode) {
        let names: BTreeSet<&Name> = self.attached.keys().chain(local.endpoints.keys()).collect();
        let moved: Vec<Name> =
            names.into_iter().filter(|name| self.attached.get(*name) != local.endpoints.get(*name)).cloned().collect();
        for name in moved {
            let id = local.endpoints.get(&name).copied();
            if let Some(here) = self.here.get(&name) {
                let key = RecordKey::Endpoint(self.cluster.clone(), self.node.clone(), name.clone());
                self.addresses.claim(&key, &here.addresses, here.subject.identity, id);
            }
            match id {
                Some(id) => self.attached.insert(name, id),
                None => self.attached.remove(&name),
            };
        }
        self.settle_host(local);
        let host = self.host.audit.map(|_| Subject::from(Identity::HOST));
        let of_endpoints = self.attached.keys().filter_map(|name| Some(self.here.get(name)?.subject.clone()));
        let subjects: BTreeSet<Subject> = of_endpoints.chain(host).collect();
        // Who comes first: a policy that somebody else has then need not go.
        subjects.difference(&self.subjects).for_each(|subject| self.engine.add_subject(subject.clone()));
        self.subjects.difference(&subjects).for_each(|subject| self.engine.remove_subject(subject));
        self.subjects = subjects;
        self.settle_endpoints(&local.audited);
    }

    /// The node's addresses are its own, with the endpoint that it is if it is one.
    fn settle_host(&mut self, local: &LocalNode) {
        let own = AddressEntry { identity: Identity::HOST, endpoint: local.host.as_ref().map(|_| EndpointId::HOST) };
        let unknown = AddressEntry { identity: Identity::UNKNOWN, endpoint: None };
        let of_record = self.host.addresses.iter().map(|address| (*address, own));
        // A proxy may listen at an address of a device: then that one is the proxy's (docs/decisions/0011).
        let lent: BTreeSet<IpAddr> = self.here.values().filter(|here| here.is_reserved()).flat_map(Here::own).collect();
        let of_devices = local.host.iter().flat_map(|host| host.addresses.iter().map(move |address| (host, *address)));
        let of_devices = of_devices.filter(|(_, address)| !lent.contains(address));
        let of_devices =
            of_devices.map(|(host, address)| (address, if host.unsure.contains(&address) { unknown } else { own }));
        // What the node's record says is sure.
        let wanted: BTreeMap<IpAddr, AddressEntry> = of_devices.chain(of_record).collect();
        if wanted != self.host.claimed {
            let key = RecordKey::Node(self.cluster.clone(), self.node.clone());
            let gone: Vec<IpAddr> =
                self.host.claimed.keys().filter(|address| !wanted.contains_key(*address)).copied().collect();
            self.addresses.give_up(&key, &gone);
            for (address, entry) in
                wanted.iter().filter(|(address, entry)| self.host.claimed.get(*address) != Some(*entry))
            {
                self.addresses.claim(&key, &[*address], entry.identity, entry.endpoint);
            }
            self.host.claimed = wanted;
        }
        self.host.audit = local.host.as_ref().map(|host| host.audit);
    }

    fn settle_endpoints(&mut self, audited: &BTreeSet<Name>) {
        let entry = |subject: &Subject, audit| {
            let policed = self.engine.policed(subject)?;
            let (policy, shadow) = (policed.policy, policed.shadow);
            Some(EndpointEntry { identity: subject.identity, policy, shadow, audit })
        };
        let of_endpoints = self
            .attached
            .iter()
            .filter_map(|(name, id)| Some((*id, entry(&self.here.get(name)?.subject, audited.contains(name))?)));
        let host = self.host.audit.and_then(|audit| entry(&Subject::from(Identity::HOST), audit));
        let host = host.map(|entry| (EndpointId::HOST, entry));
        let entries: BTreeMap<EndpointId, EndpointEntry> = of_endpoints.chain(host).collect();
        let gone: Vec<EndpointId> =
            self.endpoints.current().keys().filter(|id| !entries.contains_key(id)).copied().collect();
        gone.into_iter().for_each(|id| self.endpoints.set(id, None));
        entries.into_iter().for_each(|(id, entry)| self.endpoints.set(id, Some(entry)));
    }

    /// What keeps the whole from being enforced.
    pub(super) fn blocking(&self) -> Vec<Problem> {
        let unlabelled = self.unlabelled.iter().map(|identity| Problem::UnknownIdentity { identity: *identity });
        let unresolvable = self.attached.keys().filter_map(|name| {
            let reason = self.engine.unresolvable(&self.here.get(name)?.subject)?;
            Some(Problem::Unresolvable { endpoint: name.clone(), reason })
        });
        let host = self.host.audit.and_then(|_| self.engine.unresolvable(&Subject::from(Identity::HOST)));
        let host = host.map(|reason| Problem::Unresolvable { endpoint: self.node.clone(), reason });
        self.objects.problems().chain(unlabelled).chain(unresolvable).chain(host).collect()
    }

    /// What somebody should look at.
    pub(super) fn problems(&self, local: &LocalNode) -> Vec<Problem> {
        let unknown = local.endpoints.keys().filter(|name| !self.here.contains_key(*name));
        let unknown = unknown.map(|endpoint| Problem::UnknownEndpoint { endpoint: endpoint.clone() });
        let bare = local.host.is_none();
        let host = self.objects.selecting_host(&self.host.labels).filter(|_| bare);
        let host = host.map(|key| Problem::HostNotEnforced { key: key.clone() });
        unknown.chain(self.addresses.conflicts()).chain(host).collect()
    }

    /// The edits since they were last taken.
    pub(super) fn take_edits(&mut self) -> TableDiff {
        TableDiff {
            addresses: self.addresses.take_edits(),
            ranges: self.ranges.take_edits(),
            endpoints: self.endpoints.take_edits(),
            ..self.engine.take_edits()
        }
    }

    /// The edits that lead from the tables in force to what is here. Policies there that say the same keep their numbers,
    /// and no other policy gets the number of one there.
    pub(super) fn adopt(&mut self, in_force: &Tables) -> TableDiff {
        let chosen = self.tables().equal_policies(in_force);
        let in_rows = in_force.rows.keys().map(|key| key.policy).chain(in_force.ports.keys().map(|key| key.policy));
        let in_endpoints = in_force.endpoints.values().flat_map(|entry| [Some(entry.policy), entry.shadow]).flatten();
        let taken: BTreeSet<PolicyId> = in_rows.chain(in_endpoints).collect();
        self.engine.renumber(&chosen, &taken);
        let audited = |(name, id)| {
            let entry: Option<&EndpointEntry> = self.endpoints.current().get(id);
            entry.is_some_and(|entry| entry.audit).then(|| Name::clone(name))
        };
        let audited: BTreeSet<Name> = self.attached.iter().filter_map(audited).collect();
        self.settle_endpoints(&audited);
        drop(self.take_edits());
        in_force.diff(&self.tables())
    }

    fn tables(&self) -> Tables {
        Tables {
            addresses: self.addresses.entries().clone(),
            ranges: self.ranges.entries().clone(),
            endpoints: self.endpoints.current().clone(),
            ..self.engine.tables()
        }
    }

    fn put(&mut self, record: &Record, batch: &mut Batch) {
        match record {
            Record::Cluster(cluster) => {
                cluster.pod_cidrs.iter().for_each(|range| self.ranges.add_pods(*range, &mut batch.identities));
            }
            Record::Node(node) if self.is_here(&node.cluster, &node.name) => {
                self.host.addresses = node.addresses.iter().copied().collect();
                // What is built in comes last, so that no label of that name replaces it (LBL-6).
                let built_in = reserved_labels(Identity::HOST);
                self.host.labels = node.labels.iter().chain(built_in.iter()).cloned().collect();
                if self.host.audit.is_some() {
                    batch.identities.put(Identity::HOST, self.host.labels.clone());
                }
            }
            Record::Node(node) => self.nodes.put(node, &mut self.addresses, &mut batch.identities),
            Record::Identity(record) if is_of_store(record.identity) => {
                batch.identities.put(record.identity, record.labels.clone());
                batch.touched.insert(record.identity);
            }
            Record::Identity(_) => {}
            Record::Endpoint(endpoint) => self.put_endpoint(endpoint, batch),
            Record::Policy(record) => {
                self.objects.put(record, &mut self.ranges, &mut batch.identities, &mut batch.objects);
            }
            Record::CidrGroup(_) | Record::Service(_) | Record::Fqdn(_) | Record::Block(_) | Record::Settings(_) => {}
        }
    }

    fn remove(&mut self, record: &Record, batch: &mut Batch) {
        match record {
            Record::Cluster(cluster) => {
                cluster.pod_cidrs.iter().for_each(|range| self.ranges.remove_pods(*range, &mut batch.identities));
            }
            Record::Node(node) if self.is_here(&node.cluster, &node.name) => {
                (self.host.addresses, self.host.labels) = (BTreeSet::new(), LabelSet::default());
                batch.identities.remove(Identity::HOST);
            }
            Record::Node(node) => self.nodes.remove(node, &mut self.addresses, &mut batch.identities),
            Record::Identity(record) if is_of_store(record.identity) => {
                batch.identities.remove(record.identity);
                batch.touched.insert(record.identity);
            }
            Record::Identity(_) => {}
            Record::Endpoint(endpoint) => {
                self.addresses.give_up(&endpoint.key(), &endpoint.addresses);
                if self.is_here(&endpoint.cluster, &endpoint.node) {
                    self.here.remove(&endpoint.name);
                }
                forget(&mut self.used, &endpoint.identity);
                batch.touched.insert(endpoint.identity);
                for port in &endpoint.named_ports {
                    batch.names_changed |= forget(&mut self.named_ports, port);
                }
            }
            Record::Policy(record) => {
                self.objects.remove(&record.key, &mut self.ranges, &mut batch.identities, &mut batch.objects);
            }
            Record::CidrGroup(_) | Record::Service(_) | Record::Fqdn(_) | Record::Block(_) | Record::Settings(_) => {}
        }
    }

    fn put_endpoint(&mut self, endpoint: &Endpoint, batch: &mut Batch) {
        let identity = endpoint.identity;
        let mut id = None;
        if self.is_here(&endpoint.cluster, &endpoint.node) {
            id = self.attached.get(&endpoint.name).copied();
            let subject = Subject { identity, named_ports: endpoint.named_ports.iter().cloned().collect() };
            self.here.insert(endpoint.name.clone(), Here { subject, addresses: endpoint.addresses.clone() });
        }
        self.addresses.claim(&endpoint.key(), &endpoint.addresses, identity, id);
        *self.used.entry(identity).or_default() += 1;
        batch.touched.insert(identity);
        for port in &endpoint.named_ports {
            let count = self.named_ports.entry(port.clone()).or_default();
            *count += 1;
            batch.names_changed |= *count == 1;
        }
    }

    fn is_here(&self, cluster: &Name, node: &Name) -> bool {
        (cluster, node) == (&self.cluster, &self.node)
    }
}

/// A reserved number means the same everywhere, and a local one means something on this node alone, whatever a record says.
fn is_of_store(identity: Identity) -> bool {
    identity.reserved_name().is_none() && !identity.is_local()
}

/// Whether nothing is left of it.
fn forget<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}
