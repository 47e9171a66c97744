//! Revisions as the witness of one order of the whole store: whoever calls after an answer must not be answered from an
//! older revision, and no revision is two changes.
//!
//! This sees what the judgement key by key cannot: reads of several keys, and writes in different keys.

use std::collections::BTreeMap;

use super::history::{Action, Call};

/// The revisions contradict the order of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// An answer is older than one that was there before the question.
    #[error(
        "client {client} asked m{} at {begin_ns} ns and was answered from revision {revision}, after client {earlier} had \
         been answered from revision {known} at {known_ns} ns",
        member + 1
    )]
    WentBack {
        /// Who was answered.
        client: usize,
        /// By whom.
        member: usize,
        /// When it asked.
        begin_ns: u64,
        /// The old revision.
        revision: u64,
        /// Who knew better.
        earlier: usize,
        /// The newer revision.
        known: u64,
        /// When that was known.
        known_ns: u64,
    },
    /// Two acknowledged changes have one revision.
    #[error("revision {revision} is two changes: of client {first} and of client {second}")]
    Shared {
        /// The revision.
        revision: u64,
        /// Whose change it is.
        first: usize,
        /// And whose.
        second: usize,
    },
}

/// Judges all answers that carry a revision.
///
/// # Errors
/// `OutOfOrder`, the first in the order of begins.
pub fn check(calls: &[Call]) -> Result<(), OutOfOrder> {
    let mut by_begin: Vec<&Call> = calls.iter().filter(|call| call.revision().is_some()).collect();
    by_begin.sort_by_key(|call| call.begin_ns);
    let mut by_end = by_begin.clone();
    by_end.sort_by_key(|call| call.end_ns());
    let mut ended = by_end.into_iter().peekable();
    // The newest revision known so far, and from which call.
    let mut newest: Option<&Call> = None;
    let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
    for call in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end_ns() < Some(call.begin_ns)) {
            if newest.is_none_or(|known| known.revision() < earlier.revision()) {
                newest = Some(earlier);
            }
        }
        let revision = call.revision().unwrap_or_default();
        if let Some(earlier) = newest.filter(|earlier| earlier.revision() > Some(revision)) {
            return Err(OutOfOrder::WentBack {
                client: call.client,
                member: call.member,
                begin_ns: call.begin_ns,
                revision,
                earlier: earlier.client,
                known: earlier.revision().unwrap_or_default(),
                known_ns: earlier.end_ns().unwrap_or_default(),
            });
        }
        if is_change(call)
            && let Some(first) = owners.insert(revision, call.client)
        {
            return Err(OutOfOrder::Shared { revision, first, second: call.client });
        }
    }
    Ok(())
}

/// Whether the answer says that this call made its revision.
fn is_change(call: &Call) -> bool {
    let changed = |action: &Action| {
        matches!(action, Action::Put { changed: Some(true), .. } | Action::Delete { existed: Some(true) })
    };
    call.parts.iter().any(|(_, action)| changed(action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::history::{Key, Outcome};

    fn call(client: usize, begin_ns: u64, at_ns: u64, revision: u64, action: Action) -> Call {
        let outcome = Outcome::Answered { at_ns, revision: Some(revision) };
        Call { client, member: 0, begin_ns, outcome, parts: vec![(Key::Policy("a".to_owned()), action)] }
    }

    #[test]
    fn s5_a_revision_older_than_one_that_was_known_is_caught() {
        let look = Action::Read { seen: None };
        let mut calls = vec![call(1, 0, 10, 5, look), call(2, 5, 20, 4, look), call(3, 11, 30, 5, look)];
        assert_eq!(check(&calls), Ok(()));
        calls.push(call(4, 12, 40, 4, look));
        assert!(matches!(check(&calls), Err(OutOfOrder::WentBack { client: 4, revision: 4, known: 5, .. })));
    }

    #[test]
    fn s5_two_changes_in_one_revision_are_caught() {
        let put = |value| Action::Put { value, changed: Some(true) };
        let same = Action::Put { value: 2, changed: Some(false) };
        assert_eq!(check(&[call(1, 0, 10, 5, put(1)), call(2, 0, 10, 5, same)]), Ok(()));
        let shared = check(&[call(1, 0, 10, 5, put(1)), call(2, 0, 10, 5, put(2))]).unwrap_err();
        assert_eq!(shared, OutOfOrder::Shared { revision: 5, first: 1, second: 2 });
    }
}
