//! The inputs of workloads A1, A2 and B: 10,000 pods, and 1,000 policies in namespace `ns-0`.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    engine::{Engine, PolicyObject},
    flow::Direction,
    identity::Identity,
    label::LabelSet,
    name::Name,
    object::{Object, parse_documents},
    rule::{Peers, Rule},
    tables::{BANDS_PER_ROW, Class, Row, RowKey, Tables},
    world::Settings,
};

/// How many pods there are.
pub(crate) const PODS: u32 = 10_000;
/// Whose policy is resolved: pod 0.
pub(crate) const SUBJECT: Identity = Identity::from_bits(1000);
/// Identities of ranges are numbered from here.
const FIRST_RANGE: u32 = 0x4000_0001;

/// The labels of pod `i`.
pub(crate) fn labels(i: u32) -> LabelSet {
    let environment = ["prod", "stage", "dev"][i as usize % 3];
    let texts = [
        format!("k8s:app=app-{}", i % 100),
        format!("k8s:tier=tier-{}", i % 10),
        format!("k8s:env={environment}"),
        format!("k8s:instance=inst-{i}"),
        format!("k8s:io.kubernetes.pod.namespace=ns-{}", i % 50),
        format!("k8s:io.cilium.k8s.namespace.labels.team=team-{}", i % 5),
        "k8s:io.cilium.k8s.policy.cluster=default".to_owned(),
        "k8s:io.cilium.k8s.policy.serviceaccount=default".to_owned(),
    ];
    LabelSet::parse(texts).expect("the labels are well formed")
}

/// Pod `i`.
pub(crate) fn pod(i: u32) -> (Identity, LabelSet) {
    (Identity::from_bits(1000 + i), labels(i))
}

/// An engine that knows pods, and nothing else.
pub(crate) fn engine(pods: u32) -> Engine {
    let settings = Settings::new(Name::new("default").expect("it is a name"), Compat::Cilium);
    let mut engine = Engine::new(settings);
    engine.put_identities((0..pods).map(pod));
    engine
}

/// The policies of A1 (`all_select`) or A2, as JSON.
pub(crate) fn policies_a(all_select: bool) -> Vec<String> {
    let one = |j: u32| {
        let k = j / 5;
        let (app, namespace) = (k % 100, k % 50);
        let peer = format!(
            r#"{{"matchLabels":{{"k8s:app":"app-{app}","k8s:io.kubernetes.pod.namespace":"ns-{namespace}"}}}}"#
        );
        let port = |port: u32, protocol: &str| format!(r#"{{"port":"{port}","protocol":"{protocol}"}}"#);
        let exists = r#"{"key":"k8s:io.kubernetes.pod.namespace","operator":"Exists"}"#;
        let rule = match j % 5 {
            0 => format!(
                r#""ingress":[{{"fromEndpoints":[{peer}],"toPorts":[{{"ports":[{}]}}]}}]"#,
                port(8000 + k, "TCP")
            ),
            1 => {
                let (first, other) = (10_000 + 37 * namespace, (k + 31) % 100);
                format!(
                    r#""ingress":[{{"fromEndpoints":[{{"matchExpressions":[{{"key":"k8s:app","operator":"In","values":["app-{app}","app-{other}"]}},{{"key":"k8s:env","operator":"NotIn","values":["dev"]}},{exists}]}}],"toPorts":[{{"ports":[{{"port":"{first}","endPort":{},"protocol":"TCP"}}]}}]}}]"#,
                    first + 20
                )
            }
            2 => format!(
                r#""egress":[{{"toEndpoints":[{peer}],"toPorts":[{{"ports":[{},{}]}}]}}]"#,
                port(53, "UDP"),
                port(443, "TCP")
            ),
            3 => format!(
                r#""egress":[{{"toCIDRSet":[{{"cidr":"10.{k}.0.0/16","except":["10.{k}.1.0/24"]}}],"toPorts":[{{"ports":[{}]}}]}}]"#,
                port(443, "TCP")
            ),
            _ => format!(
                r#""ingressDeny":[{{"fromEndpoints":[{{"matchLabels":{{"k8s:app":"app-{app}","k8s:env":"dev"}},"matchExpressions":[{exists}]}}],"toPorts":[{{"ports":[{}]}}]}}]"#,
                port(22, "TCP")
            ),
        };
        policy(j, if all_select { 0 } else { app }, &rule)
    };
    (0..1000).map(one).collect()
}

/// The policies of B, as JSON. `others` are selectors whose `app` is never app-7; without it `j` runs through all of them.
pub(crate) fn policies_b(count: u32, only_ten_match: bool) -> Vec<String> {
    let one = |j: u32| {
        let app = match (only_ten_match, j) {
            (false, _) => j % 100,
            (true, 0..10) => 7,
            (true, _) if j % 100 == 7 => 8,
            (true, _) => j % 100,
        };
        let namespace = if only_ten_match && j < 10 { 7 } else { app % 50 };
        let rule = format!(
            r#""ingress":[{{"fromEndpoints":[{{"matchLabels":{{"k8s:app":"app-{app}","k8s:io.kubernetes.pod.namespace":"ns-{namespace}"}},"matchExpressions":[{{"key":"k8s:instance","operator":"NotIn","values":["x-{j}"]}}]}}],"toPorts":[{{"ports":[{{"port":"{}","protocol":"TCP"}}]}}]}}]"#,
            8000 + j
        );
        policy(j, 0, &rule)
    };
    (0..count).map(one).collect()
}

fn policy(j: u32, app: u32, rule: &str) -> String {
    format!(
        r#"{{"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{{"name":"p{j}","namespace":"ns-0"}},"spec":{{"endpointSelector":{{"matchLabels":{{"app":"app-{app}"}}}},{rule}}}}}"#
    )
}

/// Decodes and checks policies.
pub(crate) fn decode(texts: &[String]) -> Vec<Object> {
    let decode = |text: &String| {
        let parsed = parse_documents(text, Compat::Cilium);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        parsed.objects
    };
    texts.iter().flat_map(decode).collect()
}

/// The ranges that objects name, each with an identity.
pub(crate) fn range_identities(objects: &[Object]) -> Vec<(Identity, LabelSet)> {
    let rules = || objects.iter().flat_map(|object| &object.rules);
    let mut book = AddressBook::new(true, false);
    book.add_ranges(rules());
    let peers = rules().flat_map(Rule::elements).filter_map(|(_, _, element)| element.peers.as_ref());
    let ranges: BTreeSet<_> = peers.flat_map(Peers::ranges).collect();
    let identity = |(number, range): (u32, ringfence_policy::cidr::Cidr)| {
        (Identity::from_bits(FIRST_RANGE + number), book.labels(range.address()))
    };
    (0..).zip(ranges).map(identity).collect()
}

/// Decodes policies, gives ranges identities, and puts all of it into the engine.
pub(crate) fn import(engine: &mut Engine, texts: &[String]) {
    let objects = decode(texts);
    engine.put_identities(range_identities(&objects));
    engine.change_objects(objects.into_iter().map(enforced), []);
}

/// An object that counts.
pub(crate) fn enforced(object: Object) -> PolicyObject {
    PolicyObject { key: object.key, rules: object.rules }
}

/// What tables of one policy come to as entries for (direction, peer, protocol, ports), the form that figures of other
/// engines are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Ports as aligned blocks whose size is a power of two.
    pub(crate) blocks: usize,
    /// Ports as intervals.
    pub(crate) ranges: usize,
    /// Of the blocks, those of ingress.
    pub(crate) ingress: usize,
    /// Of the blocks, those that deny.
    pub(crate) denies: usize,
}

/// Counts them, from the tables alone.
pub(crate) fn entries(tables: &Tables) -> Entries {
    // How many intervals and blocks each band has.
    let mut bands: BTreeMap<(Direction, u16), [usize; 2]> = BTreeMap::new();
    for (key, ports) in &tables.ports {
        let ends = ports.intervals().iter().skip(1).map(|next| u32::from(next.first)).chain([1 << 16]);
        for (interval, end) in ports.intervals().iter().zip(ends) {
            let [ranges, blocks] = bands.entry((key.direction, interval.band)).or_default();
            *ranges += 1;
            *blocks += count_blocks(u32::from(interval.first), end);
        }
    }
    let mut entries = Entries::default();
    for (key, row) in &tables.rows {
        let everywhere = tables.rows.get(&RowKey { chunk: 0, ..*key }).and_then(|row: &Row| row.class(0));
        for band in (0..BANDS_PER_ROW).map(|bit| key.chunk * BANDS_PER_ROW + bit) {
            let Some(class) = row.class(band) else { continue };
            let [ranges, blocks] = match band {
                0 => [1, 1],
                _ if everywhere == Some(class) => continue,
                _ => bands[&(key.direction, band)],
            };
            entries.ranges += ranges;
            entries.blocks += blocks;
            entries.ingress += if key.direction == Direction::Ingress { blocks } else { 0 };
            entries.denies += if class == Class::Deny { blocks } else { 0 };
        }
    }
    entries
}

/// Of the ports from the first to before the end.
fn count_blocks(mut first: u32, end: u32) -> usize {
    let mut count = 0;
    while first < end {
        let aligned = if first == 0 { 1 << 16 } else { 1 << first.trailing_zeros() };
        first += if aligned <= end - first { aligned } else { 1 << (end - first).ilog2() };
        count += 1;
    }
    count
}
