//! Fields that are checked where they stand, so that an error has the line and column of the value and not of the
//! mapping around it: serde formats know the position only while a value is read.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};

/// Reads a text and turns it into a value.
///
/// # Errors
/// The format's, with what `parse` says.
pub fn text<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text(parse, PhantomData))
}

/// Reads a number that is not negative and turns it into a value.
///
/// # Errors
/// The format's, with what `check` says.
pub fn number<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    check: impl Fn(u64) -> Result<T, E>,
) -> Result<T, D::Error> {
    deserializer.deserialize_u64(Number(check, PhantomData))
}

/// Reads a list of texts, turns each into a value, and then checks the list.
///
/// # Errors
/// The format's, with what `parse` or `check` says.
pub fn texts<'de, D: Deserializer<'de>, T, E: fmt::Display, F: fmt::Display>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
    check: impl Fn(&[T]) -> Result<(), F>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Texts(parse, check, PhantomData))
}

struct Text<P, T>(P, PhantomData<T>);

struct Number<C, T>(C, PhantomData<T>);

struct Texts<P, C, T>(P, C, PhantomData<T>);

impl<T, E: fmt::Display, P: Fn(&str) -> Result<T, E>> Visitor<'_> for Text<P, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<R: Error>(self, text: &str) -> Result<T, R> {
        self.0(text).map_err(R::custom)
    }
}

impl<'de, T, E: fmt::Display, P: Fn(&str) -> Result<T, E>> DeserializeSeed<'de> for Text<&P, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        text(deserializer, self.0)
    }
}

impl<T, E: fmt::Display, C: Fn(u64) -> Result<T, E>> Visitor<'_> for Number<C, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number that is not negative")
    }

    fn visit_u64<R: Error>(self, number: u64) -> Result<T, R> {
        self.0(number).map_err(R::custom)
    }
}

impl<'de, T, E, F, P, C> Visitor<'de> for Texts<P, C, T>
where
    E: fmt::Display,
    F: fmt::Display,
    P: Fn(&str) -> Result<T, E>,
    C: Fn(&[T]) -> Result<(), F>,
{
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(Text(&self.0, PhantomData))? {
            values.push(value);
        }
        self.1(&values).map_err(A::Error::custom)?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Example {
        #[serde(default, deserialize_with = "short")]
        _text: String,
        #[serde(default, deserialize_with = "even")]
        _number: u64,
        #[serde(default, deserialize_with = "some")]
        _list: Vec<u8>,
    }

    fn short<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        text(deserializer, |text| if text.len() < 3 { Ok(text.to_owned()) } else { Err("too long") })
    }

    fn even<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        number(deserializer, |number| if number % 2 == 0 { Ok(number) } else { Err("odd") })
    }

    fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        texts(deserializer, str::parse::<u8>, |list| if list.is_empty() { Err("empty") } else { Ok(()) })
    }

    #[test]
    fn errors_have_the_position_of_the_value() {
        let cases = [
            ("_number: 2\n_text: long\n", "2:8", "too long"),
            ("_text: a\n_number: 3\n", "2:10", "odd"),
            ("_text: a\n_list:\n- 1\n- x\n", "4:3", "invalid digit"),
            ("_text: a\n_list: []\n", "2:8", "empty"),
        ];
        for (yaml, position, message) in cases {
            let error = yaml_serde::from_str::<Example>(yaml).unwrap_err();
            let location = error.location().unwrap();
            assert_eq!(format!("{}:{}", location.line(), location.column()), position, "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
