//! NetworkPolicy as rules (§4.8).

use super::{
    cidrs,
    envelope::Scope,
    fields::{KNP_EGRESS, KNP_INGRESS, KNP_PEER, KNP_SPEC, PORT, nearest},
    located::{Findings, Located, Mapping},
    ports,
    selector::{self, Keys},
};
use crate::{
    diagnostic::quoted,
    label::{NAMESPACE_KEY, SOURCE_K8S},
    rule::{Element, Peers, Port, PortNumber, PortProtocol, PortRule, Proxy, Rule, Section, Subject},
    selector::{Condition, LabelKey, Requirement, Selector},
};

/// The most entries of one `ports` list (VAL-13).
const MAX_PORTS: usize = 40;

pub(super) fn decode(at: &Located<'_>, scope: &Scope, findings: &mut Findings) -> Option<Rule> {
    let spec = at.mapping(KNP_SPEC, findings)?;
    let subject = match spec.get("podSelector") {
        Some(at) => selector::decode(&at, Keys::Of(SOURCE_K8S), findings)?,
        None if findings.as_cilium() => selector::WrittenSelector::default(),
        None => {
            let finding = spec.at.error("has no podSelector").rule("VAL-1");
            findings.add(finding.help("write podSelector: {} for every pod of the namespace"));
            return None;
        }
    };
    let types = policy_types(&spec, findings);
    // KNP-9: absent types mean ingress, and egress if there is any; `policyTypes: []` is the same.
    let (to_it, from_it) = (types.is_empty() || types.contains(&"Ingress"), types.contains(&"Egress"));
    let ingress = elements(&spec, "ingress", "from", KNP_INGRESS, scope, findings);
    let egress = elements(&spec, "egress", "to", KNP_EGRESS, scope, findings);
    for (name, listed, elements) in [("Ingress", to_it, &ingress), ("Egress", from_it, &egress)] {
        if !types.is_empty() && !listed && !elements.is_empty() {
            let message =
                format!("policyTypes leaves {name} out, and there are rules for it: they isolate all the same");
            let finding = spec.at_path("policyTypes").warning(message).rule("KNP-10");
            findings.add(finding.help(format!("add {name}, or remove the rules")));
        }
    }
    let isolates = |elements: Vec<Element>, isolated: bool, position| {
        let nothing = Element { position, peers: None, requires: Vec::new(), ports: None, authentication: None };
        let elements = if elements.is_empty() && isolated { vec![nothing] } else { elements };
        Section { allow: (!elements.is_empty()).then_some(elements), ..Section::default() }
    };
    let selector = within_namespace(subject, scope);
    let position = spec.at.node.position;
    Some(Rule {
        position,
        audit: false,
        log: None,
        subject: Subject::Endpoints(selector),
        ingress: isolates(ingress, to_it, position),
        egress: isolates(egress, from_it, position),
    })
}

fn policy_types<'a>(spec: &Mapping<'a>, findings: &mut Findings) -> Vec<&'a str> {
    let mut types = Vec::new();
    for item in spec.list("policyTypes", findings).unwrap_or_default() {
        let Some(word) = item.text(findings) else { continue };
        if !matches!(word, "Ingress" | "Egress") {
            let finding = item.error(format!("unknown policy type {}", quoted(word))).rule("KNP-9");
            let near = nearest(word, ["Ingress", "Egress"].into_iter());
            findings.add_strict(finding.help(format!("write {}", near.unwrap_or("Ingress or Egress"))));
        }
        types.push(word);
    }
    types
}

/// KNP-6, KNP-7, KNP-12: one element for each peer, with the ports of all.
fn elements(
    spec: &Mapping<'_>,
    name: &str,
    peers_name: &str,
    fields: &[&str],
    scope: &Scope,
    findings: &mut Findings,
) -> Vec<Element> {
    let mut elements = Vec::new();
    for item in spec.list(name, findings).unwrap_or_default() {
        let Some(rule) = item.mapping(fields, findings) else { continue };
        let ports = port_rules(&rule, findings);
        let element = |peers: Option<Peers>| Element {
            position: item.node.position,
            peers,
            requires: Vec::new(),
            ports: ports.clone(),
            authentication: None,
        };
        let peers = rule.list(peers_name, findings).unwrap_or_default();
        if peers.is_empty() {
            // Everyone, as a selector of endpoints: requirements count for it (REQ-1).
            elements.push(element(Some(Peers { endpoints: vec![Selector::WILDCARD], ..Peers::default() })));
        }
        elements.extend(peers.iter().filter_map(|at| peer(at, scope, findings)).map(element));
    }
    elements
}

/// One peer; `None` inside if it names nothing, which Cilium accepts.
fn peer(at: &Located<'_>, scope: &Scope, findings: &mut Findings) -> Option<Option<Peers>> {
    let fields = at.mapping(KNP_PEER, findings)?;
    let pods = fields.get("podSelector");
    let namespaces = fields.get("namespaceSelector");
    let block = fields.get("ipBlock");
    if block.is_some() && (pods.is_some() || namespaces.is_some()) {
        let finding = at.error("combines ipBlock and selectors").rule("VAL-4");
        findings.add(finding.help("write one peer for each: peers are alternatives"));
        return None;
    }
    if let Some(block) = block {
        let block = cidrs::ip_block(&block, findings)?;
        return Some(Some(Peers { cidr_sets: vec![block], ..Peers::default() }));
    }
    let pods = match pods {
        Some(at) => Some(selector::decode(&at, Keys::Of(SOURCE_K8S), findings)?),
        None => None,
    };
    let selector = match (pods, namespaces) {
        (pods, Some(at)) => {
            let of_namespace = selector::decode(&at, Keys::OfNamespace, findings)?;
            let pods = pods.unwrap_or_default();
            // Of negative expressions alone, the world and nodes would be selected, too (LBL-12).
            let negative = |requirement: &Requirement| {
                matches!(requirement.condition, Condition::NotIn(_) | Condition::DoesNotExist)
            };
            let every = of_namespace.keys().next().is_none()
                || !findings.as_cilium()
                    && of_namespace.labels.is_empty()
                    && of_namespace.expressions.iter().all(negative);
            // KNP-3: pods of every namespace, and nothing but pods.
            let any = Requirement { key: namespace_key(), condition: Condition::Exists };
            let of_namespace = of_namespace.labels.into_iter().chain(of_namespace.expressions);
            of_namespace.chain(pods.labels).chain(pods.expressions).chain(every.then_some(any)).collect()
        }
        (Some(pods), None) => within_namespace(pods, scope),
        (None, None) => {
            let finding = at.error("is an empty peer").rule("KNP-12");
            findings.add_strict(finding.help("write podSelector, namespaceSelector or ipBlock"));
            return Some(None);
        }
    };
    Some(Some(Peers { endpoints: vec![selector], ..Peers::default() }))
}

fn namespace_key() -> LabelKey {
    LabelKey::new(SOURCE_K8S, NAMESPACE_KEY)
}

fn within_namespace(written: selector::WrittenSelector, scope: &Scope) -> Selector {
    let own = if let Scope::Namespace(namespace) = scope {
        Some(Requirement::equals(namespace_key(), namespace.as_str()))
    } else {
        None
    };
    let labels = written.labels.into_iter().filter(|requirement| requirement.key != namespace_key());
    labels.chain(written.expressions).chain(own).collect()
}

/// KNP-8: none if no port is written, for every protocol.
fn port_rules(rule: &Mapping<'_>, findings: &mut Findings) -> Option<Vec<PortRule>> {
    let items = rule.list("ports", findings)?;
    if items.is_empty() {
        return None;
    }
    let one = |port: Port, position| PortRule { position, ports: vec![port], proxy: Proxy::default() };
    if items.len() > MAX_PORTS {
        // Every port becomes a list of its own in Cilium, so its limit does not apply.
        let message = format!("has {} ports: at most {MAX_PORTS} are allowed", items.len());
        findings.add_strict(rule.at_path("ports").error(message).rule("VAL-13").help("split the rule"));
    }
    let ports = items.iter().filter_map(|at| Some(one(knp_port(at, findings)?, at.node.position)));
    Some(ports.collect())
}

fn knp_port(at: &Located<'_>, findings: &mut Findings) -> Option<Port> {
    let entry = at.mapping(PORT, findings)?;
    let protocol = match entry.get("protocol") {
        Some(at) => ports::protocol(&at, findings)?,
        None => PortProtocol::Tcp,
    };
    let last: i64 = entry.get("endPort").and_then(|at| at.number(findings)).unwrap_or(0);
    let last = u16::try_from(last).unwrap_or_else(|_| {
        findings.add_strict(entry.at_path("endPort").error("is not from 0 to 65535").rule("VAL-34"));
        0
    });
    let number = match entry.get("port") {
        Some(at) => ports::parse_port(at.text_or_number(findings)?, &at, last, findings)?,
        None => PortNumber::EVERY,
    };
    Some(Port { protocol, number, end_port: last })
}
