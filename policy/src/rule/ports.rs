//! The ports of an element.

use super::proxy::Proxy;
use crate::{diagnostic::Position, flow::protocol};

/// One element of `toPorts`, or all of `icmps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// Where it begins in its object's text.
    pub position: Position,
    /// Which ports; none at all allows nothing (SEM-26).
    pub ports: Vec<Port>,
    /// What a proxy checks on them.
    pub proxy: Proxy,
}

/// One entry of `ports`, or one field of `icmps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Which protocols.
    pub protocol: PortProtocol,
    /// Which of their ports, or of their message types.
    pub number: PortNumber,
    /// `endPort` as it is written, 0 if it is not: elements meet, and may contradict each other, only where they write
    /// their ports alike (§3.3).
    pub end_port: u16,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortNumber {
    /// From the first to the last, both included.
    Range {
        /// The smallest.
        first: u16,
        /// The largest.
        last: u16,
    },
    /// What the workload calls so, up to `last` if that is greater (PORT-4, PORT-5).
    Named {
        /// In lower case.
        name: String,
        /// 0 for just that one.
        last: u16,
    },
}

/// The protocols that policies name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP, UDP and SCTP (SEM-41).
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP for IPv4; its ports are message types (ICMP-1).
    Icmp,
    /// ICMP for IPv6; its ports are message types.
    Icmpv6,
}

impl PortNumber {
    /// Every port (SEM-27).
    pub const EVERY: Self = Self::Range { first: 0, last: u16::MAX };

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self::Range { first: port, last: port }
    }
}

impl PortProtocol {
    /// Those that `ports` may name, each with its word.
    pub const WORDS: [(&'static str, Self); 4] =
        [("TCP", Self::Tcp), ("UDP", Self::Udp), ("SCTP", Self::Sctp), ("ANY", Self::Any)];

    /// The IP protocol numbers.
    #[must_use]
    pub const fn numbers(self) -> &'static [u8] {
        match self {
            Self::Any => &[protocol::TCP, protocol::UDP, protocol::SCTP],
            Self::Tcp => &[protocol::TCP],
            Self::Udp => &[protocol::UDP],
            Self::Sctp => &[protocol::SCTP],
            Self::Icmp => &[protocol::ICMP],
            Self::Icmpv6 => &[protocol::ICMPV6],
        }
    }
}
