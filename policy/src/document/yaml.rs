//! YAML texts as trees: from parser events to nodes, without recursion.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{Document, Documents, Entry, MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NODES, Node, Scalar, Value, own_text};
use crate::diagnostic::{Diagnostic, Position, quoted};

/// Reads every document of a text.
pub(super) fn read(text: &str) -> Documents {
    let mut reader = Reader::new(text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((event, span)) => reader.accept(event, span),
            Err(error) => {
                reader.drop_unfinished();
                Err(Diagnostic::error(position(*error.marker()), format!("not valid YAML: {}", error.info())))
            }
        };
        if let Err(fatal) = outcome {
            reader.found.diagnostics.push(fatal);
            break;
        }
    }
    reader.found
}

/// The state between two events.
struct Reader<'text> {
    text: &'text str,
    /// Byte offset of every line's beginning.
    lines: Vec<usize>,
    found: Documents,
    open: Vec<Frame>,
    root: Option<Node>,
    /// Byte offset where the current document begins.
    begin: usize,
    nodes: usize,
    /// How many findings there were before the current document.
    findings_before: usize,
    /// The last document has ended, and the next has not begun; how many there were before it.
    between: Option<usize>,
}

/// A list or mapping whose end has not come yet.
struct Frame {
    position: Position,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, keys: BTreeMap<String, Position>, key: Option<(String, Position)> },
}

impl<'text> Reader<'text> {
    fn new(text: &'text str) -> Self {
        let bytes = text.as_bytes();
        let breaks =
            |&(index, byte): &(usize, &u8)| *byte == b'\n' || *byte == b'\r' && bytes.get(index + 1) != Some(&b'\n');
        let after = bytes.iter().enumerate().filter(breaks).map(|(index, _)| index + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(after).collect(),
            found: Documents::default(),
            open: Vec::new(),
            root: None,
            begin: 0,
            nodes: 0,
            findings_before: 0,
            between: None,
        }
    }

    /// Takes one event. `Err` ends the reading of the whole text.
    fn accept(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = position(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(explicit) => {
                self.between = None;
                if explicit {
                    self.refuse_directives(span)?;
                    self.begin = self.offset(span.end);
                }
                Ok(())
            }
            Event::DocumentEnd => self.end_document(span),
            Event::Alias(_) => {
                self.refuse(at, "aliases (*name) are not allowed: write the value out");
                self.add(Node { position: at, value: Value::Scalar(Scalar { text: String::new(), plain: true }) })
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_decoration(at, anchor, tag.as_deref());
                let plain = style == ScalarStyle::Plain;
                self.add(Node { position: at, value: Value::Scalar(Scalar { text: text.into_owned(), plain }) })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_decoration(at, anchor, tag.as_deref());
                self.open(Frame { position: at, content: Content::Sequence(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_decoration(at, anchor, tag.as_deref());
                let content = Content::Mapping { entries: Vec::new(), keys: BTreeMap::new(), key: None };
                self.open(Frame { position: at, content })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(frame) => self.add(frame.close()),
                None => Ok(()),
            },
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), Diagnostic> {
        if self.open.len() == MAX_DEPTH {
            return Err(Diagnostic::error(frame.position, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(frame);
        Ok(())
    }

    /// Puts a finished node where it belongs: a key, a value, an item, or the root.
    fn add(&mut self, node: Node) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Diagnostic::error(node.position, format!("the document has more than {MAX_NODES} nodes")));
        }
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, keys, key }) => match key.take() {
                Some((key, position)) => entries.push(Entry { key, position, value: node }),
                None => {
                    let Value::Scalar(scalar) = node.value else {
                        return Err(Diagnostic::error(node.position, "a key must be a text, not a list or a mapping"));
                    };
                    self.nodes -= 1;
                    let first = keys.get(&scalar.text).copied();
                    keys.entry(scalar.text.clone()).or_insert(node.position);
                    if let Some(first) = first {
                        let name = quoted(&scalar.text);
                        self.found.diagnostics.push(
                            Diagnostic::error(node.position, format!("key {name} is given twice: first at {first}"))
                                .help("keep one of them; readers disagree about which one counts"),
                        );
                    }
                    *key = Some((scalar.text, node.position));
                }
            },
        }
        Ok(())
    }

    /// Where a syntax error follows a document without anything to set it off, nobody knows where the document ends.
    fn drop_unfinished(&mut self) {
        if let Some(before) = self.between {
            self.found.documents.truncate(before);
        }
    }

    fn end_document(&mut self, span: Span) -> Result<(), Diagnostic> {
        self.between = Some(self.found.documents.len());
        let end = self.offset(span.start).max(self.begin);
        let own = self.text.get(self.begin..end).unwrap_or_default();
        self.begin = self.offset(span.end).max(end);
        let clean = self.found.diagnostics.len() == self.findings_before;
        if own.len() > MAX_DOCUMENT_BYTES {
            let at = self.root.take().map_or(Position::START, |root| root.position);
            let message = format!("the document has {} bytes: at most {MAX_DOCUMENT_BYTES} are allowed", own.len());
            return Err(Diagnostic::error(at, message));
        }
        if let Some(root) = self.root.take()
            && clean
            && !root.is_null()
        {
            self.found.documents.push(Document { root, text: own_text(own) });
        }
        self.findings_before = self.found.diagnostics.len();
        self.nodes = 0;
        Ok(())
    }

    /// A directive (`%YAML`, `%TAG`) can change what the text below means, and would be lost from the document's own
    /// text.
    fn refuse_directives(&self, span: Span) -> Result<(), Diagnostic> {
        let end = self.offset(span.start);
        let between = self.text.get(self.begin..end).unwrap_or_default();
        if between.lines().any(|line| line.starts_with('%')) {
            let message = "directives (%YAML, %TAG) are not allowed";
            return Err(Diagnostic::error(position(span.start), message).help("remove the lines that begin with %"));
        }
        Ok(())
    }

    fn refuse_decoration(&mut self, at: Position, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.refuse(at, "anchors (&name) are not allowed: write the value out where it is used");
        }
        if let Some(tag) = tag {
            let name = quoted(&tag.to_string());
            self.refuse(at, &format!("tags are not allowed, found {name}: quote a value to make it a text"));
        }
    }

    fn refuse(&mut self, at: Position, message: &str) {
        self.found.diagnostics.push(Diagnostic::error(at, message));
    }

    /// The byte offset of a place in the text.
    fn offset(&self, marker: Marker) -> usize {
        let Some(&line) = self.lines.get(marker.line().saturating_sub(1)) else { return self.text.len() };
        let rest = self.text.get(line..).unwrap_or_default();
        rest.char_indices().nth(marker.col()).map_or(self.text.len(), |(index, _)| line + index)
    }
}

impl Frame {
    fn close(self) -> Node {
        let value = match self.content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, .. } => Value::Mapping(entries),
        };
        Node { position: self.position, value }
    }
}

fn position(marker: Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}
