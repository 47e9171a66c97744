//! Endpoints as the node's operator declares them: in a file or through the local API.

use std::{
    collections::BTreeSet,
    fmt,
    net::{AddrParseError, IpAddr},
    path::Path,
    str::FromStr as _,
};

use ringfence_policy::{
    command::EndpointSpec,
    flow::protocol,
    label::{InvalidLabel, Label, LabelSet},
    name::{InvalidName, Name},
    record::NamedPort,
};
use ringfence_proto::v1;
use ringfence_runtime::{
    checked,
    config::{self, ConfigError},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{config::ip_address, register::Reserved};

/// The longest name of a network interface, in bytes (Linux, `IFNAMSIZ` without the final zero).
const MAX_INTERFACE_BYTES: usize = 15;

/// A workload on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredEndpoint {
    /// Unique on the node.
    #[serde(deserialize_with = "name")]
    pub name: Name,
    /// The host-side device that all of its packets pass.
    #[serde(deserialize_with = "interface")]
    pub interface: String,
    /// At least one; unique in the mesh.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<IpAddr>,
    /// `source:key=value`; the cluster label is added by the store.
    #[serde(default, serialize_with = "labels_as_text", deserialize_with = "labels")]
    pub labels: LabelSet,
    /// Ports that policies may name.
    #[serde(default)]
    pub named_ports: Vec<DeclaredPort>,
    /// Policies are tried out on it: what they would refuse to it or from it is reported and passes (AUD-1, AUD-2).
    #[serde(default)]
    pub policy_audit_mode: bool,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPort {
    /// IANA service-name syntax.
    pub name: String,
    /// The transport.
    pub protocol: Transport,
    /// 1–65535.
    #[serde(deserialize_with = "port")]
    pub port: u16,
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A file of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointsFile {
    /// In the order of the file; names, interfaces and addresses are unique.
    #[serde(deserialize_with = "unique")]
    pub endpoints: Vec<DeclaredEndpoint>,
}

/// A declaration through the local API is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeclaration {
    /// `name`.
    #[error("name: {0}")]
    Name(#[from] InvalidName),
    /// `name` is one that the agent gives.
    #[error("name: {name} is what the agent calls its own ingress_addresses or health_addresses: give it another name")]
    ReservedName {
        /// As given.
        name: Name,
    },
    /// `interface`.
    #[error("interface: {0}")]
    Interface(#[from] InvalidInterface),
    /// `addresses`.
    #[error("addresses: {text:?} is not an IP address")]
    Address {
        /// As given.
        text: String,
        /// Why.
        source: AddrParseError,
    },
    /// `addresses` is empty.
    #[error("addresses: give at least one IPv4 or IPv6 address")]
    NoAddress,
    /// `labels`.
    #[error("labels: {0}")]
    Label(#[from] InvalidLabel),
    /// `named_ports`.
    #[error(
        "named_ports: {name:?} has protocol {protocol} and port {port}: give protocol 6, 17 or 132 and a port from 1 to 65535"
    )]
    Port {
        /// The port's name.
        name: String,
        /// As given.
        protocol: u32,
        /// As given.
        port: u32,
    },
}

/// A text is not the name of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an interface name: use 1 to {MAX_INTERFACE_BYTES} characters without spaces, '/' and ':'")]
pub struct InvalidInterface {
    /// As given.
    pub text: String,
}

/// Something that must be unique on a node is declared twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {endpoint} repeats {what} of another endpoint: names, interfaces and addresses are unique on a node")]
pub struct Repeated {
    /// The second one.
    pub endpoint: Name,
    /// What it repeats.
    pub what: String,
}

impl EndpointsFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// `ConfigError` with line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        config::load(path)
    }
}

impl DeclaredEndpoint {
    /// What the store is asked for.
    #[must_use]
    pub fn spec(&self, cluster: &Name, node: &Name) -> EndpointSpec {
        EndpointSpec {
            cluster: cluster.clone(),
            node: node.clone(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            labels: self.labels.clone(),
            named_ports: self.named_ports(),
        }
    }

    /// Its names of ports, as the store has them.
    #[must_use]
    pub fn named_ports(&self) -> Vec<NamedPort> {
        let named_port = |port: &DeclaredPort| NamedPort {
            name: port.name.clone(),
            protocol: port.protocol.number(),
            port: port.port,
        };
        self.named_ports.iter().map(named_port).collect()
    }
}

/// Checks that names, interfaces and addresses are unique.
///
/// # Errors
/// `Repeated` for the first endpoint that repeats something.
pub fn check_unique<'a>(endpoints: impl IntoIterator<Item = &'a DeclaredEndpoint>) -> Result<(), Repeated> {
    let mut seen = BTreeSet::new();
    for endpoint in endpoints {
        let addresses = endpoint.addresses.iter().map(|address| format!("address {address}"));
        let own = [format!("name {}", endpoint.name), format!("interface {}", endpoint.interface)];
        for what in own.into_iter().chain(addresses) {
            if !seen.insert(what.clone()) {
                return Err(Repeated { endpoint: endpoint.name.clone(), what });
            }
        }
    }
    Ok(())
}

impl Transport {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|transport| u32::from(transport.number()) == number)
    }
}

impl TryFrom<v1::LocalEndpoint> for DeclaredEndpoint {
    type Error = InvalidDeclaration;

    fn try_from(message: v1::LocalEndpoint) -> Result<Self, InvalidDeclaration> {
        let address =
            |text: String| text.parse().map_err(|source| InvalidDeclaration::Address { text: text.clone(), source });
        let named_port = |port: v1::NamedPort| {
            let valid =
                Transport::from_number(port.protocol).zip(u16::try_from(port.port).ok().filter(|port| *port != 0));
            match valid {
                Some((protocol, number)) => Ok(DeclaredPort { name: port.name, protocol, port: number }),
                None => Err(InvalidDeclaration::Port { name: port.name, protocol: port.protocol, port: port.port }),
            }
        };
        let declared = Self {
            name: check_name(Name::new(message.name)?)?,
            interface: check_interface(message.interface)?,
            addresses: message.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
            labels: LabelSet::parse(&message.labels)?,
            named_ports: message.named_ports.into_iter().map(named_port).collect::<Result<_, _>>()?,
            policy_audit_mode: message.policy_audit_mode,
        };
        if declared.addresses.is_empty() { Err(InvalidDeclaration::NoAddress) } else { Ok(declared) }
    }
}

impl From<DeclaredEndpoint> for v1::LocalEndpoint {
    fn from(declared: DeclaredEndpoint) -> Self {
        let named_port = |port: DeclaredPort| v1::NamedPort {
            name: port.name,
            protocol: u32::from(port.protocol.number()),
            port: u32::from(port.port),
        };
        Self {
            name: declared.name.to_string(),
            interface: declared.interface,
            addresses: declared.addresses.iter().map(ToString::to_string).collect(),
            labels: declared.labels.iter().map(ToString::to_string).collect(),
            named_ports: declared.named_ports.into_iter().map(named_port).collect(),
            policy_audit_mode: declared.policy_audit_mode,
        }
    }
}

fn check_interface(text: String) -> Result<String, InvalidInterface> {
    let character = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    let valid = !text.is_empty() && text.len() <= MAX_INTERFACE_BYTES && text.chars().all(character);
    if valid && text != "." && text != ".." { Ok(text) } else { Err(InvalidInterface { text }) }
}

/// A proxy's or health check's record would replace the endpoint's, and the other way round.
fn check_name(name: Name) -> Result<Name, InvalidDeclaration> {
    if Reserved::NAMES.contains(&name.as_str()) { Err(InvalidDeclaration::ReservedName { name }) } else { Ok(name) }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    checked::text(deserializer, |text| check_name(Name::from_str(text)?))
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked::text(deserializer, |text| check_interface(text.to_owned()))
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let valid = |port| u16::try_from(port).ok().filter(|port| *port != 0);
    let help = |port| format!("{port} is not a port: give a number from 1 to 65535");
    checked::number(deserializer, |port| valid(port).ok_or_else(|| help(port)))
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let some = |list: &[IpAddr]| if list.is_empty() { Err(InvalidDeclaration::NoAddress) } else { Ok(()) };
    checked::texts(deserializer, ip_address, some)
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LabelSet, D::Error> {
    let check = |labels: &[Label]| LabelSet::parse(labels.iter().map(ToString::to_string)).map(|_| ());
    let mut set = LabelSet::default();
    for label in checked::texts(deserializer, Label::parse, check)? {
        set.insert(label);
    }
    Ok(set)
}

fn labels_as_text<S: Serializer>(labels: &LabelSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(labels.iter().map(ToString::to_string))
}

/// Checks while the list is read, so that the parser can say where.
fn unique<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeclaredEndpoint>, D::Error> {
    struct List;

    impl<'de> de::Visitor<'de> for List {
        type Value = Vec<DeclaredEndpoint>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of endpoints")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut endpoints = Vec::new();
            while let Some(endpoint) = sequence.next_element()? {
                endpoints.push(endpoint);
                check_unique(&endpoints).map_err(de::Error::custom)?;
            }
            Ok(endpoints)
        }
    }

    deserializer.deserialize_seq(List)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "endpoints:\n\
        - {name: web-1, interface: veth1, addresses: [10.101.1.10], labels: ['k8s:app=web'], named_ports: [{name: http, protocol: TCP, port: 8080}], policy_audit_mode: true}\n\
        - {name: api-1, interface: veth2, addresses: [10.101.1.11, 'fd10::11'], labels: []}\n";

    fn load(text: &str) -> Result<EndpointsFile, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        std::fs::write(&path, text).unwrap();
        EndpointsFile::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_declaration_survives_the_file_and_the_wire() {
        let file = load(GOOD).unwrap();
        assert_eq!(load(&config::dump(&file)).unwrap(), file);
        for declared in file.endpoints {
            let message = v1::LocalEndpoint::from(declared.clone());
            assert_eq!(DeclaredEndpoint::try_from(message), Ok(declared));
        }
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        let cases = [
            ("name: web-1", "name: reserved-ingress", ":2:10", "give it another name"),
            ("veth1", "veth-of-an-endpoint", ":2:28", "1 to 15"),
            ("[10.101.1.10]", "[]", ":2:46", "at least one"),
            ("k8s:app=web", "k8s:=web", ":2:70", "has no key"),
            ("['k8s:app=web']", "['k8s:a=1', 'k8s:a=2']", ":2:69", "given twice"),
            ("8080", "0", ":2:", "1 to 65535"),
            ("TCP", "ICMP", ":2:", "`TCP`, `UDP`, `SCTP`"),
            ("api-1", "API-1", ":3:10", "not a valid name"),
            ("api-1", "web-1", ":2:1", "repeats name web-1"),
            ("veth2", "veth1", ":2:1", "repeats interface veth1"),
            ("10.101.1.11", "10.101.1.10", ":2:1", "repeats address 10.101.1.10"),
            ("interface: veth2", "device: veth2", ":3:", "`interface`"),
        ];
        for (from, to, position, help) in cases {
            let message = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(&format!("endpoints.yaml{position}")), "{message}");
            assert!(message.contains(help), "{message}");
        }
    }

    #[test]
    fn a_wrong_message_names_the_field() {
        let good = v1::LocalEndpoint::from(load(GOOD).unwrap().endpoints.remove(0));
        let broken = |change: fn(&mut v1::LocalEndpoint)| {
            let mut message = good.clone();
            change(&mut message);
            DeclaredEndpoint::try_from(message).unwrap_err().to_string()
        };
        assert!(broken(|m| m.name = "Web".into()).starts_with("name:"));
        assert!(broken(|m| m.interface = "a/b".into()).starts_with("interface:"));
        assert!(broken(|m| m.addresses = vec!["x".into()]).starts_with("addresses:"));
        assert!(broken(|m| m.addresses.clear()).starts_with("addresses:"));
        assert!(broken(|m| m.labels = vec!["=".into()]).starts_with("labels:"));
        assert!(broken(|m| m.named_ports[0].port = 65536).starts_with("named_ports:"));
        assert!(broken(|m| m.named_ports[0].protocol = 1).starts_with("named_ports:"));
    }
}
