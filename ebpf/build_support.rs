//! How the eBPF programs become objects, and how it is known which sources an object was made from.
//!
//! Shared by `agent/datapath/build.rs` and `xtask` through `#[path]`, so that both build with the same compiler, flags
//! and path remapping: only then are the bytes the same everywhere.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The objects, without `.o`; also the names of the binaries in `ebpf/programs`.
pub(crate) const OBJECTS: [&str; 2] = ["ringfence", "bench"];
/// What the objects are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// bpf-linker links with its own LLVM, which must not be older than the compiler's.
pub(crate) const LINKER_ADVICE: &str = "install it with: cargo install bpf-linker --version 0.13.0 --locked \
     --no-default-features --features llvm-22 (needs LLVM 22's development files; Debian: llvm-22-dev)";

/// Version 3 of the instruction set (Linux 5.1) has 32-bit operations: fewer instructions, and less on the stack.
/// bpf-linker asks LLVM to copy memory in order, for old verifiers; then every memset is a call that writes byte by byte.
const FLAGS: [&str; 4] = [
    "-Cdebuginfo=0",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "--cfg=bpf_target_arch=\"x86_64\"",
];
/// The state of the outer cargo must not leak into the inner one.
const OUTER_VARIABLES: [&str; 10] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_MAKEFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUSTC_BOOTSTRAP",
];

/// Why the objects cannot be built.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// A file cannot be read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// rust-toolchain.toml names no channel.
    NoChannel,
    /// There is no such compiler here.
    NoCompiler {
        /// The toolchain that was asked for.
        toolchain: String,
    },
    /// The compiler is there, the sources of `core` are not.
    NoCoreSources {
        /// Where they should be.
        path: PathBuf,
    },
    /// bpf-linker cannot be run.
    NoLinker,
    /// The inner cargo failed; it has said why.
    Failed,
}

/// The tools that build the objects.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// Name of the rustup toolchain, or the release of a compiler without rustup.
    pub(crate) toolchain: String,
    /// `rustc --version`.
    pub(crate) rustc: String,
    /// `bpf-linker --version`.
    pub(crate) linker: String,
    sysroot: PathBuf,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoChannel => f.write_str("rust-toolchain.toml names no channel"),
            Self::NoCompiler { toolchain } => {
                write!(
                    f,
                    "there is no Rust {toolchain} here; install it with: rustup toolchain install {toolchain} --component rust-src"
                )
            }
            Self::NoCoreSources { path } => {
                write!(
                    f,
                    "the sources of core are missing ({}); install them with: rustup component add rust-src",
                    path.display()
                )
            }
            Self::NoLinker => write!(f, "bpf-linker is not installed; {LINKER_ADVICE}"),
            Self::Failed => f.write_str("compiling the eBPF programs failed; see the messages above"),
        }
    }
}

impl std::error::Error for BuildError {}

/// The files an object is made from, in a fixed order.
///
/// # Errors
/// `BuildError::File` if a folder cannot be listed.
pub(crate) fn source_files(root: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut files: Vec<PathBuf> = ["ebpf/common/Cargo.toml", "ebpf/programs/Cargo.toml", "ebpf/programs/Cargo.lock"]
        .map(|path| root.join(path))
        .into();
    list(&root.join("ebpf/common/src"), &mut files)?;
    list(&root.join("ebpf/programs/src"), &mut files)?;
    files.sort();
    Ok(files)
}

/// A hash of the sources, the compiler's version and the flags: 32 hexadecimal digits (FNV-1a, 128 bits).
///
/// # Errors
/// `BuildError::File`, `BuildError::NoChannel`.
pub(crate) fn source_hash(root: &Path) -> Result<String, BuildError> {
    let mut hash = Fnv::new();
    hash.add(channel(root)?.as_bytes());
    hash.add(FLAGS.join(" ").as_bytes());
    for file in source_files(root)? {
        let inside = file.strip_prefix(root).unwrap_or(&file);
        hash.add(inside.as_os_str().as_encoded_bytes());
        hash.add(&fs::read(&file).map_err(|source| BuildError::File { path: file.clone(), source })?);
    }
    Ok(format!("{:032x}", hash.0))
}

/// The hash that the committed objects were made from; none if there are no committed objects.
pub(crate) fn committed_hash(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("ebpf/objects/SOURCE_HASH")).ok()?;
    Some(text.trim().to_owned())
}

/// Finds what is needed to compile: the toolchain in `RINGFENCE_EBPF_TOOLCHAIN`, else the pinned one.
///
/// # Errors
/// What is missing, and how to install it.
pub(crate) fn tools(root: &Path) -> Result<Tools, BuildError> {
    let pinned = channel(root)?;
    let wanted = env::var("RINGFENCE_EBPF_TOOLCHAIN").ok();
    let toolchain = wanted.clone().unwrap_or_else(|| pinned.clone());
    let ask = |argument: &[&str]| output(clean("rustc").env("RUSTUP_TOOLCHAIN", &toolchain).args(argument));
    let missing = || BuildError::NoCompiler { toolchain: toolchain.clone() };
    let rustc = ask(&["--version"]).ok_or_else(missing)?;
    // Without rustup the variable means nothing: then the compiler at hand must be the pinned one.
    if wanted.is_none() && !rustc.contains(&pinned) {
        return Err(missing());
    }
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"]).ok_or_else(missing)?);
    let core = sysroot.join("lib/rustlib/src/rust/library/core");
    if !core.is_dir() {
        return Err(BuildError::NoCoreSources { path: core });
    }
    let linker = output(clean("bpf-linker").arg("--version")).ok_or(BuildError::NoLinker)?;
    Ok(Tools { toolchain, rustc, linker, sysroot })
}

/// Compiles the programs and puts `ringfence.o` and `bench.o` into `out_dir`.
///
/// The bytes depend on the sources and the tools only, not on where they lie.
///
/// # Errors
/// As `tools`; `BuildError::Failed` if they do not compile.
pub(crate) fn compile(root: &Path, out_dir: &Path) -> Result<Tools, BuildError> {
    let tools = tools(root)?;
    let ebpf = stage(root, &out_dir.join("ebpf-sources"))?;
    let ebpf = ebpf.canonicalize().map_err(|source| BuildError::File { path: ebpf, source })?;
    let target_dir = out_dir.join("ebpf-target");
    let cargo_home = env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let core = tools.sysroot.join("lib/rustlib/src/rust");
    let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
    for (from, to) in [(&ebpf, "/ebpf"), (&cargo_home, "/cargo"), (&core, "/rust"), (&target_dir, "/target")] {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    let status = clean("cargo")
        .current_dir(&ebpf)
        .args(["build", "--release", "--locked", "--bins", "-Zbuild-std=core", "--target", TARGET])
        .env("RUSTUP_TOOLCHAIN", &tools.toolchain)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", &target_dir)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(BuildError::Failed);
    }
    for name in OBJECTS {
        copy(&target_dir.join(TARGET).join("release").join(name), &out_dir.join(format!("{name}.o")))?;
    }
    Ok(tools)
}

/// Copies the sources to where both crates lie in one workspace.
///
/// Cargo gives a crate outside the workspace a hash of its absolute path, and the compiler and the linker sort by names that
/// contain it: the same functions would come in another order in another checkout.
fn stage(root: &Path, stage: &Path) -> Result<PathBuf, BuildError> {
    const COMMON: &str = "[package]\nname = \"ringfence-ebpf-common\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    let fail = |path: &Path| {
        let path = path.to_owned();
        |source| BuildError::File { path, source }
    };
    let mut staged = Vec::new();
    for file in source_files(root)? {
        let inside = file.strip_prefix(root.join("ebpf")).unwrap_or(&file);
        let to = stage.join(inside.strip_prefix("programs").unwrap_or(inside));
        let mut bytes = fs::read(&file).map_err(fail(&file))?;
        if inside == Path::new("programs/Cargo.toml") {
            bytes = String::from_utf8_lossy(&bytes).replace("\"../common\"", "\"common\"").into_bytes();
        } else if inside == Path::new("common/Cargo.toml") {
            // The other one inherits from the workspace of the repository.
            bytes = COMMON.into();
        }
        // What has not changed keeps its time, so that cargo compiles nothing twice.
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().unwrap_or(stage)).map_err(fail(&to))?;
            fs::write(&to, bytes).map_err(fail(&to))?;
        }
        staged.push(to);
    }
    let mut there = Vec::new();
    list(&stage.join("src"), &mut there)?;
    list(&stage.join("common/src"), &mut there)?;
    for gone in there.iter().filter(|file| !staged.contains(file)) {
        fs::remove_file(gone).map_err(fail(gone))?;
    }
    Ok(stage.to_owned())
}

/// Puts objects that `compile` made into `ebpf/objects`, with the hash of their sources.
///
/// # Errors
/// `BuildError::File`.
pub(crate) fn commit(root: &Path, out_dir: &Path) -> Result<(), BuildError> {
    let objects = root.join("ebpf/objects");
    fs::create_dir_all(&objects).map_err(|source| BuildError::File { path: objects.clone(), source })?;
    for name in OBJECTS {
        copy(&out_dir.join(format!("{name}.o")), &objects.join(format!("{name}.o")))?;
    }
    let path = objects.join("SOURCE_HASH");
    fs::write(&path, source_hash(root)? + "\n").map_err(|source| BuildError::File { path, source })
}

fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    // Not fs::copy: the permissions of a linker's output are nobody's business.
    let bytes = fs::read(from).map_err(|source| BuildError::File { path: from.to_owned(), source })?;
    fs::write(to, bytes).map_err(|source| BuildError::File { path: to.to_owned(), source })
}

/// The compiler's version that rust-toolchain.toml pins.
fn channel(root: &Path) -> Result<String, BuildError> {
    let path = root.join("rust-toolchain.toml");
    let text = fs::read_to_string(&path).map_err(|source| BuildError::File { path, source })?;
    let value = text.lines().find_map(|line| line.trim().strip_prefix("channel")).ok_or(BuildError::NoChannel)?;
    value.split('"').nth(1).map(str::to_owned).ok_or(BuildError::NoChannel)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), BuildError> {
    let fail = |source| BuildError::File { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in OUTER_VARIABLES {
        command.env_remove(variable);
    }
    command
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

struct Fnv(u128);

impl Fnv {
    const fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds a field with its length, so that no two lists of fields look the same.
    fn add(&mut self, bytes: &[u8]) {
        for &byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}
