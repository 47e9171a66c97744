//! What is wrong with a text a person wrote: where, which rule, and what would be right.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a text. Lines and columns (in characters) count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// 1 is the first line.
    pub line: u32,
    /// 1 is the first character of the line.
    pub column: u32,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is rejected as a whole.
    Error,
    /// The object is accepted; it probably does not do what its author thinks.
    Warning,
}

/// One finding. Its text is `3:5: error[VAL-4]: spec.ingress[0]: … (help: …)`; callers put the file's name before it:
/// `policy.yaml:3:5: …`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Where in the text.
    pub position: Position,
    /// How bad.
    pub severity: Severity,
    /// The numbered rule that is broken, for example `VAL-4`; none for plain syntax.
    pub rule: Option<&'static str>,
    /// The field, for example `spec.ingress[0].toPorts[0].ports[0].port`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Position {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl Diagnostic {
    /// An error about a document as a whole.
    pub fn error(position: Position, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { position, severity: Severity::Error, rule: None, path: String::new(), message, help: None }
    }

    /// The same finding with the rule that it breaks.
    #[must_use]
    pub fn rule(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The same finding with what would be right.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Whether the finding rejects the object.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A text a person wrote, quoted for a message and cut to a readable length.
pub(crate) fn quoted(text: &str) -> String {
    const READABLE_CHARACTERS: usize = 64;
    let cut: String = text.chars().take(READABLE_CHARACTERS).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.severity)?;
        if let Some(rule) = self.rule {
            write!(f, "[{rule}]")?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_compilers_write_them() {
        let position = Position { line: 3, column: 5 };
        let mut finding = Diagnostic::error(position, "two kinds of peers").rule("VAL-4").help("write two elements");
        assert_eq!(finding.to_string(), "3:5: error[VAL-4]: two kinds of peers (help: write two elements)");
        finding.path = "spec.ingress[0]".into();
        finding.rule = None;
        finding.help = None;
        finding.severity = Severity::Warning;
        assert_eq!(finding.to_string(), "3:5: warning: spec.ingress[0]: two kinds of peers");
    }

    #[test]
    fn quotes_are_short() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"é".repeat(100)), format!("\"{}\"…", "é".repeat(64)));
    }
}
