//! `cargo xtask tidy`: the allowed dependencies and the style budget, checked on every file git knows or would add.
//!
//! ```text
//!  git ls-files ──► Source (tokens, functions, test lines) ──► rules ──► findings: path:line: rule: what to do
//!  cargo metadata ──► dependencies ─────────────────────────────────────┘
//! ```

mod budget;
mod dependencies;
mod documents;
mod source;
mod tokens;

use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;
use source::Source;

/// Something that has to change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.path, self.line, self.rule, self.advice)
    }
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

/// A file as text; files that are not UTF-8 have none.
#[derive(Debug)]
struct TextFile {
    path: String,
    text: String,
}

/// Checks everything and prints the findings.
pub(crate) fn run() -> Result<()> {
    let (files, paths) = files()?;
    let mut findings = dependencies::check(&dependencies::metadata()?);
    let sources: Vec<Source> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .filter_map(|file| match Source::parse(&file.path, &file.text) {
            Ok(source) => Some(source),
            Err(finding) => {
                findings.push(finding);
                None
            }
        })
        .collect();
    let sources = source::mark_test_files(sources);
    findings.extend(sources.iter().flat_map(tokens::check));
    findings.extend(budget::check(&sources));
    findings.extend(files.iter().flat_map(documents::check_text));
    findings.extend(files.iter().flat_map(|file| documents::check_links(file, &paths)));
    findings.extend(documents::check_folders(&paths));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files looked at, {} findings", files.len(), findings.len());
    println!("{}", budget::figures(&sources));
    if findings.is_empty() { Ok(()) } else { bail!("tidy has {} findings", findings.len()) }
}

/// Every file that is tracked or would be: with its text where it has one; and all paths.
fn files() -> Result<(Vec<TextFile>, BTreeSet<String>)> {
    let root = shell::root();
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listing = shell::read(Command::new("git").current_dir(&root).args(arguments))?;
    let paths: BTreeSet<String> =
        listing.split('\0').filter(|path| root.join(path).is_file()).map(str::to_owned).collect();
    let read = |path: &String| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(TextFile { path: path.clone(), text })
    };
    Ok((paths.iter().filter_map(read).collect(), paths))
}
