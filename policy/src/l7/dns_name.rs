//! DNS names in the form in which they are compared.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A name in ASCII lower case with a dot at its end: `api.example.com.`; the root is `.`.
///
/// Any text has such a form, also texts that are no host names: queries may ask for anything, and are refused only by
/// matching nothing. Characters beyond ASCII stay as they are (DNS-10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DnsName(String);

impl DnsName {
    /// Brings a name, in presentation format (RFC 1035 §5.1), into its form.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut name = text.to_ascii_lowercase();
        // A dot behind an odd number of backslashes is a part of the last label; a lone backslash at the end is one.
        let escapes = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        if name.strip_suffix('.').is_none_or(escapes) {
            if escapes(&name) {
                name.push('\\');
            }
            name.push('.');
        }
        Self(name)
    }

    /// The text with its dot at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }

    /// The text between the dots, without the empty part behind the last one. The root has one empty part.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.strip_suffix('.').unwrap_or(&self.0).split('.')
    }
}

/// The characters that a wildcard stands for: class C of the reference (DNS-3).
pub(super) fn is_host_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_1_normal_form() {
        for (text, expected) in [
            ("Api.Example.com", "api.example.com."),
            ("api.example.com.", "api.example.com."),
            ("a..", "a.."),
            ("", "."),
            (".", "."),
            (r"a\.", r"a\.."),
            (r"a\\.", r"a\\."),
            (r"a\", r"a\\."),
        ] {
            assert_eq!(DnsName::new(text).as_str(), expected, "{text}");
        }
    }

    #[test]
    fn dns_10_no_conversion_of_other_scripts() {
        // The Kelvin sign is a capital k in Unicode; it must not become one in a name.
        assert_eq!(DnsName::new("\u{212a}8s.io").as_str(), "\u{212a}8s.io.");
        assert_eq!(DnsName::new("BÜCHER.de").as_str(), "bÜcher.de.");
    }
}
