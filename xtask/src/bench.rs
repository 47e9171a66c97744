//! `cargo xtask bench`: figures beside their targets. A short figure is shown, never an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{setup, shell};

/// A bench: its name here, and the arguments for `cargo bench`.
const BENCHES: [(&str, &[&str]); 5] = [
    ("apply", &["-p", "ringfence-identityd", "--bench", "apply"]),
    ("datapath", &["-p", "ringfence-datapath", "--features", "kernel", "--bench", "packet_cost"]),
    ("datapath", &["-p", "ringfence-datapath", "--features", "kernel", "--bench", "throughput"]),
    ("policy", &["-p", "ringfence-policy", "--bench", "engine"]),
    ("store", &["-p", "ringfence-identityd", "--bench", "store"]),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `all`, or the name of one bench.
    name: String,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Seconds of one measurement, where a bench measures over time.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Rounds of each measurement, where a bench measures over time.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Another system to measure in the same run: for `store` `etcd`, or `etcd-plain`, without TLS.
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only workloads whose name contains this, where a bench has several.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Also write the rows to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// What a bench is told; only `store` knows more than `--quick`.
    fn flags(&self, name: &str) -> Result<Vec<String>> {
        let mut flags: Vec<String> = self.quick.then(|| "--quick".to_owned()).into_iter().collect();
        let mut own = Vec::new();
        let mut add =
            |flag: &str, value: Option<String>| own.extend(value.into_iter().flat_map(|v| [flag.to_owned(), v]));
        add("--seconds", self.seconds.map(|seconds| seconds.to_string()));
        add("--rounds", self.rounds.map(|rounds| rounds.to_string()));
        add("--peer", self.peer.clone());
        self.only.iter().for_each(|part| add("--only", Some(part.clone())));
        setup::for_builds()?;
        match name {
            "store" => {
                install_peer(self.peer.as_deref())?;
                flags.extend(own);
            }
            _ if !own.is_empty() && self.name != "all" => bail!("bench {name} does not take {}", own.join(" ")),
            "datapath" => install_tools()?,
            _ => {}
        }
        Ok(flags)
    }
}

/// Installs what the throughput between namespaces is measured with, and beside; without it the bench says so.
fn install_tools() -> Result<()> {
    let tools = [("iperf3", "iperf3"), ("nft", "nftables")];
    let missing: BTreeSet<&str> =
        tools.into_iter().filter(|(program, _)| !shell::is_installed(program)).map(|(_, package)| package).collect();
    if missing.is_empty() || !shell::is_root() {
        return Ok(());
    }
    setup::install(&missing)
}

/// Installs the peer where it is missing and we may.
fn install_peer(peer: Option<&str>) -> Result<()> {
    match peer {
        None => Ok(()),
        Some("etcd" | "etcd-plain") if shell::is_installed("etcd") => Ok(()),
        Some("etcd" | "etcd-plain") if shell::is_root() => setup::install(&BTreeSet::from(["etcd-server"])),
        Some("etcd" | "etcd-plain") => bail!("etcd is not installed: as root, `apt-get install etcd-server`"),
        Some(other) => bail!("there is no peer `{other}` for the store; there are: etcd, etcd-plain"),
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    name: String,
    value: f64,
    unit: String,
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    peer_value: Option<f64>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    target: Option<serde_json::Value>,
    #[serde(default)]
    status: Option<String>,
}

/// Runs the benches and prints their rows as one table.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<_> =
        BENCHES.iter().filter(|(name, _)| arguments.name == "all" || arguments.name == *name).collect();
    if chosen.is_empty() {
        let known: BTreeSet<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        let known: Vec<&str> = known.into_iter().collect();
        bail!("there is no bench `{}`; there are: all, {}", arguments.name, known.join(", "));
    }
    let mut rows = Vec::new();
    for (name, target) in chosen {
        rows.extend(run_one(name, target, arguments)?);
    }
    println!("\n{}", table(&rows));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows).context("the rows have no part that JSON refuses")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn run_one(name: &str, target: &[&str], arguments: &Arguments) -> Result<Vec<Row>> {
    let directory = shell::root().join("target/xtask");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join(format!("bench-{name}.json"));
    // Rows of an earlier run must not pass for those of this one.
    let _ = fs::remove_file(&file);
    let mut command = shell::cargo();
    command.args(["bench", "--locked"]).args(target).arg("--").args(arguments.flags(name)?).arg("--json").arg(&file);
    shell::show(&mut command)?;
    if file.is_file() {
        return read(&file);
    }
    println!("bench {name} wrote no figures: see above why");
    Ok(Vec::new())
}

fn read(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} does not hold rows", file.display()))
}

fn table(rows: &[Row]) -> String {
    let heads = ["name", "value", "unit", "peer", "ratio", "target", "status"].map(str::to_owned);
    let cells: Vec<[String; 7]> = std::iter::once(heads).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let padded = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let space = " ".repeat(width - cell.chars().count());
            if column == 1 || column == 4 { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cells(row: &Row) -> [String; 7] {
    let peer = match (&row.peer, row.peer_value) {
        (Some(peer), Some(value)) => format!("{} ({peer})", number(value)),
        (Some(peer), None) => peer.clone(),
        (None, value) => value.map(number).unwrap_or_default(),
    };
    let target = match &row.target {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let status = row.status.clone().unwrap_or_default();
    [
        row.name.clone(),
        number(row.value),
        row.unit.clone(),
        peer,
        row.ratio.map(number).unwrap_or_default(),
        target,
        status,
    ]
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_an_aligned_table() {
        let rows: Vec<Row> = serde_json::from_str(
            r#"[{"name":"established flow","value":12.345,"unit":"ns","peer":"Cilium","peer_value":40,"ratio":0.31,"target":"<= 40","status":"ok"},
                {"name":"flips","value":12000.0,"unit":"1/s","peer":null,"peer_value":null,"ratio":null,"target":20000,"status":"short"}]"#,
        )
        .unwrap();
        let table = table(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("12.35") && lines[1].contains("40.00 (Cilium)") && lines[1].ends_with("ok"),
            "{table}"
        );
        assert!(lines[2].contains("12000") && lines[2].contains("20000") && lines[2].ends_with("short"), "{table}");
        assert_eq!(lines[1].find("ns"), lines[2].find("1/s"));
    }
}
