//! Labels that many sets have.

use std::{borrow::Cow, cell::RefCell, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use super::Label;
use crate::text::{mixed, remembered};

/// A label whose copies share one allocation, and so do most of those that were made apart: each thread remembers the
/// labels that it made last, as it does texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Shared(Arc<Label>);

/// How many labels a thread remembers.
const REMEMBERED: usize = 2048;

thread_local! {
    /// A label lies where its texts say; another one of that place replaces it.
    static LAST: RefCell<[Option<Arc<Label>>; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

impl Shared {
    pub(super) fn new(source: &str, key: &str, value: &str) -> Self {
        Self::of(source, key, value, || Label::new(source, key, value))
    }

    fn of(source: &str, key: &str, value: &str, make: impl Fn() -> Label) -> Self {
        let place = mixed(key) ^ mixed(value).rotate_left(7) ^ source.len() as u64;
        let is_it = |known: &Arc<Label>| known.value == *value && known.key == *key && known.source == *source;
        Self(remembered(&LAST, place, is_it, || Arc::new(make())))
    }
}

impl From<Label> for Shared {
    fn from(label: Label) -> Self {
        Self::of(&label.source, &label.key, &label.value, || label.clone())
    }
}

impl Deref for Shared {
    type Target = Label;

    fn deref(&self) -> &Label {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As `Label`; nothing is made of a label that is remembered.
        #[derive(Deserialize)]
        #[serde(rename = "Label")]
        struct Parts<'a> {
            #[serde(borrow)]
            key: Cow<'a, str>,
            #[serde(borrow)]
            source: Cow<'a, str>,
            #[serde(borrow)]
            value: Cow<'a, str>,
        }
        let Parts { key, source, value } = Parts::deserialize(deserializer)?;
        Ok(Self::new(&source, &key, &value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(one: &Shared, other: &Shared) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    #[test]
    fn equal_labels_share_one_allocation_while_they_are_remembered() {
        let one = Shared::new("k8s", "app", "web");
        assert!(is_one(&one, &Shared::new("k8s", "app", "web")));
        assert!(is_one(&one, &Label::new("k8s", "app", "web").into()));
        let text = r#"{"key": "app", "source": "k8s", "value": "web"}"#;
        assert!(is_one(&one, &serde_json::from_str(text).unwrap()), "borrowed");
        assert!(is_one(&one, &serde_json::from_reader(text.as_bytes()).unwrap()), "owned");
        let apart = std::thread::spawn(|| Shared::new("k8s", "app", "web")).join().unwrap();
        assert!(!is_one(&one, &apart), "no thread waits for another one");
        assert_eq!((&one, one.cmp(&apart)), (&apart, std::cmp::Ordering::Equal));
    }

    #[test]
    fn labels_of_one_place_replace_each_other_and_stay_what_they_are() {
        let parts = |number: usize| (["k8s", "any"][number % 2], format!("key-{}", number % 7), format!("{number}"));
        let numbers = || (0..3 * REMEMBERED).map(parts);
        let made: Vec<Shared> = numbers().map(|(source, key, value)| Shared::new(source, &key, &value)).collect();
        for ((source, key, value), made) in numbers().zip(&made) {
            assert_eq!(**made, Label::new(source, &key, &value));
            assert_eq!(Shared::new(source, &key, &value), *made);
        }
        for (source, key, value) in [("k8s", "a", "b"), ("any", "a", "b"), ("any", "b", "a"), ("k8s", "ab", "")] {
            assert_eq!(*Shared::new(source, key, value), Label::new(source, key, value), "of one place, perhaps");
        }
    }
}
