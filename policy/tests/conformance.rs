//! The vectors of the real engine: objects, identities, flows and the verdicts it gave, in compat mode.
//!
//! `RINGFENCE_CONFORMANCE` names the folder with the `*-vectors.jsonl.gz` files; the default is `shared/conformance`
//! beside the repository. A case with an object that uses what is not supported yet is counted and left out.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::File,
        io::{BufRead, BufReader},
        path::{Path, PathBuf},
    };

    use flate2::read::GzDecoder;
    use ringfence_policy::{
        compat::Compat,
        compile::{Compiler, LocalNode},
        evaluate::{Settings, evaluate},
        flow::{Direction, Flow, Verdict, protocol},
        identity::Identity,
        label::LabelSet,
        mesh::Mesh,
        name::Name,
        object::{Object, parse_objects},
        record::{Change, Delta, Endpoint, IdentityRecord, PolicyRecord, Record},
        reserved::{RESERVED_PEERS, reserved_labels},
        revision::Revision,
        tables::EndpointId,
    };
    use serde::Deserialize;
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
        queries: Vec<Query>,
        expect: Expected,
    }

    #[derive(Deserialize)]
    struct Config {
        enforcement: String,
        local_cluster: String,
        #[serde(default)]
        allow_localhost: Option<String>,
        #[serde(default)]
        host_firewall: bool,
    }

    #[derive(Deserialize)]
    struct KnownIdentity {
        id: u32,
        labels: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Query {
        direction: Direction,
        peer: Option<u32>,
        /// Instead of `peer`: the labels of the identity that an address resolved to.
        #[serde(default)]
        peer_labels: Vec<String>,
        protocol: String,
        port: u16,
        expect: Answer,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Answer {
        verdict: String,
        #[serde(default)]
        why: Option<String>,
    }

    #[derive(Deserialize)]
    struct Expected {
        policies: Vec<Acceptance>,
        status: String,
        ingress_enforced: Option<bool>,
        egress_enforced: Option<bool>,
    }

    #[derive(Deserialize)]
    struct Acceptance {
        accepted: bool,
    }

    #[derive(Default)]
    struct Tally {
        cases_passed: usize,
        cases_failed: usize,
        unsupported: usize,
        queries: usize,
        failures: Vec<String>,
    }

    enum Outcome {
        Unsupported,
        Run { failures: Vec<String>, queries: usize },
    }

    fn folder() -> PathBuf {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
        std::env::var_os("RINGFENCE_CONFORMANCE").map_or_else(default, PathBuf::from)
    }

    #[test]
    fn vectors_of_the_real_engine() {
        let folder = folder();
        let Ok(entries) = folder.read_dir() else {
            println!("skipped: no conformance vectors in {} (set RINGFENCE_CONFORMANCE)", folder.display());
            return;
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.to_string_lossy().ends_with("-vectors.jsonl.gz")).collect();
        files.sort();
        let mut failed = 0;
        for file in files {
            let tally = run(&file);
            println!(
                "{}: cases {} passed, {} failed, {} not supported yet; {} queries asked",
                file.file_name().unwrap_or_default().to_string_lossy(),
                tally.cases_passed,
                tally.cases_failed,
                tally.unsupported,
                tally.queries,
            );
            tally.failures.iter().take(10).for_each(|failure| println!("  {failure}"));
            failed += tally.cases_failed;
        }
        assert_eq!(failed, 0, "cases with another outcome than the real engine's");
    }

    fn run(file: &Path) -> Tally {
        let mut tally = Tally::default();
        for line in BufReader::new(GzDecoder::new(File::open(file).unwrap())).lines() {
            let line = line.unwrap();
            let case: Case = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            match check(&case) {
                Outcome::Unsupported => tally.unsupported += 1,
                Outcome::Run { failures, queries } => {
                    tally.queries += queries;
                    if failures.is_empty() {
                        tally.cases_passed += 1;
                    } else {
                        tally.cases_failed += 1;
                    }
                    tally.failures.extend(failures.into_iter().map(|failure| format!("{}: {failure}", case.name)));
                }
            }
        }
        tally
    }

    /// The objects of a case that are accepted, numbered so that equal names do not meet; none if one of them uses
    /// what is not supported yet.
    fn objects(case: &Case, failures: &mut Vec<String>) -> Option<Vec<Object>> {
        let mut objects = Vec::new();
        for (index, (policy, expected)) in case.policies.iter().zip(&case.expect.policies).enumerate() {
            let mut parsed = parse_objects(&policy.to_string());
            let errors: Vec<String> =
                parsed.diagnostics.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
            // The vectors' engine ignores unknown fields; Ringfence never does.
            let beyond = |error: &String| error.contains("not supported yet") || error.contains("unknown field");
            if errors.iter().any(beyond) {
                return None;
            }
            if errors.is_empty() != expected.accepted {
                failures.push(format!(
                    "policy {index} accepted: {}, expected {}: {errors:?}",
                    errors.is_empty(),
                    expected.accepted
                ));
            }
            if let Some(object) = parsed.objects.pop() {
                objects.push(object);
            }
        }
        Some(objects)
    }

    fn check(case: &Case) -> Outcome {
        let config = &case.config;
        if config.enforcement != "default" || config.allow_localhost.is_some() || config.host_firewall {
            return Outcome::Unsupported;
        }
        let mut failures = Vec::new();
        let Some(objects) = objects(case, &mut failures) else { return Outcome::Unsupported };
        if case.expect.status != "ok" {
            failures.push(format!("expected status {}", case.expect.status));
        }
        let world = World::new(case, &objects);
        for (direction, enforced) in
            [(Direction::Ingress, case.expect.ingress_enforced), (Direction::Egress, case.expect.egress_enforced)]
        {
            if enforced.is_some_and(|enforced| enforced != world.enforces(direction)) {
                failures.push(format!("{direction} enforced: expected {enforced:?}"));
            }
        }
        for query in &case.queries {
            let (peer, labels) = world.peer(query);
            let flow = Flow {
                subject: Identity::from_bits(case.subject),
                peer,
                direction: query.direction,
                protocol: protocol_number(&query.protocol),
                port: query.port,
            };
            for (who, verdict) in
                [("specification", world.specified(&flow, &labels)), ("tables", world.compiled(&flow))]
            {
                if verdict.is_some_and(|verdict| answer(verdict) != query.expect) {
                    failures.push(format!("{who}: {verdict:?}, expected {:?} for {flow:?}", query.expect));
                }
            }
        }
        Outcome::Run { failures, queries: case.queries.len() }
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

    fn answer(verdict: Verdict) -> Answer {
        let (verdict, why) = match verdict {
            Verdict::Allow => ("allow", None),
            Verdict::DenyDefault => ("deny", Some("default".to_owned())),
            Verdict::DenyExplicit => ("deny", Some("explicit".to_owned())),
        };
        Answer { verdict: verdict.to_owned(), why }
    }

    /// One case, ready to be asked.
    struct World<'a> {
        settings: Settings,
        objects: &'a [Object],
        subject: Identity,
        labels: BTreeMap<Identity, LabelSet>,
        tables: ringfence_policy::tables::Tables,
        /// The tables take reserved identities for what they always are.
        redefined: bool,
    }

    const SUBJECT: EndpointId = EndpointId(1);

    impl<'a> World<'a> {
        fn new(case: &Case, objects: &'a [Object]) -> Self {
            let local_cluster = Name::new(case.config.local_cluster.as_str()).unwrap();
            let reserved = RESERVED_PEERS.into_iter().map(|peer| (peer, reserved_labels(peer)));
            let mut labels: BTreeMap<Identity, LabelSet> = reserved.collect();
            let known = case.identities.iter();
            labels.extend(known.map(|known| (Identity::from_bits(known.id), LabelSet::parse(&known.labels).unwrap())));
            let redefined =
                case.identities.iter().any(|known| RESERVED_PEERS.iter().any(|peer| peer.bits() == known.id));
            let subject = Identity::from_bits(case.subject);
            let endpoint = Endpoint {
                cluster: local_cluster.clone(),
                node: Name::new("node").unwrap(),
                name: Name::new("subject").unwrap(),
                addresses: vec![],
                labels: labels.get(&subject).cloned().unwrap_or_default(),
                identity: subject,
                named_ports: vec![],
            };
            let local = LocalNode {
                cluster: local_cluster.clone(),
                node: endpoint.node.clone(),
                endpoints: BTreeMap::from([(endpoint.name.clone(), SUBJECT)]),
            };
            let identities =
                labels.iter().map(|(identity, labels)| IdentityRecord { identity: *identity, labels: labels.clone() });
            let policies = objects.iter().map(|o| PolicyRecord { key: o.key.clone(), text: o.text.clone() });
            let records = identities.map(Record::Identity).chain([Record::Endpoint(endpoint)]);
            let changes = records.chain(policies.map(Record::Policy)).map(Change::Put).collect();
            let mut mesh = Mesh::default();
            mesh.apply(&Delta { revision: Revision(1), changes }).unwrap();
            let tables = Compiler::new(Compat::Cilium).compile(&mesh, &local).unwrap().tables;
            Self {
                settings: Settings { local_cluster, compat: Compat::Cilium },
                objects,
                subject,
                labels,
                tables,
                redefined,
            }
        }

        fn enforces(&self, direction: Direction) -> bool {
            let subject = &self.labels[&self.subject];
            let mut rules = self.objects.iter().flat_map(|object| &object.rules);
            let selected = |rule: &ringfence_policy::rule::Rule| {
                rule.subject.matches(subject) && rule.section(direction).isolates(Compat::Cilium)
            };
            let init = subject.iter().any(|label| label.to_string() == "reserved:init");
            self.subject != Identity::HOST && (init || rules.any(selected))
        }

        /// The identity of a query's peer, by number or by labels, and its labels.
        fn peer(&self, query: &Query) -> (Identity, LabelSet) {
            const SOME_ADDRESS: Identity = Identity::from_bits(0x4000_0001);
            let Some(bits) = query.peer else {
                let labels = LabelSet::parse(&query.peer_labels).unwrap();
                let same = self.labels.iter().find(|(_, known)| **known == labels);
                return (same.map_or(SOME_ADDRESS, |(identity, _)| *identity), labels);
            };
            let peer = Identity::from_bits(bits);
            (peer, self.labels.get(&peer).cloned().unwrap_or_default())
        }

        fn specified(&self, flow: &Flow, peer: &LabelSet) -> Option<Verdict> {
            let rules = self.objects.iter().flat_map(|object| &object.rules);
            Some(evaluate(&self.settings, rules, &self.labels[&flow.subject], peer, flow))
        }

        /// None where the peer is an address of no record, or the case gives a reserved identity other labels, or has two objects of one name.
        fn compiled(&self, flow: &Flow) -> Option<Verdict> {
            let names: std::collections::BTreeSet<_> = self.objects.iter().map(|object| &object.key).collect();
            let askable = !self.redefined && names.len() == self.objects.len();
            let known = self.labels.contains_key(&flow.peer);
            (askable && known).then(|| self.tables.lookup(SUBJECT, flow))
        }
    }
}
