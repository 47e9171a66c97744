//! Tables without the numbers that depend on history: of policies, and of identities that only this node has.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AddressEntry, EndpointId, PolicyId, PortsOfProtocol, Row, Tables};
use crate::{cidr::Cidr, flow::Direction, identity::Identity};

/// What tables mean: equal for every history that leads to the same state (S14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTables<'t> {
    addresses: &'t BTreeMap<IpAddr, AddressEntry>,
    ranges: BTreeMap<Cidr, Peer>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content<'t> {
    ports: Vec<(Direction, u8, &'t PortsOfProtocol)>,
    rows: BTreeMap<(Direction, Peer, u16), Row>,
}

/// Whom rows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Identity(Identity),
    /// Whoever has the least of the ranges with its local identity.
    Range(Cidr),
}

impl Tables {
    /// The tables with each policy in the place of its number, and each local identity named by its range. Policies that
    /// no endpoint has do not count.
    #[must_use]
    pub fn resolved(&self) -> ResolvedTables<'_> {
        let mut of_ranges: BTreeMap<Identity, Cidr> = BTreeMap::new();
        for (range, identity) in self.ranges.iter().filter(|(_, identity)| identity.is_local()) {
            of_ranges.entry(*identity).or_insert(*range);
        }
        let peer =
            |identity: Identity| of_ranges.get(&identity).map_or(Peer::Identity(identity), |at| Peer::Range(*at));
        let mut contents: BTreeMap<PolicyId, Content<'_>> = BTreeMap::new();
        for (key, ports) in &self.ports {
            contents.entry(key.policy).or_default().ports.push((key.direction, key.protocol, ports));
        }
        for (key, row) in &self.rows {
            let rows = &mut contents.entry(key.policy).or_default().rows;
            rows.insert((key.direction, peer(key.peer), key.chunk), *row);
        }
        let content = |policy: PolicyId| contents.get(&policy).cloned().unwrap_or_default();
        let endpoints = self.endpoints.iter().map(|(id, entry)| {
            let (policy, shadow) = (content(entry.policy), entry.shadow.map(content));
            (*id, Resolved { identity: entry.identity, policy, shadow, audit: entry.audit })
        });
        let ranges = self.ranges.iter().map(|(range, identity)| (*range, peer(*identity))).collect();
        ResolvedTables { addresses: &self.addresses, ranges, endpoints: endpoints.collect() }
    }

    /// The policies that say something, or that an endpoint has, each with the policy of other tables that says the same,
    /// if there is one. None of those twice.
    #[must_use]
    pub fn equal_policies(&self, others: &Self) -> BTreeMap<PolicyId, Option<PolicyId>> {
        type Said<'t> = (Vec<(Direction, u8, &'t PortsOfProtocol)>, Vec<(Direction, Identity, u16, Row)>);
        fn said(tables: &Tables) -> BTreeMap<PolicyId, Said<'_>> {
            let mut said: BTreeMap<PolicyId, Said<'_>> = BTreeMap::new();
            for entry in tables.endpoints.values() {
                for policy in [Some(entry.policy), entry.shadow].into_iter().flatten() {
                    said.entry(policy).or_default();
                }
            }
            for (key, ports) in &tables.ports {
                said.entry(key.policy).or_default().0.push((key.direction, key.protocol, ports));
            }
            for (key, row) in &tables.rows {
                said.entry(key.policy).or_default().1.push((key.direction, key.peer, key.chunk, *row));
            }
            said
        }
        let mut there: BTreeMap<Said<'_>, PolicyId> =
            said(others).into_iter().map(|(policy, said)| (said, policy)).collect();
        said(self).into_iter().map(|(policy, said)| (policy, there.remove(&said))).collect()
    }
}
