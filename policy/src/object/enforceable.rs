//! What objects may say and nodes cannot enforce yet: such an object must not come into force, because a node that
//! left a part of it out could open what it closes.

use super::Object;
use crate::{
    diagnostic::{Diagnostic, Position},
    entity::Entity,
    rule::{CidrPeer, CidrSource, Element, Peers, PortRule, Proxy, Rule},
};

/// Everything in an object that the nodes of this version cannot enforce, with its field and its position in the
/// object's own text; empty if nodes enforce it whole.
#[must_use]
pub fn not_enforceable(object: &Object) -> Vec<Diagnostic> {
    let mut found = Found::default();
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
        for (_, denies, element) in rule.elements() {
            self.element(denies, element);
        }
    }

    fn element(&mut self, denies: bool, element: &Element) {
        if element.authentication.is_some() {
            self.add(element.position, "authentication");
        }
        if let Some(peers) = &element.peers {
            self.peers(element.position, denies, peers);
        }
        for rule in element.ports.iter().flatten() {
            self.ports(rule);
        }
    }

    fn peers(&mut self, position: Position, denies: bool, peers: &Peers) {
        let of_group = |set: &&CidrPeer| !matches!(set.source, CidrSource::Range(_));
        let lists = [
            (peers.cidr_sets.iter().filter(of_group).count(), "cidrGroupRef or cidrGroupSelector"),
            (peers.services.len(), "toServices"),
            (peers.fqdns.len(), "toFQDNs"),
            (peers.groups, "fromGroups or toGroups"),
        ];
        lists.iter().filter(|(length, _)| *length > 0).for_each(|(_, field)| self.add(position, field));
        // No record says who serves the API: allowing it allows nobody, but denying it would deny nobody, either.
        if denies && peers.entities.contains(&Entity::KubeApiserver) {
            self.add(position, "denying entity kube-apiserver");
        }
    }

    fn ports(&mut self, rule: &PortRule) {
        if rule.proxy != Proxy::default() {
            self.add(rule.position, "a rule for a proxy (rules, TLS, serverNames or listener)");
        }
    }
}
