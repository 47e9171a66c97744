//! What a command must be before it may enter the log: small enough, and every policy in it one that can be enforced.

use std::collections::BTreeSet;

use ringfence_policy::{
    command::{Command, FqdnSpec},
    diagnostic::Diagnostic,
    l7::dns_name::DnsName,
    label::{CLUSTER_KEY, LabelSet, MAX_LABELS},
    object,
    record::{InvalidSettings, MAX_FQDN_ADDRESSES, MAX_FQDN_BYTES, MAX_TIME_MS, PolicyKey, PolicyRecord},
};

use crate::{codec, raft::batch::Proposal};

/// The state database keeps values in its own file up to 64 KiB; some of it goes to key and framing.
const MAX_RECORD_BYTES: usize = (64 << 10) - 1024;
/// A log entry must reach the other members within a heartbeat interval, also between clusters.
const MAX_COMMAND_BYTES: usize = 1 << 20;

/// A command that is not put to the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutOfLimits {
    #[error("{key} has {length} bytes: at most {MAX_RECORD_BYTES} are allowed; split it into several objects")]
    Policy { key: PolicyKey, length: usize },
    #[error("the record has {length} bytes: at most {MAX_RECORD_BYTES} are allowed")]
    Record { length: usize },
    #[error("the command has {length} bytes: at most {MAX_COMMAND_BYTES} are allowed; apply fewer objects at once")]
    Command { length: usize },
    #[error("{key} is given twice in one command")]
    Duplicate { key: PolicyKey },
    #[error("{count} labels given: at most {} are allowed beside the cluster's, which the store adds", MAX_LABELS - 1)]
    Labels { count: usize },
    #[error(
        "DNS name {} has {length} bytes: at most {MAX_FQDN_BYTES} are allowed",
        name.as_str().chars().take(64).collect::<String>()
    )]
    FqdnName { name: DnsName, length: usize },
    #[error("DNS name {name} has {count} addresses: at most {MAX_FQDN_ADDRESSES} are allowed")]
    FqdnAddresses { name: DnsName, count: usize },
    #[error("{name}: an address cannot be valid for more than {MAX_TIME_MS} milliseconds")]
    FqdnTime { name: DnsName },
    #[error("settings: {0}")]
    Settings(#[from] InvalidSettings),
    #[error("only the store's leader keeps house")]
    Housekeeping,
    #[error("{key} is rejected:{}", list(diagnostics))]
    Rejected { key: PolicyKey, diagnostics: Vec<Diagnostic> },
}

fn list(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("\n  {diagnostic}")).collect()
}

/// Checks a command before it is proposed; gives it back encoded.
pub(super) fn check(command: Command) -> Result<Proposal, OutOfLimits> {
    match &command {
        Command::PutPolicies(policies) => check_policies(policies)?,
        Command::PutEndpoint(spec) => {
            check_labels(&spec.labels)?;
            check_record(codec::encode(spec).len())?;
        }
        Command::AllocateIdentity { labels, .. } => {
            check_labels(labels)?;
            check_record(codec::encode(labels).len())?;
        }
        Command::PutCluster(cluster) => check_record(codec::encode(cluster).len())?,
        Command::PutNode(node) => {
            check_labels(&node.labels)?;
            check_record(codec::encode(node).len())?;
        }
        Command::PutObjects { policies, groups } => {
            check_policies(policies)?;
            groups.iter().try_for_each(|group| check_record(codec::encode(group).len()))?;
        }
        Command::PutServices(services) => {
            services.iter().try_for_each(|service| check_record(codec::encode(service).len()))?;
        }
        Command::PutFqdns(specs) => specs.iter().try_for_each(check_fqdn)?,
        Command::PutSettings(settings) => {
            settings.check()?;
            check_record(codec::encode(settings).len())?;
        }
        Command::AdoptFromBlock { labels, .. } => {
            check_labels(labels)?;
            check_record(codec::encode(labels).len())?;
        }
        Command::Housekeeping(_) => return Err(OutOfLimits::Housekeeping),
        Command::DeletePolicies(_)
        | Command::Delete(_)
        | Command::ReleaseIdentity(_)
        | Command::KeepAlive { .. }
        | Command::GrantBlock { .. }
        | Command::ReturnBlock { .. } => {}
    }
    let proposal = Proposal::new(command);
    match proposal.bytes() {
        length if length > MAX_COMMAND_BYTES => Err(OutOfLimits::Command { length }),
        _ => Ok(proposal),
    }
}

fn check_policies(policies: &[PolicyRecord]) -> Result<(), OutOfLimits> {
    let mut keys = BTreeSet::new();
    for policy in policies {
        let (key, length) = (policy.key.clone(), policy.text.len());
        if length > MAX_RECORD_BYTES {
            return Err(OutOfLimits::Policy { key, length });
        }
        if !keys.insert(&policy.key) {
            return Err(OutOfLimits::Duplicate { key });
        }
        let diagnostics = match object::parse_record(policy) {
            Ok(object) => object::not_enforceable(&object),
            Err(diagnostics) => diagnostics,
        };
        // What no node can enforce would keep every node at the revision before it.
        if !diagnostics.is_empty() {
            return Err(OutOfLimits::Rejected { key, diagnostics });
        }
    }
    Ok(())
}

fn check_fqdn(spec: &FqdnSpec) -> Result<(), OutOfLimits> {
    let FqdnSpec { name, addresses, .. } = spec;
    let (length, count) = (name.as_str().len(), addresses.len());
    if length > MAX_FQDN_BYTES {
        return Err(OutOfLimits::FqdnName { name: name.clone(), length });
    }
    if count > MAX_FQDN_ADDRESSES {
        return Err(OutOfLimits::FqdnAddresses { name: name.clone(), count });
    }
    match addresses.iter().any(|(_, valid_ms)| *valid_ms > MAX_TIME_MS) {
        true => Err(OutOfLimits::FqdnTime { name: name.clone() }),
        false => Ok(()),
    }
}

fn check_labels(labels: &LabelSet) -> Result<(), OutOfLimits> {
    let count = labels.len() - usize::from(labels.get(CLUSTER_KEY).is_some());
    if count < MAX_LABELS { Ok(()) } else { Err(OutOfLimits::Labels { count }) }
}

/// The cluster label comes on top: it is short, and the limit leaves room.
fn check_record(length: usize) -> Result<(), OutOfLimits> {
    if length > MAX_RECORD_BYTES { Err(OutOfLimits::Record { length }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{label::Label, name::Name, record::PolicyKind};

    const TEXT: &str = "apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: a}
spec: {endpointSelector: {}, ingress: [{}]}
";

    fn policy(text: &str) -> PolicyRecord {
        let name = Name::new("a").unwrap();
        let key = PolicyKey { kind: PolicyKind::CiliumClusterwideNetworkPolicy, namespace: None, name };
        PolicyRecord { key, text: text.to_owned() }
    }

    #[test]
    fn a_policy_that_does_not_parse_is_rejected_with_its_position() {
        drop(check(Command::PutPolicies(vec![policy(TEXT)])).unwrap());
        let wrong = TEXT.replace("endpointSelector", "endpointSelecter");
        let error = check(Command::PutPolicies(vec![policy(&wrong)])).unwrap_err().to_string();
        assert!(error.contains("CiliumClusterwideNetworkPolicy a is rejected:\n  4:"), "{error}");
        let other = TEXT.replace("name: a", "name: b");
        assert!(matches!(check(Command::PutPolicies(vec![policy(&other)])), Err(OutOfLimits::Rejected { .. })));
    }

    #[test]
    fn l4_a_policy_that_nodes_cannot_enforce_is_rejected_with_its_field() {
        let ranged = TEXT.replace("[{}]", "[{toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]}]");
        check(Command::PutPolicies(vec![policy(&ranged)])).unwrap();
        let authenticated = TEXT.replace("[{}]", "[{authentication: {mode: required}}]");
        let error = check(Command::PutPolicies(vec![policy(&authenticated)])).unwrap_err().to_string();
        assert!(error.contains("a is rejected") && error.contains("authentication"), "{error}");
    }

    #[test]
    fn sizes_are_bounded() {
        let padded = |length: usize| format!("{TEXT}#{}", "x".repeat(length));
        let long = Command::PutPolicies(vec![policy(&padded(MAX_RECORD_BYTES))]);
        assert!(matches!(check(long), Err(OutOfLimits::Policy { .. })));
        let twice = Command::PutPolicies(vec![policy(TEXT), policy(TEXT)]);
        assert!(matches!(check(twice), Err(OutOfLimits::Duplicate { .. })));
        let labels = |count| (0..count).map(|n| Label::new("k8s", format!("l{n}"), "")).collect();
        let allocate = |count| Command::AllocateIdentity { cluster: Name::new("east").unwrap(), labels: labels(count) };
        check(allocate(127)).unwrap();
        assert_eq!(check(allocate(128)), Err(OutOfLimits::Labels { count: 128 }));
    }
}
