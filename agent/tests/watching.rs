//! What the datapath knows reaches people: events, maps, counters, what was repaired, and the modes that were asked for.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../mesh-gateway/tests/support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod mesh;
#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use mesh::{TestStore, certificates, eventually, free_address, get};
use ringfence_agent::{Config, config::EnforcementMode};
use ringfence_datapath::{Capacity, Datapath as _, Tally};
use ringfence_policy::{
    command::Command,
    identity::ClusterId,
    record::{Cluster, PolicyKey, PolicyKind, PolicyRecord, Record},
    tables::EndpointId,
};
use ringfence_proto::v1::{self, DatapathMap, flow_end::End, map_entry::Entry};
use support::{Running, config, name, spy::Spy, start, with_endpoints};
use tempfile::TempDir;
use tonic::{Code, Streaming};

const WEB: (&str, &str, &str, &str) =
    ("web-1", "veth1", "10.101.1.10", "k8s:app=web,k8s:io.kubernetes.pod.namespace=shop");
const API: (&str, &str, &str, &str) =
    ("api-1", "veth2", "10.101.1.11", "k8s:app=api,k8s:io.kubernetes.pod.namespace=shop");
const ELSEWHERE: &str = "192.0.2.1";

/// Who may reach the API, and at which port; everything else towards it is closed.
const OPEN_API: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: open-api}\n\
                        spec:\n  endpointSelector: {matchLabels: {app: api}}\n  ingress:\n\
                        \x20 - fromEndpoints: [{matchLabels: {app: web}}]\n    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]\n";

/// Two endpoints of a node, with a policy for the second one.
struct Bed {
    running: Running,
    config: Config,
    spy: Spy,
    store: TestStore,
    _gateway: mesh::Killable,
    _directory: TempDir,
}

impl Bed {
    fn new(change: impl FnOnce(Config) -> Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tls = certificates(directory.path());
        let store = TestStore::new(100);
        store.found(ringfence_policy::store::StoreId::new(1, [1; 10]));
        store.put(Record::Cluster(Cluster {
            name: name("east"),
            id: ClusterId::new(1).unwrap(),
            pod_cidrs: vec!["10.101.0.0/16".parse().unwrap()],
        }));
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (gateway, serving) = store.serve("gateway/east", any, &tls);
        let plain = config(directory.path(), &tls, &[gateway]);
        let config = change(with_endpoints(plain, directory.path(), &[WEB, API]));
        let spy = Spy::new(Capacity::default());
        let running = start(&config, &spy);
        let bed = Self { running, config, spy, store, _gateway: serving, _directory: directory };
        bed.policy("open-api", OPEN_API);
        bed
    }

    /// Applies a policy and waits until it is in force for both endpoints.
    fn policy(&self, policy: &str, text: &str) {
        let key = PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name: name(policy) };
        self.store.execute(Command::PutPolicies(vec![PolicyRecord { key, text: text.to_owned() }])).unwrap();
        eventually("the policy is in force", || {
            self.running.revision() == self.store.revision().0 && self.spy.observed().1.endpoints.len() == 2
        });
    }

    fn probe(&self, source: &str, destination: &str, port: u32) -> v1::ProbeResponse {
        let request = v1::ProbeRequest {
            source: source.to_owned(),
            destination: destination.to_owned(),
            protocol: 6,
            source_port: 0,
            destination_port: port,
        };
        let answer = self.running.runtime.run(self.running.client(&self.config).probe(request));
        answer.unwrap().into_inner()
    }

    fn status(&self) -> v1::AgentStatus {
        let answer = self.running.runtime.run(self.running.client(&self.config).status(v1::AgentStatusRequest {}));
        answer.unwrap().into_inner()
    }

    /// Begins to watch; the first message is taken.
    fn watch(&self, request: v1::MonitorRequest) -> Streaming<v1::MonitorResponse> {
        let mut client = self.running.client(&self.config);
        self.running.runtime.run(async {
            let mut stream = client.monitor(request).await.unwrap().into_inner();
            let started = stream.message().await.unwrap().unwrap().started.unwrap();
            assert_eq!((started.cluster.as_str(), started.node.as_str()), ("east", "n1"));
            stream
        })
    }

    /// The next message with something in it.
    fn next(&self, stream: &mut Streaming<v1::MonitorResponse>) -> v1::MonitorResponse {
        self.running.runtime.run(async {
            let next = tokio::time::timeout(Duration::from_secs(30), stream.message());
            next.await.expect("an event comes").unwrap().unwrap()
        })
    }

    fn events(&self, stream: &mut Streaming<v1::MonitorResponse>, count: usize) -> Vec<v1::FlowEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next(stream).events);
        }
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    fn refused(&self, request: v1::MonitorRequest) -> tonic::Status {
        self.running.runtime.run(self.running.client(&self.config).monitor(request)).unwrap_err()
    }

    fn read(&self, request: v1::ReadMapsRequest) -> Result<(Vec<Entry>, v1::ReadMapsEnd), tonic::Status> {
        let mut client = self.running.client(&self.config);
        self.running.runtime.run(async {
            let mut stream = client.read_maps(request).await?.into_inner();
            let mut entries = Vec::new();
            while let Some(piece) = stream.message().await? {
                entries.extend(piece.entries.into_iter().filter_map(|entry| entry.entry));
                if let Some(end) = piece.end {
                    return Ok((entries, end));
                }
            }
            panic!("the last piece says so");
        })
    }

    fn set_audit(&self, endpoint: &str, audit: bool) -> Result<(), tonic::Status> {
        let request = v1::SetEndpointAuditRequest { name: endpoint.to_owned(), audit };
        self.running.runtime.run(self.running.client(&self.config).set_endpoint_audit(request)).map(|_| ())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.running.tasks.token().cancel();
    }
}

fn end(end: End) -> v1::FlowEnd {
    v1::FlowEnd { end: Some(end) }
}

fn labels(labels: &[&str]) -> v1::FlowEnd {
    let labels = labels.iter().map(ToString::to_string).collect();
    end(End::Labels(v1::flow_end::Labels { labels }))
}

#[test]
fn a_watcher_sees_who_was_judged_how_and_by_which_rule() {
    let bed = Bed::new(|config| config);
    let mut stream = bed.watch(v1::MonitorRequest::default());
    assert!(bed.probe(WEB.2, API.2, 8080).allow);
    assert!(!bed.probe(WEB.2, API.2, 8081).allow);
    assert!(!bed.probe(ELSEWHERE, API.2, 8080).allow);
    let [began, refused, outside] = <[_; 3]>::try_from(bed.events(&mut stream, 3)).unwrap();
    let source = began.source.unwrap();
    assert_eq!((source.address.as_str(), source.endpoint.as_str()), (WEB.2, WEB.0));
    assert!(source.labels.contains(&"k8s:app=web".to_owned()), "{source:?}");
    let destination = began.destination.unwrap();
    assert_eq!((destination.address.as_str(), destination.port), (API.2, 8080));
    assert_eq!(destination.endpoint, API.0);
    assert!(began.allowed && began.reason == "new" && began.revision == bed.store.revision().0);
    assert_eq!((began.protocol, began.direction.as_str(), began.endpoint.as_str()), (6, "egress", WEB.0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert!(now.abs_diff(began.time_unix_ns.into()) < 60_000_000_000, "the time is that of people");

    assert!(!refused.allowed && refused.reason == "deny-default");
    assert_eq!((refused.endpoint.as_str(), refused.direction.as_str()), (API.0, "ingress"), "the receiver refuses");
    assert_ne!(refused.policy, 0);
    let [closes] = <[_; 1]>::try_from(refused.rules).unwrap();
    assert_eq!((closes.path.as_str(), closes.verdict.as_str()), ("spec", "default-deny"));
    assert!(closes.object.ends_with("open-api"), "{closes:?}");

    let world = outside.source.unwrap();
    assert_eq!((world.address.as_str(), world.labels.as_slice()), (ELSEWHERE, &["reserved:world-ipv4".to_owned()][..]));
    let mut stream = bed.watch(v1::MonitorRequest { types: vec!["verdict".to_owned()], ..Default::default() });
    bed.policy("deny-8080", &OPEN_API.replace("open-api", "deny-8080").replace("ingress:", "ingressDeny:"));
    assert!(!bed.probe(WEB.2, API.2, 8080).allow);
    let [denied] = <[_; 1]>::try_from(bed.events(&mut stream, 1)).unwrap();
    let [rule] = <[_; 1]>::try_from(denied.rules).unwrap();
    assert_eq!((denied.reason.as_str(), rule.verdict.as_str()), ("deny-explicit", "deny"));
    assert_eq!(rule.path, "spec.ingressDeny[0]");
}

#[test]
fn filters_leave_out_what_is_not_asked_for_and_wrong_ones_say_what_would_be_right() {
    let bed = Bed::new(|config| config);
    let ask = v1::MonitorRequest::default;
    let text = |text: &str| vec![text.to_owned()];
    let web_identity = bed.spy.observed().1.addresses[&WEB.2.parse::<std::net::IpAddr>().unwrap()].identity.bits();
    let requests = [
        (v1::MonitorRequest { types: text("drop"), ..ask() }, 2),
        (v1::MonitorRequest { types: text("new"), ..ask() }, 1),
        (v1::MonitorRequest { types: text("audit"), ..ask() }, 0),
        (v1::MonitorRequest { from: vec![labels(&["app=web"])], ..ask() }, 2),
        (v1::MonitorRequest { from: vec![end(End::Range("192.0.2.0/24".to_owned()))], ..ask() }, 1),
        (v1::MonitorRequest { to: vec![end(End::Endpoint(WEB.0.to_owned()))], ..ask() }, 0),
        (v1::MonitorRequest { to: vec![end(End::Endpoint(API.0.to_owned()))], ..ask() }, 3),
        (v1::MonitorRequest { either: vec![end(End::Identity(web_identity))], ..ask() }, 2),
        (v1::MonitorRequest { ports: vec![8081, 1], ..ask() }, 1),
        (v1::MonitorRequest { protocols: vec![17], ..ask() }, 0),
        (v1::MonitorRequest { directions: text("egress"), ..ask() }, 1),
        (v1::MonitorRequest { reasons: text("deny-default"), ports: vec![8080], ..ask() }, 1),
    ];
    let mut streams = requests.map(|(request, count)| (bed.watch(request.clone()), request, count));
    let mut all = bed.watch(ask());
    assert!(bed.probe(WEB.2, API.2, 8080).allow);
    assert!(!bed.probe(WEB.2, API.2, 8081).allow);
    assert!(!bed.probe(ELSEWHERE, API.2, 8080).allow);
    bed.events(&mut all, 3);
    // Everybody wants to see one more, which tells that all before it were handled.
    for (stream, request, count) in &mut streams {
        let mut seen = Vec::new();
        while seen.len() < *count {
            seen.extend(bed.next(stream).events);
        }
        assert_eq!(seen.len(), *count, "{request:?}: {seen:#?}");
        let more =
            bed.running.runtime.run(async { tokio::time::timeout(Duration::from_millis(30), stream.message()).await });
        assert!(more.is_err(), "{request:?}: {more:?}");
    }
    for (request, expected) in [
        (v1::MonitorRequest { types: text("trace"), ..ask() }, "new, drop, verdict, cut or audit"),
        (v1::MonitorRequest { from: vec![end(End::Range("10.0".to_owned()))], ..ask() }, "from: \"10.0\""),
        (v1::MonitorRequest { to: vec![end(End::Endpoint("web-9".to_owned()))], ..ask() }, "there are api-1, web-1"),
        (v1::MonitorRequest { either: vec![labels(&[])], ..ask() }, "give an address"),
        (v1::MonitorRequest { either: vec![labels(&["=x"])], ..ask() }, "has no key"),
        (v1::MonitorRequest { ports: vec![65_536], ..ask() }, "65535"),
        (v1::MonitorRequest { protocols: vec![256], ..ask() }, "255"),
        (v1::MonitorRequest { directions: text("up"), ..ask() }, "ingress or egress"),
        (v1::MonitorRequest { reasons: text("because"), ..ask() }, "deny-default"),
    ] {
        let refused = bed.refused(request);
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(expected), "{refused}");
    }
}

#[test]
fn s16_for_a_slow_watcher_what_it_got_and_what_it_is_told_it_lost_is_all_there_was() {
    let bed = Bed::new(|config| config);
    let mut slow = bed.watch(v1::MonitorRequest::default());
    let tallies = || bed.spy.tallies();
    let all = |tallies: &ringfence_datapath::Tallies| {
        [Tally::EventsWritten, Tally::EventsSuppressed, Tally::EventsLost]
            .map(|tally| tallies.get(tally))
            .iter()
            .sum::<u64>()
    };
    let before = tallies();
    // Ten seconds' worth of one CPU's events, as fast as they come: the rate limit holds back some, the bus forgets some.
    let packets = 200_000;
    bed.spy.flood(WEB.2, API.2, packets);
    let after = tallies();
    assert_eq!(all(&after) - all(&before), packets, "the datapath saw them all");
    let (mut seen, mut lost) = (0, v1::LostEvents::default());
    loop {
        let answer = bed.next(&mut slow);
        seen += answer.events.len() as u64;
        if let Some(more) = answer.lost {
            lost.ring += more.ring;
            lost.rate_limit += more.rate_limit;
            lost.undecodable += more.undecodable;
            lost.slow_reader += more.slow_reader;
        }
        if seen + lost.ring + lost.rate_limit + lost.undecodable + lost.slow_reader >= packets {
            break;
        }
    }
    println!("{seen} seen, {lost:?}");
    assert_eq!(seen + lost.ring + lost.rate_limit + lost.undecodable + lost.slow_reader, packets, "{lost:?}");
    assert_eq!(lost.rate_limit, after.get(Tally::EventsSuppressed) - before.get(Tally::EventsSuppressed));
    assert_eq!(lost.ring, after.get(Tally::EventsLost) - before.get(Tally::EventsLost));
    assert!(seen < packets, "control: what a watcher gets is not all there was");
}

#[test]
fn what_somebody_else_changed_is_told_and_repaired() {
    let health = free_address();
    let bed = Bed::new(|config| Config { verify_interval_ms: 20, health_listen: Some(health), ..config });
    let good = bed.spy.observed();
    eventually("the maps are read back", || bed.status().verification.unwrap().runs > 1);
    assert_eq!(bed.status().verification.unwrap().repaired_served, 0);
    assert!(bed.running.problems().is_empty());
    bed.spy.tamper();
    assert_ne!(bed.spy.tampered().1, good.1, "control: the tampering changes what packets are judged by");
    eventually("it is repaired", || bed.spy.observed().1 == good.1);
    eventually("status tells", || {
        let verification = bed.status().verification.unwrap();
        verification.repaired_served > 0 && verification.repaired_unserved > 0 && verification.problem.is_empty()
    });
    eventually("the metric tells", || {
        get(health, "/metrics").1.contains("ringfence_agent_verify_repaired_entries_total{set=\"served\"} 2")
    });
    eventually("the problem goes with the next reading", || bed.running.problems().is_empty());
    let told = bed.spy.told_problems();
    assert!(told.iter().any(|problem| problem.contains("somebody else changed the datapath's maps")), "{told:?}");
}

#[test]
fn a_revision_does_not_wait_until_the_maps_are_read_back() {
    let bed = Bed::new(|config| Config { verify_interval_ms: 20, ..config });
    bed.spy.set_endless(true);
    let (before, runs) = (bed.spy.parts(), bed.status().verification.unwrap().runs);
    eventually("the maps are being read back", || bed.spy.parts() > before + 10);
    let head = bed.store.put(Record::Node(mesh::node("east", "n2", "10.40.1.2")));
    eventually("the revision is realised", || bed.running.revision() == head.0);
    assert!(bed.status().verification.unwrap().runs <= runs + 1, "no reading has ended");
    bed.spy.set_endless(false);
    eventually("the reading ends", || bed.status().verification.unwrap().runs > runs + 1);
}

#[test]
fn counters_of_packets_policies_and_events_are_metrics_of_few_series() {
    let health = free_address();
    let bed = Bed::new(|config| Config { health_listen: Some(health), ..config });
    for port in 8080..8180 {
        bed.probe(WEB.2, API.2, port);
    }
    let metrics = || get(health, "/metrics").1;
    let has = |line: &str| metrics().lines().any(|one| one == line);
    eventually("packets are counted", || {
        has("ringfence_agent_packets_total{reason=\"deny-default\",verdict=\"deny\"} 99")
    });
    eventually("policies' packets are counted", || {
        has("ringfence_agent_policy_packets_total{direction=\"ingress\",verdict=\"deny\"} 99")
            && has("ringfence_agent_policy_packets_total{direction=\"ingress\",verdict=\"allow\"} 1")
            && has("ringfence_agent_policy_packets_total{direction=\"egress\",verdict=\"allow\"} 1")
    });
    eventually("events are counted", || has("ringfence_agent_events_total{outcome=\"delivered\"} 100"));
    let text = metrics();
    let series: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("ringfence_agent_")).collect();
    assert!(series.len() < 100, "{}", series.len());
}

#[test]
fn maps_are_read_back_with_names_and_only_what_is_asked_for() {
    let bed = Bed::new(|config| config);
    assert!(bed.probe(WEB.2, API.2, 8080).allow);
    let of = |map: DatapathMap| v1::ReadMapsRequest { map: map.into(), ..Default::default() };
    let (ipcache, end_of_list) = bed.read(of(DatapathMap::Ipcache)).unwrap();
    let prefixes: BTreeSet<String> = ipcache
        .iter()
        .map(|entry| if let Entry::Ipcache(entry) = entry { entry.prefix.clone() } else { panic!() })
        .collect();
    let expected = ["10.101.0.0/16", WEB.2, API.2, "10.40.1.1"].map(str::to_owned);
    assert_eq!(prefixes, expected.into());
    let head = (end_of_list.revision, end_of_list.revision_after, end_of_list.strays);
    assert_eq!(head, (bed.store.revision().0, bed.store.revision().0, 0));
    let web = bed.read(v1::ReadMapsRequest { endpoint: WEB.0.to_owned(), ..of(DatapathMap::Ipcache) }).unwrap().0;
    let [Entry::Ipcache(web)] = &web[..] else { panic!("{web:?}") };
    assert_eq!((web.prefix.as_str(), web.endpoint.as_str()), (WEB.2, WEB.0));
    assert!(web.labels.contains(&"k8s:app=web".to_owned()));
    let inside = bed.read(v1::ReadMapsRequest { range: WEB.2.to_owned(), ..of(DatapathMap::Ipcache) }).unwrap().0;
    assert_eq!(inside.len(), 2, "the address, and the range around it: {inside:?}");

    let request =
        v1::ReadMapsRequest { endpoint: API.0.to_owned(), direction: "ingress".to_owned(), ..of(DatapathMap::Policy) };
    let rows = bed.read(request).unwrap().0;
    let rows: Vec<v1::PolicyEntry> =
        rows.into_iter().map(|entry| if let Entry::Policy(entry) = entry { entry } else { panic!() }).collect();
    let allow = rows.iter().find(|row| row.labels.contains(&"k8s:app=web".to_owned())).unwrap();
    assert_eq!((allow.verdict.as_str(), allow.endpoints.as_slice()), ("allow", &[API.0.to_owned()][..]));
    assert_eq!(allow.ports, [v1::PortRange { protocol: 6, first: 8080, last: 8080 }]);
    assert_eq!(allow.packets.as_ref().unwrap().allowed_packets, 1);
    let host = rows.iter().filter(|row| row.labels == ["reserved:host"]).count();
    assert!(host > 0, "the node reaches its endpoints: {rows:?}");

    let connections = bed.read(of(DatapathMap::Connections)).unwrap().0;
    let [Entry::Connection(one), Entry::Connection(other)] = &connections[..] else { panic!("{connections:?}") };
    assert_eq!((one.endpoint.as_str(), other.endpoint.as_str()), (WEB.0, API.0), "one entry for each end");
    assert!(
        one.current && one.direction == "egress" && one.remote_port == 8080 && one.peer_endpoint == API.0,
        "{one:?}"
    );
    let endpoints = bed.read(of(DatapathMap::Endpoints)).unwrap().0;
    assert_eq!(endpoints.len(), 2);

    for (request, expected) in [
        (of(DatapathMap::Unspecified), "ipcache, policy, connections, endpoints"),
        (v1::ReadMapsRequest { policy: 1, ..of(DatapathMap::Ipcache) }, "policy: ipcache entries have none"),
        (v1::ReadMapsRequest { range: "10/8".to_owned(), ..of(DatapathMap::Ipcache) }, "range: \"10/8\""),
        (v1::ReadMapsRequest { endpoint: "x".to_owned(), ..of(DatapathMap::Policy) }, "there are api-1, web-1"),
        (
            v1::ReadMapsRequest { peer: Some(end(End::Range("10.0.0.1".to_owned()))), ..of(DatapathMap::Policy) },
            "peer: give an identity or labels",
        ),
    ] {
        let refused = bed.read(request).unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(expected), "{refused}");
    }
}

#[test]
fn enforcement_modes_are_those_of_the_node() {
    for (mode, web, denied) in [
        (EnforcementMode::Default, true, false),
        // Nothing allows egress of the one, although no policy selects it.
        (EnforcementMode::Always, false, false),
        (EnforcementMode::Never, true, true),
    ] {
        let bed = Bed::new(|config| Config { policy_enforcement: mode, ..config });
        assert_eq!(bed.probe(WEB.2, ELSEWHERE, 80).allow, web, "{mode:?}");
        assert_eq!(bed.probe(ELSEWHERE, API.2, 80).allow, denied, "{mode:?}");
        assert_eq!(bed.status().policy_enforcement, mode.name());
    }
}

#[test]
fn aud_1_an_endpoint_is_put_under_audit_and_taken_out_again() {
    let bed = Bed::new(|config| config);
    let audited = || -> Vec<EndpointId> {
        let tables = bed.spy.observed().1;
        tables.endpoints.into_iter().filter(|(_, entry)| entry.audit).map(|(id, _)| id).collect()
    };
    let mut stream = bed.watch(v1::MonitorRequest { types: vec!["audit".to_owned()], ..Default::default() });
    assert!(!bed.probe(WEB.2, API.2, 1).allow);
    bed.set_audit(API.0, true).unwrap();
    assert_eq!(audited(), [bed.spy.attached()[&name(API.0)]], "in force when the answer comes, and for this one only");
    let outcome = bed.probe(WEB.2, API.2, 1);
    assert!(outcome.allow && outcome.reason == "audit-default", "{outcome:?}");
    let [event] = <[_; 1]>::try_from(bed.events(&mut stream, 1)).unwrap();
    assert!(event.allowed && event.reason == "audit-default" && event.endpoint == API.0, "{event:?}");
    assert_eq!(event.rules[0].verdict, "default-deny", "what would have refused it is named: {event:?}");
    bed.set_audit(API.0, false).unwrap();
    assert!(audited().is_empty());
    assert!(!bed.probe(WEB.2, API.2, 1).allow);
    assert_eq!(bed.set_audit("nobody", true).unwrap_err().code(), Code::NotFound);
}
