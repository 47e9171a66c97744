//! Addresses that are no endpoint's: ranges by name, and what DNS names stand for.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{cidr::Cidr, diagnostic::Position, l7::dns_name::DnsName, name::Name, object::CidrGroup};

/// The most addresses that one DNS name can stand for.
pub const MAX_FQDN_ADDRESSES: usize = 1000;
/// The longest DNS name, in bytes of its normal form (RFC 1035 §2.3.4, with a dot at its end and room for escapes).
pub const MAX_FQDN_BYTES: usize = 1024;

/// A `CiliumCIDRGroup`, for the whole mesh (GRP-1, GRP-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrGroupRecord {
    /// Unique in the mesh.
    pub name: Name,
    /// The object's own labels, by key.
    pub labels: BTreeMap<String, String>,
    /// The addresses.
    pub ranges: Vec<Cidr>,
}

/// What a DNS name stands for, as the nodes of one cluster were answered (DNS-1, §5.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FqdnRecord {
    /// Owner.
    pub cluster: Name,
    /// Unique in its cluster.
    pub name: DnsName,
    /// At least one, by address.
    pub addresses: Vec<BoundAddress>,
}

/// One address of a DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundAddress {
    /// The address.
    pub address: IpAddr,
    /// When the store takes it away, in milliseconds of the store's own clock, which starts at 0 and stands still while
    /// the store has no leader. A multiple of [`BoundAddress::GRID_MS`], so that a chatty name makes few revisions.
    pub expires_ms: u64,
}

impl BoundAddress {
    /// Expiries are rounded up to a multiple of this.
    pub const GRID_MS: u64 = 60_000;
}

impl CidrGroupRecord {
    /// The group as rules refer to it. Its position is the beginning: a record has no text.
    #[must_use]
    pub fn group(&self) -> CidrGroup {
        let Self { name, labels, ranges } = self.clone();
        CidrGroup { name, position: Position::START, labels: labels.into_iter().collect(), ranges }
    }
}

impl From<CidrGroup> for CidrGroupRecord {
    fn from(group: CidrGroup) -> Self {
        let CidrGroup { name, labels, ranges, .. } = group;
        Self { name, labels: labels.into_iter().collect(), ranges }
    }
}
