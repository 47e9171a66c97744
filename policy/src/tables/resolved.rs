//! Tables without the numbers that depend on history: of policies, and of identities that only this node has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{AddressEntry, EndpointId, PolicyId, PortsOfProtocol, Row, Tables};
use crate::{cidr::Cidr, flow::Direction, identity::Identity};

/// What tables mean: equal for every history that leads to the same state (S14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTables<'t> {
    addresses: BTreeMap<IpAddr, (Peer, Option<EndpointId>)>,
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
    /// Whoever has the least of the addresses with its local identity.
    Address(IpAddr),
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
        let mut of_addresses: BTreeMap<Identity, IpAddr> = BTreeMap::new();
        for (address, entry) in self.addresses.iter().filter(|(_, entry)| entry.identity.is_local()) {
            of_addresses.entry(entry.identity).or_insert(*address);
        }
        let peer = |identity: Identity| match (of_ranges.get(&identity), of_addresses.get(&identity)) {
            (Some(range), _) => Peer::Range(*range),
            (None, Some(address)) => Peer::Address(*address),
            (None, None) => Peer::Identity(identity),
        };
        let mut contents: BTreeMap<PolicyId, Content<'_>> = BTreeMap::new();
        for (key, ports) in &self.ports {
            contents.entry(key.policy).or_default().ports.push((key.direction, key.protocol, ports));
        }
        // Of an identity that no address and no range has: a node whose addresses somebody else claims, too.
        let is_nobody = |identity: &Identity| {
            identity.is_local() && !of_ranges.contains_key(identity) && !of_addresses.contains_key(identity)
        };
        for (key, row) in self.rows.iter().filter(|(key, _)| !is_nobody(&key.peer)) {
            let rows = &mut contents.entry(key.policy).or_default().rows;
            rows.insert((key.direction, peer(key.peer), key.chunk), *row);
        }
        let content = |policy: PolicyId| contents.get(&policy).cloned().unwrap_or_default();
        let endpoints = self.endpoints.iter().map(|(id, entry)| {
            let (policy, shadow) = (content(entry.policy), entry.shadow.map(content));
            (*id, Resolved { identity: entry.identity, policy, shadow, audit: entry.audit })
        });
        let ranges = self.ranges.iter().map(|(range, identity)| (*range, peer(*identity))).collect();
        let address = |(address, entry): (&IpAddr, &AddressEntry)| (*address, (peer(entry.identity), entry.endpoint));
        ResolvedTables {
            addresses: self.addresses.iter().map(address).collect(),
            ranges,
            endpoints: endpoints.collect(),
        }
    }

    /// For policies that endpoints have or that say something: policies of other tables that say the same, each of them
    /// once; the one that the same endpoint has there, if it can be.
    #[must_use]
    pub fn equal_policies(&self, others: &Self) -> BTreeMap<PolicyId, PolicyId> {
        let (own, there) = (self.said(), others.said());
        let mut equal = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut pair = |one: PolicyId, other: PolicyId| {
            let same = own.get(&one).is_some_and(|said| there.get(&other) == Some(said));
            if same && !equal.contains_key(&one) && taken.insert(other) {
                equal.insert(one, other);
            }
        };
        for (id, entry) in &self.endpoints {
            let Some(other) = others.endpoints.get(id) else { continue };
            pair(entry.policy, other.policy);
            entry.shadow.zip(other.shadow).into_iter().for_each(|(one, other)| pair(one, other));
        }
        let mut by_content: BTreeMap<&Said<'_>, Vec<PolicyId>> = BTreeMap::new();
        for (policy, said) in &there {
            by_content.entry(said).or_default().push(*policy);
        }
        for (policy, said) in &own {
            by_content.get(said).into_iter().flatten().for_each(|other| pair(*policy, *other));
        }
        equal
    }

    fn said(&self) -> BTreeMap<PolicyId, Said<'_>> {
        let mut said: BTreeMap<PolicyId, Said<'_>> = BTreeMap::new();
        for entry in self.endpoints.values() {
            for policy in [Some(entry.policy), entry.shadow].into_iter().flatten() {
                said.entry(policy).or_default();
            }
        }
        for (key, ports) in &self.ports {
            said.entry(key.policy).or_default().ports.push((key.direction, key.protocol, ports));
        }
        for (key, row) in &self.rows {
            said.entry(key.policy).or_default().rows.push((key.direction, key.peer, key.chunk, *row));
        }
        said
    }
}

/// What a policy says, in numbers of these tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Said<'t> {
    ports: Vec<(Direction, u8, &'t PortsOfProtocol)>,
    rows: Vec<(Direction, Identity, u16, Row)>,
}
