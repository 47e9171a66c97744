//! The names that a TLS client may ask for: `serverNames` (TLS-1, TLS-2, VAL-27).

use std::collections::BTreeSet;

/// A list of names, at least one. Connections must begin with a client hello that carries one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerNames(BTreeSet<String>);

impl ServerNames {
    /// The names of a list; none if the list is empty, which constrains nothing.
    #[must_use]
    pub fn new<T: AsRef<str>>(names: &[T]) -> Option<Self> {
        let names: BTreeSet<_> = names.iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        (!names.is_empty()).then_some(Self(names))
    }

    /// Adds the names of another list for the same peer and port (TLS-2).
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether a connection passes. `server_name` is what the client hello carries; none if it carries no name or the
    /// connection does not begin with one.
    ///
    /// Names are equal as host names are, without regard to ASCII case (RFC 6066 §3); there are no wildcards.
    #[must_use]
    pub fn allows(&self, server_name: Option<&str>) -> bool {
        server_name.is_some_and(|name| !name.is_empty() && self.0.contains(&name.to_ascii_lowercase()))
    }

    /// The names in lower case, ordered.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_1_exactly_one_of_the_names() {
        let names = ServerNames::new(&["a.example.com", "B.example.com", "*.example.org"]).expect("not empty");
        for (name, expected) in [
            (Some("a.example.com"), true),
            (Some("A.EXAMPLE.COM"), true),
            (Some("b.example.com"), true),
            (Some("a.example.com."), false),
            (Some("x.a.example.com"), false),
            (Some("c.example.org"), false),
            (Some("aXexample.com"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(names.allows(name), expected, "{name:?}");
        }
    }

    #[test]
    fn tls_2_lists_merge() {
        assert_eq!(ServerNames::new::<&str>(&[]), None);
        let mut names = ServerNames::new(&["b"]).expect("not empty");
        names.merge(&ServerNames::new(&["A", "b"]).expect("not empty"));
        assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn val_27_an_empty_name_matches_nothing() {
        let names = ServerNames::new(&[""]).expect("not empty");
        assert!(!names.allows(Some("")));
        assert!(!names.allows(None));
    }
}
