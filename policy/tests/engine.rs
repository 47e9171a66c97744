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
    use std::collections::{BTreeMap, BTreeSet};

    use ringfence_policy::{
        cidr::Cidr,
        compat::Compat,
        diagnostic::Position,
        engine::{Class, Engine, EntriesDiff, Entry, EntryKey, Outcome, PortForm},
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
            2 => {
                let name = random.pick(&["/one/x", "/two/x"]).to_owned();
                proxy.listener = Some(Listener { name, priority: random.pick(&[0, 1, 7]), out_of_reach: false });
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
            optional_default_deny: !random.one_in(4),
            dual_stack: random.one_in(2),
            ..Settings::new(Name::new("east").unwrap(), random.pick(&[Compat::Ringfence, Compat::Cilium]))
        }
    }

    fn named_ports(random: &mut Random) -> World {
        let ports = |random: &mut Random| {
            random.list(3, |random| NamedPort {
                name: random.pick(&["http", "dns"]).to_owned(),
                protocol: random.pick(&[6, 17]),
                port: random.pick(&PORTS),
            })
        };
        World { own_ports: ports(random), peer_ports: ports(random), ..World::default() }
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
        subjects: BTreeSet<Identity>,
        /// What a datapath would hold that only ever applied differences.
        maps: BTreeMap<Identity, BTreeMap<EntryKey, Class>>,
    }

    impl Model {
        fn apply(&mut self, diffs: Vec<EntriesDiff>) {
            for diff in diffs {
                assert!(!diff.is_empty(), "a difference without any");
                for subject in &diff.subjects {
                    let map = self.maps.entry(*subject).or_default();
                    for key in &diff.removed {
                        assert!(map.remove(key).is_some(), "{subject:?}: removed what is not there: {key:?}");
                    }
                    for entry in &diff.put {
                        assert_ne!(
                            map.insert(entry.key, entry.class),
                            Some(entry.class),
                            "{entry:?} was there already"
                        );
                    }
                }
            }
        }

        /// The engine that has never seen anything else.
        fn built_from_nothing(&self) -> Engine {
            let mut engine = Engine::new(self.settings.clone(), self.world.clone());
            for subject in self.subjects.iter().rev() {
                engine.add_subject(*subject);
            }
            engine.change_objects(self.objects.clone().into_iter().rev(), []);
            engine.put_identities(self.identities.clone());
            engine
        }

        fn check(&self, engine: &Engine) {
            let dump = engine.dump();
            assert_eq!(dump, self.built_from_nothing().dump(), "another history, another state");
            let labels = |identity: &Identity| {
                let built_in = || RESERVED_PEERS.contains(identity).then(|| reserved_labels(*identity));
                self.identities.get(identity).cloned().or_else(built_in)
            };
            let peers: BTreeSet<Identity> = (0..40).map(Identity::from_bits).collect();
            for subject in &self.subjects {
                if let Ok(entries) = &dump[subject] {
                    let map = entries.iter().map(|entry| (entry.key, entry.class)).collect();
                    assert_eq!(self.maps.get(subject).unwrap_or(&BTreeMap::new()), &map, "differences of {subject:?}");
                }
                let Some(own) = labels(subject) else { continue };
                let rules = self.objects.values().flatten();
                let policy = SubjectPolicy::resolve(&self.settings, &self.world, rules, *subject, &own);
                for peer in &peers {
                    let peer_labels = labels(peer).unwrap_or_default();
                    self.compare(engine, *subject, *peer, &peer_labels, &policy, &dump[subject]);
                }
            }
        }

        fn compare(
            &self,
            engine: &Engine,
            subject: Identity,
            peer: Identity,
            labels: &LabelSet,
            policy: &Result<SubjectPolicy, Conflict>,
            entries: &Result<Vec<Entry>, Conflict>,
        ) {
            let own: Vec<&Entry> =
                entries.iter().flatten().filter(|entry| [peer, Identity::UNKNOWN].contains(&entry.key.peer)).collect();
            for direction in [Direction::Ingress, Direction::Egress] {
                for protocol in PROTOCOLS {
                    for port in PORTS.into_iter().chain([1, 82]) {
                        let flow = Flow { subject, peer, direction, protocol, port };
                        let expected = policy.as_ref().map(|policy| outcome(&policy.decide(&flow, labels)));
                        let got = engine.lookup(&flow);
                        assert_eq!(got.as_ref(), expected.as_ref().map_err(|conflict| *conflict), "{flow:?} {labels}");
                        if let Ok(expected) = got {
                            assert_eq!(in_map(&own, &flow), expected, "by entries: {flow:?} {labels} {own:?}");
                        }
                    }
                }
            }
        }
    }

    fn outcome(decision: &Decision) -> Outcome {
        match decision {
            Decision::Allow { .. } => Outcome::Allow,
            Decision::Redirect(_) => Outcome::Redirect,
            Decision::DenyDefault => Outcome::DenyDefault,
            Decision::DenyExplicit => Outcome::DenyExplicit,
        }
    }

    /// The packet decision of §6.3 over a map.
    fn in_map(entries: &[&Entry], flow: &Flow) -> Outcome {
        let longest = |peer: Identity| {
            let covers = |entry: &&&Entry| {
                let ports = entry.key.ports;
                let here = ports.protocol == 0
                    || ports.protocol == flow.protocol && (ports.first..=ports.last).contains(&flow.port);
                entry.key.peer == peer && entry.key.direction == flow.direction && here
            };
            let size = |entry: &&&Entry| {
                let ports = entry.key.ports;
                (ports.protocol == 0, ports.last - ports.first)
            };
            entries.iter().filter(covers).min_by_key(size).map(|entry| (entry.class, size(&entry)))
        };
        let own = longest(flow.peer);
        let any = longest(Identity::UNKNOWN);
        if own.is_some_and(|(class, _)| class == Class::Deny) {
            return Outcome::DenyExplicit;
        }
        let any_counts = |(class, _): &(Class, _)| *class == Class::Deny || own.is_none_or(|own| *class > own.0);
        let longer = |(class, size): &(Class, _)| own.is_some_and(|own| *class == own.0 && *size < own.1);
        let chosen = any.filter(|any| any_counts(any) || longer(any)).or(own);
        Outcome::of(chosen.map(|(class, _)| class))
    }

    fn history(seed: u64) {
        let random = &mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let (settings, world) = (settings(random), named_ports(random));
        let mut engine = Engine::new(settings.clone(), world.clone());
        let mut model = Model {
            settings,
            world,
            identities: BTreeMap::new(),
            objects: BTreeMap::new(),
            subjects: BTreeSet::new(),
            maps: BTreeMap::new(),
        };
        let proxies = random.one_in(2);
        let identity = |random: &mut Random| Identity::from_bits(u32::try_from(random.below(32)).unwrap().max(1));
        for step in 0..24 {
            let diffs = match random.below(12) {
                0..4 => {
                    let new: Vec<_> = random.list(5, |random| (identity(random), labels(random)));
                    let new: Vec<_> =
                        new.into_iter().filter(|(identity, _)| identity.bits() > 10 || step % 2 == 0).collect();
                    model.identities.extend(new.clone());
                    engine.put_identities(new)
                }
                4 => {
                    let gone = random.list(3, identity);
                    gone.iter().for_each(|identity| drop(model.identities.remove(identity)));
                    engine.remove_identities(gone)
                }
                5..8 => {
                    let new: Vec<_> =
                        random.list(2, |random| (key(random.below(6)), random.list(2, |r| rule(r, proxies))));
                    let gone = random.list(1, |random| key(random.below(6)));
                    gone.iter().for_each(|key| drop(model.objects.remove(key)));
                    model.objects.extend(new.clone());
                    engine.change_objects(new, gone)
                }
                8 => {
                    model.world = named_ports(random);
                    engine.set_world(model.world.clone())
                }
                9 => {
                    let subject = identity(random);
                    model.subjects.remove(&subject);
                    model.maps.remove(&subject);
                    engine.remove_subject(subject);
                    Vec::new()
                }
                _ => {
                    let subject = identity(random);
                    model.subjects.insert(subject);
                    engine.add_subject(subject)
                }
            };
            model.apply(diffs);
            if step % 8 == 7 {
                model.check(&engine);
            }
        }
    }

    #[test]
    fn lookup_and_entries_equal_the_specification_after_any_history() {
        each_world("histories", history);
    }

    #[test]
    fn id_15_a_family_of_the_world_stays_selected_whatever_labels_it_gets() {
        let mut engine = Engine::new(Settings::new(Name::new("east").unwrap(), Compat::Ringfence), World::default());
        let subject = Identity::from_bits(1000);
        let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: shop}\nspec:\n  endpointSelector: {}\n  ingress:\n  - fromEntities: [world]\n";
        let object = ringfence_policy::object::parse_objects(text).objects.remove(0);
        engine.put_identities([(subject, LabelSet::parse(["k8s:io.kubernetes.pod.namespace=shop"]).unwrap())]);
        engine.add_subject(subject);
        engine.change_objects([(object.key, object.rules)], []);
        let peer = Identity::WORLD_IPV4;
        let flow = Flow { subject, peer, direction: Direction::Ingress, protocol: 6, port: 80 };
        assert_eq!(engine.lookup(&flow), Ok(Outcome::Allow));
        engine.put_identities([(peer, LabelSet::parse(["k8s:app=a"]).unwrap())]);
        assert_eq!(engine.lookup(&flow), Ok(Outcome::Allow));
        engine.remove_identities([peer]);
        assert_eq!(engine.lookup(&flow), Ok(Outcome::Allow));
    }

    #[test]
    fn whole_ranges_are_fewer_entries_than_blocks() {
        let mut engine = Engine::new(Settings::new(Name::new("east").unwrap(), Compat::Ringfence), World::default());
        let subject = Identity::from_bits(1000);
        let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: shop}\nspec:\n  endpointSelector: {}\n  ingress:\n  - toPorts: [{ports: [{port: '80', endPort: 444, protocol: TCP}]}]\n";
        let object = ringfence_policy::object::parse_objects(text).objects.remove(0);
        engine.put_identities([(subject, LabelSet::parse(["k8s:io.kubernetes.pod.namespace=shop"]).unwrap())]);
        engine.add_subject(subject);
        engine.change_objects([(object.key, object.rules)], []);
        // The range, the host, and everything for the direction that is not enforced.
        assert_eq!(engine.count_entries(subject, PortForm::Ranges), 3);
        assert_eq!(engine.count_entries(subject, PortForm::Blocks), 11);
    }
}
