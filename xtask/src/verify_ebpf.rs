//! `cargo xtask verify-ebpf`: are the committed eBPF objects what their sources compile to?

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{setup, shell};

#[path = "../../ebpf/build_support.rs"]
mod build_support;

const LINKER: [&str; 8] =
    ["install", "bpf-linker", "--version", "0.13.0", "--locked", "--no-default-features", "--features", "llvm-22"];
const LLVM: &str = "/usr/lib/llvm-22";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Write the compiled objects and the hash of their sources instead of comparing.
    #[arg(long)]
    update: bool,
}

/// Compiles and compares, or updates.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    install_linker()?;
    install_core_sources()?;
    let root = shell::root();
    let out = root.join("target/xtask/ebpf");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let tools = build_support::compile(&root, &out)?;
    println!("compiled with {} and {}", tools.rustc, tools.linker);
    if arguments.update {
        build_support::commit(&root, &out)?;
        println!("ebpf/objects are written: commit them");
        return Ok(());
    }
    let hash = build_support::source_hash(&root)?;
    if build_support::committed_hash(&root).as_ref() != Some(&hash) {
        bail!("ebpf/objects/SOURCE_HASH is not that of the sources ({hash}): run `cargo xtask verify-ebpf --update`");
    }
    let differing = differing(&out, &root.join("ebpf/objects"))?;
    if !differing.is_empty() {
        let names: Vec<String> = differing.iter().map(|path| path.display().to_string()).collect();
        bail!("{} differ from what their sources compile to: run `cargo xtask verify-ebpf --update`", names.join(", "));
    }
    println!("every committed eBPF object is, byte for byte, what its sources compile to");
    Ok(())
}

/// The objects whose bytes are not the same on both sides.
fn differing(built: &Path, committed: &Path) -> Result<Vec<PathBuf>> {
    let mut differing = Vec::new();
    for object in build_support::OBJECTS {
        let name = format!("{object}.o");
        let ours = fs::read(built.join(&name)).with_context(|| format!("{name} was not compiled"))?;
        // A committed object that is missing differs, too.
        if fs::read(committed.join(&name)).ok().as_ref() != Some(&ours) {
            differing.push(committed.join(&name));
        }
    }
    Ok(differing)
}

fn install_linker() -> Result<()> {
    if shell::is_installed("bpf-linker") {
        return Ok(());
    }
    if !shell::is_root() {
        bail!("{}; as root this command installs both", build_support::LINKER_ADVICE);
    }
    println!(
        "bpf-linker is missing: it links the eBPF programs, and is compiled here once (about a minute) against LLVM 22"
    );
    if !Path::new(LLVM).is_dir() {
        setup::install(&BTreeSet::from(["llvm-22-dev"]))?;
    }
    let mut install = shell::cargo();
    install.args(LINKER).env("LLVM_SYS_221_PREFIX", LLVM).env("RUSTFLAGS", format!("-L native={LLVM}/lib"));
    shell::show(&mut install)
}

/// Whether `run` finds all it needs, or may install it.
pub(crate) fn is_possible() -> bool {
    shell::is_installed("bpf-linker") || (shell::is_root() && shell::is_installed("apt-get"))
}

/// A toolchain that was installed before `rust-toolchain.toml` was read lacks the component that it asks for.
fn install_core_sources() -> Result<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(shell::root()).output()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() || !shell::is_installed("rustup") {
        return Ok(());
    }
    println!("the sources of core are missing: they are compiled for the BPF target");
    shell::show(Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(shell::root()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_and_a_missing_object_are_seen() {
        let base = std::env::temp_dir().join(format!("ringfence-verify-{}", std::process::id()));
        let (built, committed) = (base.join("built"), base.join("committed"));
        for directory in [&built, &committed] {
            fs::create_dir_all(directory).unwrap();
            for object in build_support::OBJECTS {
                fs::write(directory.join(format!("{object}.o")), b"ELF").unwrap();
            }
        }
        assert!(differing(&built, &committed).unwrap().is_empty());
        fs::write(committed.join("bench.o"), b"ELf").unwrap();
        fs::remove_file(committed.join("ringfence.o")).unwrap();
        assert_eq!(differing(&built, &committed).unwrap().len(), 2);
        fs::remove_dir_all(base).unwrap();
    }
}
