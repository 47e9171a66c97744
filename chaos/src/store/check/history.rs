//! What clients did and what they were told.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// One thing in the store whose history is judged by itself: linearizability is local (Herlihy & Wing 1990, theorem 1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A policy object, by name; its value is the number in its text.
    Policy(String),
    /// An endpoint, by name; its value is the number in its named port.
    Endpoint(String),
    /// A label set, by its one distinguishing label; its value is its identity.
    Labels(String),
}

/// What was asked of one key, with the answer. `None`: the answer is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The key has this value from now on.
    Put {
        /// Chosen by the client, never twice.
        value: u64,
        /// Whether it had another one before, or none.
        changed: Option<bool>,
    },
    /// The key has no value from now on.
    Delete {
        /// Whether it had one.
        existed: Option<bool>,
    },
    /// What value does the key have?
    Read {
        /// None: no value.
        seen: Option<u64>,
    },
    /// The key gets a value of the store's choice, unless it has one.
    Allocate {
        /// The value it has.
        number: Option<u64>,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// When, in nanoseconds since the drill's begin.
        at_ns: u64,
        /// The revision that the answer speaks of; none for a refusal.
        revision: Option<u64>,
    },
    /// It was not carried out and never will be.
    Failed,
    /// It may be carried out at any time from its begin on, or never.
    Unknown,
}

/// One call of one client.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Who called.
    pub client: usize,
    /// Which member was asked, by index.
    pub member: usize,
    /// When, in nanoseconds since the drill's begin.
    pub begin_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did, one entry per key; they all happen at the same moment.
    pub parts: Vec<(Key, Action)>,
}

/// One call as seen from one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Who called.
    pub client: usize,
    /// Which member was asked.
    pub member: usize,
    /// What and with which answer.
    pub action: Action,
    /// When it began.
    pub begin_ns: u64,
    /// When it was answered; none if the outcome is unknown.
    pub end_ns: Option<u64>,
}

impl Call {
    /// When it was answered.
    #[must_use]
    pub fn end_ns(&self) -> Option<u64> {
        if let Outcome::Answered { at_ns, .. } = self.outcome { Some(at_ns) } else { None }
    }

    /// The revision of its answer.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        if let Outcome::Answered { revision, .. } = self.outcome { revision } else { None }
    }

    /// Whether it only looked.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.parts.iter().all(|(_, action)| matches!(action, Action::Read { .. }))
    }
}

/// Each key's operations. Calls that surely did nothing are left out: whoever sees an effect of them will miss its cause.
#[must_use]
pub fn by_key(calls: &[Call]) -> BTreeMap<Key, Vec<Operation>> {
    let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.outcome != Outcome::Failed) {
        let (client, member, begin_ns, end_ns) = (call.client, call.member, call.begin_ns, call.end_ns());
        for (key, action) in &call.parts {
            // A read without an answer says nothing.
            if end_ns.is_some() || !matches!(action, Action::Read { .. }) {
                let operation = Operation { client, member, action: *action, begin_ns, end_ns };
                keys.entry(key.clone()).or_default().push(operation);
            }
        }
    }
    keys
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(name) => write!(f, "policy {name}"),
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::Labels(app) => write!(f, "label set app={app}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |answer: Option<String>| answer.unwrap_or_else(|| "unknown".to_owned());
        match self {
            Self::Put { value, changed } => {
                write!(f, "put {value} → changed: {}", or_unknown(changed.map(|c| c.to_string())))
            }
            Self::Delete { existed } => write!(f, "delete → existed: {}", or_unknown(existed.map(|e| e.to_string()))),
            Self::Read { seen: Some(value) } => write!(f, "read → {value}"),
            Self::Read { seen: None } => f.write_str("read → nothing"),
            Self::Allocate { number } => write!(f, "allocate → {}", or_unknown(number.map(|n| n.to_string()))),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |ns: u64| format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000);
        let end = self.end_ns.map_or_else(|| "never answered".to_owned(), milliseconds);
        let begin = milliseconds(self.begin_ns);
        write!(f, "[{begin} … {end}] client {} at m{}: {}", self.client, self.member + 1, self.action)
    }
}
