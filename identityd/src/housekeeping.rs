//! What the leader does without being asked: founds the store, counts its clock on, and ends nodes that are silent.
//!
//! ```text
//! Book (leases, what is due) ─ every moment, where this member leads ─► LeaseTracker ─► ExpireNode ┐
//!                                                                       clock ────────► Tick       ├─► Proposer
//! ```
//!
//! The commands are proposed with what the leader saw; the state machine checks them. Times are taken from a monotonic
//! clock of the leader's process. A new leader knows nothing of the times before it, so every lease gets its full term
//! again, and the store's clock goes on from where it stood.

mod leases;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use openraft::ServerState;
use ringfence_policy::{
    command::{Command, Housekeeping},
    identity::Identity,
    name::Name,
};
use ringfence_proto::{follow::SharedHistory, version::Peers};
use tokio_util::sync::CancellationToken;

use crate::{
    founding,
    machine::Book,
    raft::{
        Raft,
        applier::Applier,
        batch::Proposal,
        guard::Members,
        propose::{Proposed, Proposer},
    },
};
use leases::LeaseTracker;

/// How often the leader looks at least: while something is due, every look is a log entry, and may be a revision.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);
/// How often it looks before the store is founded: nobody can follow it until then.
const FOUNDING_INTERVAL: Duration = Duration::from_millis(20);
/// The most nodes that are ended in one round, so that a round does not take long.
const MOST_ENDED: usize = 16;
/// A cluster whose numbers are used up to this share, in percent, is warned about.
const WARN_PERCENT: u64 = 80;
/// … and as often as this.
const WARN_INTERVAL: Duration = Duration::from_secs(600);

/// Keeps house while this member leads.
pub struct Housekeeper {
    /// Whether this member leads.
    pub raft: Raft,
    /// Where it proposes.
    pub proposer: Proposer,
    /// What other members understand.
    pub peers: Arc<Peers>,
    /// Whether it has a quorum.
    pub members: Arc<Members>,
    /// What there is to do.
    pub applier: Applier,
    /// Which clusters there are.
    pub history: Arc<SharedHistory>,
}

/// What a leader remembers, and forgets when it does not lead any more.
struct Term {
    began: Instant,
    leases: LeaseTracker,
    ticked: Instant,
    warned: Option<Instant>,
}

impl Housekeeper {
    /// Keeps house until cancelled.
    pub async fn run(self, token: CancellationToken) {
        let mut term: Option<Term> = None;
        loop {
            let interval = self.applier.read_book(Self::interval);
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let leads = self.raft.metrics().borrow().state == ServerState::Leader;
            if !leads || !*self.members.quorum().borrow() {
                term = None;
                continue;
            }
            let understood =
                self.members.understand(&Command::Housekeeping(Housekeeping::Tick { now_ms: 0 }), &self.peers);
            if let Err(error) = understood {
                tracing::debug!(%error, "no housekeeping");
                term = None;
                continue;
            }
            let now = Instant::now();
            let term = term.get_or_insert_with(|| Term::new(now));
            for command in self.due(term, now) {
                let proposed = tokio::select! {
                    () = token.cancelled() => return,
                    proposed = self.propose(command) => proposed,
                };
                if !matches!(proposed[..], [Proposed::Answered(_)]) {
                    tracing::debug!(?proposed, "housekeeping could not be proposed");
                    break;
                }
            }
        }
    }

    /// Into this member's log or nowhere: another leader sees for itself.
    async fn propose(&self, command: Housekeeping) -> Vec<Proposed> {
        let command = Command::Housekeeping(command);
        let deadline = tokio::time::Instant::now() + LONGEST_INTERVAL;
        self.proposer.submit_handed_over(Proposal::new(command), deadline).await
    }

    /// Four looks in a lease, as gateways tell four times in one.
    fn interval(book: &Book) -> Duration {
        if book.ledger().store().is_none() {
            return FOUNDING_INTERVAL;
        }
        (Duration::from_millis(book.settings().node_lease_ms) / 4).min(LONGEST_INTERVAL)
    }

    fn due(&self, term: &mut Term, now: Instant) -> Vec<Housekeeping> {
        if self.applier.read_book(|book| book.ledger().store().is_none()) {
            return founding().into_iter().collect();
        }
        let commands = self.applier.read_book(|book| {
            let elapsed = now.saturating_duration_since(term.began);
            let mut commands = term.leases.silent(book.ledger(), book.settings(), elapsed);
            commands.truncate(MOST_ENDED);
            let passed = now.saturating_duration_since(std::mem::replace(&mut term.ticked, now));
            if book.needs_ticks() && !passed.is_zero() {
                let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).min(Housekeeping::MAX_STEP_MS);
                commands.push(Housekeeping::Tick { now_ms: book.ledger().clock_ms().saturating_add(passed_ms) });
            }
            commands
        });
        for command in &commands {
            if let Housekeeping::ExpireNode { cluster, node, .. } = command {
                tracing::warn!(%cluster, %node, "the node has been silent for too long: removing its endpoints");
            }
        }
        if term.warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_INTERVAL) {
            term.warned = Some(now);
            self.warn_of_scarce_numbers();
        }
        commands
    }

    fn warn_of_scarce_numbers(&self) {
        let usage = self.applier.read_book(|book| self.history.read(|history| book.usage(history.mesh())));
        let scarce = |taken: u32| u64::from(taken) * 100 >= u64::from(Identity::MAX_NUMBER) * WARN_PERCENT;
        for (cluster, usage) in usage.iter().filter(|(_, usage)| scarce(usage.taken())) {
            let (cluster, taken): (&Name, u32) = (cluster, usage.taken());
            tracing::warn!(%cluster, taken, limit = Identity::MAX_NUMBER, ?usage, "identity numbers are running out");
        }
    }
}

/// A new id; none, and another look, on a machine that has no random numbers yet.
fn founding() -> Option<Housekeeping> {
    match founding::new_store_id(SystemTime::now()) {
        Ok(store) => {
            tracing::info!(%store, "founding the store");
            Some(Housekeeping::Found(store))
        }
        Err(error) => {
            tracing::error!(%error, "the store cannot be founded: there are no random numbers");
            None
        }
    }
}

impl Term {
    fn new(now: Instant) -> Self {
        Self { began: now, leases: LeaseTracker::default(), ticked: now, warned: None }
    }
}
