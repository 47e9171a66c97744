//! Writes: through Raft where this member leads, else through the leader.

use std::time::Instant;

use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use ringfence_policy::command::{Command, Committed, Refusal};
use ringfence_proto::{convert::refusal_status, v1};
use tonic::{Code, Status};

use super::{
    MeshService,
    leader::{self, Unavailable},
};

/// How one attempt ended.
enum Attempt {
    Done(v1::Committed),
    Refused(Status),
    /// Nothing was proposed: another attempt is safe.
    Again(Unavailable),
    /// The command may be in the log: another attempt could do it twice.
    Unknown(String),
    /// As `Unknown`, and this member can do nothing more.
    Stopped(String),
}

impl MeshService {
    /// Tries until `deadline`. An attempt is repeated only if the one before it surely did nothing, or if doing it twice
    /// is the same as doing it once.
    pub(super) async fn execute_until(
        &self,
        command: Command,
        deadline: Instant,
        forwarded: bool,
    ) -> Result<v1::Committed, Status> {
        // A label set keeps its number, whoever asks and how often.
        let repeatable = matches!(command, Command::AllocateIdentity { .. });
        loop {
            match self.attempt(&command, deadline, forwarded).await {
                Attempt::Done(committed) => return Ok(committed),
                Attempt::Refused(status) => return Err(status),
                Attempt::Again(reason) if forwarded || !leader::wait_a_moment(deadline).await => {
                    return Err(reason.into());
                }
                Attempt::Again(_) => {}
                Attempt::Stopped(reason) => return Err(outcome_unknown(&reason)),
                // Who handed the call over knows better where to try next.
                Attempt::Unknown(reason) if forwarded || !repeatable || !leader::wait_a_moment(deadline).await => {
                    return Err(outcome_unknown(&reason));
                }
                Attempt::Unknown(_) => {}
            }
        }
    }

    async fn attempt(&self, command: &Command, deadline: Instant, forwarded: bool) -> Attempt {
        // A leader without a quorum would take the command into its log and could not say what becomes of it (S11).
        if !*self.members.quorum().borrow() {
            return Attempt::Again(self.no_leader());
        }
        let write = tokio::time::timeout_at(deadline.into(), self.raft.client_write(command.clone()));
        match write.await {
            Ok(Ok(response)) => answer(response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. })))) => {
                match leader_id {
                    Some(_) if forwarded => Attempt::Again(Unavailable::NotLeader),
                    Some(leader) if leader != self.members.own().id => self.hand_over(command, leader, deadline).await,
                    _ => Attempt::Again(self.no_leader()),
                }
            }
            Ok(Err(error @ RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) => {
                Attempt::Refused(Status::internal(error.to_string()))
            }
            Ok(Err(RaftError::Fatal(error))) => Attempt::Stopped(format!("this member has stopped: {error}")),
            Err(_elapsed) => {
                Attempt::Unknown(format!("no quorum confirmed it in time: {}", self.members.describe_quorum()))
            }
        }
    }

    async fn hand_over(&self, command: &Command, leader: u64, deadline: Instant) -> Attempt {
        let mut client = match self.leader_client(leader) {
            Ok(client) => client,
            Err(reason) => return Attempt::Again(reason),
        };
        let request = leader::forward(v1::Command::from(command.clone()), deadline);
        let status = match tokio::time::timeout_at(deadline.into(), client.execute(request)).await {
            Ok(Ok(committed)) => return Attempt::Done(committed.into_inner()),
            Ok(Err(status)) => status,
            Err(_elapsed) => return Attempt::Unknown("the leader did not answer in time".to_owned()),
        };
        match status.code() {
            _ if leader::surely_not_proposed(&status) => Attempt::Again(self.unreachable(leader, &status.message())),
            // The store's own answers.
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted => Attempt::Refused(Status::new(status.code(), status.message())),
            _ => Attempt::Unknown(format!("the leader was lost: {}", status.message())),
        }
    }
}

fn outcome_unknown(reason: &str) -> Status {
    Status::unavailable(format!("the outcome is unknown, the command may still be carried out: {reason}"))
}

fn answer(data: Result<Committed, Refusal>) -> Attempt {
    match data {
        Ok(committed) => Attempt::Done(committed.into()),
        Err(refusal) => Attempt::Refused(refusal_status(&refusal)),
    }
}
