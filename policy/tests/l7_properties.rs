//! No text makes a matcher panic, take more than linear time, or match what its specification does not.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringfence_policy::l7::{
    advice,
    dns_name::DnsName,
    dns_pattern::{DnsPattern, DnsUse},
    dns_rule::{DnsMatchers, DnsRule, FqdnSelector},
    expression::Expression,
    http::{HeaderMatch, HttpRule},
    http_matcher::{HttpMatchers, HttpRequest},
    http_path::{NormalPath, normalise},
    kafka::KafkaRule,
    kafka_api::ApiKey,
    kafka_matcher::{KafkaMatchers, KafkaRequest},
    secret::Secrets,
    server_name::ServerNames,
};

/// Texts with many of the characters that mean something in expressions.
fn expression_text() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "b",
        "/",
        ".",
        "*",
        "+",
        "?",
        "|",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?P<n>",
        "[",
        "]",
        "[^",
        "-",
        "^",
        "$",
        "{",
        "}",
        "{2}",
        "{1,3}",
        "{1000}",
        "{,2}",
        ",",
        "\\",
        "\\d",
        "\\W",
        "\\b",
        "\\pL",
        "\\p{Greek}",
        "\\x{",
        "\\Q",
        "\\E",
        "[:alpha:]",
        "&&",
        "--",
        "~~",
        "é",
        "\n",
        "0",
        "<",
        ">",
        "#",
        " ",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![expression_text(), ".{0,200}", "[-a-zA-Z0-9_.*]{0,100}"]
}

/// A pattern by its definition: the expressions in the reference's table.
fn defined_by_expression(pattern: &str, used_for: DnsUse) -> Expression {
    let text = match (pattern, used_for) {
        ("*", DnsUse::Query) => "(?s).*".to_owned(),
        ("*", DnsUse::Address) => "(([-a-zA-Z0-9_]+[.])+)|[.]".to_owned(),
        _ => {
            let dot = if pattern.ends_with('.') { "" } else { "." };
            let pattern = format!("{}{dot}", pattern.to_ascii_lowercase());
            pattern.replace('.', "[.]").replace('*', "[-a-zA-Z0-9_]*")
        }
    };
    Expression::new(&text).expect("an expression")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn expressions_compile_or_say_why_not(text in any_text(), value in any_text()) {
        let start = Instant::now();
        match Expression::new(&text) {
            Ok(expression) => { let _ = expression.matches(value.as_bytes()); }
            Err(invalid) => prop_assert!(!invalid.to_string().is_empty()),
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10), "{text:?} on {value:?}");
    }

    /// The rewriting of expressions breaks none that RE2 accepts: what it lets through, the engine compiles.
    #[test]
    fn what_is_rewritten_compiles(text in expression_text()) {
        use ringfence_policy::l7::expression::InvalidExpression;
        let result = Expression::new(&text);
        let fine = !matches!(result, Err(InvalidExpression::UnknownUnicodeClass)) || text.contains("\\p");
        prop_assert!(fine, "{text:?}: {result:?}");
    }

    #[test]
    fn texts_without_special_characters_match_themselves_only(text in "[a-zA-Z0-9/_ é<>#~&-]{0,40}", other in "[a-zA-Z0-9/]{0,40}") {
        let expression = Expression::new(&text).expect("literal");
        prop_assert!(expression.matches(text.as_bytes()));
        prop_assert_eq!(expression.matches(other.as_bytes()), other == text);
    }

    #[test]
    fn http_rules_never_panic(texts in prop::collection::vec(any_text(), 8)) {
        let header = HeaderMatch { name: texts[4].clone(), mismatch: "ADD".into(), secret: None, value: texts[5].clone() };
        let rule = HttpRule {
            path: texts[0].clone(),
            method: texts[1].clone(),
            host: texts[2].clone(),
            headers: vec![texts[3].clone()],
            header_matches: vec![header],
        };
        let valid = rule.check().is_empty();
        let _ = advice::on_http(&rule);
        let headers = [(texts[6].as_str(), texts[7].as_bytes())];
        let request = HttpRequest::new(&texts[1], &texts[0], &texts[2]).with_headers(&headers);
        let outcome = HttpMatchers::compile(&[rule], &Secrets::default()).judge(&request);
        prop_assert!(valid || !outcome.allowed());
    }

    #[test]
    fn http_6_normalising_twice_changes_nothing(path in "/?([a/.]|%2[eEfF]|%5c|%61|\\\\|%|\\?|é){0,30}") {
        let Ok(NormalPath::Forward(once)) = normalise(path.as_bytes()) else { return Ok(()) };
        prop_assert_eq!(normalise(&once), Ok(NormalPath::Forward(once.clone())));
        let end = once.iter().position(|byte| *byte == b'?').unwrap_or(once.len());
        let mut segments = once[..end].split(|byte| *byte == b'/');
        prop_assert!(!segments.any(|segment| segment == b"." || segment == b".."));
    }

    #[test]
    fn paths_never_panic(path in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = normalise(&path);
    }

    #[test]
    fn dns_2_to_7_patterns_are_their_expressions(
        pattern in "[a*.]{0,12}|[-aA_0*.]{1,20}",
        name in "[a.]{0,12}|[-aA_0.é*]{0,20}",
        address in any::<bool>(),
    ) {
        let used_for = if address { DnsUse::Address } else { DnsUse::Query };
        let name = DnsName::new(&name);
        let expected = defined_by_expression(&pattern, used_for).matches(name.as_str().as_bytes());
        prop_assert_eq!(DnsPattern::new(&pattern, used_for).matches(&name), expected, "{} {}", pattern, name);
    }

    #[test]
    fn dns_rules_never_panic(match_name in any_text(), match_pattern in any_text(), query in any_text()) {
        let rule = DnsRule { match_name, match_pattern };
        let _ = rule.check(DnsUse::Address);
        let _ = advice::on_dns(&rule);
        let name = DnsName::new(&query);
        prop_assert!(name.as_str().ends_with('.'));
        prop_assert!(DnsName::new(name.as_str()) == name);
        let _ = FqdnSelector::compile(&rule).map(|selector| selector.selects(&name));
        let _ = DnsMatchers::compile(&[rule]).allows(&name);
        let server_names = ServerNames::new(std::slice::from_ref(&query)).expect("not empty");
        prop_assert_eq!(server_names.allows(Some(&query)), !query.is_empty());
        let _ = advice::on_server_name(&query);
    }

    #[test]
    fn kaf_5_more_rules_never_allow_less_and_more_topics_never_more(
        rules in prop::collection::vec(("(produce|Consume|)", "(fetch|metadata|createtopics|)", "[ab]{0,1}"), 0..5),
        key in -1_i16..40,
        topics in prop::collection::vec("[abc]", 0..4),
    ) {
        let rules: Vec<_> = rules
            .into_iter()
            .map(|(role, api_key, topic)| KafkaRule { role, api_key, topic, ..KafkaRule::default() })
            .collect();
        let _ = advice::on_kafka(&rules);
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let allows = |rules: &[KafkaRule], topics: &[&str]| {
            let request = KafkaRequest { api_key: ApiKey(key), api_version: 0, client_id: "", topics };
            KafkaMatchers::compile(rules).allows(&request)
        };
        let fewer_rules = rules.get(1..).unwrap_or(&[]);
        prop_assert!(!allows(fewer_rules, &topics) || allows(&rules, &topics));
        // A request for all topics is the widest one, though its list is empty.
        if topics.len() > 1 {
            prop_assert!(!allows(&rules, &topics) || allows(&rules, &topics[1..]));
        }
    }
}

#[test]
fn the_worst_expressions_take_bounded_time() {
    let value = vec![b'a'; Expression::MAX_VALUE_BYTES];
    let start = Instant::now();
    for text in
        ["(?:a?){500}a{500}", "(a|b|ab)*bc", "(.*a){12}b", "((a{10}){10}){10}", "[a-y]*z", "(?i)(k|K)*x", "(x+x+)+y"]
    {
        match Expression::new(text) {
            Ok(expression) => assert!(!expression.matches(&value), "{text}"),
            Err(invalid) => panic!("{text}: {invalid}"),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let many_wildcards = "*a".repeat(127);
    let name = DnsName::new(&"a".repeat(60_000));
    assert!(DnsPattern::new(&many_wildcards, DnsUse::Query).matches(&name));
    assert!(!DnsPattern::new(&(many_wildcards + "b"), DnsUse::Query).matches(&name));
}
