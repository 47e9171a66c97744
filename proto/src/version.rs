//! What a process understands, told with every call.
//!
//! ```text
//! caller ─ user-agent: ringfence/VERSION features/LEVEL ─► AccessLayer ─► Peers (members by id, gateways by cluster)
//! command ─ level_of ─► Peers::check: all of them understand it ─► proposed, else refused with who does not
//! ```
//!
//! A log entry that one member cannot read would stop that member for good: nothing enters the log that some member
//! has not said it understands. A member that was never heard counts as one of the first level.
//!
//! A gateway that cannot read a record would stay at the revision before it, and its whole cluster with it. So those that
//! called lately have a say, too; every gateway calls every member with its reports.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ringfence_policy::{command::Command, name::Name, record::RecordKey, reserved::reserved_endpoint};

/// The level of this software. Raise it with every kind of command or record that older members do not understand.
pub const LEVEL: u32 = 3;
/// What every released version understands: a member that was not heard yet is counted on for that much.
pub const FIRST_LEVEL: u32 = 2;

/// How long a gateway that does not call any more has a say: it reports every few seconds.
const GATEWAY_MEMORY: Duration = Duration::from_secs(60);

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

/// The members and gateways that were heard, and what each understands.
#[derive(Debug, Default)]
pub struct Peers {
    heard: Mutex<BTreeMap<u64, Introduction>>,
    /// A cluster may have several, with one role: each level that one of them has, and when it was heard last.
    gateways: Mutex<BTreeMap<(Name, u32), (String, Instant)>>,
}

/// A process that has to understand a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A member of the store, by its id.
    Member(u64),
    /// A gateway of a cluster.
    Gateway(Name),
}

/// Some member or gateway would not understand a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this needs feature level {needed}, and {reader} ({version}) understands {level}: upgrade every member and gateway first"
)]
pub struct NotUnderstood {
    /// What the command needs.
    pub needed: u32,
    /// Who would not understand.
    pub reader: Reader,
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
        let mut heard = lock(&self.heard);
        if heard.get(&member) != Some(&introduction) {
            tracing::info!(member, version = introduction.version, level = introduction.level, "a member is heard");
            heard.insert(member, introduction);
        }
    }

    /// A gateway of a cluster said what it is.
    pub fn heard_gateway(&self, cluster: &Name, introduction: Introduction) {
        let Introduction { version, level } = introduction;
        let before = lock(&self.gateways).insert((cluster.clone(), level), (version.clone(), Instant::now()));
        if before.is_none() {
            tracing::info!(%cluster, version, level, "a gateway is heard");
        }
    }

    /// The levels of the members that were heard.
    #[must_use]
    pub fn levels(&self) -> BTreeMap<u64, u32> {
        lock(&self.heard).iter().map(|(member, introduction)| (*member, introduction.level)).collect()
    }

    /// Whether all `members`, and the gateways that were heard lately, understand what needs a level.
    ///
    /// # Errors
    /// `NotUnderstood` with the first one that does not.
    pub fn check(&self, needed: u32, members: impl IntoIterator<Item = u64>) -> Result<(), NotUnderstood> {
        let heard = lock(&self.heard);
        for member in members {
            let known = heard.get(&member);
            let level = known.map_or(FIRST_LEVEL, |introduction| introduction.level);
            if level < needed {
                let version = known.map_or("not heard yet".to_owned(), |introduction| introduction.version.clone());
                return Err(NotUnderstood { needed, reader: Reader::Member(member), version, level });
            }
        }
        let mut gateways = lock(&self.gateways);
        gateways.retain(|_, (_, last)| last.elapsed() < GATEWAY_MEMORY);
        match gateways.iter().find(|((_, level), _)| *level < needed) {
            Some(((cluster, level), (version, _))) => {
                let reader = Reader::Gateway(cluster.clone());
                Err(NotUnderstood { needed, reader, version: version.clone(), level: *level })
            }
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member {id}"),
            Self::Gateway(cluster) => write!(f, "a gateway of cluster {cluster}"),
        }
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
    use ringfence_policy::{command::EndpointSpec, label::LabelSet};

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
        assert_eq!((refused.reader, refused.level, refused.version.as_str()), (Reader::Member(1), 3, "0.3.0"));
        assert_eq!(
            peers.check(3, [1, 9]).unwrap_err().reader,
            Reader::Member(9),
            "who was not heard is not counted on"
        );
        peers.heard(1, introduce(4));
        assert_eq!(peers.check(4, [1, 2]), Ok(()), "an upgrade counts at once");
        let (east, west) = (Name::new("east").unwrap(), Name::new("west").unwrap());
        peers.heard_gateway(&east, introduce(4));
        assert_eq!(peers.check(4, [1, 2]), Ok(()));
        peers.heard_gateway(&west, introduce(4));
        peers.heard_gateway(&west, introduce(3));
        let refused = peers.check(4, [1, 2]).unwrap_err();
        assert!(
            refused.to_string().contains("a gateway of cluster west (0.3.0) understands 3"),
            "one of two: {refused}"
        );
        assert_eq!(peers.check(3, [1, 2]), Ok(()));
    }
}
