//! Rules for parsers that we do not know: `l7proto` and `l7` (GEN-1, GEN-2). They are carried as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One element of `l7`: the parser requires all of its pairs. Without any it speaks of every request (GEN-1).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenericRule(pub BTreeMap<String, String>);

impl GenericRule {
    /// Whether a pair has no key (VAL-23).
    #[must_use]
    pub fn has_empty_key(&self) -> bool {
        self.0.contains_key("")
    }

    /// Whether it speaks of every request.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the rules of a parser of Envoy's metadata deny what matches this one (GEN-2).
    #[must_use]
    pub fn denies(&self, protocol: &str) -> bool {
        protocol.starts_with("envoy.") && self.0.get("action").is_some_and(|action| action == "deny")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gen_1_and_2() {
        let rule = |pairs: &[(&str, &str)]| {
            GenericRule(pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
        };
        assert!(rule(&[]).is_everything());
        assert!(!rule(&[("cmd", "get")]).is_everything());
        assert!(rule(&[("", "get")]).has_empty_key());
        assert!(rule(&[("action", "deny")]).denies("envoy.filters.network.mongo_proxy"));
        assert!(!rule(&[("action", "deny")]).denies("redis"));
        assert!(!rule(&[("action", "Deny")]).denies("envoy.x"));
    }
}
