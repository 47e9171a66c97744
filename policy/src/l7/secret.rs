//! Secrets that header rules compare with, and texts that must not reach a log (HTTP-12).

use std::{collections::BTreeMap, fmt, hint::black_box};

use serde::{Deserialize, Serialize};

/// Where a secret lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretRef {
    /// The namespace; empty if it is not written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The secrets that are known, each with its single entry. A secret with several entries, or none, is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<SecretRef, SensitiveText>);

/// A header's value. It prints as `[redacted]` if it comes from a secret or was compared with one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SensitiveText {
    bytes: Vec<u8>,
    secret: bool,
}

impl Secrets {
    /// Adds a secret, or replaces it.
    pub fn insert(&mut self, secret: SecretRef, entry: impl Into<Vec<u8>>) {
        self.0.insert(secret, SensitiveText::secret(entry));
    }

    /// The secret's entry, if it is known and not empty: an empty secret protects nothing.
    #[must_use]
    pub fn entry(&self, secret: &SecretRef) -> Option<&SensitiveText> {
        self.0.get(secret).filter(|text| !text.bytes.is_empty())
    }
}

impl SensitiveText {
    /// A text that may be printed.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), secret: false }
    }

    /// A text that may not.
    pub fn secret(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), secret: true }
    }

    /// The bytes themselves, for the wire only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it may not be printed.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Compares in a time that depends on the lengths only.
    #[must_use]
    pub fn equals(&self, value: &[u8]) -> bool {
        if self.bytes.len() != value.len() {
            return false;
        }
        let difference = self.bytes.iter().zip(value).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
        difference == 0
    }
}

impl fmt::Display for SensitiveText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret { f.write_str("[redacted]") } else { self.bytes.escape_ascii().fmt(f) }
    }
}

impl fmt::Debug for SensitiveText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_12_secrets_never_print() {
        let reference = SecretRef { namespace: "shop".into(), name: "token".into() };
        let mut secrets = Secrets::default();
        secrets.insert(reference.clone(), "hunter2");
        let text = secrets.entry(&reference).expect("inserted");
        assert_eq!(text.to_string(), "[redacted]");
        assert!(!format!("{secrets:?}").contains("hunter2"));
        assert!(text.equals(b"hunter2"));
        assert!(!text.equals(b"hunter3"));
        assert!(!text.equals(b"hunter"));
        assert_eq!(SensitiveText::plain("a\n").to_string(), r"a\n");
    }

    #[test]
    fn http_9_an_empty_secret_is_no_secret() {
        let reference = SecretRef { namespace: String::new(), name: "empty".into() };
        let mut secrets = Secrets::default();
        secrets.insert(reference.clone(), "");
        assert_eq!(secrets.entry(&reference), None);
    }
}
