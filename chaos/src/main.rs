//! `ringfence-demo`: three clusters on one machine, policies, a partition, kills; exit 0 only if every expectation held.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ringfence_chaos::{demo::run, run::cleanup, run::janitor, store::drill, workload};

#[derive(Debug, Parser)]
#[command(name = "ringfence-demo", version, about)]
struct Arguments {
    /// Leave the mesh up at the end and say how to use and remove it.
    #[arg(long)]
    keep: bool,
    /// Use the memory datapath even where eBPF is possible.
    #[arg(long)]
    memory: bool,
    /// Remove every run that was left up or left behind, then end.
    #[arg(long, conflicts_with_all = ["keep", "memory"])]
    remove: bool,
    /// The directory with identityd, mesh-gateway, ringfence-agent and ringfence (default: that of this binary).
    #[arg(long, value_name = "DIRECTORY")]
    binaries: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Kills, pauses and cuts off members of a store while clients use it; judges what they saw.
    Store(drill::Options),
    /// Removes a run when the process at the other end of standard input is gone (used by the demo itself).
    #[command(hide = true)]
    Janitor { directory: PathBuf },
    /// Serves, probes and hammers inside an endpoint (used by the demo itself).
    #[command(hide = true)]
    Workload,
}

fn main() -> ExitCode {
    let success = dispatch(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        false
    });
    ExitCode::from(u8::from(!success))
}

fn dispatch(arguments: Arguments) -> Result<bool> {
    let own = std::env::current_exe().context("cannot find this binary's path")?;
    let binaries = arguments.binaries.unwrap_or_else(|| own.with_file_name(""));
    match arguments.part {
        Some(Part::Store(options)) => return drill::run(&options, &binaries),
        Some(Part::Janitor { directory }) => janitor::work(&directory)?,
        Some(Part::Workload) => workload::run()?,
        None if arguments.remove => println!("removed {} runs", cleanup::remove_leftovers(true)?.len()),
        None => return run::run(&run::Options { keep: arguments.keep, memory: arguments.memory, binaries }),
    }
    Ok(true)
}
