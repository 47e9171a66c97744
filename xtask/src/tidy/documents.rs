//! Rules about text: links, paths of somebody's machine, package registries, folders.

use std::collections::BTreeSet;

use super::{Finding, TextFile};

/// Split, so that this file does not find itself.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const REGISTRY: &str = "https://github.com/rust-lang/crates.io-index";
const FOLDERS: [&str; 13] = [
    "policy/",
    "proto/",
    "runtime/",
    "identityd/",
    "mesh-gateway/",
    "agent/datapath/",
    "ebpf/common/",
    "ebpf/programs/",
    "cli/",
    "chaos/",
    "deploy/multi-cluster/",
    "xtask/",
    "demo/",
];

/// Paths of a machine and package registries have no place in a file of the repository.
pub(super) fn check_text(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(path) = MACHINE_PATHS.iter().find(|path| has_absolute(line, path)) {
            let advice = format!("a path of one machine ({path}…): write a relative one");
            findings.push(Finding::new(&file.path, line_number, "machine-path", advice));
        }
        let source = line.split_once(concat!("regi", "stry+")).map(|(_, rest)| rest);
        if source.is_some_and(|rest| !rest.starts_with(REGISTRY)) || is_registry_setting(file, line) {
            let advice = "only crates.io: a mirror belongs into the user's own cargo configuration";
            findings.push(Finding::new(&file.path, line_number, "registry", advice));
        }
    }
    findings
}

/// Links in Markdown lead to files of the repository.
pub(super) fn check_links(file: &TextFile, paths: &BTreeSet<String>) -> Vec<Finding> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        for link in if in_code { Vec::new() } else { links(line) } {
            if !leads_somewhere(&file.path, link, paths) {
                let advice = format!("the link to `{link}` leads to no file of the repository");
                findings.push(Finding::new(&file.path, index + 1, "link", advice));
            }
        }
    }
    findings
}

/// The folders that the architecture names are there.
pub(super) fn check_folders(paths: &BTreeSet<String>) -> Vec<Finding> {
    let missing = FOLDERS.iter().filter(|folder| !paths.iter().any(|path| path.starts_with(**folder)));
    missing
        .map(|folder| Finding::new("ARCHITECTURE.md", 1, "folder", format!("{folder} is named here and has no file")))
        .collect()
}

/// Whether the line has the path where a path begins, not inside a longer one.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}*".contains(c))
    })
}

fn is_registry_setting(file: &TextFile, line: &str) -> bool {
    let line = line.trim_start();
    file.path.starts_with(".cargo/") && (line.starts_with("[source") || line.starts_with("[registr"))
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

fn leads_somewhere(from: &str, link: &str, paths: &BTreeSet<String>) -> bool {
    let target = link.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            name => parts.push(name),
        }
    }
    let path = parts.join("/");
    paths.contains(&path) || paths.iter().any(|known| known.starts_with(&format!("{path}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn rules(findings: &[Finding]) -> Vec<(&'static str, usize)> {
        findings.iter().map(|finding| (finding.rule, finding.line)).collect()
    }

    #[test]
    fn machine_paths_and_other_registries_are_found() {
        let text = format!("fine\nsee {}x\nnet{}x\n", MACHINE_PATHS[0], MACHINE_PATHS[0]);
        assert_eq!(rules(&check_text(&file("a.md", &text))), [("machine-path", 2)]);
        let lock = format!(
            "source = \"{}+{REGISTRY}\"\nsource = \"{}+https://mirror.example/index\"\n",
            "registry", "registry"
        );
        assert_eq!(rules(&check_text(&file("Cargo.lock", &lock))), [("registry", 2)]);
        assert_eq!(rules(&check_text(&file(".cargo/config.toml", "[source.crates-io]\n"))), [("registry", 1)]);
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        let paths = BTreeSet::from(["docs/a.md".to_owned(), "README.md".to_owned()]);
        let text = "[a](docs/a.md#x) [folder](docs/) [web](https://example.com)\n[b](docs/b.md)\n```\n[c](c.md)\n```\n";
        assert_eq!(rules(&check_links(&file("README.md", text), &paths)), [("link", 2)]);
        assert_eq!(
            rules(&check_links(&file("docs/a.md", "[up](../README.md) [out](../../x)\n"), &paths)),
            [("link", 1)]
        );
    }

    #[test]
    fn a_missing_folder_is_found() {
        let all: BTreeSet<String> = FOLDERS.iter().map(|folder| format!("{folder}file")).collect();
        assert!(check_folders(&all).is_empty());
        let without: BTreeSet<String> = all.into_iter().filter(|path| !path.starts_with("chaos/")).collect();
        assert_eq!(rules(&check_folders(&without)), [("folder", 1)]);
    }
}
