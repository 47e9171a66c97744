//! Documents: the whole input is one text. The reader of JSON is held against YAML's and against another one's.

use ringfence_policy::{
    diagnostic::Position,
    document::{Document, MAX_DEPTH, Node, Scalar, ScalarKind, Value, read},
};

/// A line that only YAML has, so that the text behind it is read as YAML.
const YAML_ONLY: &str = "---\n";

/// Reads the text; what is read is read again, and what is JSON is read alike as YAML and by `serde_json`.
pub(crate) fn exercise(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let direct = read(&text);
    for document in &direct.documents {
        let again = read(&document.text).documents;
        let [again] = again.as_slice() else { panic!("{} documents in {:?}", again.len(), document.text) };
        assert_eq!(without_positions(&again.root), without_positions(&document.root), "{:?}", document.text);
        assert_eq!(again.text, document.text, "its own text is its own text");
    }
    for finding in &direct.diagnostics {
        assert!(finding.position.line > 0 && finding.position.column > 0, "{finding}");
    }
    let is_json = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with(['{', '[']);
    if is_json {
        as_yaml(&text, &direct.documents);
        as_other(&text, &direct.documents);
    }
}

/// Where the YAML reader takes the text, too, the nodes and their places are the same.
fn as_yaml(text: &str, direct: &[Document]) {
    let yaml = read(&format!("{YAML_ONLY}{text}"));
    if !yaml.diagnostics.is_empty() {
        return;
    }
    let roots = |documents: &[Document], lines: u32| -> Vec<Node> {
        let mut roots: Vec<Node> = documents.iter().map(|document| document.root.clone()).collect();
        roots.iter_mut().for_each(|root| each_position(root, &mut |position| position.line -= lines));
        roots
    };
    assert_eq!(roots(direct, 0), roots(&yaml.documents, 1), "as YAML: {text:?}");
}

/// What `serde_json` takes is read as the same values, unless it is too deep or has a key twice.
fn as_other(text: &str, direct: &[Document]) {
    let Ok(other) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let [document] = direct else {
        let findings = read(text).diagnostics;
        let known = |message: &str| {
            ["is given twice", &format!("nested deeper than {MAX_DEPTH}")].iter().any(|reason| message.contains(reason))
        };
        // What only the direct reader takes is what the YAML reader complains about first.
        let no_yaml = text.contains('\t') || text.to_ascii_lowercase().contains("\\ud");
        let explained = findings.iter().any(|finding| known(&finding.message) || no_yaml && finding.is_error());
        assert!(explained, "{findings:?}: {text:?}");
        return;
    };
    assert_eq!(value(&document.root), other, "{text:?}");
}

/// A node as `serde_json` has it.
fn value(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Sequence(items) => items.iter().map(value).collect(),
        Value::Mapping(entries) => entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect(),
        Value::Scalar(scalar) => match scalar.kind() {
            ScalarKind::Text => scalar.text.clone().into(),
            ScalarKind::Null => serde_json::Value::Null,
            ScalarKind::Boolean => (scalar.text == "true").into(),
            ScalarKind::Number => serde_json::from_str(&scalar.text).expect("a number of JSON"),
        },
    }
}

fn each_position(node: &mut Node, change: &mut impl FnMut(&mut Position)) {
    change(&mut node.position);
    match &mut node.value {
        Value::Scalar(Scalar { .. }) => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| each_position(item, change)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|entry| {
            change(&mut entry.position);
            each_position(&mut entry.value, change);
        }),
    }
}

fn without_positions(node: &Node) -> Node {
    let mut node = node.clone();
    each_position(&mut node, &mut |position| *position = Position::START);
    node
}
