//! Kafka rules against requests (KAF-1 … KAF-7).

use std::collections::BTreeSet;

use super::{
    kafka::{KafkaRule, parse_version},
    kafka_api::{ApiKey, Role},
};

/// A request, decoded as far as rules go.
#[derive(Clone, Copy, Debug)]
pub struct KafkaRequest<'r> {
    /// Its kind.
    pub api_key: ApiKey,
    /// The version of its kind.
    pub api_version: i16,
    /// What the client calls itself; empty if the header has no such field, as in version 0 (KAF-7).
    pub client_id: &'r str,
    /// The topics it speaks of. Ignored for kinds whose topics are not decoded (KAF-6).
    pub topics: &'r [&'r str],
}

/// One rule, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaMatcher {
    /// None means all kinds.
    api_keys: Option<BTreeSet<ApiKey>>,
    api_version: Option<i16>,
    client_id: Option<String>,
    topic: Option<String>,
}

/// The rules that apply to one peer and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaMatchers {
    /// In the order of the rules; none for a rule that is not valid, which matches nothing.
    matchers: Vec<Option<KafkaMatcher>>,
}

impl KafkaMatcher {
    /// Compiles a rule. None if [`KafkaRule::check`] finds something: such a rule matches nothing.
    #[must_use]
    pub fn compile(rule: &KafkaRule) -> Option<Self> {
        if !rule.check().is_empty() {
            return None;
        }
        let written = |text: &String| (!text.is_empty()).then(|| text.clone());
        let api_keys = if let Some(role) = Role::from_word(&rule.role) {
            Some(role.api_keys().iter().copied().collect())
        } else {
            ApiKey::from_name(&rule.api_key).map(|api_key| BTreeSet::from([api_key]))
        };
        Some(Self {
            api_keys,
            api_version: parse_version(&rule.api_version),
            client_id: written(&rule.client_id),
            topic: written(&rule.topic),
        })
    }

    /// Whether the rule speaks of a request, topics aside.
    fn covers(&self, request: &KafkaRequest<'_>) -> bool {
        self.api_keys.as_ref().is_none_or(|keys| keys.contains(&request.api_key))
            && self.api_version.is_none_or(|version| version == request.api_version)
            && self.client_id.as_ref().is_none_or(|client_id| client_id == request.client_id)
    }
}

impl KafkaMatchers {
    /// Compiles rules. One that is not valid matches nothing.
    #[must_use]
    pub fn compile(rules: &[KafkaRule]) -> Self {
        Self { matchers: rules.iter().map(KafkaMatcher::compile).collect() }
    }

    /// The rules that together allow a request, in order; none if it is refused. Every topic of the request must be
    /// covered, each maybe by another rule (KAF-5).
    #[must_use]
    pub fn judge(&self, request: &KafkaRequest<'_>) -> Option<Vec<usize>> {
        let matchers = self.matchers.iter().enumerate();
        let covering = matchers.filter_map(|(index, matcher)| Some((index, matcher.as_ref()?)));
        let covering = covering.filter(|(_, matcher)| matcher.covers(request));
        let mut uncovered: BTreeSet<&str> = match request.api_key.topics_are_decoded() {
            true => request.topics.iter().copied().collect(),
            false => BTreeSet::new(),
        };
        let mut used = Vec::new();
        for (index, matcher) in covering {
            match &matcher.topic {
                None => return Some(vec![index]),
                Some(_) if !request.api_key.carries_topics() => return Some(vec![index]),
                Some(topic) if uncovered.remove(topic.as_str()) => used.push(index),
                Some(_) => continue,
            }
            if uncovered.is_empty() {
                return Some(used);
            }
        }
        None
    }

    /// Whether a request passes.
    #[must_use]
    pub fn allows(&self, request: &KafkaRequest<'_>) -> bool {
        self.judge(request).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(role: &str, api_key: &str, topic: &str) -> KafkaRule {
        KafkaRule { role: role.into(), api_key: api_key.into(), topic: topic.into(), ..KafkaRule::default() }
    }

    fn judge(rules: &[KafkaRule], api_key: i16, topics: &[&str]) -> Option<Vec<usize>> {
        let request = KafkaRequest { api_key: ApiKey(api_key), api_version: 1, client_id: "c1", topics };
        KafkaMatchers::compile(rules).judge(&request)
    }

    #[test]
    fn kaf_1_fields_are_anded() {
        let all = KafkaRule { api_version: "1".into(), client_id: "c1".into(), ..rule("", "fetch", "t") };
        assert_eq!(judge(&[KafkaRule::default()], 99, &[]), Some(vec![0]));
        assert_eq!(judge(std::slice::from_ref(&all), 1, &["t"]), Some(vec![0]));
        assert_eq!(judge(std::slice::from_ref(&all), 0, &["t"]), None);
        assert_eq!(judge(std::slice::from_ref(&all), 1, &["T"]), None);
        assert_eq!(judge(&[KafkaRule { api_version: "2".into(), ..all.clone() }], 1, &["t"]), None);
        assert_eq!(judge(&[KafkaRule { client_id: "C1".into(), ..all }], 1, &["t"]), None);
        assert_eq!(judge(&[], 1, &["t"]), None);
    }

    #[test]
    fn kaf_2_roles_expand() {
        let rules = [rule("PRODUCE", "", "orders")];
        assert!(judge(&rules, 0, &["orders"]).is_some());
        assert!(judge(&rules, 3, &["orders"]).is_some());
        assert!(judge(&rules, 18, &[]).is_some());
        assert!(judge(&rules, 1, &["orders"]).is_none());
        assert!(judge(&rules, 0, &["audit"]).is_none());
        let rules = [rule("consume", "", "orders")];
        for group in [10, 11, 12, 13, 14, 18] {
            assert!(judge(&rules, group, &[]).is_some(), "{group}");
        }
        assert!(judge(&rules, 0, &["orders"]).is_none());
    }

    #[test]
    fn kaf_4_requests_without_topics_pass_a_topic_rule() {
        assert_eq!(judge(&[rule("", "heartbeat", "t")], 12, &[]), Some(vec![0]));
        assert_eq!(judge(&[rule("", "", "t")], 12, &["other"]), Some(vec![0]));
    }

    #[test]
    fn kaf_5_every_topic_must_be_allowed() {
        let rules = [rule("", "fetch", "a"), rule("", "fetch", "b"), rule("", "produce", "c")];
        assert_eq!(judge(&rules, 1, &["b", "a", "b"]), Some(vec![0, 1]));
        assert_eq!(judge(&rules, 1, &["a"]), Some(vec![0]));
        assert_eq!(judge(&rules, 1, &["a", "c"]), None);
        let with_any = [rule("", "fetch", "a"), rule("", "fetch", "")];
        assert_eq!(judge(&with_any, 1, &["a", "z"]), Some(vec![1]));
    }

    #[test]
    fn kaf_6_undecoded_topics_match_no_topic_rule() {
        assert_eq!(judge(&[rule("", "createtopics", "t")], 19, &["t"]), None);
        assert_eq!(judge(&[rule("", "createtopics", "")], 19, &["t"]), Some(vec![0]));
        assert_eq!(judge(&[rule("", "metadata", "t")], 3, &[]), None);
        assert_eq!(judge(&[rule("", "metadata", "")], 3, &[]), Some(vec![0]));
    }

    #[test]
    fn kaf_7_no_client_id_compares_as_empty() {
        let request = KafkaRequest { api_key: ApiKey(0), api_version: 0, client_id: "", topics: &[] };
        let named = KafkaRule { client_id: "c1".into(), ..KafkaRule::default() };
        assert!(!KafkaMatchers::compile(&[named]).allows(&request));
        assert!(KafkaMatchers::compile(&[KafkaRule::default()]).allows(&request));
    }

    #[test]
    fn an_invalid_rule_matches_nothing() {
        assert_eq!(judge(&[rule("admin", "", ""), rule("produce", "fetch", "")], 18, &[]), None);
    }
}
