//! Commands and what they result in.

use std::net::IpAddr;

use ringfence_policy::{
    command::{Command, Committed, EndpointSpec, FqdnSpec, SignOfLife},
    identity::Identity,
    l7::dns_name::DnsName,
    revision::Revision,
};

use super::{
    invalid::InvalidMessage,
    record::{address, addresses, identity, label_texts, labels, name, named_ports, texts},
};
use crate::v1;

impl From<EndpointSpec> for v1::Endpoint {
    fn from(spec: EndpointSpec) -> Self {
        Self {
            cluster: spec.cluster.to_string(),
            node: spec.node.to_string(),
            name: spec.name.to_string(),
            addresses: texts(&spec.addresses),
            labels: label_texts(&spec.labels),
            identity: 0,
            named_ports: spec.named_ports.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Endpoint> for EndpointSpec {
    type Error = InvalidMessage;
    /// The number is the store's to give: one that a client sends is not looked at.
    fn try_from(message: v1::Endpoint) -> Result<Self, InvalidMessage> {
        Ok(Self {
            cluster: name("Endpoint.cluster", message.cluster)?,
            node: name("Endpoint.node", message.node)?,
            name: name("Endpoint.name", message.name)?,
            addresses: addresses("Endpoint.addresses", message.addresses)?,
            labels: labels("Endpoint.labels", &message.labels)?,
            named_ports: named_ports(message.named_ports)?,
        })
    }
}

impl From<FqdnSpec> for v1::put_fqdns::Spec {
    fn from(spec: FqdnSpec) -> Self {
        let address = |(address, valid_ms): (IpAddr, u64)| v1::put_fqdns::spec::Address {
            address: address.to_string(),
            valid_ms,
        };
        Self {
            cluster: spec.cluster.to_string(),
            name: spec.name.to_string(),
            addresses: spec.addresses.into_iter().map(address).collect(),
        }
    }
}

impl TryFrom<v1::put_fqdns::Spec> for FqdnSpec {
    type Error = InvalidMessage;
    fn try_from(message: v1::put_fqdns::Spec) -> Result<Self, InvalidMessage> {
        let bound = |v1::put_fqdns::spec::Address { address: text, valid_ms }| {
            Ok((address("PutFqdns.Spec.Address.address", text)?, valid_ms))
        };
        Ok(Self {
            cluster: name("PutFqdns.Spec.cluster", message.cluster)?,
            name: DnsName::new(&message.name),
            addresses: message.addresses.into_iter().map(bound).collect::<Result<_, _>>()?,
        })
    }
}

impl From<SignOfLife> for v1::keep_alive::Node {
    fn from(sign: SignOfLife) -> Self {
        Self { name: sign.node.to_string(), realised_revision: sign.realised.0 }
    }
}

impl TryFrom<v1::keep_alive::Node> for SignOfLife {
    type Error = InvalidMessage;
    fn try_from(message: v1::keep_alive::Node) -> Result<Self, InvalidMessage> {
        Ok(Self { node: name("KeepAlive.Node.name", message.name)?, realised: Revision(message.realised_revision) })
    }
}

impl From<Command> for v1::Command {
    fn from(command: Command) -> Self {
        use v1::command::Command as Wire;
        let command = match command {
            Command::PutCluster(cluster) => Wire::PutCluster(cluster.into()),
            Command::PutNode(node) => Wire::PutNode(node.into()),
            Command::PutEndpoint(spec) => Wire::PutEndpoint(spec.into()),
            Command::AllocateIdentity { cluster, labels } => Wire::AllocateIdentity(v1::AllocateIdentity {
                cluster: cluster.to_string(),
                labels: label_texts(&labels),
            }),
            Command::PutPolicies(policies) => {
                Wire::PutPolicies(v1::PutPolicies { policies: policies.into_iter().map(Into::into).collect() })
            }
            Command::DeletePolicies(keys) => {
                Wire::DeletePolicies(v1::DeletePolicies { keys: keys.into_iter().map(Into::into).collect() })
            }
            Command::Delete(key) => Wire::Delete(key.into()),
            Command::PutObjects { policies, groups } => Wire::PutObjects(v1::PutObjects {
                policies: policies.into_iter().map(Into::into).collect(),
                groups: groups.into_iter().map(Into::into).collect(),
            }),
            Command::PutServices(services) => {
                Wire::PutServices(v1::PutServices { services: services.into_iter().map(Into::into).collect() })
            }
            Command::PutFqdns(specs) => {
                Wire::PutFqdns(v1::PutFqdns { fqdns: specs.into_iter().map(Into::into).collect() })
            }
            Command::PutSettings(settings) => Wire::PutSettings(settings.into()),
            Command::ReleaseIdentity(identity) => {
                Wire::ReleaseIdentity(v1::ReleaseIdentity { identity: identity.bits() })
            }
            Command::KeepAlive { cluster, nodes } => Wire::KeepAlive(v1::KeepAlive {
                cluster: cluster.to_string(),
                nodes: nodes.into_iter().map(Into::into).collect(),
            }),
            Command::GrantBlock { cluster, holder, count } => {
                Wire::GrantBlock(v1::GrantBlock { cluster: cluster.to_string(), holder: holder.to_string(), count })
            }
            Command::ReturnBlock { cluster, holder } => {
                Wire::ReturnBlock(v1::BlockKey { cluster: cluster.to_string(), holder: holder.to_string() })
            }
            Command::AdoptFromBlock { cluster, holder, identity, labels } => Wire::AdoptFromBlock(v1::AdoptFromBlock {
                cluster: cluster.to_string(),
                holder: holder.to_string(),
                identity: identity.bits(),
                labels: label_texts(&labels),
            }),
            // Proposed by the leader to itself: whoever were to receive it would refuse it as missing.
            Command::Housekeeping(_) => return Self { command: None },
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<v1::Command> for Command {
    type Error = InvalidMessage;
    fn try_from(message: v1::Command) -> Result<Self, InvalidMessage> {
        use v1::command::Command as Wire;
        Ok(match message.command.ok_or(InvalidMessage::Missing { field: "Command.command" })? {
            Wire::PutCluster(cluster) => Self::PutCluster(cluster.try_into()?),
            Wire::PutNode(node) => Self::PutNode(node.try_into()?),
            Wire::PutEndpoint(endpoint) => Self::PutEndpoint(endpoint.try_into()?),
            Wire::AllocateIdentity(allocate) => Self::AllocateIdentity {
                cluster: name("AllocateIdentity.cluster", allocate.cluster)?,
                labels: labels("AllocateIdentity.labels", &allocate.labels)?,
            },
            Wire::PutPolicies(put) => {
                Self::PutPolicies(put.policies.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            Wire::DeletePolicies(delete) => {
                Self::DeletePolicies(delete.keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            Wire::Delete(key) => Self::Delete(key.try_into()?),
            Wire::PutObjects(put) => Self::PutObjects {
                policies: put.policies.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                groups: put.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Wire::PutServices(put) => {
                Self::PutServices(put.services.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            Wire::PutFqdns(put) => {
                Self::PutFqdns(put.fqdns.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            Wire::PutSettings(settings) => Self::PutSettings(settings.try_into()?),
            Wire::ReleaseIdentity(release) => {
                Self::ReleaseIdentity(identity("ReleaseIdentity.identity", release.identity)?)
            }
            Wire::KeepAlive(keep_alive) => Self::KeepAlive {
                cluster: name("KeepAlive.cluster", keep_alive.cluster)?,
                nodes: keep_alive.nodes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Wire::GrantBlock(grant) => Self::GrantBlock {
                cluster: name("GrantBlock.cluster", grant.cluster)?,
                holder: name("GrantBlock.holder", grant.holder)?,
                count: grant.count,
            },
            Wire::ReturnBlock(block) => Self::ReturnBlock {
                cluster: name("BlockKey.cluster", block.cluster)?,
                holder: name("BlockKey.holder", block.holder)?,
            },
            Wire::AdoptFromBlock(adopt) => Self::AdoptFromBlock {
                cluster: name("AdoptFromBlock.cluster", adopt.cluster)?,
                holder: name("AdoptFromBlock.holder", adopt.holder)?,
                identity: identity("AdoptFromBlock.identity", adopt.identity)?,
                labels: labels("AdoptFromBlock.labels", &adopt.labels)?,
            },
        })
    }
}

impl From<Committed> for v1::Committed {
    fn from(committed: Committed) -> Self {
        Self {
            revision: committed.revision.0,
            changed: committed.changed,
            identity: committed.identity.map_or(0, Identity::bits),
        }
    }
}

impl From<v1::Committed> for Committed {
    fn from(message: v1::Committed) -> Self {
        let identity = (message.identity != 0).then(|| Identity::from_bits(message.identity));
        Self { revision: Revision(message.revision), changed: message.changed, identity }
    }
}
