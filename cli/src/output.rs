//! Printing results: a table for people, JSON or YAML for programs.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints a value in the format that was asked for.
pub(crate) fn print<T: Serialize>(format: Format, value: &T, table: impl FnOnce() -> Table) -> anyhow::Result<()> {
    match format {
        Format::Table => line(&trimmed(&table())),
        Format::Json => line(&serde_json::to_string_pretty(value)?),
        Format::Yaml => line(yaml_serde::to_string(value)?.trim_end()),
    }
}

/// Prints a line. A reader that has gone away (`| head`) is not an error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    read_line(text).map(|_| ())
}

/// Prints a line; answers whether somebody is there to read the next one.
pub(crate) fn read_line(text: &str) -> anyhow::Result<bool> {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Says something on standard error. Nobody listening there changes nothing: the exit code still tells.
pub(crate) fn note(text: &str) {
    let _not_shown = writeln!(std::io::stderr(), "{text}");
}

/// A table in the style of kubectl: a header, columns, no lines.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    table
}

/// The table as text, without the blanks that fill its last column.
pub(crate) fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned()).collect();
    lines.join("\n")
}

/// Milliseconds as people say them: `0.4 s`, `12 s`, `3 m`.
pub(crate) fn age(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        10_000..120_000 => format!("{} s", milliseconds / 1000),
        120_000..7_200_000 => format!("{} m", milliseconds / 60_000),
        _ => format!("{} h", milliseconds / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let cases =
            [(0, "0.0 s"), (450, "0.4 s"), (9_999, "9.9 s"), (12_000, "12 s"), (180_000, "3 m"), (7_200_000, "2 h")];
        for (milliseconds, text) in cases {
            assert_eq!(age(milliseconds), text);
        }
    }

    #[test]
    fn tables_have_aligned_columns_and_no_trailing_blanks() {
        let table =
            table(["NAME", "ID"], [["east".to_owned(), "1".to_owned()], ["southern".to_owned(), "20".to_owned()]]);
        assert_eq!(trimmed(&table), "NAME      ID\neast      1\nsouthern  20");
    }
}
