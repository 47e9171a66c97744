//! What the clients write into the store, and how it is found again: keys and values of a history as records of the mesh.

use std::net::IpAddr;

use ringfence_policy::{
    command::{Command, EndpointSpec},
    identity::ClusterId,
    label::{Label, LabelSet},
    name::Name,
    record::{Change, Cluster, Kind, NamedPort, Node, PolicyKey, PolicyKind, PolicyRecord, Record, RecordKey},
};

use super::check::history::Key;

/// The cluster and the node that everything belongs to.
const CLUSTER: &str = "drill";
const NODE: &str = "n1";
/// The label whose value names a label set.
const APP: &str = "app";

/// The commands that must be carried out before all others.
#[must_use]
pub fn foundation() -> [Command; 2] {
    let id = ClusterId::new(1).expect("1 is a cluster id");
    [
        Command::PutCluster(Cluster { name: name(CLUSTER), id, pod_cidrs: Vec::new() }),
        Command::PutNode(Node {
            cluster: name(CLUSTER),
            name: name(NODE),
            addresses: Vec::new(),
            labels: LabelSet::default(),
        }),
    ]
}

/// Creates or replaces policies, all with one value.
#[must_use]
pub fn put_policies(names: &[&str], value: u64) -> Command {
    let policy = |policy: &&str| {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: {policy}\nspec:\n  \
             description: \"{value}\"\n  endpointSelector: {{}}\n  ingress: []\n"
        );
        PolicyRecord { key: policy_key(policy), text }
    };
    Command::PutPolicies(names.iter().map(policy).collect())
}

/// Removes policies; refused unless all are there.
#[must_use]
pub fn delete_policies(names: &[&str]) -> Command {
    Command::DeletePolicies(names.iter().map(|name| policy_key(name)).collect())
}

/// Creates or replaces an endpoint; its label set gets its number in the same revision. `number` tells endpoints apart.
#[must_use]
pub fn put_endpoint(endpoint: &str, number: u16, app: &str, value: u64) -> Command {
    let [high, low] = number.to_be_bytes();
    Command::PutEndpoint(EndpointSpec {
        cluster: name(CLUSTER),
        node: name(NODE),
        name: name(endpoint),
        addresses: vec![IpAddr::from([10, 99, high, low])],
        labels: labels(app),
        named_ports: vec![NamedPort { name: format!("v{value}"), protocol: 6, port: 80 }],
    })
}

/// Removes an endpoint.
#[must_use]
pub fn delete_endpoint(endpoint: &str) -> Command {
    Command::Delete(RecordKey::Endpoint(name(CLUSTER), name(NODE), name(endpoint)))
}

/// Asks for the number of a label set.
#[must_use]
pub fn allocate(app: &str) -> Command {
    Command::AllocateIdentity { cluster: name(CLUSTER), labels: labels(app) }
}

/// The kind of record that holds a key.
#[must_use]
pub fn kind(key: &Key) -> Kind {
    match key {
        Key::Policy(_) => Kind::Policy,
        Key::Endpoint(_) => Kind::Endpoint,
        Key::Labels(_) => Kind::Identity,
    }
}

/// The key and value of a record; none for one that no client writes.
#[must_use]
pub fn value(record: &Record) -> Option<(Key, u64)> {
    match record {
        Record::Policy(policy) => {
            let value = policy.text.split('"').nth(1)?.parse().ok()?;
            Some((Key::Policy(policy.key.name.to_string()), value))
        }
        Record::Endpoint(endpoint) => {
            let value = endpoint.named_ports.first()?.name.strip_prefix('v')?.parse().ok()?;
            Some((Key::Endpoint(endpoint.name.to_string()), value))
        }
        Record::Identity(identity) => {
            let app = identity.labels.get(APP)?.value.to_string();
            Some((Key::Labels(app), identity.identity.bits().into()))
        }
        _ => None,
    }
}

/// What a change does to a key; none for one that no client writes.
#[must_use]
pub fn change(change: &Change) -> Option<(Key, Option<u64>)> {
    match change {
        Change::Put(record) => value(record).map(|(key, value)| (key, Some(value))),
        Change::Delete(RecordKey::Policy(policy)) => Some((Key::Policy(policy.name.to_string()), None)),
        Change::Delete(RecordKey::Endpoint(.., endpoint)) => Some((Key::Endpoint(endpoint.to_string()), None)),
        Change::Delete(_) => None,
    }
}

/// The names of two policies that are only ever written together.
#[must_use]
pub fn twins(number: u64) -> [String; 2] {
    [format!("twin-{number}-a"), format!("twin-{number}-b")]
}

/// The other one of two that are only ever written together.
#[must_use]
pub fn twin_of(key: &Key) -> Option<Key> {
    let Key::Policy(policy) = key else { return None };
    let stem = policy.starts_with("twin-").then_some(policy)?;
    let other = stem.strip_suffix("-a").map(|stem| format!("{stem}-b"));
    other.or_else(|| stem.strip_suffix("-b").map(|stem| format!("{stem}-a"))).map(Key::Policy)
}

fn policy_key(policy: &str) -> PolicyKey {
    PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name: name(policy) }
}

fn labels(app: &str) -> LabelSet {
    [Label::new("k8s", APP, app)].into_iter().collect()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("the drill's names are of a-z, 0-9 and '-'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again() {
        let Command::PutPolicies(policies) = put_policies(&["twin-3-a", "twin-3-b"], 42) else { unreachable!() };
        let found: Vec<_> = policies.into_iter().filter_map(|policy| value(&Record::Policy(policy))).collect();
        assert_eq!(found, twins(3).map(|name| (Key::Policy(name), 42)));
        assert_eq!(twin_of(&found[0].0), Some(found[1].0.clone()));
        assert_eq!(twin_of(&found[1].0), Some(found[0].0.clone()));
        assert_eq!(twin_of(&Key::Policy("p-1-a".to_owned())), None);
        let Command::DeletePolicies(keys) = delete_policies(&["p-1"]) else { unreachable!() };
        let deleted = change(&Change::Delete(RecordKey::Policy(keys[0].clone())));
        assert_eq!(deleted, Some((Key::Policy("p-1".to_owned()), None)));
    }
}
