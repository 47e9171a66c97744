//! Writes on their way into the log: commands that wait together become one entry.
//!
//! ```text
//! submit ─► queue ─┬─ this member leads: Batch ─► Raft ──────────────► an answer for each command
//! (bounded)        └─ another one does: Batch ─► its service.rs ─► its queue ─┘
//! ```
//!
//! Nothing waits for a batch to fill: while the entries before are under way, commands gather, and the next entry takes
//! all of them. So an idle store answers at once, and a busy one pays one replication and one sync for many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::error::{ClientWriteError, ForwardToLeader};
use ringfence_proto::link::method;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Answer, Raft,
    batch::{Batch, Proposal},
    guard::Members,
    network::{Channels, Lane, MemberLink},
    service::surely_not_proposed,
};
use crate::codec;

/// Commands that wait at most; behind them, callers do.
const QUEUE: usize = 4096;
/// Commands of one entry at most.
const BATCH_COMMANDS: usize = 512;
/// An entry takes no more commands once it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Entries of this leader under way. Raft sends a member one message at a time: a second entry would leave no sooner, and
/// fewer, larger entries are less work for everybody.
const ENTRIES_UNDER_WAY: usize = 1;
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

/// Commands that wait together.
struct Waiting {
    proposal: Proposal,
    /// Another member handed them over: they go into this member's log or nowhere.
    is_handed_over: bool,
    taken: Arc<AtomicBool>,
    answer: Answerer,
}

/// Who waits, and for how many answers.
struct Answerer {
    count: usize,
    sender: oneshot::Sender<Vec<Proposed>>,
}

impl Answerer {
    /// The same answer for each command.
    fn all(self, proposed: &Proposed) {
        let answers = vec![proposed.clone(); self.count];
        // Who asked may have given up.
        let _ = self.sender.send(answers);
    }

    /// The next answers of many.
    fn next(self, answers: &mut impl Iterator<Item = Proposed>) {
        let own = answers.take(self.count).collect();
        let _ = self.sender.send(own);
    }
}

/// Takes commands from many callers; clones share one queue.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    /// Places of this leader's entries.
    own: Arc<Semaphore>,
}

impl Proposer {
    /// Starts the task that empties the queue; it ends with `stopping`.
    #[must_use]
    pub fn start(raft: Raft, members: Arc<Members>, channels: Channels, stopping: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (own, others) = (Semaphore::new(ENTRIES_UNDER_WAY), Semaphore::new(HANDOVERS_UNDER_WAY));
        let (own, others) = (Arc::new(own), Arc::new(others));
        let pump = Pump { raft, members, channels, waiting, own: own.clone(), others };
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = pump.run() => {}
            }
        });
        Self { queue, own }
    }

    /// Proposes one command, here or at the leader, and waits for what becomes of it until `deadline`.
    pub async fn submit(&self, proposal: Proposal, deadline: Instant) -> Proposed {
        let answers = self.submit_any(proposal, deadline, false).await;
        answers.into_iter().next().unwrap_or_else(|| Proposed::Unknown("it was not answered".to_owned()))
    }

    /// Proposes commands that another member handed over: into this member's log or nowhere.
    pub async fn submit_handed_over(&self, proposal: Proposal, deadline: Instant) -> Vec<Proposed> {
        self.submit_any(proposal, deadline, true).await
    }

    async fn submit_any(&self, proposal: Proposal, deadline: Instant, is_handed_over: bool) -> Vec<Proposed> {
        let count = proposal.count();
        let (sender, answered) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let answer = Answerer { count, sender };
        let waiting = Waiting { proposal, is_handed_over, taken: taken.clone(), answer };
        // A place at once is the rule; only waiting for one needs a clock.
        let queued = match self.queue.try_send(waiting) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(NotProposed::NoLeader),
            Err(TrySendError::Full(waiting)) => match tokio::time::timeout_at(deadline, self.queue.send(waiting)).await
            {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_closed)) => Err(NotProposed::NoLeader),
                Err(_elapsed) => Err(NotProposed::TimedOut),
            },
        };
        match queued {
            Ok(()) => Ticket { taken, answered, count }.wait(deadline).await,
            Err(reason) => vec![Proposed::Not(reason); count],
        }
    }

    /// Waits until no entry of this member is under way, at most for `longest`; none begins until the guard is dropped.
    pub async fn pause(&self, longest: Duration) -> Option<Paused> {
        let all = u32::try_from(ENTRIES_UNDER_WAY).expect("a few");
        let places = tokio::time::timeout(longest, self.own.clone().acquire_many_owned(all)).await;
        places.ok()?.ok().map(Paused)
    }
}

/// Commands wait as long as this lives.
pub struct Paused(#[expect(dead_code, reason = "holding it is what it is for")] OwnedSemaphorePermit);

/// The caller's end of a command that waits.
struct Ticket {
    taken: Arc<AtomicBool>,
    answered: oneshot::Receiver<Vec<Proposed>>,
    count: usize,
}

impl Ticket {
    async fn wait(mut self, deadline: Instant) -> Vec<Proposed> {
        match tokio::time::timeout_at(deadline, &mut self.answered).await {
            Ok(Ok(answers)) => return answers,
            Ok(Err(_dropped)) => {}
            Err(_elapsed) => self.answered.close(),
        }
        // The pump marks a command as taken before it looks whether anybody still waits for it.
        let otherwise = if self.taken.load(Ordering::SeqCst) {
            Proposed::Unknown("no quorum confirmed it in time".to_owned())
        } else {
            Proposed::Not(NotProposed::TimedOut)
        };
        self.answered.try_recv().unwrap_or_else(|_| vec![otherwise; self.count])
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
}

impl Pump {
    async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let places = if self.leader().1 { self.own.clone() } else { self.others.clone() };
            let Ok(place) = places.acquire_owned().await else { return };
            // Somebody else may lead by now.
            let (leader, leads) = self.leader();
            let (proposals, answers) = self.gather(first, leads);
            match leader {
                _ if proposals.is_empty() => {}
                Some(leader) if !leads => self.hand_over(leader, &Batch::join(proposals), answers, place),
                Some(_) => self.propose(Batch::join(proposals), answers, place).await,
                None => answer_all(answers, &Proposed::Not(NotProposed::NoLeader)),
            }
        }
    }

    /// Who leads, as far as this member knows, and whether it does itself.
    fn leader(&self) -> (Option<u64>, bool) {
        let leader = self.raft.metrics().borrow().current_leader;
        (leader, leader == Some(self.members.own().id))
    }

    /// The first command and all that wait behind it, as far as one entry goes.
    fn gather(&mut self, first: Waiting, leads: bool) -> (Vec<Proposal>, Vec<Answerer>) {
        let (mut proposals, mut answers, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        let mut next = Some(first);
        while let Some(Waiting { proposal, is_handed_over, taken, answer }) = next {
            taken.store(true, Ordering::SeqCst);
            if is_handed_over && !leads {
                answer.all(&Proposed::Not(NotProposed::NotLeader));
            } else if !answer.sender.is_closed() {
                commands += proposal.count();
                bytes += proposal.bytes();
                proposals.push(proposal);
                answers.push(answer);
            }
            let is_full = commands >= BATCH_COMMANDS || bytes >= BATCH_BYTES;
            next = if is_full { None } else { self.waiting.try_recv().ok() };
        }
        (proposals, answers)
    }

    async fn propose(&self, batch: Batch, answers: Vec<Answerer>, place: OwnedSemaphorePermit) {
        let written = match self.raft.client_write_ff(batch).await {
            Ok(written) => written,
            Err(error) => return answer_all(answers, &stopped(&error)),
        };
        let own = self.members.own().id;
        tokio::spawn(async move {
            let result = written.await;
            drop(place);
            let proposed = match result {
                Ok(Ok(response)) => {
                    let mut given = response.data.into_iter().map(Proposed::Answered);
                    answers.into_iter().for_each(|answer| answer.next(&mut given));
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

    fn hand_over(&self, leader: u64, batch: &Batch, answers: Vec<Answerer>, place: OwnedSemaphorePermit) {
        let unreachable = move |reason: String| Proposed::Not(NotProposed::LeaderUnreachable { leader, reason });
        let Some(member) = self.members.get(leader) else {
            return answer_all(answers, &unreachable("its address is not known here".to_owned()));
        };
        let link = self.channels.link(Lane::Handover, &member.address);
        let message = batch.encoded().to_vec();
        let count: usize = answers.iter().map(|answer| answer.count).sum();
        tokio::spawn(async move {
            let given = handed_over(&link, message).await;
            drop(place);
            match given {
                Ok(given) if given.len() == count => {
                    // A leader that has stopped says nothing about this member.
                    let mut given = given.into_iter().map(|given| match given {
                        Proposed::Stopped(reason) => Proposed::Unknown(reason),
                        given => given,
                    });
                    answers.into_iter().for_each(|answer| answer.next(&mut given));
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
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

async fn handed_over(link: &MemberLink, message: Vec<u8>) -> Result<Vec<Proposed>, Status> {
    let call = tokio::time::timeout(HANDOVER_TIMEOUT, link.call(method::PROPOSE, message));
    let answer = call.await.map_err(|_| Status::deadline_exceeded("it did not answer in time"))??;
    codec::decode(&answer).map_err(|error| Status::internal(error.to_string()))
}

fn answer_all(answers: Vec<Answerer>, proposed: &Proposed) {
    answers.into_iter().for_each(|answer| answer.all(proposed));
}

fn stopped(error: &dyn std::fmt::Display) -> Proposed {
    Proposed::Stopped(format!("this member has stopped: {error}"))
}
