//! `cargo xtask test`: everything that CI runs, with one summary.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::demo::Profile;
use crate::{demo, setup, shell, tidy, verify_ebpf};

/// How a step ended.
#[derive(Debug)]
enum End {
    Done,
    Skipped(&'static str),
}

type Step = (&'static str, fn() -> Result<End>);

/// How many generated worlds the engine is compared with its specification in; plain `cargo test` does with fewer.
const WORLDS: &str = "10000";
/// In the run of all tests, which compiles without optimisation.
const FEW_WORLDS: &str = "64";
/// Property tests draw the same worlds every time here, so that a run can be repeated; plain `cargo test` draws new ones.
const SEED: &str = "20261120";

const STEPS: [Step; 7] = [
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("unit and integration tests", tests),
    ("10,000 generated worlds", worlds),
    ("tidy", || tidy::run().map(|()| End::Done)),
    ("eBPF objects", verify_ebpf),
    ("demo as end-to-end test", || demo::run_as_test(Profile::Dev).map(|()| End::Done)),
];

/// Runs every step; stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    if !shell::is_root() {
        println!("not root: tests that need network namespaces or eBPF are skipped, the demo uses the memory datapath");
    }
    setup::for_builds()?;
    run_steps(&STEPS)
}

fn run_steps(steps: &[Step]) -> Result<()> {
    let mut lines = Vec::new();
    let mut failure = None;
    for (name, step) in steps {
        println!("\n── {name} ──");
        let begin = Instant::now();
        let end = step();
        lines.push(summary_line(name, &end, begin.elapsed()));
        if let Err(error) = end {
            failure = Some((name, error));
            break;
        }
    }
    println!("\nSummary");
    for line in &lines {
        println!("  {line}");
    }
    for (name, _) in &steps[lines.len()..] {
        println!("  {name:<28} not run");
    }
    match failure {
        None => Ok(()),
        Some((name, error)) => bail!("step `{name}` failed: {error:#}"),
    }
}

fn summary_line(name: &str, end: &Result<End>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match end {
        Ok(End::Done) => format!("{name:<28} ok      {seconds:7.1} s"),
        Ok(End::Skipped(why)) => format!("{name:<28} skipped {seconds:7.1} s  {why}"),
        Err(_) => format!("{name:<28} FAILED  {seconds:7.1} s"),
    }
}

fn cargo(arguments: &[&str]) -> Result<End> {
    shell::show(shell::cargo().args(arguments)).map(|()| End::Done)
}

fn tests() -> Result<End> {
    if shell::is_root() {
        setup::for_tests()?;
        install_clock();
    }
    run_tests(&["--workspace"], FEW_WORLDS)
}

/// With libfaketime the store's members get wall clocks that jump; without it that test says that it is skipped.
fn install_clock() {
    if !shell::is_installed("apt-get") || library_is_there("faketime") {
        return;
    }
    if let Err(error) = setup::install(&BTreeSet::from(["libfaketime"])) {
        println!("libfaketime cannot be installed: {error:#}");
    }
}

/// Whether Debian has put a directory of this name beside the libraries of some architecture.
fn library_is_there(directory: &str) -> bool {
    let architectures = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    architectures.map(|entry| entry.path().join(directory)).any(|path| path.is_dir())
}

/// The engine, its tables and its histories against the specification. Optimised, which pays from a few thousand worlds
/// on; every other build of the crate would only get slower, so no profile has it.
fn worlds() -> Result<End> {
    const OPTIMISED: [&str; 6] = [
        "--config",
        "profile.dev.package.ringfence-policy.opt-level=1",
        "--config",
        "profile.dev.package.saphyr-parser.opt-level=1",
        "-p",
        "ringfence-policy",
    ];
    println!("RINGFENCE_WORLDS={WORLDS} PROPTEST_RNG_SEED={SEED}");
    let run = |tests: &[&str]| run_tests(&[&OPTIMISED, tests].concat(), WORLDS);
    run(&["--test", "engine", "--test", "compile_histories", "--test", "rules", "--no-run"])?;
    // The tables' tests have one thread only.
    thread::scope(|scope| {
        let histories = scope.spawn(|| run(&["--test", "engine"]));
        run(&["--test", "rules", "--", "agreement::s15"])?;
        run(&["--test", "compile_histories"])?;
        histories.join().unwrap_or_else(|_| bail!("the run of the histories panicked"))
    })
}

fn run_tests(arguments: &[&str], worlds: &str) -> Result<End> {
    let mut command = shell::cargo();
    command.args(["test", "--locked"]).args(arguments);
    command.env("PROPTEST_RNG_SEED", SEED).env("RINGFENCE_WORLDS", worlds);
    shell::show(&mut command).map(|()| End::Done)
}

fn verify_ebpf() -> Result<End> {
    if !verify_ebpf::is_possible() {
        return Ok(End::Skipped(
            "bpf-linker is not installed (as root on Debian this would install it); the build compared the hash of the sources",
        ));
    }
    verify_ebpf::run(&verify_ebpf::Arguments::default()).map(|()| End::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failing_step_is_named_and_ends_the_run() {
        let steps: [Step; 3] = [
            ("one", || Ok(End::Skipped("no reason"))),
            ("two", || bail!("broken")),
            ("three", || panic!("must not run")),
        ];
        let error = run_steps(&steps).unwrap_err().to_string();
        assert!(error.contains("`two` failed: broken"), "{error}");
        assert!(run_steps(&steps[..1]).is_ok());
    }
}
