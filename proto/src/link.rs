//! One TLS connection that carries many calls: what is on the hot path of a write, without HTTP/2.
//!
//! ```text
//! Link::call ─► frames ─► TLS (ALPN `ringfence-link/1`, same port as gRPC) ─► serve ─► Handler, one task for each call
//!      ▲ answers by number, in any order, several in one write ◄─────────────────────────┘
//!
//! frame = length u32 LE (of what follows) · number u32 LE · kind u8 · payload
//! ```
//!
//! A link begins with `HELLO`: what the caller understands (`version::Introduction`). Who calls is what its certificate
//! says, looked at once for the whole connection. Calls are numbered by the caller; a failure is a gRPC code with words,
//! so that callers need not know which way a call took. A call that its caller gave up is answered all the same.
//!
//! Followers have connections of the same frames, but of their own (`follow`).

mod client;
mod follow;
mod frame;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tonic::{Code, Status};

pub use client::Link;
pub use follow::{Asked, Asking};
pub use server::{Handler, Limits, serve};

/// What both sides say they speak (ALPN, RFC 7301).
pub const PROTOCOL: &[u8] = b"ringfence-link/1";

/// What both sides say who follow and are followed, on a connection of its own.
pub const FOLLOW_PROTOCOL: &[u8] = b"ringfence-follow/1";

/// What can be asked of a member of the store.
pub mod method {
    /// A write: `v1::CommandCall`, answered with `v1::Committed`.
    pub const COMMAND: u8 = 16;
    /// `v1::FollowRequest`, answered with events; on a connection of its own.
    pub const FOLLOW: u8 = 17;
    /// Raft's entries and heartbeats, in the store's own format as are the next three. Members only, as all that follow.
    pub const APPEND: u8 = 32;
    /// Raft's vote.
    pub const VOTE: u8 = 33;
    /// Commands that wait at another member, for the leader's log; answered with what became of each.
    pub const PROPOSE: u8 = 34;
    /// How far a member must have applied the log before it may answer linearizable reads; asked of the leader.
    pub const READ_INDEX: u8 = 35;
    /// `v1::PingRequest`, answered at once with `v1::PingResponse`; the quorum guard counts the answers.
    pub const MEMBER_PING: u8 = 36;
}

/// The first call of a link: an introduction as text.
const HELLO: u8 = 0;
/// Answered at once by the link itself: the other side is alive.
const PING: u8 = 1;
/// An answer.
const ANSWER: u8 = 0x80;
/// A failure.
const FAILURE: u8 = 0x81;
/// One of many answers: `v1::FollowEvent`.
const EVENT: u8 = 0x82;

/// A call did not come to an answer of the other side.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The call was not sent: nothing was done.
    #[error("{address} cannot be reached: {reason}")]
    NotReached {
        /// Where.
        address: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// The connection broke behind the call: it may have been done.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// Where.
        address: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
}

impl LinkError {
    /// As gRPC's transport says it: `unavailable`, with this as its cause.
    fn status(self) -> Status {
        let mut status = Status::unavailable(self.to_string());
        status.set_source(Arc::new(self));
        status
    }

    /// Whether a status says that the call was never sent.
    #[must_use]
    pub fn is_not_reached(status: &Status) -> bool {
        let source = std::error::Error::source(status).and_then(|source| source.downcast_ref());
        matches!(source, Some(Self::NotReached { .. }))
    }
}

/// A failure as it travels: code, length of the details (u16 LE), details, message.
fn encode_failure(status: &Status) -> Vec<u8> {
    let details = status.details();
    // Ours are a word; longer ones are left out.
    let (length, details) = u16::try_from(details.len()).map_or((0, &[][..]), |length| (length, details));
    let code = u8::try_from(i32::from(status.code())).unwrap_or_default();
    [&[code], &length.to_le_bytes()[..], details, status.message().as_bytes()].concat()
}

fn decode_failure(payload: &[u8]) -> Status {
    let parts = || {
        let (code, rest) = payload.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (details, message) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        Some((Code::from_i32((*code).into()), details.to_vec(), String::from_utf8_lossy(message)))
    };
    match parts() {
        Some((code, details, message)) => Status::with_details(code, message, details.into()),
        None => Status::internal("the other side failed, and did not say how"),
    }
}
