//! `FollowEvent` by hand: as in `mesh.proto`, and able to carry bytes that are encoded already.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType},
};

use follow_event::Event;

/// `ringfence.v1.FollowEvent`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FollowEvent {
    /// What happened.
    pub event: Option<Event>,
}

/// What belongs to `FollowEvent`.
pub mod follow_event {
    use prost::bytes::Bytes;

    use crate::v1;

    /// `ringfence.v1.FollowEvent.event`
    #[derive(Debug, Clone, PartialEq)]
    pub enum Event {
        /// A part of the whole state.
        Snapshot(v1::SnapshotChunk),
        /// One revision.
        Delta(v1::Delta),
        /// Nothing is missing.
        Progress(v1::Progress),
        /// A whole `FollowEvent`, encoded; on the sending side only. Clones share the bytes.
        Encoded(Bytes),
    }
}

/// The message as prost derives it.
#[derive(Clone, PartialEq, Message)]
struct Plain {
    #[prost(oneof = "PlainEvent", tags = "1, 2, 3")]
    event: Option<PlainEvent>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PlainEvent {
    #[prost(message, tag = "1")]
    Snapshot(crate::v1::SnapshotChunk),
    #[prost(message, tag = "2")]
    Delta(crate::v1::Delta),
    #[prost(message, tag = "3")]
    Progress(crate::v1::Progress),
}

impl From<Event> for FollowEvent {
    fn from(event: Event) -> Self {
        Self { event: Some(event) }
    }
}

impl PlainEvent {
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Snapshot(chunk) => Some(Self::Snapshot(chunk)),
            Event::Delta(delta) => Some(Self::Delta(delta)),
            Event::Progress(progress) => Some(Self::Progress(progress)),
            Event::Encoded(_) => None,
        }
    }
}

impl From<PlainEvent> for Event {
    fn from(event: PlainEvent) -> Self {
        match event {
            PlainEvent::Snapshot(chunk) => Self::Snapshot(chunk),
            PlainEvent::Delta(delta) => Self::Delta(delta),
            PlainEvent::Progress(progress) => Self::Progress(progress),
        }
    }
}

impl FollowEvent {
    fn plain(&self) -> Plain {
        Plain { event: self.event.clone().and_then(PlainEvent::of) }
    }
}

impl Message for FollowEvent {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        match &self.event {
            Some(Event::Encoded(bytes)) => buffer.put_slice(bytes),
            _ => self.plain().encode_raw(buffer),
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut plain = Plain { event: self.event.take().and_then(PlainEvent::of) };
        plain.merge_field(tag, wire_type, buffer, context)?;
        self.event = plain.event.map(Event::from);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        match &self.event {
            Some(Event::Encoded(bytes)) => bytes.len(),
            _ => self.plain().encoded_len(),
        }
    }

    fn clear(&mut self) {
        self.event = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn encoded_bytes_pass_through_as_they_are() {
        let delta = v1::Delta { revision: 7, changes: vec![v1::Change::default(); 3], ..Default::default() };
        let chunk = v1::SnapshotChunk {
            revision: 9,
            records: vec![v1::Versioned::default()],
            last: true,
            ..Default::default()
        };
        let progress = v1::Progress { revision: 9, staleness_ms: 3 };
        for event in [Event::Delta(delta), Event::Snapshot(chunk), Event::Progress(progress)] {
            let plain = FollowEvent::from(event);
            let encoded = FollowEvent::from(Event::Encoded(plain.encode_to_vec().into()));
            assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
            assert_eq!(FollowEvent::decode(encoded.encode_to_vec().as_slice()).unwrap(), plain);
        }
        assert_eq!(FollowEvent::decode([].as_slice()).unwrap(), FollowEvent::default());
    }
}
