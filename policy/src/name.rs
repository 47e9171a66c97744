//! Names of clusters, nodes, endpoints, namespaces and policies.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::text::{self, Text};

/// A DNS-1123 subdomain: 1–253 characters of `a-z 0-9 - .`, alphanumeric at both ends.
///
/// What Kubernetes accepts as an object's name; clusters and nodes follow the same rule. A copy costs next to nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(Text);

/// A text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a valid name: use 1 to {} characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit",
    Name::MAX_BYTES
)]
pub struct InvalidName {
    /// The text as given, cut to a readable length.
    pub text: String,
}

impl Name {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 253;

    /// Checks a text.
    ///
    /// # Errors
    /// `InvalidName` if it breaks DNS-1123.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.');
        if inside && text.len() <= Self::MAX_BYTES && edge(text.bytes().next()) && edge(text.bytes().next_back()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName { text: text.chars().take(64).collect() })
        }
    }

    /// The name that no other comes before.
    #[must_use]
    pub fn first() -> Self {
        Self("0".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize_str(deserializer, |text| Self::new(text).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_1123() {
        for good in ["a", "east", "node-1", "web.shop", &"a".repeat(253)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "East", "a_b", "a/b", &"a".repeat(254)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
