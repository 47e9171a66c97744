//! Which store a revision belongs to: revisions of different stores say nothing about each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::revision::Revision;

/// Revisions that a store makes in a second at most, on average over its life, so that one that is restored later begins
/// above it.
const REVISIONS_PER_SECOND: u64 = 1 << 14;

/// The name of one store from its founding or its restoration on: a UUID of version 7 (RFC 9562, 5.7), so it tells when it
/// was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId([u8; 16]);

/// A text is no store id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no id of a store: write a UUID of version 7, for example {}", StoreId::new(1_795_000_000_000, [7; 10]))]
pub struct InvalidStoreId {
    /// The text as given.
    pub text: String,
}

impl StoreId {
    /// Made at a time in milliseconds since 1970; `random` tells it apart from all others, 74 of its bits are used.
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        Self(bytes)
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    /// Where the revisions of a store begin that is restored under this id. A store that was restored from the same backup
    /// before has not got this far, so whoever followed it sees revisions go on.
    #[must_use]
    pub fn first_revision(self) -> Revision {
        Revision(self.unix_ms() / 1000 * REVISIONS_PER_SECOND)
    }
}

impl FromStr for StoreId {
    type Err = InvalidStoreId;

    fn from_str(text: &str) -> Result<Self, InvalidStoreId> {
        let invalid = || InvalidStoreId { text: text.to_owned() };
        let lengths = text.split('-').map(str::len);
        let is_hex = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        if !is_hex || !lengths.eq([8, 4, 4, 4, 12]) {
            return Err(invalid());
        }
        let number = u128::from_str_radix(&text.replace('-', ""), 16).map_err(|_| invalid())?;
        let id = Self(number.to_be_bytes());
        if id.0[6] >> 4 == 7 && id.0[8] >> 6 == 2 { Ok(id) } else { Err(invalid()) }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let part = |shift: u32, digits: u32| number >> shift & ((1 << (4 * digits)) - 1);
        let (time, low) = (part(96, 8), part(80, 4));
        write!(f, "{time:08x}-{low:04x}-{:04x}-{:04x}-{:012x}", part(64, 4), part(48, 4), part(0, 12))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_tell_their_time() {
        // The example of RFC 9562, A.6: 2022-02-22 19:22:22 UTC.
        let id: StoreId = "017F22E2-79B0-7CC3-98C4-DC0C0C07398F".parse().unwrap();
        assert_eq!(id.unix_ms(), 1_645_557_742_000);
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        let made = StoreId::new(1_645_557_742_000, [0xff; 10]);
        assert_eq!(made.to_string(), "017f22e2-79b0-7fff-bfff-ffffffffffff");
        assert_eq!(made.to_string().parse(), Ok(made));
    }

    #[test]
    fn what_is_no_id_is_refused_with_one_that_is() {
        for text in ["", "017f22e2", "017f22e279b07cc398c4dc0c0c07398f", "017f22e2-79b0-4cc3-98c4-dc0c0c07398f"] {
            let error = text.parse::<StoreId>().unwrap_err().to_string();
            let example = error.rsplit(' ').next().unwrap();
            assert!(example.parse::<StoreId>().is_ok(), "{error}");
        }
        for text in ["017f22e2-79b0-7cc3-c8c4-dc0c0c07398f", "+17f22e2-79b0-7cc3-98c4-dc0c0c07398f"] {
            assert!(text.parse::<StoreId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_store_that_is_restored_later_begins_above_one_that_was_restored_before() {
        let (before, after) = (StoreId::new(1_795_000_000_000, [1; 10]), StoreId::new(1_795_000_060_000, [0; 10]));
        assert_eq!(after.first_revision().0 - before.first_revision().0, 60 * REVISIONS_PER_SECOND);
        // What JSON's numbers and metrics hold exactly.
        assert!(StoreId::new(7_258_118_400_000, [0; 10]).first_revision().0 < 1 << 53, "until 2200");
    }
}
