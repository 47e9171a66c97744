//! AUD: endpoints and nodes that refuse nothing, and objects that decide nothing.

use ringfence_policy::{
    compat::Compat,
    evaluate::{Conflict, Decision, Outcome},
    flow::{Direction, Flow, protocol},
    object::{not_enforceable, parse_documents},
};

use crate::{
    judge::{Judge, cnp},
    scene::{identity, labels},
};

const TCP: u8 = protocol::TCP;
const AUDIT: &str = "annotations: {ringfence.io/audit: \"true\"}, ";

/// An object by another name, under audit.
fn watched(content: &str) -> String {
    cnp(content).replace("{name: p", &format!("{{{AUDIT}name: watched"))
}

fn judge(objects: &[String]) -> Judge {
    Judge::new(&objects.join("---\n"), Compat::Ringfence)
}

fn ingress(peer: &str, port: u16) -> Flow {
    Flow { subject: identity("web"), peer: identity(peer), direction: Direction::Ingress, protocol: TCP, port }
}

fn outcome(judge: &Judge, peer: &str, port: u16) -> Outcome {
    judge.policy().unwrap().judge(&ingress(peer, port), &labels(identity(peer)))
}

const FROM_API: &str = "ingress: [{fromEndpoints: [{matchLabels: {app: api}}]}]";
const NOT_API: &str = "ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}]}]";

#[test]
fn aud_1_a_node_or_an_endpoint_is_under_audit() {
    let quiet = judge(&[cnp(FROM_API)]);
    assert!(!outcome(&quiet, "db", 80).passes());
    let endpoint = quiet.policy().unwrap().under_audit();
    assert!(endpoint.judge(&ingress("db", 80), &labels(identity("db"))).is_audited());
    let node = judge(&[cnp(FROM_API)]).set(|settings| settings.audit = true);
    assert!(outcome(&node, "db", 80).is_audited());
    assert!(node.policy().unwrap().enforces(Direction::Ingress), "it is enforced, and lets through");
}

#[test]
fn aud_2_every_refusal_is_let_through_and_said() {
    let objects = [cnp(
        "ingress: [{fromEndpoints: [{}], authentication: {mode: test-always-fail}}]\n  ingressDeny: [{fromEndpoints: [{matchLabels: {app: api}}]}]",
    )];
    let judge = judge(&objects).set(|settings| settings.audit = true);
    let told = |peer| {
        let outcome = outcome(&judge, peer, 80);
        (outcome.passes(), outcome.is_audited(), outcome.would_be_refused(), outcome.decision)
    };
    assert_eq!(told("api"), (true, true, true, Decision::DenyExplicit));
    assert_eq!(told("dev-api"), (true, true, true, Decision::DenyDefault));
    let (passes, audited, _, decision) = told("db");
    assert!(passes && !audited && matches!(decision, Decision::Allow { .. }), "what it needs is known: {decision:?}");
    assert_eq!(told("host"), (true, false, false, Decision::ALLOW));
}

#[test]
fn aud_3_what_the_proxy_refuses_stays_refused() {
    let content = "ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{method: GET}]}}]}]";
    let judge = judge(&[cnp(content)]).set(|settings| settings.audit = true);
    let outcome = outcome(&judge, "api", 80);
    assert!(matches!(outcome.decision, Decision::Redirect(_)), "{outcome:?}");
    assert!(!outcome.is_audited());
}

#[test]
fn aud_5_an_object_under_audit_decides_nothing_and_says_what_it_would() {
    let decided = |objects: &[String], peer| {
        let outcome = outcome(&judge(objects), peer, 80);
        (outcome.decision, outcome.shadow)
    };
    // Alone, it does not even isolate (SEM-1).
    let alone = [watched(FROM_API)];
    assert_eq!(decided(&alone, "api"), (Decision::ALLOW, Some(Ok(Decision::ALLOW))));
    assert_eq!(decided(&alone, "db"), (Decision::ALLOW, Some(Ok(Decision::DenyDefault))));
    assert!(!judge(&alone).policy().unwrap().enforces(Direction::Ingress));
    // It neither denies nor allows.
    let deny = [cnp(FROM_API), watched(NOT_API)];
    assert_eq!(decided(&deny, "api"), (Decision::ALLOW, Some(Ok(Decision::DenyExplicit))));
    let allow = [cnp("ingress: [{}]"), watched(FROM_API)];
    assert_eq!(decided(&allow, "api"), (Decision::DenyDefault, Some(Ok(Decision::ALLOW))));
    assert!(outcome(&judge(&deny), "api", 80).would_be_refused());
    assert!(!outcome(&judge(&allow), "api", 80).would_be_refused(), "it is refused");
    // Nobody who is not selected has a shadow.
    let other = [watched(FROM_API)
        .replace("endpointSelector: {matchLabels: {app: web}}", "endpointSelector: {matchLabels: {app: db}}")];
    assert_eq!(decided(&other, "api"), (Decision::ALLOW, None));
    // REQ-1: its requirements restrict nobody.
    let requires = [cnp(FROM_API), watched("ingress: [{fromRequires: [{matchLabels: {tier: none}}]}]")];
    assert_eq!(decided(&requires, "api"), (Decision::ALLOW, Some(Ok(Decision::DenyDefault))));
}

#[test]
fn aud_5_a_contradiction_with_an_object_under_audit_is_only_shown() {
    let with = |mode: &str| format!("ingress: [{{fromEndpoints: [{{}}], authentication: {{mode: {mode}}}}}]");
    let judge = judge(&[cnp(&with("required")), watched(&with("disabled"))]);
    let outcome = outcome(&judge, "api", 80);
    assert!(outcome.passes());
    assert_eq!(outcome.shadow, Some(Err(Conflict::Authentication)));
}

#[test]
fn aud_5_the_annotation_is_checked() {
    let annotated = |annotations: &str| cnp(FROM_API).replace("{name: p", &format!("{{{annotations}, name: p"));
    let audit = |text: &str| {
        let parsed = parse_documents(text, Compat::Ringfence);
        let errors: Vec<String> =
            parsed.diagnostics.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
        (parsed.objects.iter().map(|object| object.audit()).collect::<Vec<_>>(), errors.join("\n"))
    };
    assert_eq!(audit(&cnp(FROM_API)), (vec![false], String::new()));
    assert_eq!(audit(&watched(FROM_API)), (vec![true], String::new()));
    assert_eq!(audit(&annotated("annotations: {ringfence.io/audit: \"false\", a: b}")), (vec![false], String::new()));
    for (annotations, error) in [
        (
            "annotations: {ringfence.io/audit: \"yes\"}",
            "3:26: error[AUD-5]: metadata.annotations[\"ringfence.io/audit\"]: \"yes\" is neither",
        ),
        ("annotations: {ringfence.io/audit: true}", "write it in quotes: \"true\""),
        ("annotations: {ringfence.io/audti: \"true\"}", "did you mean \"ringfence.io/audit\"?"),
        ("annotations: {ringfence.io/order: \"1\"}", "the only one is ringfence.io/audit"),
        ("labels: {ringfence.io/audit: \"true\"}", "write it below metadata.annotations"),
    ] {
        let (objects, errors) = audit(&annotated(annotations));
        assert_eq!(objects, [], "{annotations}");
        assert!(errors.contains(error), "{annotations}: {errors}");
    }
    let group = "{apiVersion: cilium.io/v2alpha1, kind: CiliumCIDRGroup, metadata: {name: g, annotations: \
                 {ringfence.io/audit: \"true\"}}, spec: {externalCIDRs: [10.0.0.0/8]}}";
    assert!(audit(group).1.contains("a CIDR group cannot be under audit"));
}

#[test]
fn aud_5_nodes_keep_shadows() {
    let parsed = parse_documents(&watched(FROM_API), Compat::Ringfence);
    assert_eq!(not_enforceable(&parsed.objects[0]), []);
}
