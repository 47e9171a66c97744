//! The `rules` of a port entry as a whole: which families are in it, and whether they may be there (VAL-19 … VAL-28).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    dns_pattern::DnsUse,
    dns_rule::{DnsRule, InvalidDnsRule},
    generic::GenericRule,
    http::{HttpRule, InvalidHttpRule},
    kafka::{InvalidKafkaRule, KafkaRule},
};
use crate::flow::Direction;

/// A `rules` object as it is written. A list that is written and empty differs from one that is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct L7Rules {
    /// HTTP rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<HttpRule>>,
    /// Kafka rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<KafkaRule>>,
    /// DNS rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<DnsRule>>,
    /// The parser that `l7` is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l7proto: String,
    /// Rules for the parser `l7proto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l7: Option<Vec<GenericRule>>,
}

/// What a set of L7 rules is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `http`.
    Http,
    /// `kafka`.
    Kafka,
    /// `dns`.
    Dns,
    /// `l7proto`.
    Generic,
}

/// Where a `rules` object stands: what its validity depends on beside itself.
#[derive(Clone, Debug)]
pub struct Place<'p> {
    /// The section's direction.
    pub direction: Direction,
    /// Whether the subject is a host (`nodeSelector`).
    pub host_subject: bool,
    /// Whether there is an L7 proxy.
    pub proxy_enabled: bool,
    /// The `ports` beside it.
    pub ports: &'p [PlacePort],
    /// The `serverNames` beside it.
    pub server_names: &'p [String],
    /// Whether `terminatingTLS` is beside it.
    pub terminates_tls: bool,
    /// Whether `listener` is beside it.
    pub listener: bool,
}

/// One entry of `ports`, as far as L7 rules go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacePort {
    /// The number; none for a name.
    pub number: Option<u16>,
    /// `endPort`; zero if it is not written.
    pub end_port: u16,
    /// Whether the protocol is exactly TCP. ANY, or none, is not.
    pub tcp: bool,
}

/// What is wrong with a `rules` object, or with its being there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidL7Rules {
    /// VAL-19.
    #[error("there are L7 rules, and the L7 proxy is switched off")]
    ProxyDisabled,
    /// VAL-20.
    #[error("DNS rules cannot be used for ingress")]
    DnsOnIngress,
    /// VAL-21.
    #[error("{family} rules cannot be used for the {direction} of a host")]
    Host {
        /// The rules that are there.
        family: Family,
        /// The direction they are there for.
        direction: Direction,
    },
    /// VAL-22.
    #[error("{first} and {second} rules in one object")]
    SeveralFamilies {
        /// The first that is written.
        first: Family,
        /// Another.
        second: Family,
    },
    /// VAL-23.
    #[error("l7 without l7proto")]
    GenericWithoutProtocol,
    /// VAL-23.
    #[error("l7[{index}] holds an empty key")]
    EmptyKey {
        /// Which element of `l7`.
        index: usize,
    },
    /// VAL-24.
    #[error("{family} rules are for TCP, and ports[{port}] is not exactly that")]
    NotTcp {
        /// The rules that are there.
        family: Family,
        /// Which element of `ports`.
        port: usize,
    },
    /// VAL-25.
    #[error("L7 rules cannot be used with port 0, as ports[{port}] has it")]
    PortZero {
        /// Which element of `ports`.
        port: usize,
    },
    /// VAL-26.
    #[error("DNS rules without any port")]
    DnsWithoutPort,
    /// VAL-26.
    #[error("DNS rules cannot be used with a range of ports, as ports[{port}] has it")]
    DnsPortRange {
        /// Which element of `ports`.
        port: usize,
    },
    /// VAL-27.
    #[error("serverNames with L7 rules, but without terminatingTLS")]
    ServerNamesWithoutTls,
    /// VAL-27.
    #[error("serverNames[{index}] is empty")]
    EmptyServerName {
        /// Which element of `serverNames`.
        index: usize,
    },
    /// VAL-28.
    #[error("a listener cannot be used for ingress")]
    ListenerOnIngress,
    /// VAL-28.
    #[error("a listener decides by itself, L7 rules cannot be used with it")]
    ListenerWithRules,
    /// VAL-32.
    #[error("{source}")]
    Http {
        /// Which element of `http`.
        index: usize,
        /// What is wrong.
        source: InvalidHttpRule,
    },
    /// VAL-33.
    #[error("{source}")]
    Kafka {
        /// Which element of `kafka`.
        index: usize,
        /// What is wrong.
        source: InvalidKafkaRule,
    },
    /// VAL-31, VAL-34.
    #[error("{source}")]
    Dns {
        /// Which element of `dns`.
        index: usize,
        /// What is wrong.
        source: InvalidDnsRule,
    },
}

impl L7Rules {
    /// Whether no list has an element. Such an object constrains nothing in Cilium, also if it names a parser.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let count = |written: Option<usize>| written.unwrap_or(0);
        count(self.http.as_ref().map(Vec::len)) == 0
            && count(self.kafka.as_ref().map(Vec::len)) == 0
            && count(self.dns.as_ref().map(Vec::len)) == 0
            && count(self.l7.as_ref().map(Vec::len)) == 0
    }

    /// The families that are written, empty lists included.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let written = [
            (self.http.is_some(), Family::Http),
            (self.kafka.is_some(), Family::Kafka),
            (self.dns.is_some(), Family::Dns),
            (!self.l7proto.is_empty(), Family::Generic),
        ];
        written.into_iter().filter_map(|(written, family)| written.then_some(family))
    }

    /// The one family that the rules belong to; none if the object is empty or [`Self::check`] finds several.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        let mut families = self.families();
        let family = families.next()?;
        (families.next().is_none() && !self.is_empty()).then_some(family)
    }

    /// Everything that is wrong with the rules themselves. An empty object is always right.
    #[must_use]
    pub fn check(&self) -> Vec<InvalidL7Rules> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        let mut families = self.families();
        if let (Some(first), Some(second)) = (families.next(), families.next()) {
            problems.push(InvalidL7Rules::SeveralFamilies { first, second });
        }
        if self.l7.is_some() && self.l7proto.is_empty() {
            problems.push(InvalidL7Rules::GenericWithoutProtocol);
        }
        for (index, rule) in self.http.iter().flatten().enumerate() {
            problems.extend(rule.check().into_iter().map(|source| InvalidL7Rules::Http { index, source }));
        }
        for (index, rule) in self.kafka.iter().flatten().enumerate() {
            problems.extend(rule.check().into_iter().map(|source| InvalidL7Rules::Kafka { index, source }));
        }
        for (index, rule) in self.dns.iter().flatten().enumerate() {
            let found = rule.check(DnsUse::Query);
            problems.extend(found.into_iter().map(|source| InvalidL7Rules::Dns { index, source }));
        }
        let empty_keys = self.l7.iter().flatten().enumerate().filter(|(_, rule)| rule.has_empty_key());
        problems.extend(empty_keys.map(|(index, _)| InvalidL7Rules::EmptyKey { index }));
        problems
    }
}

impl Place<'_> {
    /// Everything that is wrong with rules at this place, or with what stands beside them. `rules` are none if the
    /// object is not written.
    #[must_use]
    pub fn check(&self, rules: Option<&L7Rules>) -> Vec<InvalidL7Rules> {
        let mut problems = Vec::new();
        if let Some(rules) = rules.filter(|rules| !rules.is_empty()) {
            self.check_rules(rules, &mut problems);
        }
        if self.listener && self.direction == Direction::Ingress {
            problems.push(InvalidL7Rules::ListenerOnIngress);
        }
        let empty_names = self.server_names.iter().enumerate().filter(|(_, name)| name.is_empty());
        problems.extend(empty_names.map(|(index, _)| InvalidL7Rules::EmptyServerName { index }));
        problems
    }

    fn check_rules(&self, rules: &L7Rules, problems: &mut Vec<InvalidL7Rules>) {
        if !self.proxy_enabled {
            problems.push(InvalidL7Rules::ProxyDisabled);
        }
        if self.listener {
            problems.push(InvalidL7Rules::ListenerWithRules);
        }
        if !self.server_names.is_empty() && !self.terminates_tls {
            problems.push(InvalidL7Rules::ServerNamesWithoutTls);
        }
        let zeros = self.ports.iter().enumerate().filter(|(_, port)| port.number == Some(0));
        problems.extend(zeros.map(|(port, _)| InvalidL7Rules::PortZero { port }));
        if rules.dns.is_some() {
            self.check_dns(problems);
        } else if let Some(family) = rules.families().next() {
            let others = self.ports.iter().enumerate().filter(|(_, port)| !port.tcp);
            problems.extend(others.map(|(port, _)| InvalidL7Rules::NotTcp { family, port }));
        }
        let direction = self.direction;
        if self.host_subject {
            let refused = |family: &Family| match direction {
                Direction::Ingress => true,
                Direction::Egress => matches!(family, Family::Http | Family::Kafka),
            };
            let families = rules.families().filter(refused);
            problems.extend(families.map(|family| InvalidL7Rules::Host { family, direction }));
        }
    }

    fn check_dns(&self, problems: &mut Vec<InvalidL7Rules>) {
        if self.direction == Direction::Ingress {
            problems.push(InvalidL7Rules::DnsOnIngress);
        }
        if self.ports.is_empty() {
            problems.push(InvalidL7Rules::DnsWithoutPort);
        }
        let ranges = self.ports.iter().enumerate().filter(|(_, port)| port.end_port > port.number.unwrap_or(0));
        problems.extend(ranges.map(|(port, _)| InvalidL7Rules::DnsPortRange { port }));
    }
}

impl InvalidL7Rules {
    /// The numbered rule that is broken.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::ProxyDisabled => "VAL-19",
            Self::DnsOnIngress => "VAL-20",
            Self::Host { .. } => "VAL-21",
            Self::SeveralFamilies { .. } => "VAL-22",
            Self::GenericWithoutProtocol | Self::EmptyKey { .. } => "VAL-23",
            Self::NotTcp { .. } => "VAL-24",
            Self::PortZero { .. } => "VAL-25",
            Self::DnsWithoutPort | Self::DnsPortRange { .. } => "VAL-26",
            Self::ServerNamesWithoutTls | Self::EmptyServerName { .. } => "VAL-27",
            Self::ListenerOnIngress | Self::ListenerWithRules => "VAL-28",
            Self::Http { source, .. } => source.rule(),
            Self::Kafka { source, .. } => source.rule(),
            Self::Dns { source, .. } => source.rule(),
        }
    }

    /// Whether Cilium's agent rejects the object for it too.
    #[must_use]
    pub fn rejected_by_cilium(&self) -> bool {
        match self {
            Self::Http { source, .. } => source.rejected_by_cilium(),
            Self::Dns { source, .. } => source.rejected_by_cilium(),
            _ => true,
        }
    }

    /// The field below the entry of `toPorts`, for example `rules.http[0].path`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::ProxyDisabled | Self::Host { .. } | Self::SeveralFamilies { .. } | Self::ListenerWithRules => {
                "rules".into()
            }
            Self::DnsOnIngress => "rules.dns".into(),
            Self::GenericWithoutProtocol => "rules.l7".into(),
            Self::EmptyKey { index } => format!("rules.l7[{index}]"),
            Self::NotTcp { port, .. } => format!("ports[{port}].protocol"),
            Self::PortZero { port } => format!("ports[{port}].port"),
            Self::DnsWithoutPort => "ports".into(),
            Self::DnsPortRange { port } => format!("ports[{port}].endPort"),
            Self::ServerNamesWithoutTls => "serverNames".into(),
            Self::EmptyServerName { index } => format!("serverNames[{index}]"),
            Self::ListenerOnIngress => "listener".into(),
            Self::Http { index, source } => format!("rules.http[{index}].{}", source.field()),
            Self::Kafka { index, source } => format!("rules.kafka[{index}].{}", source.field()),
            Self::Dns { index, source } => format!("rules.dns[{index}].{}", source.field()),
        }
    }

    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::ProxyDisabled => "switch the proxy on, or remove the rules",
            Self::DnsOnIngress => "write them for the egress of the clients",
            Self::Host { .. } => "hosts can have DNS rules for egress only",
            Self::SeveralFamilies { .. } => "write one entry of toPorts for each",
            Self::GenericWithoutProtocol => "name the parser in l7proto",
            Self::EmptyKey { .. } => "name the key",
            Self::NotTcp { .. } => "write protocol: TCP",
            Self::PortZero { .. } => "write the ports that the rules are for",
            Self::DnsWithoutPort => "write the server's port, for example {port: \"53\", protocol: ANY}",
            Self::DnsPortRange { .. } => "write each port by itself",
            Self::ServerNamesWithoutTls => "add terminatingTLS, or write serverNames and rules for different ports",
            Self::EmptyServerName { .. } => "write the name, or remove the element",
            Self::ListenerOnIngress => "use it for egress",
            Self::ListenerWithRules => "remove the listener or the rules",
            Self::Http { source, .. } => source.help(),
            Self::Kafka { source, .. } => source.help(),
            Self::Dns { source, .. } => source.help(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Kafka => "Kafka",
            Self::Dns => "DNS",
            Self::Generic => "l7proto",
        })
    }
}
