//! Services, as far as policies go.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    label::LabelSet,
    name::Name,
    world::{Backends, Service},
};

/// A service of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Owner.
    pub cluster: Name,
    /// Its namespace.
    pub namespace: Name,
    /// Unique in its cluster and namespace.
    pub name: Name,
    /// Its own labels.
    pub labels: LabelSet,
    /// Under which it is reached within its cluster.
    pub cluster_addresses: Vec<IpAddr>,
    /// What it is reached at.
    pub ports: Vec<ServicePort>,
    /// The pods behind it have these labels; empty where somebody else says who is behind it.
    pub selector: BTreeMap<String, String>,
    /// Who is behind it.
    pub backends: Vec<IpAddr>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Empty where it has none.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// 1–65535, at the service's addresses.
    pub port: u16,
    /// 1–65535, at its backends: what `toPorts` means (SVC-4).
    pub target_port: u16,
}

impl ServiceRecord {
    /// The service as `toServices` refers to it: by selector where it has one (SVC-2).
    #[must_use]
    pub fn service(&self) -> Service {
        let backends = if self.selector.is_empty() {
            Backends::Addresses(self.backends.clone())
        } else {
            Backends::Pods(self.selector.clone().into_iter().collect())
        };
        Service {
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            labels: self.labels.clone(),
            backends,
        }
    }
}
