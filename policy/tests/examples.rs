//! Policies as users write them: every file is accepted as it is, does what its author expects, and where it does
//! something else the diagnostics say so. The files lie beside the repository; without them nothing is checked.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use ringfence_policy::{
        address::AddressBook,
        compat::Compat,
        evaluate::{Decision, Redirect, SubjectPolicy},
        flow::{Direction, Flow, protocol},
        identity::Identity,
        l7::{
            dns_name::DnsName,
            dns_rule::DnsMatchers,
            http_matcher::{HttpMatchers, HttpRequest},
            secret::Secrets,
        },
        label::{Label, LabelSet},
        name::Name,
        object::{Parsed, parse_objects},
        reserved::{RESERVED_PEERS, reserved_labels},
        rule::{Parser, Rule},
        world::{Settings, World},
    };

    const WORLD: &str = "203.0.113.9";
    const TCP: u8 = protocol::TCP;
    const UDP: u8 = protocol::UDP;

    /// The objects of one file.
    struct File {
        parsed: Parsed,
        compat: Compat,
    }

    /// One workload under the objects of a file.
    struct Workload<'f> {
        policy: SubjectPolicy,
        addresses: AddressBook,
        file: &'f File,
    }

    /// None if the file is not there.
    fn file(name: &str) -> Option<File> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/examples").join(name);
        let path = std::env::var_os("RINGFENCE_EXAMPLES").map_or(path, |folder| Path::new(&folder).join(name));
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: no {} (set RINGFENCE_EXAMPLES)", path.display());
            return None;
        };
        let parsed = parse_objects(&text);
        assert!(!parsed.has_errors(), "{name}: {:#?}", parsed.diagnostics);
        assert!(!parsed.objects.is_empty(), "{name}");
        Some(File { parsed, compat: Compat::Ringfence })
    }

    impl File {
        /// The rules of its warnings, each once.
        fn warnings(&self) -> Vec<&str> {
            let mut rules: Vec<&str> = self.parsed.diagnostics.iter().filter_map(|finding| finding.rule).collect();
            rules.sort_unstable();
            rules.dedup();
            rules
        }

        fn rules(&self) -> impl Iterator<Item = &Rule> {
            self.parsed.objects.iter().flat_map(|object| &object.rules)
        }

        /// A workload: `namespace label=value …`.
        fn workload(&self, subject: &str) -> Workload<'_> {
            let settings = Settings::new(Name::new("east").unwrap(), self.compat);
            let (identity, labels) = peer(subject);
            let policy = SubjectPolicy::resolve(&settings, &World::default(), self.rules(), identity, &labels).unwrap();
            let mut addresses = AddressBook::new(true, false);
            addresses.add_ranges(self.rules());
            // Every name that a test asks for has the address 198.51.100.<its length>.
            Workload { policy, addresses, file: self }
        }
    }

    impl Workload<'_> {
        fn decide(&self, direction: Direction, other: &str, protocol: u8, port: u16) -> Decision {
            let (peer, labels) = match (other.parse(), other.strip_prefix("dns ")) {
                (Ok(address), _) => {
                    let labels = self.addresses.labels(address);
                    (AddressBook::identity(&labels), labels)
                }
                (_, Some(name)) => {
                    let address = "198.51.100.1".parse().unwrap();
                    let answers = BTreeMap::from([(DnsName::new(name), [address].into())]);
                    let mut addresses = self.addresses.clone();
                    addresses.add_names(self.file.rules(), &answers, |selector| self.policy.uses(selector));
                    let labels = addresses.labels(address);
                    (AddressBook::identity(&labels), labels)
                }
                _ => peer(other),
            };
            let flow = Flow { subject: Identity::from_bits(0x10_0001), peer, direction, protocol, port };
            self.policy.decide(&flow, &labels)
        }

        fn passes(&self, direction: Direction, other: &str, protocol: u8, port: u16) -> bool {
            matches!(self.decide(direction, other, protocol, port), Decision::Allow { .. } | Decision::Redirect(_))
        }

        /// Flows towards the workload that pass, and flows that do not.
        fn accepts(&self, others: &[(&str, u16)]) -> &Self {
            others
                .iter()
                .for_each(|(other, port)| assert!(self.passes(Direction::Ingress, other, TCP, *port), "{other}"));
            self
        }

        fn refuses(&self, others: &[(&str, u16)]) -> &Self {
            let passes = |other: &str, port| self.passes(Direction::Ingress, other, TCP, port);
            others.iter().for_each(|(other, port)| assert!(!passes(other, *port), "{other} {port}"));
            self
        }

        fn reaches(&self, others: &[(&str, u8, u16)]) -> &Self {
            let passes = |other: &str, protocol, port| self.passes(Direction::Egress, other, protocol, port);
            others
                .iter()
                .for_each(|(other, protocol, port)| assert!(passes(other, *protocol, *port), "{other} {port}"));
            self
        }

        fn cannot_reach(&self, others: &[(&str, u8, u16)]) -> &Self {
            let passes = |other: &str, protocol, port| self.passes(Direction::Egress, other, protocol, port);
            others
                .iter()
                .for_each(|(other, protocol, port)| assert!(!passes(other, *protocol, *port), "{other} {port}"));
            self
        }

        fn redirect(&self, direction: Direction, other: &str, protocol: u8, port: u16) -> Redirect {
            match self.decide(direction, other, protocol, port) {
                Decision::Redirect(redirect) => *redirect,
                decision => panic!("{other} {port}: {decision:?}"),
            }
        }

        /// `METHOD path [Header: value]`, each with whether it is allowed.
        fn requests(&self, client: &str, port: u16, requests: &[(&str, bool)]) -> &Self {
            let redirect = self.redirect(Direction::Ingress, client, TCP, port);
            assert_eq!(redirect.parser, Parser::Http);
            assert!(!redirect.allow_all && !redirect.l3_allow_all, "{client}: {redirect:?}");
            let matchers = HttpMatchers::compile(redirect.rules.http.as_deref().unwrap(), &Secrets::default());
            for (text, expected) in requests {
                let mut parts = text.splitn(3, ' ');
                let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
                let header = parts.next().map(|header| header.split_once(": ").unwrap());
                let headers: Vec<(&str, &[u8])> =
                    header.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
                let request = HttpRequest::new(method, path, "host").with_headers(&headers);
                assert_eq!(matchers.judge(&request).allowed(), *expected, "{text}");
            }
            self
        }

        /// Names that may be asked for, each with whether.
        fn queries(&self, server: &str, names: &[(&str, bool)]) -> &Self {
            let redirect = self.redirect(Direction::Egress, server, UDP, 53);
            assert_eq!(redirect.parser, Parser::Dns);
            let matchers = DnsMatchers::compile(redirect.rules.dns.as_deref().unwrap());
            names
                .iter()
                .for_each(|(name, expected)| assert_eq!(matchers.allows(&DnsName::new(name)), *expected, "{name}"));
            self
        }
    }

    /// `reserved name`, or `namespace label=value …` for a pod of the local cluster.
    fn peer(text: &str) -> (Identity, LabelSet) {
        let reserved = |name: &str| RESERVED_PEERS.into_iter().find(|peer| peer.reserved_name() == Some(name)).unwrap();
        let mut words = text.split(' ');
        let namespace = words.next().unwrap();
        if namespace == "reserved" {
            let identity = reserved(words.next().unwrap());
            return (identity, reserved_labels(identity));
        }
        let built_in = [
            Label::new("k8s", "io.kubernetes.pod.namespace", namespace),
            Label::new("k8s", "io.cilium.k8s.policy.cluster", "east"),
        ];
        let own = words.map(|word| Label::parse(&format!("k8s:{word}")).unwrap());
        (Identity::from_bits(0x10_0002), built_in.into_iter().chain(own).collect())
    }

    const DNS: &str = "kube-system k8s-app=kube-dns";

    #[test]
    fn example_01_methods_and_headers() {
        let Some(file) = file("01-http-methods-and-headers.yaml") else { return };
        file.workload("production app=api-server").refuses(&[("production app=other", 8080), (WORLD, 8080)]).requests(
            "production app=web-frontend",
            8080,
            &[
                ("GET /api/v1/orders", true),
                ("GET /api/v2/orders", false),
                ("POST /api/v1/orders Content-Type: application/json", true),
                ("POST /api/v1/orders", false),
                ("POST /api/v1/orders?draft=1 Content-Type: application/json", false),
                ("DELETE /api/v1/orders", false),
            ],
        );
        assert_eq!(file.warnings(), ["HTTP-2"]);
    }

    #[test]
    fn example_02_names_without_a_dns_rule() {
        let Some(file) = file("02-fqdn-aws-without-dns-rule.yaml") else { return };
        file.workload("default app=backend")
            .reaches(&[("dns s3.amazonaws.com", TCP, 443), (DNS, UDP, 53)])
            .cannot_reach(&[("dns amazonaws.com", TCP, 443), (WORLD, TCP, 443), ("dns s3.amazonaws.com", TCP, 80)]);
        assert_eq!(file.warnings(), ["FQDN-6", "SEM-41"]);
    }

    #[test]
    fn example_03_clusterwide_default_deny() {
        let Some(file) = file("03-clusterwide-default-deny.yaml") else { return };
        let web = file.workload("shop app=web");
        web.accepts(&[("reserved host", 80)]).refuses(&[("shop app=api", 80), ("reserved remote-node", 80)]);
        web.reaches(&[(DNS, UDP, 53)]).cannot_reach(&[("shop app=api", TCP, 80), (WORLD, TCP, 443), (DNS, TCP, 53)]);
        assert!(file.warnings().is_empty());
    }

    #[test]
    fn example_04_health_check_only() {
        let Some(file) = file("04-healthcheck-only.yaml") else { return };
        let api = file.workload("backend app=api");
        api.requests(
            "frontend app=frontend",
            3000,
            &[("GET /health", true), ("GET /", false), ("POST /health", false)],
        );
        api.refuses(&[("backend app=frontend", 3000), ("frontend app=frontend", 3001)]);
    }

    #[test]
    fn example_05_empty_lists_isolate_and_the_peer_leaves_them_open() {
        let Some(mut file) = file("05-l3-basics.yaml") else { return };
        assert_eq!(file.warnings(), ["SEM-2"]);
        file.workload("backend app=backend").accepts(&[("frontend app=x", 1)]).refuses(&[("backend app=x", 1)]);
        file.workload("apps app=x").accepts(&[("shop app=y", 1), ("reserved remote-node", 1)]).refuses(&[(WORLD, 1)]);
        let demo = file.workload("demo app=x");
        demo.accepts(&[("10.10.3.4", 1)]).refuses(&[("10.11.0.1", 1), ("shop app=y", 1)]);
        demo.reaches(&[("reserved kube-apiserver", TCP, 443)]).cannot_reach(&[(WORLD, TCP, 443)]);
        // The objects that only isolate are the ones with empty lists.
        file.parsed.objects.retain(|object| object.key.name.as_str() == "default-deny");
        file.workload("demo app=x").refuses(&[("demo app=y", 80)]).cannot_reach(&[("demo app=y", TCP, 80)]);
        file.compat = Compat::Cilium;
        file.workload("demo app=x").accepts(&[("demo app=y", 80)]).reaches(&[("demo app=y", TCP, 80)]);
    }

    #[test]
    fn example_06_dns_names() {
        let Some(file) = file("06-dns-names.yaml") else { return };
        let queries = [("api.marktaguiad.dev", true), ("API.marktaguiad.dev.", true), ("marktaguiad.dev", false)];
        file.workload("frontend app=frontend").queries(DNS, &queries).cannot_reach(&[(
            "dns marktaguiad.dev",
            TCP,
            443,
        )]);
        file.workload("backend app=backend")
            .reaches(&[("dns marktaguiad.dev", TCP, 443)])
            .cannot_reach(&[("dns api.marktaguiad.dev", TCP, 443), (DNS, UDP, 53)]);
        assert_eq!(file.warnings(), ["FQDN-6", "FQDN-7"]);
    }

    #[test]
    fn example_07_workloads_behind_a_gateway() {
        let Some(mut file) = file("07-demo-app-behind-gateway.yaml") else { return };
        assert_eq!(file.warnings(), ["HTTP-2", "SEM-2"]);
        let clients = [("frontend app=x", 80), (WORLD, 80), ("reserved ingress", 81)];
        file.workload("frontend app=frontend").accepts(&[("reserved ingress", 80)]).refuses(&clients);
        let routes = [("GET /api", true), ("PUT /api/users", true), ("GET /api/register", false), ("GET /", false)];
        let backend = file.workload("backend app=backend");
        backend.requests("reserved ingress", 3000, &routes).cannot_reach(&[("database app=redis", TCP, 6379)]);
        let redis = file.workload("database app=redis");
        redis.accepts(&[("backend app=backend", 6379)]).refuses(&[("backend app=other", 6379)]);
        file.compat = Compat::Cilium;
        file.workload("backend app=backend").reaches(&[("database app=redis", TCP, 6379), (WORLD, TCP, 443)]);
    }

    #[test]
    fn example_08_one_port() {
        let Some(file) = file("08-frontend-to-backend.yaml") else { return };
        let backend = file.workload("production app=backend");
        backend.accepts(&[("production app=frontend", 8080), ("reserved host", 9)]);
        backend.refuses(&[("production app=frontend", 8081), ("staging app=frontend", 8080), (WORLD, 8080)]);
        assert!(file.warnings().is_empty());
    }

    #[test]
    fn example_09_a_header_is_no_expression() {
        let Some(file) = file("09-http-header-pattern.yaml") else { return };
        let requests = [
            ("GET /api/x", true),
            ("POST /api/submit X-App-Token: abc", false),
            ("POST /api/submit X-App-Token: .*", true),
        ];
        file.workload("production app=api-server").requests("production role=api-consumer", 80, &requests);
        assert_eq!(file.warnings(), ["HTTP-2", "HTTP-7"]);
    }

    #[test]
    fn example_10_names_with_a_dns_rule() {
        let Some(file) = file("10-s3-with-dns-rule.yaml") else { return };
        file.workload("data-pipeline app=uploader")
            .queries(DNS, &[("s3.amazonaws.com", true), ("a.s3.amazonaws.com", false), ("example.com", false)])
            .reaches(&[("dns s3.amazonaws.com", TCP, 443), ("dns api.example.com", TCP, 443)])
            .cannot_reach(&[("dns example.com", TCP, 443), (WORLD, TCP, 443)]);
        assert!(file.warnings().is_empty(), "{:?}", file.parsed.diagnostics);
    }

    #[test]
    fn example_11_a_deny_beside_an_allow() {
        let Some(file) = file("11-deny-dev-to-prod-db.yaml") else { return };
        let db = file.workload("production app=database env=production");
        db.accepts(&[("staging app=x", 5432)]).refuses(&[
            ("development app=x", 5432),
            ("staging app=x", 22),
            (WORLD, 5432),
        ]);
        assert!(file.warnings().is_empty());
    }

    #[test]
    fn example_12_kafka_topics() {
        let Some(file) = file("12-kafka-topics.yaml") else { return };
        let broker = file.workload("messaging app=kafka-broker");
        let redirect = broker.redirect(Direction::Ingress, "messaging role=consumer", TCP, 9092);
        assert_eq!((redirect.parser, redirect.rules.kafka.unwrap().len()), (Parser::Kafka, 2));
        broker.refuses(&[("messaging role=other", 9092)]);
        assert_eq!(file.warnings(), ["KAF-2"]);
    }

    #[test]
    fn example_13_denying_the_world() {
        let Some(file) = file("13-clusterwide-baseline.yaml") else { return };
        file.workload("shop app=web")
            .reaches(&[("reserved kube-apiserver", TCP, 443)])
            .cannot_reach(&[(WORLD, TCP, 443), ("shop app=api", TCP, 80)]);
        assert_eq!(file.warnings(), ["DENY-9", "FQDN-7", "SEM-8"]);
    }

    #[test]
    fn example_14_a_network_policy() {
        let Some(file) = file("14-network-policy.yaml") else { return };
        let payments = file.workload("payments app=payments");
        payments
            .accepts(&[("payments app=api-gateway", 8080)])
            .refuses(&[("shop app=api-gateway", 8080), (WORLD, 8080)]);
        payments.reaches(&[("payments app=postgres", TCP, 5432)]).cannot_reach(&[(DNS, UDP, 53)]);
        assert_eq!(file.warnings(), ["FQDN-7"]);
    }

    #[test]
    fn example_15_egress_by_name() {
        let Some(file) = file("15-payments-egress.yaml") else { return };
        file.workload("payments app=payments")
            .queries(DNS, &[("api.stripe.com", true), ("example.com", false)])
            .reaches(&[("dns hooks.stripe.com", TCP, 443), ("vault app=vault", TCP, 8200)])
            .cannot_reach(&[("dns www.stripe.com", TCP, 443), ("payments app=vault", TCP, 8200)]);
    }

    #[test]
    fn example_16_two_clients() {
        let Some(file) = file("16-http-two-clients.yaml") else { return };
        let api = file.workload("production app=internal-api");
        let of_frontend = [("GET /api/v1/products", true), ("GET /api/v1/products/1", false), ("GET /api/", false)];
        api.requests("production app=frontend", 8080, &of_frontend);
        let of_admin = [("GET /api/", true), ("GET /api/v1/status", false), ("DELETE /api/v1/products/12", true)];
        api.requests("production app=admin-service", 8080, &of_admin);
        assert_eq!(file.warnings(), ["HTTP-1"]);
    }

    #[test]
    fn example_17_a_grpc_method() {
        let Some(file) = file("17-grpc-method.yaml") else { return };
        let requests = [
            ("POST /payments.PaymentService/CreatePayment", true),
            ("POST /paymentsXPaymentService/CreatePayment", true),
            ("POST /payments.PaymentService/Refund", false),
        ];
        file.workload("payments app=payments").requests("payments app=checkout", 9090, &requests);
        assert!(file.warnings().contains(&"HTTP-4"));
    }

    #[test]
    fn example_18_a_port_without_a_protocol() {
        let Some(file) = file("18-db-by-identity.yaml") else { return };
        let db = file.workload("data app=postgres");
        db.accepts(&[("data app=payments environment=production", 5432)]).refuses(&[("data app=payments", 5432)]);
        assert!(db.passes(Direction::Ingress, "data app=payments environment=production", UDP, 5432), "ANY");
        assert_eq!(file.warnings(), ["SEM-41"]);
    }

    #[test]
    fn example_19_visibility_refuses_the_rest() {
        let Some(file) = file("19-dns-visibility.yaml") else { return };
        let any = file.workload("production app=x");
        any.queries(DNS, &[("example.com", true)]).cannot_reach(&[("production app=y", TCP, 80), (WORLD, TCP, 443)]);
        assert_eq!(file.warnings(), ["SEM-3"]);
    }

    #[test]
    fn example_20_paths_for_anyone() {
        let Some(file) = file("20-http-any-client.yaml") else { return };
        let requests = [("GET /v1/path1", true), ("PUT /v2/path2/x", true), ("POST /a/path3 X-My-Header: true", true)];
        file.workload("default app=myService").requests(WORLD, 80, &requests);
        let service = file.workload("default app=service");
        service.requests("default env=prod", 80, &[("GET /public", true), ("GET /private", false)]);
        service.refuses(&[("default env=dev", 80)]);
    }

    #[test]
    fn example_21_names_that_are_asked_for_and_not_reached() {
        let Some(file) = file("21-fqdn-and-dns-visibility.yaml") else { return };
        file.workload("default org=alliance")
            .queries(DNS, &[("cilium.io", true), ("docs.cilium.io", true), ("example.com", false)])
            .reaches(&[("dns sub.cilium.io", TCP, 80), ("dns special-a-service.api.cilium.io", TCP, 80)])
            .cannot_reach(&[("dns docs.cilium.io", TCP, 80), ("dns sub.cilium.io", TCP, 443)]);
        assert_eq!(file.warnings(), ["FQDN-7"]);
    }
}
