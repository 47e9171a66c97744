//! The kinds of Kafka requests.

use std::fmt;

/// A kind of request: the `api_key` of its header, whether we know it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

/// What a client does, as `role` says it: a set of kinds of requests (KAF-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends messages.
    Produce,
    /// Receives messages.
    Consume,
}

/// The names that `apiKey` knows, each at the place of its number (KAF-3).
const NAMES: [&str; 34] = [
    "produce",
    "fetch",
    "offsets",
    "metadata",
    "leaderandisr",
    "stopreplica",
    "updatemetadata",
    "controlledshutdown",
    "offsetcommit",
    "offsetfetch",
    "findcoordinator",
    "joingroup",
    "heartbeat",
    "leavegroup",
    "syncgroup",
    "describegroups",
    "listgroups",
    "saslhandshake",
    "apiversions",
    "createtopics",
    "deletetopics",
    "deleterecords",
    "initproducerid",
    "offsetforleaderepoch",
    "addpartitionstotxn",
    "addoffsetstotxn",
    "endtxn",
    "writetxnmarkers",
    "txnoffsetcommit",
    "describeacls",
    "createacls",
    "deleteacls",
    "describeconfigs",
    "alterconfigs",
];

impl ApiKey {
    /// Sends messages.
    pub const PRODUCE: Self = Self(0);
    /// Receives messages.
    pub const FETCH: Self = Self(1);
    /// Asks which topics and brokers there are.
    pub const METADATA: Self = Self(3);
    /// Asks for a group's coordinator.
    pub const FIND_COORDINATOR: Self = Self(10);
    /// Asks which versions the broker speaks.
    pub const API_VERSIONS: Self = Self(18);

    /// The kind of a name, in any letter case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        i16::try_from(number).ok().map(Self)
    }

    /// The name, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }

    /// Whether such requests speak of topics, so that a rule with a topic can be about them (KAF-4).
    #[must_use]
    pub fn carries_topics(self) -> bool {
        matches!(self.0, 0..=6 | 8 | 9 | 19..=21 | 23 | 24 | 27 | 28 | 34 | 35 | 37)
    }

    /// Whether the proxy reads the topics of such requests; those of the others are unknown, so that no rule with a
    /// topic allows them (KAF-6).
    #[must_use]
    pub fn topics_are_decoded(self) -> bool {
        matches!(self.0, 0..=3 | 8 | 9)
    }

    /// Whether a refused request is answered, with [`TOPIC_AUTHORIZATION_FAILED`] for all of its topics; the others
    /// are dropped without an answer (KAF-8).
    #[must_use]
    pub fn refusal_is_answered(self, api_version: i16) -> bool {
        self.topics_are_decoded() || (self == Self::FIND_COORDINATOR && api_version == 0)
    }
}

/// The error code of a refused topic (KAF-8).
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

/// The error code with which a request that cannot be read is logged; its connection is closed (KAF-9).
pub const CORRUPT_MESSAGE: i16 = 2;

impl Role {
    /// The role of a word, in any letter case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let roles = [("produce", Self::Produce), ("consume", Self::Consume)];
        roles.into_iter().find_map(|(known, role)| known.eq_ignore_ascii_case(word).then_some(role))
    }

    /// The kinds of requests that belong to it.
    #[must_use]
    pub fn api_keys(self) -> &'static [ApiKey] {
        match self {
            Self::Produce => &[ApiKey::PRODUCE, ApiKey::METADATA, ApiKey::API_VERSIONS],
            Self::Consume => &[
                ApiKey::FETCH,
                ApiKey(2),
                ApiKey::METADATA,
                ApiKey(8),
                ApiKey(9),
                ApiKey::FIND_COORDINATOR,
                ApiKey(11),
                ApiKey(12),
                ApiKey(13),
                ApiKey(14),
                ApiKey::API_VERSIONS,
            ],
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kaf_2_roles() {
        let names = |role: Role| role.api_keys().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Role::Produce), "produce metadata apiversions");
        let consume = "fetch offsets metadata offsetcommit offsetfetch findcoordinator joingroup heartbeat leavegroup \
                       syncgroup apiversions";
        assert_eq!(names(Role::Consume), consume);
        assert_eq!(Role::from_word("Produce"), Some(Role::Produce));
        assert_eq!(Role::from_word("admin"), None);
    }

    #[test]
    fn kaf_3_names_and_numbers() {
        for (name, number) in
            [("produce", 0), ("fetch", 1), ("OffsetFetch", 9), ("apiversions", 18), ("alterconfigs", 33)]
        {
            assert_eq!(ApiKey::from_name(name), Some(ApiKey(number)), "{name}");
        }
        assert_eq!(ApiKey::from_name("34"), None);
        assert_eq!(ApiKey::from_name(""), None);
        assert_eq!(ApiKey(34).name(), None);
        assert_eq!(ApiKey(-1).to_string(), "-1");
    }

    #[test]
    fn kaf_4_and_6_topics() {
        let all = |which: fn(ApiKey) -> bool| (-2..64).filter(|key| which(ApiKey(*key))).collect::<Vec<i16>>();
        let carrying = [0, 1, 2, 3, 4, 5, 6, 8, 9, 19, 20, 21, 23, 24, 27, 28, 34, 35, 37];
        assert_eq!(all(ApiKey::carries_topics), carrying);
        assert_eq!(all(ApiKey::topics_are_decoded), [0, 1, 2, 3, 8, 9]);
    }

    #[test]
    fn kaf_8_who_gets_an_answer() {
        assert_eq!(
            (-2..64).filter(|key| ApiKey(*key).refusal_is_answered(0)).collect::<Vec<_>>(),
            [0, 1, 2, 3, 8, 9, 10]
        );
        assert!(!ApiKey::FIND_COORDINATOR.refusal_is_answered(1));
    }
}
