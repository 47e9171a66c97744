//! Explanations, selectors and ports in words.

use std::fmt;

use super::{Explanation, Reason};
use crate::{
    evaluate::{Conflict, Decision},
    flow::{Direction, protocol},
    rule::{Authentication, Port, PortNumber, PortProtocol, PortRule},
    selector::{Condition, Requirement, Selector},
};

/// How many ports are named.
const MAX_NAMED: usize = 6;
const PROTOCOLS: [(u8, &str); 5] = [
    (protocol::TCP, "TCP"),
    (protocol::UDP, "UDP"),
    (protocol::SCTP, "SCTP"),
    (protocol::ICMP, "ICMP"),
    (protocol::ICMPV6, "ICMPv6"),
];

/// A protocol's usual name, or its number.
#[must_use]
pub fn describe_protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned())
}

/// The number of a protocol that policies know, in any letter case.
#[must_use]
pub fn parse_protocol(word: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(_, known)| known.eq_ignore_ascii_case(word)).map(|(number, _)| *number)
}

/// A selector as `kubectl -l` writes one.
#[must_use]
pub fn describe_selector(selector: &Selector) -> String {
    if selector.is_wildcard() {
        return "everyone".to_owned();
    }
    selector.requirements().map(describe_requirement).collect::<Vec<_>>().join(",")
}

pub(super) fn describe_requirement(requirement: &Requirement) -> String {
    let key = &requirement.key;
    let list = |values: &std::collections::BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
    let equal = |value: &String| if value.is_empty() { key.to_string() } else { format!("{key}={value}") };
    match &requirement.condition {
        Condition::Is(value) => equal(value),
        Condition::In(values) => format!("{key} in ({})", list(values)),
        Condition::NotIn(values) => format!("{key} notin ({})", list(values)),
        Condition::Exists => key.to_string(),
        Condition::DoesNotExist => format!("!{key}"),
    }
}

/// The ports of an element, after the word "wants".
pub(super) fn describe_ports(rules: &[PortRule]) -> String {
    let mut texts: Vec<String> = rules.iter().flat_map(|rule| &rule.ports).map(describe_port).collect();
    match texts.len() {
        0 => return "no port at all".to_owned(),
        1 => return format!("port {}", texts[0]),
        length if length > MAX_NAMED => {
            texts.truncate(MAX_NAMED);
            texts.push(format!("{} more", length - MAX_NAMED));
        }
        _ => {}
    }
    format!("one of the ports {}", texts.join(", "))
}

fn describe_port(port: &Port) -> String {
    let protocol = match port.protocol {
        PortProtocol::Any => "ANY",
        PortProtocol::Tcp => "TCP",
        PortProtocol::Udp => "UDP",
        PortProtocol::Sctp => "SCTP",
        PortProtocol::Icmp => "ICMP",
        PortProtocol::Icmpv6 => "ICMPv6",
    };
    match &port.number {
        number if *number == PortNumber::EVERY => format!("*/{protocol}"),
        PortNumber::Range { first, last } if first == last => format!("{first}/{protocol}"),
        PortNumber::Range { first, last } => format!("{first}-{last}/{protocol}"),
        PortNumber::Named { name, .. } => format!("{name}/{protocol}"),
    }
}

/// A decision in one or two words.
#[must_use]
pub fn describe_decision(decision: &Result<Decision, Conflict>) -> String {
    match decision {
        Ok(Decision::Allow { authentication: Authentication::Disabled }) => "allow".to_owned(),
        Ok(Decision::Allow { .. }) => "allow (authenticated)".to_owned(),
        Ok(Decision::Redirect(redirect)) => format!("redirect ({})", redirect.parser),
        Ok(Decision::DenyDefault) => "deny (default)".to_owned(),
        Ok(Decision::DenyExplicit) => "deny (explicit)".to_owned(),
        Err(_) => "conflict".to_owned(),
    }
}

/// A decision in one or two words; of a refusal that is let through, that it is (AUD-2).
#[must_use]
pub fn describe_verdict(explained: &Explanation) -> String {
    let decision = describe_decision(&explained.decision);
    let audited = explained.outcome().is_some_and(|outcome| outcome.is_audited());
    if audited { format!("audit: passes instead of {decision}") } else { decision }
}

/// Without the verdict: `default deny: selected by … for ingress; nearest miss: … wants port 8080/TCP`.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction: Direction = self.flow.direction;
        let selected = || match self.selected_by.as_slice() {
            [] => format!("no rule selects it for {direction}"),
            [one] => format!("selected by {one} for {direction}"),
            [first, others @ ..] => format!("selected by {first} and {} more for {direction}", others.len()),
        };
        let decided = || self.decided_by().map(|decided| decided.place.to_string()).unwrap_or_default();
        match &self.reason {
            Reason::NotEnforced => write!(f, "not enforced: no rule selects the subject for {direction}"),
            Reason::Denied(_) => write!(f, "denied by {}", decided()),
            Reason::Allowed(_) => write!(f, "allowed by {}", decided()),
            Reason::Localhost => f.write_str("allowed: the node always reaches its own endpoints"),
            Reason::NoDefaultDeny => f.write_str("allowed: its rules do not deny by default"),
            Reason::NothingMatches(None) => write!(f, "default deny: {}; nothing is allowed", selected()),
            Reason::NothingMatches(Some(near)) => {
                write!(f, "default deny: {}; nearest miss: {} wants {}", selected(), near.place, near.wants)
            }
            Reason::Contradiction => match &self.decision {
                Err(conflict) => write!(f, "no policy: {conflict}"),
                Ok(_) => f.write_str("no policy"),
            },
        }
    }
}
