//! Compilers that follow histories of a mesh come to the tables of one that has seen nothing else, whatever datapaths
//! refuse, however nodes restart, and wherever the history is lost on the way.
//!
//! `RINGFENCE_WORLDS` says how many histories.

#[cfg(test)]
#[path = "support/worlds.rs"]
mod worlds;

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::IpAddr,
        sync::Arc,
    };

    use ringfence_policy::{
        compile::{Compiler, LocalHost, LocalNode, Problem},
        flow::{Direction, Flow, protocol},
        identity::{ClusterId, Identity},
        label::LabelSet,
        mesh::Mesh,
        name::Name,
        object::parse_objects,
        record::{
            Change, Cluster, Delta, Endpoint, IdentityRecord, NamedPort, Node, PolicyRecord, Record, RecordKey,
            Snapshot,
        },
        revision::Revision,
        tables::{Class, Edit, EndpointId, TableDiff, Tables},
        view::{Viewer, Views},
    };

    use crate::worlds::worlds;

    /// Pseudo-random numbers; equal seeds make equal histories.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((self.0 >> 33) % limit as u64).unwrap()
        }

        fn one_in(&mut self, times: usize) -> bool {
            self.below(times) == 0
        }

        fn pick<T: Clone>(&mut self, from: &[T]) -> T {
            from[self.below(from.len())].clone()
        }
    }

    const PODS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    const RANGES: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/8", "0.0.0.0/0"];

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn identity(random: &mut Random) -> Identity {
        match random.below(8) {
            0 => Identity::from_bits(u32::try_from(random.below(12)).unwrap()),
            _ => numbered(random),
        }
    }

    /// One that the store gives: only such have records.
    fn numbered(random: &mut Random) -> Identity {
        Identity::from_bits(0x10_0001 + u32::try_from(random.below(6)).unwrap())
    }

    fn labels(random: &mut Random) -> LabelSet {
        let app = format!("k8s:app={}", random.pick(&PODS[..3]));
        LabelSet::parse([app.as_str(), "k8s:io.kubernetes.pod.namespace=shop"]).unwrap()
    }

    fn endpoint(random: &mut Random) -> Record {
        let address = |random: &mut Random| {
            let address: [u8; 4] = [10, 1, random.pick(&[2, 3]), u8::try_from(random.below(6)).unwrap()];
            address.into()
        };
        let port = |random: &mut Random| NamedPort {
            name: random.pick(&["http", "metrics"]).to_owned(),
            protocol: 6,
            port: random.pick(&[80, 8080]),
        };
        Record::Endpoint(Arc::new(Endpoint {
            cluster: name("east"),
            node: name(random.pick(&["n1", "n1", "n2"])),
            name: name(random.pick(&PODS)),
            addresses: (0..random.below(3)).map(|_| address(random)).collect(),
            labels: LabelSet::default(),
            identity: identity(random),
            named_ports: (0..random.below(2)).map(|_| port(random)).collect(),
        }))
    }

    fn policy(random: &mut Random) -> Record {
        let app = |random: &mut Random| format!("{{matchLabels: {{app: {}}}}}", random.pick(&PODS[..3]));
        let element = |random: &mut Random| {
            let peers = match random.below(7) {
                5 => format!("toNodes: [{{matchLabels: {{role: {}}}}}]", random.pick(&["edge", "core"])),
                0 => "toEntities: [all]".to_owned(),
                1 => "toEntities: [cluster, world]".to_owned(),
                2 => format!(
                    "toCIDRSet: [{{cidr: 10.0.0.0/8, except: [{}]}}]",
                    random.pick(&["10.1.0.0/16", "10.1.2.0/24"])
                ),
                3 => format!("toCIDR: ['{}']", random.pick(&RANGES)),
                _ => format!("toEndpoints: [{}]", app(random)),
            };
            let port = random.pick(&["80", "443, endPort: 500", "http", "0"]);
            let ports = if random.one_in(2) {
                format!(", toPorts: [{{ports: [{{port: {port}, protocol: TCP}}]}}]")
            } else {
                String::new()
            };
            format!("{{{peers}{ports}}}")
        };
        let lists = [
            format!(
                "ingress: [{}]",
                element(random).replace("toE", "fromE").replace("toC", "fromC").replace("toN", "fromN")
            ),
            format!("egress: [{}, {}]", element(random), element(random)),
            format!("egressDeny: [{}]", element(random)),
        ];
        let number = random.below(5);
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p{number}, namespace: shop}}, \
             spec: {{endpointSelector: {}, {}}}}}",
            if random.one_in(3) { "{}".to_owned() } else { app(random) },
            random.pick(&lists)
        );
        let text = if random.one_in(6) {
            let nodes = random.pick(&["nodeSelector: {}, ", "nodeSelector: {matchLabels: {role: edge}}, "]);
            let content = &text[text.find("ingress").or_else(|| text.find("egress")).unwrap()..];
            format!(
                "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: p{number}}}, \
                 spec: {{{nodes}{content}"
            )
        } else {
            text
        };
        let parsed = parse_objects(&text);
        assert!(!parsed.has_errors(), "{:?}\n{text}", parsed.diagnostics);
        let key = parsed.objects[0].key.clone();
        // Nobody can read it.
        let text = if random.one_in(16) { text.replace("Selector", "SelectorV3") } else { text };
        Record::Policy(PolicyRecord { key, text })
    }

    fn record(random: &mut Random) -> Record {
        match random.below(12) {
            0 => {
                let pod_cidrs = (0..random.below(3)).map(|_| random.pick(&RANGES[..4]).parse().unwrap()).collect();
                let which = random.pick(&[("east", 1), ("west", 2)]);
                Record::Cluster(Cluster { name: name(which.0), id: ClusterId::new(which.1).unwrap(), pod_cidrs })
            }
            1 => {
                let last = u8::try_from(random.below(4)).unwrap();
                let addresses = vec![[10, 1, 2, last].into(), [192, 0, 2, last].into()];
                let labels = random.pick(&[&[][..], &["k8s:role=edge"], &["k8s:role=edge", "k8s:zone=a"]]);
                let (node, labels) = (name(random.pick(&["n1", "n2", "n3"])), LabelSet::parse(labels).unwrap());
                Record::Node(Node { cluster: name("east"), name: node, addresses, labels })
            }
            2..5 => Record::Identity(IdentityRecord { identity: numbered(random), labels: labels(random) }),
            5..8 => endpoint(random),
            _ => policy(random),
        }
    }

    /// The first revision has all identities, so that most revisions are whole.
    fn first(random: &mut Random) -> Vec<Change> {
        let identity = |number: u32, random: &mut Random| {
            let identity = Identity::from_bits(0x10_0001 + number);
            Change::Put(Record::Identity(IdentityRecord { identity, labels: labels(random) }))
        };
        (0..6).map(|number| identity(number, random)).collect()
    }

    fn changes(random: &mut Random, mesh: &Mesh) -> Vec<Change> {
        let mut changes: BTreeMap<RecordKey, Change> = BTreeMap::new();
        for _ in 0..=random.below(4) {
            let known: Vec<&RecordKey> = mesh.records().keys().collect();
            let change = match random.below(4) {
                0 if !known.is_empty() => match random.pick(&known) {
                    RecordKey::Identity(_) if !random.one_in(6) => continue,
                    key => Change::Delete(key.clone()),
                },
                _ => Change::Put(record(random)),
            };
            changes.insert(change.key(), change);
        }
        changes.into_values().collect()
    }

    struct World {
        mesh: Mesh,
        compiler: Compiler,
        local: LocalNode,
        in_force: Tables,
    }

    #[derive(Default, Debug)]
    struct Seen {
        whole: usize,
        incomplete: usize,
        refused: usize,
        restarted: usize,
        lost: usize,
    }

    impl World {
        fn compile(&mut self, random: &mut Random, seen: &mut Seen) {
            let compilation = match self.compiler.compile(&self.mesh, &self.local, &self.in_force) {
                Ok(compilation) => compilation,
                Err(incomplete) => {
                    seen.incomplete += 1;
                    let fresh = Compiler::default().compile(&self.mesh, &self.local, &Tables::default());
                    assert_eq!(fresh.map(drop), Err(incomplete), "another history, other problems");
                    return;
                }
            };
            seen.whole += 1;
            assert_leads_from(&self.in_force, &compilation.diff);
            let mut tables = self.in_force.clone();
            tables.apply(&compilation.diff);
            let (fresh, problems) = self.fresh();
            assert_eq!(tables.resolved(), fresh.resolved(), "another history, other tables");
            assert_eq!(tables.rows.len(), fresh.rows.len(), "rows of nobody are left");
            assert_eq!(tables.ports.len(), fresh.ports.len(), "ports of nobody are left");
            assert_eq!(compilation.problems, problems);
            if random.one_in(4) {
                seen.refused += 1;
                return;
            }
            self.in_force = tables;
            self.compiler.realised();
        }

        fn fresh(&self) -> (Tables, Vec<Problem>) {
            let mut tables = Tables::default();
            let compilation = Compiler::default().compile(&self.mesh, &self.local, &tables).unwrap();
            tables.apply(&compilation.diff);
            (tables, compilation.problems)
        }
    }

    fn assert_leads_from(tables: &Tables, diff: &TableDiff) {
        fn one<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(map: &BTreeMap<K, V>, edits: &[Edit<K, V>]) {
            for edit in edits {
                assert_eq!(map.get(&edit.key), edit.before.as_ref(), "{:?}", edit.key);
                assert_ne!(edit.before, edit.after, "{:?} does not change", edit.key);
            }
            assert!(edits.is_sorted_by(|one, other| one.key < other.key), "edits are in order");
        }
        one(&tables.addresses, &diff.addresses);
        one(&tables.ranges, &diff.ranges);
        one(&tables.endpoints, &diff.endpoints);
        one(&tables.ports, &diff.ports);
        one(&tables.rows, &diff.rows);
    }

    fn history(seed: u64, seen: &mut Seen) {
        let random = &mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let endpoints = BTreeMap::new();
        let host = random.one_in(2).then(|| LocalHost {
            addresses: [[10, 1, 2, 1].into(), [10, 9, 9, 9].into()].into(),
            failsafe: [(6, 80)].into(),
            audit: random.one_in(4),
            ..LocalHost::default()
        });
        let local = LocalNode { endpoints, host, ..LocalNode::new(name("east"), name("n1")) };
        let mut world =
            World { mesh: Mesh::default(), compiler: Compiler::default(), local, in_force: Tables::default() };
        for step in 0..24 {
            let revision = world.mesh.revision().next();
            let changes = if step == 0 { first(random) } else { changes(random, &world.mesh) };
            world.mesh.apply(&Delta { revision, changes }).unwrap();
            if random.one_in(3) {
                let pod = random.pick(&PODS);
                match world.local.endpoints.remove(&name(pod)) {
                    Some(_) if random.one_in(2) => {}
                    _ => {
                        let id = EndpointId(
                            u32::try_from(random.below(4) * 8 + PODS.iter().position(|p| *p == pod).unwrap() + 2)
                                .unwrap(),
                        );
                        world.local.endpoints.insert(name(pod), id);
                    }
                }
            }
            if random.one_in(10)
                && let Some(host) = &mut world.local.host
            {
                host.addresses.pop_first();
            }
            if random.one_in(10) {
                world.local.audited = BTreeSet::from([name(random.pick(&PODS))]);
            }
            if random.one_in(12) {
                seen.restarted += 1;
                world.compiler = Compiler::default();
            }
            if random.one_in(12) {
                seen.lost += 1;
                world.mesh = Mesh::from_snapshot(world.mesh.snapshot());
            }
            // Revisions are skipped, too.
            if !random.one_in(3) {
                world.compile(random, seen);
            }
        }
    }

    #[test]
    fn s14_every_history_comes_to_the_same_tables() {
        let histories = worlds();
        let mut seen = Seen::default();
        for seed in 0..u64::from(histories) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(seed, &mut seen)));
            assert!(outcome.is_ok(), "history {seed}");
        }
        println!("{histories} histories: {seen:?}");
        let Seen { whole, incomplete, refused, restarted, lost } = seen;
        assert!(histories < 100 || [whole, incomplete, refused, restarted, lost].iter().all(|count| *count > 50));
    }

    #[test]
    fn s8_a_restart_with_the_same_mesh_changes_nothing() {
        let mut seen = Seen::default();
        for seed in 0..64 {
            let random = &mut Random(seed);
            let endpoints = PODS.iter().zip(2..).map(|(pod, id)| (name(pod), EndpointId(id))).collect();
            let host = random.one_in(2).then(LocalHost::default);
            let local = LocalNode { endpoints, host, ..LocalNode::new(name("east"), name("n1")) };
            let mut world =
                World { mesh: Mesh::default(), compiler: Compiler::default(), local, in_force: Tables::default() };
            for step in 0..10 {
                let changes = if step == 0 { first(random) } else { changes(random, &world.mesh) };
                world.mesh.apply(&Delta { revision: world.mesh.revision().next(), changes }).unwrap();
                world.compile(random, &mut seen);
            }
            if let Ok(compilation) = world.compiler.compile(&world.mesh, &world.local, &world.in_force) {
                world.in_force.apply(&compilation.diff);
                let again = Compiler::default().compile(&world.mesh, &world.local, &world.in_force).unwrap();
                assert_eq!(again.diff, TableDiff::default(), "{seed}: numbers that are in force stay");
            }
        }
        assert!(seen.whole > 100, "{seen:?}");
    }

    /// Who an address is to a node: its record, else the longest range, else the world.
    fn resolve(tables: &Tables, address: IpAddr) -> Identity {
        let longest = || {
            tables
                .ranges
                .iter()
                .filter(|(range, _)| range.contains(address))
                .max_by_key(|(range, _)| range.prefix_length())
        };
        let world = if address.is_ipv4() { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
        let entry = tables.addresses.get(&address).map(|entry| entry.identity);
        entry.or_else(|| longest().map(|(_, identity)| *identity)).unwrap_or(world)
    }

    /// What is said of an endpoint's packet, and what would be with the objects under audit.
    type Outcome = (EndpointId, IpAddr, Direction, u16, Option<Class>, Option<Class>);

    /// What becomes of every packet of every endpoint of the node.
    fn judged(tables: &Tables) -> Vec<Outcome> {
        let mut addresses: Vec<IpAddr> =
            ["10.2.0.1", "10.1.9.9", "11.0.0.1", "fd00::1", "2001:db8::1"].map(|a| a.parse().unwrap()).into();
        for last in 0..7 {
            addresses.extend([[10, 1, 2, last], [10, 1, 3, last], [192, 0, 2, last]].map(IpAddr::from));
        }
        let mut outcomes = Vec::new();
        for (endpoint, entry) in &tables.endpoints {
            for address in &addresses {
                let peer = resolve(tables, *address);
                for direction in [Direction::Ingress, Direction::Egress] {
                    for port in [1, 80, 443, 450, 8080] {
                        let flow = Flow { subject: entry.identity, peer, direction, protocol: protocol::TCP, port };
                        let shadow = entry.shadow.and_then(|shadow| tables.class_in(shadow, &flow));
                        outcomes.push((*endpoint, *address, direction, port, tables.class(*endpoint, &flow), shadow));
                    }
                }
            }
        }
        outcomes
    }

    #[derive(Default, Debug)]
    struct Compared {
        equal: usize,
        incomplete: usize,
        hidden: usize,
        quiet: usize,
        anew: usize,
        verdicts: usize,
        of_hosts: usize,
        strangers: usize,
        unsure: usize,
        asked_again: usize,
        shared: usize,
    }

    fn viewer(node: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Viewer {
        Viewer { node: name(node), addresses: Arc::new(addresses.into_iter().collect()) }
    }

    /// An address that a device of the host may have: of pods, of nodes, of nobody.
    fn device_address(random: &mut Random) -> IpAddr {
        let last = u8::try_from(random.below(6)).unwrap();
        random.pick(&[[10, 1, 2, last], [10, 1, 3, last], [10, 1, 3, last], [192, 0, 2, last], [10, 9, 9, 9]]).into()
    }

    type Records = BTreeMap<RecordKey, Record>;

    /// A node that follows its view.
    struct Viewing {
        n1: Viewer,
        views: Views,
        part: Mesh,
    }

    impl Viewing {
        fn new(n1: Viewer, mesh: &Mesh) -> Self {
            let mut views = Views::new(mesh, name("east"));
            views.add(&n1);
            let part = snapshot(&views, &n1, mesh);
            Self { n1, views, part }
        }

        /// As a follower of the view moves.
        fn follow(&mut self, mesh: &Mesh, seen: &mut Compared) {
            let Some(mut changes) = self.views.advance(mesh) else {
                seen.anew += 1;
                *self = Self::new(self.n1.clone(), mesh);
                return;
            };
            let Some(changes) = changes.remove(&self.n1) else {
                seen.quiet += 1;
                return self.part.skip_to(mesh.revision());
            };
            for change in &changes {
                let is_reserved = |identity: &Identity| identity.reserved_name().is_some();
                let never = matches!(change, Change::Delete(RecordKey::Identity(identity)) if is_reserved(identity));
                assert!(!never, "{change:?}, which never has a record, and no message can say that");
            }
            self.part.skip_to(Revision(mesh.revision().0 - 1));
            self.part.apply(&Delta { revision: mesh.revision(), changes }).unwrap();
        }

        /// The host's addresses come and go, and sometimes its agent gets round to asking for what it needs for them.
        fn look_at(&mut self, host: &mut LocalHost, mesh: &Mesh, random: &mut Random, seen: &mut Compared) -> bool {
            if random.one_in(4) {
                host.addresses.insert(device_address(random));
            }
            if random.one_in(6) {
                host.addresses.pop_first();
            }
            let asks = random.one_in(3) && !host.addresses.is_subset(&self.n1.addresses);
            if asks {
                seen.asked_again += 1;
                self.n1 = viewer("n1", host.addresses.clone());
                self.views.add(&self.n1);
                self.part = snapshot(&self.views, &self.n1, mesh);
            }
            let in_pods = |address: &IpAddr| self.part.pod_cidrs().any(|range| range.contains(*address));
            host.unsure = host.addresses.difference(&self.n1.addresses).filter(|a| in_pods(a)).copied().collect();
            seen.unsure += host.unsure.len();
            asks
        }

        fn shown(&self, mesh: &Mesh) -> Records {
            let shown = records(&self.part);
            assert_eq!(shown, whole(&self.views, &self.n1, mesh), "a follower has what the view has");
            let fresh = Self::new(self.n1.clone(), mesh);
            assert_eq!(shown, whole(&fresh.views, &self.n1, mesh), "a view depends on the mesh alone");
            for (key, record) in &shown {
                assert_eq!(mesh.get(key), Some(record), "a view is a part of the mesh");
            }
            shown
        }
    }

    fn records(mesh: &Mesh) -> Records {
        mesh.records().iter().map(|(key, versioned)| (key.clone(), versioned.record.clone())).collect()
    }

    fn whole(views: &Views, viewer: &Viewer, mesh: &Mesh) -> Records {
        views.records(viewer, mesh).map(|(key, versioned)| (key.clone(), versioned.record.clone())).collect()
    }

    fn snapshot(views: &Views, viewer: &Viewer, mesh: &Mesh) -> Mesh {
        let records = views.records(viewer, mesh).map(|(key, versioned)| (key.clone(), versioned.clone()));
        Mesh::from_snapshot(Snapshot { revision: mesh.revision(), records: records.collect() })
    }

    /// Where the tables of a node that knows all differ from those of one that knows its view.
    fn compare(all: &Tables, own: &Tables, host: Option<&LocalHost>, seen: &mut Compared) {
        seen.equal += 1;
        let (of_all, of_own) = (judged(all), judged(own));
        seen.verdicts += of_all.len();
        seen.of_hosts += of_all.iter().filter(|outcome| outcome.0 == EndpointId::HOST).count();
        assert_eq!(of_all.len(), of_own.len(), "the same endpoints");
        assert_eq!(of_all.iter().zip(&of_own).find(|(all, own)| all != own), None, "the same verdicts");
        let stranger = |address: &&IpAddr| {
            let (to_all, to_own) = (resolve(all, **address), resolve(own, **address));
            assert!(
                to_all == to_own || to_own == Identity::UNKNOWN || to_all.is_local(),
                "{address}: {to_all} {to_own}"
            );
            to_all != to_own
        };
        seen.strangers += all.addresses.keys().filter(stranger).count();
        let sure = host.into_iter().flat_map(|host| host.addresses.difference(&host.unsure));
        seen.shared += sure.filter(|address| resolve(all, **address) == Identity::UNKNOWN).count();
    }

    fn view_history(seed: u64, seen: &mut Compared) {
        let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let endpoints = PODS.iter().zip(2..).map(|(pod, id)| (name(pod), EndpointId(id))).collect();
        let host = random.one_in(2).then(|| LocalHost {
            addresses: (0..random.below(4)).map(|_| device_address(random)).collect(),
            failsafe: [(6, 80)].into(),
            audit: random.one_in(4),
            ..LocalHost::default()
        });
        let n1 = viewer("n1", host.iter().flat_map(|host| host.addresses.clone()));
        let mut local = LocalNode { endpoints, host, ..LocalNode::new(name("east"), name("n1")) };
        let mut mesh = Mesh::default();
        mesh.apply(&Delta { revision: Revision(1), changes: first(random) }).unwrap();
        let mut viewing = Viewing::new(n1, &mesh);
        for node in ["n2", "n3"] {
            viewing.views.add(&viewer(node, []));
        }
        let (mut known, mut compilers) = (Tables::default(), (Compiler::default(), Compiler::default()));
        let mut known_all = Tables::default();
        for _ in 0..24 {
            mesh.apply(&Delta { revision: mesh.revision().next(), changes: changes(random, &mesh) }).unwrap();
            if random.one_in(20) {
                mesh = Mesh::from_snapshot(mesh.snapshot());
            }
            if random.one_in(3) {
                continue;
            }
            viewing.follow(&mesh, seen);
            if let Some(host) = &mut local.host
                && viewing.look_at(host, &mesh, random, seen)
            {
                compilers.1 = Compiler::default();
            }
            let shown = viewing.shown(&mesh);
            let is_endpoint = |key: &&RecordKey| matches!(key, RecordKey::Endpoint(..));
            seen.hidden += mesh.records().keys().filter(is_endpoint).count() - shown.keys().filter(is_endpoint).count();
            let own = compilers.1.compile(&viewing.part, &local, &known);
            match (compilers.0.compile(&mesh, &local, &known_all), own) {
                (Err(_), Err(_)) => seen.incomplete += 1,
                (Ok(all), Ok(own)) => {
                    known_all.apply(&all.diff);
                    known.apply(&own.diff);
                    compilers.0.realised();
                    compilers.1.realised();
                    compare(&known_all, &known, local.host.as_ref(), seen);
                }
                (all, own) => panic!("whole: {:?}\nview: {:?}", all.map(|_| ()), own.map(|_| ())),
            }
        }
    }

    #[test]
    fn s12_a_node_that_knows_its_view_judges_as_if_it_knew_the_mesh() {
        let histories = worlds();
        let mut seen = Compared::default();
        for seed in 0..u64::from(histories) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| view_history(seed, &mut seen)));
            assert!(outcome.is_ok(), "history {seed}");
        }
        println!("{histories} histories: {seen:?}");
        let Compared { equal, incomplete, hidden, quiet, anew, verdicts, of_hosts, strangers, .. } = seen;
        let Compared { unsure, asked_again, shared, .. } = seen;
        let counts =
            [equal, incomplete, hidden, quiet, anew, verdicts, of_hosts, strangers, unsure, asked_again, shared];
        assert!(histories < 100 || counts.iter().all(|count| *count > 50));
    }
}
