mod blocks;
mod leases;
mod life;
mod properties;
mod records;
mod scale;

use std::net::IpAddr;

use ringfence_policy::{
    command::{EndpointSpec, SignOfLife},
    identity::ClusterId,
    label::LabelSet,
    record::{Delta, IdentityBlock, MAX_BLOCK_NUMBERS, PolicyKey, PolicyKind, PolicyRecord},
    revision::Revision,
};

use super::{ledger::NumberState, *};

/// A mesh that commands move as the state machine does.
#[derive(Default, Clone)]
struct Scene {
    mesh: Mesh,
    book: Book,
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
        let ran = self.run_unchecked(command)?;
        self.check_book(command);
        Ok(ran)
    }

    fn run_unchecked(&mut self, command: &Command) -> Result<(usize, Option<Identity>), Refusal> {
        let transition = transition(&self.mesh, &self.book, command)?;
        for (change, former) in transition.changes() {
            assert_eq!(former, self.mesh.records().get(&change.key()), "what {command:?} found stays what was there");
        }
        self.book.apply(&transition);
        let (changes, identity) = transition.into_parts();
        let count = changes.len();
        if count > 0 {
            self.mesh.apply(&Delta { revision: self.mesh.revision().next(), changes }).unwrap();
        }
        Ok((count, identity))
    }

    fn check_book(&self, after: &Command) {
        let book = Book::of(&self.mesh, self.book.ledger().clone());
        assert_eq!(self.book, book, "the index follows mesh and ledger, whatever {after:?} did");
    }

    /// Puts records past the commands.
    fn put(&mut self, records: impl IntoIterator<Item = Record>) {
        let changes = records.into_iter().map(Change::Put).collect();
        self.mesh.apply(&Delta { revision: self.mesh.revision().next(), changes }).unwrap();
        self.book = Book::of(&self.mesh, self.book.ledger().clone());
    }

    /// Lets time pass in the steps of a leader; the changes of all revisions that it makes.
    fn pass(&mut self, time_ms: u64) -> usize {
        let end_ms = self.book.ledger().clock_ms() + time_ms;
        let mut changes = 0;
        while self.book.ledger().clock_ms() < end_ms {
            let now_ms = end_ms.min(self.book.ledger().clock_ms() + 5000);
            changes += self.run_unchecked(&Command::Housekeeping(Housekeeping::Tick { now_ms })).unwrap().0;
        }
        changes
    }

    /// East's and west's nodes serve packets with the newest revision.
    fn realise(&mut self) {
        self.realise_in(&["east", "west"]);
    }

    fn realise_in(&mut self, clusters: &[&str]) {
        let realised = self.mesh.revision();
        for cluster in clusters {
            self.run(&keep_alive(cluster, &[("n1", realised)])).unwrap();
        }
    }

    fn refused(&mut self, command: &Command) -> Refusal {
        let before = (self.mesh.clone(), self.book.clone());
        let refusal = self.run(command).unwrap_err();
        assert!((&self.mesh, &self.book) == (&before.0, &before.1));
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
    Node { cluster: name(cluster), name: name(node), addresses, labels: LabelSet::default() }
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

fn keep_alive(cluster: &str, nodes: &[(&str, Revision)]) -> Command {
    let sign = |(node, realised): &(&str, Revision)| SignOfLife { node: name(node), realised: *realised };
    Command::KeepAlive { cluster: name(cluster), nodes: nodes.iter().map(sign).collect() }
}

/// Blocks that leave east the numbers up to `free`.
fn all_but(free: u32) -> impl Iterator<Item = Record> {
    (free + 1..=Identity::MAX_NUMBER).step_by(MAX_BLOCK_NUMBERS as usize).map(|first| {
        let holder = name(&format!("g{first}"));
        let count = MAX_BLOCK_NUMBERS.min(Identity::MAX_NUMBER - first + 1);
        let first = number(1, first).unwrap();
        Record::Block(IdentityBlock { cluster: name("east"), holder, first, count, spent: 0 })
    })
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
fn s4_a_cluster_keeps_its_id_while_it_has_numbers() {
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

/// A node's proxy and health check (docs/decisions/0011).
#[test]
fn proxies_have_reserved_numbers_that_nobody_gives_or_takes_away() {
    let mut scene = Scene::new();
    let proxy = |cluster, address: &str| endpoint(cluster, "reserved-ingress", &[address], &["reserved:ingress"]);
    let before = scene.mesh.records().len();
    assert_eq!(scene.run(&proxy("east", "10.101.1.8")).unwrap(), (1, Some(Identity::INGRESS)));
    assert_eq!(scene.run(&proxy("west", "10.102.1.8")).unwrap(), (1, Some(Identity::INGRESS)));
    let health = endpoint("east", "reserved-health", &["10.101.1.4"], &["reserved:health"]);
    assert_eq!(scene.run(&health).unwrap(), (1, Some(Identity::HEALTH)));
    assert_eq!(scene.mesh.records().len(), before + 3, "no identity gets a record");
    let Some(Record::Endpoint(record)) = scene.mesh.get(&key("east", "reserved-ingress")) else { panic!("no record") };
    assert_eq!(record.labels.to_string(), "reserved:ingress", "and no cluster's label");
    let (address, owner) = ("10.101.1.8".parse().unwrap(), key("east", "reserved-ingress"));
    let in_use = Refusal::AddressInUse { address, owner };
    assert_eq!(scene.refused(&endpoint("west", "web", &["10.101.1.8"], &[])), in_use);
    assert_eq!(scene.refused(&Command::PutNode(node("west", "n2", &["10.101.1.8"]))), in_use);
    for others in [&["reserved:host"][..], &["reserved:ingress", "k8s:app=web"], &["reserved:world"]] {
        let refusal = scene.refused(&endpoint("east", "forged", &["10.101.1.9"], others));
        assert!(matches!(refusal, Refusal::ReservedLabel { .. }), "{refusal}");
    }
    assert!(matches!(scene.refused(&allocate("east", &["reserved:ingress"])), Refusal::ReservedLabel { .. }));
    for (cluster, pod) in [("east", "reserved-ingress"), ("west", "reserved-ingress"), ("east", "reserved-health")] {
        scene.run(&Command::Delete(key(cluster, pod))).unwrap();
    }
    assert_eq!(scene.book.ledger().numbers().len(), 0, "and a reserved number never becomes idle");
    scene.realise();
    assert_eq!(scene.pass(3 * 3_600_000), 0);
    assert_eq!(scene.mesh.records().len(), before);
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
