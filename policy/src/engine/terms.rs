//! What the elements of rules say, one peer selector and one interval of ports at a time.

use super::{
    entry::{Class, Ports},
    population::Population,
    selectors::{SelectorId, Selectors},
};
use crate::{
    evaluate::{Requirements, as_cilium, selectors},
    flow::Direction,
    rule::{Element, Port, PortNumber, PortProtocol, Proxy, Section},
    world::{Settings, World},
};

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
                    let interval = self.interval(direction, port, *protocol);
                    all.extend(interval.map(|ports| (ports, class(&rule.proxy, *protocol, denies))));
                }
            }
        }
        all
    }

    /// None if a name stands for nothing (PORT-4), or for an interval without ports.
    fn interval(&self, direction: Direction, port: &Port, protocol: u8) -> Option<Ports> {
        let messages = matches!(port.protocol, PortProtocol::Icmp | PortProtocol::Icmpv6);
        let (first, last) = match &port.number {
            // ICMP-2: to Cilium, message type 0 is every type.
            PortNumber::Range { first: 0, last: 0 } if messages && as_cilium(self.settings) => (0, u16::MAX),
            PortNumber::Range { first, last } => (*first, *last),
            PortNumber::Named { name, last } => {
                let first = self.world.port(direction, name, protocol)?;
                (first, first.max(*last))
            }
        };
        (first <= last).then_some(Ports { protocol, first, last })
    }
}

fn class(proxy: &Proxy, protocol: u8, denies: bool) -> Class {
    match denies {
        true => Class::Deny,
        false if proxy.parser(protocol).is_some() => Class::Redirect,
        false => Class::Allow,
    }
}
