//! Tables without the numbers of policies, which depend on history.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AddressEntry, EndpointId, PolicyId, PortsOfProtocol, Row, Tables};
use crate::{cidr::Cidr, flow::Direction, identity::Identity};

/// What tables mean: equal for every history that leads to the same state (S14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTables<'t> {
    addresses: &'t BTreeMap<IpAddr, AddressEntry>,
    ranges: &'t BTreeMap<Cidr, Identity>,
    endpoints: BTreeMap<EndpointId, Resolved<'t>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved<'t> {
    identity: Identity,
    policy: Content<'t>,
    shadow: Option<Content<'t>>,
    audit: bool,
}

/// A policy without its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content<'t> {
    ports: Vec<(Direction, u8, &'t PortsOfProtocol)>,
    rows: Vec<(Direction, Identity, u16, Row)>,
}

impl Tables {
    /// The tables with each policy in the place of its number. Policies that no endpoint has do not count.
    #[must_use]
    pub fn resolved(&self) -> ResolvedTables<'_> {
        let contents = self.contents();
        let content = |policy: PolicyId| contents.get(&policy).cloned().unwrap_or_default();
        let endpoints = self.endpoints.iter().map(|(id, entry)| {
            let (policy, shadow) = (content(entry.policy), entry.shadow.map(content));
            (*id, Resolved { identity: entry.identity, policy, shadow, audit: entry.audit })
        });
        ResolvedTables { addresses: &self.addresses, ranges: &self.ranges, endpoints: endpoints.collect() }
    }

    /// What each policy says.
    pub(crate) fn contents(&self) -> BTreeMap<PolicyId, Content<'_>> {
        let mut contents: BTreeMap<PolicyId, Content<'_>> = BTreeMap::new();
        for (key, ports) in &self.ports {
            contents.entry(key.policy).or_default().ports.push((key.direction, key.protocol, ports));
        }
        for (key, row) in &self.rows {
            contents.entry(key.policy).or_default().rows.push((key.direction, key.peer, key.chunk, *row));
        }
        contents
    }
}
