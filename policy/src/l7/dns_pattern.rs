//! Patterns of DNS names (DNS-2 … DNS-7).

use super::dns_name::{DnsName, is_host_character};

/// A compiled `matchPattern`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsPattern {
    /// Every name, the root and odd characters included: `*` in an L7 rule (DNS-4).
    Everything,
    /// The root, and names of one or more labels of host characters: `*` in `toFQDNs` (DNS-5).
    EveryHost,
    /// Label by label; a wildcard never crosses a dot (DNS-3).
    Labels(Vec<LabelPattern>),
}

/// What one label must look like: literal texts with `*` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelPattern(Vec<String>);

/// Where a pattern is used: `*` alone means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsUse {
    /// A `dns` rule: names that may be asked for.
    Query,
    /// `toFQDNs`: names whose addresses may be reached.
    Address,
}

impl DnsPattern {
    /// Compiles a pattern. Blanks around it are cut off, a dot is put at its end if there is none (DNS-6); a bare `*`
    /// needs none.
    #[must_use]
    pub fn new(text: &str, used_for: DnsUse) -> Self {
        match (text.trim(), used_for) {
            ("*", DnsUse::Query) => Self::Everything,
            ("*", DnsUse::Address) => Self::EveryHost,
            (text, _) => Self::Labels(DnsName::new(text).parts().map(LabelPattern::new).collect()),
        }
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &DnsName) -> bool {
        match self {
            Self::Everything => true,
            Self::EveryHost => {
                name.is_root() || name.parts().all(|part| !part.is_empty() && part.chars().all(is_host_character))
            }
            Self::Labels(labels) => {
                let mut parts = name.parts();
                labels.iter().all(|label| parts.next().is_some_and(|part| label.matches(part)))
                    && parts.next().is_none()
            }
        }
    }
}

impl LabelPattern {
    fn new(text: &str) -> Self {
        let mut texts: Vec<String> = text.split('*').map(Into::into).collect();
        // `**` is `*` (DNS-7): an empty text between two wildcards says nothing.
        let last = texts.len() - 1;
        let mut index = 0;
        texts.retain(|text| {
            index += 1;
            index == 1 || index == last + 1 || !text.is_empty()
        });
        Self(texts)
    }

    fn matches(&self, label: &str) -> bool {
        let Some((first, texts)) = self.0.split_first() else { return false };
        let Some((last, middle)) = texts.split_last() else { return first == label };
        let between = label.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = between else { return false };
        if !label.chars().all(is_host_character) {
            return false;
        }
        // The leftmost place is as good as any: what follows it can only get longer.
        middle.iter().all(|text| match rest.split_once(text.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        DnsPattern::new(pattern, DnsUse::Address).matches(&DnsName::new(name))
    }

    #[test]
    fn dns_2_to_7_the_table_of_patterns() {
        for (pattern, yes, no) in [
            (
                "*.example.com",
                &["a.example.com", "x_1.example.com", ".example.com"][..],
                &["example.com", "a.b.example.com"][..],
            ),
            ("*example.com", &["example.com", "myexample.com"], &["a.example.com"]),
            ("api-*.svc.*.com", &["api-.svc.x.com"], &["api-1.svc.a.b.com"]),
            ("*.", &["localhost.", "."], &["a.b."]),
            ("example.com", &["example.com", "EXAMPLE.COM."], &["exampleXcom", "a.example.com", "example.com.a"]),
            ("*.*.example.com", &["a.b.example.com"], &["a.example.com", "a.b.c.example.com"]),
            ("a*.example.com", &["a.example.com", "api.example.com"], &["b.example.com", "a.b.example.com"]),
            ("*.EXAMPLE.com", &["api.example.com"], &["example.com"]),
            ("*.com", &["example.com"], &["api.example.com", "com"]),
            ("c*n.example.net", &["cdn.example.net", "cn.example.net"], &["cdn2.example.net", "c.n.example.net"]),
            ("a*b*c", &["abc", "aXbYc", "abbc", "abcbc"], &["ac", "abcd", "ab"]),
            ("ab*ba", &["abba", "abXba"], &["aba"]),
            (" *.example.com ", &["a.example.com"], &["example.com"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn dns_3_wildcards_stand_for_host_characters_only() {
        for odd in ["a b.example.com", "ä.example.com", r"a\.b.example.com", "*.example.com", "a/b.example.com"] {
            assert!(!matches("*.example.com", odd), "{odd}");
        }
    }

    #[test]
    fn dns_4_and_5_a_bare_wildcard() {
        let query = DnsPattern::new("*", DnsUse::Query);
        let address = DnsPattern::new("*", DnsUse::Address);
        for (name, in_addresses) in [
            (".", true),
            ("a", true),
            ("a.b.c", true),
            ("a_b-1.x", true),
            ("a..b", false),
            ("ä.b", false),
            ("a b", false),
        ] {
            assert!(query.matches(&DnsName::new(name)), "{name}");
            assert_eq!(address.matches(&DnsName::new(name)), in_addresses, "{name}");
        }
    }

    #[test]
    fn dns_7_two_stars_are_one() {
        assert_eq!(DnsPattern::new("**.example.com", DnsUse::Query), DnsPattern::new("*.example.com", DnsUse::Query));
        assert!(!matches("**.example.com", "a.b.example.com"));
        assert!(!matches("**.example.com", "example.com"));
        // Two stars alone are not the bare wildcard: they get their dot, and are one label.
        for used_for in [DnsUse::Query, DnsUse::Address] {
            assert_eq!(DnsPattern::new("**", used_for), DnsPattern::new("*.", used_for));
        }
    }
}
