//! Which Ringfence package may depend on which, as ARCHITECTURE.md says.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::shell;

/// Every package of the workspace and the Ringfence packages that it may use.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("ringfence-policy", &[]),
    ("ringfence-ebpf-common", &[]),
    ("ringfence-runtime", &[]),
    ("ringfence-proto", &["ringfence-policy"]),
    ("ringfence-datapath", &["ringfence-policy", "ringfence-ebpf-common"]),
    ("ringfence-identityd", &["ringfence-proto", "ringfence-policy", "ringfence-runtime"]),
    ("ringfence-mesh-gateway", &["ringfence-proto", "ringfence-policy", "ringfence-runtime"]),
    ("ringfence-agent", &["ringfence-proto", "ringfence-policy", "ringfence-runtime", "ringfence-datapath"]),
    ("ringfence-cli", &["ringfence-proto", "ringfence-policy"]),
    (
        "ringfence-chaos",
        &[
            "ringfence-identityd",
            "ringfence-mesh-gateway",
            "ringfence-agent",
            "ringfence-datapath",
            "ringfence-proto",
            "ringfence-policy",
            "ringfence-runtime",
        ],
    ),
    ("xtask", &[]),
];
/// Packages without IO, clocks, async or randomness, and what would bring those in.
const PURE: [&str; 2] = ["ringfence-policy", "ringfence-ebpf-common"];
const IMPURE: [&str; 12] = [
    "aya",
    "futures",
    "getrandom",
    "hyper",
    "libc",
    "mio",
    "openraft",
    "rand",
    "sled",
    "tokio",
    "tonic",
    "tracing-subscriber",
];

/// `cargo metadata`, as far as it is read here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// None for a normal one, else `dev` or `build`.
    kind: Option<String>,
}

/// Asks cargo about the workspace.
pub(super) fn metadata() -> Result<Metadata> {
    let text = shell::read(shell::cargo().args(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    serde_json::from_str(&text).context("cargo metadata answered something else")
}

/// All rules of this file.
pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let path = relative(&package.manifest_path);
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            let advice = format!(
                "{} has no row in the table of xtask/src/tidy/dependencies.rs and ARCHITECTURE.md",
                package.name
            );
            findings.push(Finding::new(&path, 1, "dependency", advice));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.is_none()) {
            let name = dependency.name.as_str();
            let ours = ALLOWED.iter().any(|(known, _)| *known == name) || name.starts_with("ringfence-");
            if ours && !allowed.contains(&name) {
                let advice = format!("{} must not depend on {name}: see the table in ARCHITECTURE.md", package.name);
                findings.push(Finding::new(&path, 1, "dependency", advice));
            }
            if PURE.contains(&package.name.as_str()) && IMPURE.contains(&name) {
                let advice = format!("{} is pure: no IO, clocks, async or randomness, so no {name}", package.name);
                findings.push(Finding::new(&path, 1, "purity", advice));
            }
        }
    }
    findings
}

fn relative(manifest: &str) -> String {
    let root = shell::root();
    std::path::Path::new(manifest).strip_prefix(&root).map_or_else(|_| manifest.to_owned(), |p| p.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(package: &str, dependencies: &str) -> Vec<&'static str> {
        let text = format!(
            r#"{{"packages":[{{"name":"{package}","manifest_path":"x/Cargo.toml","dependencies":[{dependencies}]}}]}}"#
        );
        check(&serde_json::from_str(&text).unwrap()).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn only_the_tables_dependencies_pass() {
        assert_eq!(
            found("ringfence-agent", r#"{"name":"ringfence-datapath","kind":null},{"name":"tokio","kind":null}"#),
            [""; 0]
        );
        assert_eq!(found("ringfence-agent", r#"{"name":"ringfence-identityd","kind":null}"#), ["dependency"]);
        assert_eq!(found("ringfence-agent", r#"{"name":"ringfence-identityd","kind":"dev"}"#), [""; 0]);
        assert_eq!(found("ringfence-utils", ""), ["dependency"]);
    }

    #[test]
    fn the_pure_packages_stay_pure() {
        assert_eq!(found("ringfence-policy", r#"{"name":"tokio","kind":null}"#), ["purity"]);
        assert_eq!(found("ringfence-policy", r#"{"name":"serde","kind":null}"#), [""; 0]);
    }

    #[test]
    fn this_workspace_is_known_to_the_table() {
        let names: Vec<String> = metadata().unwrap().packages.into_iter().map(|package| package.name).collect();
        for (name, _) in ALLOWED {
            assert!(names.iter().any(|known| known == name), "{name} is in the table and not in the workspace");
        }
    }
}
