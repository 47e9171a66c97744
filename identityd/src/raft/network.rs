//! Raft's messages to other members.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use openraft::{
    OptionalSend,
    error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use prost::bytes::Bytes;
use ringfence_proto::{
    connect::{Dialer, InvalidAddress, MAX_MESSAGE_BYTES},
    link::{Link, method},
    v1::{self, raft_client::RaftClient},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, transport::Channel};

use super::{LogId, MemberNode, TypeConfig, Vote, durable::Durable, log::Log};
use crate::{codec, founding::Fellowship, freshness::Freshness};

/// Raft's messages carry entries of the size of a client's message, and a little around them.
pub const MAX_RAFT_MESSAGE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// How long a member that did not answer is left alone.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);
/// Parts of a snapshot that wait for the network.
const PARTS_AHEAD: usize = 4;
/// How long a follower is not told of a commit, if it can be told with the next entries.
const COMMIT_DELAY: Duration = Duration::from_millis(1);

type RpcError = RPCError<u64, MemberNode, RaftError<u64>>;

/// What a connection is for: one kind of traffic must not wait behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Log entries, heartbeats and votes.
    Raft,
    /// Pings.
    Ping,
    /// Commands and reads handed to the leader.
    Handover,
}

/// Connections to other members, made when first used and again when broken: links for what is said often, one for each
/// lane, gRPC for the rest.
#[derive(Debug, Clone)]
pub struct Channels {
    dialer: Dialer,
    fellowship: Fellowship,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
    links: Arc<Mutex<HashMap<(Lane, String), Link>>>,
}

impl Channels {
    /// No connection yet.
    #[must_use]
    pub fn new(dialer: Dialer, fellowship: Fellowship) -> Self {
        Self { dialer, fellowship, channels: Arc::default(), links: Arc::default() }
    }

    /// A request over gRPC that says which store this member is of.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.fellowship.request(message)
    }

    /// The gRPC connection to an address: for snapshots, and for what changes members. Does not dial: openraft asks for it
    /// inside its core task.
    ///
    /// # Errors
    /// `InvalidAddress`.
    pub fn get(&self, address: &str) -> Result<Channel, InvalidAddress> {
        let mut cached = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = cached.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.channel(address)?;
        cached.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The link of a lane to an address. Does not dial.
    #[must_use]
    pub fn link(&self, lane: Lane, address: &str) -> MemberLink {
        let mut cached = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Link::new(self.dialer.clone(), address, MAX_RAFT_MESSAGE_BYTES);
        let link = cached.entry((lane, address.to_owned())).or_insert_with(made).clone();
        MemberLink { link, fellowship: self.fellowship.clone() }
    }
}

/// A link to another member.
#[derive(Debug, Clone)]
pub struct MemberLink {
    link: Link,
    fellowship: Fellowship,
}

impl MemberLink {
    /// As `Link::call`; says which store this member is of, every time: a link may be older than the store's founding.
    ///
    /// # Errors
    /// As `Link::call`; `failed_precondition` from a member that does not belong to this one's store.
    pub async fn call(&self, method: u8, payload: Vec<u8>) -> Result<Bytes, Status> {
        self.link.call(method, self.fellowship.seal(&payload)).await
    }
}

/// Makes a `Connection` for every peer that openraft asks for.
#[derive(Clone)]
pub struct Network {
    channels: Channels,
    freshness: Arc<std::sync::OnceLock<Arc<Freshness>>>,
    durable: Durable,
    newest: watch::Receiver<u64>,
}

/// Raft's messages to one member.
pub struct Connection {
    address: String,
    link: MemberLink,
    network: Network,
    /// What was last told to be committed; none while the member does not answer.
    told: Option<LogId>,
    pace: Pace,
}

/// Whether entries follow commits within `COMMIT_DELAY`, as far as the last ones tell.
#[derive(Debug, Default)]
struct Pace {
    /// When a commit was last told in a message of its own; none where entries come quickly.
    alone: Option<Instant>,
}

impl Pace {
    const fn is_quick(&self) -> bool {
        self.alone.is_none()
    }

    const fn told_alone(&mut self, now: Instant) {
        self.alone = Some(now);
    }

    fn entries(&mut self, now: Instant) {
        self.alone = self.alone.filter(|told| now.duration_since(*told) >= COMMIT_DELAY);
    }
}

impl Network {
    /// Over shared connections. `freshness` is set once Raft runs; `log` is this member's own.
    #[must_use]
    pub fn new(channels: Channels, freshness: Arc<std::sync::OnceLock<Arc<Freshness>>>, log: &Log) -> Self {
        Self { channels, freshness, durable: log.durable(), newest: log.newest() }
    }

    /// Whether the log gets an entry behind `last` within a moment, or has it.
    async fn has_more_soon(&self, last: LogId) -> bool {
        let mut newest = self.newest.clone();
        let grown = newest.wait_for(|newest| *newest > last.index);
        tokio::time::timeout(COMMIT_DELAY, grown).await.is_ok_and(|grown| grown.is_ok())
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, _target: u64, node: &MemberNode) -> Connection {
        let link = self.channels.link(Lane::Raft, &node.address);
        Connection { address: node.address.clone(), link, network: self.clone(), told: None, pace: Pace::default() }
    }
}

impl Connection {
    async fn call<T: DeserializeOwned>(&self, method: u8, request: &(impl Serialize + Sync)) -> Result<T, RpcError> {
        let answer = self.link.call(method, codec::encode(request)).await;
        let answer = answer.map_err(|status| RPCError::Unreachable(Unreachable::new(&status)))?;
        codec::decode(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    /// openraft tells of every commit at once, in a message of its own, and sends the next entries when that is answered.
    /// Where entries follow anyway they carry it: a message less for each of them, and the follower applies while its disk
    /// syncs. For openraft the message that was not sent has succeeded; it learns from it only that a quorum was in touch a
    /// moment ago, which the commit itself says. Other messages without entries (heartbeats, and a reader's question, for
    /// which openraft makes a new connection) tell nothing new, and are sent.
    /// Where the last wait was in vain, the next one would be: nobody waits until entries come as quickly again.
    async fn is_told_with_the_next_entries(&mut self, rpc: &AppendEntriesRequest<TypeConfig>) -> bool {
        let (Some(told), Some(last)) = (self.told, rpc.prev_log_id) else { return false };
        if !rpc.entries.is_empty() {
            self.pace.entries(Instant::now());
            return false;
        }
        if rpc.leader_commit <= Some(told) {
            return false;
        }
        let more = self.pace.is_quick() && self.network.has_more_soon(last).await;
        if !more {
            self.pace.told_alone(Instant::now());
        }
        more
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        if self.is_told_with_the_next_entries(&rpc).await {
            return Ok(AppendEntriesResponse::Success);
        }
        // Whoever gives this call up, or an error, leaves it so.
        self.told = None;
        // A follower applies what it is told to be committed: this member itself must have it by then. A leader whose
        // disk hangs falls silent here, and the others elect another one.
        let committed = rpc.leader_commit;
        if let Some(committed) = committed {
            self.network.durable.wait_for(committed).await;
        }
        let freshness = self.network.freshness.get();
        let staleness = freshness.map(|freshness| freshness.staleness()).unwrap_or_default();
        let answer: AppendEntriesResponse<u64> = self.call(method::APPEND, &(staleness, rpc)).await?;
        if answer.is_success() {
            self.told = committed;
        }
        Ok(answer)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        self.call(method::VOTE, &rpc).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        let head = codec::encode(&(vote, snapshot.meta));
        let mut file = snapshot.snapshot;
        tokio::task::spawn_blocking(move || {
            let mut next = Some(v1::SnapshotPart { head, data: Vec::new() });
            while let Some(part) = next.take() {
                if sender.blocking_send(part).is_err() {
                    return;
                }
                match file.next_part() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => next = Some(v1::SnapshotPart { head: Vec::new(), data }),
                    // The receiver sees a snapshot without its end and refuses it.
                    Err(error) => tracing::warn!(%error, "cannot read the snapshot that is being sent"),
                }
            }
        });
        let mut request = self.network.channels.request(ReceiverStream::new(receiver));
        request.set_timeout(option.hard_ttl());
        let channel = self.network.channels.get(&self.address).map_err(|error| Unreachable::new(&error))?;
        let mut client = RaftClient::new(channel)
            .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES);
        tokio::select! {
            response = client.install_snapshot(request) => {
                let message = response.map_err(|status| Unreachable::new(&status))?.into_inner();
                Ok(SnapshotResponse { vote: codec::decode(&message.payload).map_err(|error| NetworkError::new(&error))? })
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_entries_only_where_they_come_quickly() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert!(pace.is_quick(), "until the first one was waited for in vain");
        pace.told_alone(start);
        pace.entries(start + Duration::from_millis(5));
        assert!(!pace.is_quick(), "200 puts a second");
        pace.told_alone(start + Duration::from_millis(6));
        pace.entries(start + Duration::from_micros(6_400));
        assert!(pace.is_quick(), "one that writes again when it is answered");
    }
}
