//! Writes on their way into the log: commands that wait together become one entry.
//!
//! ```text
//! submit ─► queue ─┬─ this member leads: Batch ─► Raft ──────────────► an answer for each command
//! (bounded)        └─ another one does: Batch ─► its service.rs ─► its queue ─┘
//! ```
//!
//! Nothing waits for a batch to fill: while the entries before are under way, commands gather, and the next entry takes
//! all of them. So an idle store answers at once, and a busy one pays one replication and one sync for many.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openraft::error::{ClientWriteError, ForwardToLeader};
use ringfence_policy::command::Command;
use ringfence_proto::v1::{self, raft_client::RaftClient};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, transport::Channel};

use super::{
    Answer, Raft,
    batch::Batch,
    guard::Members,
    network::{Channels, Lane, MAX_RAFT_MESSAGE_BYTES},
    service::surely_not_proposed,
};
use crate::codec;

/// Commands that wait at most; behind them, callers do.
const QUEUE: usize = 4096;
/// Commands of one entry at most.
const BATCH_COMMANDS: usize = 512;
/// An entry takes no more commands once it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Entries of this leader under way: one on its way to the others, one behind it.
const ENTRIES_UNDER_WAY: usize = 2;
/// Batches handed to the leader and not answered yet.
const HANDOVERS_UNDER_WAY: usize = 4;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposed {
    /// It is in the log, and this is what it did.
    Answered(Answer),
    /// It is not in the log and never will be: another attempt is safe.
    Not(NotProposed),
    /// It may be in the log: another attempt could do it twice.
    Unknown(String),
    /// As `Unknown`, and this member can do nothing more.
    Stopped(String),
}

/// Why a command was not proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NotProposed {
    /// Nobody leads, as far as this member knows.
    #[error("the store has no leader at the moment; an election takes about a second")]
    NoLeader,
    /// It was handed to a member that does not lead any more.
    #[error("this member is not the leader any more")]
    NotLeader,
    /// The leader cannot be reached.
    #[error("the leader, member {leader}, cannot be reached: {reason}")]
    LeaderUnreachable {
        /// Its id.
        leader: u64,
        /// Why.
        reason: String,
    },
    /// It waited until its caller gave up.
    #[error("it waited behind other commands until its time was over")]
    TimedOut,
}

/// A command that waits.
struct Waiting {
    command: Command,
    /// Roughly what it takes in the log.
    bytes: usize,
    /// Another member handed it over: it goes into this member's log or nowhere.
    is_handed_over: bool,
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Proposed>,
}

/// Takes commands from many callers; clones share one queue.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    paused: watch::Sender<bool>,
}

impl Proposer {
    /// Starts the task that empties the queue; it ends with `stopping`.
    #[must_use]
    pub fn start(raft: Raft, members: Arc<Members>, channels: Channels, stopping: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let paused = watch::Sender::new(false);
        let (own, others) = (Semaphore::new(ENTRIES_UNDER_WAY), Semaphore::new(HANDOVERS_UNDER_WAY));
        let (own, others) = (Arc::new(own), Arc::new(others));
        let pump = Pump { raft, members, channels, waiting, own, others, paused: paused.subscribe() };
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = pump.run() => {}
            }
        });
        Self { queue, paused }
    }

    /// Proposes a command, here or at the leader, and waits for what becomes of it until `deadline`. `bytes` is its
    /// encoded length.
    pub async fn submit(&self, command: Command, bytes: usize, deadline: Instant) -> Proposed {
        match self.enqueue(command, bytes, deadline, false).await {
            Ok(ticket) => ticket.wait(deadline).await,
            Err(reason) => Proposed::Not(reason),
        }
    }

    /// Proposes commands that another member handed over: into this member's log or nowhere.
    pub async fn submit_handed_over(&self, commands: Vec<Command>, bytes: usize, deadline: Instant) -> Vec<Proposed> {
        let each = bytes / commands.len().max(1);
        let mut tickets = Vec::with_capacity(commands.len());
        for command in commands {
            tickets.push(self.enqueue(command, each, deadline, true).await);
        }
        let mut all = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            all.push(match ticket {
                Ok(ticket) => ticket.wait(deadline).await,
                Err(reason) => Proposed::Not(reason),
            });
        }
        all
    }

    async fn enqueue(
        &self,
        command: Command,
        bytes: usize,
        deadline: Instant,
        is_handed_over: bool,
    ) -> Result<Ticket, NotProposed> {
        let (answer, answered) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let waiting = Waiting { command, bytes, is_handed_over, taken: taken.clone(), answer };
        match tokio::time::timeout_at(deadline, self.queue.send(waiting)).await {
            Ok(Ok(())) => Ok(Ticket { taken, answered }),
            Ok(Err(_closed)) => Err(NotProposed::NoLeader),
            Err(_elapsed) => Err(NotProposed::TimedOut),
        }
    }

    /// Stops taking commands from the queue until the guard is dropped; what is under way goes on.
    #[must_use]
    pub fn pause(&self) -> Paused<'_> {
        self.paused.send_replace(true);
        Paused(&self.paused)
    }
}

/// The caller's end of a command that waits.
struct Ticket {
    taken: Arc<AtomicBool>,
    answered: oneshot::Receiver<Proposed>,
}

impl Ticket {
    async fn wait(mut self, deadline: Instant) -> Proposed {
        match tokio::time::timeout_at(deadline, &mut self.answered).await {
            Ok(Ok(proposed)) => return proposed,
            Ok(Err(_dropped)) => {}
            Err(_elapsed) => self.answered.close(),
        }
        // The pump marks a command as taken before it looks whether anybody still waits for it.
        if self.taken.load(Ordering::SeqCst) {
            self.answered.try_recv().unwrap_or_else(|_| Proposed::Unknown("no quorum confirmed it in time".to_owned()))
        } else {
            Proposed::Not(NotProposed::TimedOut)
        }
    }
}

/// Commands wait as long as this lives.
pub struct Paused<'a>(&'a watch::Sender<bool>);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Empties the queue.
struct Pump {
    raft: Raft,
    members: Arc<Members>,
    channels: Channels,
    waiting: mpsc::Receiver<Waiting>,
    own: Arc<Semaphore>,
    others: Arc<Semaphore>,
    paused: watch::Receiver<bool>,
}

impl Pump {
    async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let mut leader = self.raft.metrics().borrow().current_leader;
            let mut leads = leader == Some(self.members.own().id);
            let places = if leads { self.own.clone() } else { self.others.clone() };
            let Ok(place) = places.acquire_owned().await else { return };
            if *self.paused.borrow() {
                if self.paused.wait_for(|paused| !paused).await.is_err() {
                    return;
                }
                // Somebody else may lead by now.
                leader = self.raft.metrics().borrow().current_leader;
                leads = leader == Some(self.members.own().id);
            }
            let (commands, answers) = self.gather(first, leads);
            match leader {
                _ if commands.is_empty() => {}
                Some(leader) if !leads => self.hand_over(leader, &commands, answers, place),
                Some(_) => self.propose(commands, answers, place).await,
                None => answer_all(answers, &Proposed::Not(NotProposed::NoLeader)),
            }
        }
    }

    /// The first command and all that wait behind it, as far as one entry goes.
    fn gather(&mut self, first: Waiting, leads: bool) -> (Vec<Command>, Vec<oneshot::Sender<Proposed>>) {
        let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(waiting) = next {
            waiting.taken.store(true, Ordering::SeqCst);
            if waiting.is_handed_over && !leads {
                answer_all(vec![waiting.answer], &Proposed::Not(NotProposed::NotLeader));
            } else if !waiting.answer.is_closed() {
                bytes += waiting.bytes;
                commands.push(waiting.command);
                answers.push(waiting.answer);
            }
            let is_full = commands.len() >= BATCH_COMMANDS || bytes >= BATCH_BYTES;
            next = if is_full { None } else { self.waiting.try_recv().ok() };
        }
        (commands, answers)
    }

    async fn propose(
        &self,
        commands: Vec<Command>,
        answers: Vec<oneshot::Sender<Proposed>>,
        place: OwnedSemaphorePermit,
    ) {
        let written = match self.raft.client_write_ff(Batch::new(commands)).await {
            Ok(written) => written,
            Err(error) => return answer_all(answers, &stopped(&error)),
        };
        let own = self.members.own().id;
        tokio::spawn(async move {
            let result = written.await;
            drop(place);
            let proposed = match result {
                Ok(Ok(response)) => {
                    for (answer, given) in answers.into_iter().zip(response.data) {
                        // Who asked may have given up.
                        let _ = answer.send(Proposed::Answered(given));
                    }
                    return;
                }
                Ok(Err(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }))) => match leader_id {
                    Some(leader) if leader != own => Proposed::Not(NotProposed::NotLeader),
                    _ => Proposed::Not(NotProposed::NoLeader),
                },
                Ok(Err(error @ ClientWriteError::ChangeMembershipError(_))) => Proposed::Unknown(error.to_string()),
                Err(error) => stopped(&error),
            };
            answer_all(answers, &proposed);
        });
    }

    fn hand_over(
        &self,
        leader: u64,
        commands: &[Command],
        answers: Vec<oneshot::Sender<Proposed>>,
        place: OwnedSemaphorePermit,
    ) {
        let unreachable = move |reason: String| Proposed::Not(NotProposed::LeaderUnreachable { leader, reason });
        let channel = match self.members.get(leader) {
            Some(member) => self.channels.get(Lane::Handover, &member.address).map_err(|error| error.to_string()),
            None => Err("its address is not known here".to_owned()),
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(reason) => return answer_all(answers, &unreachable(reason)),
        };
        let message = self.channels.request(v1::RaftMessage { payload: codec::encode(commands) });
        tokio::spawn(async move {
            let given = handed_over(channel, message).await;
            drop(place);
            match given {
                Ok(given) if given.len() == answers.len() => {
                    for (answer, given) in answers.into_iter().zip(given) {
                        // A leader that has stopped says nothing about this member.
                        let given =
                            if let Proposed::Stopped(reason) = given { Proposed::Unknown(reason) } else { given };
                        let _ = answer.send(given);
                    }
                }
                Ok(_) => answer_all(answers, &Proposed::Unknown("the leader's answer has no meaning".to_owned())),
                Err(status) if surely_not_proposed(&status) => {
                    answer_all(answers, &unreachable(status.message().to_owned()));
                }
                Err(status) => {
                    answer_all(answers, &Proposed::Unknown(format!("the leader was lost: {}", status.message())));
                }
            }
        });
    }
}

/// How long a leader may take for what was handed to it. Callers give up at their own time.
pub const HANDOVER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

async fn handed_over(channel: Channel, message: Request<v1::RaftMessage>) -> Result<Vec<Proposed>, tonic::Status> {
    let mut client = RaftClient::new(channel)
        .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES);
    let call = tokio::time::timeout(HANDOVER_TIMEOUT, client.propose(message));
    let answer = call.await.map_err(|_| tonic::Status::deadline_exceeded("it did not answer in time"))??;
    codec::decode(&answer.into_inner().payload).map_err(|error| tonic::Status::internal(error.to_string()))
}

fn answer_all(answers: Vec<oneshot::Sender<Proposed>>, proposed: &Proposed) {
    for answer in answers {
        // Who asked may have given up.
        let _ = answer.send(proposed.clone());
    }
}

fn stopped(error: &dyn std::fmt::Display) -> Proposed {
    Proposed::Stopped(format!("this member has stopped: {error}"))
}
