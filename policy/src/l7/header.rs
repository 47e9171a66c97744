//! Constraints on one header: `headers` (HTTP-7) and `headerMatches` (HTTP-9, HTTP-10).

use super::{
    http::HeaderMatch,
    http_matcher::HttpRequest,
    secret::{Secrets, SensitiveText},
};

/// What happens if a header is not as a `headerMatches` element expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MismatchAction {
    /// The rule does not match.
    Fail,
    /// The rule matches; the mismatch is logged.
    Log,
    /// The header is added beside those that are there.
    Add,
    /// The header with the wrong value is removed.
    Delete,
    /// The header is set.
    Replace,
}

/// A change to the request that a proxy makes before it passes it on. Names are as the rule writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Add a header, keep those of the same name.
    Add {
        /// Its name.
        name: String,
        /// Its value.
        value: SensitiveText,
    },
    /// Remove every header of a name.
    Remove {
        /// The name.
        name: String,
    },
    /// Make it the only header of its name.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: SensitiveText,
    },
}

/// A header that was not as a matching rule expects it: for the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMismatch {
    /// The header's name, as the rule writes it.
    pub name: String,
    /// What the rule expects; none if any value would do.
    pub expected: Option<SensitiveText>,
    /// What the request has; none if it lacks the header.
    pub found: Option<SensitiveText>,
}

/// One element of `headers`, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderConstraint {
    /// The header's name.
    pub name: String,
    /// The value it must have; none if it must be there only.
    pub value: Option<String>,
}

/// One element of `headerMatches`, with its secret looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderRule {
    name: String,
    expected: Expected,
    action: MismatchAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Present,
    Value(SensitiveText),
    /// The secret is not to be had and no value stands in for it.
    Unavailable,
}

/// What a header rule says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderOutcome {
    /// The header is as expected.
    Match,
    /// It is not, and the rule as a whole does not match.
    Fail,
    /// It is not, and the rule may match nevertheless.
    Continue { edit: Option<HeaderEdit>, mismatch: HeaderMismatch },
}

impl MismatchAction {
    /// The action that a word stands for; the empty word is [`Self::Fail`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "" => Self::Fail,
            "LOG" => Self::Log,
            "ADD" => Self::Add,
            "DELETE" => Self::Delete,
            "REPLACE" => Self::Replace,
            _ => return None,
        })
    }
}

impl HeaderConstraint {
    /// Splits a text at its first space (HTTP-7).
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.split_once(' ') {
            Some((name, value)) => Self { name: name.trim_end_matches(':').into(), value: Some(value.into()) },
            None => Self { name: text.into(), value: None },
        }
    }

    /// Whether the request fulfils it.
    #[must_use]
    pub fn holds(&self, request: &HttpRequest<'_>) -> bool {
        match (request.header(&self.name), &self.value) {
            (Some(found), Some(value)) => *found == *value.as_bytes(),
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        }
    }
}

impl HeaderRule {
    /// None if the action is unknown.
    pub(super) fn compile(written: &HeaderMatch, secrets: &Secrets) -> Option<Self> {
        let action = MismatchAction::from_word(&written.mismatch)?;
        let value = written.value.as_bytes();
        let expected = match &written.secret {
            Some(secret) => match secrets.entry(secret) {
                Some(entry) => Expected::Value(entry.clone()),
                None if value.is_empty() => Expected::Unavailable,
                None => Expected::Value(SensitiveText::secret(value)),
            },
            None if value.is_empty() => Expected::Present,
            None => Expected::Value(SensitiveText::plain(value)),
        };
        Some(Self { name: written.name.clone(), expected, action })
    }

    /// Whether it may change the request or log something.
    pub(super) fn acts(&self) -> bool {
        self.action != MismatchAction::Fail
    }

    pub(super) fn judge(&self, request: &HttpRequest<'_>) -> HeaderOutcome {
        let found = request.header(&self.name);
        let expected = match (&self.expected, &found) {
            (Expected::Unavailable, _) => return HeaderOutcome::Fail,
            (Expected::Present, Some(_)) => return HeaderOutcome::Match,
            (Expected::Value(value), Some(found)) if value.equals(found) => return HeaderOutcome::Match,
            (Expected::Present, None) => None,
            (Expected::Value(value), _) => Some(value),
        };
        let name = self.name.clone();
        let value = || expected.cloned().unwrap_or_else(|| SensitiveText::plain(""));
        let edit = match self.action {
            MismatchAction::Fail => return HeaderOutcome::Fail,
            MismatchAction::Log => None,
            MismatchAction::Add => Some(HeaderEdit::Add { name, value: value() }),
            MismatchAction::Delete => found.is_some().then_some(HeaderEdit::Remove { name }),
            MismatchAction::Replace => Some(HeaderEdit::Set { name, value: value() }),
        };
        let secret = expected.is_some_and(SensitiveText::is_secret);
        let found =
            found.map(
                |text| {
                    if secret { SensitiveText::secret(text.as_ref()) } else { SensitiveText::plain(text.as_ref()) }
                },
            );
        let mismatch = HeaderMismatch { name: self.name.clone(), expected: expected.cloned(), found };
        HeaderOutcome::Continue { edit, mismatch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, headers: &[(&str, &[u8])]) -> bool {
        HeaderConstraint::new(text).holds(&HttpRequest::new("GET", "/", "shop").with_headers(headers))
    }

    #[test]
    fn http_7_split_at_the_first_space() {
        for (text, header, expected) in [
            ("X-Tenant: blue", Some(("x-tenant", "blue")), true),
            ("X-Tenant blue", Some(("X-TENANT", "blue")), true),
            ("X-Tenant:: blue", Some(("x-tenant", "blue")), true),
            ("X-Tenant: blue", Some(("x-tenant", "Blue")), false),
            ("X-Tenant: blue", Some(("x-tenant", "blue ")), false),
            ("X-Tenant:  blue", Some(("x-tenant", "blue")), false),
            ("X-Tenant:  blue", Some(("x-tenant", " blue")), true),
            ("X-Tenant: dark blue", Some(("x-tenant", "dark blue")), true),
            ("X-Tenant: ", Some(("x-tenant", "")), true),
            ("X-Tenant: ", Some(("x-tenant", "blue")), false),
            ("X-Tenant", Some(("x-tenant", "")), true),
            ("X-Tenant", Some(("x-tenants", "")), false),
            ("X-Tenant", None, false),
            ("X-Tenant: blue", None, false),
            ("X-A:1", Some(("x-a", "1")), false),
            ("X-App-Token: .*", Some(("x-app-token", "secret")), false),
            ("", Some(("x", "")), false),
        ] {
            let headers: Vec<_> = header.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            assert_eq!(holds(text, &headers), expected, "{text:?} {header:?}");
        }
    }

    #[test]
    fn http_12_headers_of_one_name_are_joined() {
        let headers: [(&str, &[u8]); 3] = [("X", b"a"), ("Y", b""), ("x", b"b")];
        assert!(holds("X: a,b", &headers));
        assert!(!holds("X: a", &headers));
        assert!(!holds("X: b", &headers));
    }

    #[test]
    fn http_3_the_host_is_a_header_too() {
        assert!(holds("Host: shop", &[]));
        assert!(holds(":authority shop", &[("host", b"other")]));
        assert!(holds(":method GET", &[]));
        assert!(!holds(":path /a", &[]));
    }
}
