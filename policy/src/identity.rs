//! Numeric identities: 32 bits, `scope:2 | cluster:10 | number:20` (docs/decisions/0004).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number that stands for one label set in the kernel's maps and on the wire between components.
///
/// Numbers 0–255 of cluster 0 are reserved and keep the meaning operators know (ID §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(u32);

/// The cluster part of an identity: 0 = no cluster (reserved identities), 1–1023 = a member of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClusterId(u16);

/// Why a number is not an identity or a cluster id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Cluster ids are 1–1023.
    #[error("cluster id {id} is out of range: a member of the mesh has an id from 1 to {}", ClusterId::MAX)]
    Cluster {
        /// The number that was given.
        id: u32,
    },
    /// Numbers within a cluster are 1–1,048,575.
    #[error("identity number {number} is out of range: a cluster has numbers from 1 to {}", Identity::MAX_NUMBER)]
    Number {
        /// The number that was given.
        number: u32,
    },
}

impl ClusterId {
    /// The largest cluster id.
    pub const MAX: u16 = 1023;

    /// A member's id.
    ///
    /// # Errors
    /// `InvalidIdentity::Cluster` outside 1–1023.
    pub fn new(id: u32) -> Result<Self, InvalidIdentity> {
        match u16::try_from(id) {
            Ok(cluster) if (1..=Self::MAX).contains(&cluster) => Ok(Self(cluster)),
            _ => Err(InvalidIdentity::Cluster { id }),
        }
    }

    /// The id as a number, 1–1023.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Identity {
    /// No identity is known for an address inside the mesh's pod ranges: no rule except `all` selects it (S12).
    /// The same number is the "any peer" of a policy key.
    pub const UNKNOWN: Self = Self(0);
    /// The local node.
    pub const HOST: Self = Self(1);
    /// Everything outside the mesh, where one address family is in use.
    pub const WORLD: Self = Self(2);
    /// Health check endpoints of every node.
    pub const HEALTH: Self = Self(4);
    /// Every other node of the mesh.
    pub const REMOTE_NODE: Self = Self(6);
    /// The proxies behind Ingress and Gateway objects, of every node.
    pub const INGRESS: Self = Self(8);
    /// Outside the mesh, IPv4.
    pub const WORLD_IPV4: Self = Self(9);
    /// Outside the mesh, IPv6.
    pub const WORLD_IPV6: Self = Self(10);
    /// The largest number within a cluster.
    pub const MAX_NUMBER: u32 = (1 << Self::NUMBER_BITS) - 1;

    const NUMBER_BITS: u32 = 20;
    const SCOPE_SHIFT: u32 = 30;
    const LOCAL_SCOPE: u32 = 1;
    const RESERVED: [(u32, &'static str); 11] = [
        (0, "unknown"),
        (1, "host"),
        (2, "world"),
        (3, "unmanaged"),
        (4, "health"),
        (5, "init"),
        (6, "remote-node"),
        (7, "kube-apiserver"),
        (8, "ingress"),
        (9, "world-ipv4"),
        (10, "world-ipv6"),
    ];

    /// A global identity of a cluster.
    ///
    /// # Errors
    /// `InvalidIdentity::Number` outside 1–1,048,575.
    pub fn global(cluster: ClusterId, number: u32) -> Result<Self, InvalidIdentity> {
        if number == 0 || number > Self::MAX_NUMBER {
            return Err(InvalidIdentity::Number { number });
        }
        Ok(Self(u32::from(cluster.get()) << Self::NUMBER_BITS | number))
    }

    /// An identity that means something on one node only: of address ranges that policies name.
    ///
    /// # Errors
    /// `InvalidIdentity::Number` outside 1–1,048,575.
    pub fn local(number: u32) -> Result<Self, InvalidIdentity> {
        if number == 0 || number > Self::MAX_NUMBER {
            return Err(InvalidIdentity::Number { number });
        }
        Ok(Self(Self::LOCAL_SCOPE << Self::SCOPE_SHIFT | number))
    }

    /// Whether it means something on one node only.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 >> Self::SCOPE_SHIFT == Self::LOCAL_SCOPE
    }

    /// Any 32 bits, as they stand in a map, on the wire or on disk.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The cluster that allocated it; none for reserved identities.
    #[must_use]
    pub fn cluster(self) -> Option<ClusterId> {
        let cluster = self.0 >> Self::NUMBER_BITS & u32::from(ClusterId::MAX);
        ClusterId::new(cluster).ok()
    }

    /// The number within its cluster.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & Self::MAX_NUMBER
    }

    /// The name of a reserved identity (`host`, `world`, …).
    #[must_use]
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::RESERVED.iter().find(|(bits, _)| *bits == self.0).map(|(_, name)| *name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reserved_name(), self.cluster()) {
            (Some(name), _) => write!(f, "Identity({name})"),
            (None, Some(cluster)) => write!(f, "Identity({}/{})", cluster, self.number()),
            (None, None) => write!(f, "Identity({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_scope_cluster_number() {
        let identity = Identity::global(ClusterId::new(1023).unwrap(), 0xf_ffff).unwrap();
        assert_eq!(identity.bits(), 0x3fff_ffff);
        assert_eq!(identity.cluster().map(ClusterId::get), Some(1023));
        assert_eq!(identity.number(), 0xf_ffff);
        assert_eq!(Identity::global(ClusterId::new(1).unwrap(), 1).unwrap().bits(), 0x0010_0001);
        assert!(Identity::local(7).is_ok_and(|identity| identity.bits() == 0x4000_0007 && identity.is_local()));
        assert!(!Identity::from_bits(0x8000_0001).is_local() && !identity.is_local());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(ClusterId::new(0), Err(InvalidIdentity::Cluster { id: 0 }));
        assert_eq!(ClusterId::new(1024), Err(InvalidIdentity::Cluster { id: 1024 }));
        let cluster = ClusterId::new(1).unwrap();
        assert_eq!(Identity::global(cluster, 0), Err(InvalidIdentity::Number { number: 0 }));
        assert_eq!(Identity::global(cluster, 1 << 20), Err(InvalidIdentity::Number { number: 1 << 20 }));
        assert_eq!(Identity::local(0), Err(InvalidIdentity::Number { number: 0 }));
        assert_eq!(Identity::local(1 << 20), Err(InvalidIdentity::Number { number: 1 << 20 }));
    }

    #[test]
    fn reserved_numbers_keep_the_names_operators_know() {
        assert_eq!(Identity::HOST.reserved_name(), Some("host"));
        assert_eq!(Identity::REMOTE_NODE.reserved_name(), Some("remote-node"));
        assert_eq!(Identity::WORLD_IPV6.reserved_name(), Some("world-ipv6"));
        assert_eq!(Identity::from_bits(0x0010_0001).reserved_name(), None);
    }
}
