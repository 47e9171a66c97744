//! `ringfence policy`.

use std::path::PathBuf;

use ringfence_policy::record::PolicyKey;

use super::{
    apply, diff, explain,
    files::{self, Loaded},
    reference::{self, Reference},
    selectors, test_expectations, validate,
};
use crate::{
    args::PolicyCommand,
    connect::Servers,
    failure::Failure,
    flags::{Consistency, Global, Wait},
    output::{self, Format, line, table},
    view::PolicyView,
};

pub(crate) async fn run(command: PolicyCommand, global: &Global) -> Result<(), Failure> {
    match command {
        PolicyCommand::Apply { files, dry_run, wait } => apply::apply(&files, dry_run, wait, global).await,
        PolicyCommand::Get { names, consistency } => get(&names, consistency, global).await,
        PolicyCommand::Delete { names, files, wait } => delete(&names, &files, wait, global).await,
        PolicyCommand::Validate { files, identities, against_store, reading } => {
            validate::run(&files, identities.as_ref(), against_store, &reading, global).await
        }
        PolicyCommand::Explain(arguments) => explain::run(&arguments, global).await,
        PolicyCommand::Test { files } => test_expectations::run(&files, global.output),
        PolicyCommand::Diff { files, to, identities, reading } => {
            diff::run(&files, &to, identities.as_ref(), &reading, global).await
        }
        PolicyCommand::Selectors { files, identities, reading } => {
            selectors::run(&files, identities.as_ref(), &reading, global).await
        }
    }
}

async fn delete(names: &[String], files: &[PathBuf], wait: Wait, global: &Global) -> Result<(), Failure> {
    let references = parse(names)?;
    let Loaded { objects, groups } = if files.is_empty() { Loaded::default() } else { files::load(files)? };
    let of_files: Vec<PolicyKey> = objects.into_iter().map(|object| object.key).collect();
    if references.is_empty() && of_files.is_empty() && groups.is_empty() {
        let reason = format!("which {}? write the names after the kind: [NAMESPACE/]NAME", names.join(" "));
        return Err(Failure::Usage { reason });
    }
    let mut servers = Servers::new(global)?;
    let mut keys = if references.is_empty() {
        of_files
    } else {
        let known = apply::policies(&mut servers, Consistency::Linearizable).await?;
        let resolve = |reference: &Reference| reference.resolve(known.keys()).cloned();
        references.iter().map(resolve).collect::<anyhow::Result<_>>()?
    };
    keys.sort();
    keys.dedup();
    if !keys.is_empty() {
        apply::delete(keys, &mut servers, wait, global.output).await?;
    }
    // After the policies that refer to them.
    for group in groups {
        apply::delete_group(group.name, &mut servers, wait, global.output).await?;
    }
    Ok(())
}

fn parse(names: &[String]) -> Result<Vec<Reference>, Failure> {
    Reference::parse_all(names).map_err(|error| Failure::Usage { reason: error.to_string() })
}

async fn get(names: &[String], consistency: Consistency, global: &Global) -> Result<(), Failure> {
    let references = parse(names)?;
    let mut policies = apply::policies(&mut Servers::new(global)?, consistency).await?;
    if let [kind] = names
        && let Some(kind) = reference::parse_kind(kind)
    {
        policies.retain(|key, _| key.kind == kind);
    } else if !references.is_empty() {
        let resolve = |reference: &Reference| reference.resolve(policies.keys()).cloned();
        let wanted = references.iter().map(resolve).collect::<anyhow::Result<Vec<_>>>()?;
        policies.retain(|key, _| wanted.contains(key));
    }
    if global.output == Format::Yaml {
        // As applied: comments, order and all.
        let texts: Vec<&str> = policies.values().map(|(_, policy)| policy.text.trim_end()).collect();
        return Ok(line(&texts.join("\n---\n"))?);
    }
    let view = |(revision, policy): (u64, ringfence_policy::record::PolicyRecord)| PolicyView {
        kind: policy.key.kind.to_string(),
        namespace: policy.key.namespace.as_ref().map(ToString::to_string),
        name: policy.key.name.to_string(),
        revision,
        text: policy.text,
    };
    let views: Vec<PolicyView> = policies.into_values().map(view).collect();
    output::print(global.output, &views, || {
        let row = |view: &PolicyView| {
            let namespace = view.namespace.clone().unwrap_or_else(|| "-".to_owned());
            [view.kind.clone(), namespace, view.name.clone(), view.revision.to_string()]
        };
        table(["KIND", "NAMESPACE", "NAME", "REVISION"], views.iter().map(row))
    })?;
    Ok(())
}
