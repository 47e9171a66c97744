//! Provides the eBPF objects in `OUT_DIR`: the committed ones, or freshly compiled ones.
//!
//! An ordinary build takes the committed objects and needs no BPF toolchain. They are used only if they were made from
//! the very sources in the tree: whoever edits the programs gets them compiled, or a message that says what to install.

use std::{env, fs, path::Path};

#[path = "../../ebpf/build_support.rs"]
#[expect(dead_code, reason = "xtask uses the rest")]
mod build_support;

use build_support::{BuildError, LINKER_ADVICE, OBJECTS, committed_hash, compile, source_files, source_hash};

fn main() {
    println!("cargo::rerun-if-env-changed=RINGFENCE_EBPF_BUILD");
    println!("cargo::rerun-if-env-changed=RINGFENCE_EBPF_TOOLCHAIN");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_KERNEL").is_none() {
        return;
    }
    let variable = |name| env::var_os(name).expect("cargo sets it for build scripts");
    let (here, out_dir) = (variable("CARGO_MANIFEST_DIR"), variable("OUT_DIR"));
    let root = Path::new(&here).join("../..");
    if let Err(error) = provide(&root, Path::new(&out_dir)) {
        println!("cargo::error={error}");
    }
}

fn provide(root: &Path, out_dir: &Path) -> Result<(), BuildError> {
    for path in ["rust-toolchain.toml", "ebpf/build_support.rs", "ebpf/objects", "ebpf/common/src", "ebpf/programs/src"]
    {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for file in source_files(root)? {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let (hash, committed) = (source_hash(root)?, committed_hash(root));
    let stale = committed.as_ref() != Some(&hash);
    if env::var_os("RINGFENCE_EBPF_BUILD").is_none_or(|value| value.is_empty()) && !stale {
        for name in OBJECTS {
            let path = root.join(format!("ebpf/objects/{name}.o"));
            let bytes = fs::read(&path).map_err(|source| BuildError::File { path: path.clone(), source })?;
            let to = out_dir.join(format!("{name}.o"));
            fs::write(&to, bytes).map_err(|source| BuildError::File { path: to.clone(), source })?;
        }
        return Ok(());
    }
    if stale {
        println!(
            "cargo::warning=ebpf/objects were made from other sources ({} instead of {hash}): compiling the eBPF \
             programs; `cargo xtask verify-ebpf --update` renews the committed objects",
            committed.as_deref().unwrap_or("none")
        );
    }
    let tools = compile(root, out_dir).inspect_err(|_| {
        println!("cargo::warning=to compile the eBPF programs you need the toolchain of rust-toolchain.toml and bpf-linker; {LINKER_ADVICE}");
    })?;
    println!("cargo::warning=eBPF programs compiled with {} and {}", tools.rustc, tools.linker);
    Ok(())
}
