//! `toPorts`: ports and protocols (VAL-13 … VAL-15).

use super::{
    fields::{PORT, PORT_DENY_RULE, PORT_RULE, nearest},
    located::{Findings, Located},
    proxy,
    spec::{ElementKind, SpecContext},
};
use crate::{
    diagnostic::quoted,
    rule::{Port, PortNumber, PortProtocol, PortRule, Proxy},
};

/// The most entries of one `ports` list (VAL-13).
const MAX_PORTS: usize = 40;
/// The longest service name (RFC 6335 §5.1).
const MAX_SERVICE_NAME_BYTES: usize = 15;

/// All elements of `toPorts`; none for an empty list (SEM-25).
pub(super) fn decode(
    at: &Located<'_>,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Option<Vec<PortRule>> {
    let items = at.items(findings)?;
    if items.is_empty() {
        return None;
    }
    let fields = if kind.denies { PORT_DENY_RULE } else { PORT_RULE };
    let mut rules = Vec::new();
    for item in &items {
        let Some(entry) = item.mapping(fields, findings) else { continue };
        let written = entry.get("ports").and_then(|at| Some((at.items(findings)?, at)));
        if let Some((ports, at)) = &written
            && ports.len() > MAX_PORTS
        {
            let message = format!("has {} ports: at most {MAX_PORTS} are allowed", ports.len());
            let finding = at.error(message).rule("VAL-13");
            findings.add(finding.help("split the list over several elements of toPorts"));
        }
        let written = written.map(|(ports, _)| ports).unwrap_or_default();
        let ports: Vec<Port> = written.iter().filter_map(|port| decode_port(port, findings)).collect();
        // A proxy beside a deny is not in the schema (VAL-35), and Cilium's agent does not look at it.
        let complete = ports.len() == written.len();
        let proxy = if kind.denies { Proxy::default() } else { proxy::decode(&entry, kind, context, findings) };
        if complete && !kind.denies {
            proxy::check_place(&entry, &proxy, &ports, kind, context, findings);
        }
        rules.push(PortRule { position: item.node.position, ports, proxy });
    }
    Some(rules)
}

fn decode_port(at: &Located<'_>, findings: &mut Findings) -> Option<Port> {
    let entry = at.mapping(PORT, findings)?;
    let protocol = match entry.get("protocol") {
        None => Some(PortProtocol::default()),
        Some(at) => protocol(&at, findings),
    };
    let last: i64 = entry.get("endPort").and_then(|at| at.number(findings)).unwrap_or(0);
    let last = u16::try_from(last).unwrap_or_else(|_| {
        findings.add_strict(entry.at_path("endPort").error("is not from 0 to 65535").rule("VAL-34"));
        0
    });
    let number = match entry.get("port") {
        Some(at) => port_number(&at, last, findings),
        None => {
            findings.add(entry.at.error("has no port").rule("VAL-14").help("write port: \"8080\""));
            None
        }
    };
    let number = number?;
    if entry.get("protocol").is_none() && number != PortNumber::one(53) {
        let finding = entry.at.warning("has no protocol, so it is for TCP, UDP and SCTP").rule("SEM-41");
        findings.add(finding.help("write protocol: TCP if that is meant, or protocol: ANY"));
    }
    Some(Port { protocol: protocol?, number, end_port: last })
}

/// VAL-14. A number that is written as one is not a text, which Cilium's schema asks for.
fn port_number(at: &Located<'_>, last: u16, findings: &mut Findings) -> Option<PortNumber> {
    let text = if findings.as_cilium() { at.text(findings)? } else { at.text_or_number(findings)? };
    let number = parse_port(text, at, last, findings);
    if let Some(PortNumber::Named { .. }) = number
        && last > 0
    {
        let finding = at.error("has an endPort beside the name of a port, which may mean any number").rule("PORT-5");
        findings.add_strict(finding.help("write the number"));
    }
    number
}

/// A port as a text: a service name, or else a number. `last` is 0 where no range is written.
pub(super) fn parse_port(text: &str, at: &Located<'_>, last: u16, findings: &mut Findings) -> Option<PortNumber> {
    if is_service_name(text) {
        return Some(PortNumber::Named { name: text.to_ascii_lowercase(), last });
    }
    let strict = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        plain.then(|| text.parse().ok()).flatten()
    };
    // `010` is 8 to some readers and 10 to others.
    let first = if findings.as_cilium() { with_base(text) } else { strict(text) };
    let Some(first) = first else {
        let finding = at.error(format!("{} is not a port", quoted(text))).rule("VAL-14");
        findings.add(finding.help("write a number from 1 to 65535 without leading zeros, or the name of a port"));
        return None;
    };
    // PORT-2: 0 without an end is every port.
    Some(if first == 0 && last == 0 { PortNumber::EVERY } else { PortNumber::Range { first, last: last.max(first) } })
}

/// A number as Go reads it with its base prefix: `0` is for octal, underscores stand between digits.
fn with_base(text: &str) -> Option<u16> {
    let parts: Vec<&str> = text.split('_').collect();
    let digits = parts.concat();
    if parts.iter().any(|part| part.is_empty()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.strip_prefix('0') {
        Some("") | None => digits.parse().ok(),
        Some(octal) => u16::from_str_radix(octal, 8).ok(),
    }
}

/// RFC 6335 §5.1: letters, digits and single hyphens inside, at least one letter.
fn is_service_name(text: &str) -> bool {
    let characters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let hyphens = text.starts_with('-') || text.ends_with('-') || text.contains("--");
    let letter = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    characters && !hyphens && letter && text.len() <= MAX_SERVICE_NAME_BYTES
}

/// VAL-15, in any letter case.
pub(super) fn protocol(at: &Located<'_>, findings: &mut Findings) -> Option<PortProtocol> {
    let text = at.text(findings)?;
    let known = PortProtocol::WORDS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    let absent = text.is_empty() && findings.as_cilium();
    if known.is_none() && !absent {
        let finding = at.error(format!("unknown protocol {}", quoted(text))).rule("VAL-15");
        let words = PortProtocol::WORDS.map(|(word, _)| word);
        findings.add(finding.help(match nearest(text, words.into_iter()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write TCP, UDP, SCTP or ANY".to_owned(),
        }));
    }
    known.map(|(_, protocol)| protocol).or(absent.then_some(PortProtocol::Any))
}
