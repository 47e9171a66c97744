//! What the elements of rules say, one peer selector and one interval of ports at a time.

use super::{
    population::Population,
    selectors::{SelectorId, Selectors},
};
use crate::{
    evaluate::{Requirements, as_cilium, selectors},
    flow::Direction,
    rule::{Element, Port, PortNumber, PortProtocol, Proxy, Section},
    tables::Class,
    world::{Settings, World},
};

/// The destination ports of a protocol from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ports {
    /// IP protocol number; 0 for every protocol, and then every port.
    pub(super) protocol: u8,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// Flows with these peers on these ports are of this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Term {
    pub(super) ports: Ports,
    pub(super) class: Class,
    /// None for everyone.
    pub(super) peers: Option<SelectorId>,
}

/// Terms, with the selectors that were acquired for them.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) list: Vec<Term>,
    pub(super) held: Vec<SelectorId>,
}

/// What names in rules stand for.
#[derive(Clone, Copy)]
pub(super) struct Context<'c> {
    pub(super) settings: &'c Settings,
    pub(super) world: &'c World,
    pub(super) population: &'c Population,
}

impl Ports {
    /// Every port of every protocol.
    pub(super) const EVERYTHING: Self = Self { protocol: 0, first: 0, last: u16::MAX };
}

impl Context<'_> {
    /// Adds what a section says. `required` is what its allow, and its deny, elements demand of endpoints (REQ-1).
    pub(super) fn add(
        &self,
        direction: Direction,
        section: &Section,
        required: &[Requirements; 2],
        known: &mut Selectors,
        terms: &mut Terms,
    ) {
        for (denies, list) in [(false, &section.allow), (true, &section.deny)] {
            let required = &required[usize::from(denies)];
            for element in list.iter().flatten() {
                let ports = self.ports(direction, element, denies);
                if ports.is_empty() {
                    continue;
                }
                for selector in selectors(self.settings, self.world, element, denies, required) {
                    let peers = (!selector.is_wildcard()).then(|| known.acquire(selector, self.population));
                    terms.held.extend(peers);
                    terms.list.extend(ports.iter().map(|(ports, class)| Term { ports: *ports, class: *class, peers }));
                }
            }
        }
    }

    fn ports(&self, direction: Direction, element: &Element, denies: bool) -> Vec<(Ports, Class)> {
        let Some(rules) = &element.ports else {
            return vec![(Ports::EVERYTHING, if denies { Class::Deny } else { Class::Allow })];
        };
        let mut all = Vec::new();
        for rule in rules {
            for port in &rule.ports {
                for protocol in port.protocol.numbers() {
                    let class = class(&rule.proxy, *protocol, denies);
                    let intervals = self.intervals(direction, port, *protocol, denies);
                    all.extend(intervals.into_iter().map(|ports| (ports, class)));
                }
            }
        }
        all
    }

    /// None if a name stands for nothing, or for an interval without ports. A name for several numbers means none of
    /// them in an allow (PORT-4) and, but for Cilium, each of them in a deny.
    fn intervals(&self, direction: Direction, port: &Port, protocol: u8, denies: bool) -> Vec<Ports> {
        let messages = matches!(port.protocol, PortProtocol::Icmp | PortProtocol::Icmpv6);
        let interval = |first, last| Ports { protocol, first, last };
        match &port.number {
            // ICMP-2: to Cilium, message type 0 is every type.
            PortNumber::Range { first: 0, last: 0 } if messages && as_cilium(self.settings) => {
                vec![interval(0, u16::MAX)]
            }
            PortNumber::Range { first, last } if first <= last => vec![interval(*first, *last)],
            PortNumber::Range { .. } => Vec::new(),
            PortNumber::Named { name, last } => {
                let numbers = self.world.ports(direction, name, protocol);
                let every_number = denies && !as_cilium(self.settings);
                let meant = numbers.iter().filter(|_| every_number || numbers.len() == 1);
                meant.map(|first| interval(*first, *last.max(first))).collect()
            }
        }
    }
}

fn class(proxy: &Proxy, protocol: u8, denies: bool) -> Class {
    match denies {
        true => Class::Deny,
        false if proxy.parser(protocol).is_some() => Class::Redirect,
        false => Class::Allow,
    }
}
