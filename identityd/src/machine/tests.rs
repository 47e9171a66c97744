use std::net::IpAddr;

use ringfence_policy::{
    command::EndpointSpec,
    identity::ClusterId,
    label::LabelSet,
    record::{Delta, PolicyKind},
};

use super::*;

/// A mesh that commands move as the state machine does.
#[derive(Default)]
struct Scene {
    mesh: Mesh,
    index: Index,
}

impl Scene {
    /// Clusters east (1) and west (2), each with node n1.
    fn new() -> Self {
        let mut scene = Self::default();
        for (id, cluster) in [(1, "east"), (2, "west")] {
            let range = format!("10.10{id}.0.0/16").parse().unwrap();
            scene.run(&Command::PutCluster(cluster_of(cluster, id, &[range]))).unwrap();
            scene.run(&Command::PutNode(node(cluster, "n1", &[&format!("10.40.{id}.1")]))).unwrap();
        }
        scene
    }

    fn run(&mut self, command: &Command) -> Result<(usize, Option<Identity>), Refusal> {
        let (changes, identity) = transition(&self.mesh, &self.index, command)?;
        let count = changes.len();
        self.index.apply(&self.mesh, &changes);
        if count > 0 {
            self.mesh.apply(&Delta { revision: self.mesh.revision().next(), changes }).unwrap();
        }
        assert_eq!(self.index, Index::of(&self.mesh), "the index follows the mesh, whatever {command:?} did");
        Ok((count, identity))
    }

    fn refused(&mut self, command: &Command) -> Refusal {
        let before = self.mesh.clone();
        let refusal = self.run(command).unwrap_err();
        assert_eq!(self.mesh, before);
        refusal
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn cluster_of(cluster: &str, id: u32, pod_cidrs: &[Cidr]) -> Cluster {
    Cluster { name: name(cluster), id: ClusterId::new(id).unwrap(), pod_cidrs: pod_cidrs.to_vec() }
}

fn node(cluster: &str, node: &str, addresses: &[&str]) -> Node {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Node { cluster: name(cluster), name: name(node), addresses }
}

fn labels(texts: &[&str]) -> LabelSet {
    LabelSet::parse(texts).unwrap()
}

fn endpoint(cluster: &str, endpoint: &str, addresses: &[&str], texts: &[&str]) -> Command {
    Command::PutEndpoint(EndpointSpec {
        cluster: name(cluster),
        node: name("n1"),
        name: name(endpoint),
        addresses: addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
        labels: labels(texts),
        named_ports: vec![],
    })
}

fn allocate(cluster: &str, texts: &[&str]) -> Command {
    Command::AllocateIdentity { cluster: name(cluster), labels: labels(texts) }
}

fn number(cluster: u32, number: u32) -> Option<Identity> {
    Some(Identity::global(ClusterId::new(cluster).unwrap(), number).unwrap())
}

fn key(cluster: &str, endpoint: &str) -> RecordKey {
    RecordKey::Endpoint(name(cluster), name("n1"), name(endpoint))
}

fn policy(policy: &str, text: &str) -> PolicyRecord {
    let key = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: Some(name("shop")), name: name(policy) };
    PolicyRecord { key, text: text.to_owned() }
}

#[test]
fn s5_one_label_set_one_number() {
    let mut scene = Scene::new();
    assert_eq!(scene.run(&endpoint("east", "web-1", &["10.101.1.1"], &["k8s:app=web"])), Ok((2, number(1, 1))));
    assert_eq!(scene.run(&endpoint("east", "web-2", &["10.101.1.2"], &["k8s:app=web"])), Ok((1, number(1, 1))));
    assert_eq!(scene.run(&allocate("east", &["k8s:app=web"])), Ok((0, number(1, 1))));
    assert_eq!(scene.run(&allocate("east", &["k8s:app=api"])), Ok((1, number(1, 2))));
    assert_eq!(scene.run(&allocate("west", &["k8s:app=web"])), Ok((1, number(2, 1))), "another cluster, another set");
    let explicit = "k8s:io.cilium.k8s.policy.cluster=east";
    assert_eq!(scene.run(&allocate("east", &["k8s:app=web", explicit])), Ok((0, number(1, 1))));
    let Some(Record::Endpoint(web)) = scene.mesh.get(&key("east", "web-1")) else { panic!("no endpoint") };
    assert_eq!(web.labels, labels(&["k8s:app=web", explicit]));
    assert_eq!(Some(web.identity), number(1, 1));
}

#[test]
fn s4_a_number_is_never_reused() {
    let mut scene = Scene::new();
    scene.run(&endpoint("east", "web-1", &["10.101.1.1"], &["k8s:app=web"])).unwrap();
    scene.run(&Command::Delete(key("east", "web-1"))).unwrap();
    assert_eq!(scene.run(&allocate("east", &["k8s:app=api"])), Ok((1, number(1, 2))));
    for key in [RecordKey::Node(name("east"), name("n1")), RecordKey::Cluster(name("east"))] {
        scene.run(&Command::Delete(key)).unwrap();
    }
    let id = ClusterId::new(1).unwrap();
    let taken = scene.refused(&Command::PutCluster(cluster_of("south", 1, &[])));
    assert_eq!(taken, Refusal::ClusterIdInUse { id, owner: name("east") });
    let changed = scene.refused(&Command::PutCluster(cluster_of("east", 3, &[])));
    assert_eq!(changed, Refusal::ClusterIdChanged { cluster: name("east"), id });
    scene.run(&Command::PutCluster(cluster_of("east", 1, &[]))).unwrap();
    assert_eq!(scene.run(&allocate("east", &["k8s:app=db"])), Ok((1, number(1, 3))));
}

#[test]
fn what_is_so_already_makes_no_revision() {
    let mut scene = Scene::new();
    let commands = [
        Command::PutCluster(cluster_of("south", 3, &["10.103.0.0/16".parse().unwrap()])),
        Command::PutNode(node("south", "n1", &["10.40.3.1"])),
        endpoint("south", "web", &["10.103.1.1", "10.103.1.1", "fd10::1"], &["k8s:app=web"]),
        Command::PutPolicies(vec![policy("a", "1"), policy("b", "2")]),
        allocate("south", &["k8s:app=api"]),
    ];
    for command in &commands {
        assert!(scene.run(command).unwrap().0 > 0, "{command:?}");
        assert_eq!(scene.run(command).unwrap().0, 0, "{command:?}");
    }
    assert_eq!(scene.run(&Command::PutPolicies(vec![policy("a", "1"), policy("b", "3")])).unwrap().0, 1);
}

#[test]
fn every_refusal_changes_nothing() {
    let mut scene = Scene::new();
    scene.run(&endpoint("east", "web", &["10.101.1.1"], &["k8s:app=web"])).unwrap();
    let (east, west, south) = (name("east"), name("west"), name("south"));
    let (one, two) = (ClusterId::new(1).unwrap(), ClusterId::new(2).unwrap());
    let (web, n1) = (key("east", "web"), RecordKey::Node(name("east"), name("n1")));
    let address = "10.101.1.1".parse().unwrap();
    let range = "10.102.128.0/17".parse().unwrap();
    let foreign = "k8s:io.cilium.k8s.policy.cluster=west";
    let node_of_south = node("south", "n1", &[]);
    let mut elsewhere = endpoint("east", "a", &["10.101.1.9"], &[]);
    if let Command::PutEndpoint(spec) = &mut elsewhere {
        spec.node = name("n9");
    }
    let absent = RecordKey::Policy(policy("absent", "").key);
    let cases = [
        (Command::PutNode(node_of_south), Refusal::UnknownCluster { cluster: south.clone() }),
        (endpoint("south", "a", &["10.103.1.1"], &[]), Refusal::UnknownCluster { cluster: south.clone() }),
        (allocate("south", &[]), Refusal::UnknownCluster { cluster: south }),
        (elsewhere, Refusal::UnknownNode { cluster: east.clone(), node: name("n9") }),
        (Command::PutCluster(cluster_of("south", 2, &[])), Refusal::ClusterIdInUse { id: two, owner: west.clone() }),
        (Command::PutCluster(cluster_of("east", 3, &[])), Refusal::ClusterIdChanged { cluster: east.clone(), id: one }),
        (Command::PutCluster(cluster_of("south", 3, &[range])), Refusal::PodCidrOverlap { range, owner: west }),
        (endpoint("west", "a", &["10.101.1.1"], &[]), Refusal::AddressInUse { address, owner: web.clone() }),
        (Command::PutNode(node("west", "n2", &["10.101.1.1"])), Refusal::AddressInUse { address, owner: web.clone() }),
        (endpoint("east", "a", &[], &[]), Refusal::NoAddress { endpoint: name("a") }),
        (allocate("east", &[foreign]), Refusal::ForeignClusterLabel { label: foreign.into(), cluster: east.clone() }),
        (allocate("east", &["reserved:host"]), Refusal::ReservedLabel { label: "reserved:host".into() }),
        (allocate("east", &["cidr:10.0.0.0/8"]), Refusal::ReservedLabel { label: "cidr:10.0.0.0/8".into() }),
        (Command::DeletePolicies(vec![policy("absent", "").key]), Refusal::NotFound { key: absent.clone() }),
        (Command::Delete(key("east", "absent")), Refusal::NotFound { key: key("east", "absent") }),
        (Command::Delete(n1.clone()), Refusal::InUse { key: n1.clone(), user: web }),
        (Command::Delete(RecordKey::Cluster(east.clone())), Refusal::InUse { key: RecordKey::Cluster(east), user: n1 }),
        (Command::Delete(absent.clone()), Refusal::NotDeletable { key: absent }),
    ];
    for (command, refusal) in cases {
        assert_eq!(scene.refused(&command), refusal, "{command:?}");
    }
}

#[test]
fn the_last_number_of_a_cluster_is_followed_by_a_refusal() {
    let mut scene = Scene::new();
    let identity = Identity::global(ClusterId::new(1).unwrap(), Identity::MAX_NUMBER).unwrap();
    let labels = labels(&["k8s:app=last", "k8s:io.cilium.k8s.policy.cluster=east"]);
    let last = Record::Identity(ringfence_policy::record::IdentityRecord { identity, labels });
    let delta = Delta { revision: scene.mesh.revision().next(), changes: vec![Change::Put(last)] };
    scene.mesh.apply(&delta).unwrap();
    scene.index = Index::of(&scene.mesh);
    assert_eq!(scene.run(&allocate("east", &["k8s:app=last"])), Ok((0, Some(identity))));
    let refusal = scene.refused(&allocate("east", &["k8s:app=more"]));
    assert_eq!(refusal, Refusal::IdentitiesExhausted { cluster: name("east") });
}

#[test]
fn addresses_move_with_their_endpoint() {
    let mut scene = Scene::new();
    scene.run(&endpoint("east", "web", &["10.101.1.1", "10.101.1.2"], &[])).unwrap();
    scene.run(&endpoint("east", "web", &["10.101.1.2", "10.101.1.3"], &[])).unwrap();
    scene.run(&endpoint("east", "api", &["10.101.1.1"], &[])).unwrap();
    scene.run(&Command::Delete(key("east", "web"))).unwrap();
    scene.run(&endpoint("west", "web", &["10.101.1.2"], &[])).unwrap();
}

#[test]
fn policies_are_removed_all_or_none() {
    let mut scene = Scene::new();
    scene.run(&Command::PutPolicies(vec![policy("a", "1"), policy("b", "2")])).unwrap();
    let (a, b, c) = (policy("a", "").key, policy("b", "").key, policy("c", "").key);
    scene.refused(&Command::DeletePolicies(vec![a.clone(), c]));
    assert_eq!(scene.run(&Command::DeletePolicies(vec![a.clone(), b, a])).unwrap().0, 2);
    assert_eq!(scene.mesh.policies().count(), 0);
}
