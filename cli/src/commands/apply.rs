//! `ringfence policy apply` and `delete`: writes that may wait for the nodes.

use std::{collections::BTreeMap, path::PathBuf};

use ringfence_policy::{
    command::{Command, Committed},
    object::Object,
    record::{PolicyKey, PolicyRecord, Record, Versioned},
};
use ringfence_proto::v1;
use serde::Serialize;

use super::{files, list, reference, wait};
use crate::{
    args::{Consistency, Global, Wait},
    connect::Servers,
    failure::Failure,
    output::{self, Format, line, table},
    view::PolicyKeyView,
};

/// What a write did.
#[derive(Debug, Serialize)]
struct WriteView {
    /// None for a dry run.
    revision: Option<u64>,
    changed: bool,
    objects: Vec<PolicyKeyView>,
    waited: Option<wait::Waited>,
}

/// Applies the objects of the files as one revision.
pub(crate) async fn apply(paths: &[PathBuf], dry_run: bool, wait: Wait, global: &Global) -> Result<(), Failure> {
    let objects = files::load(paths)?;
    if dry_run {
        return show_valid(&objects, global.output);
    }
    let mut servers = Servers::new(global)?;
    // What was there before is of interest only to people.
    let before = match global.output {
        Format::Table => policies(&mut servers, Consistency::Linearizable).await?,
        Format::Json | Format::Yaml => BTreeMap::new(),
    };
    let outcome = |object: &Object| match before.get(&object.key) {
        None => (object.key.clone(), "created"),
        Some((_, policy)) if policy.text == object.text => (object.key.clone(), "unchanged"),
        Some(_) => (object.key.clone(), "configured"),
    };
    let outcomes = objects.iter().map(outcome).collect();
    let record = |object: Object| PolicyRecord { key: object.key, text: object.text };
    let command = Command::PutPolicies(objects.into_iter().map(record).collect());
    write(&mut servers, command, outcomes, wait, global.output).await
}

fn show_valid(objects: &[Object], format: Format) -> Result<(), Failure> {
    if format == Format::Table {
        for object in objects {
            line(&format!("{} valid (dry run)", reference::display(&object.key)))?;
        }
        return Ok(());
    }
    let objects = objects.iter().map(|object| (&object.key).into()).collect();
    let view = WriteView { revision: None, changed: false, objects, waited: None };
    Ok(output::print(format, &view, || table([""], []))?)
}

/// Removes policies as one revision.
pub(crate) async fn delete(
    keys: Vec<PolicyKey>,
    servers: &mut Servers,
    wait: Wait,
    format: Format,
) -> Result<(), Failure> {
    let outcomes = keys.iter().map(|key| (key.clone(), "deleted")).collect();
    write(servers, Command::DeletePolicies(keys), outcomes, wait, format).await
}

/// All policies of the store, with the revision that last changed each.
pub(crate) async fn policies(
    servers: &mut Servers,
    consistency: Consistency,
) -> Result<BTreeMap<PolicyKey, (u64, PolicyRecord)>, Failure> {
    let records = list::fetch(servers, ringfence_policy::record::Kind::Policy, consistency).await?;
    let policy = |versioned: Versioned| match versioned.record {
        Record::Policy(policy) => Some((policy.key.clone(), (versioned.revision.0, policy))),
        _ => None,
    };
    Ok(records.into_iter().filter_map(policy).collect())
}

async fn write(
    servers: &mut Servers,
    command: Command,
    outcomes: Vec<(PolicyKey, &str)>,
    wait: Wait,
    format: Format,
) -> Result<(), Failure> {
    let message = v1::Command::from(command);
    let response = servers.call(message, async |mut client, request| client.execute(request).await).await;
    let unclear = servers.outcome_is_unclear();
    let response = response.map_err(|failure| if unclear { failure.with_unclear_outcome() } else { failure })?;
    let committed = Committed::from(response.into_inner());
    let revision = committed.revision.0;
    if format == Format::Table {
        for (key, outcome) in &outcomes {
            let outcome = if committed.changed { outcome } else { "unchanged" };
            line(&format!("{} {outcome} (revision {revision})", reference::display(key)))?;
        }
    }
    let waited = if wait.wait { Some(wait::for_nodes(servers, revision, wait).await?) } else { None };
    let late = waited.as_ref().filter(|waited| !waited.complete).map(|waited| waited.timed_out(revision, wait));
    if format == Format::Table {
        if let (Some(waited), None) = (&waited, &late) {
            line(&match waited.realised.len() {
                0 => format!("no node is registered: nothing enforces revision {revision} yet"),
                1 => format!("revision {revision} is realised on 1 node"),
                nodes => format!("revision {revision} is realised on {nodes} nodes"),
            })?;
        }
    } else {
        let objects = outcomes.iter().map(|(key, _)| key.into()).collect();
        let view = WriteView { revision: Some(revision), changed: committed.changed, objects, waited };
        output::print(format, &view, || table([""], []))?;
    }
    late.map_or(Ok(()), Err)
}
