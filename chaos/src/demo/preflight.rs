//! Whether this machine lets us have network namespaces and eBPF.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::shell;
use crate::testbed::Mode;

/// The mode to run in, and the first line of the output, which says it and why.
///
/// # Errors
/// When /proc cannot be read.
pub fn choose(memory_asked: bool) -> Result<(Mode, String)> {
    if memory_asked {
        return Ok((Mode::Memory, because("--memory was given")));
    }
    let user = fs::metadata("/proc/self").context("cannot read /proc/self")?.uid();
    if user != 0 {
        return Ok((Mode::Memory, because("it does not run as root, which network namespaces and eBPF need")));
    }
    // Tried in a namespace of its own: nothing stays.
    let attempt =
        "mkdir -p /run/netns && mount -t bpf bpf /run/netns && ip link add rf-preflight type veth peer name rf-peer";
    let tried = shell::run(Command::new("unshare").args(["--net", "--mount", "sh", "-ec", attempt]));
    Ok(match tried {
        Ok(_) => {
            let line = "Ringfence demo: real packets, judged by eBPF programs, between network namespaces (root)";
            (Mode::Kernel, line.to_owned())
        }
        Err(error) => (Mode::Memory, because(&format!("this machine refuses network namespaces or eBPF: {error:#}"))),
    })
}

fn because(why: &str) -> String {
    format!("Ringfence demo: MEMORY datapath, no packets and no eBPF, because {why}")
}
