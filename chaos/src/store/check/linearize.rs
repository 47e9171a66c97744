//! Is one key's history linearizable: is there an order of its calls, each at a moment between its begin and its answer,
//! in which every answer is right?
//!
//! ```text
//! begins and answers in the order of time ─► a configuration that explains all answers so far (search.rs)
//!                                             no way on ─► back to the last choice; none left ─► Violation
//! ```
//!
//! Wing & Gong (1993) search for the order; Lowe (2017) does it just in time: a call takes effect in a configuration no
//! earlier than an answer needs it. What led nowhere is remembered, so that nothing is tried twice.
//! Two rules keep the configurations few where there is much to choose from:
//!
//! * Calls of unknown outcome stay open to the end. One takes effect only where the next answer would be wrong without it:
//!   an effect that nobody sees before it is overwritten may as well never happen.
//! * Of two overlapping puts in a row the first is seen by nobody. Instead of trying such rows in every order, a change
//!   marks all open puts as `unseen`: they may have come just before it, and can be answered without any other trace. That
//!   holds for puts of values that no other put has, since then nothing between them can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use super::history::{Action, Operation};
use super::search::{Configuration, Frontier, State, Unknown, only_looked};

/// Configurations tried in one history before it is given up as undecided.
///
/// Enough for 10,000 calls of 8 clients that never pause, all on one key, with 10 % of unknown outcome (half a second
/// when optimised); of 12 such clients it is not.
pub const BUDGET: usize = 5_000_000;
/// The part of the budget that the search in depth may use; in breadth it may use all.
const DEEP_SHARE: usize = 4;
/// Calls shown before the one that cannot be explained.
const SHOWN: usize = 12;

/// Why a history is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinearizable {
    /// No order of the calls explains all answers.
    #[error("{}", explain(*at, states, history))]
    Violation {
        /// The first answer that cannot be explained, as an index into `history`.
        at: usize,
        /// What the key may have held just before that answer.
        states: BTreeSet<State>,
        /// All operations in the order of their begins.
        history: Vec<Operation>,
    },
    /// The search became too long; nothing is known.
    #[error("undecided after {tried} configurations ({operations} calls): not shown to be linearizable")]
    Undecided {
        /// Configurations looked at.
        tried: usize,
        /// Calls in the history.
        operations: usize,
    },
}

/// Judges the operations of one key, which holds nothing at first.
///
/// # Errors
/// `NotLinearizable::Violation` with the first answer that cannot be explained; `Undecided` when more than `budget`
/// configurations had to be tried.
pub fn check(operations: &[Operation], budget: usize) -> Result<(), NotLinearizable> {
    let mut history = operations.to_vec();
    history.sort_by_key(|operation| operation.begin_ns);
    let events = events(&history);
    match Search::new(&history, &events, budget / DEEP_SHARE).run(Ways::Deep) {
        Err(Ended::Undecided { .. }) => {}
        ended => return report(ended, history, &events),
    }
    report(Search::new(&history, &events, budget).run(Ways::Broad), history, &events)
}

/// Which configuration is looked into next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    /// The most promising one of those that explain the most: soon at the end of a history that is all right.
    Deep,
    /// All that explain the same answers together, so that each only meets its equals: sooner done with one that is not.
    Broad,
}

/// Why a search found no order.
#[derive(Debug)]
enum Ended {
    /// There is none: the position of the last answer that was reached, and what was before it.
    Nowhere { position: usize, before: Frontier },
    /// The budget is used up.
    Undecided { tried: usize },
}

fn report(ended: Result<(), Ended>, history: Vec<Operation>, events: &[Event]) -> Result<(), NotLinearizable> {
    ended.map_err(|ended| match ended {
        Ended::Nowhere { position, before } => {
            let states = before.into_configurations().into_iter().map(|configuration| configuration.state).collect();
            NotLinearizable::Violation { at: events[position].index, states, history }
        }
        Ended::Undecided { tried } => NotLinearizable::Undecided { tried, operations: history.len() },
    })
}

/// A begin or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ns: u64,
    /// At the same moment begins come first: such calls overlap.
    is_answer: bool,
    index: usize,
}

fn events(history: &[Operation]) -> Vec<Event> {
    let begin = |(index, operation): (usize, &Operation)| Event { at_ns: operation.begin_ns, is_answer: false, index };
    let answer =
        |(index, operation): (usize, &Operation)| Some(Event { at_ns: operation.end_ns?, is_answer: true, index });
    let begins = history.iter().enumerate().map(begin);
    let mut events: Vec<_> = begins.chain(history.iter().enumerate().filter_map(answer)).collect();
    events.sort_unstable();
    events
}

fn seen(history: &[Operation]) -> BTreeSet<u64> {
    let seen = |operation: &Operation| match operation.action {
        Action::Read { seen } => seen,
        Action::Put { value, changed: Some(false) } => Some(value),
        _ => None,
    };
    history.iter().filter_map(seen).collect()
}

/// Answered puts that changed the value to one that no other put has.
fn single_puts(history: &[Operation]) -> BTreeSet<usize> {
    let mut puts: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, operation) in history.iter().enumerate() {
        if let Action::Put { value, .. } = operation.action {
            puts.entry(value).or_default().push(index);
        }
    }
    let single = puts.into_values().filter(|indices| indices.len() == 1).flatten();
    single.filter(|index| matches!(history[*index].action, Action::Put { changed: Some(true), .. })).collect()
}

/// A configuration to look into further.
struct Waiting {
    configuration: Configuration,
    /// The state before, if the last step was a single put that nobody has seen yet.
    unseen_since: Option<State>,
}

struct Search<'a> {
    history: &'a [Operation],
    events: &'a [Event],
    /// Events up to here are in `open` and `unknown`.
    position: usize,
    /// Begun, and answered later.
    open: BTreeSet<usize>,
    /// Begun, and never answered.
    unknown: Unknown,
    single: BTreeSet<usize>,
    tried: usize,
    budget: usize,
}

impl<'a> Search<'a> {
    fn new(history: &'a [Operation], events: &'a [Event], budget: usize) -> Self {
        let (single, unknown) = (single_puts(history), Unknown::new(seen(history)));
        Self { history, events, position: 0, open: BTreeSet::new(), unknown, single, tried: 0, budget }
    }

    fn run(mut self, ways: Ways) -> Result<(), Ended> {
        // For each position: the configurations to go on from, and for each answer those that were there before it.
        let mut waiting = BTreeMap::from([(0, vec![Configuration::new(State::Absent)])]);
        let mut visited: BTreeMap<usize, Frontier> = BTreeMap::new();
        while let Some(mut level) = if ways == Ways::Deep { waiting.last_entry() } else { waiting.first_entry() } {
            let start = *level.key();
            let next = if ways == Ways::Deep { level.get_mut().pop().into_iter().collect() } else { level.remove() };
            if waiting.get(&start).is_some_and(Vec::is_empty) {
                waiting.remove(&start);
            }
            let mut fresh = Frontier::default();
            let mut found = None;
            for mut configuration in next {
                let Some(answer) = self.next_answer(start, &mut configuration) else { return Ok(()) };
                found = Some(answer);
                if visited.entry(answer.0).or_default().keep(configuration.clone()) {
                    fresh.keep(configuration);
                }
            }
            let Some((position, index)) = found else { continue };
            for configuration in fresh.into_configurations() {
                waiting.entry(position + 1).or_default().extend(self.explain(index, configuration)?);
            }
            if let Some(level) = waiting.get_mut(&(position + 1)) {
                level.sort_by_key(Configuration::promise);
            }
        }
        let (position, before) = visited.pop_last().expect("without an answer the search ends above");
        Err(Ended::Nowhere { position, before })
    }

    /// Goes to the first answer from a position on, which may lie behind; whoever begins before it may look at once.
    fn next_answer(&mut self, position: usize, configuration: &mut Configuration) -> Option<(usize, usize)> {
        while self.position > position {
            self.position -= 1;
            self.pass(self.events[self.position], true);
        }
        while let Some(event) = self.events.get(self.position) {
            if event.is_answer && self.position >= position {
                self.look(configuration);
                return Some((self.position, event.index));
            }
            self.pass(*event, false);
            self.position += 1;
        }
        None
    }

    fn pass(&mut self, event: Event, is_back: bool) {
        let (index, operation) = (event.index, self.history[event.index]);
        match (operation.end_ns, event.is_answer != is_back) {
            (Some(_), false) => drop(self.open.insert(index)),
            (Some(_), true) => drop(self.open.remove(&index)),
            (None, false) => self.unknown.add(index, operation.action),
            (None, true) => self.unknown.remove(index, operation.action),
        }
    }

    /// Every configuration in which the operation has taken effect, reached from this one.
    fn explain(&mut self, index: usize, from: Configuration) -> Result<Vec<Configuration>, Ended> {
        let (mut explained, mut reached) = (Frontier::default(), Frontier::default());
        let mut waiting = vec![Waiting { configuration: from, unseen_since: None }];
        while !waiting.is_empty() {
            let mut next = Vec::new();
            for Waiting { mut configuration, unseen_since } in waiting {
                // Just in time: one that has the operation done is not looked into any further.
                if configuration.changed.remove(&index) | configuration.looked.remove(&index) {
                    explained.keep(configuration);
                    continue;
                }
                if !reached.keep(configuration.clone()) {
                    continue;
                }
                if configuration.unseen.contains(&index) {
                    let mut answered = configuration.clone();
                    answered.unseen.remove(&index);
                    explained.keep(answered);
                }
                next.extend(self.successors(&Waiting { configuration, unseen_since })?);
            }
            waiting = next;
        }
        Ok(explained.into_configurations())
    }

    /// One more answered call takes effect, with the help of one of unknown outcome if need be.
    fn successors(&mut self, from: &Waiting) -> Result<Vec<Waiting>, Ended> {
        let Waiting { configuration, unseen_since } = from;
        let mut successors = Vec::new();
        let is_done = |index: &usize| configuration.changed.contains(index) || configuration.looked.contains(index);
        for index in self.open.iter().filter(|index| !is_done(index)) {
            let action = self.history[*index].action;
            self.tried += 1;
            // After a put that nobody saw: what is right without it is tried without it.
            if unseen_since.is_some_and(|before| !only_looked(action) && before.step(action).is_some()) {
                continue;
            }
            if let Some(successor) = self.step(configuration, *index) {
                successors.push(successor);
                continue;
            }
            for (helper, help) in self.unknown.helpers(action, &configuration.used) {
                self.tried += 1;
                let Some(state) = configuration.state.step(help) else { continue };
                let mut helped = Configuration { state, ..configuration.clone() };
                Rc::make_mut(&mut helped.used).insert(helper);
                self.mark_unseen(&mut helped);
                successors.extend(self.step(&helped, *index));
            }
        }
        if self.tried > self.budget {
            return Err(Ended::Undecided { tried: self.tried });
        }
        Ok(successors)
    }

    /// An answered call takes effect.
    fn step(&self, from: &Configuration, index: usize) -> Option<Waiting> {
        let action = self.history[index].action;
        let mut configuration = Configuration { state: from.state.step(action)?, ..from.clone() };
        if only_looked(action) {
            configuration.looked.insert(index);
        } else {
            configuration.changed.insert(index);
            configuration.unseen.remove(&index);
            self.mark_unseen(&mut configuration);
        }
        self.look(&mut configuration);
        let is_unseen = self.single.contains(&index) && configuration.looked.len() == from.looked.len();
        Some(Waiting { configuration, unseen_since: is_unseen.then_some(from.state) })
    }

    /// A change was made: other puts may have been there just before it.
    fn mark_unseen(&self, configuration: &mut Configuration) {
        let others = self.open.intersection(&self.single).filter(|index| !configuration.changed.contains(index));
        configuration.unseen.extend(others);
    }

    /// Whoever only looks has looked as soon as the state is what it will tell: that takes nothing from any other call.
    fn look(&self, configuration: &mut Configuration) {
        for index in &self.open {
            let action = self.history[*index].action;
            if only_looked(action)
                && !configuration.looked.contains(index)
                && let Some(state) = configuration.state.step(action)
            {
                // A number that nobody knew is known from here on.
                configuration.state = state;
                configuration.looked.insert(*index);
            }
        }
    }
}

fn explain(at: usize, states: &BTreeSet<State>, history: &[Operation]) -> String {
    let states: Vec<String> = states.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "not linearizable: no order of the calls explains\n      {}\n    before that answer the key held {}; the calls before:",
        history[at],
        states.join(" or ")
    );
    let end = history[at].end_ns.unwrap_or(u64::MAX);
    let before: Vec<_> = history.iter().filter(|other| other.begin_ns <= end && **other != history[at]).collect();
    for operation in &before[before.len().saturating_sub(SHOWN)..] {
        text.push_str(&format!("\n      {operation}"));
    }
    text
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Present(value) => value.fmt(f),
            Self::SomeNumber => f.write_str("a number that nobody was told"),
        }
    }
}

#[cfg(test)]
mod tests;
