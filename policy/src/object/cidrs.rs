//! Ranges of addresses (VAL-8 … VAL-12).

use std::net::IpAddr;

use super::{
    fields::{CIDR_SET, IP_BLOCK},
    located::{Findings, Located, Mapping},
    selector::{self, Keys},
};
use crate::{
    cidr::Cidr,
    diagnostic::quoted,
    label::SOURCE_CIDR_GROUP,
    rule::{CidrPeer, CidrSource},
    selector::{Condition, Selector},
};

/// An element of `fromCIDR` or `toCIDR`: a range or an address (VAL-8).
pub(super) fn range(at: &Located<'_>, findings: &mut Findings) -> Option<Cidr> {
    let text = at.text(findings)?;
    let range = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Cidr::host));
    if range.is_none() {
        let finding = at.error(format!("{} is neither a range nor an address", quoted(text))).rule("VAL-8");
        findings.add(finding.help("write it like 10.1.0.0/16, fd00:1::/64 or 192.0.2.1"));
    }
    range
}

/// An element of a CIDRSet (VAL-9 … VAL-12).
pub(super) fn set(at: &Located<'_>, findings: &mut Findings) -> Option<CidrPeer> {
    let fields = at.mapping(CIDR_SET, findings)?;
    let range = fields.get("cidr").filter(|at| !is_empty_text(at));
    let group = fields.get("cidrGroupRef").filter(|at| !is_empty_text(at));
    let labels = fields.get("cidrGroupSelector");
    let written = [("cidr", &range), ("cidrGroupRef", &group), ("cidrGroupSelector", &labels)];
    let written: Vec<&str> = written.iter().filter(|(_, at)| at.is_some()).map(|(name, _)| *name).collect();
    if written.len() != 1 {
        let message = match written.as_slice() {
            [] => "has no cidr, cidrGroupRef or cidrGroupSelector".to_owned(),
            several => format!("combines {}", several.join(" and ")),
        };
        findings.add(at.error(message).rule("VAL-9").help("write exactly one of them in each element"));
    }
    let source = if let Some(at) = range {
        prefix(&at, "VAL-10", findings).map(CidrSource::Range)
    } else if let Some(at) = group {
        at.text(findings).map(|name| CidrSource::Group(name.to_owned()))
    } else {
        labels.and_then(|at| group_selector(&at, findings)).map(CidrSource::Selected)
    };
    with_exceptions(&fields, source, findings)
}

/// `ipBlock` of a NetworkPolicy (KNP-5).
pub(super) fn ip_block(at: &Located<'_>, findings: &mut Findings) -> Option<CidrPeer> {
    let fields = at.mapping(IP_BLOCK, findings)?;
    let source = match fields.get("cidr").filter(|at| !is_empty_text(at)) {
        Some(at) => prefix(&at, "VAL-10", findings).map(CidrSource::Range),
        None => {
            findings.add(at.error("has no cidr").rule("VAL-9").help("write cidr: 10.1.0.0/16"));
            None
        }
    };
    with_exceptions(&fields, source, findings)
}

fn with_exceptions(fields: &Mapping<'_>, source: Option<CidrSource>, findings: &mut Findings) -> Option<CidrPeer> {
    let within = if let Some(CidrSource::Range(range)) = &source { Some(*range) } else { None };
    let mut except = std::collections::BTreeSet::new();
    for at in fields.list("except", findings).unwrap_or_default() {
        let Some(range) = prefix(&at, "VAL-11", findings) else { continue };
        // VAL-12: beside a group anything goes.
        if let Some(within) = within
            && !within.contains(base(&at).unwrap_or(range.address()))
        {
            let finding = at.error(format!("{range} is not inside {within}")).rule("VAL-11");
            findings.add(finding.help("an exception takes away from the range of the same element only"));
        }
        except.insert(range);
    }
    Some(CidrPeer { source: source?, except })
}

/// The address before the slash, as it is written.
fn base(at: &Located<'_>) -> Option<IpAddr> {
    let mut nothing = Findings::new(crate::compat::Compat::default());
    at.text(&mut nothing)?.split_once('/')?.0.parse().ok()
}

/// A range with a prefix length: an address alone is refused here.
fn prefix(at: &Located<'_>, rule: &'static str, findings: &mut Findings) -> Option<Cidr> {
    let text = at.text(findings)?;
    let range = text.parse().ok();
    if range.is_none() {
        let finding = at.error(format!("{} is not a range", quoted(text))).rule(rule);
        let help = match text.parse::<IpAddr>() {
            Ok(address) => format!("write {}", Cidr::host(address)),
            Err(_) => "write it like 10.1.0.0/16 or fd00:1::/64".to_owned(),
        };
        findings.add(finding.help(help));
    }
    range
}

/// GRP-2. One that requires no label selects far more than groups in Cilium, so it is refused.
fn group_selector(at: &Located<'_>, findings: &mut Findings) -> Option<Selector> {
    let written = selector::decode(at, Keys::Of(SOURCE_CIDR_GROUP), findings)?;
    let selector: Selector = written.labels.into_iter().chain(written.expressions).collect();
    let positive = |condition: &Condition| matches!(condition, Condition::Is(_) | Condition::In(_) | Condition::Exists);
    if !selector.requirements().any(|requirement| positive(&requirement.condition)) {
        let finding = at.error("requires no label of the groups, so it would select every peer").rule("GRP-2");
        findings.add_strict(finding.help("require at least one label that the groups have"));
    }
    Some(selector)
}

fn is_empty_text(at: &Located<'_>) -> bool {
    matches!(&at.node.value, crate::document::Value::Scalar(scalar) if !scalar.plain && scalar.text.is_empty())
}
