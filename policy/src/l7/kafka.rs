//! Kafka rules as objects write them, and what may be wrong with them (VAL-33).

use serde::{Deserialize, Serialize};

use super::kafka_api::{ApiKey, Role};

/// One element of `kafka`. An empty field constrains nothing (KAF-1).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KafkaRule {
    /// The name of a kind of request, for example `fetch`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_key: String,
    /// A number: the version of the request's kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// What the client calls itself.
    #[serde(rename = "clientID", skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// `produce` or `consume`: several kinds of requests at once.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// The name of a topic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

/// What is wrong with a Kafka rule. All of it is VAL-33.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKafkaRule {
    /// Both say which kinds of requests are meant.
    #[error("role and apiKey are both given")]
    RoleAndApiKey,
    /// Not a role.
    #[error("unknown role {role:?}")]
    UnknownRole {
        /// As written.
        role: String,
    },
    /// Not a kind of request.
    #[error("unknown apiKey {api_key:?}")]
    UnknownApiKey {
        /// As written.
        api_key: String,
    },
    /// Not a version.
    #[error("apiVersion {api_version:?} is not a number from 0 to {}", i16::MAX)]
    ApiVersion {
        /// As written.
        api_version: String,
    },
    /// The topic's name is too long.
    #[error("the topic has {bytes} characters, more than {}", KafkaRule::MAX_TOPIC_BYTES)]
    TopicTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The topic's name has a character that topics cannot have.
    #[error("the topic holds {character:?}")]
    TopicCharacter {
        /// The first such character.
        character: char,
    },
}

impl KafkaRule {
    /// The longest topic. Kafka itself stops at 249.
    pub const MAX_TOPIC_BYTES: usize = 255;

    /// Everything that is wrong with the rule.
    #[must_use]
    pub fn check(&self) -> Vec<InvalidKafkaRule> {
        let mut problems = Vec::new();
        if !self.role.is_empty() && !self.api_key.is_empty() {
            problems.push(InvalidKafkaRule::RoleAndApiKey);
        }
        if !self.role.is_empty() && Role::from_word(&self.role).is_none() {
            problems.push(InvalidKafkaRule::UnknownRole { role: self.role.clone() });
        }
        if !self.api_key.is_empty() && ApiKey::from_name(&self.api_key).is_none() {
            problems.push(InvalidKafkaRule::UnknownApiKey { api_key: self.api_key.clone() });
        }
        if !self.api_version.is_empty() && parse_version(&self.api_version).is_none() {
            problems.push(InvalidKafkaRule::ApiVersion { api_version: self.api_version.clone() });
        }
        if self.topic.len() > Self::MAX_TOPIC_BYTES {
            problems.push(InvalidKafkaRule::TopicTooLong { bytes: self.topic.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = self.topic.chars().find(|c| !allowed(*c)) {
            problems.push(InvalidKafkaRule::TopicCharacter { character });
        }
        problems
    }
}

/// A version as rules write it: 0–32767.
pub(super) fn parse_version(text: &str) -> Option<i16> {
    text.parse().ok().filter(|version| *version >= 0)
}

impl InvalidKafkaRule {
    /// The numbered rule that is broken.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        "VAL-33"
    }

    /// The field below the rule.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::RoleAndApiKey | Self::UnknownRole { .. } => "role",
            Self::UnknownApiKey { .. } => "apiKey",
            Self::ApiVersion { .. } => "apiVersion",
            Self::TopicTooLong { .. } | Self::TopicCharacter { .. } => "topic",
        }
    }

    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::RoleAndApiKey => {
                "keep one of them; a role stands for all the requests that a producer or consumer makes"
            }
            Self::UnknownRole { .. } => "write produce or consume",
            Self::UnknownApiKey { .. } => "write a name of the Kafka protocol, for example produce, fetch or metadata",
            Self::ApiVersion { .. } => "write a number, or leave it out for every version",
            Self::TopicTooLong { .. } => "Kafka's own topics have at most 249 characters",
            Self::TopicCharacter { .. } => "use letters, digits, '.', '_' and '-'; topics have no wildcards",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut KafkaRule)) -> Vec<InvalidKafkaRule> {
        let mut rule = KafkaRule::default();
        change(&mut rule);
        rule.check()
    }

    #[test]
    fn val_33() {
        assert_eq!(problems(|_| {}), []);
        assert_eq!(problems(|rule| rule.role = "Produce".into()), []);
        assert_eq!(problems(|rule| rule.api_key = "FETCH".into()), []);
        assert_eq!(problems(|rule| rule.topic = "empire.announce_2-x".into()), []);
        assert_eq!(problems(|rule| rule.topic = "x".repeat(255)), []);
        assert_eq!(problems(|rule| rule.topic = "x".repeat(256)), [InvalidKafkaRule::TopicTooLong { bytes: 256 }]);
        assert_eq!(problems(|rule| rule.topic = "a*".into()), [InvalidKafkaRule::TopicCharacter { character: '*' }]);
        assert_eq!(
            problems(|rule| rule.role = "admin".into()),
            [InvalidKafkaRule::UnknownRole { role: "admin".into() }]
        );
        let both = problems(|rule| (rule.role, rule.api_key) = ("produce".into(), "fetch".into()));
        assert_eq!(both, [InvalidKafkaRule::RoleAndApiKey]);
        assert_eq!(problems(|rule| rule.api_key = "34".into()).len(), 1);
    }

    #[test]
    fn val_33_versions() {
        for good in ["0", "7", "32767", "007"] {
            assert_eq!(problems(|rule| rule.api_version = good.into()), [], "{good}");
        }
        for bad in ["x", "-1", "32768", "1.0", " 1", "99999999999999999999"] {
            assert_eq!(problems(|rule| rule.api_version = bad.into()).len(), 1, "{bad}");
        }
    }
}
