//! `rules`: the lists for HTTP, Kafka, DNS and other parsers, as they are written. What they mean is in `l7`.

use super::{
    fields::{HEADER_MATCH, HTTP, KAFKA, RULES, SECRET},
    located::{Findings, Located, Mapping},
    names,
};
use crate::l7::{
    generic::GenericRule,
    http::{HeaderMatch, HttpRule},
    kafka::KafkaRule,
    rules::L7Rules,
    secret::SecretRef,
};

pub(super) fn decode(at: &Located<'_>, findings: &mut Findings) -> Option<L7Rules> {
    let fields = at.mapping(RULES, findings)?;
    Some(L7Rules {
        http: list(&fields, "http", http, findings),
        kafka: list(&fields, "kafka", kafka, findings),
        dns: list(&fields, "dns", names::dns_rule, findings),
        l7proto: fields.text("l7proto", findings),
        l7: list(&fields, "l7", generic, findings),
    })
}

/// The elements of a list; none if it is not written.
fn list<T>(
    fields: &Mapping<'_>,
    name: &str,
    decode: fn(&Located<'_>, &mut Findings) -> Option<T>,
    findings: &mut Findings,
) -> Option<Vec<T>> {
    let items = fields.list(name, findings)?;
    Some(items.iter().filter_map(|item| decode(item, findings)).collect())
}

fn http(at: &Located<'_>, findings: &mut Findings) -> Option<HttpRule> {
    let fields = at.mapping(HTTP, findings)?;
    Some(HttpRule {
        path: fields.text("path", findings),
        method: fields.text("method", findings),
        host: fields.text("host", findings),
        headers: fields.texts("headers", findings).unwrap_or_default(),
        header_matches: list(&fields, "headerMatches", header_match, findings).unwrap_or_default(),
    })
}

fn header_match(at: &Located<'_>, findings: &mut Findings) -> Option<HeaderMatch> {
    let fields = at.mapping(HEADER_MATCH, findings)?;
    Some(HeaderMatch {
        name: fields.text("name", findings),
        mismatch: fields.text("mismatch", findings),
        secret: fields.get("secret").and_then(|at| secret(&at, findings)),
        value: fields.text("value", findings),
    })
}

/// Where a secret lies.
pub(super) fn secret(at: &Located<'_>, findings: &mut Findings) -> Option<SecretRef> {
    let fields = at.mapping(SECRET, findings)?;
    Some(SecretRef { namespace: fields.text("namespace", findings), name: fields.text("name", findings) })
}

fn kafka(at: &Located<'_>, findings: &mut Findings) -> Option<KafkaRule> {
    let fields = at.mapping(KAFKA, findings)?;
    Some(KafkaRule {
        api_key: fields.text("apiKey", findings),
        api_version: fields.text("apiVersion", findings),
        client_id: fields.text("clientID", findings),
        role: fields.text("role", findings),
        topic: fields.text("topic", findings),
    })
}

fn generic(at: &Located<'_>, findings: &mut Findings) -> Option<GenericRule> {
    let pairs = at.pairs(findings)?;
    let text = |(key, value): (&str, Located<'_>)| Some((key.to_owned(), value.text(findings)?.to_owned()));
    Some(GenericRule(pairs.into_iter().filter_map(text).collect()))
}
