//! Steps 1 and 2: policies through the CLI, each checked with real connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Stage;
use super::expected::Rules;
use crate::testbed::ringfence::Applied;

const WAIT: Duration = Duration::from_secs(30);
const FILES: [(&str, &str); 5] = [
    ("01-default-deny.yaml", include_str!("../../../demo/01-default-deny.yaml")),
    ("02-web-to-api.yaml", include_str!("../../../demo/02-web-to-api.yaml")),
    ("03-deny-dev.yaml", include_str!("../../../demo/03-deny-dev.yaml")),
    ("04-quarantine-south-web.yaml", include_str!("../../../demo/04-quarantine-south-web.yaml")),
    ("05-refused-on-the-minority.yaml", include_str!("../../../demo/05-refused-on-the-minority.yaml")),
];

/// The policy files, written out where the CLI reads them.
#[derive(Debug, Clone)]
pub struct Policies {
    directory: PathBuf,
}

impl Policies {
    /// Writes the files that are part of this binary below `directory`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(directory: &Path) -> Result<Self> {
        let policies = Self { directory: directory.join("policies") };
        fs::create_dir_all(&policies.directory).context("cannot make the directory of the policies")?;
        for (name, text) in FILES {
            let path = policies.directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(policies)
    }

    /// The file whose name begins with this number.
    #[must_use]
    pub fn file(&self, number: usize) -> PathBuf {
        self.directory.join(FILES[number - 1].0)
    }
}

/// Step 1: no policy, then three, one after the other.
///
/// # Errors
/// When the mesh cannot be asked.
pub fn apply(stage: &mut Stage) -> Result<()> {
    stage.report.step("1. Policies: a clusterwide default deny, web → api:8080, a deny for namespace dev");
    stage.check_matrix("without a policy everything is open")?;
    let closed = Rules { default_deny: true, ..Rules::default() };
    let opened = Rules { web_to_api: true, ..closed };
    let stages = [
        (1, "with the default deny nothing passes", closed),
        (2, "web reaches api on 8080, of any cluster", opened),
        (3, "shop and dev are apart", Rules { deny_dev: true, ..opened }),
    ];
    for (number, what, rules) in stages {
        apply_one(stage, number)?;
        stage.rules = rules;
        if number < stages.len() {
            stage.check_matrix(what)?;
        }
    }
    Ok(())
}

/// Step 2: the matrix, printed.
///
/// # Errors
/// When a workload or an agent does not answer.
pub fn show_matrix(stage: &mut Stage) -> Result<()> {
    stage.report.step("2. The whole matrix: every endpoint connects to every other one");
    let matrix = stage.check_matrix("all three policies")?;
    println!("{}", matrix.table());
    Ok(())
}

fn apply_one(stage: &mut Stage, number: usize) -> Result<()> {
    let file = stage.policies.file(number);
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let servers = stage.bed.gateways_of(&["east"]);
    let begin = Instant::now();
    let answer = stage.bed.ringfence().apply(&servers, &[&file], WAIT)?;
    let elapsed = begin.elapsed();
    let applied: Applied = answer.clone().expect_success()?.json()?;
    let complete = applied.waited.as_ref().is_some_and(|waited| waited.complete);
    let what = format!("`policy apply --wait -f {name}`: revision {}, realised on every node", applied.revision);
    stage.report.expect(&what, complete, &answer.to_string());
    stage.report.time(&format!("apply {name} and have it realised on 6 nodes"), elapsed);
    Ok(())
}
