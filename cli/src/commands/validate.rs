//! `ringfence policy validate`: every finding about policy files, without a server.

use std::path::PathBuf;

use ringfence_policy::{
    diagnostic::{Diagnostic, Severity},
    explain::{Party, idle},
    world::Settings,
};
use serde::Serialize;

use super::sources::{self, Member, Sources, counted};
use crate::{
    failure::Failure,
    flags::{Global, Reading},
    output::{self, Format, line, table},
};

/// One finding.
#[derive(Debug, Serialize)]
struct FindingView<'f> {
    file: &'f str,
    #[serde(flatten)]
    finding: &'f Diagnostic,
}

/// Shows every finding.
pub(crate) async fn run(
    paths: &[PathBuf],
    identities: Option<&PathBuf>,
    of_store: bool,
    reading: &Reading,
    global: &Global,
) -> Result<(), Failure> {
    let format = global.output;
    let mut sources = Sources::read(paths, reading.compat.into())?;
    if identities.is_some() || of_store {
        let settings = sources::settings(reading)?;
        let members = sources::members(identities, &settings, global).await?;
        let found = idle_rules(&sources, members, &settings, reading);
        sources.findings.extend(found);
    }
    if !sources.services.is_empty() {
        let found = unresolved(&sources, reading);
        sources.findings.extend(found);
    }
    let errors = sources.findings.iter().filter(|(_, finding)| finding.is_error()).count();
    let warnings = sources.findings.len() - errors;
    if format == Format::Table {
        for (file, finding) in &sources.findings {
            line(&format!("{file}:{finding}"))?;
        }
        let mut counts = vec![format!("{} accepted", counted(sources.objects.len(), "object"))];
        counts.extend((!sources.groups.is_empty()).then(|| counted(sources.groups.len(), "CIDR group")));
        counts.extend([counted(errors, "error"), counted(warnings, "warning")]);
        line(&counts.join(", "))?;
    } else {
        let view = |(file, finding)| FindingView { file, finding };
        let views: Vec<_> = sources.findings.iter().map(|(file, finding)| view((file.as_str(), finding))).collect();
        output::print(format, &views, || table([""], []))?;
    }
    match errors {
        0 => Ok(()),
        count => Err(anyhow::anyhow!("{} found", counted(count, "error")).into()),
    }
}

/// What rules name and nothing stands for, where services are given.
fn unresolved(sources: &Sources, reading: &Reading) -> Vec<(String, Diagnostic)> {
    let world = sources::world(reading, &[sources]);
    let of_services = |finding: &Diagnostic| finding.rule.is_some_and(|rule| rule.starts_with("SVC"));
    let objects = sources.objects.iter().zip(&sources.files);
    let found = objects.flat_map(|(object, file)| {
        world.unresolved(&object.rules).into_iter().filter(of_services).map(|finding| (file.clone(), finding))
    });
    found.collect()
}

/// What does nothing for any of the identities.
fn idle_rules(
    sources: &Sources,
    members: Vec<Member>,
    settings: &Settings,
    reading: &Reading,
) -> Vec<(String, Diagnostic)> {
    let mut parties: Vec<Party> = members.into_iter().map(|member| member.party).collect();
    parties.extend(sources::others(&[sources], settings).into_iter().map(|member| member.party));
    let warning = |(place, why): (ringfence_policy::explain::Place, ringfence_policy::explain::Idle)| {
        let finding = Diagnostic::error(place.position, why.to_string()).rule(why.rule()).help(why.help());
        let finding = Diagnostic { severity: Severity::Warning, path: place.path, ..finding };
        (sources.files[place.object].clone(), finding)
    };
    idle(settings, &sources::world(reading, &[sources]), &sources.objects, &parties).into_iter().map(warning).collect()
}
