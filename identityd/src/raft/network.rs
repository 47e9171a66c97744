//! Raft's messages to other members.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    OptionalSend,
    error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use ringfence_proto::{
    connect::{Dialer, InvalidAddress, MAX_MESSAGE_BYTES},
    v1::{self, raft_client::RaftClient},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Channel};

use super::{MemberNode, TypeConfig, Vote, durable::Durable};
use crate::{codec, founding::Fellowship, freshness::Freshness};

/// Raft's messages carry entries of the size of a client's message, and a little around them.
pub const MAX_RAFT_MESSAGE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// How long a member that did not answer is left alone.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);
/// Parts of a snapshot that wait for the network.
const PARTS_AHEAD: usize = 4;

type RpcError = RPCError<u64, MemberNode, RaftError<u64>>;

/// What a connection is for: one kind of traffic must not wait behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Log entries, heartbeats and votes.
    Raft,
    /// Snapshots.
    Snapshot,
    /// Pings, and what changes members.
    Call,
    /// Commands and reads handed to the leader.
    Handover,
}

/// Connections to other members, one for each lane, made when first used and again when broken.
#[derive(Debug, Clone)]
pub struct Channels {
    dialer: Dialer,
    fellowship: Fellowship,
    cached: Arc<Mutex<HashMap<(Lane, String), Channel>>>,
}

impl Channels {
    /// No connection yet.
    #[must_use]
    pub fn new(dialer: Dialer, fellowship: Fellowship) -> Self {
        Self { dialer, fellowship, cached: Arc::default() }
    }

    /// A request that says which store this member is of.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.fellowship.request(message)
    }

    /// The connection to an address. Does not dial: openraft asks for it inside its core task.
    ///
    /// # Errors
    /// `InvalidAddress`.
    pub fn get(&self, lane: Lane, address: &str) -> Result<Channel, InvalidAddress> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lane, address.to_owned());
        if let Some(channel) = cached.get(&key) {
            return Ok(channel.clone());
        }
        let channel = self.dialer.channel(address)?;
        cached.insert(key, channel.clone());
        Ok(channel)
    }
}

/// Makes a `Connection` for every peer that openraft asks for.
#[derive(Clone)]
pub struct Network {
    channels: Channels,
    freshness: Arc<std::sync::OnceLock<Arc<Freshness>>>,
    durable: Durable,
}

/// Raft's messages to one member.
pub struct Connection {
    address: String,
    channels: Channels,
    freshness: Arc<std::sync::OnceLock<Arc<Freshness>>>,
    durable: Durable,
}

impl Network {
    /// Over shared connections. `freshness` is set once Raft runs; `durable` is the own log's.
    #[must_use]
    pub const fn new(
        channels: Channels,
        freshness: Arc<std::sync::OnceLock<Arc<Freshness>>>,
        durable: Durable,
    ) -> Self {
        Self { channels, freshness, durable }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, _target: u64, node: &MemberNode) -> Connection {
        let (channels, freshness) = (self.channels.clone(), self.freshness.clone());
        Connection { address: node.address.clone(), channels, freshness, durable: self.durable.clone() }
    }
}

impl Connection {
    fn message(&self, payload: Vec<u8>, option: &RPCOption) -> Request<v1::RaftMessage> {
        let mut request = self.channels.request(v1::RaftMessage { payload });
        request.set_timeout(option.hard_ttl());
        request
    }

    fn client(&self, lane: Lane) -> Result<RaftClient<Channel>, Unreachable> {
        let channel = self.channels.get(lane, &self.address).map_err(|error| Unreachable::new(&error))?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_RAFT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_RAFT_MESSAGE_BYTES))
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        // A follower applies what it is told to be committed: this member itself must have it by then. A leader whose
        // disk hangs falls silent here, and the others elect another one.
        if let Some(committed) = rpc.leader_commit {
            self.durable.wait_for(committed).await;
        }
        let staleness = self.freshness.get().map(|freshness| freshness.staleness()).unwrap_or_default();
        let request = self.message(codec::encode(&(staleness, rpc)), &option);
        answer(self.client(Lane::Raft)?.append_entries(request).await)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        let request = self.message(codec::encode(&rpc), &option);
        answer(self.client(Lane::Raft)?.vote(request).await)
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
        let mut request = self.channels.request(ReceiverStream::new(receiver));
        request.set_timeout(option.hard_ttl());
        let mut client = self.client(Lane::Snapshot)?;
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

fn answer<T: DeserializeOwned>(response: Result<Response<v1::RaftMessage>, Status>) -> Result<T, RpcError> {
    let message = response.map_err(|status| RPCError::Unreachable(Unreachable::new(&status)))?.into_inner();
    codec::decode(&message.payload).map_err(|error| RPCError::Network(NetworkError::new(&error)))
}
