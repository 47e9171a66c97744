//! The stored fuzz corpus and a fixed set of mutations of it, on the stable compiler: nothing panics, nothing takes long,
//! what is accepted keeps its meaning (`fuzz_areas`).
//!
//! `RINGFENCE_WRITE_CORPUS=1` writes the seeds anew, after a format has changed.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fuzz_areas;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

use fuzz_areas::seeds;

/// Far above what any input takes, even on a busy machine and without optimisation.
const LONGEST: Duration = Duration::from_secs(2);
/// A machine that pauses once is not a finding: the fastest of so many attempts counts.
const ATTEMPTS: usize = 3;
const MOST_BYTES: usize = 8 << 10;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Accepted,
    Refused,
}

/// Runs the seeds, which must be accepted, the stored findings, and so many mutations of both.
fn run(area: &str, seeds: Vec<(&str, Vec<u8>)>, mutations: usize, exercise: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(area);
    if std::env::var_os("RINGFENCE_WRITE_CORPUS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() <= MOST_BYTES, "{} has {} bytes", path.display(), bytes.len());
        check(&path.display().to_string(), exercise, &bytes);
        files.push(bytes);
    }
    for (name, bytes) in seeds {
        assert_eq!(check(name, exercise, &bytes), Outcome::Accepted, "{area}: the seed {name} is refused");
        assert!(files.contains(&bytes), "{area}: {name} has changed: write the corpus anew (RINGFENCE_WRITE_CORPUS=1)");
    }
    let mut mutator = Mutator { files: &files, state: 0x9e37_79b9_7f4a_7c15 };
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for number in 0..mutations {
        let bytes = mutator.next();
        *outcomes.entry(check(&format!("{area}, mutation {number}"), exercise, &bytes)).or_default() += 1;
    }
    println!("{area}: {} files, {mutations} mutations: {outcomes:?}", files.len());
    // Mutations that are all refused, or all accepted, reach nothing.
    assert!(outcomes.values().all(|count| *count * 50 > mutations) && outcomes.len() == 2, "{area}: {outcomes:?}");
}

/// Runs one input; prints it if it fails.
fn check(name: &str, exercise: fn(&[u8]) -> bool, bytes: &[u8]) -> Outcome {
    let attempt = || {
        let start = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| exercise(bytes))) {
            Ok(accepted) => (start.elapsed(), if accepted { Outcome::Accepted } else { Outcome::Refused }),
            Err(panic) => {
                println!("{name} fails: b\"{}\"", bytes.escape_ascii());
                resume_unwind(panic);
            }
        }
    };
    let fast = (0..ATTEMPTS).map(|_| attempt()).find(|(elapsed, _)| *elapsed < LONGEST);
    fast.unwrap_or_else(|| panic!("{name} takes longer than {LONGEST:?}: b\"{}\"", bytes.escape_ascii())).1
}

/// Makes one mutation of a stored input after the other, the same ones in every run.
struct Mutator<'f> {
    files: &'f [Vec<u8>],
    state: u64,
}

/// Bytes at which readers change their minds: ends of varints, lengths, tags.
const TOKENS: [&[u8]; 9] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80, 1],
    &[0xff],
    &[0xff; 4],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0; 8],
];

impl Mutator<'_> {
    fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.file();
        for _ in 0..=self.below(3) {
            self.change(&mut bytes);
        }
        bytes.truncate(MOST_BYTES);
        bytes
    }

    fn file(&mut self) -> Vec<u8> {
        let at = self.below(self.files.len());
        self.files[at].clone()
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let start = self.below(bytes.len() + 1);
        let end = bytes.len().min(start + self.below(16));
        match self.below(7) {
            0 => drop(bytes.drain(start..end)),
            1 => {
                let (copy, at) = (bytes[start..end].to_vec(), self.below(bytes.len() + 1));
                drop(bytes.splice(at..at, copy));
            }
            2 => {
                let other = self.file();
                let from = self.below(other.len() + 1);
                let part = other[from..other.len().min(from + 32)].to_vec();
                drop(bytes.splice(start..end, part));
            }
            3 | 4 if start < end => bytes[start] ^= 1 << self.below(8),
            5 if start < end => bytes[start] = u8::try_from(self.below(256)).unwrap(),
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                drop(bytes.splice(start..end.min(start + token.len()), token.iter().copied()));
            }
        }
    }

    /// A number below `bound`, which is not 0 (xorshift64*, Vigna 2016).
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        usize::try_from(self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap() % bound
    }
}

#[test]
fn wal() {
    run("wal", seeds::wal(), 2000, fuzz_areas::wal::exercise);
}

#[test]
fn snapshot() {
    run("snapshot", seeds::snapshot(), 1000, fuzz_areas::snapshot::exercise);
}

#[test]
fn command() {
    run("command", seeds::command(), 2000, fuzz_areas::command::exercise);
}

#[test]
fn message() {
    run("message", seeds::message(), 3000, fuzz_areas::message::exercise);
}

#[test]
fn history() {
    run("history", seeds::history(), 2000, fuzz_areas::history::exercise);
}

#[test]
fn backup() {
    run("backup", seeds::backup(), 3000, fuzz_areas::backup::exercise);
}
