//! DNS names, patterns and rules: the first line is a name, the second a pattern, the others are queries.

use ringfence_policy::l7::{
    advice,
    dns_name::DnsName,
    dns_pattern::{DnsPattern, DnsUse},
    dns_rule::{DnsMatchers, DnsRule, FqdnSelector},
    expression::Expression,
    server_name::ServerNames,
};

const MOST_LINES: usize = 64;

/// Compiles the rule and asks it for every line as a name; patterns mean what their expression says.
pub(crate) fn exercise(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').take(MOST_LINES).collect();
    let line = |index: usize| lines.get(index).copied().unwrap_or_default().to_owned();
    let names: Vec<DnsName> = lines.iter().map(|line| name(line)).collect();
    let rules = [
        DnsRule { match_name: line(0), match_pattern: line(1) },
        DnsRule { match_name: line(0), match_pattern: String::new() },
        DnsRule { match_name: String::new(), match_pattern: line(1) },
    ];
    for rule in &rules {
        rule.check(DnsUse::Address).iter().for_each(|finding| {
            let _ = (finding.to_string(), finding.help(), finding.field(), finding.rule());
        });
        let _ = advice::on_dns(rule);
        selector(rule, &names);
    }
    let [both, one, like] = rules.each_ref().map(|rule| DnsMatchers::compile(std::slice::from_ref(rule)));
    for name in &names {
        if rules[0].check(DnsUse::Query).is_empty() {
            assert_eq!(both.allows(name), one.allows(name) || like.allows(name), "{:?} {name}", rules[0]);
        }
    }
    for used_for in [DnsUse::Query, DnsUse::Address] {
        pattern(&rules[2], used_for, &names);
    }
    for (name, line) in names.iter().zip(&lines) {
        let _ = advice::on_server_name(line);
        let server_names = ServerNames::new(&[line]).expect("a list of one");
        assert_eq!(server_names.allows(Some(line)), !line.is_empty(), "{name}");
    }
}

/// DNS-1: one form for each name, whatever its case.
fn name(line: &str) -> DnsName {
    let name = DnsName::new(line);
    assert!(name.as_str().ends_with('.'), "{name}");
    assert_eq!(DnsName::new(name.as_str()), name);
    assert_eq!(DnsName::new(&line.to_ascii_uppercase()), name);
    name
}

/// FQDN-1: a selector exists exactly for a valid rule that names something, and selects its own name.
fn selector(rule: &DnsRule, names: &[DnsName]) {
    let selector = FqdnSelector::compile(rule);
    let names_something = !rule.match_name.is_empty() || !rule.match_pattern.is_empty();
    if rule.check(DnsUse::Address).is_empty() {
        assert_eq!(selector.is_some(), names_something, "{rule:?}");
    }
    let Some(selector) = selector else { return };
    if !rule.match_name.is_empty() {
        assert!(selector.selects(&DnsName::new(&rule.match_name)), "{rule:?}");
    }
    names.iter().for_each(|name| {
        let _ = selector.selects(name);
    });
}

/// DNS-2 … DNS-7: a valid pattern matches what its definition as an expression matches.
fn pattern(rule: &DnsRule, used_for: DnsUse, names: &[DnsName]) {
    let pattern = &rule.match_pattern;
    if pattern.is_empty() || !rule.check(used_for).is_empty() {
        return;
    }
    let definition = match (pattern.as_str(), used_for) {
        ("*", DnsUse::Query) => "(?s).*".to_owned(),
        ("*", DnsUse::Address) => r"([-a-zA-Z0-9_]+[.])+|[.]".to_owned(),
        _ => DnsName::new(pattern).as_str().replace('.', "[.]").replace('*', "[-a-zA-Z0-9_]*"),
    };
    // What is too large as an expression is not compared.
    let Ok(definition) = Expression::new(&definition) else { return };
    let compiled = DnsPattern::new(pattern, used_for);
    for name in names {
        let expected = definition.matches(name.as_str().as_bytes());
        assert_eq!(compiled.matches(name), expected, "{pattern:?} {used_for:?} {name:?}");
    }
}
