//! Which objects are accepted; for the others, every finding with position, rule and help.

use proptest::prelude::*;
use ringfence_policy::{
    document::{MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES, MAX_TEXT_BYTES},
    object::{not_enforceable, parse_objects, parse_record},
    record::PolicyRecord,
};

const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n";

/// The findings of a text, one per line.
fn findings(text: &str) -> String {
    let lines: Vec<String> = parse_objects(text).diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The findings about one element of `ingress`, whose first character is at 7:5 or, for its fields, at 7:5 as well.
fn ingress_findings(element: &str) -> String {
    findings(&format!("{HEAD}spec:\n  endpointSelector: {{}}\n  ingress:\n  - {element}\n"))
}

#[track_caller]
fn rejected(text: &str, expected: &str) {
    assert_eq!(findings(text), expected, "{text}");
    assert_eq!(parse_objects(text).objects, [], "rejected whole");
}

#[test]
fn objects_are_read_from_yaml_and_json_alike() {
    let yaml = "# the shop\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\n  \
                labels: {a: b}\n  uid: x\n  creationTimestamp: null\nspec:\n  description: what for\n  endpointSelector:\n    \
                matchLabels: {app: web}\n  ingress:\n    - toPorts:\n        - ports:\n            - port: 8080\n              protocol: TCP\nstatus: {conditions: []}\n";
    let json = r#"{"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{"name":"p","namespace":"shop"},
        "spec":{"endpointSelector":{"matchLabels":{"app":"web"}},"ingress":[{"toPorts":[{"ports":[{"port":"8080","protocol":"TCP"}]}]}]}}"#;
    let [from_yaml, from_json] = [yaml, json].map(|text| {
        let parsed = parse_objects(text);
        assert_eq!(parsed.diagnostics, []);
        let mut object = parsed.objects.into_iter().next().unwrap();
        assert_eq!(object.text, text, "kept as written");
        for rule in &mut object.rules {
            rule.position = ringfence_policy::diagnostic::Position::START;
            for element in rule.ingress.allow.iter_mut().flatten() {
                element.position = ringfence_policy::diagnostic::Position::START;
                for ports in element.ports.iter_mut().flatten() {
                    ports.position = ringfence_policy::diagnostic::Position::START;
                }
            }
        }
        object
    });
    assert_eq!(from_yaml.rules, from_json.rules);
    assert_eq!(from_yaml.key.to_string(), "CiliumNetworkPolicy shop/p");
}

#[test]
fn documents_keep_their_own_text_and_their_place_in_the_file() {
    let second = "# second\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: b}\n\
                  spec: {endpointSelector: {}, egress: [{}]} # end\n";
    let text = format!("---\n\n{HEAD}spec: {{endpointSelector: {{}}}}\n---\n\n---\n{second}...\n# nothing\n---\n");
    let parsed = parse_objects(&text);
    assert_eq!(parsed.diagnostics, []);
    let places: Vec<_> = parsed.objects.iter().map(|o| format!("{} at {}", o.key, o.position)).collect();
    assert_eq!(places, ["CiliumNetworkPolicy default/p at 3:1", "CiliumClusterwideNetworkPolicy b at 11:1"]);
    assert_eq!(parsed.objects[0].text, format!("{HEAD}spec: {{endpointSelector: {{}}}}\n"));
    assert_eq!(parsed.objects[1].text, second);
    for object in &parsed.objects {
        let record = PolicyRecord { key: object.key.clone(), text: object.text.clone() };
        assert_eq!(parse_record(&record).unwrap().text, object.text);
    }
    let windows = parse_objects(&text.replace('\n', "\r\n"));
    assert_eq!(windows.objects.len(), 2, "{:?}", windows.diagnostics);
    assert_eq!(windows.objects[1].text, second.replace('\n', "\r\n"));
}

#[test]
fn a_record_holds_the_object_of_its_key() {
    let object = parse_objects(&format!("{HEAD}spec: {{endpointSelector: {{}}}}\n")).objects.remove(0);
    let record = |text: &str| PolicyRecord { key: object.key.clone(), text: text.to_owned() };
    let message = |text: &str| parse_record(&record(text)).unwrap_err()[0].to_string();
    let other = object.text.replace("name: p", "name: q");
    assert_eq!(
        message(&other),
        "1:1: error: the text is of CiliumNetworkPolicy default/q, not of CiliumNetworkPolicy default/p"
    );
    assert_eq!(message("# nothing\n"), "1:1: error: the text holds no policy object");
    let two = format!("{}---\n{other}", object.text);
    assert_eq!(message(&two), "1:1: error: the text holds 2 policy objects: a record holds one");
    assert!(message("kind: Pod").contains("unknown kind \"Pod\""));
}

#[test]
fn obj_1_envelopes() {
    let cases = [
        ("just text", "1:1: error: must be a mapping, found a text"),
        ("[a]", "1:1: error: must be a mapping, found a list"),
        (
            "a: b",
            "1:1: error: has no kind (help: write kind: CiliumNetworkPolicy, or CiliumClusterwideNetworkPolicy, NetworkPolicy, CiliumCIDRGroup)",
        ),
        (
            "kind: Pod",
            "1:1: error: kind: unknown kind \"Pod\" (help: known kinds: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy, NetworkPolicy, CiliumCIDRGroup)",
        ),
        (
            "kind: ciliumNetworkPolicies",
            "1:1: error: kind: unknown kind \"ciliumNetworkPolicies\" (help: did you mean \"CiliumNetworkPolicy\"?)",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy",
            "1:1: error[OBJ-1]: has no metadata.name (help: every object needs a name)\n\
             1:1: error[OBJ-1]: has no spec (help: write spec with a podSelector and ingress or egress)",
        ),
        (
            "kind: CiliumNetworkPolicy\nmetadata: {namespace: Shop}\nspce: {}",
            "1:1: error: has no apiVersion (help: write apiVersion: cilium.io/v2)\n\
             1:1: error[OBJ-1]: has neither spec nor specs (help: write spec with an endpointSelector and ingress or egress)\n\
             2:1: error[OBJ-1]: metadata: has no name (help: every object needs a name)\n\
             2:12: error: metadata.namespace: \"Shop\" is not a valid name: use 1 to 253 characters of a-z, 0-9, '-' and '.', \
             beginning and ending with a letter or digit\n\
             3:1: error: spce: unknown field \"spce\" (help: did you mean \"spec\"?)",
        ),
        (
            "apiVersion: cilium.io/v1\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p, namespace: shop}\nspecs: []",
            "1:1: error: apiVersion: unknown apiVersion \"cilium.io/v1\" for this kind (help: write apiVersion: cilium.io/v2)\n\
             1:1: error[OBJ-1]: specs is an empty list, so the object says nothing \
             (help: write spec with an endpointSelector and ingress or egress)\n\
             3:21: error[OBJ-1]: metadata.namespace: a CiliumClusterwideNetworkPolicy has no namespace \
             (help: remove it, or use a kind that has one)",
        ),
    ];
    for (text, expected) in cases {
        rejected(text, expected);
    }
    let twice = format!("{HEAD}spec: {{endpointSelector: {{}}}}\n---\n{HEAD}spec: {{endpointSelector: {{}}}}\n");
    let parsed = parse_objects(&twice);
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(
        findings(&twice),
        "6:1: error: CiliumNetworkPolicy default/p is given twice: first at 1:1 (help: keep one of them, or give them different names)"
    );
}

#[test]
fn unknown_fields_are_errors_with_the_nearest_known_one() {
    let cases = [
        (
            "fromEndpoint: []",
            "7:5: error: spec.ingress[0].fromEndpoint: unknown field \"fromEndpoint\" (help: did you mean \"fromEndpoints\"?)",
        ),
        (
            "toEndpoints: []",
            "7:5: error: spec.ingress[0].toEndpoints: unknown field \"toEndpoints\" (help: did you mean \"fromEndpoints\"?)",
        ),
        (
            "from: []",
            "7:5: error: spec.ingress[0].from: unknown field \"from\" (help: known here: fromEndpoints, fromEntities, fromCIDR, fromCIDRSet, fromNodes, fromGroups, fromRequires, toPorts, icmps, authentication)",
        ),
        (
            "toPorts: [{ports: [{prot: 80}]}]",
            "7:24: error[VAL-14]: spec.ingress[0].toPorts[0].ports[0]: has no port (help: write port: \"8080\")\n\
             7:25: error: spec.ingress[0].toPorts[0].ports[0].prot: unknown field \"prot\" (help: did you mean \"port\"?)",
        ),
        (
            "fromEndpoints: [{matchLabel: {}}]",
            "7:22: error: spec.ingress[0].fromEndpoints[0].matchLabel: unknown field \"matchLabel\" (help: did you mean \"matchLabels\"?)",
        ),
    ];
    for (element, expected) in cases {
        assert_eq!(ingress_findings(element), expected);
    }
}

#[test]
fn what_nodes_cannot_enforce_yet_is_named_with_its_place() {
    let refused = |spec: &str| {
        let parsed = parse_objects(&format!("{HEAD}spec:\n  endpointSelector: {{}}\n  {spec}\n"));
        assert_eq!(parsed.objects.len(), 1, "{:?}", parsed.diagnostics);
        let lines: Vec<String> = not_enforceable(&parsed.objects[0]).iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    let help = " cannot be enforced by the nodes yet (help: it is refused because leaving it out would change what the policy does)";
    let cases = [
        ("ingress: [{fromCIDRSet: [{cidrGroupRef: a}]}]", "6:13: error: cidrGroupRef or cidrGroupSelector"),
        ("ingress: [{fromGroups: [{}]}]", "6:13: error: fromGroups or toGroups"),
        ("ingress: [{authentication: {mode: required}}]", "6:13: error: authentication"),
        ("egress: [{toFQDNs: [{matchName: a.example.com}]}]", "6:12: error: toFQDNs"),
        ("egress: [{toServices: [{k8sService: {serviceName: a}}]}]", "6:12: error: toServices"),
        (
            "egress: [{toPorts: [{ports: [{port: 1, protocol: TCP}], rules: {http: [{}]}}]}]",
            "6:23: error: a rule for a proxy (rules, TLS, serverNames or listener)",
        ),
        ("egressDeny: [{toEntities: [kube-apiserver]}]", "6:16: error: denying entity kube-apiserver"),
    ];
    for (spec, expected) in cases {
        assert_eq!(refused(spec), format!("{expected}{help}"), "{spec}");
    }
    let enforced = [
        "ingress: [{fromEntities: [cluster, ingress, kube-apiserver], toPorts: [{ports: [{port: 80}]}]}]",
        "ingress: [{fromCIDR: [10.0.0.0/8]}, {fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]",
        "ingress: [{fromNodes: [{}]}, {fromNodes: [{matchLabels: {role: edge}}]}]",
        "ingress: [{fromRequires: [{}]}, {icmps: [{fields: [{type: 8}]}]}]",
        "egressDeny: [{toPorts: [{ports: [{port: http}, {port: 0}, {port: 1, endPort: 2, protocol: SCTP}]}]}]",
        "ingress: []\n  enableDefaultDeny: {ingress: false, egress: false}",
    ];
    for spec in enforced {
        assert_eq!(refused(spec), "", "{spec}");
    }
    assert_eq!(refused("enableDefaultDeny: {egress: true}\n  log: {value: a}\n  labels: ['k8s:a=b']"), "");
}

#[test]
fn sem_23_a_deny_of_nobody_is_refused() {
    for element in ["fromEntities: []", "fromEndpoints: [], toPorts: [{ports: [{port: 80}]}]", "fromGroups: []"] {
        let text = findings(&format!("{HEAD}spec:\n  endpointSelector: {{}}\n  ingressDeny: [{{{element}}}]\n"));
        assert!(text.contains("6:17: error[SEM-23]: spec.ingressDeny[0]: its list of peers is empty"), "{text}");
    }
}

#[test]
fn val_35_a_deny_has_no_place_for_a_proxy() {
    let deny =
        findings(&format!("{HEAD}spec:\n  endpointSelector: {{}}\n  ingressDeny:\n  - toPorts: [{{rules: {{}}}}]\n"));
    assert!(deny.contains("7:16: error: spec.ingressDeny[0].toPorts[0].rules: unknown field"), "{deny}");
}

#[test]
fn val_1_3_5_selectors_and_lists() {
    let spec = |content: &str| findings(&format!("{HEAD}spec:\n  {content}\n"));
    let selectors = [
        (
            "ingress: []",
            "4:1: error[VAL-1]: spec: has no endpointSelector (help: write endpointSelector: {} for every endpoint of namespace default)",
        ),
        (
            "endpointSelector:",
            "5:3: error[VAL-1]: spec.endpointSelector: has no value (help: write endpointSelector: {} for every endpoint of namespace default)",
        ),
        (
            "endpointSelector: {matchLabels: {app: 'a b'}}",
            "5:36: error[VAL-3]: spec.endpointSelector.matchLabels.app: \"a b\" is not a label value (help: use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit)",
        ),
        (
            "endpointSelector: {matchLabels: {'a b': c}}",
            "5:36: error[VAL-3]: spec.endpointSelector.matchLabels[\"a b\"]: \"a b\" is not a label key (help: write it like app, k8s:app or example.com/app, with at most 63 characters after the /)",
        ),
        (
            "endpointSelector: {matchLabels: {app: 5}}",
            "5:36: error: spec.endpointSelector.matchLabels.app: must be a text, found a number (help: write it in quotes: \"5\")",
        ),
        (
            "endpointSelector: {matchLabels: {app: }}",
            "5:36: error: spec.endpointSelector.matchLabels.app: must be a text, found nothing (help: write \"\" for an empty text)",
        ),
        (
            "endpointSelector: {matchExpressions: [{key: app, operator: in, values: [a]}]}",
            "5:52: error[VAL-3]: spec.endpointSelector.matchExpressions[0].operator: unknown operator \"in\" (help: did you mean \"In\"?)",
        ),
        (
            "endpointSelector: {matchExpressions: [{key: app, operator: NotIn, values: []}]}",
            "5:41: error[VAL-3]: spec.endpointSelector.matchExpressions[0]: operator NotIn needs values",
        ),
        (
            "endpointSelector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}",
            "5:41: error[VAL-3]: spec.endpointSelector.matchExpressions[0]: operator Exists takes no values",
        ),
        (
            "endpointSelector: {matchExpressions: [{operator: Exists}]}",
            "5:41: error[VAL-3]: spec.endpointSelector.matchExpressions[0]: has no key",
        ),
        (
            "endpointSelector: {}\n  egress: [{toEndpoints: [{}], toEntities: [world], toCIDR: []}]",
            "6:12: error[VAL-5]: spec.egress[0]: combines toEndpoints and toEntities (help: write one element for each: elements are alternatives)",
        ),
        (
            "endpointSelector: {}\n  ingress:",
            "6:3: error: spec.ingress: has no value, which could mean either no list or an empty one (help: remove the key to say nothing, or write [] for a list without elements)",
        ),
        ("endpointSelector: {}\n  ingress: {}", "6:3: error: spec.ingress: must be a list, found a mapping"),
    ];
    for (content, expected) in selectors {
        assert_eq!(spec(content), expected);
    }
}

#[test]
fn val_4_7_13_14_15_peers_and_ports() {
    let elements = [
        (
            "{fromEndpoints: [{}], fromEntities: [all]}",
            "7:5: error[VAL-4]: spec.ingress[0]: combines fromEndpoints and fromEntities (help: write one element for each: elements are alternatives)",
        ),
        (
            "fromEntities: [wrold]",
            "7:20: error[VAL-7]: spec.ingress[0].fromEntities[0]: unknown entity \"wrold\" (help: did you mean \"world\"?)",
        ),
        (
            "fromEntities: [internet]",
            "7:20: error[VAL-7]: spec.ingress[0].fromEntities[0]: unknown entity \"internet\" (help: known entities: all, world, cluster, host, remote-node, world-ipv4, world-ipv6, kube-apiserver, ingress, init, health, unmanaged, none)",
        ),
        (
            "toPorts: [{ports: [{port: 65536}]}]",
            "7:25: error[VAL-14]: spec.ingress[0].toPorts[0].ports[0].port: \"65536\" is not a port (help: write a number from 1 to 65535 without leading zeros, or the name of a port)",
        ),
        (
            "toPorts: [{ports: [{port: 010}]}]",
            "7:25: error[VAL-14]: spec.ingress[0].toPorts[0].ports[0].port: \"010\" is not a port (help: write a number from 1 to 65535 without leading zeros, or the name of a port)",
        ),
        (
            "toPorts: [{ports: [{port: '+80'}]}]",
            "7:25: error[VAL-14]: spec.ingress[0].toPorts[0].ports[0].port: \"+80\" is not a port (help: write a number from 1 to 65535 without leading zeros, or the name of a port)",
        ),
        (
            "toPorts: [{ports: [{port: ''}]}]",
            "7:25: error[VAL-14]: spec.ingress[0].toPorts[0].ports[0].port: \"\" is not a port (help: write a number from 1 to 65535 without leading zeros, or the name of a port)",
        ),
        (
            "toPorts: [{ports: [{port: 80, protocol: HTTP}]}]",
            "7:35: error[VAL-15]: spec.ingress[0].toPorts[0].ports[0].protocol: unknown protocol \"HTTP\" (help: write TCP, UDP, SCTP or ANY)",
        ),
        (
            "toPorts: [{ports: [{port: true}]}]",
            "7:25: error: spec.ingress[0].toPorts[0].ports[0].port: must be a text, found a boolean (help: write it in quotes: \"true\")",
        ),
    ];
    for (element, expected) in elements {
        assert_eq!(ingress_findings(element), expected);
    }
    let ports =
        |count: usize| format!("toPorts: [{{ports: [{}]}}]", vec!["{port: 80, protocol: TCP}"; count].join(", "));
    assert_eq!(ingress_findings(&ports(40)), "");
    assert_eq!(
        ingress_findings(&ports(41)),
        "7:16: error[VAL-13]: spec.ingress[0].toPorts[0].ports: has 41 ports: at most 40 are allowed (help: split the list over several elements of toPorts)"
    );
}

#[test]
fn lbl_14_keys_are_checked_behind_their_source() {
    let key = |key: &str| findings(&format!("{HEAD}spec: {{endpointSelector: {{matchLabels: {{{key:?}: ''}}}}}}\n"));
    let longest = "a".repeat(59);
    for good in
        ["app", "k8s:app", "any:app", "$host", "reserved:host", "reserved.host", "-app", "example.com/app", &longest]
    {
        assert_eq!(key(good), "", "{good}");
    }
    for bad in ["", "a=b", "app-", "k8s:", "/app", "Example.com/app", "a/b/c", "a;b", &"a".repeat(60)] {
        assert!(key(bad).contains("error[VAL-3]"), "{bad}: {}", key(bad));
    }
}

#[test]
fn what_is_legal_and_does_nothing_is_a_warning() {
    let cases = [
        ("ingress: [{fromEndpoints: [], toPorts: [{ports: [{port: 80}]}]}]", "6:13: warning[SEM-23]"),
        ("egressDeny: [{}]", "6:16: warning[SEM-20]"),
        ("egress: [{toPorts: [{}]}]", "6:12: warning[SEM-26]"),
    ];
    for (content, expected) in cases {
        let parsed = parse_objects(&format!("{HEAD}spec:\n  endpointSelector: {{}}\n  {content}\n"));
        assert_eq!(parsed.objects.len(), 1, "{content}");
        let text = parsed.diagnostics.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(expected), "{text}");
    }
    let elsewhere =
        format!("{HEAD}spec:\n  endpointSelector:\n    matchLabels: {{'k8s:io.kubernetes.pod.namespace': dev}}\n");
    assert!(findings(&elsewhere).starts_with("5:3: warning[NS-1]"), "{}", findings(&elsewhere));
    assert_eq!(
        findings(&format!("{HEAD}spec: {{endpointSelector: {{}}, ingress: [{{}}]}}\n")),
        "",
        "the idiom for default deny"
    );
}

#[test]
fn readers_could_disagree_about_these_texts() {
    let cases = [
        ("a: &x 1\nb: 2", "1:4: error: anchors (&name) are not allowed: write the value out where it is used"),
        (
            "a: &x 1\nb: *x",
            "1:4: error: anchors (&name) are not allowed: write the value out where it is used\n2:4: error: aliases (*name) are not allowed: write the value out",
        ),
        (
            "a: !!str 1",
            "1:4: error: tags are not allowed, found \"tag:yaml.org,2002:!str\": quote a value to make it a text",
        ),
        (
            "a: 1\nb: {c: 1, d: 2, c: 3}",
            "2:17: error: key \"c\" is given twice: first at 2:5 (help: keep one of them; readers disagree about which one counts)",
        ),
        (
            "a: 1\n'a': 2",
            "2:1: error: key \"a\" is given twice: first at 1:1 (help: keep one of them; readers disagree about which one counts)",
        ),
        (
            "%YAML 1.1\n---\na: 1",
            "2:1: error: directives (%YAML, %TAG) are not allowed (help: remove the lines that begin with %)",
        ),
        ("? [a]\n: b", "1:3: error: a key must be a text, not a list or a mapping"),
    ];
    for (text, expected) in cases {
        rejected(text, expected);
    }
    let text = findings("a: [1\nb: 2");
    assert!(text.starts_with("2:") && text.contains("error: not valid YAML: "), "{text}");
    assert!(findings("a: \"\tb\n").contains("not valid YAML"));
}

#[test]
fn limits_are_checked_before_they_cost() {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(findings(&deep(MAX_DEPTH)).contains("must be a mapping"));
    assert_eq!(
        findings(&deep(MAX_DEPTH + 1)),
        format!("1:{}: error: nested deeper than {MAX_DEPTH} levels", MAX_DEPTH + 1)
    );
    for hostile in ["[", "{", "- ", "a: {", "? "] {
        assert_ne!(findings(&hostile.repeat(200_000)), "", "{hostile}");
    }
    assert!(findings(&format!("[{}]", "1,".repeat(MAX_NODES))).contains("more than 100000 nodes"));
    let large = format!("a: '{}'", "x".repeat(MAX_DOCUMENT_BYTES));
    assert!(findings(&large).contains("at most 1048576 are allowed"));
    assert!(findings(&" ".repeat(MAX_TEXT_BYTES + 1)).contains("are read at once"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_text_panics(text in "([a-zA-Z:{}\\[\\],&*!|>'\"%#?\\-\\. \t\r\n\u{e9}\u{feff}\u{0}]|---\n|: |- |\n  ){0,60}") {
        prop_assert!(parse_objects(&text).objects.is_empty(), "far too short for an object");
    }

    /// A valid object with a few characters changed: no panic, and what is accepted is accepted again as a record.
    #[test]
    fn what_is_accepted_is_accepted_again(
        changes in proptest::collection::vec((0usize..700, "[a-z:{}\\[\\],&'\"\n \\-]{0,2}", 0usize..3), 0..3)
    ) {
        let mut text = format!(
            "{HEAD}spec:\n  endpointSelector:\n    matchLabels: {{app: web}}\n  ingress:\n  - fromEndpoints:\n    - matchExpressions:\n      \
             - {{key: k8s:tier, operator: NotIn, values: [a, \"b\"]}}\n    toPorts:\n    - ports:\n      - port: 80\n        protocol: TCP\n  \
             egressDeny:\n  - toEntities: [world]\n---\n# second\n{{\"apiVersion\": \"cilium.io/v2\", \"kind\": \"CiliumClusterwideNetworkPolicy\",\n \
             \"metadata\": {{\"name\": \"q\"}}, \"spec\": {{\"endpointSelector\": {{}}, \"egress\": []}}}}\n"
        );
        for (at, insert, remove) in changes {
            let at = at.min(text.len());
            let end = (at + remove).min(text.len());
            text.replace_range(at..end, &insert);
        }
        for object in parse_objects(&text).objects {
            let record = PolicyRecord { key: object.key.clone(), text: object.text.clone() };
            let again = parse_record(&record);
            prop_assert!(again.is_ok(), "{:?}\n{}", again, object.text);
            prop_assert_eq!(again.unwrap().rules.len(), object.rules.len());
        }
    }
}
