//! Removals whose answer was lost: the next member says "not found", whether or not an earlier one removed the record.

use std::time::Instant;

use ringfence_policy::{
    command::Command,
    record::{Kind, Record, RecordKey},
};
use ringfence_proto::v1;
use tonic::Status;

use crate::members::Members;

/// Finds out what became of a removal after an attempt without an answer and one that was told `not_found`. If none of
/// the records is there any more, the caller has what it asked for.
///
/// # Errors
/// `not_found` if a record that was to be removed is still there: nothing was removed then. `aborted` if that cannot be
/// found out.
pub(crate) async fn settle(
    members: &Members,
    command: &v1::Command,
    not_found: Status,
    deadline: Instant,
) -> Result<v1::Committed, Status> {
    let Some((kind, keys)) = removed(command) else { return Err(not_found) };
    let request =
        v1::ListRequest { kind: v1::Kind::from(kind).into(), consistency: v1::Consistency::Linearizable.into() };
    let unknown = |status: Status| {
        Status::aborted(format!(
            "whether it was removed is not known: its answer was lost, and then {}",
            status.message()
        ))
    };
    let chunks = members.list(request, deadline).await.map_err(unknown)?;
    let revision = chunks.iter().map(|chunk| chunk.revision).max().unwrap_or_default();
    for record in chunks.into_iter().flat_map(|chunk| chunk.records).filter_map(|versioned| versioned.record) {
        if keys.contains(&Record::try_from(record)?.key()) {
            return Err(not_found);
        }
    }
    Ok(v1::Committed { revision, changed: true, identity: 0 })
}

fn removed(command: &v1::Command) -> Option<(Kind, Vec<RecordKey>)> {
    match Command::try_from(command.clone()).ok()? {
        Command::DeletePolicies(keys) => Some((Kind::Policy, keys.into_iter().map(RecordKey::Policy).collect())),
        Command::Delete(key) => Some((key.kind(), vec![key])),
        _ => None,
    }
}
