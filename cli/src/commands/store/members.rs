//! What is asked of every member.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringfence_proto::{
    connect::Expected,
    status::describe,
    v1::{self, maintenance_client::MaintenanceClient},
};
use serde::Serialize;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status, transport::Channel};

use crate::{
    commands::status::fetch,
    connect::Servers,
    credentials,
    failure::Failure,
    flags::Global,
    output::{self, age, table},
};

/// How long one member of several may take.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often members that are not at the same entry are asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// One member, as it says itself, or why it does not.
#[derive(Debug, Serialize)]
struct Row {
    id: u64,
    cluster: String,
    address: String,
    state: String,
    leader: u64,
    term: u64,
    last_log_index: u64,
    applied_index: u64,
    revision: u64,
    /// Revisions behind the newest that any member has.
    lag: u64,
    snapshot_index: u64,
    oldest_revision: u64,
    wal_bytes: u64,
    snapshot_bytes: u64,
    state_bytes: u64,
    staleness_ms: u64,
    digest_index: u64,
    digest: String,
    version: String,
    /// Empty before its founding.
    store_id: String,
    certificate_days_left: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
}

/// `store status`
pub(super) async fn status(global: &Global) -> Result<(), Failure> {
    let rows = report(global).await?;
    output::print(global.output, &rows, || {
        let header = [
            "MEMBER",
            "CLUSTER",
            "ADDRESS",
            "STATE",
            "TERM",
            "APPLIED/LOG",
            "REVISION",
            "LAG",
            "DISK",
            "CERTIFICATE",
            "PROBLEM",
        ];
        table(header, rows.iter().map(row))
    })?;
    unreachable(&rows)
}

/// `store hash`: asks again until all are at the same entry, or the time is over.
pub(super) async fn hash(global: &Global) -> Result<(), Failure> {
    let deadline = Instant::now() + global.timeout;
    loop {
        let rows = report(global).await?;
        let answering: Vec<&Row> = rows.iter().filter(|row| row.problem.is_empty()).collect();
        let same_entry = answering.windows(2).all(|pair| pair[0].digest_index == pair[1].digest_index);
        if !same_entry && Instant::now() < deadline {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let header = ["MEMBER", "CLUSTER", "ENTRY", "DIGEST", "PROBLEM"];
        output::print(global.output, &rows, || {
            let entry = |row: &Row| row.digest_index.to_string();
            table(
                header,
                rows.iter().map(|row| {
                    [row.id.to_string(), row.cluster.clone(), entry(row), row.digest.clone(), row.problem.clone()]
                }),
            )
        })?;
        if !same_entry {
            let what = "the members were never at the same entry: commands come too fast".to_owned();
            return Err(Failure::TimedOut { what, after: global.timeout });
        }
        if answering.windows(2).any(|pair| pair[0].digest != pair[1].digest) {
            let reason = "the members' states DIFFER after the same entry: stop the member that differs from the \
                          majority, move its data directory away and let it join again";
            return Err(Failure::Failed(anyhow::anyhow!(reason)));
        }
        return unreachable(&rows);
    }
}

/// `store compact`
pub(super) async fn compact(global: &Global, revision: u64) -> Result<(), Failure> {
    let mut failed = Vec::new();
    for member in addresses(global).await? {
        let call =
            ask(global, &member.address, async |mut client| client.compact(v1::CompactRequest { revision }).await);
        match call.await {
            Ok(answer) => output::line(&format!("member {}: resumes from {}", member.id, answer.oldest_revision))?,
            Err(reason) => failed.push(format!("member {}: {reason}", member.id)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(anyhow::anyhow!("{}", failed.join("\n")))) }
}

async fn addresses(global: &Global) -> Result<Vec<crate::view::MemberView>, Failure> {
    Ok(fetch(&mut Servers::new(global)?).await?.members)
}

async fn report(global: &Global) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for member in addresses(global).await? {
        let call =
            ask(global, &member.address, async |mut client| client.member_report(v1::MemberReportRequest {}).await);
        let (report, problem) = match call.await {
            Ok(report) => (report, String::new()),
            Err(reason) => (v1::MemberReportResponse::default(), reason),
        };
        let status = report.status.clone().unwrap_or_default();
        let days = days_left(report.certificate_not_after);
        rows.push(Row {
            id: member.id,
            cluster: member.cluster,
            address: member.address,
            state: if problem.is_empty() { status.state } else { "unreachable".to_owned() },
            leader: report.leader,
            term: status.term,
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            revision: status.revision,
            lag: 0,
            snapshot_index: report.snapshot_index,
            oldest_revision: report.oldest_revision,
            wal_bytes: report.wal_bytes,
            snapshot_bytes: report.snapshot_bytes,
            state_bytes: report.state_bytes,
            staleness_ms: report.staleness_ms,
            digest_index: report.digest_index,
            digest: format!("{:016x}", report.state_digest),
            version: report.version,
            store_id: report.store_id,
            certificate_days_left: days,
            problem,
        });
    }
    strangers(&mut rows);
    let newest = rows.iter().map(|row| row.revision).max().unwrap_or_default();
    rows.iter_mut().for_each(|row| row.lag = newest - row.revision);
    Ok(rows)
}

/// A member of another store than most is told so: the two do not talk to each other.
fn strangers(rows: &mut [Row]) {
    let mut stores: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.store_id.is_empty()) {
        *stores.entry(row.store_id.clone()).or_default() += 1;
    }
    let Some((main, _)) = stores.into_iter().max_by_key(|(_, members)| *members) else { return };
    for row in rows.iter_mut().filter(|row| !row.store_id.is_empty() && row.store_id != main) {
        row.problem = format!("it is a member of store {}, the others are of store {main}", row.store_id);
    }
}

/// Asks one member.
async fn ask<T>(
    global: &Global,
    address: &str,
    call: impl AsyncFnOnce(MaintenanceClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, String> {
    let dialer = credentials::dialer(global, Expected::Member).map_err(|error| error.to_string())?;
    let channel = dialer.channel(address).map_err(|error| error.to_string())?;
    let asked = timeout(MEMBER_TIMEOUT.min(global.timeout), call(MaintenanceClient::new(channel)));
    let answer = asked.await.map_err(|_| "no answer in time".to_owned())?;
    answer.map(Response::into_inner).map_err(|status| describe(&status))
}

fn unreachable(rows: &[Row]) -> Result<(), Failure> {
    let silent = |row: &&Row| !row.problem.is_empty();
    let silent: Vec<String> = rows.iter().filter(silent).map(|row| format!("member {}", row.id)).collect();
    if silent.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!(
        "{} of {} members did not answer: {}",
        silent.len(),
        rows.len(),
        silent.join(", ")
    )))
}

fn days_left(not_after: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (not_after - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(86_400)
}

fn row(row: &Row) -> [String; 11] {
    let silent = !row.problem.is_empty();
    let or_dash = |text: String| if silent { "-".to_owned() } else { text };
    let stale = if row.staleness_ms > 3000 { format!(", stale for {}", age(row.staleness_ms)) } else { String::new() };
    [
        row.id.to_string(),
        row.cluster.clone(),
        row.address.clone(),
        format!("{}{stale}", row.state),
        or_dash(row.term.to_string()),
        or_dash(format!("{}/{}", row.applied_index, row.last_log_index)),
        or_dash(row.revision.to_string()),
        or_dash(row.lag.to_string()),
        or_dash(bytes(row.wal_bytes + row.snapshot_bytes + row.state_bytes)),
        or_dash(format!("{} d", row.certificate_days_left)),
        row.problem.clone(),
    ]
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}
