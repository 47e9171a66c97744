//! A mesh of two clusters and three namespaces for tests to ask verdicts of.

use std::{collections::BTreeMap, sync::Arc};

use ringfence_policy::{
    compat::Compat,
    compile::{Compiler, LocalNode, Problem},
    evaluate::SubjectPolicy,
    flow::{Direction, Flow, Verdict},
    identity::Identity,
    label::LabelSet,
    mesh::Mesh,
    name::Name,
    object::{Object, parse_objects},
    record::{Change, Delta, Endpoint, IdentityRecord, PolicyRecord, Record},
    reserved::reserved_labels,
    tables::{EndpointId, Tables},
    world::{Settings, World},
};

/// Who is in the mesh besides the reserved identities: name, number, labels.
pub(crate) const PODS: [(&str, u32, &[&str]); 9] = [
    ("web", 0x10_0001, &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", EAST, "k8s:tier=front", SHOP_LABELS]),
    ("api", 0x10_0002, &["k8s:app=api", "k8s:io.kubernetes.pod.namespace=shop", EAST, SHOP_LABELS]),
    ("db", 0x10_0003, &["k8s:app=db", "k8s:io.kubernetes.pod.namespace=shop", EAST, SHOP_LABELS]),
    ("dev-api", 0x10_0004, &["k8s:app=api", "k8s:io.kubernetes.pod.namespace=dev", EAST, DEV_LABELS]),
    ("west-api", 0x20_0001, &["k8s:app=api", "k8s:io.kubernetes.pod.namespace=shop", WEST, SHOP_LABELS]),
    ("west-dev", 0x20_0002, &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=dev", WEST, DEV_LABELS]),
    ("vm", 0x10_0005, &["container:app=api", EAST]),
    ("init", 5, &["reserved:init"]),
    ("host", 1, &["reserved:host"]),
];
const EAST: &str = "k8s:io.cilium.k8s.policy.cluster=east";
const WEST: &str = "k8s:io.cilium.k8s.policy.cluster=west";
const SHOP_LABELS: &str = "k8s:io.cilium.k8s.namespace.labels.team=retail";
const DEV_LABELS: &str = "k8s:io.cilium.k8s.namespace.labels.team=tools";

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The number of a pod's or a reserved name.
pub(crate) fn identity(peer: &str) -> Identity {
    let pod = PODS.iter().find(|(pod, ..)| *pod == peer).map(|(_, bits, _)| *bits);
    let reserved = || (0..=10).find(|bits| Identity::from_bits(*bits).reserved_name() == Some(peer));
    Identity::from_bits(pod.or_else(reserved).unwrap_or_else(|| panic!("nobody is called {peer}")))
}

pub(crate) fn labels(peer: Identity) -> LabelSet {
    let pod = PODS.iter().find(|(_, bits, _)| *bits == peer.bits());
    pod.map_or_else(|| reserved_labels(peer), |(_, _, labels)| LabelSet::parse(*labels).unwrap())
}

/// Objects in force in a mesh whose pods all run on one node.
pub(crate) struct Scene {
    policies: BTreeMap<Identity, SubjectPolicy>,
    tables: Tables,
}

impl Scene {
    pub(crate) fn new(yaml: &str) -> Self {
        Self::with(yaml, Compat::Ringfence)
    }

    pub(crate) fn with(yaml: &str, compat: Compat) -> Self {
        let parsed = parse_objects(yaml);
        assert!(!parsed.has_errors(), "{:#?}\n{yaml}", parsed.diagnostics);
        let (tables, problems) = compiled(&mut Compiler::new(compat), &mesh(&parsed.objects), &local_node());
        assert_eq!(problems, []);
        let settings = Settings::new(name("east"), compat);
        let policy = |bits: u32| {
            let subject = Identity::from_bits(bits);
            let rules = parsed.objects.iter().flat_map(|object| &object.rules);
            let policy = SubjectPolicy::resolve(&settings, &World::default(), rules, subject, &labels(subject));
            (subject, policy.unwrap())
        };
        let policies = PODS.iter().map(|(_, bits, _)| policy(*bits)).collect();
        Self { policies, tables }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the specification says.
    pub(crate) fn specified(&self, flow: &Flow) -> Verdict {
        let decision = self.policies[&flow.subject].decide(flow, &labels(flow.peer));
        decision.verdict().unwrap_or_else(|| panic!("no verdict of tables: {decision:?}"))
    }

    /// What a packet would meet.
    pub(crate) fn compiled(&self, flow: &Flow) -> Verdict {
        self.tables.lookup(EndpointId(flow.subject.bits()), flow)
    }

    /// The verdict both agree on.
    pub(crate) fn verdict(&self, subject: &str, direction: Direction, peer: &str, protocol: u8, port: u16) -> Verdict {
        let flow = Flow { subject: identity(subject), peer: identity(peer), direction, protocol, port };
        let specified = self.specified(&flow);
        assert_eq!(self.compiled(&flow), specified, "tables (left) and specification (right) differ for {flow:?}");
        specified
    }
}

/// A mesh of all pods and these objects, stored as records would be.
pub(crate) fn mesh(objects: &[Object]) -> Mesh {
    let endpoints = PODS.iter().map(|(pod, bits, labels)| {
        Record::Endpoint(Arc::new(Endpoint {
            cluster: name("east"),
            node: name("node-1"),
            name: name(pod),
            addresses: vec![],
            labels: LabelSet::parse(*labels).unwrap(),
            identity: Identity::from_bits(*bits),
            named_ports: vec![],
        }))
    });
    let policies = objects
        .iter()
        .map(|object| Record::Policy(PolicyRecord { key: object.key.clone(), text: object.text.clone() }));
    let identities = PODS.iter().map(|(_, bits, labels)| identity_record(*bits, labels));
    let mut mesh = Mesh::default();
    change(&mut mesh, endpoints.chain(policies).chain(identities).map(Change::Put));
    mesh
}

pub(crate) fn identity_record(bits: u32, labels: &[&str]) -> Record {
    let labels = LabelSet::parse(labels.iter().copied()).unwrap();
    Record::Identity(IdentityRecord { identity: Identity::from_bits(bits), labels })
}

/// One revision of the mesh.
pub(crate) fn change(mesh: &mut Mesh, changes: impl IntoIterator<Item = Change>) {
    let revision = mesh.revision().next();
    mesh.apply(&Delta { revision, changes: changes.into_iter().collect() }).unwrap();
}

/// The whole tables, and the problems, from a compiler that has no tables in force.
pub(crate) fn compiled(compiler: &mut Compiler, mesh: &Mesh, local: &LocalNode) -> (Tables, Vec<Problem>) {
    let mut tables = Tables::default();
    let compilation = compiler.compile(mesh, local, &tables).unwrap();
    tables.apply(&compilation.diff);
    (tables, compilation.problems)
}

/// The node all pods run on; an endpoint's interface index is its identity.
pub(crate) fn local_node() -> LocalNode {
    let endpoints: BTreeMap<_, _> = PODS.iter().map(|(pod, bits, _)| (name(pod), EndpointId(*bits))).collect();
    LocalNode { endpoints, ..LocalNode::new(name("east"), name("node-1")) }
}
