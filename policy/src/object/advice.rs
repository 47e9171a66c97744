//! What is legal in an object as a whole and probably does not do what its author means.

mod coverage;
mod peers;

pub(super) use peers::{contradictory, on_selector};

use super::located::Findings;
use crate::{
    compat::Compat,
    diagnostic::{Diagnostic, Position, Severity},
    entity::Entity,
    evaluate::contradiction,
    flow::{Direction, protocol},
    l7::{dns_name::DnsName, dns_rule::DnsRule},
    rule::{CidrPeer, CidrSource, Element, Peers, Port, PortNumber, Proxy, Rule, Section},
};

/// The port of DNS servers.
const DNS_PORT: u16 = 53;
/// Where a cluster's DNS servers listen that may not use the usual one.
const OTHER_DNS_PORT: u16 = 5353;
/// Elements are compared with each other up to this many; nobody reads more advice than that.
const MAX_COMPARED: usize = 500;

/// Everything worth saying about the rules of one object that has no errors.
pub(super) fn on(rules: &[Rule], findings: &mut Findings) {
    let mut advice = Vec::new();
    for rule in rules {
        for section in [&rule.ingress, &rule.egress] {
            empty_lists(rule.position, section, &mut advice);
            asked_for(rule.position, section, &mut advice);
            denies_only(rule.position, section, &mut advice);
            world_denied(section, &mut advice);
            if length(section) <= MAX_COMPARED {
                excepted_elsewhere(section, &mut advice);
            }
        }
        required(rule, &mut advice);
        visibility_only(rule, &mut advice);
        no_dns_server(rule, &mut advice);
    }
    if rules.iter().flat_map(|rule| [&rule.ingress, &rule.egress]).map(length).sum::<usize>() <= MAX_COMPARED {
        coverage::of(rules, &mut advice);
        contradictions(rules, &mut advice);
    }
    dns_off_its_port(rules, &mut advice);
    names_never_learnt(rules, &mut advice);
    if rules.iter().map(|rule| length(&rule.egress)).sum::<usize>() <= MAX_COMPARED {
        names_never_reached(rules, &mut advice);
    }
    advice.sort();
    advice.dedup();
    advice.into_iter().for_each(|finding| findings.add(finding));
}

fn warning(position: Position, rule: &'static str, message: impl Into<String>, help: &str) -> Diagnostic {
    let severity = Severity::Warning;
    Diagnostic { severity, ..Diagnostic::error(position, message).rule(rule).help(help) }
}

/// How much there is to compare in a section.
fn length(section: &Section) -> usize {
    let elements = section.allow.iter().chain(&section.deny).flatten();
    let of_peers = |peers: &Peers| {
        let lists = peers.fqdns.len() + peers.cidrs.len() + peers.endpoints.len();
        lists + peers.cidr_sets.iter().map(|set| 1 + set.except.len()).sum::<usize>()
    };
    let of_rules = |element: &Element| {
        let ports = element.ports.iter().flatten().map(|rule| rule.ports.len()).sum::<usize>();
        ports + proxies(element).flat_map(dns_rules).count()
    };
    elements.map(|element| 1 + element.peers.as_ref().map_or(0, of_peers) + of_rules(element)).sum()
}

/// SEM-2: Cilium takes these lists for absent.
fn empty_lists(position: Position, section: &Section, advice: &mut Vec<Diagnostic>) {
    let written = section.allow.is_some() || section.deny.is_some();
    if written && !section.has_content(Compat::Cilium) {
        let message = "a list that is written and empty isolates the direction here, and does nothing in Cilium";
        advice.push(warning(position, "SEM-2", message, "write [{}] to isolate it everywhere, or remove the list"));
    }
}

/// SEM-6: Cilium looks at it only beside rules.
fn asked_for(position: Position, section: &Section, advice: &mut Vec<Diagnostic>) {
    if section.default_deny == Some(true) && section.allow.is_none() && section.deny.is_none() {
        let message = "enableDefaultDeny without rules isolates the direction here, and does nothing in Cilium";
        advice.push(warning(position, "SEM-6", message, "write [{}] as its list to isolate it everywhere"));
    }
}

/// SEM-8: without a list of what is allowed, everything else is refused, too.
fn denies_only(position: Position, section: &Section, advice: &mut Vec<Diagnostic>) {
    let filled = |list: &Option<Vec<Element>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if filled(&section.deny) && !filled(&section.allow) && section.default_deny.is_none() {
        let message = "it has deny rules only, and refuses everything that no other object allows";
        let help = "to change nothing else, write enableDefaultDeny: {ingress: false, egress: false}";
        advice.push(warning(position, "SEM-8", message, help));
    }
}

/// VAL-26: servers answer on port 53, and policies see the port behind a service (PORT-1).
fn dns_off_its_port(rules: &[Rule], advice: &mut Vec<Diagnostic>) {
    for element in rules.iter().flat_map(|rule| rule.egress.allow.iter().flatten()) {
        for rule in element.ports.iter().flatten().filter(|rule| dns_rules(&rule.proxy).next().is_some()) {
            let usual =
                |port: &Port| [DNS_PORT, OTHER_DNS_PORT].iter().any(|number| covers(port, protocol::UDP, *number));
            if !rule.ports.iter().any(usual) {
                let message = "DNS queries are read on these ports only, and DNS servers are asked on port 53 over UDP";
                advice.push(warning(rule.position, "VAL-26", message, "write {port: \"53\", protocol: ANY}"));
            }
        }
    }
}

/// CONF: elements that meet in whatever the object selects.
fn contradictions(rules: &[Rule], advice: &mut Vec<Diagnostic>) {
    // Only proxies and authentication contradict each other, and most objects have neither.
    let plain = |element: &Element| {
        element.authentication.is_none() && proxies(element).all(|proxy| *proxy == Proxy::default())
    };
    if rules.iter().flat_map(Rule::elements).all(|(_, _, element)| plain(element)) {
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        let same: Vec<&Rule> = rules[..=index].iter().filter(|other| other.subject == rule.subject).collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            // The rule that brings the contradiction is the one to name.
            let before = || contradiction(&same[..same.len() - 1], direction);
            if let Some(conflict) = contradiction(&same, direction)
                && before().is_none()
            {
                let message = format!("its {direction} rules contradict each other: {conflict}");
                let help = "no policy can be worked out for whom it selects, and nodes keep what they have: change one";
                advice.push(warning(rule.position, conflict.rule(), message, help));
            }
        }
    }
}

/// DENY-9.
fn world_denied(section: &Section, advice: &mut Vec<Diagnostic>) {
    let world = |peers: &Peers| peers.entities.contains(&Entity::World);
    for denied in section.deny.iter().flatten().filter(|element| element.peers.as_ref().is_some_and(world)) {
        let message = "denying world denies every address range and DNS name, too, whatever else allows them";
        advice.push(warning(denied.position, "DENY-9", message, "leave world out: what nothing allows is refused"));
    }
}

/// DENY-8: an exception narrows its own element and denies nothing.
fn excepted_elsewhere(section: &Section, advice: &mut Vec<Diagnostic>) {
    let elements: Vec<&Element> = section.allow.iter().flatten().collect();
    for (index, element) in elements.iter().enumerate() {
        let sets = element.peers.iter().flat_map(|peers| &peers.cidr_sets);
        let excepted = sets.flat_map(|set| &set.except);
        let others = || elements.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, other)| other);
        let elsewhere = |range| others().any(|other| other.peers.as_ref().is_some_and(|peers| allows(peers, range)));
        if let Some(range) = excepted.copied().find(|range| elsewhere(*range)) {
            let message = format!("another element allows addresses in {range}, which is excepted here");
            advice.push(warning(
                element.position,
                "DENY-8",
                message,
                "an exception denies nothing: to deny, use a deny list",
            ));
        }
    }
}

/// Whether peers include addresses of a range.
fn allows(peers: &Peers, range: crate::cidr::Cidr) -> bool {
    let world = peers.entities.iter().any(|entity| matches!(entity, Entity::All | Entity::World));
    let within =
        |set: &CidrPeer| matches!(&set.source, CidrSource::Range(own) if own.covers(&range)) && set.except.is_empty();
    world || peers.cidrs.iter().any(|own| own.covers(&range)) || peers.cidr_sets.iter().any(within)
}

/// REQ-2: the documentation says more than the lists do.
fn required(rule: &Rule, advice: &mut Vec<Diagnostic>) {
    for (_, _, element) in rule.elements().filter(|(_, _, element)| !element.requires.is_empty()) {
        let message = "requirements restrict selectors of endpoints only, not entities, addresses or ports";
        advice.push(warning(element.position, "REQ-2", message, "write the labels into each selector"));
    }
}

/// SEM-3: a rule that only lets DNS queries be seen refuses everything else.
fn visibility_only(rule: &Rule, advice: &mut Vec<Diagnostic>) {
    let elements = rule.egress.allow.iter().flatten();
    let every_query = |rule: &DnsRule| rule.match_pattern.trim() == "*";
    let sees_all = |element: &Element| {
        let mut proxies = proxies(element).peekable();
        proxies.peek().is_some() && proxies.all(|proxy| dns_rules(proxy).any(every_query))
    };
    if rule.egress.default_deny.is_none() && elements.clone().next().is_some() && elements.clone().all(sees_all) {
        let message = "it lets DNS queries be seen, and refuses all other egress";
        let help = "to change nothing else, write enableDefaultDeny: {egress: false}";
        advice.push(warning(rule.position, "SEM-3", message, help));
    }
}

/// Egress by port without a way to a DNS server.
fn no_dns_server(rule: &Rule, advice: &mut Vec<Diagnostic>) {
    let elements: Vec<&Element> = rule.egress.allow.iter().flatten().collect();
    let by_port = |element: &&Element| element.ports.iter().flatten().any(|rule| !rule.ports.is_empty());
    let isolates = rule.egress.denies_by_default() && !elements.is_empty() && elements.iter().all(by_port);
    let reaches_dns = |element: &&Element| {
        element.ports.iter().flatten().flat_map(|rule| &rule.ports).any(|port| covers(port, protocol::UDP, DNS_PORT))
    };
    if isolates && !elements.iter().any(reaches_dns) {
        let message = "nothing in it allows DNS, so names cannot be resolved unless another object allows it";
        advice.push(warning(rule.position, "FQDN-7", message, "allow port 53 to the DNS servers"));
    }
}

fn covers(port: &Port, protocol: u8, number: u16) -> bool {
    let within = match &port.number {
        PortNumber::Range { first, last } => (*first..=*last).contains(&number),
        PortNumber::Named { name, .. } => name.contains("dns") || name == "domain",
    };
    within && port.protocol.numbers().contains(&protocol)
}

/// FQDN-6: without a rule for queries nothing learns the addresses of names.
fn names_never_learnt(rules: &[Rule], advice: &mut Vec<Diagnostic>) {
    if rules.iter().any(|rule| queries(rule).next().is_some()) {
        return;
    }
    for element in rules.iter().flat_map(|rule| rule.egress.allow.iter().flatten()) {
        if element.peers.as_ref().is_some_and(|peers| !peers.fqdns.is_empty()) {
            let message = "no rule of the object reads DNS queries, so the addresses of these names are never learnt";
            let help = "add rules: {dns: [{matchPattern: \"*\"}]} to the element that allows the DNS servers";
            advice.push(warning(element.position, "FQDN-6", message, help));
        }
    }
}

/// Names that may be asked for, and are not the names that may be reached.
fn names_never_reached(rules: &[Rule], advice: &mut Vec<Diagnostic>) {
    let elements = || rules.iter().flat_map(|rule| rule.egress.allow.iter().flatten());
    let peers: Vec<&Peers> = elements().filter_map(|element| element.peers.as_ref()).collect();
    let reached: Vec<_> = peers.iter().flat_map(|peers| &peers.fqdns).filter_map(|fqdn| fqdn.names.as_ref()).collect();
    if reached.is_empty() || peers.iter().any(|peers| allows_world(peers)) {
        return;
    }
    let is_reached = |query: &DnsRule| {
        let name = query.match_name.is_empty() || {
            let name = DnsName::new(&query.match_name);
            reached.iter().any(|names| names.selects(&name))
        };
        let pattern = matches!(query.match_pattern.trim(), "" | "*");
        name && (pattern || reached.iter().any(|names| names.label().eq_ignore_ascii_case(&query.match_pattern)))
    };
    for element in elements() {
        for query in proxies(element).flat_map(dns_rules).filter(|query| !is_reached(query)) {
            let asked = if query.match_name.is_empty() { &query.match_pattern } else { &query.match_name };
            let message = format!("{asked} may be asked for, and toFQDNs does not reach all of it");
            advice.push(warning(element.position, "FQDN-7", message, "add it to toFQDNs if it is to be reached"));
        }
    }
}

fn allows_world(peers: &Peers) -> bool {
    peers.entities.iter().any(|entity| matches!(entity, Entity::All | Entity::World))
}

/// Every DNS rule for egress.
fn queries(rule: &Rule) -> impl Iterator<Item = &DnsRule> {
    rule.egress.allow.iter().flatten().flat_map(proxies).flat_map(dns_rules)
}

fn proxies(element: &Element) -> impl Iterator<Item = &Proxy> {
    element.ports.iter().flatten().map(|rule| &rule.proxy)
}

fn dns_rules(proxy: &Proxy) -> impl Iterator<Item = &DnsRule> {
    proxy.rules.iter().filter_map(|rules| rules.dns.as_ref()).flatten()
}
