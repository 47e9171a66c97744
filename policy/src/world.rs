//! What verdicts depend on besides rules and labels.

mod tls;
mod unresolved;

pub use tls::TlsSecrets;

use std::collections::BTreeSet;

use crate::{
    cidr::Cidr,
    compat::Compat,
    flow::Direction,
    label::{LabelSet, NAMESPACE_KEY, SOURCE_K8S},
    name::Name,
    record::NamedPort,
    rule::ServicePeer,
    selector::{LabelKey, Requirement, Selector},
};

/// The options of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster that entity `cluster` means.
    pub local_cluster: Name,
    /// Whose reading counts where Ringfence and Cilium differ.
    pub compat: Compat,
    /// Which directions are enforced.
    pub enforcement: Enforcement,
    /// The node reaches its endpoints unless a deny rule says otherwise (SEM-50).
    pub allow_localhost: bool,
    /// The node itself is a subject (SEM-10).
    pub host_firewall: bool,
    /// Ports of the node, with their IP protocol, that anybody reaches whatever policies say, so that nobody is locked out.
    pub failsafe: BTreeSet<(u8, u16)>,
    /// `enableDefaultDeny` is looked at (SEM-7).
    pub optional_default_deny: bool,
    /// The mesh has addresses of both families (ID-15, ID-22).
    pub dual_stack: bool,
    /// Whom a selector of endpoints means that names no cluster (CL-2).
    pub reach: Reach,
    /// The node, or the endpoint that is asked about, refuses nothing and reports what it would refuse (AUD-1).
    pub audit: bool,
}

/// Whom selectors of endpoints in allow rules mean that name no cluster. Those in deny rules mean every cluster always:
/// one that meant fewer would open what it closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Pods of every cluster (CL-1).
    #[default]
    Mesh,
    /// Pods of the local cluster (CL-2).
    LocalCluster,
}

/// When a direction of a subject is enforced (§4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// Where a rule says so.
    #[default]
    Default,
    /// Everywhere.
    Always,
    /// Nowhere, deny rules included.
    Never,
}

/// What names in rules stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Who is meant by `toServices`.
    pub services: Vec<Service>,
    /// The subject's named ports, which ingress rules mean.
    pub own_ports: Vec<NamedPort>,
    /// Every peer's named ports, which egress rules mean.
    pub peer_ports: Vec<NamedPort>,
    /// The secrets that TLS contexts may name; none if nobody looked, and each is taken for what it should be.
    pub tls_secrets: Option<TlsSecrets>,
}

/// A service, as far as policies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Unique in its namespace.
    pub name: String,
    /// Its own labels.
    pub labels: LabelSet,
    /// Who is behind it.
    pub backends: Backends,
}

/// Who is behind a service (SVC-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Pods of its namespace with these labels.
    Pods(Vec<(String, String)>),
    /// These addresses.
    Addresses(Vec<std::net::IpAddr>),
}

impl Settings {
    /// The usual options.
    #[must_use]
    pub const fn new(local_cluster: Name, compat: Compat) -> Self {
        Self {
            local_cluster,
            compat,
            enforcement: Enforcement::Default,
            allow_localhost: true,
            host_firewall: false,
            failsafe: BTreeSet::new(),
            optional_default_deny: true,
            dual_stack: true,
            reach: Reach::Mesh,
            audit: false,
        }
    }
}

impl World {
    /// The numbers that a named port stands for, each once: none if nobody calls a port of the protocol so, several if
    /// peers disagree (PORT-4).
    #[must_use]
    pub fn ports(&self, direction: Direction, name: &str, protocol: u8) -> BTreeSet<u16> {
        let ports = match direction {
            Direction::Ingress => &self.own_ports,
            Direction::Egress => &self.peer_ports,
        };
        let called = ports.iter().filter(|port| port.name.eq_ignore_ascii_case(name) && port.protocol == protocol);
        called.map(|port| port.port).collect()
    }

    /// Whether there is a service that a reference names, whoever is behind it (SVC-5).
    #[must_use]
    pub fn has_service(&self, peer: &ServicePeer) -> bool {
        self.services.iter().any(|service| service.is_meant_by(peer))
    }

    /// The selectors that a reference to services stands for; none if there is no such service (SVC-1, SVC-2).
    pub fn backends<'w>(&'w self, peer: &'w ServicePeer) -> impl Iterator<Item = Selector> + 'w {
        self.services.iter().filter(|service| service.is_meant_by(peer)).flat_map(Service::selectors)
    }
}

impl Service {
    fn is_meant_by(&self, peer: &ServicePeer) -> bool {
        let here = peer.namespace.as_ref().is_none_or(|namespace| *namespace == self.namespace);
        here && match &peer.name {
            Some(name) => *name == self.name,
            None => peer.labels.matches(&self.labels),
        }
    }

    /// The addresses that are named one by one, each a prefix of its own (ID-20).
    pub fn addresses(&self) -> impl Iterator<Item = Cidr> {
        let addresses: &[_] = if let Backends::Addresses(addresses) = &self.backends { addresses } else { &[] };
        addresses.iter().copied().map(Cidr::host)
    }

    fn selectors(&self) -> Vec<Selector> {
        match &self.backends {
            Backends::Pods(labels) => {
                let own = Requirement::equals(LabelKey::new(SOURCE_K8S, NAMESPACE_KEY), self.namespace.as_str());
                let label =
                    |(key, value): &(String, String)| Requirement::equals(LabelKey::new(SOURCE_K8S, key), value);
                vec![labels.iter().map(label).chain([own]).collect()]
            }
            Backends::Addresses(_) => self.addresses().map(crate::rule::CidrPeer::range).collect(),
        }
    }
}
