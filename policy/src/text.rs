//! Short texts that many records say again and again: names, and the parts of labels.

use std::{borrow::Borrow, cell::RefCell, cmp::Ordering, fmt, ops::Deref, thread::LocalKey};

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text whose copies share one allocation, and so do most of those that were made apart: each thread remembers the
/// texts that it made last. One pointer: names and labels are most of what a mesh consists of.
#[derive(Clone, Eq)]
pub struct Text(ArcStr);

/// How many texts a thread remembers.
const REMEMBERED: usize = 512;
/// Longer ones are not worth remembering, in bytes.
const LONGEST: usize = 64;

thread_local! {
    /// A text lies where its ends and its length say; another one of that place replaces it.
    static LAST: RefCell<[Option<ArcStr>; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both lie in one place; equal ones may lie in two.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        ArcStr::ptr_eq(&self.0, &other.0)
    }
}

/// Of what a thread made last, what lies where `mixed` says; if that is something else, it is made anew and lies there.
pub(crate) fn remembered<T: Clone, const N: usize>(
    last: &'static LocalKey<RefCell<[Option<T>; N]>>,
    mixed: u64,
    is_it: impl Fn(&T) -> bool,
    make: impl Fn() -> T,
) -> T {
    let place = usize::try_from(mixed >> 32).map_or(0, |mixed| mixed % N);
    // Gone only while the thread ends.
    let known = last.try_with(|last| match &mut last.borrow_mut()[place] {
        Some(known) if is_it(known) => known.clone(),
        other => other.insert(make()).clone(),
    });
    known.unwrap_or_else(|_| make())
}

/// A number of a text's ends, its middle and its length: cheap, and good enough to find the same text again.
pub(crate) fn mixed(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let word = |at: usize| match bytes[at..].first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => bytes[at..].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)),
    };
    let (first, middle, last) = (word(0), word(bytes.len() / 2), word(bytes.len().saturating_sub(8)));
    (first ^ middle.rotate_left(21) ^ last.rotate_left(42) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if text.len() > LONGEST {
            return Self(text.into());
        }
        Self(remembered(&LAST, mixed(text), |known| *known == *text, || text.into()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Self> for Text {
    fn from(text: &Self) -> Self {
        text.clone()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<Text> for String {
    fn eq(&self, other: &Text) -> bool {
        **self == *other.0
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    /// By bytes.
    fn cmp(&self, other: &Self) -> Ordering {
        if self.is_shared_with(other) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl std::hash::Hash for Text {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_str(deserializer, |text| Ok(text.into()))
    }
}

/// Makes something of a text that is not kept.
pub(crate) fn deserialize_str<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    make: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Make<F>(F);
    impl<T, F: FnOnce(&str) -> Result<T, String>> de::Visitor<'_> for Make<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Make(make))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_allocation_while_they_are_remembered() {
        let (one, other) = (Text::from("io.kubernetes.pod.namespace"), Text::from("io.kubernetes.pod.namespace"));
        assert!(one.is_shared_with(&other));
        let decoded: Text = serde_json::from_str(r#""io.kubernetes.pod.namespace""#).unwrap();
        assert!(one.is_shared_with(&decoded));
        let apart = std::thread::spawn(|| Text::from("io.kubernetes.pod.namespace")).join().unwrap();
        assert!(!one.is_shared_with(&apart), "no thread waits for another one");
        assert_eq!((&one, one.cmp(&apart)), (&apart, Ordering::Equal));
        let long = "x".repeat(LONGEST + 1);
        assert!(!Text::from(&long).is_shared_with(&Text::from(&long)));
    }

    #[test]
    fn texts_of_one_place_replace_each_other_and_stay_what_they_are() {
        let texts: Vec<String> =
            (0..3 * REMEMBERED).map(|number| format!("app-{number}")).chain([String::new()]).collect();
        let made: Vec<Text> = texts.iter().map(Text::from).collect();
        for (text, made) in texts.iter().zip(&made) {
            assert_eq!((made.as_str(), Text::from(text)), (text.as_str(), made.clone()));
        }
        let mut sorted = made;
        sorted.sort();
        let mut expected = texts;
        expected.sort();
        assert_eq!(sorted, expected);
    }
}
