//! Events in words: names and labels in place of numbers, and the rules that have a say.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ringfence_datapath::FlowEvent;
use ringfence_policy::{
    flow::Direction,
    identity::Identity,
    label::{Label, LabelSet},
    name::Name,
    revision::Revision,
    tables::EndpointId,
    world::Settings,
};
use ringfence_proto::v1;

use super::{filter::is_in, rules::Rules};
use crate::{
    feed::Feed,
    people::{People, endpoint_name},
    registry::{Attachment, Registry},
};

/// Labels that are remembered, at most.
const LABELS: usize = 65_536;

/// What numbers mean, as of the newest state that was followed.
pub(crate) struct Words {
    people: Arc<People>,
    feed: Arc<Feed>,
    registry: Arc<Registry>,
    /// Of the state that the labels are from.
    revision: Revision,
    labels: HashMap<Identity, Arc<(LabelSet, Vec<String>)>>,
    endpoints: Arc<BTreeMap<EndpointId, Name>>,
    addresses: HashMap<IpAddr, EndpointId>,
    rules: Rules,
}

impl Words {
    pub(crate) fn new(people: Arc<People>, feed: Arc<Feed>, registry: Arc<Registry>, settings: Settings) -> Self {
        let mut words = Self {
            people,
            feed,
            registry,
            revision: Revision::ZERO,
            labels: HashMap::new(),
            endpoints: Arc::default(),
            addresses: HashMap::new(),
            rules: Rules::new(settings),
        };
        words.refresh();
        words
    }

    /// Looks at the newest state.
    pub(crate) fn refresh(&mut self) {
        self.endpoints = self.people.endpoints();
        let entries = self.registry.entries();
        let attached = entries.iter().filter_map(|entry| match entry.attachment {
            Attachment::Attached { id } => Some((id, &entry.declared.addresses)),
            Attachment::Waiting { .. } => None,
        });
        self.addresses = attached.flat_map(|(id, all)| all.iter().map(move |address| (*address, id))).collect();
        // Not held longer than needed: the next delta would have to copy it.
        let followed = self.feed.followed();
        let revision = followed.mesh.revision();
        if revision != self.revision || self.labels.len() > LABELS {
            self.labels.clear();
            self.revision = revision;
        }
        self.rules.refresh(&followed.mesh);
    }

    /// Who has an address on this node.
    pub(crate) fn at(&self, address: IpAddr) -> Option<EndpointId> {
        self.addresses.get(&address).copied()
    }

    /// An endpoint by its name or its interface index.
    pub(crate) fn endpoint(&self, text: &str) -> Option<EndpointId> {
        let named = self.endpoints.iter().find(|(_, name)| name.as_str() == text).map(|(id, _)| *id);
        named.or_else(|| text.parse().ok().map(EndpointId).filter(|id| self.endpoints.contains_key(id)))
    }

    /// The names of this node's endpoints.
    pub(crate) fn endpoints(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.endpoints.values().cloned().collect();
        names.sort();
        names
    }

    /// An endpoint's name, or its number.
    pub(crate) fn name(&self, id: EndpointId) -> String {
        endpoint_name(&self.endpoints, id)
    }

    /// An endpoint's name; empty if it is not known.
    pub(crate) fn known_name(&self, id: EndpointId) -> String {
        self.endpoints.get(&id).map(ToString::to_string).unwrap_or_default()
    }

    /// The labels of an identity.
    pub(crate) fn labels(&mut self, identity: Identity) -> Arc<(LabelSet, Vec<String>)> {
        let (people, feed) = (&self.people, &self.feed);
        Arc::clone(self.labels.entry(identity).or_insert_with(|| {
            let labels = people.labels(&feed.followed().mesh, identity);
            let texts = labels.iter().map(ToString::to_string).collect();
            Arc::new((labels, texts))
        }))
    }

    /// Whether an identity has all of these labels.
    pub(crate) fn has(&mut self, identity: Identity, wanted: &[Label]) -> bool {
        let labels = self.labels(identity);
        wanted.iter().all(|label| is_in(label, &labels.0))
    }

    /// An event for people.
    pub(crate) fn event(&mut self, event: &FlowEvent, time: SystemTime) -> v1::FlowEvent {
        let local = self.party(event.local, event.identity, Some(event.endpoint));
        let remote = self.party(event.remote, event.peer, self.at(event.remote.0));
        let (source, destination) = match event.packet {
            Direction::Egress => (local, remote),
            Direction::Ingress => (remote, local),
        };
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        v1::FlowEvent {
            time_unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            allowed: event.reason.passes(),
            reason: event.reason.name().to_owned(),
            revision: event.revision.0,
            source: Some(source),
            destination: Some(destination),
            protocol: event.protocol.into(),
            direction: event.packet.to_string(),
            connection: event.direction.to_string(),
            endpoint: self.name(event.endpoint),
            policy: event.policy.map_or(0, |policy| policy.0),
            band: event.band.into(),
            port: event.port.into(),
            shadow_differs: event.shadow_differs,
            cut: event.cut,
            rules: self.rules_of(event),
        }
    }

    /// The rules that have a say in an event's verdict, as far as they are known.
    fn rules_of(&mut self, event: &FlowEvent) -> Vec<v1::RuleReference> {
        if event.policy.is_none() {
            return Vec::new();
        }
        let (subject, peer) = (self.labels(event.identity), self.labels(event.peer));
        let ports = self.endpoints.get(&event.endpoint).and_then(|name| self.registry.get(name));
        let own_ports = ports.map(|entry| entry.declared.named_ports()).unwrap_or_default();
        self.rules.of(event, (&subject.0, &peer.0), own_ports)
    }

    fn party(
        &mut self,
        (address, port): (IpAddr, u16),
        identity: Identity,
        endpoint: Option<EndpointId>,
    ) -> v1::FlowParty {
        let understood = address != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        v1::FlowParty {
            address: if understood { address.to_string() } else { String::new() },
            port: port.into(),
            identity: identity.bits(),
            labels: self.labels(identity).1.clone(),
            endpoint: endpoint.map(|id| self.known_name(id)).unwrap_or_default(),
        }
    }
}
