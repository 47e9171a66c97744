//! Peers by name: `toFQDNs` and `toServices` (VAL-30, VAL-31, SVC-1).

use super::{
    fields::{DNS, SERVICE, SERVICE_BY_LABELS, SERVICE_BY_NAME},
    located::{Findings, Located},
    selector::{self, Keys},
};
use crate::{
    l7::{
        dns_pattern::DnsUse,
        dns_rule::{DnsRule, FqdnSelector},
    },
    rule::{FqdnPeer, ServicePeer},
    selector::Selector,
};

/// An element of `toFQDNs`.
pub(super) fn fqdn(at: &Located<'_>, findings: &mut Findings) -> Option<FqdnPeer> {
    let rule = dns_rule(at, findings)?;
    for problem in rule.check(DnsUse::Address) {
        let finding = at.at_path(problem.field()).error(problem.to_string()).rule(problem.rule());
        let finding = finding.help(problem.help());
        if problem.rejected_by_cilium() { findings.add(finding) } else { findings.add_strict(finding) }
    }
    if rule == DnsRule::default() {
        let finding = at.error("has neither matchName nor matchPattern").rule("VAL-30");
        findings.add_strict(finding.help("write matchName: api.example.com"));
    }
    Some(FqdnPeer { names: FqdnSelector::compile(&rule) })
}

/// An element of `toFQDNs` or of `rules.dns`, as it is written.
pub(super) fn dns_rule(at: &Located<'_>, findings: &mut Findings) -> Option<DnsRule> {
    let fields = at.mapping(DNS, findings)?;
    Some(DnsRule {
        match_name: fields.text("matchName", findings),
        match_pattern: fields.text("matchPattern", findings),
    })
}

/// An element of `toServices`.
pub(super) fn service(at: &Located<'_>, findings: &mut Findings) -> Option<ServicePeer> {
    let fields = at.mapping(SERVICE, findings)?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    match (fields.get("k8sService"), fields.get("k8sServiceSelector")) {
        (Some(at), None) => {
            let by_name = at.mapping(SERVICE_BY_NAME, findings)?;
            let name = some(by_name.text("serviceName", findings));
            if name.is_none() {
                findings.add_strict(at.error("has no serviceName").rule("SVC-1").help("name the service"));
            }
            let namespace = some(by_name.text("namespace", findings));
            Some(ServicePeer { namespace, name: Some(name.unwrap_or_default()), labels: Selector::WILDCARD })
        }
        (None, Some(at)) => {
            let by_labels = at.mapping(SERVICE_BY_LABELS, findings)?;
            let Some(selector) = by_labels.get("selector") else {
                findings.add_strict(at.error("has no selector").rule("SVC-1").help("select services by their labels"));
                return None;
            };
            let written = selector::decode(&selector, Keys::Written, findings)?;
            let labels = written.labels.into_iter().chain(written.expressions).collect();
            Some(ServicePeer { namespace: some(by_labels.text("namespace", findings)), name: None, labels })
        }
        _ => {
            let finding = at.error("has not exactly one of k8sService and k8sServiceSelector").rule("SVC-1");
            findings.add_strict(finding.help("write one of them in each element"));
            None
        }
    }
}
