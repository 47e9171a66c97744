//! `rules` objects and their places: VAL-19 … VAL-28, and the text of findings.

use ringfence_policy::{
    flow::Direction,
    l7::rules::{Family, InvalidL7Rules, L7Rules, Place, PlacePort},
};

const HTTPS: PlacePort = PlacePort { number: Some(443), end_port: 0, tcp: true };
const DNS: PlacePort = PlacePort { number: Some(53), end_port: 0, tcp: false };

fn rules(json: &str) -> L7Rules {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn found(problems: &[InvalidL7Rules]) -> Vec<(&'static str, String)> {
    problems.iter().map(|problem| (problem.rule(), problem.field())).collect()
}

fn place(direction: Direction, ports: &[PlacePort]) -> Place<'_> {
    Place {
        direction,
        host_subject: false,
        proxy_enabled: true,
        ports,
        server_names: &[],
        terminates_tls: false,
        listener: false,
    }
}

fn at(place: &Place<'_>, json: &str) -> Vec<(&'static str, String)> {
    found(&place.check(Some(&rules(json))))
}

#[test]
fn val_22_one_family() {
    for (json, family, expected) in [
        ("{}", None, &[][..]),
        (r#"{"http": []}"#, None, &[]),
        (r#"{"http": [], "kafka": []}"#, None, &[]),
        (r#"{"l7proto": "redis"}"#, None, &[]),
        (r#"{"http": [{}]}"#, Some(Family::Http), &[]),
        (r#"{"kafka": [{}]}"#, Some(Family::Kafka), &[]),
        (r#"{"dns": [{"matchPattern": "*"}]}"#, Some(Family::Dns), &[]),
        (r#"{"l7proto": "redis", "l7": [{"cmd": "get"}]}"#, Some(Family::Generic), &[]),
        (r#"{"http": [{}], "kafka": []}"#, None, &["VAL-22"]),
        (r#"{"http": [{}], "dns": [{"matchPattern": "*"}]}"#, None, &["VAL-22"]),
        (r#"{"http": [{}], "l7": [{"a": "b"}], "l7proto": "redis"}"#, None, &["VAL-22"]),
        (r#"{"http": [{}], "l7": [{"a": "b"}]}"#, Some(Family::Http), &["VAL-23"]),
        (r#"{"l7": [{"a": "b"}]}"#, None, &["VAL-23"]),
        (r#"{"l7proto": "redis", "l7": [{"a": "b"}, {"": "c"}]}"#, Some(Family::Generic), &["VAL-23"]),
    ] {
        let rules = rules(json);
        assert_eq!(rules.family(), family, "{json}");
        let ids: Vec<_> = rules.check().iter().map(InvalidL7Rules::rule).collect();
        assert_eq!(ids, expected, "{json}");
    }
}

#[test]
fn val_30_to_33_are_found_with_their_fields() {
    let json = r#"{"http": [{}, {"path": "/a("}], "kafka": [{"topic": "a*"}], "dns": [{"matchName": "*.a.com"}]}"#;
    let problems = rules(json).check();
    let expected = [
        ("VAL-22", "rules"),
        ("VAL-32", "rules.http[1].path"),
        ("VAL-33", "rules.kafka[0].topic"),
        ("VAL-31", "rules.dns[0].matchName"),
    ];
    assert_eq!(found(&problems), expected.map(|(rule, field)| (rule, field.to_owned())));
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "HTTP and Kafka rules in one object");
    assert_eq!(texts[1], "path is not a regular expression: a group is not closed at byte 3 of the expression");
    assert_eq!(problems[3].help(), "a name has no wildcards; write it as matchPattern");
    assert!(problems.iter().all(InvalidL7Rules::rejected_by_cilium));
}

#[test]
fn val_19_to_21_who_may_have_rules() {
    let ports = [HTTPS];
    let (ingress, egress) = (place(Direction::Ingress, &ports), place(Direction::Egress, &ports));
    let http = r#"{"http": [{"method": "GET"}]}"#;
    let dns = r#"{"dns": [{"matchPattern": "*"}]}"#;
    let generic = r#"{"l7proto": "redis", "l7": [{}]}"#;
    let rules_field = |rule| vec![(rule, "rules".to_owned())];
    assert_eq!(at(&ingress, http), []);
    assert_eq!(at(&Place { proxy_enabled: false, ..ingress.clone() }, http), rules_field("VAL-19"));
    assert_eq!(at(&Place { proxy_enabled: false, ..ingress.clone() }, r#"{"http": []}"#), []);
    assert_eq!(at(&ingress, dns), [("VAL-20", "rules.dns".to_owned())]);
    assert_eq!(at(&egress, dns), []);
    let host_ingress = Place { host_subject: true, ..ingress };
    let host_egress = Place { host_subject: true, ..egress };
    assert_eq!(at(&host_ingress, http), rules_field("VAL-21"));
    assert_eq!(at(&host_ingress, generic), rules_field("VAL-21"));
    assert_eq!(at(&host_egress, http), rules_field("VAL-21"));
    assert_eq!(at(&host_egress, r#"{"kafka": [{}]}"#), rules_field("VAL-21"));
    assert_eq!(at(&host_egress, dns), []);
    assert_eq!(at(&host_egress, generic), []);
}

#[test]
fn val_24_and_25_ports_of_rules() {
    let named = PlacePort { number: None, end_port: 0, tcp: true };
    let zero = PlacePort { number: Some(0), end_port: 0, tcp: true };
    let range = PlacePort { number: Some(8000), end_port: 8010, tcp: true };
    let http = r#"{"http": [{}]}"#;
    let check = |ports: &[PlacePort], json| at(&place(Direction::Egress, ports), json);
    assert_eq!(check(&[HTTPS, named, range], http), []);
    assert_eq!(check(&[], http), []);
    assert_eq!(check(&[HTTPS, DNS], http), [("VAL-24", "ports[1].protocol".to_owned())]);
    assert_eq!(check(&[HTTPS, zero], http), [("VAL-25", "ports[1].port".to_owned())]);
    assert_eq!(check(&[zero], r#"{"dns": [{"matchName": "a"}]}"#), [("VAL-25", "ports[0].port".to_owned())]);
    assert_eq!(check(&[zero, DNS], "{}"), []);
}

#[test]
fn val_26_ports_of_dns_rules() {
    let dns = r#"{"dns": [{"matchPattern": "*"}]}"#;
    let check = |ports: &[PlacePort]| at(&place(Direction::Egress, ports), dns);
    let other = PlacePort { number: Some(5353), end_port: 5353, tcp: false };
    assert_eq!(check(&[DNS, HTTPS, other]), []);
    assert_eq!(check(&[]), [("VAL-26", "ports".to_owned())]);
    let range = PlacePort { end_port: 54, ..DNS };
    assert_eq!(check(&[HTTPS, range]), [("VAL-26", "ports[1].endPort".to_owned())]);
}

#[test]
fn val_27_and_28_what_stands_beside_rules() {
    let ports = [HTTPS];
    let names = ["a.example.com".to_owned()];
    let plain = place(Direction::Egress, &ports);
    let sni = Place { server_names: &names, ..plain.clone() };
    let http = r#"{"http": [{}]}"#;
    assert_eq!(at(&sni, http), [("VAL-27", "serverNames".to_owned())]);
    assert_eq!(at(&sni, "{}"), []);
    assert_eq!(at(&Place { terminates_tls: true, ..sni }, http), []);
    let with_empty = ["a.example.com".to_owned(), String::new()];
    let empty = Place { server_names: &with_empty, ..plain.clone() };
    assert_eq!(found(&empty.check(None)), [("VAL-27", "serverNames[1]".to_owned())]);
    let listener = Place { listener: true, ..plain };
    assert_eq!(found(&listener.check(None)), []);
    assert_eq!(at(&listener, http), [("VAL-28", "rules".to_owned())]);
    let ingress = Place { direction: Direction::Ingress, ..listener };
    assert_eq!(found(&ingress.check(None)), [("VAL-28", "listener".to_owned())]);
}

#[test]
fn rules_are_written_as_they_were_read() {
    for json in [
        r#"{"http":[{"path":"/a","method":"GET","host":"h","headers":["X: 1"],"headerMatches":[{"mismatch":"LOG","name":"X","secret":{"namespace":"a","name":"s"},"value":"v"}]}]}"#,
        r#"{"kafka":[{"apiKey":"fetch","apiVersion":"0","clientID":"c1","role":"consume","topic":"t"},{}]}"#,
        r#"{"dns":[{"matchName":"a"},{"matchPattern":"*"}]}"#,
        r#"{"l7proto":"redis","l7":[{"cmd":"get"},{}]}"#,
        r#"{"http":[]}"#,
        "{}",
    ] {
        assert_eq!(serde_json::to_string(&rules(json)).expect("writes"), json);
    }
    assert!(serde_json::from_str::<L7Rules>(r#"{"grpc": []}"#).is_err());
}
