//! YAML and JSON texts as trees whose every node knows its position.
//!
//! ```text
//! text ─ read ─► Documents { documents: [Document { root, text }], diagnostics }
//! ```
//!
//! JSON is read as YAML's flow style. What makes two readers disagree about one text is refused: duplicate keys,
//! anchors, aliases, tags, directives. What costs more than it is worth is refused, too: see the limits.

mod reader;

pub use reader::read;

use crate::diagnostic::{Diagnostic, Position};

/// The largest text, of any number of documents.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// The largest document.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// The deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
/// The most scalars, lists and mappings (keys not counted) of one document.
pub const MAX_NODES: usize = 100_000;

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// The documents without findings, in order; empty ones are left out.
    pub documents: Vec<Document>,
    /// What is wrong with the others. After a syntax error or an exceeded limit the rest of the text is not read.
    pub diagnostics: Vec<Diagnostic>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its content.
    pub root: Node,
    /// Its own text, comments included, without the `---` around it. Reading it alone gives the same tree, at other
    /// positions.
    pub text: String,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// The kinds of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, number, boolean or nothing.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping with each key once, in the order it is written.
    Mapping(Vec<Entry>),
}

/// A scalar as it is written: what it means is for its reader to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Without quotes, escapes resolved.
    pub text: String,
    /// Whether it was written without quotes, so that `8080`, `true` and `null` are not texts.
    pub plain: bool,
}

/// One key of a mapping with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key begins.
    pub position: Position,
    /// Its value.
    pub value: Node,
}

/// What a scalar is in YAML's core schema (YAML 1.2.2 §10.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// Quoted, or plain and nothing of the below.
    Text,
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`.
    Boolean,
    /// An integer or a floating point number.
    Number,
}

impl Node {
    /// What the node is, for a message: `a list`, `a number`, …
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.kind() {
                ScalarKind::Text => "a text",
                ScalarKind::Null => "nothing",
                ScalarKind::Boolean => "a boolean",
                ScalarKind::Number => "a number",
            },
        }
    }

    /// Whether it is written without a value, or as `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind() == ScalarKind::Null)
    }
}

impl Scalar {
    /// What the scalar is.
    #[must_use]
    pub fn kind(&self) -> ScalarKind {
        if !self.plain {
            return ScalarKind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Boolean,
            text if is_number(text) => ScalarKind::Number,
            _ => ScalarKind::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return digits(hexadecimal, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // Rust's grammar for floats is the core schema's, apart from its words.
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_the_core_schema_says() {
        let cases = [
            (ScalarKind::Null, &["", "~", "null"][..]),
            (ScalarKind::Boolean, &["true", "False"]),
            (ScalarKind::Number, &["0", "-1", "8080", "1.5", "1e3", ".5", "0x50", "0o7", "-.inf", ".nan", "1."]),
            (
                ScalarKind::Text,
                &["a", "yes", "on", "0b1", "1_000", "inf", "nan", "-", ".", "0x", "1.2.3", "10.0.0.0/8"],
            ),
        ];
        for (kind, texts) in cases {
            for text in texts {
                assert_eq!(Scalar { text: (*text).into(), plain: true }.kind(), kind, "{text}");
                assert_eq!(Scalar { text: (*text).into(), plain: false }.kind(), ScalarKind::Text, "{text}");
            }
        }
    }
}
