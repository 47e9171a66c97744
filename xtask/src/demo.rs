//! `cargo xtask demo`: set up, build, hand over to `ringfence-demo`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{setup, shell};

const PACKAGES: [&str; 5] =
    ["ringfence-identityd", "ringfence-mesh-gateway", "ringfence-agent", "ringfence-cli", "ringfence-chaos"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the mesh up at the end; the demo says how to use and remove it.
    #[arg(long)]
    keep: bool,
    /// Use the memory datapath even where eBPF is possible.
    #[arg(long)]
    memory: bool,
    /// How to build.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

/// Cargo's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Fast to build.
    Dev,
    /// What users run.
    Release,
}

/// Runs the demo in place of this process, so that ctrl-C reaches it and the shell waits for its clean-up.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!("{}", mode(arguments.memory));
    let mut command = prepare(arguments.profile)?;
    command.args(arguments.keep.then_some("--keep")).args(arguments.memory.then_some("--memory"));
    bail!("cannot run ringfence-demo: {}", command.exec());
}

/// Runs the demo as a test, and comes back.
pub(crate) fn run_as_test(profile: Profile) -> Result<()> {
    shell::show(&mut prepare(profile)?)
}

/// What the demo will do here, in the first line of the output; the demo tries the same again after the build.
fn mode(memory: bool) -> String {
    let because = |why: &str| format!("demo with the MEMORY datapath, no packets and no eBPF, because {why}");
    if memory {
        return because("--memory was given");
    }
    if !shell::is_root() {
        return because("network namespaces and eBPF need root");
    }
    // In a namespace of its own, so nothing stays. Without the commands, setup is about to install them.
    let attempt = "mkdir -p /run/netns && mount -t bpf bpf /run/netns";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-ec", attempt]);
    match shell::is_installed("unshare").then(|| shell::read(&mut command)) {
        Some(Err(error)) => because(&format!("this machine refuses network namespaces or eBPF: {error:#}")),
        Some(Ok(_)) | None => "demo with eBPF on real packets in network namespaces (root)".to_owned(),
    }
}

/// Builds everything that runs in a mesh, and gives the command that runs it.
pub(crate) fn prepare(profile: Profile) -> Result<Command> {
    setup::run()?;
    let mut build = shell::cargo();
    build.args(["build", "--locked", "--bins"]);
    for package in PACKAGES {
        build.args(["-p", package]);
    }
    build.args((profile == Profile::Release).then_some("--release"));
    shell::show(&mut build)?;
    Ok(Command::new(binaries(profile).join("ringfence-demo")))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from)
}

/// Where cargo puts binaries.
fn binaries(profile: Profile) -> PathBuf {
    folder(&target(), profile)
}

/// A profile's folder of a target folder.
pub(crate) fn folder(target: &Path, profile: Profile) -> PathBuf {
    target.join(if profile == Profile::Release { "release" } else { "debug" })
}
