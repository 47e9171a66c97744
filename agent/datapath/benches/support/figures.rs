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
}

impl Figure {
    pub(crate) const fn new(name: &'static str, value: f64, unit: &'static str, target: Option<Target>) -> Self {
        Self { name, value, unit, target }
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

/// Sorts, and answers the middle.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn print(figures: &[Figure]) {
    println!("{:<52} {:>12}  {:<10} {:<10} status", "figure", "value", "unit", "target");
    for figure in figures {
        let (target, status) = (figure.target(), figure.status());
        println!("{:<52} {:>12.2}  {:<10} {target:<10} {status}", figure.name, figure.value, figure.unit);
    }
}

pub(crate) fn write_json(path: &Path, figures: &[Figure]) -> io::Result<()> {
    let rows: Vec<String> = figures.iter().map(row).collect();
    fs::write(path, format!("[\n{}\n]\n", rows.join(",\n")))
}

/// Names, units and targets hold nothing that JSON would have to escape.
fn row(figure: &Figure) -> String {
    let target = if figure.target.is_some() { format!("\"{}\"", figure.target()) } else { "null".to_owned() };
    format!(
        "  {{\"name\": \"{}\", \"value\": {:.3}, \"unit\": \"{}\", \"peer\": null, \"peer_value\": null, \"ratio\": null, \
         \"target\": {target}, \"status\": \"{}\"}}",
        figure.name,
        figure.value,
        figure.unit,
        figure.status()
    )
}
