//! `ringfence policy apply` and `delete`: writes that may wait for the nodes.

use std::{collections::BTreeMap, path::PathBuf};

use ringfence_policy::{
    command::{Command, Committed},
    name::Name,
    object::{CidrGroup, Object},
    record::{CidrGroupRecord, Kind, PolicyKey, PolicyRecord, Record, RecordKey, Versioned},
};
use ringfence_proto::v1;
use serde::Serialize;

use super::{
    files::{self, Loaded},
    list, reference, wait,
};
use crate::{
    connect::Servers,
    failure::Failure,
    flags::{Consistency, Global, Wait},
    output::{self, Format, line, table},
    view::PolicyKeyView,
};

const GROUP_KIND: &str = "CiliumCIDRGroup";

/// What a write did.
#[derive(Debug, Serialize)]
struct WriteView {
    /// None for a dry run.
    revision: Option<u64>,
    changed: bool,
    objects: Vec<PolicyKeyView>,
    waited: Option<wait::Waited>,
}

/// An object of a write, and what becomes of it.
struct Outcome {
    object: PolicyKeyView,
    /// As kubectl names it.
    display: String,
    word: &'static str,
}

impl Outcome {
    fn policy(key: &PolicyKey, word: &'static str) -> Self {
        Self { object: key.into(), display: reference::display(key), word }
    }

    fn group(name: &Name, word: &'static str) -> Self {
        let object = PolicyKeyView { kind: GROUP_KIND.to_owned(), namespace: None, name: name.to_string() };
        Self { object, display: format!("{}/{name}", GROUP_KIND.to_ascii_lowercase()), word }
    }
}

/// Applies the objects of the files as one revision.
pub(crate) async fn apply(paths: &[PathBuf], dry_run: bool, wait: Wait, global: &Global) -> Result<(), Failure> {
    let Loaded { objects, groups } = files::load_enforceable(paths)?;
    if dry_run {
        return show_valid(&objects, &groups, global.output);
    }
    let mut servers = Servers::new(global)?;
    // What was there before is of interest only to people.
    let interesting = global.output == Format::Table;
    let before = match interesting && !objects.is_empty() {
        true => policies(&mut servers, Consistency::Linearizable).await?,
        false => BTreeMap::new(),
    };
    let groups: Vec<CidrGroupRecord> = groups.into_iter().map(CidrGroupRecord::from).collect();
    let groups_before = match interesting && !groups.is_empty() {
        true => stored_groups(&mut servers).await?,
        false => BTreeMap::new(),
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    for object in &objects {
        let same = before.get(&object.key).map(|(_, policy)| policy.text == object.text);
        outcomes.push(Outcome::policy(&object.key, word(same)));
    }
    for group in &groups {
        let same = groups_before.get(&group.name).map(|stored| stored == group);
        outcomes.push(Outcome::group(&group.name, word(same)));
    }
    let record = |object: Object| PolicyRecord { key: object.key, text: object.text };
    let policies = objects.into_iter().map(record).collect();
    let command = match groups.is_empty() {
        true => Command::PutPolicies(policies),
        false => Command::PutObjects { policies, groups },
    };
    write(&mut servers, command, outcomes, wait, global.output).await
}

/// What is done to an object that is there and the same, there and other, or not there.
const fn word(same: Option<bool>) -> &'static str {
    match same {
        None => "created",
        Some(true) => "unchanged",
        Some(false) => "configured",
    }
}

async fn stored_groups(servers: &mut Servers) -> Result<BTreeMap<Name, CidrGroupRecord>, Failure> {
    let records = list::fetch(servers, Kind::CidrGroup, Consistency::Linearizable).await?;
    let group = |versioned: Versioned| match versioned.record {
        Record::CidrGroup(group) => Some((group.name.clone(), group)),
        _ => None,
    };
    Ok(records.into_iter().filter_map(group).collect())
}

fn show_valid(objects: &[Object], groups: &[CidrGroup], format: Format) -> Result<(), Failure> {
    let policies = objects.iter().map(|object| Outcome::policy(&object.key, "valid"));
    let outcomes = policies.chain(groups.iter().map(|group| Outcome::group(&group.name, "valid")));
    if format == Format::Table {
        for outcome in outcomes {
            line(&format!("{} valid (dry run)", outcome.display))?;
        }
        return Ok(());
    }
    let objects = outcomes.map(|outcome| outcome.object).collect();
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
    let outcomes = keys.iter().map(|key| Outcome::policy(key, "deleted")).collect();
    write(servers, Command::DeletePolicies(keys), outcomes, wait, format).await
}

/// Removes a CIDR group.
pub(crate) async fn delete_group(name: Name, servers: &mut Servers, wait: Wait, format: Format) -> Result<(), Failure> {
    let outcome = Outcome::group(&name, "deleted");
    write(servers, Command::Delete(RecordKey::CidrGroup(name)), vec![outcome], wait, format).await
}

/// All policies of the store, with the revision that last changed each.
pub(crate) async fn policies(
    servers: &mut Servers,
    consistency: Consistency,
) -> Result<BTreeMap<PolicyKey, (u64, PolicyRecord)>, Failure> {
    let records = list::fetch(servers, Kind::Policy, consistency).await?;
    let policy = |versioned: Versioned| match versioned.record {
        Record::Policy(policy) => Some((policy.key.clone(), (versioned.revision.0, policy))),
        _ => None,
    };
    Ok(records.into_iter().filter_map(policy).collect())
}

async fn write(
    servers: &mut Servers,
    command: Command,
    outcomes: Vec<Outcome>,
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
        for outcome in &outcomes {
            let word = if committed.changed { outcome.word } else { "unchanged" };
            line(&format!("{} {word} (revision {revision})", outcome.display))?;
        }
    }
    let waited = if wait.wait { Some(wait::for_nodes(servers, revision, wait).await?) } else { None };
    if let Some(passed_over) = waited.as_ref().and_then(wait::Waited::passed_over) {
        output::note(&passed_over);
    }
    let late = waited.as_ref().filter(|waited| !waited.complete).map(|waited| waited.timed_out(revision, wait));
    if format == Format::Table {
        if let (Some(waited), None) = (&waited, &late) {
            line(&match waited.realised.len() {
                0 => format!("no node is there: nothing enforces revision {revision} yet"),
                1 => format!("revision {revision} is realised on 1 node"),
                nodes => format!("revision {revision} is realised on {nodes} nodes"),
            })?;
        }
    } else {
        let objects = outcomes.into_iter().map(|outcome| outcome.object).collect();
        let view = WriteView { revision: Some(revision), changed: committed.changed, objects, waited };
        output::print(format, &view, || table([""], []))?;
    }
    late.map_or(Ok(()), Err)
}
