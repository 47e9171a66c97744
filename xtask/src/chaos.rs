//! `cargo xtask chaos …`: drills that last as long as one can afford.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::demo::{self, Profile};
use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Debug, clap::Subcommand)]
enum Drill {
    /// Kills, pauses and cuts off members of a store while clients use it; judges what they saw (docs/chaos.md).
    Store(Store),
}

#[derive(Debug, clap::Args)]
struct Store {
    /// How long faults are made.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What the faults and calls are drawn from (default: a new one, which is printed).
    #[arg(long)]
    seed: Option<u64>,
    /// Members of the store: 3 to 7.
    #[arg(long, default_value_t = 3)]
    members: u8,
    /// A store that is known to be wrong (stale-reads, amnesia): the run succeeds if that is caught.
    #[arg(long)]
    control: Option<String>,
    /// A git revision: members begin as its build, and are upgraded one by one to this one.
    #[arg(long, value_name = "REVISION", conflicts_with = "control")]
    from: Option<String>,
    /// How to build.
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
}

/// Builds what is under test and runs the drill.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Drill::Store(store) = &arguments.drill;
    let older = store.from.as_deref().map(|revision| build_older(revision, store.profile)).transpose()?;
    let mut command = demo::prepare(store.profile)?;
    command.args(["store", "--seconds", &(store.minutes * 60).to_string()]);
    command.args(["--members", &store.members.to_string()]);
    if let Some(seed) = store.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(control) = &store.control {
        command.args(["--control", control]);
    }
    if let Some(older) = older {
        command.arg("--from").arg(older);
    }
    shell::show(&mut command)
}

/// Builds `identityd` as of another revision of this repository; the directory with it.
fn build_older(revision: &str, profile: Profile) -> Result<PathBuf> {
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(shell::root());
        git
    };
    let commit =
        shell::read(git().args(["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")]))
            .with_context(|| format!("--from {revision}: no commit of this repository"))?;
    let older = demo::target().join("xtask/older").join(commit.trim());
    let (sources, unpacked) = (older.join("sources"), older.join("sources.new"));
    if !sources.is_dir() {
        // Of the commit's files only: a worktree would have to be taken off the repository's list again.
        fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
        let archive = older.join("sources.tar");
        shell::show(git().args(["archive", "-o"]).arg(&archive).arg(commit.trim()))?;
        shell::show(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked))?;
        fs::rename(&unpacked, &sources).with_context(|| format!("cannot rename {}", unpacked.display()))?;
    }
    let mut build = shell::cargo();
    build.current_dir(&sources).args(["build", "--locked", "-p", "ringfence-identityd", "--bin", "identityd"]);
    // A target folder of its own: cargo tells crates of two checkouts apart by their place in the workspace, which is the
    // same in both.
    let target = older.join("target");
    build.arg("--target-dir").arg(&target).args((profile == Profile::Release).then_some("--release"));
    shell::show(&mut build)?;
    Ok(demo::folder(&target, profile))
}
