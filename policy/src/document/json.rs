//! JSON texts (RFC 8259) as trees, without the detour over YAML's events.
//!
//! ```text
//! text ─ read ─► Some(Document), or None: something is not plainly right, let the YAML reader say what
//! ```
//!
//! JSON is YAML's flow style, so there is one set of messages, and this reader has none: it reads one document with
//! unique keys within the limits, and gives up at the first byte that is anything else. What both read is the same node
//! for node. Two things only this reader takes, both of them JSON with one meaning: escapes for pairs of surrogates, and
//! tabs behind a colon.

use super::{Document, Entry, MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES, Node, Scalar, Value, own_text};
use crate::diagnostic::Position;

/// Reads a text that is one list or object.
pub(super) fn read(text: &str) -> Option<Document> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return None;
    }
    let mut reader = Reader { text, at: 0, line: 1, line_begin: 0, continuations: 0, nodes: 0 };
    reader.skip_blanks();
    let root = match reader.peek()? {
        b'{' | b'[' => reader.value(0)?,
        _ => return None,
    };
    reader.skip_blanks();
    (reader.at == text.len()).then(|| Document { root, text: own_text(text) })
}

/// The state between two tokens. `at` is always a character's first byte.
struct Reader<'text> {
    text: &'text str,
    at: usize,
    line: u32,
    /// Byte offset where the line begins.
    line_begin: usize,
    /// Bytes of the line so far that are not a character's first.
    continuations: usize,
    nodes: usize,
}

impl<'text> Reader<'text> {
    /// `depth`: how many lists and mappings are open.
    fn value(&mut self, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return None;
        }
        let position = self.position();
        let value = match self.peek()? {
            b'{' if depth < MAX_DEPTH => Value::Mapping(self.mapping(depth + 1)?),
            b'[' if depth < MAX_DEPTH => Value::Sequence(self.sequence(depth + 1)?),
            b'"' => Value::Scalar(Scalar { text: self.string()?, plain: false }),
            _ => Value::Scalar(Scalar { text: self.plain()?.to_owned(), plain: true }),
        };
        Some(Node { position, value })
    }

    fn mapping(&mut self, depth: usize) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        self.list(b'}', |reader| {
            let position = reader.position();
            let key = reader.string()?;
            reader.skip_blanks();
            reader.take(b':')?;
            reader.skip_blanks();
            entries.push(Entry { key, position, value: reader.value(depth)? });
            Some(())
        })?;
        has_unique_keys(&entries).then_some(entries)
    }

    fn sequence(&mut self, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        self.list(b']', |reader| {
            items.push(reader.value(depth)?);
            Some(())
        })?;
        Some(items)
    }

    /// From the opening bracket to the closing one.
    fn list(&mut self, end: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.skip_blanks();
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            item(self)?;
            self.skip_blanks();
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b',' => self.skip_blanks(),
                _ => return (byte == end).then_some(()),
            }
        }
    }

    /// A number, `true`, `false` or `null`, as it is written.
    fn plain(&mut self) -> Option<&'text str> {
        let rest = self.text.get(self.at..)?;
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let word = rest.get(..rest.as_bytes().iter().position(ends)?)?;
        self.at += word.len();
        (matches!(word, "true" | "false" | "null") || is_number(word)).then_some(word)
    }

    /// A text in quotes.
    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut decoded = String::new();
        loop {
            let run = self.run()?;
            if self.peek()? == b'"' {
                self.at += 1;
                // Most texts have no escapes: one allocation of the right size.
                return Some(if decoded.is_empty() { run.to_owned() } else { decoded + run });
            }
            self.at += 1;
            decoded.push_str(run);
            decoded.push(self.escape()?);
        }
    }

    /// The characters up to the next quote or backslash. Control characters are only written as escapes.
    fn run(&mut self) -> Option<&'text str> {
        let begin = self.at;
        loop {
            match self.peek()? {
                b'"' | b'\\' => return self.text.get(begin..self.at),
                0..b' ' => return None,
                byte => self.continuations += usize::from(byte & 0xc0 == 0x80),
            }
            self.at += 1;
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.four_digits()?;
                let second = if matches!(first, 0xd800..0xdc00) {
                    self.take(b'\\')?;
                    self.take(b'u')?;
                    Some(self.four_digits()?)
                } else {
                    None
                };
                // Half a pair is no character.
                char::decode_utf16([first].into_iter().chain(second)).next()?.ok()?
            }
            _ => return None,
        })
    }

    fn four_digits(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        // `from_str_radix` takes a sign.
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b' ' | b'\t' => {}
                // YAML counts a lone carriage return as a line's end.
                b'\r' if self.peek() == Some(b'\n') => {}
                b'\n' | b'\r' => {
                    self.line += 1;
                    self.line_begin = self.at;
                    self.continuations = 0;
                }
                _ => {
                    self.at -= 1;
                    return;
                }
            }
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += 1;
        found.then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn position(&self) -> Position {
        let column = self.at - self.line_begin - self.continuations + 1;
        Position { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

fn has_unique_keys(entries: &[Entry]) -> bool {
    /// So few are compared with each other faster than they are sorted.
    const FEW: usize = 8;
    if entries.len() <= FEW {
        return entries.iter().enumerate().all(|(index, entry)| entries[..index].iter().all(|e| e.key != entry.key));
    }
    let mut keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).all(|pair| pair[0] != pair[1])
}

/// RFC 8259 §6.
fn is_number(text: &str) -> bool {
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    all_digits(whole) && (whole == "0" || !whole.starts_with('0')) && all_digits(fraction) && all_digits(exponent)
}
