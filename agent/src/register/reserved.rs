//! The node's proxy and health check: endpoints without a device, which other nodes know by a reserved identity (decision
//! 0011).

use std::net::IpAddr;

use ringfence_policy::{
    command::{Command, EndpointSpec},
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::{Endpoint, Record, RecordKey},
    reserved::{reserved_endpoint, reserved_labels},
    revision::Revision,
};
use ringfence_proto::{status::describe, v1};
use tonic::Code;

use super::{NotTaken, Registering};

/// One of them, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// `INGRESS` or `HEALTH`.
    pub identity: Identity,
    /// None where the node has no such thing.
    pub addresses: Vec<IpAddr>,
}

impl Reserved {
    /// Names of their records; no other endpoint may have one.
    pub(crate) const NAMES: [&str; 2] = ["reserved-ingress", "reserved-health"];

    /// Its line in the configuration.
    pub(crate) const fn field(&self) -> &'static str {
        if self.is_ingress() { "ingress_addresses" } else { "health_addresses" }
    }

    fn name(&self) -> Name {
        let [ingress, health] = Self::NAMES;
        Name::new(if self.is_ingress() { ingress } else { health }).expect("it is a name; a test makes both")
    }

    fn labels(&self) -> LabelSet {
        reserved_labels(self.identity)
    }

    const fn is_ingress(&self) -> bool {
        self.identity.bits() == Identity::INGRESS.bits()
    }

    fn listed(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Registering {
    /// Takes back what the node does not have any more, and what its own addresses are now: they would not be free for it.
    ///
    /// # Errors
    /// Why the store did not take it this time, in words.
    pub(super) async fn withdraw(&self) -> Result<(), String> {
        for reserved in &self.reserved {
            let key = self.reserved_key(reserved);
            let is_stale = |record: &Endpoint| {
                let is_own = record.addresses.iter().any(|address| self.addresses.contains(address));
                reserved_endpoint(&record.labels).is_some() && (reserved.addresses.is_empty() || is_own)
            };
            let is_stale = match self.feed.followed().mesh.get(&key) {
                Some(Record::Endpoint(record)) => is_stale(record),
                _ => false,
            };
            if is_stale {
                match self.gateways.execute(&v1::Command::from(Command::Delete(key))).await {
                    Ok(committed) => {
                        tracing::info!(endpoint = %reserved.name(), revision = committed.revision, "withdrawn");
                    }
                    // What was followed is older than what the store has.
                    Err(status) if status.code() == Code::NotFound => {}
                    Err(status) => {
                        let (field, reason) = (reserved.field(), describe(&status));
                        return Err(format!("what {field} had before cannot be taken back now: {reason}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Registers those that the mesh does not have as they are; why it does not have them all, in words.
    pub(super) async fn register_reserved(&self, registered: &mut [Option<Revision>; 2]) -> Vec<String> {
        let mut problems = Vec::new();
        for (reserved, revision) in self.reserved.iter().zip(registered) {
            let is_missing = revision.is_none_or(|revision| self.is_otherwise(reserved, revision));
            if reserved.addresses.is_empty() || !is_missing {
                continue;
            }
            *revision = None;
            match self.execute(Command::PutEndpoint(self.reserved_spec(reserved))).await {
                Ok(committed) => {
                    let (field, addresses) = (reserved.field(), reserved.listed());
                    tracing::info!(field, addresses, revision = committed.revision, "addresses registered");
                    *revision = Some(Revision(committed.revision));
                }
                Err(NotTaken::OutOfReach(reason)) => {
                    problems.push(format!("{} cannot be registered now: {reason}", reserved.field()));
                }
                Err(NotTaken::Refused(reason)) => problems.push(format!(
                    "the store refuses {field} ({addresses}; every member and gateway must understand feature level 3): {reason}; no \
                     node judges packets of these addresses as {identity} before it takes them",
                    field = reserved.field(),
                    addresses = reserved.listed(),
                    identity = reserved.identity.reserved_name().unwrap_or_default(),
                )),
            }
        }
        problems
    }

    /// Whether a record that the store had at a revision is gone, or another one, in what is followed.
    fn is_otherwise(&self, reserved: &Reserved, revision: Revision) -> bool {
        let followed = self.feed.followed();
        let is_it = match followed.mesh.get(&self.reserved_key(reserved)) {
            Some(Record::Endpoint(record)) => {
                record.identity == reserved.identity && record.addresses == reserved.addresses
            }
            _ => false,
        };
        followed.complete && followed.mesh.revision() >= revision && !is_it
    }

    fn reserved_key(&self, reserved: &Reserved) -> RecordKey {
        RecordKey::Endpoint(self.cluster.clone(), self.node.clone(), reserved.name())
    }

    fn reserved_spec(&self, reserved: &Reserved) -> EndpointSpec {
        EndpointSpec {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            name: reserved.name(),
            addresses: reserved.addresses.clone(),
            labels: reserved.labels(),
            named_ports: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_field_its_name_and_its_one_label() {
        let [ingress, health] = [Identity::INGRESS, Identity::HEALTH].map(|identity| {
            let reserved = Reserved { identity, addresses: vec![] };
            (reserved.field(), reserved.name().to_string(), reserved.labels().to_string())
        });
        assert_eq!(ingress, ("ingress_addresses", "reserved-ingress".into(), "reserved:ingress".into()));
        assert_eq!(health, ("health_addresses", "reserved-health".into(), "reserved:health".into()));
    }
}
