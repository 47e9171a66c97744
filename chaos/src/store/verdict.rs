//! Everything that is judged after a run.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::check::history::{self, Action, Call, Key, Outcome};
use super::check::linearize::{self, NotLinearizable};
use super::check::{numbers, order};
use super::fabric::role;
use super::nemesis::{Played, Window};
use super::recorder::Recorder;

/// Violations shown; all are written beside the logs.
const SHOWN: usize = 5;

/// What a run has shown.
#[derive(Debug)]
pub struct Verdict {
    /// In words, the first cause first; empty if all held.
    pub violations: Vec<String>,
    /// Whether a key's history has no order that explains it.
    pub not_linearizable: bool,
    figures: String,
}

/// Judges what was recorded. `stale_reads`: reads were not meant to be linearizable, also those of a minority.
#[must_use]
pub fn judge(recorder: &Recorder, windows: &[Window], stale_reads: bool) -> Verdict {
    let begin = Instant::now();
    let (calls, trail) = (recorder.calls(), recorder.trail());
    let mut violations = recorder.violations();
    let keys = history::by_key(&calls);
    let mut not_linearizable = false;
    for (key, operations) in &keys {
        if let Err(error) = linearize::check(operations, linearize::BUDGET) {
            not_linearizable |= matches!(error, NotLinearizable::Violation { .. });
            violations.push(format!("S5: {key}: {error}"));
        }
    }
    violations.extend(numbers::check(&calls).err().map(|error| format!("S5: {error}")));
    violations.extend(order::check(&calls).err().map(|error| format!("S5: {error}")));
    let compared = trail.explains(&calls).unwrap_or_else(|error| {
        violations.push(format!("S13: {error}"));
        0
    });
    if compared == 0 && !trail.is_empty() {
        violations.push("S13: no answer could be compared with the streams: the drill has proved nothing".to_owned());
    }
    for (key, value) in trail.carried(&refused(&calls)) {
        violations.push(format!("S11: the writer of {key} = {value} was told that nothing was done, and it was done"));
    }
    violations.extend(
        calls.iter().filter(|call| !(stale_reads && call.is_read())).filter_map(|call| minority(call, windows)),
    );
    let count = |wanted: fn(&Outcome) -> bool| calls.iter().filter(|call| wanted(&call.outcome)).count();
    let figures = format!(
        "{} calls ({} answered, {} surely not carried out, {} of unknown outcome) on {} keys; {} revisions and {} snapshots in the streams, \
         {compared} answers compared with them; {} writes asked of cut-off members; judged in {:.1?}",
        calls.len(),
        count(|outcome| matches!(outcome, Outcome::Answered { .. })),
        count(|outcome| *outcome == Outcome::Failed),
        count(|outcome| *outcome == Outcome::Unknown),
        keys.len(),
        trail.len(),
        trail.snapshots(),
        asked_of_minorities(&calls, windows),
        begin.elapsed(),
    );
    Verdict { violations, not_linearizable, figures }
}

/// Values whose writers were told that nothing was done.
fn refused(calls: &[Call]) -> BTreeSet<(Key, u64)> {
    let failed = calls.iter().filter(|call| call.outcome == Outcome::Failed).flat_map(|call| &call.parts);
    let value = |(key, action): &(Key, Action)| match action {
        Action::Put { value, .. } => Some((key.clone(), *value)),
        _ => None,
    };
    failed.filter_map(value).collect()
}

/// Writes to members that reached no majority all the time.
fn asked_of_minorities(calls: &[Call], windows: &[Window]) -> usize {
    let asked = |call: &&Call| {
        let began_in = |window: &Window| (window.from_ns..window.to_ns).contains(&call.begin_ns);
        windows.iter().any(|window| window.minority.contains(&call.member) && began_in(window))
    };
    calls.iter().filter(asked).count()
}

/// S11: who reaches no majority answers nothing that needs one.
fn minority(call: &Call, windows: &[Window]) -> Option<String> {
    let end_ns = call.end_ns()?;
    let inside = |window: &&Window| {
        window.minority.contains(&call.member) && window.from_ns <= call.begin_ns && end_ns <= window.to_ns
    };
    let window = windows.iter().find(inside)?;
    let (member, from_ms) = (role(call.member), window.from_ns / 1_000_000);
    Some(format!("S11: {member}, cut off since {from_ms} ms, answered {call:?}"))
}

impl Verdict {
    /// Nothing was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The control: a history that is not linearizable was found to be so.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.not_linearizable
    }

    /// For people.
    #[must_use]
    pub fn describe(&self, faults: &[Played], took: Duration) -> String {
        let mut text = format!("{} faults in {:.0} s; {}\n", faults.len(), took.as_secs_f64(), self.figures);
        let worst = |time: fn(&Played) -> Option<Duration>| {
            let worst = faults.iter().filter_map(|played| Some((time(played)?, &played.what))).max();
            worst.map_or_else(|| "none".to_owned(), |(time, what)| format!("{:.1} s ({what})", time.as_secs_f64()))
        };
        let _ = writeln!(text, "longest until a majority made progress: {}", worst(|played| played.progress));
        let _ = writeln!(text, "longest until all members served again: {}", worst(|played| Some(played.recovery)));
        if self.is_clean() {
            text.push_str("S5, S11, S13, S14, L1, L2 held");
        }
        for violation in self.violations.iter().take(SHOWN) {
            let _ = writeln!(text, "VIOLATION {violation}");
        }
        if self.violations.len() > SHOWN {
            let _ = writeln!(text, "and {} more", self.violations.len() - SHOWN);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(member: usize, begin_ns: u64, at_ns: u64) -> Call {
        let outcome = Outcome::Answered { at_ns, revision: Some(1) };
        let put = Action::Put { value: 7, changed: Some(true) };
        Call { client: 0, member, begin_ns, outcome, parts: vec![(Key::Policy("p".to_owned()), put)] }
    }

    #[test]
    fn s11_an_answer_of_a_minority_is_caught() {
        let windows = [Window { from_ns: 10, to_ns: 20, minority: vec![1] }];
        assert!(minority(&call(1, 11, 19), &windows).is_some_and(|text| text.contains("m2, cut off")));
        for fine in [call(0, 11, 19), call(1, 9, 19), call(1, 11, 21)] {
            assert_eq!(minority(&fine, &windows), None, "{fine:?}");
        }
    }

    #[test]
    fn a_lying_store_is_caught_and_an_honest_one_is_not() {
        let recorder = Recorder::new(1);
        recorder.add(call(0, 1, 2));
        assert!(judge(&recorder, &[], false).is_clean());
        let outcome = Outcome::Answered { at_ns: 5, revision: Some(1) };
        let look = (Key::Policy("p".to_owned()), Action::Read { seen: None });
        recorder.add(Call { client: 1, member: 0, begin_ns: 4, outcome, parts: vec![look] });
        let verdict = judge(&recorder, &[], false);
        assert!(verdict.is_caught() && !verdict.is_clean());
        assert!(verdict.describe(&[], Duration::ZERO).contains("VIOLATION S5: policy p: not linearizable"));
    }
}
