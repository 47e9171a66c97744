//! What objects may say and nodes cannot enforce yet: such an object must not come into force, because a node that
//! left a part of it out could open what it closes.

use super::Object;
use crate::{
    diagnostic::{Diagnostic, Position},
    entity::Entity,
    rule::{Element, Peers, PortNumber, PortProtocol, PortRule, Proxy, Rule, Section, Subject},
};

/// Nodes give no address the identities of the other ones: denying them would deny nothing.
const ENTITIES: [Entity; 6] =
    [Entity::All, Entity::World, Entity::Cluster, Entity::Host, Entity::RemoteNode, Entity::None];

/// Everything in an object that the tables of this version cannot express, with its field and its position in the
/// object's own text; empty if nodes enforce it whole.
#[must_use]
pub fn not_enforceable(object: &Object) -> Vec<Diagnostic> {
    let mut found = Found::default();
    if object.audit() {
        found.add(object.position, "the annotation ringfence.io/audit");
    }
    object.rules.iter().for_each(|rule| found.rule(rule));
    found.0.sort();
    found.0.dedup();
    found.0
}

#[derive(Default)]
struct Found(Vec<Diagnostic>);

impl Found {
    fn add(&mut self, position: Position, field: &str) {
        let finding = Diagnostic::error(position, format!("{field} cannot be enforced by the nodes yet"));
        self.0.push(finding.help("it is refused because leaving it out would change what the policy does"));
    }

    fn rule(&mut self, rule: &Rule) {
        if matches!(rule.subject, Subject::Nodes(_)) {
            self.add(rule.position, "nodeSelector");
        }
        for section in [&rule.ingress, &rule.egress] {
            let Section { default_deny, .. } = section;
            if *default_deny == Some(false) {
                self.add(rule.position, "enableDefaultDeny: false");
            }
        }
        for (_, _, element) in rule.elements() {
            self.element(element);
        }
    }

    fn element(&mut self, element: &Element) {
        if !element.requires.is_empty() {
            self.add(element.position, "fromRequires or toRequires");
        }
        if element.authentication.is_some() {
            self.add(element.position, "authentication");
        }
        if let Some(peers) = &element.peers {
            self.peers(element.position, peers);
        }
        for rule in element.ports.iter().flatten() {
            self.ports(rule);
        }
    }

    fn peers(&mut self, position: Position, peers: &Peers) {
        let lists = [
            (peers.cidrs.len(), "fromCIDR or toCIDR"),
            (peers.cidr_sets.len(), "an address range (fromCIDRSet, toCIDRSet or ipBlock)"),
            (peers.nodes.len(), "fromNodes or toNodes"),
            (peers.services.len(), "toServices"),
            (peers.fqdns.len(), "toFQDNs"),
            (peers.groups, "fromGroups or toGroups"),
        ];
        lists.iter().filter(|(length, _)| *length > 0).for_each(|(_, field)| self.add(position, field));
        for entity in peers.entities.iter().filter(|entity| !ENTITIES.contains(entity)) {
            self.add(position, &format!("entity {entity}"));
        }
    }

    fn ports(&mut self, rule: &PortRule) {
        if rule.proxy != Proxy::default() {
            self.add(rule.position, "a rule for a proxy (rules, TLS, serverNames or listener)");
        }
        for port in &rule.ports {
            if matches!(port.protocol, PortProtocol::Icmp | PortProtocol::Icmpv6) {
                self.add(rule.position, "icmps");
            }
            match port.number {
                PortNumber::Named { .. } => self.add(rule.position, "the name of a port"),
                PortNumber::EVERY => self.add(rule.position, "every port of a protocol (port 0)"),
                PortNumber::Range { first, last } if first != last => {
                    self.add(rule.position, "a range of ports (endPort)");
                }
                PortNumber::Range { .. } => {}
            }
        }
    }
}
