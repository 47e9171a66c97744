//! Regular expressions as policy objects write them: RE2's syntax, matched against the whole value (HTTP-1).

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::re2;
pub use super::re2::SyntaxProblem;

/// A compiled expression. It matches in time linear in the value: there is no backtracking.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    compiled: Regex,
}

/// A compiled expression that matches the beginning of a value (LBL-30).
#[derive(Clone, Debug)]
pub struct PrefixExpression {
    text: String,
    compiled: Regex,
}

/// A text is not an expression, or it is too large to be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum InvalidExpression {
    /// It is longer than [`Expression::MAX_TEXT_BYTES`].
    #[error("the expression has {bytes} bytes, more than {}", Expression::MAX_TEXT_BYTES)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// RE2 does not accept it.
    #[error("{problem} at byte {offset} of the expression")]
    Syntax {
        /// Where, in bytes from the beginning of the expression.
        offset: usize,
        /// What is wrong there.
        problem: SyntaxProblem,
    },
    /// It names a Unicode class that does not exist.
    #[error("the expression uses a Unicode class that does not exist")]
    UnknownUnicodeClass,
    /// Compiled it needs more memory than [`Expression::MAX_COMPILED_BYTES`].
    #[error("the expression needs more than {} bytes once compiled", Expression::MAX_COMPILED_BYTES)]
    TooLarge,
}

impl Expression {
    /// The longest expression, in bytes of its text.
    pub const MAX_TEXT_BYTES: usize = 4096;
    /// The largest expression, in bytes of its compiled form.
    pub const MAX_COMPILED_BYTES: usize = 1 << 20;
    /// The longest value that can match, in bytes; proxies refuse request heads of this size anyway.
    pub const MAX_VALUE_BYTES: usize = 64 << 10;

    /// Compiles a text.
    ///
    /// # Errors
    /// `InvalidExpression` if RE2 would not accept it, or it is beyond one of the limits.
    pub fn new(text: &str) -> Result<Self, InvalidExpression> {
        compile(text, r"\z").map(|compiled| Self { text: text.into(), compiled })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole value matches. Values above [`Self::MAX_VALUE_BYTES`] do not.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        value.len() <= Self::MAX_VALUE_BYTES && self.compiled.is_match(value)
    }
}

impl PrefixExpression {
    /// Compiles a text.
    ///
    /// # Errors
    /// As `Expression::new`.
    pub fn new(text: &str) -> Result<Self, InvalidExpression> {
        compile(text, "").map(|compiled| Self { text: text.into(), compiled })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many bytes match, from the first one on; none if the expression does not match there.
    #[must_use]
    pub fn matched_bytes(&self, value: &str) -> Option<usize> {
        self.compiled.find(value.as_bytes()).map(|found| found.end())
    }
}

impl PartialEq for PrefixExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn compile(text: &str, end: &str) -> Result<Regex, InvalidExpression> {
    if text.len() > Expression::MAX_TEXT_BYTES {
        return Err(InvalidExpression::TooLong { bytes: text.len() });
    }
    let translated = re2::translate(text)
        .map_err(|re2::SyntaxError { offset, problem }| InvalidExpression::Syntax { offset, problem })?;
    RegexBuilder::new(&format!(r"\A(?:{translated}){end}"))
        .size_limit(Expression::MAX_COMPILED_BYTES)
        .dfa_size_limit(Expression::MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => InvalidExpression::TooLarge,
            // The translation is valid but for the names in `\p{…}`, which only the engine knows.
            _ => InvalidExpression::UnknownUnicodeClass,
        })
}

impl InvalidExpression {
    /// Whether one of our limits is exceeded by what RE2 would accept.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        match self {
            Self::TooLong { .. } | Self::TooLarge => true,
            Self::Syntax { problem, .. } => *problem == SyntaxProblem::TooDeep,
            Self::UnknownUnicodeClass => false,
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, value: &str) -> bool {
        Expression::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).matches(value.as_bytes())
    }

    #[test]
    fn http_1_the_whole_value_must_match() {
        for (expression, value, expected) in [
            ("/public", "/public", true),
            ("/public", "/public/", false),
            ("/public", "x/public", false),
            ("^/public$", "/public", true),
            ("GET|PUT", "GET", true),
            ("GET|PUT", "GETT", false),
            ("GET|PUT", "get", false),
            ("(?i)get", "GET", true),
            ("", "", true),
            ("", "x", false),
            ("/a", "/a\n", false),
            ("(?m)/a$", "/a\nb", false),
            ("/.*", "/a\nb", false),
            ("(?s)/.*", "/a\nb", true),
        ] {
            assert_eq!(matches(expression, value), expected, "{expression} {value:?}");
        }
    }

    #[test]
    fn http_4_dots_are_wildcards() {
        assert!(matches("foo.bar", "fooXbar"));
        assert!(!matches(r"foo\.bar", "fooXbar"));
        assert!(!matches("foo[.]bar", "fooXbar"));
    }

    #[test]
    fn values_that_are_not_utf_8_match_no_dot() {
        let any = Expression::new(".*").expect("valid");
        assert!(any.matches("/é".as_bytes()));
        assert!(!any.matches(b"/\xff"));
    }

    #[test]
    fn limits() {
        let longest = "a".repeat(Expression::MAX_TEXT_BYTES);
        assert!(matches(&longest, &longest));
        let bytes = Expression::MAX_TEXT_BYTES + 1;
        assert_eq!(Expression::new(&"a".repeat(bytes)), Err(InvalidExpression::TooLong { bytes }));
        assert!(matches("[a-z0-9/]{0,1000}", &"a".repeat(1000)));
        assert_eq!(Expression::new(r"\pL{1000}"), Err(InvalidExpression::TooLarge));
        assert_eq!(Expression::new(r"\p{Klingon}"), Err(InvalidExpression::UnknownUnicodeClass));
        let all = Expression::new(".*").expect("valid");
        assert!(all.matches(&vec![b'a'; Expression::MAX_VALUE_BYTES]));
        assert!(!all.matches(&vec![b'a'; Expression::MAX_VALUE_BYTES + 1]));
    }

    #[test]
    fn the_classic_exponential_patterns_are_linear() {
        let value = format!("{}b", "a".repeat(20_000));
        for expression in ["(a*)*c", "(a+)+c", "(a|a)*c", "(a|aa)+c", "(.*)(.*)(.*)(.*)c"] {
            assert!(!matches(expression, &value), "{expression}");
        }
    }
}
