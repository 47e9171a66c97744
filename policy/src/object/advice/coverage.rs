//! Elements that do nothing, because others of the same object say more about the same peers and ports.
//!
//! Only what is certain counts: the peers of one element cover another's if each alternative of the latter is written, or
//! is part of what is written, in the former.

use super::warning;
use crate::{
    cidr::Cidr,
    diagnostic::Diagnostic,
    entity::Entity,
    flow::{Direction, protocol},
    rule::{CidrPeer, CidrSource, Element, Parser, Peers, Port, PortNumber, PortRule, Rule},
    selector::Selector,
};

/// SEM-43 and L7-3, over all rules for the same subject.
pub(super) fn of(rules: &[Rule], advice: &mut Vec<Diagnostic>) {
    for (index, first) in rules.iter().enumerate() {
        if rules[..index].iter().any(|rule| rule.subject == first.subject) {
            continue;
        }
        let same: Vec<&Rule> = rules.iter().filter(|rule| rule.subject == first.subject).collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            let sections = same.iter().map(|rule| rule.section(direction));
            let (allow, deny): (Vec<_>, Vec<_>) = sections.map(|section| (&section.allow, &section.deny)).unzip();
            let allowed: Vec<&Element> = allow.into_iter().flatten().flatten().collect();
            let denied: Vec<&Element> = deny.into_iter().flatten().flatten().collect();
            shadowed(&allowed, &denied, advice);
            unread(&allowed, advice);
        }
    }
}

/// SEM-43: what is denied cannot be allowed.
fn shadowed(allowed: &[&Element], denied: &[&Element], advice: &mut Vec<Diagnostic>) {
    // REQ-1: requirements narrow every deny.
    if denied.iter().any(|element| !element.requires.is_empty()) {
        return;
    }
    for element in allowed {
        let covering = denied.iter().find(|denied| {
            peers_cover(denied, element) && ports_cover(denied.ports.as_deref(), element.ports.as_deref())
        });
        if let Some(denied) = covering {
            let message = format!("all that it allows is denied at {}, so it allows nothing", denied.position);
            advice.push(warning(element.position, "SEM-43", message, "deny only the peers and ports that are meant"));
        }
    }
}

/// L7-3: rules for a proxy mean nothing where the same peers and ports are allowed without any.
fn unread(allowed: &[&Element], advice: &mut Vec<Diagnostic>) {
    for element in allowed {
        for rule in element.ports.iter().flatten().filter(|rule| rule.proxy.rules.is_some()) {
            let lifts = |other: &&&Element| peers_cover(other, element) && lifts(other, rule);
            if let Some(other) = allowed.iter().find(lifts) {
                let message =
                    format!("the element at {} allows the same without rules, so these refuse nothing", other.position);
                advice.push(warning(
                    rule.position,
                    "L7-3",
                    message,
                    "remove the other element, or give it rules as well",
                ));
            }
        }
    }
}

/// Whether an element allows everything on the ports of a rule that a proxy reads.
fn lifts(other: &Element, rule: &PortRule) -> bool {
    let plain = |other: &&PortRule| other.proxy.passes_everything();
    let is_dns = rule.proxy.parser(protocol::UDP) == Some(Parser::Dns);
    match &other.ports {
        // L7-5: names are lifted by exactly the same ports only.
        None => !is_dns,
        Some(ports) if is_dns => {
            let same = |port: &Port| ports.iter().filter(plain).any(|other| other.ports.contains(port));
            !rule.ports.is_empty() && rule.ports.iter().all(same)
        }
        Some(ports) => covered(&ports.iter().filter(plain), std::iter::once(rule)),
    }
}

fn ports_cover(own: Option<&[PortRule]>, other: Option<&[PortRule]>) -> bool {
    let (Some(own), Some(other)) = (own, other) else { return own.is_none() };
    covered(&own.iter(), other.iter())
}

/// Whether some rules are for every port that others are for, of which there is one.
fn covered<'r>(own: &(impl Iterator<Item = &'r PortRule> + Clone), other: impl Iterator<Item = &'r PortRule>) -> bool {
    let covers = |number: u8, port: &Port| {
        let mut own = own.clone().flat_map(|rule| &rule.ports);
        own.any(|own| own.protocol.numbers().contains(&number) && number_covers(&own.number, &port.number))
    };
    let covered = |port: &Port| port.protocol.numbers().iter().all(|number| covers(*number, port));
    let mut ports = other.flat_map(|rule| &rule.ports).peekable();
    ports.peek().is_some() && ports.all(covered)
}

fn number_covers(own: &PortNumber, other: &PortNumber) -> bool {
    match (own, other) {
        (PortNumber::Range { first, last }, PortNumber::Range { first: from, last: to }) => first <= from && to <= last,
        (own, other) => own == other || *own == PortNumber::EVERY,
    }
}

/// Whether whoever the second element means is meant by the first, too.
fn peers_cover(own: &Element, other: &Element) -> bool {
    let everyone =
        |element: &Element| element.peers.is_none() && element.requires.is_empty() && element.ports.is_some();
    if everyone(own) || own.peers.as_ref().is_some_and(|peers| peers.entities.contains(&Entity::All)) {
        return true;
    }
    let (Some(own), Some(other)) = (&own.peers, &other.peers) else { return false };
    let closed = |peers: &Peers| peers.is_empty() || peers.empty_selectors || peers.empty_ranges || peers.groups > 0;
    !closed(own)
        && !closed(other)
        && other.endpoints.iter().all(|selector| selected(&own.endpoints, selector))
        && other.nodes.iter().all(|selector| selected(&own.nodes, selector))
        && other.entities.iter().all(|entity| entity_covered(own, *entity))
        && other.cidrs.iter().all(|range| range_covered(own, *range))
        && other.cidr_sets.iter().all(|set| set_covered(own, set))
        && other.services.iter().all(|service| own.services.contains(service))
        && other.fqdns.iter().all(|name| own.fqdns.contains(name) || of_the_world(own))
}

/// Whether one of some selectors requires no more than another one does.
fn selected(own: &[Selector], other: &Selector) -> bool {
    own.iter().any(|own| own.requirements().all(|one| other.requirements().any(|other| one == other)))
}

fn entity_covered(own: &Peers, entity: Entity) -> bool {
    let family = matches!(entity, Entity::WorldIpv4 | Entity::WorldIpv6);
    own.entities.contains(&entity) || family && of_the_world(own)
}

fn range_covered(own: &Peers, range: Cidr) -> bool {
    let whole =
        |set: &CidrPeer| matches!(&set.source, CidrSource::Range(own) if own.covers(&range)) && set.except.is_empty();
    of_the_world(own) || own.cidrs.iter().any(|own| own.covers(&range)) || own.cidr_sets.iter().any(whole)
}

fn set_covered(own: &Peers, set: &CidrPeer) -> bool {
    own.cidr_sets.contains(set) || matches!(&set.source, CidrSource::Range(range) if range_covered(own, *range))
}

/// ID-22: ranges and names are of the world. (Where they may mean nodes, that is more than the world; ID-23.)
fn of_the_world(own: &Peers) -> bool {
    own.entities.contains(&Entity::World)
}
