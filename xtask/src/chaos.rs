//! `cargo xtask chaos …`: drills that last as long as one can afford.

use anyhow::Result;

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
    /// How to build.
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
}

/// Builds what is under test and runs the drill.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Drill::Store(store) = &arguments.drill;
    let mut command = demo::prepare(store.profile)?;
    command.args(["store", "--seconds", &(store.minutes * 60).to_string()]);
    command.args(["--members", &store.members.to_string()]);
    if let Some(seed) = store.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(control) = &store.control {
        command.args(["--control", control]);
    }
    shell::show(&mut command)
}
