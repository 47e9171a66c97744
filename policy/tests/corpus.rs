//! The stored fuzz corpus and a fixed set of mutations of it, on the stable compiler: nothing panics, nothing takes
//! long, what is accepted keeps its meaning (`fuzz_areas`).

mod fuzz_areas;
mod mutation;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

use mutation::Mutator;

/// Far above what any input takes, even on a busy machine and without optimisation.
const LONGEST: Duration = Duration::from_secs(2);
/// A machine that pauses once is not a finding: the fastest of so many attempts counts.
const ATTEMPTS: usize = 3;
const MOST_FILES: usize = 40;
const MOST_BYTES: usize = 4 << 10;

/// Runs the stored files of an area and so many mutations of them.
fn run(area: &str, mutations: usize, exercise: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(area);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a readable file")).collect();
    assert!((1..=MOST_FILES).contains(&files.len()), "{area} has {} files", files.len());
    for (path, bytes) in paths.iter().zip(&files) {
        assert!(bytes.len() <= MOST_BYTES, "{} has {} bytes", path.display(), bytes.len());
        check(&path.display().to_string(), exercise, bytes);
    }
    let mut mutator = Mutator::new(&files);
    for number in 0..mutations {
        let bytes = mutator.next();
        check(&format!("{area}, mutation {number}"), exercise, &bytes);
    }
}

/// Runs one input; prints it if it fails.
fn check(name: &str, exercise: fn(&[u8]), bytes: &[u8]) {
    let attempt = |_| {
        let start = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| exercise(bytes))) {
            println!("{name} fails: b\"{}\"", bytes.escape_ascii());
            resume_unwind(panic);
        }
        start.elapsed()
    };
    let fast = (0..ATTEMPTS).map(attempt).any(|elapsed| elapsed < LONGEST);
    assert!(fast, "{name} takes longer than {LONGEST:?}: b\"{}\"", bytes.escape_ascii());
}

#[test]
fn objects() {
    // Most mutations of an object are refused early.
    run("objects", 6_000, fuzz_areas::objects::exercise);
}

#[test]
fn documents() {
    run("documents", 2_000, fuzz_areas::documents::exercise);
}

#[test]
fn labels() {
    run("labels", 2_000, fuzz_areas::labels::exercise);
}

#[test]
fn dns() {
    run("dns", 2_000, fuzz_areas::dns::exercise);
}

#[test]
fn http() {
    run("http", 2_000, fuzz_areas::http::exercise);
}

#[test]
fn addresses() {
    run("addresses", 2_000, fuzz_areas::addresses::exercise);
}
