//! Figures with their targets, as a table and as JSON.

use std::{fs, io, path::Path};

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One row.
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    /// The name of what it is compared with, and that one's figure.
    peer: Option<(&'static str, f64)>,
}

impl Figure {
    pub(crate) const fn new(name: &'static str, value: f64, unit: &'static str, target: Option<Target>) -> Self {
        Self { name, value, unit, target, peer: None }
    }

    /// The same work done by somebody else, in the same rounds.
    #[must_use]
    pub(crate) const fn beside(self, peer: &'static str, value: f64) -> Self {
        Self { peer: Some((peer, value)), ..self }
    }

    fn target(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::AtMost(most)) => format!("<= {most}"),
            Some(Target::AtLeast(least)) => format!(">= {least}"),
        }
    }

    fn status(&self) -> &'static str {
        match self.target {
            Some(Target::AtMost(most)) if self.value > most => "short",
            Some(Target::AtLeast(least)) if self.value < least => "short",
            _ => "ok",
        }
    }
}

/// CPU time of this thread: what else the machine does counts less.
pub(crate) fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e6
}

/// Sorts, and answers the middle.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn print(figures: &[Figure]) {
    println!("{:<58} {:>12}  {:<10} {:>10}  {:<10} status", "figure", "value", "unit", "peer", "target");
    for figure in figures {
        let (target, status) = (figure.target(), figure.status());
        let peer = figure.peer.map_or_else(String::new, |(_, value)| format!("{value:.2}"));
        println!("{:<58} {:>12.2}  {:<10} {peer:>10}  {target:<10} {status}", figure.name, figure.value, figure.unit);
    }
}

pub(crate) fn write_json(path: &Path, figures: &[Figure]) -> io::Result<()> {
    let rows: Vec<String> = figures.iter().map(row).collect();
    fs::write(path, format!("[\n{}\n]\n", rows.join(",\n")))
}

/// Names, units and targets hold nothing that JSON would have to escape.
fn row(figure: &Figure) -> String {
    let target = if figure.target.is_some() { format!("\"{}\"", figure.target()) } else { "null".to_owned() };
    let peer = match figure.peer {
        Some((peer, value)) => {
            format!("\"peer\": \"{peer}\", \"peer_value\": {value:.3}, \"ratio\": {:.3}", figure.value / value)
        }
        None => "\"peer\": null, \"peer_value\": null, \"ratio\": null".to_owned(),
    };
    format!(
        "  {{\"name\": \"{}\", \"value\": {:.3}, \"unit\": \"{}\", {peer}, \"target\": {target}, \"status\": \"{}\"}}",
        figure.name,
        figure.value,
        figure.unit,
        figure.status()
    )
}
