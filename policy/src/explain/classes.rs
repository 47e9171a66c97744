//! Who and which ports no rule tells apart: one of each is enough to ask about.

use std::collections::{BTreeMap, BTreeSet};

use super::Party;
use crate::{
    evaluate::{Requirements, selectors},
    flow::{Direction, protocol},
    identity::Identity,
    label::SOURCE_RESERVED,
    object::Object,
    rule::{Port, PortNumber, Subject},
    selector::{Condition, LabelKey, Requirement},
    world::{Settings, World},
};

/// The protocols that policies speak of.
pub(super) const PROTOCOLS: [u8; 5] = [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP, protocol::ICMPV6];

/// Parties, in classes that no selector of the objects tells apart. Reserved identities are classes of their own.
pub(super) fn classes<'o>(
    settings: &Settings,
    world: &World,
    objects: impl Iterator<Item = &'o Object>,
    parties: &[Party],
) -> Vec<Vec<usize>> {
    // SEM-9 looks at this one whatever rules say.
    let init = Requirement { key: LabelKey::new(SOURCE_RESERVED, "init"), condition: Condition::Exists };
    let mut requirements = BTreeSet::from([init]);
    for rule in objects.flat_map(|object| &object.rules) {
        let (Subject::Endpoints(selector) | Subject::Nodes(selector)) = &rule.subject;
        requirements.extend(selector.requirements().cloned());
        for (_, denies, element) in rule.elements() {
            let peers = selectors(settings, world, element, denies, &Requirements::default());
            requirements.extend(peers.iter().chain(&element.requires).flat_map(|s| s.requirements().cloned()));
        }
    }
    let mut classes: BTreeMap<(Option<Identity>, bool, Vec<bool>), Vec<usize>> = BTreeMap::new();
    for (index, Party { identity, labels }) in parties.iter().enumerate() {
        let reserved = identity.reserved_name().map(|_| *identity);
        let met = requirements.iter().map(|requirement| requirement.matches(labels)).collect();
        classes.entry((reserved, labels.is_empty(), met)).or_default().push(index);
    }
    let mut classes: Vec<Vec<usize>> = classes.into_values().collect();
    classes.sort();
    classes
}

/// Ranges of ports of a protocol within which no rule tells one from another.
pub(super) fn cuts<'o>(world: &World, protocol: u8, objects: impl Iterator<Item = &'o Object>) -> Vec<(u16, u16)> {
    let mut starts = BTreeSet::from([0u32]);
    for port in objects.flat_map(|object| &object.rules).flat_map(|rule| {
        rule.elements().flat_map(|(_, _, element)| element.ports.iter().flatten().flat_map(|rule| &rule.ports))
    }) {
        for (first, last) in meant(world, port, protocol) {
            starts.insert(u32::from(first));
            starts.insert(u32::from(last) + 1);
        }
    }
    starts.insert(1 << 16);
    let starts: Vec<u32> = starts.into_iter().collect();
    let range = |pair: &[u32]| Some((u16::try_from(pair[0]).ok()?, u16::try_from(pair[1] - 1).ok()?));
    starts.windows(2).filter_map(range).collect()
}

pub(super) fn meant(world: &World, port: &Port, protocol: u8) -> Vec<(u16, u16)> {
    if !port.protocol.numbers().contains(&protocol) {
        return Vec::new();
    }
    match &port.number {
        PortNumber::Range { first, last } => vec![(*first, *last)],
        PortNumber::Named { name, last } => {
            let numbers = |direction| world.ports(direction, name, protocol);
            let both = [Direction::Ingress, Direction::Egress].into_iter().flat_map(numbers);
            both.map(|first| (first, first.max(*last))).collect()
        }
    }
}
