//! One number, one label set: across all keys, which the judgement of each key by itself cannot see.

use std::collections::BTreeMap;

use super::history::{Action, Call, Key};

/// Two label sets have one number (S5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("number {number} was given twice: to {first} and to {second}")]
pub struct DoubledNumber {
    /// The number.
    pub number: u64,
    /// Who was seen with it.
    pub first: Key,
    /// And who else.
    pub second: Key,
}

/// Every number that any client was told or read.
///
/// # Errors
/// `DoubledNumber` for the first that two label sets have.
pub fn check(calls: &[Call]) -> Result<(), DoubledNumber> {
    let mut owners: BTreeMap<u64, &Key> = BTreeMap::new();
    for (key, action) in calls.iter().flat_map(|call| &call.parts) {
        let number = match (key, action) {
            (Key::Labels(_), Action::Allocate { number } | Action::Read { seen: number }) => *number,
            _ => None,
        };
        let Some(number) = number else { continue };
        let first = *owners.entry(number).or_insert(key);
        if first != key {
            return Err(DoubledNumber { number, first: first.clone(), second: key.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::history::Outcome;

    fn call(app: &str, action: Action) -> Call {
        let outcome = Outcome::Answered { at_ns: 1, revision: Some(1) };
        Call { client: 0, member: 0, begin_ns: 0, outcome, parts: vec![(Key::Labels(app.to_owned()), action)] }
    }

    #[test]
    fn s5_a_number_of_two_label_sets_is_caught() {
        let allocate = |app, number| call(app, Action::Allocate { number: Some(number) });
        let mut calls = vec![allocate("a", 1), allocate("b", 2), allocate("a", 1)];
        assert_eq!(check(&calls), Ok(()));
        calls.push(call("c", Action::Read { seen: Some(2) }));
        let doubled = check(&calls).unwrap_err();
        assert_eq!(doubled.to_string(), "number 2 was given twice: to label set app=b and to label set app=c");
    }
}
