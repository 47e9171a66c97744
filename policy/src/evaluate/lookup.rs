//! The decision about one flow: what the kernel's policy map and lookup would come to (§6.3, §6.4).

use std::cmp::Reverse;

use super::{
    Decision, Redirect, as_cilium,
    filter::{Filter, FilterKey, Filters, SelectorPolicy, append, sort},
};
use crate::{
    flow::Flow,
    identity::Identity,
    l7::rules::L7Rules,
    label::LabelSet,
    rule::{Authentication, Parser, PortNumber},
    selector::Selector,
    world::World,
};

/// Prefix length of an entry for every protocol, and for every port of one (§6.1).
const EVERY_PROTOCOL: u8 = 0;
const EVERY_PORT: u8 = 8;
/// Prefix length of an entry for one port.
const ONE_PORT: u8 = 24;

/// What one filter says about the flow through one of its selectors.
struct Said<'f> {
    key: &'f FilterKey,
    filter: &'f Filter,
    policy: &'f SelectorPolicy,
    /// The selector is the wildcard: the entry is for any peer.
    any_peer: bool,
    /// How many bits of protocol and port the entry fixes around the flow.
    prefix: u8,
}

/// An entry of the map that covers the flow.
#[derive(Clone)]
struct Entry {
    any_peer: bool,
    prefix: u8,
    /// §6.2.
    priority: u8,
    authentication: Authentication,
    /// It was written, not inherited.
    explicit: bool,
    parser: Option<Parser>,
    listener: Option<String>,
}

pub(super) fn decide(filters: &Filters, flow: &Flow, peer: &LabelSet) -> Decision {
    let said = said(filters, flow, peer);
    if said.iter().any(|said| said.policy.deny) {
        return Decision::DenyExplicit; // SEM-43
    }
    let mut entries: Vec<Entry> = said.iter().map(Entry::of).collect();
    if filters.host_allowed && flow.peer == Identity::HOST {
        entries.push(Entry::PLAIN);
    }
    let Some((entry, authentication)) = choose(entries) else {
        return Decision::DenyDefault; // SEM-4
    };
    match entry.parser {
        None => Decision::Allow { authentication },
        Some(parser) => Decision::Redirect(Box::new(redirect(parser, entry.listener, authentication, &said))),
    }
}

/// Everything that covers the flow.
fn said<'f>(filters: &'f Filters, flow: &Flow, peer: &LabelSet) -> Vec<Said<'f>> {
    let mut said = Vec::new();
    let selects = |selector: &Selector| match filters.settings.dual_stack {
        true => selector.selects(flow.peer, peer),
        false => selector.selects_labels(peer),
    };
    for (key, filter) in &filters.filters {
        for (selector, policy) in filter.policies.iter().filter(|(selector, _)| selects(selector)) {
            let every_number = policy.deny && !as_cilium(&filters.settings);
            let Some(prefix) = covers(key, &filters.world, flow, every_number) else { continue };
            said.push(Said { key, filter, policy, any_peer: selector.is_wildcard(), prefix });
        }
    }
    said
}

/// The prefix length of the entry around the flow; none if the ports do not cover it.
///
/// A name that peers use for several numbers covers none of them in an allow (PORT-4); in a deny that would open what
/// the rule closes, so there it covers `every_number`.
fn covers(key: &FilterKey, world: &World, flow: &Flow, every_number: bool) -> Option<u8> {
    if key.protocol == 0 {
        return Some(EVERY_PROTOCOL);
    }
    if key.protocol != flow.protocol {
        return None;
    }
    match &key.number {
        PortNumber::Range { first, last } => prefix_within(*first, *last, flow.port),
        PortNumber::Named { name, last } => {
            let numbers = world.ports(flow.direction, name, key.protocol);
            let meant = numbers.iter().filter(|_| every_number || numbers.len() == 1);
            meant.filter_map(|first| prefix_within(*first, *last.max(first), flow.port)).max()
        }
    }
}

/// PORT-2: of the largest aligned block around a port that lies inside a range.
fn prefix_within(first: u16, last: u16, port: u16) -> Option<u8> {
    if (first, last) == (0, u16::MAX) {
        return Some(EVERY_PORT);
    }
    let inside = |bits: &u8| {
        let rest = (1u32 << bits) - 1;
        let start = u32::from(port) & !rest;
        start >= u32::from(first) && start + rest <= u32::from(last)
    };
    (0..=16).rev().find(inside).map(|bits| ONE_PORT - bits)
}

/// The entry that counts, and the authentication it asks for (§6.3).
fn choose(entries: Vec<Entry>) -> Option<(Entry, Authentication)> {
    let mut merged: Vec<Entry> = Vec::new();
    for entry in entries {
        // MAP-3: entries with one key become one.
        match merged.iter_mut().find(|known| known.any_peer == entry.any_peer && known.prefix == entry.prefix) {
            Some(known) => known.merge(entry),
            None => merged.push(entry),
        }
    }
    // MAP-2: an entry is not written where a broader one redirects with a higher priority. One that says what both ends
    // must prove is (AUTH-4), and goes where the broader one goes.
    let all = merged.clone();
    let above = |entry: &Entry| {
        let broader = all.iter().filter(|other| other.covers(entry) && other.priority > entry.priority);
        broader.filter(|other| !entry.explicit || other.any_peer == entry.any_peer).max_by_key(|other| other.rank())
    };
    merged.retain(|entry| entry.explicit || above(entry).is_none());
    for entry in &mut merged {
        if let Some(Entry { priority, parser, listener, .. }) = above(entry).cloned() {
            *entry = Entry { priority, parser, listener, ..entry.clone() };
        }
    }
    let all = merged.clone();
    merged.iter_mut().for_each(|entry| entry.inherit(&all));
    let longest = |any_peer: bool| {
        merged.iter().filter(|entry| entry.any_peer == any_peer).max_by_key(|entry| entry.prefix).cloned()
    };
    let (chosen, other) = match (longest(false), longest(true)) {
        (None, any) => (any?, None),
        (Some(own), None) => (own, None),
        (Some(own), Some(any)) if (any.priority, any.prefix) > (own.priority, own.prefix) => (any, Some(own)),
        (own, any) => (own?, any),
    };
    // AUTH-3: the stricter one of the two, unless the chosen one says what it wants (AUTH-4) or has the higher priority:
    // what is asked for does not go from one to another that redirects with more (AUTH-7).
    let other = other.filter(|other| !chosen.explicit && other.priority >= chosen.priority);
    let inherited = other.map(|other| other.authentication);
    let authentication = chosen.authentication.max(inherited.unwrap_or(Authentication::Disabled));
    Some((chosen, authentication))
}

impl Entry {
    /// SEM-50.
    const PLAIN: Self = Self {
        any_peer: false,
        prefix: EVERY_PROTOCOL,
        priority: 0,
        authentication: Authentication::Disabled,
        explicit: false,
        parser: None,
        listener: None,
    };

    fn of(said: &Said<'_>) -> Self {
        let SelectorPolicy { redirect, proxy, authentication, .. } = said.policy;
        let parser = said.filter.parser.clone().filter(|_| *redirect);
        let priority = match (&parser, &proxy.listener) {
            (None, _) => 0,
            (Some(_), Some(listener)) if listener.priority > 0 => u8::MAX - listener.priority,
            (Some(_), _) => 1,
        };
        Self {
            any_peer: said.any_peer,
            prefix: said.prefix,
            priority,
            authentication: authentication.unwrap_or(Authentication::Disabled),
            explicit: authentication.is_some(),
            parser,
            listener: proxy.listener.as_ref().map(|listener| listener.name.clone()),
        }
    }

    fn merge(&mut self, other: Self) {
        let strength = |entry: &Self| (entry.explicit, entry.authentication);
        let stronger = if strength(&other) > strength(self) { &other } else { &*self };
        let (explicit, authentication) = strength(stronger);
        // Of two that are as good as each other, any will do, but always the same one.
        let rank = |entry: &Self| (Reverse(entry.priority), entry.parser.clone(), entry.listener.clone());
        if rank(&other) < rank(self) {
            *self = other;
        }
        (self.explicit, self.authentication) = (explicit, authentication);
    }

    /// Of those that redirect what another one covers, the greatest counts.
    const fn rank(&self) -> (u8, u8) {
        (self.priority, self.prefix)
    }

    /// Whether it is for the same flows, or more.
    fn covers(&self, other: &Self) -> bool {
        (self.any_peer || !other.any_peer) && self.prefix <= other.prefix
    }

    /// AUTH-3: what the most specific broader entry for the same peer wants, if this one wants nothing itself.
    fn inherit(&mut self, all: &[Self]) {
        if self.explicit {
            return;
        }
        let broader =
            all.iter().filter(|other| other.any_peer == self.any_peer && other.prefix < self.prefix && other.explicit);
        if let Some(broader) = broader.max_by_key(|other| other.prefix) {
            self.authentication = broader.authentication;
        }
    }
}

fn redirect(parser: Parser, listener: Option<String>, authentication: Authentication, said: &[Said<'_>]) -> Redirect {
    let on_ports = |said: &&Said<'_>| !said.key.is_without_ports();
    let mut rules = L7Rules::default();
    let proxies = || said.iter().filter(on_ports).map(|said| &said.policy.proxy);
    proxies().filter_map(|proxy| proxy.rules.as_ref()).for_each(|new| append(&mut rules, new));
    sort(&mut rules);
    Redirect {
        parser,
        rules,
        allow_all: said.iter().filter(on_ports).any(|said| said.policy.proxy.passes_everything()),
        l3_allow_all: said.iter().any(|said| said.key.is_without_ports()),
        server_names: proxies().flat_map(|proxy| proxy.server_names.iter().cloned()).collect(),
        listener,
        terminating_tls: proxies().find_map(|proxy| proxy.terminating_tls.clone()),
        originating_tls: proxies().find_map(|proxy| proxy.originating_tls.clone()),
        authentication,
    }
}
