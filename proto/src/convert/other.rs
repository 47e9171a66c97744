//! CIDR groups, services, DNS names, blocks of numbers, settings.

use ringfence_policy::{
    cidr::Cidr,
    command::IdentityUsage,
    identity::Identity,
    l7::dns_name::DnsName,
    label_filter::LabelFilterText,
    name::Name,
    record::{
        BoundAddress, CidrGroupRecord, FqdnRecord, IdentityBlock, MAX_BLOCK_NUMBERS, MeshSettings, ServicePort,
        ServiceRecord,
    },
};

use super::{
    invalid::InvalidMessage,
    record::{address, addresses, identity, label_texts, labels, name, port, protocol, texts},
};
use crate::v1;

impl From<(Name, IdentityUsage)> for v1::IdentityUsage {
    fn from((cluster, usage): (Name, IdentityUsage)) -> Self {
        let IdentityUsage { in_use, idle, quarantined, granted } = usage;
        Self { cluster: cluster.to_string(), in_use, idle, quarantined, granted, limit: Identity::MAX_NUMBER }
    }
}

impl From<CidrGroupRecord> for v1::CidrGroup {
    fn from(group: CidrGroupRecord) -> Self {
        Self { name: group.name.to_string(), labels: group.labels.into_iter().collect(), ranges: texts(&group.ranges) }
    }
}

impl TryFrom<v1::CidrGroup> for CidrGroupRecord {
    type Error = InvalidMessage;
    fn try_from(message: v1::CidrGroup) -> Result<Self, InvalidMessage> {
        let range = |text: &String| {
            text.parse::<Cidr>().map_err(|source| InvalidMessage::Cidr { field: "CidrGroup.ranges", source })
        };
        Ok(Self {
            name: name("CidrGroup.name", message.name)?,
            labels: message.labels.into_iter().collect(),
            ranges: message.ranges.iter().map(range).collect::<Result<_, _>>()?,
        })
    }
}

impl From<ServiceRecord> for v1::Service {
    fn from(service: ServiceRecord) -> Self {
        let port = |port: ServicePort| v1::service::Port {
            name: port.name,
            protocol: port.protocol.into(),
            port: port.port.into(),
            target_port: port.target_port.into(),
        };
        Self {
            cluster: service.cluster.to_string(),
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            labels: label_texts(&service.labels),
            cluster_addresses: texts(&service.cluster_addresses),
            ports: service.ports.into_iter().map(port).collect(),
            selector: service.selector.into_iter().collect(),
            backends: texts(&service.backends),
        }
    }
}

impl TryFrom<v1::Service> for ServiceRecord {
    type Error = InvalidMessage;
    fn try_from(message: v1::Service) -> Result<Self, InvalidMessage> {
        let service_port = |message: v1::service::Port| {
            Ok(ServicePort {
                name: message.name,
                protocol: protocol("Service.Port.protocol", message.protocol)?,
                port: port("Service.Port.port", message.port)?,
                target_port: port("Service.Port.target_port", message.target_port)?,
            })
        };
        Ok(Self {
            cluster: name("Service.cluster", message.cluster)?,
            namespace: name("Service.namespace", message.namespace)?,
            name: name("Service.name", message.name)?,
            labels: labels("Service.labels", &message.labels)?,
            cluster_addresses: addresses("Service.cluster_addresses", message.cluster_addresses)?,
            ports: message.ports.into_iter().map(service_port).collect::<Result<_, _>>()?,
            selector: message.selector.into_iter().collect(),
            backends: addresses("Service.backends", message.backends)?,
        })
    }
}

impl From<FqdnRecord> for v1::Fqdn {
    fn from(fqdn: FqdnRecord) -> Self {
        let bound = |BoundAddress { address, expires_ms }| v1::fqdn::Bound { address: address.to_string(), expires_ms };
        Self {
            cluster: fqdn.cluster.to_string(),
            name: fqdn.name.to_string(),
            addresses: fqdn.addresses.into_iter().map(bound).collect(),
        }
    }
}

impl TryFrom<v1::Fqdn> for FqdnRecord {
    type Error = InvalidMessage;
    fn try_from(message: v1::Fqdn) -> Result<Self, InvalidMessage> {
        let bound = |v1::fqdn::Bound { address: text, expires_ms }| {
            Ok(BoundAddress { address: address("Fqdn.Bound.address", text)?, expires_ms })
        };
        Ok(Self {
            cluster: name("Fqdn.cluster", message.cluster)?,
            name: DnsName::new(&message.name),
            addresses: message.addresses.into_iter().map(bound).collect::<Result<_, _>>()?,
        })
    }
}

impl From<IdentityBlock> for v1::IdentityBlock {
    fn from(block: IdentityBlock) -> Self {
        Self {
            cluster: block.cluster.to_string(),
            holder: block.holder.to_string(),
            first: block.first.bits(),
            count: block.count,
            spent: block.spent,
        }
    }
}

impl TryFrom<v1::IdentityBlock> for IdentityBlock {
    type Error = InvalidMessage;
    /// All of its numbers are ones that its cluster can give.
    fn try_from(message: v1::IdentityBlock) -> Result<Self, InvalidMessage> {
        let first = identity("IdentityBlock.first", message.first)?;
        let most = MAX_BLOCK_NUMBERS.min(Identity::MAX_NUMBER - first.number() + 1);
        let within = |field, number, minimum, maximum| match (minimum..=maximum).contains(&number) {
            true => Ok(number),
            false => Err(InvalidMessage::Range { field, number, minimum, maximum }),
        };
        let count = within("IdentityBlock.count", message.count, 1, most)?;
        Ok(Self {
            cluster: name("IdentityBlock.cluster", message.cluster)?,
            holder: name("IdentityBlock.holder", message.holder)?,
            first,
            count,
            spent: within("IdentityBlock.spent", message.spent, 0, count)?,
        })
    }
}

impl From<MeshSettings> for v1::MeshSettings {
    fn from(settings: MeshSettings) -> Self {
        let LabelFilterText { replaces_defaults, entries } = settings.label_filter;
        Self {
            label_filter: Some(v1::mesh_settings::LabelFilter { replaces_defaults, entries }),
            identity_grace_ms: settings.identity_grace_ms,
            quarantine_ms: settings.quarantine_ms,
            node_lease_ms: settings.node_lease_ms,
            node_grace_ms: settings.node_grace_ms,
        }
    }
}

impl TryFrom<v1::MeshSettings> for MeshSettings {
    type Error = InvalidMessage;
    fn try_from(message: v1::MeshSettings) -> Result<Self, InvalidMessage> {
        let filter = message.label_filter.ok_or(InvalidMessage::Missing { field: "MeshSettings.label_filter" })?;
        let v1::mesh_settings::LabelFilter { replaces_defaults, entries } = filter;
        let settings = Self {
            label_filter: LabelFilterText { replaces_defaults, entries },
            identity_grace_ms: message.identity_grace_ms,
            quarantine_ms: message.quarantine_ms,
            node_lease_ms: message.node_lease_ms,
            node_grace_ms: message.node_grace_ms,
        };
        settings.check().map_err(|source| InvalidMessage::Settings { source })?;
        Ok(settings)
    }
}
