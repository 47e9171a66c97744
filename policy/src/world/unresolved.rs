//! Names in rules that stand for nothing, or for several things, at the moment.

use super::World;
use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    flow::Direction,
    rule::{Element, PortNumber, Proxy, Rule},
};

impl World {
    /// What somebody should look at: rules that do not do yet what they say, with their positions in their object's
    /// text. Nothing that is closed is open because of them.
    #[must_use]
    pub fn unresolved<'r>(&self, rules: impl IntoIterator<Item = &'r Rule>) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        for (direction, denies, element) in rules.into_iter().flat_map(Rule::elements) {
            self.services_of(element, denies, &mut findings);
            self.ports_of(direction, element, &mut findings);
            self.secrets_of(element, &mut findings);
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// SVC-5.
    fn services_of(&self, element: &Element, denies: bool, findings: &mut Vec<Diagnostic>) {
        let means = match (denies, &element.ports) {
            (false, _) | (true, None) => "nobody is selected",
            (true, Some(_)) => "everyone is denied on these ports",
        };
        for service in element.peers.iter().flat_map(|peers| &peers.services) {
            let name = service.name.as_deref().unwrap_or("with these labels");
            if !self.has_service(service) {
                let message = format!("there is no service {name}, so {means}");
                findings.push(warning(element.position, "SVC-5", message, "create it, or correct the reference"));
            } else if self.backends(service).next().is_none() {
                let message = format!("nobody is behind service {name}, so nobody is selected");
                findings.push(warning(element.position, "SVC-3", message, "give it endpoints"));
            }
        }
    }

    /// CONF-6.
    fn secrets_of(&self, element: &Element, findings: &mut Vec<Diagnostic>) {
        let Some(secrets) = &self.tls_secrets else { return };
        for rule in element.ports.iter().flatten() {
            let Proxy { terminating_tls, originating_tls, .. } = &rule.proxy;
            for (context, terminating) in [(terminating_tls, true), (originating_tls, false)] {
                let Some(context) = context else { continue };
                if let Some(item) = secrets.missing(context, terminating) {
                    let message = format!("secret {}/{} has no item {item}", context.namespace, context.name);
                    let help = "until it has one, no policy can be worked out for whom the rule selects";
                    findings.push(warning(rule.position, "CONF-6", message, help));
                }
            }
        }
    }

    /// PORT-4.
    fn ports_of(&self, direction: Direction, element: &Element, findings: &mut Vec<Diagnostic>) {
        for rule in element.ports.iter().flatten() {
            for port in &rule.ports {
                let PortNumber::Named { name, .. } = &port.number else { continue };
                let numbers = port.protocol.numbers().iter().map(|protocol| self.ports(direction, name, *protocol));
                let numbers: Vec<_> = numbers.filter(|numbers| !numbers.is_empty()).collect();
                let (message, help) = if numbers.is_empty() {
                    (format!("no port is called {name} for this protocol"), "declare it on the workload")
                } else if numbers.iter().any(|numbers| numbers.len() > 1) {
                    (format!("peers call different ports {name}"), "write the number")
                } else {
                    continue;
                };
                findings.push(warning(rule.position, "PORT-4", message, help));
            }
        }
    }
}

fn warning(position: Position, rule: &'static str, message: String, help: &str) -> Diagnostic {
    Diagnostic { severity: Severity::Warning, ..Diagnostic::error(position, message).rule(rule).help(help) }
}
