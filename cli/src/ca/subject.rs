//! Whom a certificate is for.

use std::{fmt, str::FromStr};

use ringfence_policy::name::{InvalidName, Name};

/// A process or a person of the mesh, written `member/1`, `gateway/east`, `agent/east/n1`, `admin/NAME`, `reader/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A member of the store, by its id.
    Member(u64),
    /// A cluster's gateway.
    Gateway(Name),
    /// A node's agent.
    Agent {
        /// The node's cluster.
        cluster: Name,
        /// The node.
        node: Name,
    },
    /// A person or program that may change things.
    Admin(Name),
    /// A person or program that may look.
    Reader(Name),
}

/// A text is not a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSubject {
    /// It begins with something else than a role.
    #[error("use member/ID, gateway/CLUSTER, agent/CLUSTER/NODE, admin/NAME or reader/NAME")]
    Role,
    /// Too few or too many parts for its role.
    #[error("write {form}")]
    Form {
        /// What is right.
        form: &'static str,
    },
    /// A member's id is not one.
    #[error("a member has a number: write member/ID with an ID from 1, for example member/1")]
    MemberId,
    /// A part is not a name.
    #[error("{source}")]
    Name {
        /// Why.
        #[from]
        source: InvalidName,
    },
}

impl Subject {
    /// What its files are called, without `.crt` and `.key`.
    pub(crate) fn file_stem(&self) -> String {
        self.to_string().replace('/', "-")
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["member", id] => match id.parse() {
                Ok(number) if number != 0 && u64::to_string(&number) == id => Ok(Self::Member(number)),
                _ => Err(InvalidSubject::MemberId),
            },
            ["gateway", cluster] => Ok(Self::Gateway(Name::new(cluster)?)),
            ["agent", cluster, node] => Ok(Self::Agent { cluster: Name::new(cluster)?, node: Name::new(node)? }),
            ["admin", name] => Ok(Self::Admin(Name::new(name)?)),
            ["reader", name] => Ok(Self::Reader(Name::new(name)?)),
            ["member", ..] => Err(InvalidSubject::Form { form: "member/ID, for example member/1" }),
            ["gateway", ..] => Err(InvalidSubject::Form { form: "gateway/CLUSTER, for example gateway/east" }),
            ["agent", ..] => Err(InvalidSubject::Form { form: "agent/CLUSTER/NODE, for example agent/east/n1" }),
            ["admin", ..] => Err(InvalidSubject::Form { form: "admin/NAME, for example admin/alice" }),
            ["reader", ..] => Err(InvalidSubject::Form { form: "reader/NAME, for example reader/dashboard" }),
            _ => Err(InvalidSubject::Role),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member/{id}"),
            Self::Gateway(cluster) => write!(f, "gateway/{cluster}"),
            Self::Agent { cluster, node } => write!(f, "agent/{cluster}/{node}"),
            Self::Admin(name) => write!(f, "admin/{name}"),
            Self::Reader(name) => write!(f, "reader/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_written_as_they_are_read() {
        for text in ["member/1", "gateway/east", "agent/east/n1", "admin/alice", "reader/dashboard.shop"] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.to_string(), text);
            assert_eq!(subject.file_stem(), text.replace('/', "-"));
        }
    }

    #[test]
    fn what_is_no_subject_is_told_what_would_be_one() {
        let cases = [
            ("", "use member/ID, gateway/"),
            ("root/x", "use member/ID, gateway/"),
            ("Member/1", "use member/ID, gateway/"),
            ("member", "write member/ID"),
            ("member/1/2", "write member/ID"),
            ("member/0", "an ID from 1"),
            ("member/01", "an ID from 1"),
            ("member/+1", "an ID from 1"),
            ("member/east", "an ID from 1"),
            ("gateway", "write gateway/CLUSTER"),
            ("gateway/", "\"\" is not a valid name"),
            ("gateway/East", "\"East\" is not a valid name"),
            ("agent/n1", "write agent/CLUSTER/NODE"),
            ("agent/east/..", "\"..\" is not a valid name"),
            ("agent/east/n1/", "write agent/CLUSTER/NODE"),
            ("admin/a b", "\"a b\" is not a valid name"),
            ("reader", "write reader/NAME"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Subject>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
