//! One run of the drill, from the namespaces to the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::{Builder, Runtime};

use super::clients::{self, World};
use super::fabric::{self, Fabric};
use super::members::Members;
use super::nemesis::Nemesis;
use super::random::Random;
use super::recorder::Recorder;
use super::schedule::{Fault, Schedule, Step};
use super::verdict::{self, Verdict};
use super::watchers::{self, Position};
use crate::run::directory::RunDirectory;
use crate::run::janitor::Janitor;
use crate::run::{cleanup, gate, signals};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long streams may take to the head once all members are there.
const STREAM_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What the command line asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Members of the store.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    pub members: u8,
    /// How long faults are made.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What the faults and calls are drawn from (default: a new one, which is printed).
    #[arg(long)]
    pub seed: Option<u64>,
    /// Clients that call at the same time.
    #[arg(long, default_value_t = 6)]
    pub clients: usize,
    /// A store that is known to be wrong: the run succeeds if that is caught.
    #[arg(long, value_enum)]
    pub control: Option<Control>,
    /// A directory with `identityd` of an older build: members begin with it, and are upgraded one by one.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "control")]
    pub from: Option<PathBuf>,
}

/// What is wrong on purpose, to see that the drill sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// Clients read with `consistency=stale`.
    StaleReads,
    /// All members are killed and lose their disks.
    Amnesia,
}

/// Runs the drill; true if everything held, or in the control, if the stale reads were caught.
///
/// # Errors
/// When the drill could not be carried out; what it made is removed.
pub fn run(options: &Options, binaries: &Path) -> Result<bool> {
    fabric::enter()?;
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ Random::new(now_seed()).bits() >> 32);
    println!("store drill: {} members, {} s, seed {seed}", options.members, options.seconds);
    cleanup::remove_leftovers(false).context("cannot remove what an earlier run left")?;
    let run = RunDirectory::create()?;
    let janitor = Arc::new(Mutex::new(Some(Janitor::start(&run)?)));
    signals::watch(Arc::clone(&janitor))?;
    let outcome = play(options, seed, &run, binaries);
    gate::pass();
    // Without a janitor here, a signal has come and its thread ends the process.
    let Some(mut janitor) = janitor.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(false) };
    let success = match &outcome {
        Ok(verdict) if options.control.is_some() => verdict.is_caught(),
        Ok(verdict) => verdict.is_clean(),
        Err(_) => false,
    };
    if !success {
        janitor.keep_logs();
        println!(
            "again: ringfence-demo store --members {} --seconds {} --seed {seed}",
            options.members, options.seconds
        );
    }
    janitor.finish()?;
    outcome.map(|_| success)
}

fn now_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() ^ u64::from(now.subsec_nanos())
}

fn play(options: &Options, seed: u64, run: &RunDirectory, binaries: &Path) -> Result<Verdict> {
    let count = usize::from(options.members);
    let fabric = Fabric::create(run, count)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start tokio")?;
    let mut members = Members::start(run, binaries, options.from.as_deref(), count, runtime.handle().clone())?;
    members.leader(START_TIMEOUT)?;
    runtime.block_on(clients::lay_foundation(&members.channels())).context("the store takes no writes")?;

    let recorder = Arc::new(Recorder::new(count));
    let mut random = Random::new(seed);
    let positions = start_everybody(options, &runtime, &members, &recorder, &mut random);
    let begin = Instant::now();
    let amnesia = options.control == Some(Control::Amnesia);
    let mut nemesis = Nemesis::new(&mut members, &fabric, &recorder, amnesia);
    let mut played = nemesis.wait_for_all();
    let everything = Step { fault: Fault::KillAll, hold_ms: 500, rest_ms: 1000 };
    let schedule = Schedule::new(random.bits(), count);
    let steps: Box<dyn Iterator<Item = Step>> = match &options.from {
        Some(_) => Box::new(schedule.with_upgrades()),
        None if amnesia => Box::new(std::iter::repeat(everything)),
        None => Box::new(schedule),
    };
    let mut left = if options.from.is_some() { count } else { 0 };
    for step in steps {
        // A time that is too short for all upgrades is no reason to leave some out.
        if played.is_err() || left == 0 && begin.elapsed() > Duration::from_secs(options.seconds) {
            break;
        }
        left -= usize::from(matches!(step.fault, Fault::Upgrade(_)));
        played = nemesis.play(step).with_context(|| format!("during: {}", step.fault));
        if let Some(played) = nemesis.played.last().filter(|_| played.is_ok()) {
            println!("  {played}");
        }
        // Nothing that happens after a violation could make it good; a control is to go on.
        if played.is_err() || options.control.is_none() && !recorder.violations().is_empty() {
            break;
        }
    }
    // Calls under way end; the last of them may still become an entry.
    recorder.stop();
    let settled =
        played.and_then(|()| if options.control.is_none() { settle(&mut nemesis, &positions) } else { Ok(()) });
    if let Err(error) = settled {
        recorder.violation(&format!("{error:#}"));
    }
    let (faults, windows) = (nemesis.played, nemesis.windows);
    for line in members.alarming_lines() {
        recorder.violation(&line);
    }
    runtime.shutdown_background();
    let verdict = verdict::judge(&recorder, &windows, options.control == Some(Control::StaleReads));
    println!("{}", verdict.describe(&faults, begin.elapsed()));
    if options.control.is_some() {
        println!("control: {}", if verdict.is_caught() { "caught, not linearizable" } else { "NOT CAUGHT" });
    }
    write_evidence(run, &recorder, &verdict)?;
    Ok(verdict)
}

fn start_everybody(
    options: &Options,
    runtime: &Runtime,
    members: &Members,
    recorder: &Arc<Recorder>,
    random: &mut Random,
) -> Vec<Position> {
    let _inside = runtime.enter();
    let world = Arc::new(World {
        channels: members.channels(),
        recorder: Arc::clone(recorder),
        stale_reads: options.control == Some(Control::StaleReads),
        calls: AtomicU64::new(0),
    });
    for id in 0..options.clients {
        runtime.spawn(clients::run(id, Arc::clone(&world), Random::new(random.bits())));
    }
    watchers::start(members.servers(), recorder, random)
}

/// S14, L1 and S13's last word: all members and all streams come to the same revision.
fn settle(nemesis: &mut Nemesis<'_>, positions: &[Position]) -> Result<()> {
    let begin = Instant::now();
    let head = nemesis.converge()?;
    println!("  all members are at revision {head} after {:.1?}", begin.elapsed());
    let begin = Instant::now();
    loop {
        let behind = positions.iter().find(|position| position.revision.load(Ordering::SeqCst) < head);
        let Some(behind) = behind else {
            println!("  all streams are there after {:.1?}", begin.elapsed());
            return Ok(());
        };
        if begin.elapsed() > STREAM_TIMEOUT {
            let at = behind.revision.load(Ordering::SeqCst);
            bail!("S13: {} stays at revision {at}; the head is {head}", behind.stream);
        }
        thread::sleep(POLL);
    }
}

/// The history beside the logs, for whoever has to find out what happened; they are kept if the run fails.
fn write_evidence(run: &RunDirectory, recorder: &Recorder, verdict: &Verdict) -> Result<()> {
    let write = |name: &str, text: String| {
        let path: PathBuf = run.logs().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let lines: Result<Vec<String>, _> = recorder.calls().iter().map(serde_json::to_string).collect();
    write("history.jsonl", lines.context("a call has no part that JSON refuses")?.join("\n"))?;
    write("violations.txt", verdict.violations.join("\n"))
}
