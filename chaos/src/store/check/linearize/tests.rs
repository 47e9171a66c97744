//! Hand-made histories, a store with faults to order, and the definition itself as the judge of the judge.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::store::random::Random;

fn put(value: u64) -> Action {
    Action::Put { value, changed: Some(true) }
}

fn maybe_put(value: u64) -> Action {
    Action::Put { value, changed: None }
}

fn read(value: u64) -> Action {
    Action::Read { seen: Some(value) }
}

fn allocate(number: u64) -> Action {
    Action::Allocate { number: Some(number) }
}

const NOTHING: Action = Action::Read { seen: None };
const DELETED: Action = Action::Delete { existed: Some(true) };
const NEVER: u64 = u64::MAX;

fn history(calls: &[(u64, u64, Action)]) -> Vec<Operation> {
    let operation = |(client, (begin_ns, end, action)): (usize, &(u64, u64, Action))| {
        let end_ns = (*end != NEVER).then_some(*end);
        Operation { client, member: 0, action: *action, begin_ns: *begin_ns, end_ns }
    };
    calls.iter().enumerate().map(operation).collect()
}

fn judge(calls: &[(u64, u64, Action)]) -> Result<(), NotLinearizable> {
    check(&history(calls), BUDGET)
}

/// The answer that cannot be explained, and what the key may have held.
fn culprit(calls: &[(u64, u64, Action)]) -> (Action, Vec<State>) {
    match judge(calls) {
        Err(NotLinearizable::Violation { at, states, history }) => (history[at].action, states.into_iter().collect()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s5_a_stale_read_is_caught() {
    let stale = [(0, 10, put(1)), (20, 30, put(2)), (40, 50, read(1))];
    assert_eq!(culprit(&stale), (read(1), vec![State::Present(2)]));
    let message = judge(&stale).unwrap_err().to_string();
    assert!(message.contains("client 2 at m1: read → 1") && message.contains("the key held 2"), "{message}");
    // During the second put both values are right.
    assert_eq!(judge(&[(0, 10, put(1)), (20, 60, put(2)), (40, 50, read(1))]), Ok(()));
    // But not the old one after the new one was seen.
    let back = [(0, 10, put(1)), (20, 90, put(2)), (30, 40, read(2)), (50, 60, read(1))];
    assert_eq!(culprit(&back).0, read(1));
}

#[test]
fn s5_a_lost_write_is_caught() {
    let lost = [(0, 10, put(1)), (20, 30, put(2)), (40, 50, DELETED), (60, 70, put(3)), (80, 90, read(2))];
    assert_eq!(culprit(&lost), (read(2), vec![State::Present(3)]));
}

#[test]
fn s5_a_write_that_was_acknowledged_and_is_gone_is_caught() {
    assert_eq!(culprit(&[(0, 10, put(1)), (20, 30, NOTHING)]), (NOTHING, vec![State::Present(1)]));
    let refused = Action::Delete { existed: Some(false) };
    assert_eq!(culprit(&[(0, 10, put(1)), (20, 30, refused)]).0, refused);
    let unchanged = Action::Put { value: 1, changed: Some(false) };
    assert_eq!(culprit(&[(0, 10, put(1)), (20, 30, put(2)), (40, 50, unchanged)]).0, unchanged);
}

#[test]
fn s5_a_second_number_for_a_label_set_is_caught() {
    assert_eq!(culprit(&[(0, 90, allocate(7)), (10, 90, allocate(8))]).1, [State::Present(7)]);
    assert_eq!(judge(&[(0, 90, allocate(7)), (10, 90, allocate(7)), (95, 99, read(7))]), Ok(()));
    assert_eq!(culprit(&[(0, 10, allocate(7)), (20, 30, NOTHING)]).0, NOTHING);
}

#[test]
fn a_write_from_nowhere_is_caught() {
    assert_eq!(culprit(&[(0, 10, put(1)), (20, 30, read(9))]).0, read(9));
    assert_eq!(culprit(&[(20, 30, read(1)), (40, 50, put(1))]).0, read(1));
}

#[test]
fn an_unknown_outcome_may_come_late_once_or_never() {
    let late = [(0, NEVER, maybe_put(1)), (10, 20, put(2)), (30, 40, read(2)), (50, 60, read(1))];
    assert_eq!(judge(&late), Ok(()));
    assert_eq!(judge(&late[..3]), Ok(()));
    let twice = [&late[..], &[(70, 80, put(3)), (90, 95, read(1))]].concat();
    assert_eq!(culprit(&twice), (read(1), vec![State::Present(3)]));
    let gone = [(0, 10, put(1)), (20, NEVER, Action::Delete { existed: None }), (30, 40, read(1)), (50, 60, NOTHING)];
    assert_eq!(judge(&gone), Ok(()));
    assert_eq!(culprit(&[&gone[..], &[(70, 80, read(1))]].concat()).0, read(1));
    // A number that was given and not told is one number all the same.
    let told = [(0, NEVER, Action::Allocate { number: None }), (10, 20, read(7)), (30, 40, allocate(7))];
    assert_eq!(judge(&told), Ok(()));
    assert_eq!(culprit(&[&told[..2], &[(30, 40, allocate(8))]].concat()).0, allocate(8));
}

#[test]
fn calls_that_only_touch_overlap() {
    assert_eq!(judge(&[(0, 10, put(1)), (10, 20, NOTHING)]), Ok(()));
    assert_eq!(culprit(&[(0, 10, put(1)), (11, 20, NOTHING)]).0, NOTHING);
}

/// The definition, tried in every order: exponential, and easy to believe.
fn by_definition(history: &[Operation]) -> bool {
    fn place(rest: &[Operation], state: State) -> bool {
        if rest.iter().all(|operation| operation.end_ns.is_none()) {
            return true;
        }
        // The next one must not begin after another one of the rest was answered.
        let first_end = rest.iter().filter_map(|operation| operation.end_ns).min().unwrap_or(u64::MAX);
        (0..rest.len()).filter(|index| rest[*index].begin_ns <= first_end).any(|index| {
            let mut others = rest.to_vec();
            let next = others.remove(index);
            state.step(next.action).is_some_and(|state| place(&others, state))
        })
    }
    place(history, State::Absent)
}

#[test]
fn every_small_history_is_judged_as_the_definition_does() {
    let mut random = Random::new(11);
    let mut verdicts = [0, 0];
    for round in 0..30_000 {
        let (labels, single) = (random.chance(20), random.chance(50));
        let mut calls = Vec::new();
        for number in 0..random.between(2, 8) {
            let (value, told) = (random.below(3), random.chance(75));
            let begin = random.below(20);
            let flag = Some(random.chance(70)).filter(|_| told);
            let given = Some(value).filter(|_| told);
            let action = match random.below(if labels { 2 } else { 4 }) {
                0 => Action::Read { seen: Some(value).filter(|_| random.chance(70)) },
                1 if labels => Action::Allocate { number: given },
                1 | 2 => Action::Put { value: if single { number } else { value }, changed: flag },
                _ => Action::Delete { existed: flag },
            };
            let looked = matches!(action, Action::Read { .. });
            calls.push((begin, if told || looked { begin + random.below(12) } else { NEVER }, action));
        }
        let history = history(&calls);
        let expected = by_definition(&history);
        let judged = check(&history, BUDGET);
        assert_eq!(judged.is_ok(), expected, "round {round}: {calls:?}\n{judged:?}");
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 1000), "one-sided: {verdicts:?}");
}

/// What an honest register answers to `clients` clients that call all the time; `unknown` percent of the answers get lost.
fn honest(clients: u64, calls: u64, unknown: u64, seed: u64) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut free: BTreeMap<u64, u64> = (0..clients).map(|client| (client, client)).collect();
    let mut moments: Vec<(u64, Operation)> = Vec::new();
    for value in 1..=calls {
        let client = random.below(clients);
        let begin_ns = free[&client] + 1;
        let effect = begin_ns + random.below(50);
        let end = effect + random.below(50);
        let lost = random.chance(unknown);
        free.insert(client, end);
        let action = match random.below(10) {
            0..4 => put(value),
            4 => DELETED,
            _ => NOTHING,
        };
        let end_ns = (!lost || action == NOTHING).then_some(end);
        let client = usize::try_from(client).unwrap();
        // Some of those whose answer is lost take effect much later.
        let effect = if end_ns.is_none() && random.chance(50) { effect + random.below(5000) } else { effect };
        moments.push((effect, Operation { client, member: 0, action, begin_ns, end_ns }));
    }
    moments.sort_by_key(|(effect, _)| *effect);
    let mut state = State::Absent;
    for (_, operation) in &mut moments {
        let told = operation.end_ns.is_some();
        let seen = if let State::Present(value) = state { Some(value) } else { None };
        (operation.action, state) = match operation.action {
            Action::Put { value, .. } => (Action::Put { value, changed: told.then_some(true) }, State::Present(value)),
            Action::Delete { .. } => (Action::Delete { existed: told.then_some(seen.is_some()) }, State::Absent),
            _ => (Action::Read { seen }, state),
        };
    }
    moments.into_iter().map(|(_, operation)| operation).collect()
}

#[test]
fn ten_thousand_calls_on_one_key_are_judged_within_the_budget() {
    for (clients, unknown) in [(4, 0), (4, 2), (6, 1)] {
        let history = honest(clients, 10_000, unknown, clients);
        let begin = Instant::now();
        assert_eq!(check(&history, BUDGET), Ok(()), "{clients} clients, {unknown} % unknown");
        let honest = begin.elapsed();
        // One read near the end that sees a value of long ago.
        let mut stale = history;
        let old = stale.iter().find_map(|operation| match operation.action {
            Action::Put { value, changed: Some(_) } => Some(value),
            _ => None,
        });
        let at = stale.iter().rposition(|operation| matches!(operation.action, Action::Read { .. })).unwrap();
        stale[at].action = Action::Read { seen: old };
        let begin = Instant::now();
        assert!(matches!(check(&stale, BUDGET), Err(NotLinearizable::Violation { .. })));
        println!("{clients} clients, {unknown} % unknown: honest {honest:.1?}, stale {:.1?}", begin.elapsed());
    }
}

#[test]
fn a_search_beyond_its_budget_says_so() {
    let undecided = check(&honest(16, 1000, 10, 1), 100).unwrap_err();
    assert!(matches!(undecided, NotLinearizable::Undecided { operations: 1000, .. }), "{undecided}");
}
