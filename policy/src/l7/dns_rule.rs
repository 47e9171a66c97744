//! DNS rules and FQDN selectors as objects write them, and compiled (DNS-1 … DNS-13, FQDN-1, VAL-30, VAL-31, VAL-34).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    dns_name::{DnsName, is_host_character},
    dns_pattern::{DnsPattern, DnsUse},
};

/// One element of `dns` or of `toFQDNs`. With both fields, a `dns` element means either; a `toFQDNs` element is
/// refused (VAL-30). With none it speaks of no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DnsRule {
    /// One name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub match_name: String,
    /// Names with `*` in their labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub match_pattern: String,
}

/// What is wrong with a DNS rule or FQDN selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDnsRule {
    /// Both fields in a selector.
    #[error("matchName and matchPattern are both given")]
    NameAndPattern,
    /// A character that names do not have.
    #[error("matchName holds {character:?}")]
    NameCharacter {
        /// The first such character.
        character: char,
    },
    /// A character that patterns do not have.
    #[error("matchPattern holds {character:?}")]
    PatternCharacter {
        /// The first such character.
        character: char,
    },
    /// A name beyond the schema's limit, which the peer's agent does not check by itself.
    #[error("matchName has {characters} characters, more than {}", DnsRule::MAX_CHARACTERS)]
    NameTooLong {
        /// Its length.
        characters: usize,
    },
    /// A pattern beyond the schema's limit, which the peer's agent does not check by itself.
    #[error("matchPattern has {characters} characters, more than {}", DnsRule::MAX_CHARACTERS)]
    PatternTooLong {
        /// Its length.
        characters: usize,
    },
}

/// The DNS rules that apply to one server and port: a name may be asked for if any of them matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsMatchers {
    names: BTreeSet<DnsName>,
    patterns: BTreeSet<DnsPattern>,
}

/// One element of `toFQDNs`, compiled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FqdnSelector {
    label: String,
    names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Names {
    One(DnsName),
    Like(DnsPattern),
}

impl DnsRule {
    /// The longest name or pattern (VAL-34).
    pub const MAX_CHARACTERS: usize = 255;

    /// Everything that is wrong with it for a use.
    #[must_use]
    pub fn check(&self, used_for: DnsUse) -> Vec<InvalidDnsRule> {
        let mut problems = Vec::new();
        if used_for == DnsUse::Address && !self.match_name.is_empty() && !self.match_pattern.is_empty() {
            problems.push(InvalidDnsRule::NameAndPattern);
        }
        let in_name = |c: char| is_host_character(c) || c == '.';
        if let Some(character) = self.match_name.chars().find(|c| !in_name(*c)) {
            problems.push(InvalidDnsRule::NameCharacter { character });
        }
        if let Some(character) = self.match_pattern.chars().find(|c| !in_name(*c) && *c != '*') {
            problems.push(InvalidDnsRule::PatternCharacter { character });
        }
        let characters = self.match_name.chars().count();
        if characters > Self::MAX_CHARACTERS {
            problems.push(InvalidDnsRule::NameTooLong { characters });
        }
        let characters = self.match_pattern.chars().count();
        if characters > Self::MAX_CHARACTERS {
            problems.push(InvalidDnsRule::PatternTooLong { characters });
        }
        problems
    }
}

impl DnsMatchers {
    /// Compiles rules. What is not valid in them matches nothing, but for its length.
    #[must_use]
    pub fn compile(rules: &[DnsRule]) -> Self {
        let mut matchers = Self::default();
        for rule in rules.iter().filter(|rule| rule.check(DnsUse::Query).iter().all(InvalidDnsRule::is_length)) {
            if !rule.match_name.is_empty() {
                matchers.names.insert(DnsName::new(&rule.match_name));
            }
            if !rule.match_pattern.is_empty() {
                matchers.patterns.insert(DnsPattern::new(&rule.match_pattern, DnsUse::Query));
            }
        }
        matchers
    }

    /// Whether a name may be asked for. Give it the name of the first question; its type and class do not matter
    /// (DNS-11).
    #[must_use]
    pub fn allows(&self, name: &DnsName) -> bool {
        self.names.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

impl FqdnSelector {
    /// Compiles a selector. None if it speaks of no name, or [`DnsRule::check`] finds something but its length.
    #[must_use]
    pub fn compile(rule: &DnsRule) -> Option<Self> {
        if !rule.check(DnsUse::Address).iter().all(InvalidDnsRule::is_length) {
            return None;
        }
        if !rule.match_name.is_empty() {
            let names = Names::One(DnsName::new(&rule.match_name));
            return Some(Self { label: rule.match_name.clone(), names });
        }
        if rule.match_pattern.is_empty() {
            return None;
        }
        let names = Names::Like(DnsPattern::new(&rule.match_pattern, DnsUse::Address));
        Some(Self { label: rule.match_pattern.clone(), names })
    }

    /// Whether it selects the addresses of a name.
    #[must_use]
    pub fn selects(&self, name: &DnsName) -> bool {
        match &self.names {
            Names::One(one) => one == name,
            Names::Like(pattern) => pattern.matches(name),
        }
    }

    /// The key of the label, of source `fqdn`, that such addresses carry: the selector as it is written (FQDN-1).
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl InvalidDnsRule {
    fn is_length(&self) -> bool {
        matches!(self, Self::NameTooLong { .. } | Self::PatternTooLong { .. })
    }

    /// The numbered rule that is broken.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NameAndPattern => "VAL-30",
            Self::NameCharacter { .. } | Self::PatternCharacter { .. } => "VAL-31",
            Self::NameTooLong { .. } | Self::PatternTooLong { .. } => "VAL-34",
        }
    }

    /// Whether Cilium's agent rejects the object for it too; the API server rejects the rest.
    #[must_use]
    pub fn rejected_by_cilium(&self) -> bool {
        !self.is_length()
    }

    /// The field below the rule.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::NameCharacter { .. } | Self::NameTooLong { .. } => "matchName",
            Self::NameAndPattern | Self::PatternCharacter { .. } | Self::PatternTooLong { .. } => "matchPattern",
        }
    }

    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NameAndPattern => "write two elements, one with matchName and one with matchPattern",
            Self::NameCharacter { character: '*' } => "a name has no wildcards; write it as matchPattern",
            Self::NameCharacter { character } | Self::PatternCharacter { character } if !character.is_ascii() => {
                "write names of other scripts in their xn-- form"
            }
            Self::NameCharacter { .. } => "use letters, digits, '-', '_' and '.'",
            Self::PatternCharacter { .. } => "use letters, digits, '-', '_', '.' and '*'",
            Self::NameTooLong { .. } | Self::PatternTooLong { .. } => "no DNS name is longer than 255 characters",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsRule {
        DnsRule { match_name: text.into(), ..DnsRule::default() }
    }

    fn pattern(text: &str) -> DnsRule {
        DnsRule { match_pattern: text.into(), ..DnsRule::default() }
    }

    #[test]
    fn val_30_both_are_legal_in_dns_rules_only() {
        let both = DnsRule { match_name: "a.example.com".into(), match_pattern: "b*.example.com".into() };
        assert_eq!(both.check(DnsUse::Address), [InvalidDnsRule::NameAndPattern]);
        assert_eq!(FqdnSelector::compile(&both), None);
        assert_eq!(both.check(DnsUse::Query), []);
        let matchers = DnsMatchers::compile(&[both]);
        assert!(matchers.allows(&DnsName::new("a.example.com")));
        assert!(matchers.allows(&DnsName::new("b1.example.com")));
        assert!(!matchers.allows(&DnsName::new("c.example.com")));
    }

    #[test]
    fn val_31_characters() {
        for good in [
            name("a.example.com"),
            name("A_b-1.Example.COM."),
            pattern("*"),
            pattern("*.a_b-*.com"),
            name("xn--bcher-kva.de"),
        ] {
            assert_eq!(good.check(DnsUse::Query), [], "{good:?}");
        }
        for (bad, character) in [
            (name("*.a.com"), '*'),
            (name("a b.com"), ' '),
            (name("bücher.de"), 'ü'),
            (pattern("a b"), ' '),
            (pattern("a,b.com"), ','),
        ]
        .into_iter()
        .chain("[]+{},/\\$^|()".chars().map(|character| (pattern(&format!("a{character}")), character)))
        {
            let problems = bad.check(DnsUse::Address);
            assert_eq!(problems.len(), 1, "{bad:?}");
            assert_eq!(problems[0].rule(), "VAL-31");
            assert!(problems[0].to_string().contains(&format!("{character:?}")), "{}", problems[0]);
            assert_eq!(FqdnSelector::compile(&bad), None);
        }
    }

    #[test]
    fn val_34_length() {
        let longest = "a".repeat(DnsRule::MAX_CHARACTERS);
        assert_eq!(name(&longest).check(DnsUse::Query), []);
        let problems = pattern(&(longest + "a")).check(DnsUse::Query);
        assert_eq!(problems, [InvalidDnsRule::PatternTooLong { characters: 256 }]);
        assert!(!problems[0].rejected_by_cilium());
    }

    #[test]
    fn fqdn_1_the_label_is_the_selector_as_written() {
        for rule in [name("API.Example.COM."), pattern("*.EXAMPLE.com")] {
            let selector = FqdnSelector::compile(&rule).expect("valid");
            assert_eq!(selector.label(), rule.match_name.clone() + &rule.match_pattern);
            assert!(selector.selects(&DnsName::new("api.example.com")));
            assert!(!selector.selects(&DnsName::new("example.com")));
        }
    }

    #[test]
    fn a_rule_without_a_name_speaks_of_none() {
        assert_eq!(FqdnSelector::compile(&DnsRule::default()), None);
        let matchers = DnsMatchers::compile(&[DnsRule::default()]);
        assert!(!matchers.allows(&DnsName::new(".")));
        assert!(!matchers.allows(&DnsName::new("a")));
    }
}
