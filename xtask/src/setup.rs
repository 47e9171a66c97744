//! The system's commands that the demo and the tests need.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A command, the Debian package that has it, and what is done with it.
struct Need {
    command: &'static str,
    package: &'static str,
    why: &'static str,
    root_only: bool,
}

/// What compiling needs beside the compiler.
const BUILDS_NEED: [Need; 1] = [need("make", "make", "builds identityd's allocator", false)];

const NEEDS: [Need; 7] = [
    need("ip", "iproute2", "makes network namespaces, links and routes", true),
    need("nft", "nftables", "cuts a cluster off", true),
    need("nsenter", "util-linux", "runs processes inside a namespace", true),
    need("unshare", "util-linux", "tries out whether namespaces are allowed", true),
    need("mount", "mount", "mounts the run's own bpffs", true),
    need("setpriv", "util-linux", "lets processes die with the demo", false),
    need("setsid", "util-linux", "gives the janitor a session of its own", false),
];

/// What tests need beside those of the demo.
const TESTS_NEED: [Need; 3] = [
    need("mkfs.ext4", "e2fsprogs", "makes the disk that loses power", true),
    need("perl", "perl", "takes its power away", true),
    need("curl", "curl", "asks as the operator's page says", true),
];

const fn need(command: &'static str, package: &'static str, why: &'static str, root_only: bool) -> Need {
    Need { command, package, why, root_only }
}

/// Installs what compiling needs and is missing, after saying what and why.
pub(crate) fn for_builds() -> Result<()> {
    provide(&BUILDS_NEED)
}

/// As `for_builds`, with what the demo needs.
pub(crate) fn run() -> Result<()> {
    for_builds()?;
    provide(&NEEDS)
}

/// As `run`, with what tests need.
pub(crate) fn for_tests() -> Result<()> {
    run()?;
    provide(&TESTS_NEED)
}

fn provide(needs: &[Need]) -> Result<()> {
    let missing = missing(needs, shell::is_root(), shell::is_installed);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("missing: `{}` (Debian package {}): {}", need.command, need.package, need.why);
    }
    if !shell::is_root() {
        bail!("install these commands, or run as root");
    }
    let packages: BTreeSet<&str> = missing.iter().map(|need| need.package).collect();
    install(&packages)
}

/// Installs Debian packages; refuses elsewhere.
pub(crate) fn install(packages: &BTreeSet<&str>) -> Result<()> {
    let list: Vec<&str> = packages.iter().copied().collect();
    if !shell::is_installed("apt-get") {
        bail!(
            "this is not Debian or Ubuntu: install with your package manager what these packages have: {}",
            list.join(", ")
        );
    }
    println!("installing with apt-get: {}", list.join(", "));
    shell::show(Command::new("apt-get").args(["-q", "update"]))?;
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "install", "-y", "--no-install-recommends"]);
    shell::show(command.args(list))
}

fn missing(needs: &[Need], root: bool, is_installed: impl Fn(&str) -> bool) -> Vec<&Need> {
    needs.iter().filter(|need| (root || !need.root_only) && !is_installed(need.command)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_needs_the_commands_for_namespaces() {
        let names = |root| missing(&NEEDS, root, |_| false).iter().map(|need| need.command).collect::<Vec<_>>();
        assert_eq!(names(false), ["setpriv", "setsid"]);
        assert_eq!(names(true).len(), NEEDS.len());
        assert!(missing(&NEEDS, true, |_| true).is_empty());
    }
}
