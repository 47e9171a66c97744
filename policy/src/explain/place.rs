//! Where rules and elements are, for people: object, field, line.

use std::fmt;

use crate::{
    diagnostic::Position,
    document::{self, Value},
    flow::Direction,
    object::Object,
    record::PolicyKey,
    rule::{Element, Section},
};

/// A rule or an element of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The object's index in what was given.
    pub object: usize,
    /// The object's name.
    pub key: PolicyKey,
    /// `spec`, `specs[1].ingress[0]`, …
    pub path: String,
    /// In the text that the object was read from.
    pub position: Position,
}

/// Makes places of indices.
pub(super) struct Places<'o> {
    objects: &'o [Object],
}

impl<'o> Places<'o> {
    pub(super) const fn of(objects: &'o [Object]) -> Self {
        Self { objects }
    }

    pub(super) const fn objects(&self) -> &'o [Object] {
        self.objects
    }

    pub(super) fn rule(&self, object: usize, rule: usize) -> Place {
        let path = match (has_spec(&self.objects[object]), rule) {
            (true, 0) => "spec".to_owned(),
            (true, rule) => format!("specs[{}]", rule - 1),
            (false, rule) => format!("specs[{rule}]"),
        };
        let Object { key, rules, .. } = &self.objects[object];
        Place { object, key: key.clone(), path, position: rules[rule].position }
    }

    /// The place of an element of one of a rule's lists.
    pub(super) fn element(
        &self,
        (object, rule): (usize, usize),
        direction: Direction,
        denies: bool,
        index: usize,
    ) -> Place {
        let mut place = self.rule(object, rule);
        let section = self.objects[object].rules[rule].section(direction);
        let Some(list) = list(section, denies) else { return place };
        let position = list[index].position;
        if position == place.position {
            return place; // Isolation that follows from `policyTypes` is written nowhere else.
        }
        // Elements that were one are at one place (KNP-12).
        let written = list[..=index].windows(2).filter(|pair| pair[0].position != pair[1].position).count();
        let name = if denies { "Deny" } else { "" };
        place.path = format!("{}.{direction}{name}[{written}]", place.path);
        place.position = position;
        place
    }
}

/// One of the two lists of a section.
pub(super) fn list(section: &Section, denies: bool) -> Option<&[Element]> {
    if denies { section.deny.as_deref() } else { section.allow.as_deref() }
}

/// Whether the object's own text has a `spec`, which is its first rule then.
fn has_spec(object: &Object) -> bool {
    let documents = document::read(&object.text).documents;
    match documents.first().map(|document| &document.root.value) {
        Some(Value::Mapping(entries)) => entries.iter().any(|entry| entry.key == "spec" && !entry.value.is_null()),
        _ => true,
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.path)
    }
}
