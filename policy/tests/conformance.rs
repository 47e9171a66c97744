//! The vectors of the real engine: objects, identities, flows and the verdicts it gave, in compat mode.
//!
//! `RINGFENCE_CONFORMANCE` names the folder with the `*-vectors.jsonl.gz` files; the default is `shared/conformance`
//! beside the repository. `RINGFENCE_CASES` is a part of the names of the cases to run; the default is all of them.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs::File,
        io::{BufRead, BufReader, Write},
        net::IpAddr,
        path::{Path, PathBuf},
    };

    use flate2::read::GzDecoder;
    use ringfence_policy::{
        address::AddressBook,
        compat::Compat,
        diagnostic::Position,
        evaluate::{Conflict, Decision, Redirect, SubjectPolicy},
        flow::{Direction, Flow, protocol},
        identity::Identity,
        l7::dns_name::DnsName,
        label::{Label, LabelSet},
        name::Name,
        object::{CidrGroup, Object, parse_documents},
        record::NamedPort,
        reserved::{RESERVED_PEERS, reserved_labels},
        rule::{Authentication, Rule},
        world::{Enforcement, Settings, World},
    };
    use serde::{Deserialize, Serialize};
    use serde_json::Value;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        config: Config,
        #[serde(default)]
        identities: Vec<KnownIdentity>,
        subject: u32,
        policies: Vec<Value>,
        #[serde(default)]
        cidr_groups: Vec<Group>,
        #[serde(default)]
        ip_labels: Vec<AddressLabels>,
        #[serde(default)]
        fqdn_ips: BTreeMap<String, BTreeSet<IpAddr>>,
        #[serde(default)]
        named_ports: NamedPorts,
        #[serde(default)]
        queries: Vec<Query>,
        expect: Expected,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        enforcement: String,
        local_cluster: String,
        #[serde(default = "yes")]
        ipv6: bool,
        #[serde(default)]
        allow_localhost: Option<String>,
        #[serde(default)]
        host_firewall: bool,
        #[serde(default)]
        cidr_matches_nodes: bool,
        #[serde(default)]
        disable_non_default_deny: bool,
    }

    #[derive(Deserialize)]
    struct KnownIdentity {
        id: u32,
        labels: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Group {
        name: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(default)]
        cidrs: Vec<String>,
    }

    #[derive(Deserialize)]
    struct AddressLabels {
        cidr: String,
        labels: Vec<String>,
    }

    #[derive(Deserialize, Default)]
    struct NamedPorts {
        #[serde(default)]
        ingress: BTreeMap<String, PortNumber>,
        #[serde(default)]
        egress: BTreeMap<String, PortNumber>,
    }

    #[derive(Deserialize)]
    struct PortNumber {
        port: u16,
        protocol: String,
    }

    #[derive(Deserialize)]
    struct Query {
        direction: Direction,
        peer: Option<u32>,
        peer_ip: Option<IpAddr>,
        #[serde(default)]
        peer_labels: Vec<String>,
        protocol: String,
        port: u16,
        expect: Answer,
    }

    #[derive(Deserialize, PartialEq, Debug, Default)]
    struct Answer {
        verdict: String,
        why: Option<String>,
        auth: Option<String>,
        l7: Option<Aggregate>,
    }

    #[derive(Deserialize, PartialEq, Debug, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Aggregate {
        parser: String,
        rules: Vec<Value>,
        allow_all: bool,
        l3_allow_all: bool,
        server_names: BTreeSet<String>,
        listener: String,
        terminating_tls: bool,
        originating_tls: bool,
    }

    #[derive(Deserialize)]
    struct Expected {
        policies: Vec<Acceptance>,
        status: String,
        class: Option<String>,
        ingress_enforced: Option<bool>,
        egress_enforced: Option<bool>,
    }

    #[derive(Deserialize)]
    struct Acceptance {
        accepted: bool,
        class: Option<String>,
    }

    #[derive(Default)]
    struct Tally {
        cases_passed: usize,
        cases_failed: usize,
        cases_skipped: usize,
        queries_passed: usize,
        queries_failed: usize,
        failures: Vec<String>,
    }

    const fn yes() -> bool {
        true
    }

    /// A relative path starts at the workspace, whichever folder the test runs in.
    fn folder() -> PathBuf {
        let given = std::env::var_os("RINGFENCE_CONFORMANCE").unwrap_or_else(|| "../shared/conformance".into());
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(given)
    }

    /// The test harness keeps what passing tests `println!`; this is to be seen.
    fn say(text: &str) {
        writeln!(std::io::stdout().lock(), "{text}").unwrap();
    }

    #[test]
    fn vectors_of_the_real_engine() {
        let folder = folder();
        let Ok(entries) = folder.read_dir() else {
            say(&format!("skipped: no conformance vectors in {} (set RINGFENCE_CONFORMANCE)", folder.display()));
            return;
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.to_string_lossy().ends_with("-vectors.jsonl.gz")).collect();
        files.sort();
        assert!(!files.is_empty(), "{} holds no *-vectors.jsonl.gz", folder.display());
        let mut failed = 0;
        for file in files {
            let tally = run(&file);
            say(&format!(
                "{}: cases {} passed, {} failed, {} skipped; queries {} passed, {} failed",
                file.file_name().unwrap_or_default().to_string_lossy(),
                tally.cases_passed,
                tally.cases_failed,
                tally.cases_skipped,
                tally.queries_passed,
                tally.queries_failed,
            ));
            tally.failures.iter().take(10).for_each(|failure| say(&format!("  {failure}")));
            failed += tally.cases_failed;
        }
        assert_eq!(failed, 0, "cases with another outcome than the real engine's");
    }

    fn run(file: &Path) -> Tally {
        let chosen = std::env::var("RINGFENCE_CASES").unwrap_or_default();
        let mut tally = Tally::default();
        for line in BufReader::new(GzDecoder::new(File::open(file).unwrap())).lines() {
            let line = line.unwrap();
            let case: Case = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if !case.name.contains(&chosen) {
                tally.cases_skipped += 1;
                continue;
            }
            let (mut failures, queries_failed) = check(&case);
            tally.queries_failed += queries_failed;
            tally.queries_passed += case.queries.len() - queries_failed;
            if failures.is_empty() {
                tally.cases_passed += 1;
            } else {
                tally.cases_failed += 1;
            }
            // One failure of each case is enough to look at.
            failures.truncate(1);
            tally.failures.extend(failures.into_iter().map(|failure| format!("{}: {failure}", case.name)));
        }
        tally
    }

    /// What differs, and how many queries do.
    fn check(case: &Case) -> (Vec<String>, usize) {
        let mut failures = Vec::new();
        let objects = objects(case, &mut failures);
        let mut scene = Scene::new(case, &objects);
        let policy = match (scene.policy(case), case.expect.status.as_str()) {
            (Ok(policy), "ok") => policy,
            (Err(conflict), "resolve_error") => {
                if case.expect.class.as_deref() != Some(class(conflict)) {
                    failures.push(format!("{conflict}, expected {:?}", case.expect.class));
                }
                return (failures, 0);
            }
            (got, expected) => {
                failures.push(format!("{:?}, expected {expected} {:?}", got.err(), case.expect.class));
                return (failures, case.queries.len());
            }
        };
        scene.learn_names(case, &policy);
        for (direction, expected) in
            [(Direction::Ingress, case.expect.ingress_enforced), (Direction::Egress, case.expect.egress_enforced)]
        {
            if expected != Some(policy.enforces(direction)) {
                failures.push(format!("{direction} enforced: expected {expected:?}"));
            }
        }
        let mut queries_failed = 0;
        for query in &case.queries {
            if let Err(failure) = scene.ask(case, &policy, query) {
                queries_failed += 1;
                failures.push(failure);
            }
        }
        (failures, queries_failed)
    }

    /// The objects of a case that are accepted.
    fn objects(case: &Case, failures: &mut Vec<String>) -> Vec<Object> {
        let mut objects = Vec::new();
        for (index, (policy, expected)) in case.policies.iter().zip(&case.expect.policies).enumerate() {
            let mut parsed = parse_documents(&policy.to_string(), Compat::Cilium);
            let errors: Vec<String> =
                parsed.diagnostics.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
            if errors.is_empty() != expected.accepted {
                let expected = (expected.accepted, &expected.class);
                failures.push(format!("policy {index}: expected {expected:?}, found {errors:?}: {policy}"));
            }
            objects.extend(parsed.objects.pop());
        }
        objects
    }

    /// One case, ready to be asked.
    struct Scene<'a> {
        settings: Settings,
        world: World,
        rules: Vec<&'a Rule>,
        labels: BTreeMap<Identity, LabelSet>,
        addresses: AddressBook,
    }

    impl<'a> Scene<'a> {
        fn new(case: &Case, objects: &'a [Object]) -> Self {
            let config = &case.config;
            let settings = Settings {
                enforcement: match config.enforcement.as_str() {
                    "always" => Enforcement::Always,
                    "never" => Enforcement::Never,
                    _ => Enforcement::Default,
                },
                allow_localhost: config.allow_localhost.as_deref() != Some("policy"),
                host_firewall: config.host_firewall,
                optional_default_deny: !config.disable_non_default_deny,
                dual_stack: config.ipv6,
                ..Settings::new(Name::new(config.local_cluster.as_str()).unwrap(), Compat::Cilium)
            };
            let named = |ports: &BTreeMap<String, PortNumber>| {
                let port = |(name, port): (&String, &PortNumber)| NamedPort {
                    name: name.clone(),
                    protocol: protocol_number(&port.protocol),
                    port: port.port,
                };
                ports.iter().map(port).collect()
            };
            let world = World {
                own_ports: named(&case.named_ports.ingress),
                peer_ports: named(&case.named_ports.egress),
                ..World::default()
            };
            let rules: Vec<&Rule> = objects.iter().flat_map(|object| &object.rules).collect();
            let reserved = RESERVED_PEERS.into_iter().map(|peer| (peer, reserved_labels(peer)));
            let mut labels: BTreeMap<Identity, LabelSet> = reserved.collect();
            let known = case.identities.iter();
            labels.extend(known.map(|known| (Identity::from_bits(known.id), label_set(&known.labels))));
            let addresses = addresses(case, &rules);
            Self { settings, world, rules, labels, addresses }
        }

        fn policy(&self, case: &Case) -> Result<SubjectPolicy, Conflict> {
            let subject = Identity::from_bits(case.subject);
            let rules = self.rules.iter().copied();
            SubjectPolicy::resolve(&self.settings, &self.world, rules, subject, &self.labels[&subject])
        }

        /// Answers are looked at once a policy wants them.
        fn learn_names(&mut self, case: &Case, policy: &SubjectPolicy) {
            let answers = case.fqdn_ips.iter().map(|(name, found)| (DnsName::new(name), found.clone())).collect();
            self.addresses.add_names(self.rules.iter().copied(), &answers, |selector| policy.uses(selector));
        }

        fn ask(&self, case: &Case, policy: &SubjectPolicy, query: &Query) -> Result<(), String> {
            let (peer, labels) = match (query.peer, query.peer_ip) {
                (Some(bits), _) => {
                    let peer = Identity::from_bits(bits);
                    (peer, self.labels.get(&peer).cloned().unwrap_or_default())
                }
                (None, Some(address)) => {
                    let labels = self.addresses.labels(address);
                    let expected = label_set(&query.peer_labels);
                    if labels != expected {
                        return Err(format!("labels of {address}: {labels}, expected {expected}"));
                    }
                    (AddressBook::identity(&labels), labels)
                }
                (None, None) => panic!("a query without a peer"),
            };
            let flow = Flow {
                subject: Identity::from_bits(case.subject),
                peer,
                direction: query.direction,
                protocol: protocol_number(&query.protocol),
                port: query.port,
            };
            let got = answer(policy.decide(&flow, &labels));
            let same = got == sorted(&query.expect);
            if same { Ok(()) } else { Err(format!("{got:?}, expected {:?} for {flow:?} {labels}", query.expect)) }
        }
    }

    fn addresses(case: &Case, rules: &[&Rule]) -> AddressBook {
        let mut addresses = AddressBook::new(case.config.ipv6, case.config.cidr_matches_nodes);
        for known in &case.ip_labels {
            addresses.add(known.cidr.parse().unwrap(), label_set(&known.labels).iter());
        }
        for group in &case.cidr_groups {
            addresses.add_group(&CidrGroup {
                name: Name::new(group.name.as_str()).unwrap(),
                position: Position::START,
                labels: group.labels.clone().into_iter().collect(),
                ranges: group.cidrs.iter().filter_map(|range| range.parse().ok()).collect(),
            });
        }
        addresses.add_ranges(rules.iter().copied());
        addresses
    }

    /// Some sets give a key twice: the last one counts (LBL-6).
    fn label_set(texts: &[String]) -> LabelSet {
        texts.iter().map(|text| Label::parse(text).unwrap()).collect()
    }

    fn protocol_number(word: &str) -> u8 {
        match word {
            "TCP" => protocol::TCP,
            "UDP" => protocol::UDP,
            "SCTP" => protocol::SCTP,
            "ICMP" => protocol::ICMP,
            "ICMPv6" => protocol::ICMPV6,
            _ => panic!("unknown protocol {word}"),
        }
    }

    fn class(conflict: Conflict) -> &'static str {
        match conflict {
            Conflict::Parsers => "conflict-l7-parsers",
            Conflict::Listeners => "conflict-listener",
            Conflict::Authentication => "conflict-auth",
            Conflict::Tls => "conflict-tls",
            Conflict::ServerNames => "conflict-sni-l7",
            Conflict::ListenerOutOfReach => "listener-out-of-reach",
            Conflict::TlsSecret => "tls-secret",
        }
    }

    fn answer(decision: Decision) -> Answer {
        let simple = |verdict: &str, why: Option<&str>| Answer {
            verdict: verdict.to_owned(),
            why: why.map(ToOwned::to_owned),
            ..Answer::default()
        };
        match decision {
            Decision::Allow { authentication } => Answer { auth: auth(authentication), ..simple("allow", None) },
            Decision::DenyDefault => simple("deny", Some("default")),
            Decision::DenyExplicit => simple("deny", Some("explicit")),
            Decision::Redirect(redirect) => Answer {
                auth: auth(redirect.authentication),
                l7: Some(aggregate(*redirect)),
                ..simple("redirect", None)
            },
        }
    }

    fn auth(authentication: Authentication) -> Option<String> {
        match authentication {
            Authentication::Disabled => None,
            Authentication::Required => Some("spire".to_owned()),
            Authentication::TestAlwaysFail => Some("test-always-fail".to_owned()),
        }
    }

    fn aggregate(redirect: Redirect) -> Aggregate {
        fn values<T: Serialize>(rules: Option<Vec<T>>) -> impl Iterator<Item = Value> {
            rules.into_iter().flatten().map(|rule| serde_json::to_value(rule).unwrap())
        }
        let rules = redirect.rules;
        let rules = values(rules.http).chain(values(rules.kafka)).chain(values(rules.dns)).chain(values(rules.l7));
        Aggregate {
            parser: redirect.parser.to_string(),
            rules: in_order(rules.collect()),
            allow_all: redirect.allow_all,
            l3_allow_all: redirect.l3_allow_all,
            server_names: redirect.server_names,
            listener: redirect.listener.unwrap_or_default(),
            terminating_tls: redirect.terminating_tls.is_some(),
            originating_tls: redirect.originating_tls.is_some(),
        }
    }

    fn in_order(mut rules: Vec<Value>) -> Vec<Value> {
        rules.sort_by_key(ToString::to_string);
        rules.dedup();
        rules
    }

    fn sorted(answer: &Answer) -> Answer {
        let l7 = answer.l7.as_ref().map(|l7| Aggregate {
            parser: l7.parser.clone(),
            rules: in_order(l7.rules.clone()),
            server_names: l7.server_names.clone(),
            listener: l7.listener.clone(),
            ..*l7
        });
        Answer { verdict: answer.verdict.clone(), why: answer.why.clone(), auth: answer.auth.clone(), l7 }
    }
}
