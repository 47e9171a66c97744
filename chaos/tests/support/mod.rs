//! The real programs that tests of this package start.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Where the programs of the mesh and the CLI are, as new as this test; cargo builds no other package's binaries for a test by
/// itself.
pub(crate) fn binaries() -> &'static Path {
    static BUILT: OnceLock<&'static Path> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = Path::new(env!("CARGO_BIN_EXE_ringfence-demo")).parent().expect("a binary has a directory");
        let mut cargo = Command::new(env!("CARGO"));
        let packages = ["identityd", "cli", "mesh-gateway", "agent"].map(|name| format!("--package=ringfence-{name}"));
        cargo.args(["build", "--locked", "--bins"]).args(packages);
        // What cargo tells this test about itself would make build scripts think that something has changed, and everything
        // behind them be compiled again.
        let of_this_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars().filter(|(name, _)| of_this_test(name)) {
            cargo.env_remove(name);
        }
        cargo.args(own.ends_with("release").then_some("--release"));
        cargo.arg("--target-dir").arg(own.parent().expect("a profile's directory is in the target directory"));
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts").success());
        own
    })
}
