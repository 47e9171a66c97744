//! What stands beside `ports`: rules for a proxy, TLS contexts, server names, a listener (VAL-19 … VAL-34).

use super::{
    envelope::Scope,
    fields::{ENVOY_CONFIG, LISTENER, TLS},
    located::{Findings, Located, Mapping},
    rules,
    spec::{ElementKind, SpecContext},
};
use crate::{
    diagnostic::quoted,
    l7::{
        advice,
        rules::{InvalidL7Rules, L7Rules, Place, PlacePort},
    },
    rule::{Listener, Port, PortNumber, PortProtocol, Proxy, TlsContext},
};

/// The worst priority of a listener (VAL-34).
const MAX_PRIORITY: i64 = 100;

pub(super) fn decode(
    entry: &Mapping<'_>,
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) -> Proxy {
    let written = entry.get("rules").and_then(|at| rules::decode(&at, findings));
    if let Some(rules) = &written {
        check_rules(rules, entry, kind, findings);
    }
    Proxy {
        rules: written.filter(|rules| !rules.is_empty()),
        terminating_tls: entry.get("terminatingTLS").and_then(|at| tls(&at, findings)),
        originating_tls: entry.get("originatingTLS").and_then(|at| tls(&at, findings)),
        server_names: entry.texts("serverNames", findings).unwrap_or_default().into_iter().collect(),
        listener: entry.get("listener").and_then(|at| listener(&at, context, findings)),
    }
}

/// What is wrong with rules by themselves, then what is legal and probably not meant.
fn check_rules(rules: &L7Rules, entry: &Mapping<'_>, kind: &ElementKind, findings: &mut Findings) {
    let problems = rules.check();
    if problems.is_empty() {
        for (index, rule) in rules.http.iter().flatten().enumerate() {
            let at = entry.at_path(&format!("rules.http[{index}]"));
            for advice in advice::on_http(rule) {
                findings.add(at.warning(advice.to_string()).rule(advice.rule()).help(advice.help()));
            }
        }
        for (index, advice) in advice::on_kafka(rules.kafka.as_deref().unwrap_or_default()) {
            let at = entry.at_path(&format!("rules.kafka[{index}]"));
            findings.add(at.warning(advice.to_string()).rule(advice.rule()).help(advice.help()));
        }
        for (index, rule) in rules.dns.iter().flatten().enumerate() {
            let at = entry.at_path(&format!("rules.dns[{index}]"));
            for advice in advice::on_dns(rule) {
                findings.add(at.warning(advice.to_string()).rule(advice.rule()).help(advice.help()));
            }
        }
    }
    debug_assert!(!kind.denies, "deny rules have no place for these");
    problems.iter().for_each(|problem| add(problem, entry, findings));
}

/// What must be known about the ports before rules are right at this place.
pub(super) fn check_place(
    entry: &Mapping<'_>,
    proxy: &Proxy,
    ports: &[Port],
    kind: &ElementKind,
    context: &SpecContext<'_>,
    findings: &mut Findings,
) {
    let place_port = |port: &Port| {
        let (number, end_port) = match port.number {
            PortNumber::EVERY => (Some(0), 0),
            PortNumber::Range { first, last } => (Some(first), if last > first { last } else { 0 }),
            PortNumber::Named { last, .. } => (None, last),
        };
        PlacePort { number, end_port, tcp: port.protocol == PortProtocol::Tcp }
    };
    let ports: Vec<PlacePort> = ports.iter().map(place_port).collect();
    let server_names: Vec<String> = proxy.server_names.iter().cloned().collect();
    let place = Place {
        direction: kind.direction,
        host_subject: context.selects_nodes,
        proxy_enabled: true,
        ports: &ports,
        server_names: &server_names,
        terminates_tls: proxy.terminating_tls.is_some(),
        listener: proxy.listener.is_some(),
    };
    place.check(proxy.rules.as_ref()).iter().for_each(|problem| add(problem, entry, findings));
}

fn add(problem: &InvalidL7Rules, entry: &Mapping<'_>, findings: &mut Findings) {
    let at = entry.at_path(&problem.field());
    let finding = at.error(problem.to_string()).rule(problem.rule()).help(problem.help());
    if problem.rejected_by_cilium() { findings.add(finding) } else { findings.add_strict(finding) }
}

/// `terminatingTLS` and `originatingTLS` (TLS-3).
fn tls(at: &Located<'_>, findings: &mut Findings) -> Option<TlsContext> {
    let fields = at.mapping(TLS, findings)?;
    let secret = fields.get("secret").and_then(|at| rules::secret(&at, findings));
    if secret.as_ref().is_none_or(|secret| secret.name.is_empty()) {
        let finding = at.error("names no secret").rule("VAL-34");
        findings.add_strict(finding.help("write secret: {namespace: …, name: …}"));
    }
    let items = ["trustedCA", "certificate", "privateKey"].map(|item| fields.text(item, findings));
    let secret = secret.unwrap_or_default();
    Some(TlsContext { namespace: secret.namespace, name: secret.name, items })
}

/// LSN-1.
fn listener(at: &Located<'_>, context: &SpecContext<'_>, findings: &mut Findings) -> Option<Listener> {
    let fields = at.mapping(LISTENER, findings)?;
    let name = fields.text("name", findings);
    let config = fields.get("envoyConfig").and_then(|at| at.mapping(ENVOY_CONFIG, findings));
    let Some(config) = config else {
        findings.add_strict(at.error("has no envoyConfig").rule("VAL-34").help("name the configuration it is in"));
        return None;
    };
    let (kind, config_name) = (config.text("kind", findings), config.text("name", findings));
    let namespace = match (kind.as_str(), context.scope) {
        ("CiliumEnvoyConfig", Scope::Namespace(namespace)) => Some(namespace.to_string()),
        ("CiliumEnvoyConfig", Scope::Clusterwide) => {
            let finding = config.at.error("is in a namespace, and this object is not").rule("VAL-29");
            findings.add_strict(finding.help("use kind CiliumClusterwideEnvoyConfig"));
            None
        }
        ("CiliumClusterwideEnvoyConfig", _) => Some(String::new()),
        (other, _) => {
            let finding = config.at_path("kind").error(format!("unknown kind {}", quoted(other))).rule("VAL-34");
            findings.add_strict(finding.help("write CiliumEnvoyConfig or CiliumClusterwideEnvoyConfig"));
            Some(String::new())
        }
    };
    if name.is_empty() || config_name.is_empty() {
        findings.add_strict(at.error("has an empty name").rule("VAL-34").help("name the listener and its envoyConfig"));
    }
    let priority: i64 = fields.get("priority").and_then(|at| at.number(findings)).unwrap_or(0);
    if !(0..=MAX_PRIORITY).contains(&priority) {
        let finding = fields.at_path("priority").error("is not from 1 to 100").rule("VAL-34");
        findings.add_strict(finding.help("1 is the best, 100 the worst"));
    }
    Some(Listener {
        out_of_reach: namespace.is_none(),
        name: format!("{}/{config_name}/{name}", namespace.unwrap_or_default()),
        priority: u8::try_from(priority.clamp(0, MAX_PRIORITY)).unwrap_or(0),
    })
}
