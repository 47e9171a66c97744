//! The incremental compiler against the specification, over generated worlds and histories.
//!
//! `worlds` says how many.

#[cfg(test)]
#[path = "support/each_world.rs"]
mod each_world;
#[cfg(test)]
#[path = "support/worlds.rs"]
mod worlds;

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use ringfence_policy::{
        cidr::Cidr,
        compat::Compat,
        diagnostic::Position,
        engine::{Engine, Policed, PolicyObject, Subject as EngineSubject, Unresolvable},
        entity::Entity,
        evaluate::{Conflict, Decision, SubjectPolicy},
        flow::{Direction, Flow},
        identity::Identity,
        l7::{http::HttpRule, rules::L7Rules},
        label::{Label, LabelSet},
        name::Name,
        record::{NamedPort, PolicyKey, PolicyKind},
        reserved::{RESERVED_PEERS, reserved_labels},
        rule::{
            Authentication, CidrPeer, CidrSource, Element, Listener, Peers, Port, PortNumber, PortProtocol, PortRule,
            Proxy, Rule, Section, Subject,
        },
        selector::{Condition, LabelKey, Requirement, Selector},
        tables::{Class, Edit, EndpointEntry, EndpointId, PolicyId, Tables},
        world::{Enforcement, Settings, World},
    };

    use crate::each_world::each_world;

    /// Pseudo-random numbers; equal seeds make equal worlds.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: usize) -> usize {
            usize::try_from(self.next() % limit as u64).unwrap()
        }

        /// Once in so many times.
        fn one_in(&mut self, times: usize) -> bool {
            self.below(times) == 0
        }

        fn pick<T: Clone>(&mut self, from: &[T]) -> T {
            from[self.below(from.len())].clone()
        }

        fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
            (0..self.below(most + 1)).map(|_| item(self)).collect()
        }
    }

    const KEYS: [&str; 3] = ["app", "tier", "env"];
    const VALUES: [&str; 3] = ["a", "b", "c"];
    const RANGES: [&str; 6] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "fd00::/8", "::/0"];
    const PORTS: [u16; 7] = [0, 53, 80, 85, 90, 443, 65535];
    const PROTOCOLS: [u8; 6] = [1, 6, 17, 58, 132, 47];

    fn labels(random: &mut Random) -> LabelSet {
        match random.below(10) {
            0 => LabelSet::default(),
            1..3 => {
                let range: Cidr = random.pick(&RANGES[..3]).parse().unwrap();
                let world = Label::new("reserved", random.pick(&["world", "world-ipv4"]), "");
                LabelSet::from_iter([Label::new("cidr", range.label_key(), ""), world])
            }
            _ => {
                let source = random.pick(&["k8s", "k8s", "k8s", "node", "any"]);
                random
                    .list(3, |random| Label::new(source, random.pick(&KEYS), random.pick(&VALUES)))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn selector(random: &mut Random) -> Selector {
        let requirement = |random: &mut Random| {
            let key = match random.below(12) {
                0 => LabelKey::new("cidr", random.pick(&RANGES).parse::<Cidr>().unwrap().label_key()),
                1 => LabelKey::new("reserved", random.pick(&["world", "host", "remote-node"])),
                _ => LabelKey::new(random.pick(&["any", "k8s", "k8s", "node"]), random.pick(&KEYS)),
            };
            let values: BTreeSet<String> = (0..=random.below(2)).map(|_| random.pick(&VALUES).to_owned()).collect();
            let reserved = key.source == "cidr" || key.source == "reserved";
            let values = if reserved { BTreeSet::from([String::new()]) } else { values };
            let condition = match random.below(8) {
                0 => Condition::Exists,
                1 => Condition::DoesNotExist,
                2 => Condition::NotIn(values),
                _ => Condition::In(values),
            };
            Requirement { key, condition }
        };
        random.list(2, requirement).into_iter().collect()
    }

    fn peers(random: &mut Random) -> Peers {
        let mut peers = Peers::default();
        match random.below(8) {
            0 => peers.entities = random.list(2, |random| random.pick(&Entity::ALL)),
            1 => peers.cidrs = random.list(2, |random| random.pick(&RANGES).parse().unwrap()),
            2 => {
                peers.cidr_sets = random.list(2, |random| CidrPeer {
                    source: CidrSource::Range(random.pick(&RANGES).parse().unwrap()),
                    except: random.list(1, |random| random.pick(&RANGES).parse().unwrap()).into_iter().collect(),
                });
            }
            3 => peers.nodes = random.list(2, selector),
            4 => peers.empty_selectors = true,
            _ => peers.endpoints = random.list(3, selector),
        }
        peers
    }

    fn port(random: &mut Random) -> Port {
        let protocols = [
            PortProtocol::Any,
            PortProtocol::Tcp,
            PortProtocol::Tcp,
            PortProtocol::Udp,
            PortProtocol::Icmp,
            PortProtocol::Icmpv6,
        ];
        let number = match random.below(6) {
            0 => PortNumber::EVERY,
            1 => {
                PortNumber::Named { name: random.pick(&["http", "dns", "none"]).to_owned(), last: random.pick(&PORTS) }
            }
            2 | 3 => {
                let (first, last) = (random.pick(&PORTS), random.pick(&PORTS));
                PortNumber::Range { first: first.min(last), last: first.max(last) }
            }
            _ => PortNumber::one(random.pick(&PORTS)),
        };
        Port { protocol: random.pick(&protocols), number, end_port: 0 }
    }

    fn proxy(random: &mut Random) -> Proxy {
        let mut proxy = Proxy::default();
        match random.below(12) {
            0 | 1 => proxy.rules = Some(L7Rules { http: Some(vec![HttpRule::default()]), ..L7Rules::default() }),
            2 | 3 => {
                let name = random.pick(&["/one/x", "/two/x"]).to_owned();
                let out_of_reach = random.one_in(12);
                proxy.listener = Some(Listener { name, priority: random.pick(&[0, 1, 7]), out_of_reach });
            }
            _ => {}
        }
        proxy
    }

    fn element(random: &mut Random, proxies: bool) -> Element {
        let port_rule = |random: &mut Random| PortRule {
            position: Position::START,
            ports: random.list(2, port),
            proxy: if proxies { proxy(random) } else { Proxy::default() },
        };
        Element {
            position: Position::START,
            peers: (!random.one_in(4)).then(|| peers(random)),
            requires: if random.one_in(12) { vec![selector(random)] } else { Vec::new() },
            ports: (!random.one_in(3)).then(|| random.list(2, port_rule)),
            authentication: (proxies && random.one_in(20)).then_some(Authentication::Required),
        }
    }

    fn section(random: &mut Random, proxies: bool) -> Section {
        Section {
            allow: (!random.one_in(3)).then(|| random.list(3, |random| element(random, proxies))),
            deny: random.one_in(3).then(|| random.list(2, |random| element(random, false))),
            default_deny: random.one_in(6).then(|| random.one_in(2)),
        }
    }

    fn rule(random: &mut Random, proxies: bool) -> Rule {
        let selector = if random.one_in(3) { Selector::WILDCARD } else { selector(random) };
        Rule {
            position: Position::START,
            audit: false,
            log: None,
            subject: if random.one_in(8) { Subject::Nodes(selector) } else { Subject::Endpoints(selector) },
            ingress: section(random, proxies),
            egress: section(random, proxies),
        }
    }

    fn settings(random: &mut Random) -> Settings {
        Settings {
            enforcement: match random.below(8) {
                0 => Enforcement::Always,
                1 => Enforcement::Never,
                _ => Enforcement::Default,
            },
            allow_localhost: !random.one_in(4),
            host_firewall: random.one_in(2),
            failsafe: random.list(3, |random| (random.pick(&[6, 17]), random.pick(&PORTS))).into_iter().collect(),
            optional_default_deny: !random.one_in(4),
            dual_stack: random.one_in(2),
            ..Settings::new(Name::new("east").unwrap(), random.pick(&[Compat::Ringfence, Compat::Cilium]))
        }
    }

    fn named_ports(random: &mut Random) -> Vec<NamedPort> {
        random.list(3, |random| NamedPort {
            name: random.pick(&["http", "dns"]).to_owned(),
            protocol: random.pick(&[6, 17]),
            port: random.pick(&PORTS),
        })
    }

    fn world(random: &mut Random) -> World {
        World { peer_ports: named_ports(random), ..World::default() }
    }

    fn key(number: usize) -> PolicyKey {
        let name = Name::new(format!("p{number}")).unwrap();
        PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: Some(Name::new("default").unwrap()), name }
    }

    /// What should be there, kept beside the engine.
    struct Model {
        settings: Settings,
        world: World,
        identities: BTreeMap<Identity, LabelSet>,
        objects: BTreeMap<PolicyKey, Vec<Rule>>,
        subjects: BTreeSet<EngineSubject>,
        /// What a datapath would hold that only ever applied edits.
        tables: Tables,
        conflicts: usize,
        shadows: usize,
    }

    impl Model {
        fn apply(&mut self, engine: &mut Engine) {
            let diff = engine.take_edits();
            assert_begins_at(&self.tables.ports, &diff.ports);
            assert_begins_at(&self.tables.rows, &diff.rows);
            self.tables.apply(&diff);
            let tables = engine.tables();
            assert_eq!(self.tables.ports, tables.ports, "edits of ports do not lead there");
            assert_eq!(self.tables.rows, tables.rows, "edits of rows do not lead there");
            assert!(tables.rows.values().all(|row| !row.is_empty()), "a row of zeros is stored");
        }

        /// The engine that has never seen anything else.
        fn built_from_nothing(&self) -> Engine {
            let mut engine = Engine::new(self.settings.clone());
            for subject in self.subjects.iter().rev() {
                engine.add_subject(subject.clone());
            }
            let object =
                |(key, rules): (&PolicyKey, &Vec<Rule>)| PolicyObject { key: key.clone(), rules: rules.clone() };
            engine.change_objects(self.objects.iter().rev().map(object), []);
            engine.set_world(self.world.clone());
            engine.put_identities(self.identities.clone());
            engine
        }

        /// The engine's tables with an endpoint for each subject.
        fn with_endpoints(&self, engine: &Engine) -> Tables {
            let mut tables = engine.tables();
            for (number, subject) in (1..).zip(&self.subjects) {
                let Some(Policed { policy, shadow }) = engine.policed(subject) else { continue };
                let entry = EndpointEntry { identity: subject.identity, policy, shadow, audit: false };
                tables.endpoints.insert(EndpointId(number), entry);
            }
            tables
        }

        fn labels(&self, identity: Identity) -> Option<LabelSet> {
            let built_in = || RESERVED_PEERS.contains(&identity).then(|| reserved_labels(identity));
            self.identities.get(&identity).cloned().or_else(built_in)
        }

        fn check(&mut self, engine: &Engine) {
            let (tables, fresh) = (self.with_endpoints(engine), self.built_from_nothing());
            assert_eq!(tables.resolved(), self.with_endpoints(&fresh).resolved(), "another history, other tables");
            for subject in self.subjects.clone() {
                let Some(own) = self.labels(subject.identity) else {
                    assert_eq!(engine.policed(&subject), None);
                    continue;
                };
                let Policed { policy, shadow } = engine.policed(&subject).unwrap();
                let rules: Vec<&Rule> = self.objects.values().flatten().collect();
                match self.specified(&subject, &own, rules.iter().copied()) {
                    Ok(specified) => {
                        assert_eq!(engine.unresolvable(&subject), None);
                        self.compare(&tables, policy, &subject, &specified);
                    }
                    Err(conflict) => {
                        self.conflicts += 1;
                        assert_eq!(engine.unresolvable(&subject), Some(Unresolvable::Conflict(conflict)));
                        assert!(tables.rows.keys().all(|key| key.policy != policy), "it is refused everything");
                    }
                }
                let is_audited = rules.iter().any(|rule| rule.audit && rule.subject.selects(subject.identity, &own));
                let counted: Vec<Rule> = rules.iter().map(|&rule| Rule { audit: false, ..rule.clone() }).collect();
                let specified = self.specified(&subject, &own, &counted);
                assert_eq!(shadow.is_some(), is_audited && specified.is_ok());
                if let (Some(shadow), Ok(specified)) = (shadow, specified) {
                    self.shadows += 1;
                    self.compare(&tables, shadow, &subject, &specified);
                }
            }
        }

        fn specified<'r>(
            &self,
            subject: &EngineSubject,
            labels: &LabelSet,
            rules: impl IntoIterator<Item = &'r Rule>,
        ) -> Result<SubjectPolicy, Conflict> {
            let world = World { own_ports: subject.named_ports.iter().cloned().collect(), ..self.world.clone() };
            SubjectPolicy::resolve(&self.settings, &world, rules, subject.identity, labels)
        }

        fn compare(&self, tables: &Tables, policy: PolicyId, subject: &EngineSubject, specified: &SubjectPolicy) {
            for peer in (0..40).map(Identity::from_bits) {
                let labels = self.labels(peer).unwrap_or_default();
                for direction in [Direction::Ingress, Direction::Egress] {
                    for protocol in PROTOCOLS {
                        for port in PORTS.into_iter().chain([1, 82]) {
                            let flow = Flow { subject: subject.identity, peer, direction, protocol, port };
                            let expected = class(&specified.decide(&flow, &labels));
                            assert_eq!(tables.class_in(policy, &flow), expected, "{flow:?} {labels}");
                        }
                    }
                }
            }
        }
    }

    fn assert_begins_at<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
        map: &BTreeMap<K, V>,
        edits: &[Edit<K, V>],
    ) {
        for edit in edits {
            assert_eq!(map.get(&edit.key), edit.before.as_ref(), "{:?}", edit.key);
            assert_ne!(edit.before, edit.after, "{:?} does not change", edit.key);
        }
        assert!(edits.is_sorted_by(|one, other| one.key < other.key), "edits are in order");
    }

    fn class(decision: &Decision) -> Option<Class> {
        match decision {
            Decision::Allow { .. } => Some(Class::Allow),
            Decision::Redirect(_) => Some(Class::Redirect),
            Decision::DenyDefault => None,
            Decision::DenyExplicit => Some(Class::Deny),
        }
    }

    fn history(seed: u64) -> [usize; 2] {
        let random = &mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let settings = settings(random);
        let mut engine = Engine::new(settings.clone());
        let mut model = Model {
            settings,
            world: World::default(),
            identities: BTreeMap::new(),
            objects: BTreeMap::new(),
            subjects: BTreeSet::new(),
            tables: Tables::default(),
            conflicts: 0,
            shadows: 0,
        };
        let proxies = random.one_in(2);
        let identity = |random: &mut Random| Identity::from_bits(u32::try_from(random.below(32)).unwrap());
        let subject = |random: &mut Random| {
            let identity = Identity::from_bits(u32::try_from(random.below(32)).unwrap().max(1));
            let named_ports = if random.one_in(2) { named_ports(random) } else { Vec::new() };
            EngineSubject { identity, named_ports: named_ports.into_iter().collect() }
        };
        for step in 0..24 {
            match random.below(12) {
                0..4 => {
                    let new: Vec<_> = random.list(5, |random| (identity(random), labels(random)));
                    let new: Vec<_> =
                        new.into_iter().filter(|(identity, _)| identity.bits() > 10 || step % 2 == 0).collect();
                    model.identities.extend(new.clone());
                    model.identities.remove(&Identity::UNKNOWN);
                    engine.put_identities(new);
                }
                4 => {
                    let gone = random.list(3, identity);
                    gone.iter().for_each(|identity| drop(model.identities.remove(identity)));
                    engine.remove_identities(gone);
                }
                5..8 => {
                    let object = |random: &mut Random| {
                        let audit = random.one_in(4);
                        let rules = random.list(2, |random| Rule { audit, ..rule(random, proxies) });
                        PolicyObject { key: key(random.below(6)), rules }
                    };
                    let new: Vec<PolicyObject> = random.list(2, object);
                    let gone = random.list(1, |random| key(random.below(6)));
                    gone.iter().for_each(|key| drop(model.objects.remove(key)));
                    for object in new.clone() {
                        model.objects.insert(object.key, object.rules);
                    }
                    engine.change_objects(new, gone);
                }
                8 => {
                    model.world = world(random);
                    engine.set_world(model.world.clone());
                }
                9 => {
                    let known: Vec<EngineSubject> = model.subjects.iter().cloned().collect();
                    if !known.is_empty() {
                        let gone = random.pick(&known);
                        model.subjects.remove(&gone);
                        engine.remove_subject(&gone);
                    }
                }
                _ => {
                    let subject = subject(random);
                    model.subjects.insert(subject.clone());
                    engine.add_subject(subject);
                }
            }
            // Edits of several changes are taken together, too.
            if !random.one_in(3) {
                model.apply(&mut engine);
            }
            if step % 8 == 7 {
                model.check(&engine);
            }
        }
        model.apply(&mut engine);
        [model.conflicts, model.shadows]
    }

    #[test]
    fn tables_equal_the_specification_after_any_history() {
        static SEEN: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        let worlds = each_world("histories", |seed| {
            for (seen, more) in SEEN.iter().zip(history(seed)) {
                seen.fetch_add(more, Ordering::Relaxed);
            }
        });
        println!("policies with conflicts, and shadows: {SEEN:?}");
        let all = SEEN.iter().all(|seen| seen.load(Ordering::Relaxed) > 0);
        assert!(worlds < 2000 || all, "{SEEN:?}: too little is generated");
    }

    /// One pod in namespace shop under a policy that says this.
    fn shop(says: &str) -> (Engine, EngineSubject) {
        let mut engine = Engine::new(Settings::new(Name::new("east").unwrap(), Compat::Ringfence));
        let subject = EngineSubject::from(Identity::from_bits(1000));
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: a, namespace: shop}}\nspec:\n  endpointSelector: {{}}\n  {says}\n"
        );
        let object = ringfence_policy::object::parse_objects(&text).objects.remove(0);
        engine.put_identities([(subject.identity, LabelSet::parse(["k8s:io.kubernetes.pod.namespace=shop"]).unwrap())]);
        engine.add_subject(subject.clone());
        engine.change_objects([PolicyObject { key: object.key, rules: object.rules }], []);
        (engine, subject)
    }

    #[test]
    fn id_15_a_family_of_the_world_stays_selected_whatever_labels_it_gets() {
        let (mut engine, subject) = shop("ingress: [{fromEntities: [world]}]");
        let peer = Identity::WORLD_IPV4;
        let flow = Flow { subject: subject.identity, peer, direction: Direction::Ingress, protocol: 6, port: 80 };
        let class = |engine: &Engine| engine.tables().class_in(engine.policed(&subject).unwrap().policy, &flow);
        assert_eq!(class(&engine), Some(Class::Allow));
        engine.put_identities([(peer, LabelSet::parse(["k8s:app=a"]).unwrap())]);
        assert_eq!(class(&engine), Some(Class::Allow));
        engine.remove_identities([peer]);
        assert_eq!(class(&engine), Some(Class::Allow));
    }

    #[test]
    fn ranges_and_names_are_bands_and_subjects_with_equal_rules_share_a_policy() {
        let (mut engine, subject) =
            shop("ingress: [{toPorts: [{ports: [{port: '80', endPort: 444, protocol: TCP}, {port: web}]}]}]");
        let web = |port| NamedPort { name: "web".into(), protocol: 6, port };
        let named = |ports: &[u16]| EngineSubject {
            identity: subject.identity,
            named_ports: ports.iter().map(|port| web(*port)).collect(),
        };
        let others = [named(&[8080]), named(&[9090])];
        others.iter().for_each(|other| engine.add_subject(other.clone()));
        // What else it calls a port, no rule asks.
        let mut same = others[0].clone();
        same.named_ports.insert(NamedPort { name: "metrics".into(), protocol: 6, port: 9100 });
        engine.add_subject(same.clone());
        assert_eq!(engine.policed(&same), engine.policed(&others[0]));
        assert_eq!(engine.policy_count(), 3);
        let tables = engine.tables();
        // For each policy: anyone, and the host, in ingress; anyone in egress.
        assert_eq!(tables.rows.len(), 9);
        let passes = |subject: &EngineSubject, port| {
            let flow = Flow {
                subject: subject.identity,
                peer: Identity::WORLD,
                direction: Direction::Ingress,
                protocol: 6,
                port,
            };
            tables.class_in(engine.policed(subject).unwrap().policy, &flow) == Some(Class::Allow)
        };
        for (subject, open) in
            [(&subject, [true, false, false]), (&others[0], [true, true, false]), (&others[1], [true, false, true])]
        {
            assert_eq!([444, 8080, 9090].map(|port| passes(subject, port)), open);
        }
    }

    #[test]
    fn a_number_is_not_used_again_before_its_rows_are_taken_out() {
        let (mut engine, subject) = shop("ingress: [{fromEntities: [world]}]");
        engine.take_edits();
        let first = engine.policed(&subject).unwrap().policy;
        engine.remove_subject(&subject);
        engine.add_subject(subject.clone());
        let second = engine.policed(&subject).unwrap().policy;
        assert_ne!(first, second);
        engine.take_edits();
        engine.remove_subject(&subject);
        engine.add_subject(subject.clone());
        assert_eq!(engine.policed(&subject).unwrap().policy, first);
    }
}
