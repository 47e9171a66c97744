//! What a proxy is asked to check on a port.

use std::{collections::BTreeSet, fmt};

use crate::{flow::protocol, l7::rules::L7Rules};

/// What stands beside `ports` in an element of `toPorts`. Without any of it, no proxy is involved (L7-1).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// `rules`; none if they are absent or every list in them is empty.
    pub rules: Option<L7Rules>,
    /// `terminatingTLS` (TLS-3).
    pub terminating_tls: Option<TlsContext>,
    /// `originatingTLS` (TLS-3).
    pub originating_tls: Option<TlsContext>,
    /// `serverNames` (TLS-1).
    pub server_names: BTreeSet<String>,
    /// `listener`.
    pub listener: Option<Listener>,
}

/// A secret with certificates and keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsContext {
    /// The secret's namespace; empty if it is not written.
    pub namespace: String,
    /// The secret's name.
    pub name: String,
    /// The items of the secret that are named: `trustedCA`, `certificate`, `privateKey`; empty for the usual ones.
    pub items: [String; 3],
}

/// A listener of the proxy that decides by itself (LSN-1, LSN-2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// `<namespace>/<configuration>/<listener>`; the namespace is empty for a clusterwide configuration.
    pub name: String,
    /// 1 is the best, 100 the worst; 0 if it is not written (§6.2).
    pub priority: u8,
    /// It is in a namespace, and the object that names it is not (VAL-29).
    pub out_of_reach: bool,
}

/// Which part of the proxy reads the flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parser {
    /// TLS, for server names and TLS contexts without rules.
    Tls,
    /// HTTP and gRPC.
    Http,
    /// Kafka.
    Kafka,
    /// DNS.
    Dns,
    /// A listener of its own.
    Listener,
    /// A parser of `l7proto`.
    Generic(String),
}

impl Proxy {
    /// Who reads flows of a protocol; none if no proxy is involved.
    #[must_use]
    pub fn parser(&self, protocol: u8) -> Option<Parser> {
        if self.listener.is_some() {
            return Some(Parser::Listener);
        }
        if let Some(rules) = &self.rules {
            let filled = |list: Option<usize>| list.is_some_and(|length| length > 0);
            if filled(rules.dns.as_ref().map(Vec::len)) {
                return Some(Parser::Dns);
            }
            if protocol == protocol::TCP {
                if filled(rules.http.as_ref().map(Vec::len)) {
                    return Some(Parser::Http);
                }
                if filled(rules.kafka.as_ref().map(Vec::len)) {
                    return Some(Parser::Kafka);
                }
                if !rules.l7proto.is_empty() {
                    return Some(Parser::Generic(rules.l7proto.clone()));
                }
            }
        }
        let tls = self.terminating_tls.is_some() || self.originating_tls.is_some() || !self.server_names.is_empty();
        tls.then_some(Parser::Tls)
    }
}

impl Proxy {
    /// Whether nothing in it could refuse a request: TLS contexts alone do not (L7-2).
    #[must_use]
    pub fn passes_everything(&self) -> bool {
        self.rules.is_none() && self.server_names.is_empty() && self.listener.is_none()
    }
}

impl Parser {
    /// The one parser for two elements with the same ports; none if they contradict each other (CONF-1).
    #[must_use]
    pub fn merged(self, other: Self) -> Option<Self> {
        let promoted = |tls: &Self, to: &Self| *tls == Self::Tls && !matches!(to, Self::Dns | Self::Listener);
        if self == other || promoted(&other, &self) {
            Some(self)
        } else if promoted(&self, &other) {
            Some(other)
        } else {
            None
        }
    }
}

impl fmt::Display for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Kafka => "kafka",
            Self::Dns => "dns",
            Self::Listener => "crd",
            Self::Generic(name) => name,
        })
    }
}
