//! Whom a certificate is for.

use std::{fmt, str::FromStr};

use ringfence_policy::name::{InvalidName, Name};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// Before the role in a certificate's name.
const URI_PREFIX: &str = "spiffe://ringfence/";

/// A process or a person of the mesh, written `member/1`, `gateway/east`, `agent/east/n1`, `admin/NAME`, `reader/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
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

/// A text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
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

/// A certificate does not say whose it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownRole {
    /// The connection is not one of mutual TLS.
    #[error("no certificate was shown")]
    NoCertificate,
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Damaged,
    /// It has no name of ours, or several.
    #[error(
        "the certificate must have exactly one name that begins with {URI_PREFIX}, and has {count} ('ringfence ca issue' makes right ones)"
    )]
    Count {
        /// How many.
        count: usize,
    },
    /// Its name is not a role.
    #[error("the certificate's name {uri} names no role: {source}")]
    Invalid {
        /// The name.
        uri: String,
        /// Why.
        source: InvalidRole,
    },
}

impl Role {
    /// The role in a certificate (DER): its one URI in the subject's alternative names (SPIFFE X.509-SVID, 2).
    ///
    /// # Errors
    /// `UnknownRole`.
    pub fn of_certificate(der: &[u8]) -> Result<Self, UnknownRole> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| UnknownRole::Damaged)?;
        let names = certificate.subject_alternative_name().map_err(|_| UnknownRole::Damaged)?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let uris: Vec<&str> = uris.filter(|uri| uri.starts_with(URI_PREFIX)).collect();
        match uris[..] {
            [uri] => {
                uri[URI_PREFIX.len()..].parse().map_err(|source| UnknownRole::Invalid { uri: uri.to_owned(), source })
            }
            _ => Err(UnknownRole::Count { count: uris.len() }),
        }
    }

    /// The name in its certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{URI_PREFIX}{self}")
    }

    /// The first word: `"member"`, `"gateway"`, `"agent"`, `"admin"`, `"reader"`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::Gateway(_) => "gateway",
            Self::Agent { .. } => "agent",
            Self::Admin(_) => "admin",
            Self::Reader(_) => "reader",
        }
    }

    /// Whether others connect to it: only then does its certificate serve for that.
    #[must_use]
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::Member(_) | Self::Gateway(_))
    }
}

impl FromStr for Role {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["member", id] => match id.parse() {
                Ok(number) if number != 0 && u64::to_string(&number) == id => Ok(Self::Member(number)),
                _ => Err(InvalidRole::MemberId),
            },
            ["gateway", cluster] => Ok(Self::Gateway(Name::new(cluster)?)),
            ["agent", cluster, node] => Ok(Self::Agent { cluster: Name::new(cluster)?, node: Name::new(node)? }),
            ["admin", name] => Ok(Self::Admin(Name::new(name)?)),
            ["reader", name] => Ok(Self::Reader(Name::new(name)?)),
            ["member", ..] => Err(InvalidRole::Form { form: "member/ID, for example member/1" }),
            ["gateway", ..] => Err(InvalidRole::Form { form: "gateway/CLUSTER, for example gateway/east" }),
            ["agent", ..] => Err(InvalidRole::Form { form: "agent/CLUSTER/NODE, for example agent/east/n1" }),
            ["admin", ..] => Err(InvalidRole::Form { form: "admin/NAME, for example admin/alice" }),
            ["reader", ..] => Err(InvalidRole::Form { form: "reader/NAME, for example reader/dashboard" }),
            _ => Err(InvalidRole::Role),
        }
    }
}

impl fmt::Display for Role {
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
    fn roles_are_written_as_they_are_read() {
        for text in ["member/1", "gateway/east", "agent/east/n1", "admin/alice", "reader/dashboard.shop"] {
            let role: Role = text.parse().unwrap();
            assert_eq!(role.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_role_is_told_what_would_be_one() {
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
            let error = text.parse::<Role>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
