//! What one log entry carries: the commands that waited together.
//!
//! ```text
//! command ─ encode, once ─► Proposal ┐
//! handed over, as it came ► Proposal ┴ join ─► Batch ─► write-ahead log, other members: the bytes as they are
//!                                                └────► applier: the commands, decoded only where nobody has them yet
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use ringfence_policy::command::Command;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::codec::{self, CodecError};

/// Commands that go into one entry, with their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    commands: Vec<Command>,
    /// The commands one after the other, without what comes before them in a batch.
    body: Vec<u8>,
}

impl Proposal {
    /// Of one command.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let mut body = codec::encode(&command);
        // The format is that of the batch.
        body.remove(0);
        Self { commands: vec![command], body }
    }

    /// Of a batch's bytes, as another member sent them.
    ///
    /// # Errors
    /// `CodecError` for bytes that this version does not understand.
    pub fn decode(batch: &[u8]) -> Result<Self, CodecError> {
        let commands: Vec<Command> = codec::decode(batch)?;
        let before = codec::encode(&commands.len()).len();
        Ok(Self { commands, body: batch[before..].to_vec() })
    }

    /// How many commands there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.commands.len()
    }

    /// Their bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Some commands, encoded. Clones share the bytes.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    encoded: Vec<u8>,
    /// Gone once they were taken: the log keeps the bytes only.
    commands: Mutex<Option<Vec<Command>>>,
}

impl Batch {
    /// Of at least one proposal.
    #[must_use]
    pub fn join(proposals: Vec<Proposal>) -> Self {
        // A list in the log's format: how many there are, and one after the other.
        let count: usize = proposals.iter().map(Proposal::count).sum();
        let mut encoded = codec::encode(&count);
        encoded.reserve_exact(proposals.iter().map(Proposal::bytes).sum());
        let mut commands = Vec::with_capacity(count);
        for proposal in proposals {
            encoded.extend_from_slice(&proposal.body);
            commands.extend(proposal.commands);
        }
        Self(Arc::new(Inner { encoded, commands: Mutex::new(Some(commands)) }))
    }

    /// The bytes, for another member's `Proposal::decode`.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0.encoded
    }

    /// Length of the bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.0.encoded.len()
    }

    /// Decodes the commands and keeps them for `take`.
    ///
    /// # Errors
    /// `CodecError` for bytes that this version does not understand.
    pub fn check(&self) -> Result<(), CodecError> {
        let mut commands = self.0.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.is_none() {
            *commands = Some(codec::decode(&self.0.encoded)?);
        }
        Ok(())
    }

    /// The commands.
    ///
    /// # Errors
    /// `CodecError` for bytes that this version does not understand.
    pub fn take(&self) -> Result<Vec<Command>, CodecError> {
        let known = self.0.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        known.map_or_else(|| codec::decode(&self.0.encoded), Ok)
    }
}

impl From<Command> for Batch {
    fn from(command: Command) -> Self {
        Self::join(vec![Proposal::new(command)])
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.encoded_len())
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.0.encoded == other.0.encoded
    }
}

impl Eq for Batch {}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.encoded)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a batch")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        let encoded = deserializer.deserialize_bytes(Bytes)?;
        Ok(Self(Arc::new(Inner { encoded, commands: Mutex::new(None) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{name::Name, record::RecordKey};

    #[test]
    fn a_batch_travels_as_its_bytes_and_gives_its_commands_back() {
        let commands: Vec<_> =
            ["east", "west"].map(|name| Command::Delete(RecordKey::Cluster(Name::new(name).unwrap()))).into();
        let batch = Batch::join(commands.iter().cloned().map(Proposal::new).collect());
        assert_eq!(batch.encoded(), codec::encode(&commands), "as a list is encoded");
        let handed_over = Proposal::decode(batch.encoded()).unwrap();
        assert_eq!(handed_over.count(), 2);
        assert_eq!(Batch::join(vec![handed_over]), batch);
        let received: Batch = codec::decode(&codec::encode(&batch)).unwrap();
        assert_eq!(received, batch);
        received.check().unwrap();
        for batch in [&batch, &received, &received] {
            assert_eq!(batch.take().unwrap(), commands, "also when they were taken before");
        }
    }

    #[test]
    fn bytes_that_are_no_commands_are_found_before_they_are_applied() {
        let garbage: Batch = codec::decode(&codec::encode(&Batch(Arc::new(Inner {
            encoded: vec![codec::FORMAT_VERSION + 1, 7],
            commands: Mutex::new(None),
        }))))
        .unwrap();
        assert!(matches!(garbage.check(), Err(CodecError::NewerFormat { .. })));
    }
}
