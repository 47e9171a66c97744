//! The path that leads to a node of a document, such as `spec.ingress[0].toPorts`.
//!
//! Most objects have no findings, so paths are not carried along: the one that is needed is looked up.

use std::fmt::Write;

use crate::{
    diagnostic::quoted,
    document::{Entry, Node, Value},
};

/// The path from `root` to `node`, which is a part of it; empty for the root itself.
pub(super) fn path(root: &Node, node: &Node) -> String {
    let mut steps = Vec::new();
    descend(root, node, &mut steps);
    let mut path = String::new();
    for step in steps.iter().rev() {
        // Writing to a string cannot fail.
        let _ = match step {
            Step::Field(name) if path.is_empty() => write!(path, "{name}"),
            Step::Field(name) => write!(path, ".{name}"),
            Step::Key(key) => write!(path, "[{}]", quoted(key)),
            Step::Item(index) => write!(path, "[{index}]"),
        };
    }
    path
}

enum Step<'a> {
    Field(&'a str),
    /// A key that would be ambiguous after a dot.
    Key(&'a str),
    Item(usize),
}

/// Puts the steps into the list, the last one first; false if the node is elsewhere.
fn descend<'a>(from: &'a Node, to: &Node, steps: &mut Vec<Step<'a>>) -> bool {
    // Nodes are in the order of their places, so the last one that does not begin behind the wanted one leads to it. Only
    // what is written without any text can be at the place of what follows; then it is the one before.
    match &from.value {
        _ if std::ptr::eq(from, to) => return true,
        Value::Scalar(_) => {}
        Value::Sequence(items) => {
            let last = items.partition_point(|item| item.position <= to.position);
            if let Some(index) = (0..last).rev().find(|index| descend(&items[*index], to, steps)) {
                steps.push(Step::Item(index));
                return true;
            }
        }
        Value::Mapping(entries) => {
            let last = entries.partition_point(|entry| entry.position <= to.position);
            if let Some(entry) = entries[..last].iter().rev().find(|entry| descend(&entry.value, to, steps)) {
                steps.push(step(entry));
                return true;
            }
        }
    }
    false
}

fn step(entry: &Entry) -> Step<'_> {
    let plain = entry.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && !entry.key.is_empty() { Step::Field(&entry.key) } else { Step::Key(&entry.key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    /// Every node below this one with its path, as it is carried along.
    fn all<'a>(node: &'a Node, path: &str) -> Vec<(&'a Node, String)> {
        let below: Vec<(&Node, String)> = match &node.value {
            Value::Scalar(_) => Vec::new(),
            Value::Sequence(items) => {
                items.iter().enumerate().map(|(index, item)| (item, format!("{path}[{index}]"))).collect()
            }
            Value::Mapping(entries) => {
                let dot = if path.is_empty() { "" } else { "." };
                entries.iter().map(|entry| (&entry.value, format!("{path}{dot}{}", entry.key))).collect()
            }
        };
        let own = std::iter::once((node, path.to_owned()));
        own.chain(below.into_iter().flat_map(|(node, path)| all(node, &path))).collect()
    }

    #[test]
    fn every_node_is_found_under_its_path() {
        let texts = [
            "a: 1",
            "- a:\n  b:\n  c:\n-\n-\n- - -\n  - -\n- {a: , b: , c}\n- [ , ]",
            "a:\nb:\n- \n- c:\n    d:\n  e:\n-\nf: {g: , h, i: [[], {}, {j: }]}\nk:",
            "? a\n? b\n? c\n: - d\n  - e\n",
            "[a: , b, [[a: ]], c: {d: }, {}]",
            "{\"a\":{\"b\":[{\"c\":1,\"d\":[]},{\"c\":null}]},\"e\":[1,2,[3,[4]]]}",
        ];
        for text in texts {
            for document in document::read(text).documents {
                for (node, expected) in all(&document.root, "") {
                    assert_eq!(path(&document.root, node), expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn keys_that_are_no_fields_are_quoted() {
        let root = document::read("'': {'k8s:app': [{a.b: {c-d_1: 0}}]}").documents.remove(0).root;
        let deepest = all(&root, "").pop().expect("the number").0;
        assert_eq!(path(&root, deepest), "[\"\"][\"k8s:app\"][0][\"a.b\"].c-d_1");
    }
}
