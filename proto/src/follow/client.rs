//! The following end.

use std::time::Duration;

use ringfence_policy::{
    record::{Delta, Snapshot},
    revision::Revision,
};
use tonic::{Status, Streaming, transport::Channel};

use super::{assembly::Assembly, views::Interest};
use crate::{
    connect::MAX_MESSAGE_BYTES,
    convert::InvalidMessage,
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
    stream: Streaming<v1::FollowEvent>,
    at: Revision,
    assembly: Assembly,
    /// It follows a view, in which revisions without interest are left out.
    skips: bool,
    /// Comes after a `Quiet`.
    next: Option<FollowEvent>,
}

impl Follower {
    /// Starts following from the newest revision that the caller has; 0 for none.
    ///
    /// # Errors
    /// `FollowError::Call` or `Silent` if the server cannot be reached or refuses.
    pub async fn connect(channel: Channel, from: Revision, name: String) -> Result<Self, FollowError> {
        Self::start(channel, v1::FollowRequest { from_revision: from.0, follower: name, interests: None }).await
    }

    /// As `connect`, to follow what one node needs. `from` is a revision of the same view.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_to_view(
        channel: Channel,
        from: Revision,
        name: String,
        interest: Interest,
    ) -> Result<Self, FollowError> {
        let interests = Some(interest.into());
        Self::start(channel, v1::FollowRequest { from_revision: from.0, follower: name, interests }).await
    }

    async fn start(channel: Channel, request: v1::FollowRequest) -> Result<Self, FollowError> {
        let mut client = MeshClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (at, skips) = (Revision(request.from_revision), request.interests.is_some());
        let call = tokio::time::timeout(SILENCE_TIMEOUT, client.follow(request));
        let stream = call.await.map_err(|_| FollowError::Silent)??.into_inner();
        Ok(Self { stream, at, assembly: Assembly::default(), skips, next: None })
    }

    /// The next event. A snapshot is given out only when it is complete.
    ///
    /// # Errors
    /// `FollowError`; the stream is of no more use then.
    pub async fn next(&mut self) -> Result<FollowEvent, FollowError> {
        if let Some(event) = self.next.take() {
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
                let follows = Revision(after) <= self.at && self.at < delta.revision;
                if !follows || !self.skips && delta.revision != self.at.next() {
                    return Err(FollowError::Gap { at: self.at, got: delta.revision });
                }
                let before = Revision(delta.revision.0 - 1);
                Ok(Some(self.quiet_until(before, delta.revision, FollowEvent::Delta(delta))))
            }
            Event::Progress(progress) => {
                let revision = Revision(progress.revision);
                if revision < self.at || !self.skips && revision != self.at {
                    return Err(FollowError::Gap { at: self.at, got: revision });
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
        let skips = quiet > self.at;
        self.at = revision;
        if !skips {
            return event;
        }
        self.next = Some(event);
        FollowEvent::Quiet { revision: quiet }
    }

    fn take_chunk(&mut self, chunk: v1::SnapshotChunk) -> Result<Option<FollowEvent>, FollowError> {
        let revision = Revision(chunk.revision);
        if revision < self.at {
            return Err(FollowError::Behind { at: self.at, got: revision });
        }
        let Some(snapshot) = self.assembly.take(chunk)? else { return Ok(None) };
        self.at = snapshot.revision;
        Ok(Some(FollowEvent::Snapshot(snapshot)))
    }
}
