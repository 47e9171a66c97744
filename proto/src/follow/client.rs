//! The following end.

use std::{io, time::Duration};

use prost::Message as _;
use ringfence_policy::{
    record::{Delta, Snapshot},
    revision::Revision,
    store::StoreId,
};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    assembly::Assembly,
    position::{Position, parse_store},
    views::{Interest, VIEW},
};
use crate::{
    connect::{Dialer, MAX_MESSAGE_BYTES},
    convert::InvalidMessage,
    link::Asking,
    status::describe,
    v1::{self, mesh_client::MeshClient},
};

/// Progress marks come every second; nothing at all for this long means that the server is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a follower learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowEvent {
    /// Replaces everything the follower has.
    Snapshot(Snapshot),
    /// The next revision.
    Delta(Delta),
    /// Nothing that the follower is interested in has changed up to this revision, which is included.
    Quiet {
        /// The follower has all of it.
        revision: Revision,
    },
    /// The follower has all that the server has.
    Progress {
        /// The server's head.
        revision: Revision,
        /// How long the server has not known itself in touch with a quorum of the store.
        staleness: Duration,
    },
}

/// Following ended; what was received stays valid, and another `connect` resumes from it.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The call failed.
    #[error("{}", describe(source))]
    Call {
        /// Why.
        #[from]
        source: Status,
    },
    /// It was asked for a view, and sends everything.
    #[error("the server does not serve views of nodes: it is of an older version")]
    NoViews,
    /// Not even a progress mark came.
    #[error("nothing came for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
    /// The server closed the stream.
    #[error("the server closed the stream")]
    Closed,
    /// The server sent something that has no meaning.
    #[error("the server sent an invalid message: {source}")]
    Invalid {
        /// What is wrong with it.
        #[from]
        source: InvalidMessage,
    },
    /// A revision is missing.
    #[error("the server sent revision {got} after {at}")]
    Gap {
        /// The newest revision received.
        at: Revision,
        /// What came instead of the next.
        got: Revision,
    },
    /// The server has less than the follower: revisions never go back, so it is the server that has to catch up.
    #[error("the server is at revision {got}, behind revision {at} that was received already")]
    Behind {
        /// The newest revision received.
        at: Revision,
        /// The server's.
        got: Revision,
    },
    /// Chunks of different snapshots were mixed, or a snapshot was interrupted.
    #[error("the server broke off the snapshot of revision {revision}")]
    BrokenSnapshot {
        /// The snapshot that is incomplete.
        revision: Revision,
    },
}

/// One stream from a server.
#[derive(Debug)]
pub struct Follower {
    stream: Source,
    at: Position,
    assembly: Assembly,
    /// It follows a view, in which revisions without interest are left out.
    skips: bool,
    /// Comes after a `Quiet`, and leads to this revision.
    next: Option<(Revision, FollowEvent)>,
}

/// Where events come from.
#[derive(Debug)]
enum Source {
    Call(Box<Streaming<v1::FollowEvent>>),
    Link(Box<Asking>),
}

impl Source {
    async fn message(&mut self) -> Result<Option<v1::FollowEvent>, Status> {
        let link = match self {
            Self::Call(stream) => return stream.message().await,
            Self::Link(link) => link,
        };
        let Some(bytes) = link.message().await? else { return Ok(None) };
        let event = v1::FollowEvent::decode(bytes);
        event.map(Some).map_err(|error| Status::internal(format!("an event without meaning: {error}")))
    }
}

impl Follower {
    /// Starts following from what the caller has. Where the server has another store, a snapshot of that one comes first.
    ///
    /// # Errors
    /// `FollowError::Call` or `Silent` if the server cannot be reached or refuses.
    pub async fn connect(channel: Channel, from: impl Into<Position>, name: String) -> Result<Self, FollowError> {
        Self::start(channel, from.into(), name, None).await
    }

    /// As `connect`, over a link, which costs the server half as much. A server that takes none (an older one) is followed
    /// over `channel`.
    ///
    /// # Errors
    /// As `connect`, but what the server refuses may come with the first event.
    pub async fn connect_over_link(
        dialer: &Dialer,
        address: &str,
        channel: Channel,
        from: impl Into<Position>,
        name: String,
    ) -> Result<Self, FollowError> {
        let at = from.into();
        let request = question(at, name.clone(), None);
        let connecting = tokio::time::timeout(SILENCE_TIMEOUT, Asking::connect(dialer, address, &request));
        match connecting.await.map_err(|_| FollowError::Silent)? {
            Ok(link) => {
                let stream = Source::Link(Box::new(link));
                Ok(Self { stream, at, assembly: Assembly::default(), skips: false, next: None })
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Self::start(channel, at, name, None).await,
            Err(error) => Err(Status::unavailable(format!("{address} cannot be reached: {error}")).into()),
        }
    }

    /// As `connect`, to follow what one node needs. `from` is a position in the same view.
    ///
    /// # Errors
    /// As `connect`, and `NoViews` from a server of an older version.
    pub async fn connect_to_view(
        channel: Channel,
        from: impl Into<Position>,
        name: String,
        interest: Interest,
    ) -> Result<Self, FollowError> {
        Self::start(channel, from.into(), name, Some(interest)).await
    }

    async fn start(
        channel: Channel,
        at: Position,
        name: String,
        interest: Option<Interest>,
    ) -> Result<Self, FollowError> {
        let mut client = MeshClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let view = interest.as_ref().map(Interest::named);
        let skips = view.is_some();
        let request = question(at, name, interest);
        let call = tokio::time::timeout(SILENCE_TIMEOUT, client.follow(request));
        let answer = call.await.map_err(|_| FollowError::Silent)??;
        let served = answer.metadata().get(VIEW).and_then(|view| view.to_str().ok());
        if view.as_deref() != served {
            return Err(FollowError::NoViews);
        }
        let stream = Source::Call(Box::new(answer.into_inner()));
        Ok(Self { stream, at, assembly: Assembly::default(), skips, next: None })
    }

    /// What the caller has with the last event: where to resume.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at
    }

    /// The store that is followed, as far as it is known.
    #[must_use]
    pub const fn store(&self) -> Option<StoreId> {
        self.at.store
    }

    /// The next event. A snapshot is given out only when it is complete.
    ///
    /// # Errors
    /// `FollowError`; the stream is of no more use then.
    pub async fn next(&mut self) -> Result<FollowEvent, FollowError> {
        if let Some((revision, event)) = self.next.take() {
            self.at.revision = revision;
            return Ok(event);
        }
        loop {
            let message = tokio::time::timeout(SILENCE_TIMEOUT, self.stream.message());
            let message = message.await.map_err(|_| FollowError::Silent)??.ok_or(FollowError::Closed)?;
            let event = message.event.ok_or(InvalidMessage::Missing { field: "FollowEvent.event" })?;
            if let Some(event) = self.take(event)? {
                return Ok(event);
            }
        }
    }

    fn take(&mut self, event: v1::follow_event::Event) -> Result<Option<FollowEvent>, FollowError> {
        use v1::follow_event::Event;
        if let (Some(revision), Event::Delta(_) | Event::Progress(_)) = (self.assembly.begun(), &event) {
            return Err(FollowError::BrokenSnapshot { revision });
        }
        match event {
            Event::Snapshot(chunk) => self.take_chunk(chunk),
            Event::Delta(delta) => {
                let after = if delta.after == 0 { delta.revision.saturating_sub(1) } else { delta.after };
                let delta = Delta::try_from(delta)?;
                let at = self.at.revision;
                let follows = Revision(after) <= at && at < delta.revision;
                if !follows || !self.skips && delta.revision != at.next() {
                    return Err(FollowError::Gap { at, got: delta.revision });
                }
                let before = Revision(delta.revision.0 - 1);
                Ok(Some(self.quiet_until(before, delta.revision, FollowEvent::Delta(delta))))
            }
            Event::Progress(progress) => {
                let (at, revision) = (self.at.revision, Revision(progress.revision));
                if revision < at || !self.skips && revision != at {
                    return Err(FollowError::Gap { at, got: revision });
                }
                let staleness = Duration::from_millis(progress.staleness_ms);
                Ok(Some(self.quiet_until(revision, revision, FollowEvent::Progress { revision, staleness })))
            }
            // Decoding never gives it.
            Event::Encoded(_) => Err(InvalidMessage::Missing { field: "FollowEvent.event" }.into()),
        }
    }

    /// Moves to a revision with an event before which nothing of interest changed.
    fn quiet_until(&mut self, quiet: Revision, revision: Revision, event: FollowEvent) -> FollowEvent {
        let skips = quiet > self.at.revision;
        if !skips {
            self.at.revision = revision;
            return event;
        }
        self.at.revision = quiet;
        self.next = Some((revision, event));
        FollowEvent::Quiet { revision: quiet }
    }

    fn take_chunk(&mut self, chunk: v1::SnapshotChunk) -> Result<Option<FollowEvent>, FollowError> {
        let revision = Revision(chunk.revision);
        if revision < self.at.revision {
            return Err(FollowError::Behind { at: self.at.revision, got: revision });
        }
        let field = "SnapshotChunk.store_id";
        let store = parse_store(&chunk.store_id).map_err(|source| InvalidMessage::Store { field, source })?;
        let Some(snapshot) = self.assembly.take(chunk)? else { return Ok(None) };
        self.at = Position { store, revision: snapshot.revision };
        Ok(Some(FollowEvent::Snapshot(snapshot)))
    }
}

fn question(at: Position, name: String, interest: Option<Interest>) -> v1::FollowRequest {
    v1::FollowRequest {
        from_revision: at.revision.0,
        follower: name,
        interests: interest.map(Into::into),
        store_id: at.store.map(|store| store.to_string()).unwrap_or_default(),
    }
}
