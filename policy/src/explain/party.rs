//! The ends of a flow as people name them: labels, an entity, an address, a DNS name.

use std::net::IpAddr;

use crate::{
    address::AddressBook,
    entity::Entity,
    identity::Identity,
    l7::dns_name::DnsName,
    label::{CLUSTER_KEY, InvalidLabel, Label, LabelSet, SOURCE_FQDN, SOURCE_K8S, SOURCE_RESERVED},
    reserved::{RESERVED_PEERS, reserved_labels},
    rule::Rule,
    world::Settings,
};

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// A reserved number, or one that only stands for the labels.
    pub identity: Identity,
    /// What selectors look at.
    pub labels: LabelSet,
}

/// Why a text names no end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParty {
    /// The word is for many at once.
    #[error("{word:?} is no single peer: name one, such as world-ipv4, host, remote-node, or labels")]
    Many {
        /// As given.
        word: String,
    },
    /// Neither a word, nor labels, nor an address, nor a DNS name.
    #[error(
        "{text:?} is neither an entity, nor an address, nor a DNS name, nor labels: write labels as app=web,k8s:tier=front"
    )]
    Unknown {
        /// As given.
        text: String,
    },
    /// The labels are wrong.
    #[error(transparent)]
    Labels(#[from] InvalidLabel),
}

impl Party {
    /// Stands for any workload's identity: only its labels count.
    const WORKLOAD: Identity = Identity::from_bits(0x0010_0001);

    /// A party of labels. Without a label of a cluster, a workload is one of the local cluster.
    #[must_use]
    pub fn of(mut labels: LabelSet, settings: &Settings) -> Self {
        if let Some(identity) = RESERVED_PEERS.into_iter().find(|peer| reserved_labels(*peer) == labels) {
            return Self { identity, labels };
        }
        if labels.get(CLUSTER_KEY).is_none() && labels.iter().any(|label| label.source == SOURCE_K8S) {
            labels.insert(Label::new(SOURCE_K8S, CLUSTER_KEY, settings.local_cluster.as_str()));
        }
        let node = labels.iter().any(|label| label.source == SOURCE_RESERVED && label.key == "host");
        Self { identity: if node { Identity::HOST } else { Self::WORKLOAD }, labels }
    }

    /// A reserved identity.
    #[must_use]
    pub fn reserved(identity: Identity) -> Self {
        Self { identity, labels: reserved_labels(identity) }
    }

    /// An address that no workload has: its labels depend on the ranges that rules and groups name.
    #[must_use]
    pub fn address(address: IpAddr, addresses: &AddressBook) -> Self {
        let labels = addresses.labels(address);
        Self { identity: AddressBook::identity(&labels), labels }
    }

    /// A DNS name that the proxy has learnt: selected by every `toFQDNs` that means it, and of the world.
    #[must_use]
    pub fn dns_name<'r>(name: &str, rules: impl IntoIterator<Item = &'r Rule>, settings: &Settings) -> Self {
        let name = DnsName::new(name);
        let peers = rules.into_iter().flat_map(Rule::elements).filter_map(|(_, _, element)| element.peers.as_ref());
        let names = peers.flat_map(|peers| &peers.fqdns).filter_map(|fqdn| fqdn.names.as_ref());
        let labels = names.filter(|names| names.selects(&name)).map(|names| Label::new(SOURCE_FQDN, names.label(), ""));
        let world = if settings.dual_stack { "world-ipv4" } else { "world" };
        let labels: LabelSet = labels.chain([Label::new(SOURCE_RESERVED, world, "")]).collect();
        Self { identity: AddressBook::identity(&labels), labels }
    }

    /// A party as a person names it.
    ///
    /// # Errors
    /// `InvalidParty` if the text is none of the forms.
    pub fn parse<'r>(
        text: &str,
        rules: impl IntoIterator<Item = &'r Rule>,
        addresses: &AddressBook,
        settings: &Settings,
    ) -> Result<Self, InvalidParty> {
        let text = text.trim();
        if let Some(entity) = Entity::from_word(text) {
            let reserved = |name: &str| (0..=10).map(Identity::from_bits).find(|id| id.reserved_name() == Some(name));
            let world = if settings.dual_stack { "world-ipv4" } else { "world" };
            let name = if entity == Entity::World { world } else { entity.word() };
            return reserved(name).map(Self::reserved).ok_or_else(|| InvalidParty::Many { word: text.to_owned() });
        }
        if text == "unknown" {
            return Ok(Self::reserved(Identity::UNKNOWN));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::address(address, addresses));
        }
        if text.contains(['=', ':', ',']) {
            let labels: Result<Vec<Label>, _> =
                text.split(',').map(|label| Label::parse_with(label.trim(), SOURCE_K8S)).collect();
            let labels = labels?;
            return Ok(Self::of(LabelSet::parse(labels.iter().map(ToString::to_string))?, settings));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_name = name.contains('.') && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        if is_name {
            return Ok(Self::dns_name(text, rules, settings));
        }
        Err(InvalidParty::Unknown { text: text.to_owned() })
    }
}
