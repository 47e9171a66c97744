//! Which events a watcher asks for.

use std::net::IpAddr;

use ringfence_datapath::{FlowEvent, Reason};
use ringfence_policy::{
    cidr::Cidr,
    flow::Direction,
    identity::Identity,
    label::{InvalidLabel, Label, LabelSet, SOURCE_ANY},
    name::Name,
    tables::EndpointId,
};
use ringfence_proto::v1::{self, flow_end};

use super::Words;

/// Everything that is given must hold; of the values of one kind one is enough.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    types: Vec<Type>,
    from: Vec<End>,
    to: Vec<End>,
    either: Vec<End>,
    ports: Vec<u16>,
    protocols: Vec<u8>,
    directions: Vec<Direction>,
    reasons: Vec<Reason>,
}

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// A connection began.
    New,
    /// A packet was refused.
    Drop,
    /// Policy was asked.
    Verdict,
    /// A connection was refused that was allowed before.
    Cut,
    /// A refusal that was let through, or a policy under audit that would decide otherwise.
    Audit,
}

/// One end of a flow.
#[derive(Debug)]
pub(crate) enum End {
    /// Its address is inside.
    Range(Cidr),
    /// It has this identity.
    Identity(Identity),
    /// Its identity has all of these.
    Labels(Vec<Label>),
    /// It is this endpoint of the node.
    Endpoint(EndpointId),
}

/// What is known of one end.
struct Seen {
    address: IpAddr,
    identity: Identity,
    endpoint: Option<EndpointId>,
}

/// A filter cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFilter {
    #[error("type: {text:?} is no type of event: give new, drop, verdict, cut or audit")]
    Type { text: String },
    #[error("direction: {text:?} is no direction: give ingress or egress")]
    Direction { text: String },
    #[error("reason: {text:?} is no reason: give one of {}", reasons())]
    Reason { text: String },
    #[error("port: {port} is not a port: give at most 65535")]
    Port { port: u32 },
    #[error("protocol: {protocol} is not an IP protocol number: give at most 255")]
    Protocol { protocol: u32 },
    #[error("{field}: {text:?} is neither an address nor a range of addresses: write it like 10.1.2.3 or fd00:1::/64")]
    Range { field: &'static str, text: String },
    #[error("{field}: {source}")]
    Label { field: &'static str, source: InvalidLabel },
    #[error("{field}: give an address, a range, an identity, labels or an endpoint")]
    Nothing { field: &'static str },
    #[error("{field}: there is no endpoint {text:?} on this node: {}", known(endpoints))]
    Endpoint { field: &'static str, text: String, endpoints: Vec<String> },
}

impl Filter {
    /// Reads what a watcher asks for.
    ///
    /// # Errors
    /// `InvalidFilter` for the first field that is wrong.
    pub(crate) fn new(request: &v1::MonitorRequest, words: &Words) -> Result<Self, InvalidFilter> {
        let ends = |field, ends: &[v1::FlowEnd]| -> Result<Vec<End>, InvalidFilter> {
            ends.iter().map(|one| end(field, one, words)).collect()
        };
        let port = |port: &u32| u16::try_from(*port).map_err(|_| InvalidFilter::Port { port: *port });
        let protocol =
            |protocol: &u32| u8::try_from(*protocol).map_err(|_| InvalidFilter::Protocol { protocol: *protocol });
        Ok(Self {
            types: request.types.iter().map(|text| Type::parse(text)).collect::<Result<_, _>>()?,
            from: ends("from", &request.from)?,
            to: ends("to", &request.to)?,
            either: ends("either end", &request.either)?,
            ports: request.ports.iter().map(port).collect::<Result<_, _>>()?,
            protocols: request.protocols.iter().map(protocol).collect::<Result<_, _>>()?,
            directions: request.directions.iter().map(|text| direction(text)).collect::<Result<_, _>>()?,
            reasons: request.reasons.iter().map(|text| reason(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an event is asked for.
    pub(crate) fn wants(&self, event: &FlowEvent, words: &mut Words) -> bool {
        let any = |all: bool, found: bool| all || found;
        let local = Seen { address: event.local.0, identity: event.identity, endpoint: Some(event.endpoint) };
        let remote = Seen { address: event.remote.0, identity: event.peer, endpoint: words.at(event.remote.0) };
        let (source, destination) = match event.packet {
            Direction::Egress => (&local, &remote),
            Direction::Ingress => (&remote, &local),
        };
        any(self.types.is_empty(), self.types.iter().any(|one| one.holds(event)))
            && any(self.reasons.is_empty(), self.reasons.contains(&event.reason))
            && any(self.protocols.is_empty(), self.protocols.contains(&event.protocol))
            && any(self.directions.is_empty(), self.directions.contains(&event.packet))
            && any(self.ports.is_empty(), [event.local.1, event.remote.1].iter().any(|port| self.ports.contains(port)))
            && any(self.from.is_empty(), self.from.iter().any(|one| one.is(source, words)))
            && any(self.to.is_empty(), self.to.iter().any(|one| one.is(destination, words)))
            && any(
                self.either.is_empty(),
                self.either.iter().any(|one| one.is(source, words) || one.is(destination, words)),
            )
    }
}

impl Type {
    fn parse(text: &str) -> Result<Self, InvalidFilter> {
        match text {
            "new" => Ok(Self::New),
            "drop" => Ok(Self::Drop),
            "verdict" | "policy-verdict" => Ok(Self::Verdict),
            "cut" => Ok(Self::Cut),
            "audit" => Ok(Self::Audit),
            _ => Err(InvalidFilter::Type { text: text.to_owned() }),
        }
    }

    const fn holds(self, event: &FlowEvent) -> bool {
        match self {
            Self::New => event.reason.passes(),
            Self::Drop => !event.reason.passes(),
            Self::Verdict => event.policy.is_some(),
            Self::Cut => event.cut,
            Self::Audit => {
                let audited =
                    matches!(event.reason, Reason::AuditDefault | Reason::AuditExplicit | Reason::AuditNoProxy);
                audited || event.shadow_differs
            }
        }
    }
}

impl End {
    fn is(&self, seen: &Seen, words: &mut Words) -> bool {
        match self {
            Self::Range(range) => range.contains(seen.address),
            Self::Identity(identity) => *identity == seen.identity,
            Self::Labels(labels) => words.has(seen.identity, labels),
            Self::Endpoint(endpoint) => Some(*endpoint) == seen.endpoint,
        }
    }

    /// Whether an identity is meant, where nothing but that is known; none if it says something else.
    pub(crate) fn means(&self, identity: Identity, labels: &LabelSet) -> Option<bool> {
        match self {
            Self::Identity(one) => Some(*one == identity),
            Self::Labels(wanted) => Some(wanted.iter().all(|label| is_in(label, labels))),
            Self::Range(_) | Self::Endpoint(_) => None,
        }
    }
}

/// Whether a label is there; without a source, from any (LBL-5).
pub(crate) fn is_in(wanted: &Label, labels: &LabelSet) -> bool {
    labels.get(&wanted.key).is_some_and(|label| {
        label.value == wanted.value && (wanted.source == SOURCE_ANY || label.source == wanted.source)
    })
}

/// One end as a message says it.
pub(crate) fn end(field: &'static str, message: &v1::FlowEnd, words: &Words) -> Result<End, InvalidFilter> {
    match &message.end {
        Some(flow_end::End::Range(text)) => range(field, text).map(End::Range),
        Some(flow_end::End::Identity(bits)) => Ok(End::Identity(Identity::from_bits(*bits))),
        Some(flow_end::End::Labels(labels)) if !labels.labels.is_empty() => {
            let parse = |text: &String| Label::parse_with(text, SOURCE_ANY);
            let labels = labels.labels.iter().map(parse).collect::<Result<_, _>>();
            labels.map(End::Labels).map_err(|source| InvalidFilter::Label { field, source })
        }
        Some(flow_end::End::Endpoint(text)) => {
            words.endpoint(text).map(End::Endpoint).ok_or_else(|| InvalidFilter::Endpoint {
                field,
                text: text.clone(),
                endpoints: words.endpoints().iter().map(Name::to_string).collect(),
            })
        }
        Some(flow_end::End::Labels(_)) | None => Err(InvalidFilter::Nothing { field }),
    }
}

/// An address is a range of one.
pub(crate) fn range(field: &'static str, text: &str) -> Result<Cidr, InvalidFilter> {
    let range = text.parse::<IpAddr>().map(Cidr::host).or_else(|_| text.parse::<Cidr>());
    range.map_err(|_| InvalidFilter::Range { field, text: text.to_owned() })
}

pub(crate) fn direction(text: &str) -> Result<Direction, InvalidFilter> {
    match text {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        _ => Err(InvalidFilter::Direction { text: text.to_owned() }),
    }
}

fn reason(text: &str) -> Result<Reason, InvalidFilter> {
    let found = Reason::ALL.into_iter().find(|reason| reason.name() == text);
    found.ok_or_else(|| InvalidFilter::Reason { text: text.to_owned() })
}

fn reasons() -> String {
    Reason::ALL.map(Reason::name).join(", ")
}

fn known(endpoints: &[String]) -> String {
    if endpoints.is_empty() { "there is none".to_owned() } else { format!("there are {}", endpoints.join(", ")) }
}
