//! YAML and JSON texts as trees whose every node knows its position.
//!
//! ```text
//! text ─ read ─┬─ json: one document, plainly right ─┬─► Documents { documents: [Document { root, text }], diagnostics }
//!              └─ yaml: everything else ─────────────┘
//! ```
//!
//! JSON is YAML's flow style; it has a reader of its own only because that is ten times as fast. What makes two readers
//! disagree about one text is refused: duplicate keys, anchors, aliases, tags, directives. What costs more than it is
//! worth is refused, too: see the limits.

mod json;
#[cfg(test)]
mod tests;
mod yaml;

use std::borrow::Cow;

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

/// Reads every document of a text. Never panics, whatever the text.
#[must_use]
pub fn read(text: &str) -> Documents {
    let text = &*without_byte_order_marks(text);
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the text has {} bytes: at most {MAX_TEXT_BYTES} are read at once", text.len());
        return Documents::refused(Diagnostic::error(Position::START, message).help("split it into several files"));
    }
    if let Some(index) = text.find('\0') {
        // Where a reader stops at it, what follows would count for others only.
        let finding = Diagnostic::error(position_behind(&text[..index]), "a NUL character (U+0000) is not allowed");
        return Documents::refused(finding.help("save the file as UTF-8 text; it may be UTF-16, or no text at all"));
    }
    match json::read(text) {
        Some(document) => Documents { documents: vec![document], diagnostics: Vec::new() },
        None => yaml::read(text),
    }
}

/// A byte order mark before a document (YAML 1.2.2 §5.2) is not part of it, whatever comes first of mark and `---`: files
/// that begin with one get put together. Inside a document it stays, to be refused.
fn without_byte_order_marks(text: &str) -> Cow<'_, str> {
    const MARK: char = '\u{feff}';
    if !text.contains(MARK) {
        return text.into();
    }
    let mut between = true;
    let clean = text.split_inclusive(['\n', '\r']).map(|line| {
        let bare = line.trim_start_matches(MARK);
        let content = bare.trim_ascii_end();
        let rest = ["---", "..."].iter().find_map(|marker| content.strip_prefix(marker));
        let begins = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let chosen = if between || begins { bare } else { line };
        // What stands behind `---` may be a text of several lines.
        let is_empty = |rest: &str| rest.trim_ascii_start().is_empty() || rest.trim_ascii_start().starts_with('#');
        between = if begins { rest.is_some_and(is_empty) } else { between && is_empty(content) };
        chosen
    });
    clean.collect::<String>().into()
}

/// The place of the character that follows a text.
fn position_behind(text: &str) -> Position {
    let unix = text.replace("\r\n", "\n");
    let last = unix.rsplit(['\n', '\r']).next().unwrap_or_default();
    let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
    Position { line: number(unix.matches(['\n', '\r']).count()), column: number(last.chars().count()) }
}

/// A document's own text: without blank lines at the beginning.
fn own_text(text: &str) -> String {
    // Only what is blank to every reader: a form feed is content.
    let first = text.find(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(0);
    let begin = text.get(..first).and_then(|blank| blank.rfind(['\n', '\r'])).map_or(0, |index| index + 1);
    text.get(begin..).unwrap_or_default().to_owned()
}

impl Documents {
    fn refused(finding: Diagnostic) -> Self {
        Self { documents: Vec::new(), diagnostics: vec![finding] }
    }
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
