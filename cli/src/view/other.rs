//! Services, CIDR groups, DNS names, blocks of numbers, settings.

use std::collections::BTreeMap;

use ringfence_policy::record::{CidrGroupRecord, FqdnRecord, IdentityBlock, MeshSettings, ServiceRecord};
use serde::Serialize;

/// A service.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceView {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) cluster_addresses: Vec<String>,
    pub(crate) ports: Vec<ServicePortView>,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) backends: Vec<String>,
    pub(crate) revision: u64,
}

/// A port of a service.
#[derive(Debug, Serialize)]
pub(crate) struct ServicePortView {
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) target_port: u16,
}

/// A CIDR group.
#[derive(Debug, Serialize)]
pub(crate) struct CidrGroupView {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ranges: Vec<String>,
    pub(crate) revision: u64,
}

/// A DNS name.
#[derive(Debug, Serialize)]
pub(crate) struct FqdnView {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<BoundView>,
    pub(crate) revision: u64,
}

/// One address of a DNS name.
#[derive(Debug, Serialize)]
pub(crate) struct BoundView {
    pub(crate) address: String,
    /// On the store's own clock.
    pub(crate) expires_ms: u64,
}

/// A gateway's block of numbers.
#[derive(Debug, Serialize)]
pub(crate) struct BlockView {
    pub(crate) cluster: String,
    pub(crate) holder: String,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) spent: u32,
    pub(crate) revision: u64,
}

/// What holds for the whole mesh; revision 0 if nobody has set anything.
#[derive(Debug, Serialize)]
pub(crate) struct SettingsView {
    pub(crate) label_filter_replaces_defaults: bool,
    pub(crate) label_filter: Vec<String>,
    pub(crate) identity_grace_ms: u64,
    pub(crate) quarantine_ms: u64,
    pub(crate) node_lease_ms: u64,
    pub(crate) node_grace_ms: u64,
    pub(crate) revision: u64,
}

impl ServiceView {
    pub(crate) fn new(service: &ServiceRecord, revision: u64) -> Self {
        let port = |port: &ringfence_policy::record::ServicePort| ServicePortView {
            name: port.name.clone(),
            protocol: port.protocol,
            port: port.port,
            target_port: port.target_port,
        };
        Self {
            cluster: service.cluster.to_string(),
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            labels: service.labels.iter().map(ToString::to_string).collect(),
            cluster_addresses: service.cluster_addresses.iter().map(ToString::to_string).collect(),
            ports: service.ports.iter().map(port).collect(),
            selector: service.selector.clone(),
            backends: service.backends.iter().map(ToString::to_string).collect(),
            revision,
        }
    }
}

impl CidrGroupView {
    pub(crate) fn new(group: &CidrGroupRecord, revision: u64) -> Self {
        Self {
            name: group.name.to_string(),
            labels: group.labels.clone(),
            ranges: group.ranges.iter().map(ToString::to_string).collect(),
            revision,
        }
    }
}

impl FqdnView {
    pub(crate) fn new(fqdn: &FqdnRecord, revision: u64) -> Self {
        let bound = |bound: &ringfence_policy::record::BoundAddress| BoundView {
            address: bound.address.to_string(),
            expires_ms: bound.expires_ms,
        };
        Self {
            cluster: fqdn.cluster.to_string(),
            name: fqdn.name.to_string(),
            addresses: fqdn.addresses.iter().map(bound).collect(),
            revision,
        }
    }
}

impl BlockView {
    pub(crate) fn new(block: &IdentityBlock, revision: u64) -> Self {
        Self {
            cluster: block.cluster.to_string(),
            holder: block.holder.to_string(),
            first: block.first.bits(),
            count: block.count,
            spent: block.spent,
            revision,
        }
    }
}

impl SettingsView {
    pub(crate) fn new(settings: &MeshSettings, revision: u64) -> Self {
        Self {
            label_filter_replaces_defaults: settings.label_filter.replaces_defaults,
            label_filter: settings.label_filter.entries.clone(),
            identity_grace_ms: settings.identity_grace_ms,
            quarantine_ms: settings.quarantine_ms,
            node_lease_ms: settings.node_lease_ms,
            node_grace_ms: settings.node_grace_ms,
            revision,
        }
    }
}
