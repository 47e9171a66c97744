//! `ringfence settings set`.

use ringfence_policy::{
    command::{Command, Committed},
    record::{Kind, MeshSettings, Record},
};
use ringfence_proto::v1;

use super::list;
use crate::{
    args::{SettingsArguments, SettingsCommand},
    connect::Servers,
    failure::Failure,
    flags::Consistency,
    output::line,
};

pub(crate) async fn run(command: SettingsCommand, servers: &mut Servers) -> Result<(), Failure> {
    let SettingsCommand::Set(arguments) = command;
    let settings = changed(stored(servers).await?, arguments);
    settings.check().map_err(|error| Failure::Usage { reason: error.to_string() })?;
    let message = v1::Command::from(Command::PutSettings(settings));
    let response = servers.call(message, async |mut client, request| client.execute(request).await).await?;
    let Committed { revision, changed, .. } = response.into_inner().into();
    let word = if changed { "configured" } else { "unchanged" };
    Ok(line(&format!("settings {word} (revision {revision})"))?)
}

/// What holds now: the defaults where nobody has set anything.
async fn stored(servers: &mut Servers) -> Result<MeshSettings, Failure> {
    let records = list::fetch(servers, Kind::Settings, Consistency::Linearizable).await?;
    let settings = records.into_iter().find_map(|versioned| match versioned.record {
        Record::Settings(settings) => Some(settings),
        _ => None,
    });
    Ok(settings.unwrap_or_default())
}

fn changed(mut settings: MeshSettings, arguments: SettingsArguments) -> MeshSettings {
    if let Some(entries) = arguments.label_filter {
        settings.label_filter.entries = entries;
    }
    if let Some(replaces) = arguments.label_filter_replaces_defaults {
        settings.label_filter.replaces_defaults = replaces;
    }
    for (setting, given) in [
        (&mut settings.identity_grace_ms, arguments.identity_grace_ms),
        (&mut settings.quarantine_ms, arguments.quarantine_ms),
        (&mut settings.node_lease_ms, arguments.node_lease_ms),
        (&mut settings.node_grace_ms, arguments.node_grace_ms),
    ] {
        *setting = given.unwrap_or(*setting);
    }
    settings
}
