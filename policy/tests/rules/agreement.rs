//! S15: the compiled tables say what the specification says, in generated worlds. `RINGFENCE_WORLDS` sets how many.

use proptest::prelude::*;
use ringfence_policy::{
    compat::Compat,
    flow::{Direction, Flow, protocol},
    identity::Identity,
    reserved::RESERVED_PEERS,
    tables::{BANDS_PER_ROW, Row},
};

use crate::{
    scene::{PODS, Scene, identity},
    worlds::worlds,
};

fn selector() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        4 => Just("app: web"), 4 => Just("app: api"), 2 => Just("k8s:app: api"), 1 => Just("tier: front"),
        1 => Just("reserved:world: ''"), 1 => Just("reserved:host: ''"), 1 => Just("reserved:init: ''"),
        1 => Just("reserved:remote-node: ''"),
        2 => Just("k8s:io.kubernetes.pod.namespace: dev"), 1 => Just("io.kubernetes.pod.namespace: shop"),
        1 => Just("io.cilium.k8s.namespace.labels.team: tools"), 1 => Just("k8s:io.cilium.k8s.policy.cluster: west"),
    ];
    let key = prop_oneof![
        3 => Just("app"), 2 => Just("k8s:tier"), 1 => Just("reserved:host"), 1 => Just("k8s:io.kubernetes.pod.namespace"),
        1 => Just("reserved:nothing"),
    ];
    let condition = prop_oneof![
        Just("operator: Exists"),
        Just("operator: DoesNotExist"),
        Just("operator: In, values: [web, shop]"),
        Just("operator: NotIn, values: [api, dev]"),
    ];
    let expression = (key, condition).prop_map(|(key, condition)| format!("{{key: '{key}', {condition}}}"));
    let quoted = label.prop_map(|label| {
        let (key, value) = label.rsplit_once(": ").unwrap();
        format!("'{key}': {value}")
    });
    let labels = proptest::option::weighted(0.7, quoted);
    let expressions = proptest::collection::vec(expression, 0..2);
    (labels, expressions).prop_map(|(labels, expressions)| {
        let labels = labels.unwrap_or_default();
        format!("{{matchLabels: {{{labels}}}, matchExpressions: [{}]}}", expressions.join(", "))
    })
}

/// An element of a list; FROM stands for from or to.
fn element() -> impl Strategy<Value = String> {
    let entity = prop_oneof![
        2 => Just("all"), 2 => Just("world"), 2 => Just("cluster"), 2 => Just("host"), 1 => Just("remote-node")
    ];
    // An empty list in a deny is refused, so EMPTY becomes something else there.
    let peers = prop_oneof![
        3 => Just(String::new()),
        1 => Just("EMPTY".to_owned()),
        6 => proptest::collection::vec(selector(), 1..3).prop_map(|list| format!("FROMEndpoints: [{}], ", list.join(", "))),
        3 => proptest::collection::vec(entity, 1..3).prop_map(|list| format!("FROMEntities: [{}], ", list.join(", "))),
    ];
    let port = prop_oneof![Just(0), Just(53), Just(80), Just(443)];
    let word = prop_oneof![
        Just(""),
        Just(", protocol: ANY"),
        Just(", protocol: TCP"),
        Just(", protocol: UDP"),
        Just(", protocol: SCTP")
    ];
    let last = prop_oneof![4 => Just(""), 1 => Just(", endPort: 90"), 1 => Just(", endPort: 443")];
    let port = (port, last, word).prop_map(|(port, last, word)| format!("{{port: {port}{last}{word}}}"));
    let entry = proptest::collection::vec(port, 0..3).prop_map(|ports| format!("{{ports: [{}]}}", ports.join(", ")));
    let ports = prop_oneof![
        3 => Just(String::new()),
        1 => Just("toPorts: []".to_owned()),
        6 => proptest::collection::vec(entry, 1..3).prop_map(|entries| format!("toPorts: [{}]", entries.join(", "))),
        1 => Just("icmps: [{fields: [{type: 0}, {type: 128, family: IPv6}]}]".to_owned()),
    ];
    (peers, ports).prop_map(|(peers, ports)| format!("{{{peers}{ports}}}"))
}

fn list(name: &'static str, weight: f64) -> impl Strategy<Value = String> {
    let from = if name.starts_with("ingress") { "from" } else { "to" };
    let elements = proptest::collection::vec(element(), 0..4);
    proptest::option::weighted(weight, elements).prop_map(move |elements| {
        let empty = if name.ends_with("Deny") { "" } else { "FROMEndpoints: [], FROMEntities: [], " };
        let text = |list: Vec<String>| list.join(", ").replace("EMPTY", empty).replace("FROM", from);
        elements.map_or_else(String::new, |list| format!(", {name}: [{}]", text(list)))
    })
}

fn object() -> impl Strategy<Value = String> {
    let kind = prop_oneof![
        Just("kind: CiliumNetworkPolicy, metadata: {namespace: shop, "),
        Just("kind: CiliumNetworkPolicy, metadata: {namespace: dev, "),
        Just("kind: CiliumClusterwideNetworkPolicy, metadata: {"),
    ];
    let subject = prop_oneof![2 => Just("{}".to_owned()), 3 => selector()];
    let open = prop_oneof![8 => Just(""), 1 => Just(", enableDefaultDeny: {ingress: false}"), 1 => Just(", enableDefaultDeny: {egress: false}")];
    let lists = (list("ingress", 0.7), list("ingressDeny", 0.5), list("egress", 0.5), list("egressDeny", 0.4));
    (kind, subject, lists, open).prop_map(|(kind, subject, (a, b, c, d), open)| {
        format!(
            "{{apiVersion: cilium.io/v2, {kind}name: NAME}}, spec: {{endpointSelector: {subject}{a}{b}{c}{d}{open}}}}}"
        )
    })
}

/// The text of a world's objects.
fn world() -> impl Strategy<Value = String> {
    proptest::collection::vec(object(), 1..6).prop_map(|objects| {
        let named = objects.iter().enumerate().map(|(index, object)| object.replace("NAME", &format!("p{index}")));
        named.collect::<Vec<_>>().join("\n---\n")
    })
}

/// Every port rules speak of, one they do not, and protocols without ports.
const SAMPLES: [(u8, u16); 9] = [
    (protocol::TCP, 53),
    (protocol::TCP, 80),
    (protocol::TCP, 443),
    (protocol::TCP, 9),
    (protocol::TCP, 0),
    (protocol::UDP, 53),
    (protocol::SCTP, 80),
    (protocol::ICMP, 0),
    (0, 0),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: worlds(), ..ProptestConfig::default() })]

    #[test]
    fn s15_tables_say_what_the_specification_says(world in world(), cilium in any::<bool>()) {
        let scene = Scene::with(&world, if cilium { Compat::Cilium } else { Compat::Ringfence });
        let nobody = [Identity::UNKNOWN, Identity::from_bits(0x30_0007)];
        let peers: Vec<Identity> =
            PODS.iter().map(|(pod, ..)| identity(pod)).chain(RESERVED_PEERS).chain(nobody).collect();
        for (subject, ..) in PODS {
            for peer in &peers {
                for direction in [Direction::Ingress, Direction::Egress] {
                    for (protocol, port) in SAMPLES {
                        let flow = Flow { subject: identity(subject), peer: *peer, direction, protocol, port };
                        let (compiled, specified) = (scene.compiled(&flow), scene.specified(&flow));
                        prop_assert_eq!(compiled, specified, "tables (left), specification (right): {:?}\n{}", flow, world);
                    }
                }
            }
        }
    }

    /// A bit that changes no answer only costs kernel memory: that of a peer says more than that of anyone.
    #[test]
    fn no_bit_of_a_row_is_idle(world in world()) {
        let tables = Scene::new(&world).tables().clone();
        for (key, row) in tables.rows.iter().filter(|(key, _)| key.peer != Identity::UNKNOWN) {
            prop_assert_ne!(*row, Row::default());
            let any = tables.rows.get(&ringfence_policy::tables::RowKey { peer: Identity::UNKNOWN, ..*key });
            for bit in 0..BANDS_PER_ROW {
                let (own, any) = (row.class(bit), any.and_then(|any| any.class(bit)));
                prop_assert!(own.is_none() || own > any, "{key:?} {own:?} {any:?}\n{world}");
            }
        }
    }
}
