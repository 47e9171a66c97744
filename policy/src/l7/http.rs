//! HTTP rules as objects write them, and what may be wrong with them (HTTP-1 … HTTP-14, VAL-32).

use serde::{Deserialize, Serialize};

use super::{
    expression::{Expression, InvalidExpression},
    header::MismatchAction,
    secret::SecretRef,
};

/// One element of `http`. All of its constraints must hold; an empty field constrains nothing, so the empty rule
/// speaks of every request (HTTP-8).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRule {
    /// Expression over the path with its query (HTTP-2).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Expression over the method.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Expression over the authority, with its port if the client wrote one (HTTP-3).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `Name: value` or `Name` (HTTP-7). The value is a text, not an expression.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Header rules with a secret or an action (HTTP-9, HTTP-10).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header_matches: Vec<HeaderMatch>,
}

/// One element of `headerMatches`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderMatch {
    /// What happens if the header is not as expected: empty (the rule does not match), `LOG`, `ADD`, `DELETE` or
    /// `REPLACE`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mismatch: String,
    /// The header's name.
    pub name: String,
    /// The secret that holds the expected value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// The expected value where there is no secret, or none to be had.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// What is wrong with an HTTP rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHttpRule {
    /// The path is not an expression.
    #[error("path is not a regular expression: {source}")]
    Path {
        /// Why not.
        source: InvalidExpression,
    },
    /// The method is not an expression.
    #[error("method is not a regular expression: {source}")]
    Method {
        /// Why not.
        source: InvalidExpression,
    },
    /// The host is not an expression. Cilium accepts the object; its proxy refuses the rule later.
    #[error("host is not a regular expression: {source}")]
    Host {
        /// Why not.
        source: InvalidExpression,
    },
    /// A header match has no name.
    #[error("headerMatches[{index}] has no name")]
    HeaderWithoutName {
        /// Which element of `headerMatches`.
        index: usize,
    },
    /// A header match has an unknown action.
    #[error("headerMatches[{index}].mismatch is {action:?}")]
    UnknownAction {
        /// Which element of `headerMatches`.
        index: usize,
        /// The action as written.
        action: String,
    },
    /// A header match has a secret without a name.
    #[error("headerMatches[{index}].secret has no name")]
    SecretWithoutName {
        /// Which element of `headerMatches`.
        index: usize,
    },
}

/// The status of a refused request (HTTP-13).
pub const DENIED_STATUS: u16 = 403;

/// The body of a refused request: the configured text, or `Access denied`, with CRLF at its end (HTTP-13).
#[must_use]
pub fn denied_body(configured: &str) -> String {
    let text = if configured.is_empty() { "Access denied" } else { configured };
    format!("{}\r\n", text.strip_suffix("\r\n").unwrap_or(text))
}

impl HttpRule {
    /// Everything that is wrong with the rule.
    #[must_use]
    pub fn check(&self) -> Vec<InvalidHttpRule> {
        let invalid = |text: &str| if text.is_empty() { None } else { Expression::new(text).err() };
        let path = invalid(&self.path).map(|source| InvalidHttpRule::Path { source });
        let method = invalid(&self.method).map(|source| InvalidHttpRule::Method { source });
        let host = invalid(&self.host).map(|source| InvalidHttpRule::Host { source });
        let headers = self.header_matches.iter().enumerate().flat_map(|(index, header)| header.check(index));
        [path, method, host].into_iter().flatten().chain(headers).collect()
    }
}

impl HeaderMatch {
    /// Everything that is wrong with it; `index` is its place in the list.
    pub(super) fn check(&self, index: usize) -> Vec<InvalidHttpRule> {
        let mut problems = Vec::new();
        if self.name.is_empty() {
            problems.push(InvalidHttpRule::HeaderWithoutName { index });
        }
        if MismatchAction::from_word(&self.mismatch).is_none() {
            problems.push(InvalidHttpRule::UnknownAction { index, action: self.mismatch.clone() });
        }
        if self.secret.as_ref().is_some_and(|secret| secret.name.is_empty()) {
            problems.push(InvalidHttpRule::SecretWithoutName { index });
        }
        problems
    }
}

impl InvalidHttpRule {
    /// The numbered rule that is broken.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Host { .. } => "HTTP-5",
            _ => "VAL-32",
        }
    }

    /// Whether Cilium rejects the object for it too.
    #[must_use]
    pub fn rejected_by_cilium(&self) -> bool {
        match self {
            Self::Host { .. } => false,
            Self::Path { source } | Self::Method { source } => !source.is_limit(),
            Self::HeaderWithoutName { .. } | Self::UnknownAction { .. } | Self::SecretWithoutName { .. } => true,
        }
    }

    /// The field below the rule, for example `path` or `headerMatches[1].name`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Path { .. } => "path".into(),
            Self::Method { .. } => "method".into(),
            Self::Host { .. } => "host".into(),
            Self::HeaderWithoutName { index } => format!("headerMatches[{index}].name"),
            Self::UnknownAction { index, .. } => format!("headerMatches[{index}].mismatch"),
            Self::SecretWithoutName { index } => format!("headerMatches[{index}].secret.name"),
        }
    }

    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Path { .. } => "write an RE2 expression for the whole path, for example \"/v1/items(/[0-9]+)?\"",
            Self::Method { .. } => "write an RE2 expression for the whole method, for example \"GET|HEAD\"",
            Self::Host { .. } => "write an RE2 expression for the whole host, for example \"api[.]example[.]com\"",
            Self::HeaderWithoutName { .. } => "name the header",
            Self::UnknownAction { .. } => "write LOG, ADD, DELETE or REPLACE, or leave it out to refuse the request",
            Self::SecretWithoutName { .. } => "name the secret",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, mismatch: &str, secret: Option<&str>) -> HeaderMatch {
        let secret = secret.map(|name| SecretRef { namespace: "a".into(), name: name.into() });
        HeaderMatch { name: name.into(), mismatch: mismatch.into(), secret, value: String::new() }
    }

    #[test]
    fn val_32_expressions() {
        for (path, method, good) in [
            ("/a(", "", false),
            ("*a", "", false),
            ("", "GET[", false),
            ("/a", "GET", true),
            ("^/a(b|c)/.*", "PUT|POST", true),
            ("", "", true),
        ] {
            let rule = HttpRule { path: path.into(), method: method.into(), ..HttpRule::default() };
            let problems = rule.check();
            assert_eq!(problems.is_empty(), good, "{path} {method}: {problems:?}");
            assert!(problems.iter().all(|problem| problem.rule() == "VAL-32" && problem.rejected_by_cilium()));
        }
    }

    #[test]
    fn http_5_a_broken_host_is_found_at_import() {
        let rule = HttpRule { host: "*.example.com".into(), ..HttpRule::default() };
        let problems = rule.check();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].rule(), "HTTP-5");
        assert!(!problems[0].rejected_by_cilium());
        assert_eq!(
            problems[0].to_string(),
            "host is not a regular expression: nothing to repeat at byte 0 of the expression"
        );
    }

    #[test]
    fn val_32_header_matches() {
        for action in ["", "LOG", "ADD", "DELETE", "REPLACE"] {
            let rule = HttpRule { header_matches: vec![header("X", action, Some("s"))], ..HttpRule::default() };
            assert_eq!(rule.check(), [], "{action}");
        }
        let header_matches = vec![header("", "", None), header("X", "DROP", Some("")), header("X", "log", None)];
        let rule = HttpRule { header_matches, ..HttpRule::default() };
        let fields: Vec<_> = rule.check().iter().map(InvalidHttpRule::field).collect();
        let expected = [
            "headerMatches[0].name",
            "headerMatches[1].mismatch",
            "headerMatches[1].secret.name",
            "headerMatches[2].mismatch",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn http_13_the_body_ends_with_crlf_once() {
        assert_eq!(denied_body(""), "Access denied\r\n");
        assert_eq!(denied_body("no\r\n"), "no\r\n");
        assert_eq!(denied_body("no"), "no\r\n");
    }
}
