//! Makes the cluster known to the mesh.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_policy::{command::Command, record::Cluster};
use ringfence_proto::{deadline, status::describe, v1};
use ringfence_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::members::Members;

/// The store refuses the cluster: only another configuration can help.
#[derive(Debug, thiserror::Error)]
#[error("the store refuses to register this cluster: {reason} (see 'cluster' in the configuration)")]
pub(crate) struct RegistrationRefused {
    reason: String,
}

/// Puts the cluster's record, as often as it takes to reach the store; then waits for the end.
///
/// # Errors
/// `RegistrationRefused`, for example when another cluster has the id.
pub(crate) async fn register(
    members: Arc<Members>,
    cluster: Cluster,
    token: CancellationToken,
) -> Result<(), RegistrationRefused> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let name = cluster.name.clone();
    let command = v1::Command::from(Command::PutCluster(cluster));
    loop {
        let executed = tokio::select! {
            () = token.cancelled() => return Ok(()),
            executed = members.execute(&command, None, Instant::now() + deadline::DEFAULT) => executed,
        };
        match executed {
            Ok(committed) => {
                tracing::info!(cluster = %name, revision = committed.revision, changed = committed.changed, "cluster registered");
                token.cancelled().await;
                return Ok(());
            }
            Err(status) if status.code() == Code::Unavailable => {
                tracing::debug!(cluster = %name, reason = describe(&status), "the store cannot be reached to register the cluster");
            }
            Err(status) => return Err(RegistrationRefused { reason: describe(&status) }),
        }
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}
