//! Commands and what they result in.

use ringfence_policy::{
    command::{Command, Committed, EndpointSpec},
    identity::Identity,
    revision::Revision,
};

use super::{
    invalid::InvalidMessage,
    record::{addresses, label_texts, labels, name, named_ports, texts},
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
