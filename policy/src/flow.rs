//! Flows and verdicts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// Which side of the subject a flow is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer sends to the subject.
    Ingress,
    /// The subject sends to the peer.
    Egress,
}

/// IP protocol numbers that policies speak of.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What a policy decides about: the first packet of a connection, seen from one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The endpoint the policy is applied to.
    pub subject: Identity,
    /// The other side.
    pub peer: Identity,
    /// Seen from the subject.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; the message type for ICMP and ICMPv6.
    pub port: u16,
}

/// The outcome for one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The flow passes.
    Allow,
    /// Nothing allows it in an enforced direction.
    DenyDefault,
    /// A deny rule matches it; no allow can help.
    DenyExplicit,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::DenyDefault => "deny (default)",
            Self::DenyExplicit => "deny (explicit)",
        })
    }
}
