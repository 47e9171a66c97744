//! HTTP rules against requests: the examples of the reference, header actions, gRPC.

use ringfence_policy::l7::{
    header::HeaderEdit,
    http::{HeaderMatch, HttpRule},
    http_matcher::{HttpMatchers, HttpOutcome, HttpRequest},
    http_path::{NormalPath, normalise},
    secret::{SecretRef, Secrets, SensitiveText},
};

fn rules(json: &str) -> Vec<HttpRule> {
    let rules: Vec<HttpRule> = serde_json::from_str(json).expect("rules");
    for rule in &rules {
        assert_eq!(rule.check(), [], "{rule:?}");
    }
    rules
}

fn allowed(json: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
    judge(json, &Secrets::default(), method, path, headers).allowed()
}

fn judge(json: &str, secrets: &Secrets, method: &str, path: &str, headers: &[(&str, &str)]) -> HttpOutcome {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let request = HttpRequest::new(method, path, "api.internal:8080").with_headers(&headers);
    HttpMatchers::compile(&rules(json), secrets).judge(&request)
}

fn token() -> SecretRef {
    SecretRef { namespace: "shop".into(), name: "token".into() }
}

fn plain(text: &str) -> SensitiveText {
    SensitiveText::plain(text)
}

#[test]
fn t8_the_table_of_http_requests() {
    let rules = r#"[
        {"method": "GET", "path": "/v1/items(/[0-9]+)?(\\?.*)?"},
        {"method": "PUT", "path": "/v1/items/[0-9]+", "headers": ["X-Tenant: blue"]}
    ]"#;
    for (method, path, tenant, expected) in [
        ("GET", "/v1/items/7", "", true),
        ("GET", "/v1/items/7?full=1", "", true),
        ("GET", "/v1/items", "", true),
        ("GET", "/v1/items/", "", false),
        ("get", "/v1/items", "", false),
        ("PUT", "/v1/items/7", "blue", true),
        ("PUT", "/v1/items/7", "Blue", false),
        ("PUT", "/v1/items/7?x=1", "blue", false),
        ("PUT", "/v1/items/7", "", false),
        ("POST", "/v1/items/7", "blue", false),
    ] {
        assert_eq!(allowed(rules, method, path, &[("x-tenant", tenant)]), expected, "{method} {path} {tenant}");
    }
}

#[test]
fn http_2_the_query_is_part_of_the_path() {
    assert!(!allowed(r#"[{"path": "/public"}]"#, "GET", "/public?x=1", &[]));
    assert!(allowed(r#"[{"path": "/public(\\?.*)?"}]"#, "GET", "/public?x=1", &[]));
}

#[test]
fn http_3_the_port_is_part_of_the_host() {
    assert!(!allowed(r#"[{"host": "api.internal"}]"#, "GET", "/", &[]));
    assert!(allowed(r#"[{"host": "api.internal(:[0-9]+)?"}]"#, "GET", "/", &[]));
}

#[test]
fn http_6_dot_segments_do_not_open_what_a_prefix_closes() {
    let rules = HttpMatchers::compile(&rules(r#"[{"path": "/public/.*"}]"#), &Secrets::default());
    for path in ["/public/../admin", "/public/%2e%2e/admin", "/public/..\\admin"] {
        let Ok(NormalPath::Forward(normal)) = normalise(path.as_bytes()) else { panic!("{path}") };
        let request = HttpRequest { method: b"GET", path: &normal, host: b"", headers: &[] };
        assert!(!rules.judge(&request).allowed(), "{path}");
    }
}

#[test]
fn http_8_constraints_are_anded_rules_ored() {
    assert!(allowed("[{}]", "PURGE", "*", &[]));
    assert!(!allowed("[]", "GET", "/", &[]));
    assert!(!allowed(r#"[{"method": "GET", "path": "/a"}]"#, "GET", "/b", &[]));
    assert!(!allowed(r#"[{"method": "GET", "headers": ["X", "Y"]}]"#, "GET", "/", &[("x", "")]));
    assert!(allowed(r#"[{"method": "GET"}, {"path": "/b"}]"#, "PUT", "/b", &[]));
}

#[test]
fn http_9_where_the_expected_value_comes_from() {
    let with_secret = r#"[{"headerMatches": [{"name": "X-Token", "secret": {"namespace": "shop", "name": "token"}}]}]"#;
    let with_both =
        r#"[{"headerMatches": [{"name": "X-Token", "value": "v", "secret": {"namespace": "shop", "name": "token"}}]}]"#;
    let mut known = Secrets::default();
    known.insert(token(), "s3cret");
    let unknown = Secrets::default();
    for (rules, secrets, value, expected) in [
        (with_secret, &known, Some("s3cret"), true),
        (with_secret, &known, Some("v"), false),
        (with_secret, &known, None, false),
        (with_secret, &unknown, Some("s3cret"), false),
        (with_secret, &unknown, Some(""), false),
        (with_both, &known, Some("s3cret"), true),
        (with_both, &known, Some("v"), false),
        (with_both, &unknown, Some("v"), true),
        (r#"[{"headerMatches": [{"name": "X-Token"}]}]"#, &unknown, Some("anything"), true),
        (r#"[{"headerMatches": [{"name": "X-Token"}]}]"#, &unknown, None, false),
    ] {
        let headers: Vec<_> = value.iter().map(|value| ("x-token", *value)).collect();
        assert_eq!(judge(rules, secrets, "GET", "/", &headers).allowed(), expected, "{rules} {value:?}");
    }
    // Without the secret, no action makes the rule match.
    for action in ["LOG", "ADD", "DELETE", "REPLACE"] {
        let rules =
            with_secret.replace("\"name\": \"X-Token\"", &format!("\"name\": \"X-Token\", \"mismatch\": \"{action}\""));
        assert_eq!(judge(&rules, &unknown, "GET", "/", &[("x-token", "x")]), HttpOutcome::default(), "{action}");
    }
}

#[test]
fn http_10_actions_on_a_mismatch() {
    let name = || "X-Mode".to_owned();
    let add = || HeaderEdit::Add { name: name(), value: plain("strict") };
    let set = || HeaderEdit::Set { name: name(), value: plain("strict") };
    for (action, value, allowed, edits) in [
        ("", Some("strict"), true, vec![]),
        ("", Some("lax"), false, vec![]),
        ("", None, false, vec![]),
        ("LOG", Some("lax"), true, vec![]),
        ("LOG", None, true, vec![]),
        ("ADD", Some("lax"), true, vec![add()]),
        ("ADD", None, true, vec![add()]),
        ("DELETE", Some("lax"), true, vec![HeaderEdit::Remove { name: name() }]),
        ("DELETE", None, true, vec![]),
        ("REPLACE", Some("lax"), true, vec![set()]),
        ("REPLACE", None, true, vec![set()]),
        ("REPLACE", Some("strict"), true, vec![]),
    ] {
        let rules =
            format!(r#"[{{"headerMatches": [{{"name": "X-Mode", "value": "strict", "mismatch": "{action}"}}]}}]"#);
        let headers: Vec<_> = value.iter().map(|value| ("x-mode", *value)).collect();
        let outcome = judge(&rules, &Secrets::default(), "GET", "/", &headers);
        assert_eq!(outcome.allowed(), allowed, "{action} {value:?}");
        assert_eq!(outcome.edits, edits, "{action} {value:?}");
        let logged = allowed && value != Some("strict");
        assert_eq!(outcome.mismatches.len(), usize::from(logged), "{action} {value:?}");
        if let Some(mismatch) = outcome.mismatches.first() {
            assert_eq!(mismatch.expected, Some(plain("strict")));
            assert_eq!(mismatch.found, value.map(plain));
        }
    }
    // Nothing to delete for a header that must only be there.
    let presence = r#"[{"headerMatches": [{"name": "X-Mode", "mismatch": "DELETE"}]}]"#;
    let outcome = judge(presence, &Secrets::default(), "GET", "/", &[]);
    assert!(outcome.allowed() && outcome.edits.is_empty());
}

#[test]
fn http_11_every_matching_rule_acts_and_no_other() {
    let rules = r#"[
        {"method": "GET"},
        {"headerMatches": [{"name": "X-A", "value": "1", "mismatch": "REPLACE"}]},
        {"headerMatches": [{"name": "X-A", "value": "1", "mismatch": "REPLACE"}]},
        {"method": "PUT", "headerMatches": [{"name": "X-B", "value": "1", "mismatch": "ADD"}]},
        {"headerMatches": [{"name": "X-C", "value": "1", "mismatch": "ADD"}, {"name": "X-D"}]}
    ]"#;
    let outcome = judge(rules, &Secrets::default(), "GET", "/", &[]);
    assert_eq!(outcome.matched, [0, 1, 2]);
    assert_eq!(outcome.edits, [HeaderEdit::Set { name: "X-A".into(), value: plain("1") }]);
    // Without any action the first match decides.
    assert_eq!(judge(r#"[{}, {}]"#, &Secrets::default(), "GET", "/", &[]).matched, [0]);
}

#[test]
fn http_12_secrets_do_not_reach_the_log() {
    let mut secrets = Secrets::default();
    secrets.insert(token(), "s3cret");
    let header =
        HeaderMatch { name: "X-Token".into(), mismatch: "REPLACE".into(), secret: Some(token()), value: String::new() };
    let rule = HttpRule { header_matches: vec![header], ..HttpRule::default() };
    let headers: [(&str, &[u8]); 1] = [("x-token", b"gu3ss")];
    let outcome =
        HttpMatchers::compile(&[rule], &secrets).judge(&HttpRequest::new("GET", "/", "").with_headers(&headers));
    let HeaderEdit::Set { value, .. } = &outcome.edits[0] else { panic!("{outcome:?}") };
    assert_eq!(value.expose(), b"s3cret");
    let printed = format!("{outcome:?}");
    assert!(!printed.contains("s3cret") && !printed.contains("gu3ss"), "{printed}");
    assert!(printed.contains("[redacted]"));
}

#[test]
fn http_14_a_grpc_method_is_a_path() {
    let rules = r#"[{"method": "POST", "path": "/payments[.]PaymentService/CreatePayment"}]"#;
    assert!(allowed(rules, "POST", "/payments.PaymentService/CreatePayment", &[]));
    assert!(!allowed(rules, "POST", "/payments.PaymentService/DeletePayment", &[]));
    assert!(!allowed(rules, "POST", "/paymentsXPaymentService/CreatePayment", &[]));
}

#[test]
fn http_5_a_rule_that_cannot_be_compiled_matches_nothing() {
    let rule = HttpRule { host: "*.example.com".into(), ..HttpRule::default() };
    let matchers = HttpMatchers::compile(&[rule], &Secrets::default());
    assert!(!matchers.judge(&HttpRequest::new("GET", "/", "a.example.com")).allowed());
}
