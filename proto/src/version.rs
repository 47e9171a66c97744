//! What a process understands, told with every call.
//!
//! ```text
//! caller ─ user-agent: ringfence/VERSION features/LEVEL ─► AccessLayer ─► Peers (members by id)
//! command ─ level_of ─► Peers::check: every member understands it ─► proposed, else refused with who does not
//! ```
//!
//! A log entry that one member cannot read would stop that member for good: nothing enters the log that some member
//! has not said it understands. A member that was never heard counts as one of the first level.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ringfence_policy::{command::Command, record::RecordKey, reserved::reserved_endpoint};

/// The level of this software. Raise it with every kind of command or record that older members do not understand.
pub const LEVEL: u32 = 3;
/// What every released version understands: a member that was not heard yet is counted on for that much.
pub const FIRST_LEVEL: u32 = 2;

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Of the software, for people.
    pub version: String,
    /// What it understands.
    pub level: u32,
}

/// Not an introduction: something else than a Ringfence process, or one from before introductions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the introduction of a Ringfence process")]
pub struct NoIntroduction;

/// The members that were heard, and what each understands.
#[derive(Debug, Default)]
pub struct Peers {
    heard: Mutex<BTreeMap<u64, Introduction>>,
}

/// Some member would not understand a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this needs feature level {needed}, and member {member} ({version}) understands {level}: upgrade every member first"
)]
pub struct NotUnderstood {
    /// What the command needs.
    pub needed: u32,
    /// Who would not understand.
    pub member: u64,
    /// Its version.
    pub version: String,
    /// What it understands.
    pub level: u32,
}

/// The level from which on members understand a command. A new kind of command says its own here.
#[must_use]
pub fn level_of(command: &Command) -> u32 {
    match command {
        // Older members refuse every reserved label (docs/decisions/0011).
        Command::PutEndpoint(spec) if reserved_endpoint(&spec.labels).is_some() => 3,
        Command::PutCluster(_)
        | Command::PutNode(_)
        | Command::PutEndpoint(_)
        | Command::AllocateIdentity { .. }
        | Command::PutPolicies(_)
        | Command::DeletePolicies(_)
        | Command::Delete(
            RecordKey::Cluster(_)
            | RecordKey::Node(..)
            | RecordKey::Identity(_)
            | RecordKey::Endpoint(..)
            | RecordKey::Policy(_),
        ) => 1,
        Command::Delete(
            RecordKey::CidrGroup(_)
            | RecordKey::Service(..)
            | RecordKey::Fqdn(..)
            | RecordKey::Block(..)
            | RecordKey::Settings,
        )
        | Command::PutObjects { .. }
        | Command::PutServices(_)
        | Command::PutFqdns(_)
        | Command::PutSettings(_)
        | Command::ReleaseIdentity(_)
        | Command::KeepAlive { .. }
        | Command::GrantBlock { .. }
        | Command::ReturnBlock { .. }
        | Command::AdoptFromBlock { .. }
        | Command::Housekeeping(_) => 2,
    }
}

impl Introduction {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), level: LEVEL }
    }
}

impl Peers {
    /// A member said what it is.
    pub fn heard(&self, member: u64, introduction: Introduction) {
        let mut heard = self.lock();
        if heard.get(&member) != Some(&introduction) {
            tracing::info!(member, version = introduction.version, level = introduction.level, "a member is heard");
            heard.insert(member, introduction);
        }
    }

    /// The levels of the members that were heard.
    #[must_use]
    pub fn levels(&self) -> BTreeMap<u64, u32> {
        self.lock().iter().map(|(member, introduction)| (*member, introduction.level)).collect()
    }

    /// Whether all `members` understand what needs a level.
    ///
    /// # Errors
    /// `NotUnderstood` with the first one that does not.
    pub fn check(&self, needed: u32, members: impl IntoIterator<Item = u64>) -> Result<(), NotUnderstood> {
        let heard = self.lock();
        for member in members {
            let known = heard.get(&member);
            let level = known.map_or(FIRST_LEVEL, |introduction| introduction.level);
            if level < needed {
                let version = known.map_or("not heard yet".to_owned(), |introduction| introduction.version.clone());
                return Err(NotUnderstood { needed, member, version, level });
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Introduction>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ringfence/{} features/{}", self.version, self.level)
    }
}

impl FromStr for Introduction {
    type Err = NoIntroduction;

    /// What comes after it (the HTTP library's name) is not looked at.
    fn from_str(text: &str) -> Result<Self, NoIntroduction> {
        let mut words = text.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('/');
        let version = value("ringfence").ok_or(NoIntroduction)?.to_owned();
        let level = value("features").and_then(|level| level.parse().ok()).ok_or(NoIntroduction)?;
        Ok(Self { version, level })
    }
}

#[cfg(test)]
mod tests {
    use ringfence_policy::{command::EndpointSpec, label::LabelSet, name::Name};

    use super::*;

    #[test]
    fn introductions_are_read_as_they_are_written() {
        let own = Introduction::own();
        assert_eq!(format!("{own} tonic/0.14.9").parse(), Ok(own));
        for other in ["", "tonic/0.14.9", "ringfence/1", "ringfence/1 features/x", "features/1 ringfence/1"] {
            assert_eq!(other.parse::<Introduction>(), Err(NoIntroduction), "{other}");
        }
    }

    #[test]
    fn a_proxys_address_needs_members_that_know_of_it() {
        let name = |text: &str| Name::new(text).unwrap();
        let endpoint = |label: &str| {
            Command::PutEndpoint(EndpointSpec {
                cluster: name("east"),
                node: name("n1"),
                name: name("reserved-ingress"),
                addresses: vec![[10, 101, 1, 1].into()],
                labels: LabelSet::parse([label]).unwrap(),
                named_ports: vec![],
            })
        };
        let levels = ["reserved:ingress", "reserved:health", "reserved:host", "k8s:app=web"];
        assert_eq!(levels.map(|label| level_of(&endpoint(label))), [3, 3, 1, 1]);
    }

    #[test]
    fn what_some_member_does_not_understand_is_refused_by_name() {
        let peers = Peers::default();
        let introduce = |level| Introduction { version: format!("0.{level}.0"), level };
        peers.heard(1, introduce(3));
        peers.heard(2, introduce(4));
        assert_eq!(peers.check(3, [1, 2]), Ok(()));
        assert_eq!(peers.check(FIRST_LEVEL, [1, 2, 9]), Ok(()));
        let refused = peers.check(4, [1, 2]).unwrap_err();
        assert_eq!((refused.member, refused.level, refused.version.as_str()), (1, 3, "0.3.0"));
        assert_eq!(peers.check(3, [1, 9]).unwrap_err().member, 9, "who was not heard is not counted on");
        peers.heard(1, introduce(4));
        assert_eq!(peers.check(4, [1, 2]), Ok(()), "an upgrade counts at once");
    }
}
