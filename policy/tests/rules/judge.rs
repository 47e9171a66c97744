//! Objects judged by the specification alone: also what the tables cannot express.

use std::{collections::BTreeMap, net::IpAddr};

use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    evaluate::{Conflict, Decision, SubjectPolicy},
    flow::{Direction, Flow},
    l7::dns_name::DnsName,
    object::{Parsed, parse_documents},
    record::NamedPort,
    rule::{Authentication, Rule},
    world::{Backends, Service, Settings, World},
};

use crate::scene::{identity, labels, name};

/// A world with objects, and one subject of it.
pub(crate) struct Judge {
    pub(crate) settings: Settings,
    pub(crate) world: World,
    pub(crate) parsed: Parsed,
    /// DNS names with the addresses that were seen.
    answers: BTreeMap<DnsName, Vec<IpAddr>>,
    subject: &'static str,
}

impl Judge {
    pub(crate) fn new(yaml: &str, compat: Compat) -> Self {
        let parsed = parse_documents(yaml, compat);
        assert!(!parsed.has_errors(), "{:#?}\n{yaml}", parsed.diagnostics);
        let settings = Settings::new(name("east"), compat);
        Self { settings, world: World::default(), parsed, answers: BTreeMap::new(), subject: "web" }
    }

    pub(crate) fn subject(self, subject: &'static str) -> Self {
        Self { subject, ..self }
    }

    pub(crate) fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// A port that the subject (ingress) or a peer (egress) calls so.
    pub(crate) fn named_port(mut self, direction: Direction, name: &str, protocol: u8, port: u16) -> Self {
        let ports = match direction {
            Direction::Ingress => &mut self.world.own_ports,
            Direction::Egress => &mut self.world.peer_ports,
        };
        ports.push(NamedPort { name: name.to_owned(), protocol, port });
        self
    }

    pub(crate) fn service(mut self, name: &str, backends: Backends) -> Self {
        let labels = ringfence_policy::label::LabelSet::parse(["k8s:tier=back"]).unwrap();
        self.world.services.push(Service { namespace: "shop".into(), name: name.into(), labels, backends });
        self
    }

    pub(crate) fn answer(mut self, name: &str, address: &str) -> Self {
        self.answers.entry(DnsName::new(name)).or_default().push(address.parse().unwrap());
        self
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.parsed.objects.iter().flat_map(|object| &object.rules)
    }

    pub(crate) fn policy(&self) -> Result<SubjectPolicy, Conflict> {
        let subject = identity(self.subject);
        SubjectPolicy::resolve(&self.settings, &self.world, self.rules(), subject, &labels(subject))
    }

    fn addresses(&self, policy: &SubjectPolicy) -> AddressBook {
        let mut addresses = AddressBook::new(self.settings.dual_stack, false);
        self.parsed.groups.iter().for_each(|group| addresses.add_group(group));
        addresses.add_ranges(self.rules());
        let services = self.world.services.iter().flat_map(Service::addresses);
        services.for_each(|range| addresses.add_range(range));
        let answers =
            self.answers.iter().map(|(name, found)| (name.clone(), found.iter().copied().collect())).collect();
        addresses.add_names(self.rules(), &answers, |selector| policy.uses(selector));
        addresses
    }

    /// `peer` is one of the scene's, or an address.
    pub(crate) fn decide(&self, direction: Direction, peer: &str, protocol: u8, port: u16) -> Decision {
        let policy = self.policy().unwrap();
        let (peer, labels) = match peer.parse() {
            Ok(address) => {
                let labels = self.addresses(&policy).labels(address);
                (AddressBook::identity(&labels), labels)
            }
            Err(_) => (identity(peer), labels(identity(peer))),
        };
        policy.decide(&Flow { subject: identity(self.subject), peer, direction, protocol, port }, &labels)
    }

    /// One letter for the outcome of each flow: allow, `p`roved before it is allowed, deny by default, denied
    /// eXplicitly, redirect.
    pub(crate) fn outcomes(&self, direction: Direction, flows: &[(&str, u8, u16)]) -> String {
        let letter = |decision: Decision| match decision {
            Decision::Allow { authentication: Authentication::Disabled } => 'A',
            Decision::Allow { .. } => 'p',
            Decision::DenyDefault => 'D',
            Decision::DenyExplicit => 'X',
            Decision::Redirect(_) => 'R',
        };
        flows.iter().map(|(peer, protocol, port)| letter(self.decide(direction, peer, *protocol, *port))).collect()
    }
}

/// A namespaced object in `shop` for `app=web`.
pub(crate) fn cnp(content: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: web}}}}\n  {content}\n"
    )
}
