//! One run of the demo, from the lock to the removal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::policies::Policies;
use super::report::Report;
use super::{Stage, cut, heal, kill, policies, preflight};
use crate::demo::expected::Rules;
use crate::run::cleanup;
use crate::run::directory::RunDirectory;
use crate::run::gate;
use crate::run::janitor::Janitor;
use crate::run::lock::RunLock;
use crate::run::signals;
use crate::testbed::network::ADMIN;
use crate::testbed::start::Binaries;
use crate::testbed::topology::CLUSTERS;
use crate::testbed::{Mode, Testbed};

const START_TIMEOUT: Duration = Duration::from_secs(90);

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave the mesh up at the end.
    pub keep: bool,
    /// The memory datapath, also as root.
    pub memory: bool,
    /// Where identityd, mesh-gateway, ringfence-agent and ringfence are.
    pub binaries: PathBuf,
}

/// The janitor, shared with the thread that waits for signals; finished when this is dropped, also by a panic.
struct Cleaner(Arc<Mutex<Option<Janitor>>>);

impl Cleaner {
    fn take(&self) -> Option<Janitor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Runs the demo; true when every expectation held.
///
/// # Errors
/// When the demo could not be carried out; what it made is removed.
pub fn run(options: &Options) -> Result<bool> {
    let (mode, first_line) = preflight::choose(options.memory)?;
    println!("{first_line}");
    let binaries = Binaries::in_directory(&options.binaries)?;
    let _lock = RunLock::take()?;
    for id in cleanup::remove_leftovers(false).context("cannot remove what an earlier run left")? {
        println!("removed what run {id} had left");
    }
    let mut run = RunDirectory::create()?;
    let cleaner = Cleaner(Arc::new(Mutex::new(Some(Janitor::start(&run)?))));
    signals::watch(Arc::clone(&cleaner.0))?;
    let outcome = play(mode, &run, &binaries, options.keep);
    if let Err(error) = &outcome {
        eprintln!("\nThe demo could not go on: {error:#}");
    }
    let success = *outcome.as_ref().unwrap_or(&false);
    // Without a janitor here, a signal has come and its thread ends the process.
    gate::pass();
    let Some(mut janitor) = cleaner.take() else { return Ok(false) };
    if options.keep && outcome.is_ok() {
        run.mark_kept()?;
        janitor.leave()?;
        println!("{}", how_to_use(mode, &run, &options.binaries));
        return Ok(success);
    }
    if !success {
        janitor.keep_logs();
    }
    janitor.finish()?;
    Ok(success)
}

fn play(mode: Mode, run: &RunDirectory, binaries: &Binaries, keep: bool) -> Result<bool> {
    let begin = Instant::now();
    let mut report = Report::new();
    report.step("0. Three clusters: east, west, south; a store member and a gateway each, two nodes each, two endpoints per node");
    let policies = Policies::write(run.path())?;
    let bed = Testbed::start(mode, run, binaries, keep)?;
    report.say(&format!("run {}: 3 identityd, 3 mesh-gateway, 6 ringfence-agent started", run.record().id));
    let mut stage = Stage { bed, report, policies, rules: Rules::default() };
    // A step that cannot go on is the last one, and counts as an expectation that did not hold.
    if let Err(error) = steps(&mut stage, begin) {
        stage.report.expect("the step can be carried out", false, &format!("{error:#}"));
    }
    println!("{}", stage.report.summary());
    Ok(stage.report.is_success())
}

fn steps(stage: &mut Stage, begin: Instant) -> Result<()> {
    let status = stage.bed.wait_until_up(START_TIMEOUT)?;
    let what = format!("members, gateways and nodes are at one revision ({})", status.revision);
    stage.report.expect(&what, true, "");
    stage.report.time("start of the whole mesh", begin.elapsed());
    policies::apply(stage)?;
    policies::show_matrix(stage)?;
    cut::run(stage)?;
    kill::run(stage)?;
    heal::run(stage)?;
    stage.bed.check()
}

fn how_to_use(mode: Mode, run: &RunDirectory, binaries: &Path) -> String {
    let tls = run.path().join("tls");
    let (enter, server) = match mode {
        Mode::Kernel => (
            format!("nsenter --net=/run/netns/{} ", run.namespace(ADMIN)),
            format!("{}:7401", CLUSTERS[0].control_addresses()[0]),
        ),
        Mode::Memory => (String::new(), "the `listen` of config/gateway-east.yaml".to_owned()),
    };
    let binaries = binaries.join("ringfence");
    let binaries = binaries.display();
    let mut text = format!(
        "Left up (--keep). Everything of this run is in {}.\n\
         \x20 look:   {enter}{binaries} --server {server} --tls-dir {} status\n",
        run.path().display(),
        tls.display()
    );
    if mode == Mode::Kernel {
        let shell = format!("nsenter --net=/run/netns/{} bash", run.namespace("east-web-1"));
        text.push_str(&format!("  be east/web-1: {shell}    (curl -m1 telnet://10.103.1.10:8080)\n"));
    }
    text.push_str(&format!("  remove: {binaries}-demo --remove"));
    text
}
