//! One running member: storage, Raft, guard and service, started and stopped as a whole.

mod start;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use openraft::error::Fatal;
use ringfence_proto::follow::SharedHistory;
use ringfence_runtime::{
    tasks::{OnEnd, Tasks},
    tls::Tls,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use start::StartError;

use crate::{
    config::Config,
    core::Core,
    freshness::Freshness,
    link::Followers,
    observe,
    raft::{
        LogId, Raft,
        applier::Applier,
        guard::Members,
        transfer::{Transfer, TransferFailed},
    },
    service::STOPPING,
    state::StateError,
    storage::Storage,
    wal::{WalFailed, WalOptions},
};

/// A member of the store that serves.
pub struct Member {
    address: SocketAddr,
    raft: Raft,
    storage: Storage,
    members: Arc<Members>,
    freshness: Arc<Freshness>,
    transfer: Transfer,
    stopping: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    followers: Followers,
    links: JoinHandle<()>,
    guard: JoinHandle<()>,
    housekeeping: JoinHandle<()>,
    tls: Arc<Tls>,
    /// Where everything runs but the server; there from the start on, until it is stopped.
    core: Option<Core>,
}

/// A member cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberFailed {
    /// The log failed: nothing can be promised any more.
    #[error("{source}")]
    Log {
        /// Why.
        source: WalFailed,
    },
    /// Raft stopped: its storage failed.
    #[error("Raft has stopped: {source}")]
    Raft {
        /// Why.
        source: Fatal<u64>,
    },
    /// The service ended.
    #[error("the service on {address} ended")]
    Service {
        /// Where it listened.
        address: SocketAddr,
    },
    /// The state could not be put on stable storage while stopping.
    #[error("stopping: {source}; the state will be rebuilt at the next start")]
    Flush {
        /// Why.
        #[from]
        source: StateError,
    },
}

/// Starts a member as a task of a process.
///
/// # Errors
/// `StartError`; nothing runs then.
pub async fn run(config: Config, tasks: &mut Tasks) -> Result<(), StartError> {
    let drain = Duration::from_millis(config.drain_timeout_ms);
    let (health_listen, data_dir) = (config.health_listen, config.data_dir.clone());
    let member = Member::start(config).await?;
    if let Some(address) = health_listen {
        if let Err(error) = observe::health(&member, &data_dir).spawn(address, tasks) {
            member.kill().await;
            return Err(error.into());
        }
        tokio::spawn(observe::watch_leaders(member.raft.metrics(), tasks.token()));
    }
    let token = tasks.token();
    tasks.spawn("store", OnEnd::Stop, async move {
        tokio::select! {
            () = token.cancelled() => member.shutdown(drain).await,
            failed = member.failed() => {
                // Nothing may be acknowledged any more; what is on disk stays as it is.
                member.kill().await;
                Err(failed)
            }
        }
    });
    Ok(())
}

impl Member {
    /// Starts a member that listens where its configuration says.
    ///
    /// # Errors
    /// `StartError`; nothing runs then, and nothing is locked.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listen = config.listen;
        let listener = TcpListener::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
        Self::start_on(config, listener).await
    }

    /// Starts a member on a socket that listens already.
    ///
    /// # Errors
    /// `StartError`; nothing runs then, and nothing is locked.
    pub async fn start_on(config: Config, listener: TcpListener) -> Result<Self, StartError> {
        Self::start_with(config, listener, WalOptions::default()).await
    }

    /// Starts a member on a socket that listens already, with a log of its own kind.
    ///
    /// # Errors
    /// `StartError`; nothing runs then, and nothing is locked.
    pub async fn start_with(config: Config, listener: TcpListener, wal: WalOptions) -> Result<Self, StartError> {
        start::start(config, listener, wal).await
    }

    /// Where the member listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mesh and its newest deltas, as this member has applied them.
    #[must_use]
    pub const fn history(&self) -> &Arc<SharedHistory> {
        &self.storage.history
    }

    /// The member that leads, as far as this one knows.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow().current_leader
    }

    /// Consensus, for tests and drills.
    #[must_use]
    pub const fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Who answers this member.
    #[must_use]
    pub const fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(crate) const fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    pub(crate) const fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// Time since this member knew itself in touch with a quorum.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        self.freshness.staleness()
    }

    /// The last applied entry and the digest of the state after it: equal on all members (S14).
    #[must_use]
    pub fn state_digest(&self) -> (Option<LogId>, u64) {
        let marker = self.storage.applier.marker();
        (marker.applied, marker.digest)
    }

    /// What the state machine knows beside the mesh, as of the last applied entry.
    #[must_use]
    pub const fn applier(&self) -> &Applier {
        &self.storage.applier
    }

    /// Returns when the member cannot go on.
    pub async fn failed(&self) -> MemberFailed {
        // The log says more about its failure than Raft, which stops because of it.
        tokio::select! {
            biased;
            source = self.storage.wal.failed() => MemberFailed::Log { source },
            failed = self.raft_or_service_failed() => failed,
        }
    }

    /// Looks now and then: Raft's metrics change with every entry, too often to be woken by each change.
    async fn raft_or_service_failed(&self) -> MemberFailed {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        let metrics = self.raft.metrics();
        loop {
            if let Err(source) = metrics.borrow().running_state.clone() {
                return MemberFailed::Raft { source };
            }
            if self.server.is_finished() {
                return MemberFailed::Service { address: self.address };
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops in order: leadership goes to another member, no new calls, calls under way end (at most `drain`), Raft,
    /// then everything to stable storage.
    ///
    /// # Errors
    /// `MemberFailed::Flush` if the state is not on stable storage; the log is in any case.
    pub async fn shutdown(mut self, drain: Duration) -> Result<(), MemberFailed> {
        match tokio::time::timeout(drain / 2, self.transfer.to(None)).await {
            Ok(Ok(leader)) => tracing::info!(leader, "leadership handed over"),
            Ok(Err(TransferFailed::NotLeader)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leadership is not handed over: the others will elect a leader"),
            Err(_elapsed) => tracing::warn!("leadership could not be handed over in time"),
        }
        self.stopping.cancel();
        self.storage.history.stop(STOPPING);
        let answered = async {
            self.followers.gone().await;
            // How they ended is nobody's concern: the member stops.
            let _ = (&mut self.links).await;
            let _ = (&mut self.server).await;
        };
        if tokio::time::timeout(drain / 2, answered).await.is_err() {
            tracing::warn!("calls under way did not end in time and are cut off");
        }
        self.stop_tasks().await;
        let closed = self.storage.close();
        self.stop_core().await;
        Ok(closed?)
    }

    /// Stops at once, as a crash does: connections break, nothing is flushed.
    pub async fn kill(mut self) {
        self.stop_tasks().await;
        self.storage.abandon();
        self.stop_core().await;
    }

    async fn stop_core(&mut self) {
        if let Some(core) = self.core.take() {
            core.stop().await;
        }
    }

    async fn stop_tasks(&mut self) {
        self.stopping.cancel();
        self.storage.history.stop(STOPPING);
        self.server.abort();
        self.links.abort();
        self.guard.abort();
        self.housekeeping.abort();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "Raft's task panicked");
        }
        // An aborted task holds its socket until it has ended: a successor can listen once this returns.
        if !self.server.is_finished() {
            drop((&mut self.server).await);
        }
    }
}
