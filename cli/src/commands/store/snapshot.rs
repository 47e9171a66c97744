//! Snapshot files.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use ringfence_policy::{record::Kind, store::StoreId};
use ringfence_proto::{
    backup::{self, Backup},
    connect::Expected,
    status::describe,
    v1::{self, maintenance_client::MaintenanceClient},
};
use serde::Serialize;

use crate::{
    credentials,
    failure::Failure,
    flags::Global,
    output::{self, Format, line, table},
};

const PREFIX: &str = "ringfence-";
const SUFFIX: &str = "snapshot";

/// What is in a file.
#[derive(Debug, Serialize)]
struct Content {
    file: PathBuf,
    revision: u64,
    saved_at: i64,
    saved_by: String,
    version: String,
    store_id: String,
    bytes: u64,
    clusters: usize,
    nodes: usize,
    identities: usize,
    endpoints: usize,
    policies: usize,
}

/// `store snapshot save`
pub(super) async fn save(global: &Global, file: &Path) -> Result<(), Failure> {
    if file.exists() {
        let reason = format!("{} exists already: give a new name", file.display());
        return Err(Failure::Failed(anyhow::anyhow!(reason)));
    }
    let bytes = fetch(global).await?;
    let backup = keep(file, &bytes)?;
    show(global.output, file, &backup, bytes.len())?;
    Ok(())
}

/// `store snapshot verify`
pub(super) fn verify(format: Format, file: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let backup = backup::read(&bytes).with_context(|| file.display().to_string())?;
    show(format, file, &backup, bytes.len())
}

/// `store snapshot restore`
pub(super) fn restore(
    identityd: &Path,
    config: &Path,
    store: Option<StoreId>,
    other_mesh: bool,
    file: &Path,
) -> anyhow::Result<()> {
    let mut command = Command::new(identityd);
    command.arg("restore").arg("--config").arg(config).arg("--snapshot").arg(file);
    if let Some(store) = store {
        command.arg("--store-id").arg(store.to_string());
    }
    command.args(other_mesh.then_some("--other-mesh"));
    let status = command.status().with_context(|| {
        format!("cannot run {}: restore on the member's machine, or give --identityd", identityd.display())
    })?;
    if !status.success() {
        bail!("{} restore failed", identityd.display());
    }
    Ok(())
}

/// `store backup`
pub(super) async fn backup(global: &Global, directory: &Path, keep_count: usize) -> Result<(), Failure> {
    let bytes = fetch(global).await?;
    let context = || format!("cannot use {}", directory.display());
    fs::create_dir_all(directory).with_context(context)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let before = backups(directory).with_context(context)?;
    let file = directory.join(name_after(&before, now));
    let backup = keep(&file, &bytes)?;
    show(global.output, &file, &backup, bytes.len())?;
    for old in backups(directory).with_context(context)?.iter().rev().skip(keep_count) {
        fs::remove_file(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(())
}

/// The files of `store backup` in a directory, the oldest first.
fn backups(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| number(path).is_some());
    files.sort();
    Ok(files)
}

fn number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    digits.parse().ok()
}

/// Names sort in the order in which the files were taken, whatever the clock did in between: the newest one is never taken
/// for the oldest, and removed.
fn name_after(before: &[PathBuf], now: u64) -> String {
    let newest = before.iter().filter_map(|path| number(path)).max();
    let number = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
    format!("{PREFIX}{number:012}.{SUFFIX}")
}

/// The bytes that the first member sends which answers.
async fn fetch(global: &Global) -> Result<Vec<u8>, Failure> {
    let mut attempts = Vec::new();
    if global.servers.is_empty() {
        let reason = "no server given: use --server HOST:PORT or set RINGFENCE_SERVER".to_owned();
        return Err(Failure::Usage { reason });
    }
    for address in &global.servers {
        let dialer = credentials::dialer(global, Expected::Member)?;
        let channel = dialer.channel(address).map_err(|error| Failure::Usage { reason: error.to_string() })?;
        match receive(MaintenanceClient::new(channel), global).await {
            Ok(bytes) => return Ok(bytes),
            Err(status) if status.code() == tonic::Code::PermissionDenied => {
                return Err(Failure::Failed(anyhow::anyhow!("{}", status.message().to_owned())));
            }
            Err(status) => attempts.push(format!("  {address}: {}", describe(&status))),
        }
    }
    Err(Failure::Connect { attempts })
}

/// `--timeout` counts for every part: a large store takes its time.
async fn receive(
    mut client: MaintenanceClient<tonic::transport::Channel>,
    global: &Global,
) -> Result<Vec<u8>, tonic::Status> {
    let late = |_| tonic::Status::deadline_exceeded("no answer in time");
    let call = tokio::time::timeout(global.timeout, client.backup(v1::BackupRequest {}));
    let mut parts = call.await.map_err(late)??.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = tokio::time::timeout(global.timeout, parts.message()).await.map_err(late)?? {
        bytes.extend(part.data);
    }
    Ok(bytes)
}

/// Writes a file that is whole, or none.
fn keep(file: &Path, bytes: &[u8]) -> anyhow::Result<Backup> {
    let backup = backup::read(bytes).context("what was received is no good")?;
    let mut partial = file.as_os_str().to_owned();
    partial.push(".part");
    let written = fs::File::create(&partial).and_then(|mut partial| {
        partial.write_all(bytes)?;
        partial.sync_all()
    });
    written.and_then(|()| fs::rename(&partial, file)).with_context(|| format!("cannot write {}", file.display()))?;
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(backup)
}

fn show(format: Format, file: &Path, backup: &Backup, bytes: usize) -> anyhow::Result<()> {
    let count = |kind: Kind| backup.snapshot.records.keys().filter(|key| key.kind() == kind).count();
    let content = Content {
        file: file.to_owned(),
        revision: backup.snapshot.revision.0,
        saved_at: backup.header.saved_at,
        saved_by: backup.header.saved_by.clone(),
        version: backup.header.version.clone(),
        store_id: backup.header.store_id.clone(),
        bytes: bytes as u64,
        clusters: count(Kind::Cluster),
        nodes: count(Kind::Node),
        identities: count(Kind::Identity),
        endpoints: count(Kind::Endpoint),
        policies: count(Kind::Policy),
    };
    if format == Format::Table {
        let Content { revision, saved_by, store_id, bytes, clusters, nodes, identities, endpoints, policies, .. } =
            &content;
        return line(&format!(
            "{}: whole, revision {revision} of store {store_id}, saved by {saved_by}, {bytes} bytes: {clusters} clusters, {nodes} nodes, \
             {identities} identities, {endpoints} endpoints, {policies} policies",
            file.display()
        ));
    }
    output::print(format, &content, || table([""], []))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_behind_all_others_although_the_clock_went_back() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(directory.path().join(name), "").unwrap();
        let next = |now| name_after(&backups(directory.path()).unwrap(), now);
        assert_eq!(next(1_795_000_000), "ringfence-001795000000.snapshot");
        for other in ["ringfence-notes.snapshot", "before-upgrade.snapshot", "ringfence-001999999999.snapshot.part"] {
            write(other);
        }
        assert!(backups(directory.path()).unwrap().is_empty(), "those are no backups, and are never removed");
        // A day in the future, and then set right.
        for (now, name) in [
            (1_795_086_400, "ringfence-001795086400.snapshot"),
            (1_795_000_007, "ringfence-001795086401.snapshot"),
            (1_795_086_401, "ringfence-001795086402.snapshot"),
        ] {
            assert_eq!(next(now), name);
            write(name);
            assert!(backups(directory.path()).unwrap().last().unwrap().ends_with(name));
        }
    }
}
