//! Writes: into the log, through whichever member leads.

use std::time::Duration;

use ringfence_proto::{convert::refusal_status, v1};
use tokio::time::Instant;
use tonic::Status;

use super::MeshService;
use crate::raft::{
    batch::Proposal,
    propose::{NotProposed, Proposed},
};

/// How often a leader is looked for while there is none.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl MeshService {
    /// Tries until `deadline`. An attempt is repeated only if the one before it surely did nothing, or if doing it twice
    /// is the same as doing it once, which `is_repeatable` says.
    pub(super) async fn execute_until(
        &self,
        proposal: Proposal,
        is_repeatable: bool,
        deadline: Instant,
    ) -> Result<v1::Committed, Status> {
        loop {
            match self.attempt(&proposal, deadline).await {
                Proposed::Answered(Ok(committed)) => return Ok(committed.into()),
                Proposed::Answered(Err(refusal)) => return Err(refusal_status(&refusal)),
                Proposed::Not(reason) if !wait_a_moment(deadline).await => return Err(self.unavailable(&reason)),
                Proposed::Not(_) => {}
                Proposed::Stopped(reason) => return Err(outcome_unknown(&reason)),
                Proposed::Unknown(reason) if !is_repeatable || !wait_a_moment(deadline).await => {
                    return Err(outcome_unknown(&format!("{reason}: {}", self.members.describe_quorum())));
                }
                Proposed::Unknown(_) => {}
            }
        }
    }

    async fn attempt(&self, proposal: &Proposal, deadline: Instant) -> Proposed {
        // A leader without a quorum would take the command into its log and could not say what becomes of it (S11).
        if *self.members.quorum().borrow() {
            self.proposer.submit(proposal.clone(), deadline).await
        } else {
            Proposed::Not(NotProposed::NoLeader)
        }
    }

    /// Nothing was proposed, and there is no time for another attempt.
    fn unavailable(&self, reason: &NotProposed) -> Status {
        if *self.members.quorum().borrow() { Status::unavailable(reason.to_string()) } else { self.no_quorum() }
    }

    /// Why nothing can be asked of a quorum.
    pub(super) fn no_quorum(&self) -> Status {
        Status::unavailable(format!("no quorum of the store: {}", self.members.describe_quorum()))
    }
}

fn outcome_unknown(reason: &str) -> Status {
    Status::unavailable(format!("the outcome is unknown, the command may still be carried out: {reason}"))
}

/// Waits a moment for a leader; false if `deadline` is reached.
pub(super) async fn wait_a_moment(deadline: Instant) -> bool {
    let now = Instant::now();
    if now >= deadline {
        return false;
    }
    tokio::time::sleep(RETRY_INTERVAL.min(deadline - now)).await;
    true
}
