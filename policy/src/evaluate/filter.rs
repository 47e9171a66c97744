//! What the elements of one direction say, by protocol and ports, then by selector; where two of them meet, merged.

use std::collections::BTreeMap;

use super::{Requirements, as_cilium, selectors};
use crate::{
    flow::Direction,
    l7::{dns_rule::DnsRule, generic::GenericRule, http::HttpRule, kafka::KafkaRule, rules::L7Rules},
    label::SOURCE_RESERVED,
    rule::{Authentication, Element, Listener, Parser, Port, PortNumber, PortProtocol, Proxy, Section, TlsContext},
    selector::Selector,
    world::{Settings, World},
};

/// Elements that contradict each other for one subject, direction and port. A node keeps the policy it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// CONF-1.
    #[error("CONF-1: two different parsers for one port")]
    Parsers,
    /// CONF-2.
    #[error("CONF-2: two listeners of equal priority for one port and selector")]
    Listeners,
    /// CONF-3.
    #[error("CONF-3: two authentication modes for one port and selector")]
    Authentication,
    /// CONF-4.
    #[error("CONF-4: two TLS contexts for one port and selector")]
    Tls,
    /// CONF-5.
    #[error("CONF-5: server names and L7 rules without TLS termination for one port and selector")]
    ServerNames,
    /// CONF-6.
    #[error("CONF-6: a TLS context names a secret that is not there or lacks an item")]
    TlsSecret,
    /// VAL-29.
    #[error("VAL-29: a clusterwide object names a listener that is in a namespace")]
    ListenerOutOfReach,
}

impl Conflict {
    /// The numbered rule.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Parsers => "CONF-1",
            Self::Listeners => "CONF-2",
            Self::Authentication => "CONF-3",
            Self::Tls => "CONF-4",
            Self::ServerNames => "CONF-5",
            Self::TlsSecret => "CONF-6",
            Self::ListenerOutOfReach => "VAL-29",
        }
    }
}

/// All filters of one direction.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    pub(super) settings: Settings,
    pub(super) direction: Direction,
    pub(super) filters: BTreeMap<FilterKey, Filter>,
    /// SEM-50.
    pub(super) host_allowed: bool,
    pub(super) world: World,
}

/// Ports as they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilterKey {
    /// Protocol number; 0 for every protocol.
    pub(super) protocol: u8,
    pub(super) number: PortNumber,
    end_port: u16,
}

/// What elements with exactly the same ports say.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) parser: Option<Parser>,
    pub(super) policies: BTreeMap<Selector, SelectorPolicy>,
}

/// What elements with exactly the same ports and selector say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SelectorPolicy {
    pub(super) deny: bool,
    /// Set if a proxy is involved.
    pub(super) redirect: bool,
    pub(super) proxy: Proxy,
    /// None if it is not written (AUTH-2).
    pub(super) authentication: Option<Authentication>,
    /// Another listener has the same priority as the one of `proxy`.
    tied: bool,
}

impl FilterKey {
    /// An element without ports.
    const EVERYTHING: Self = Self { protocol: 0, number: PortNumber::EVERY, end_port: 0 };

    /// Whether it is for all ports, as far as proxies go.
    pub(super) const fn is_without_ports(&self) -> bool {
        matches!(self.number, PortNumber::Range { first: 0, .. })
    }
}

impl Filters {
    pub(super) fn new(settings: &Settings, world: &World, direction: Direction) -> Self {
        let (settings, world) = (settings.clone(), world.clone());
        Self { settings, direction, filters: BTreeMap::new(), host_allowed: false, world }
    }

    pub(super) fn add_sections(&mut self, sections: &[&Section]) -> Result<(), Conflict> {
        let required = [false, true].map(|denies| Requirements::of(sections, denies));
        // Denies first: where one covers the same ports and selector, what allows say there cannot conflict (SEM-40, SEM-43).
        for section in sections {
            for element in section.deny.iter().flatten() {
                self.add(element, true, &required[1])?;
            }
        }
        for section in sections {
            for element in section.allow.iter().flatten() {
                self.add(element, false, &required[0])?;
            }
        }
        // What depends on all of them is looked at last, so that their order cannot count.
        let cilium = as_cilium(&self.settings);
        self.filters.values().flat_map(|filter| filter.policies.values()).try_for_each(|policy| policy.check(cilium))
    }

    /// SEM-5.
    pub(super) fn allow_everyone(&mut self) {
        let filter = self.filters.entry(FilterKey::EVERYTHING).or_default();
        // Whatever is said of everyone already covers it.
        filter.policies.entry(Selector::WILDCARD).or_default();
    }

    /// SEM-50.
    pub(super) fn allow_host(&mut self) {
        self.host_allowed = true;
    }

    fn add(&mut self, element: &Element, denies: bool, requirements: &Requirements) -> Result<(), Conflict> {
        let selectors = selectors(&self.settings, &self.world, element, denies, requirements);
        let authentication = element.authentication;
        let Some(rules) = &element.ports else {
            let policy = SelectorPolicy { deny: denies, authentication, ..SelectorPolicy::default() };
            return self.add_filter(FilterKey::EVERYTHING, None, &selectors, &policy);
        };
        for rule in rules {
            self.check(&rule.proxy)?;
            for port in &rule.ports {
                for protocol in port.protocol.numbers() {
                    let parser = rule.proxy.parser(*protocol);
                    let proxy = if parser.is_some() { rule.proxy.clone() } else { Proxy::default() };
                    let redirect = parser.is_some();
                    let policy = SelectorPolicy { deny: denies, redirect, proxy, authentication, tied: false };
                    let key = FilterKey { protocol: *protocol, number: self.number(port), end_port: port.end_port };
                    self.add_filter(key, parser, &selectors, &policy)?;
                }
            }
        }
        Ok(())
    }

    /// What a proxy needs and is not there.
    fn check(&self, proxy: &Proxy) -> Result<(), Conflict> {
        if proxy.listener.as_ref().is_some_and(|listener| listener.out_of_reach) {
            return Err(Conflict::ListenerOutOfReach);
        }
        let Some(secrets) = &self.world.tls_secrets else { return Ok(()) };
        let missing = |context: &Option<TlsContext>, terminating| {
            context.as_ref().is_some_and(|context| secrets.missing(context, terminating).is_some())
        };
        let lacking = missing(&proxy.terminating_tls, true) || missing(&proxy.originating_tls, false);
        if lacking { Err(Conflict::TlsSecret) } else { Ok(()) }
    }

    /// ICMP-2: to Cilium, message type 0 is every type.
    fn number(&self, port: &Port) -> PortNumber {
        let messages = matches!(port.protocol, PortProtocol::Icmp | PortProtocol::Icmpv6);
        if messages && port.number == PortNumber::one(0) && as_cilium(&self.settings) {
            return PortNumber::EVERY;
        }
        port.number.clone()
    }

    fn add_filter(
        &mut self,
        key: FilterKey,
        parser: Option<Parser>,
        selectors: &[Selector],
        policy: &SelectorPolicy,
    ) -> Result<(), Conflict> {
        if selectors.is_empty() {
            return Ok(());
        }
        let filter = self.filters.entry(key).or_default();
        filter.parser = match (filter.parser.take(), parser) {
            (Some(before), Some(new)) => Some(before.merged(new).ok_or(Conflict::Parsers)?),
            (before, new) => before.or(new),
        };
        let mut policies: BTreeMap<&Selector, SelectorPolicy> =
            selectors.iter().map(|selector| (selector, policy.clone())).collect();
        // SEM-51: where the proxy would see flows of the node, it lets all of them pass.
        let host = Selector::label(SOURCE_RESERVED, "host");
        let covers_host = |selector: &&Selector| {
            let labels = crate::reserved::reserved_labels(crate::identity::Identity::HOST);
            selector.selects(crate::identity::Identity::HOST, &labels)
        };
        let spared = self.direction == Direction::Ingress && self.settings.allow_localhost && policy.redirect;
        if spared && selectors.iter().any(|selector| covers_host(&selector)) {
            policies.entry(&host).or_default();
        }
        let as_cilium = as_cilium(&self.settings);
        for (selector, policy) in policies {
            match filter.policies.get_mut(selector) {
                Some(before) => before.merge(&policy, as_cilium)?,
                None => drop(filter.policies.insert(selector.clone(), policy)),
            }
        }
        Ok(())
    }
}

impl SelectorPolicy {
    /// What all elements say of the same selector and ports.
    fn check(&self, as_cilium: bool) -> Result<(), Conflict> {
        if self.deny {
            Ok(())
        } else if self.tied {
            Err(Conflict::Listeners)
        } else if !as_cilium && self.names_beside_rules() {
            Err(Conflict::ServerNames)
        } else {
            Ok(())
        }
    }

    fn names_beside_rules(&self) -> bool {
        let Proxy { rules, terminating_tls, server_names, .. } = &self.proxy;
        !server_names.is_empty() && rules.is_some() && terminating_tls.is_none()
    }

    /// What two elements say of the same selector and ports. Their order counts only in Cilium, for CONF-5.
    fn merge(&mut self, new: &Self, as_cilium: bool) -> Result<(), Conflict> {
        if self == new || self.deny {
            return Ok(());
        }
        if new.deny {
            self.clone_from(new); // SEM-43
            return Ok(());
        }
        self.merge_listener(new.proxy.listener.as_ref());
        merge_equal(&mut self.authentication, new.authentication.as_ref(), Conflict::Authentication)?;
        merge_equal(&mut self.proxy.terminating_tls, new.proxy.terminating_tls.as_ref(), Conflict::Tls)?;
        merge_equal(&mut self.proxy.originating_tls, new.proxy.originating_tls.as_ref(), Conflict::Tls)?;
        self.proxy.server_names.extend(new.proxy.server_names.iter().cloned()); // TLS-2
        if as_cilium && self.names_beside_rules() {
            return Err(Conflict::ServerNames);
        }
        self.redirect |= new.redirect;
        match (&mut self.proxy.rules, &new.proxy.rules) {
            (Some(rules), Some(new)) => append(rules, new),
            (Some(rules), None) => append_everything(rules),
            (None, Some(new)) => {
                let mut rules = new.clone();
                append_everything(&mut rules);
                self.proxy.rules = Some(rules);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// CONF-2: of two listeners the one with the better priority stays; two of the best contradict each other.
    fn merge_listener(&mut self, new: Option<&Listener>) {
        let rank = |listener: &Listener| if listener.priority == 0 { u8::MAX } else { listener.priority };
        let Some(new) = new else { return };
        match &self.proxy.listener {
            Some(old) if rank(old) < rank(new) => {}
            Some(old) if rank(old) == rank(new) => self.tied |= old.name != new.name,
            _ => {
                self.proxy.listener = Some(new.clone());
                self.tied = false;
            }
        }
    }
}

fn merge_equal<T: PartialEq + Clone>(
    before: &mut Option<T>,
    new: Option<&T>,
    conflict: Conflict,
) -> Result<(), Conflict> {
    match (&before, new) {
        (Some(before), Some(new)) if before != new => Err(conflict),
        (None, Some(new)) => {
            *before = Some(new.clone());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Adds the rules of another list that are not there yet.
pub(super) fn append(rules: &mut L7Rules, new: &L7Rules) {
    fn add<T: Clone + PartialEq>(rules: &mut Option<Vec<T>>, new: Option<&Vec<T>>) {
        for rule in new.into_iter().flatten() {
            let rules = rules.get_or_insert_default();
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    add(&mut rules.http, new.http.as_ref());
    add(&mut rules.kafka, new.kafka.as_ref());
    add(&mut rules.dns, new.dns.as_ref());
    add(&mut rules.l7, new.l7.as_ref());
    if rules.l7proto.is_empty() {
        rules.l7proto.clone_from(&new.l7proto);
    }
}

/// In one order, whatever the order of the elements was.
pub(super) fn sort(rules: &mut L7Rules) {
    rules.http.iter_mut().for_each(|list| list.sort());
    rules.kafka.iter_mut().for_each(|list| list.sort());
    rules.dns.iter_mut().for_each(|list| list.sort());
    rules.l7.iter_mut().for_each(|list| list.sort());
}

/// Adds a rule that allows every request to the rules that are there.
fn append_everything(rules: &mut L7Rules) {
    let filled = |length: Option<usize>| length.is_some_and(|length| length > 0);
    let mut everything = L7Rules::default();
    if filled(rules.http.as_ref().map(Vec::len)) {
        everything.http = Some(vec![HttpRule::default()]);
    } else if filled(rules.kafka.as_ref().map(Vec::len)) {
        everything.kafka = Some(vec![KafkaRule::default()]);
    } else if filled(rules.dns.as_ref().map(Vec::len)) {
        everything.dns = Some(vec![DnsRule { match_pattern: "*".to_owned(), ..DnsRule::default() }]);
    } else if filled(rules.l7.as_ref().map(Vec::len)) {
        everything.l7 = Some(vec![GenericRule::default()]);
    }
    append(rules, &everything);
}
