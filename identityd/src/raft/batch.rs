//! What one log entry carries: the commands that waited together.
//!
//! ```text
//! commands ─ encode, once ─► Batch ─► write-ahead log, other members: the bytes as they are
//!                              └────► applier: the commands, decoded only where nobody has them yet
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use ringfence_policy::command::Command;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::codec::{self, CodecError};

/// Some commands, encoded. Clones share the bytes.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    encoded: Vec<u8>,
    /// Gone once they were taken: the log keeps the bytes only.
    commands: Mutex<Option<Vec<Command>>>,
}

impl Batch {
    /// Of at least one command.
    #[must_use]
    pub fn new(commands: Vec<Command>) -> Self {
        let mut encoded = codec::encode(&commands);
        // The log keeps it for a while.
        encoded.shrink_to_fit();
        Self(Arc::new(Inner { encoded, commands: Mutex::new(Some(commands)) }))
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
        Self::new(vec![command])
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
        let batch = Batch::new(commands.clone());
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
