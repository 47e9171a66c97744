//! `toPorts`: ports and protocols (VAL-13 … VAL-15).

use super::{
    fields::{PORT, PORT_DENY_RULE, PORT_RULE},
    located::{Findings, Located},
};
use crate::{
    diagnostic::quoted,
    rule::{PortProtocol, PortRule},
};

/// The most entries of one `ports` list (VAL-13).
const MAX_PORTS: usize = 40;
/// The longest service name (RFC 6335 §5.1).
const MAX_SERVICE_NAME_BYTES: usize = 15;

/// The union of all entries (SEM-41); none for an empty list (SEM-25).
pub(super) fn decode(at: &Located<'_>, denies: bool, findings: &mut Findings) -> Option<Vec<PortRule>> {
    let items = at.items(findings)?;
    if items.is_empty() {
        return None;
    }
    let fields = if denies { PORT_DENY_RULE } else { PORT_RULE };
    let mut rules = Vec::new();
    for item in items {
        let Some(entry) = item.mapping(fields, findings) else { continue };
        let Some(at) = entry.get("ports") else { continue };
        let Some(ports) = at.items(findings) else { continue };
        if ports.len() > MAX_PORTS {
            let finding =
                at.error(format!("has {} ports: at most {MAX_PORTS} are allowed", ports.len())).rule("VAL-13");
            findings.add(finding.help("split the list over several elements of toPorts"));
        }
        rules.extend(ports.iter().filter_map(|port| port_rule(port, findings)));
    }
    Some(rules)
}

fn port_rule(at: &Located<'_>, findings: &mut Findings) -> Option<PortRule> {
    let entry = at.mapping(PORT, findings)?;
    let protocol = match entry.get("protocol") {
        None => Some(PortProtocol::default()),
        Some(at) => protocol(&at, findings),
    };
    let port = match entry.get("port") {
        Some(at) => port(&at, findings),
        None => {
            findings.add(entry.at.error("has no port").rule("VAL-14").help("write port: \"8080\""));
            None
        }
    };
    Some(PortRule { protocol: protocol?, port: port? })
}

fn port(at: &Located<'_>, findings: &mut Findings) -> Option<u16> {
    let text = at.text_or_number(findings)?;
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) if text == "0" => {
            findings.add(at.error("port 0 (every port of a protocol) is not supported yet"));
            None
        }
        // `010` is 8 to some readers and 10 to others.
        Ok(port) if decimal && !text.starts_with('0') => Some(port),
        _ if is_service_name(text) => {
            findings
                .add(at.error(format!("named port {} is not supported yet", quoted(text))).help("write its number"));
            None
        }
        _ => {
            let finding = at.error(format!("{} is not a port", quoted(text))).rule("VAL-14");
            findings.add(finding.help("write a number from 1 to 65535 without leading zeros"));
            None
        }
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
fn protocol(at: &Located<'_>, findings: &mut Findings) -> Option<PortProtocol> {
    let text = at.text(findings)?;
    let known = PortProtocol::WORDS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    if known.is_none() {
        let finding = at.error(format!("unknown protocol {}", quoted(text))).rule("VAL-15");
        findings.add(finding.help("write TCP, UDP, SCTP or ANY"));
    }
    known.map(|(_, protocol)| protocol)
}
